//! What was under way when a process died: each thread writes the line of its case to a file before it runs, the process under what
//! circumstances, and another process, which waits, reads them.

use std::cell::OnceCell;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::emulate_default_handler;

use crate::emulator;

/// The environment variable that names the file; set where somebody waits.
pub const VARIABLE: &str = "LFM2_CASES_UNDER_WAY";

/// Bytes that a line takes, padded with spaces: the first those of the circumstances, then each thread's.
const SLOT: usize = 256;

static FILE: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = env::var_os(VARIABLE)?;
    let file = File::options().write(true).open(&path).ok()?;
    // Whoever waits has it open. Without a name it goes with both processes, however they end.
    let _ = fs::remove_file(path);
    Some(Mutex::new(file))
});

/// Notes under what circumstances all threads run their cases from now on, such as `with a fault`. Nothing happens if nobody waits.
pub fn announce_circumstances(circumstances: &str) {
    write_slot(0, circumstances);
}

/// Notes that this thread is about to run `case`. Nothing happens if nobody waits.
pub fn announce(case: &str) {
    write_slot(slot_of_thread(), case);
}

/// Notes that this thread's case is over.
pub fn is_over() {
    write_slot(slot_of_thread(), "");
}

fn slot_of_thread() -> u64 {
    thread_local! {
        static SLOT_OF_THREAD: OnceCell<u64> = const { OnceCell::new() };
    }
    static NEXT: AtomicU64 = AtomicU64::new(1);
    SLOT_OF_THREAD.with(|slot| *slot.get_or_init(|| NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn write_slot(slot: u64, line: &str) {
    let Some(file) = &*FILE else { return };
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    // A case whose line cannot be written must run nevertheless.
    let _ = file
        .seek(SeekFrom::Start(slot * SLOT as u64))
        .and_then(|_| file.write_all(format!("{line:SLOT$}").as_bytes()));
}

/// Runs this program again with the same arguments, waits, and returns its exit status, or `crashed` after it printed the cases
/// that a crash interrupted.
///
/// Nothing is returned to the process that is to do the work: the second one, or the first where no second one can be started.
pub fn supervise(crashed: u8) -> Option<ExitCode> {
    if env::var_os(VARIABLE).is_some() {
        LazyLock::force(&FILE);
        return None;
    }
    let mut file = tempfile::NamedTempFile::new().ok()?;
    let status = this_program().ok()?.env(VARIABLE, file.path()).status().ok()?;
    if let Some(code) = status.code() {
        // Under an emulator, a program of the other architecture starts and ends with this.
        const CANNOT_BE_STARTED: i32 = 127;
        if code == CANNOT_BE_STARTED {
            return None;
        }
        return Some(ExitCode::from(u8::try_from(code).unwrap_or(crashed)));
    }
    if let Some(signal @ (SIGINT | SIGTERM)) = status.signal() {
        // It was interrupted, and did not crash. The same signal is to end this process, and may not have reached it yet.
        let _ = emulate_default_handler(signal);
    }
    let mut lines = String::new();
    // What cannot be read is not known.
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut lines));
    // Standard error may be closed; the exit status tells as well.
    let _ = writeln!(io::stderr(), "{}", report(&status.to_string(), &lines));
    Some(ExitCode::from(crashed))
}

fn report(status: &str, lines: &str) -> String {
    let slots = lines.as_bytes().chunks(SLOT).map(String::from_utf8_lossy);
    let blank = |c: char| c.is_whitespace() || c == '\0';
    let mut slots = slots.map(|slot| slot.trim_matches(blank).to_string());
    let circumstances = slots.next().filter(|circumstances| !circumstances.is_empty());
    let circumstances = circumstances.map_or(String::new(), |text| format!("{text}, "));
    let cases: String = slots
        .filter(|case| !case.is_empty())
        .map(|case| format!("\n    lfm2 check --repro '{case}'"))
        .collect();
    let cases = if cases.is_empty() { " no case" } else { &cases };
    format!("CRASHED: {status}, {circumstances}while it ran{cases}")
}

fn this_program() -> io::Result<Command> {
    let mut command = emulator::command(env::current_exe()?);
    command.args(env::args_os().skip(1));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_every_case_under_way() {
        let cases = format!("{:SLOT$}{:SLOT$}{:SLOT$}", "add:length=1", "", "rope:rows=2");
        let text = "while it ran\n    lfm2 check --repro 'add:length=1'\n    lfm2 check --repro 'rope:rows=2'";
        for (circumstances, told) in [("", ""), ("with a fault", "with a fault, ")] {
            assert_eq!(
                report("signal: 11 (SIGSEGV)", &format!("{circumstances:SLOT$}{cases}")),
                format!("CRASHED: signal: 11 (SIGSEGV), {told}{text}")
            );
        }
        assert_eq!(report("signal: 9", ""), "CRASHED: signal: 9, while it ran no case");
        // A slot that nobody wrote.
        assert_eq!(
            report("signal: 9", &format!("{}add:length=1", "\0".repeat(SLOT))),
            "CRASHED: signal: 9, while it ran\n    lfm2 check --repro 'add:length=1'"
        );
    }
}
