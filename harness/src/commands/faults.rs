//! `lfm2 faults`: bugs on purpose, each of which the gate must catch.

use std::process::ExitCode;

use clap::Args;
use lfm2_kernels::Isa;
use regex::Regex;

use super::Failure;

/// Switch seeded faults on, one at a time, and show what catches each
///
/// Runs the gate on each instruction set with each fault until something goes red: bits, bounds, hashes or any other check. The table
/// shows which check it was, of which operation, and how many cases had run. Needs a build with `--features faults`. Exit status: 0 if
/// every fault was caught, 1 if one survived, was never reached, took too long or crashed (it is named, and those after it are not tried),
/// or one that is said to change nothing was caught, 2 the question makes no sense.
#[derive(Args)]
#[cfg_attr(not(feature = "faults"), allow(dead_code))]
pub struct FaultsArguments {
    /// Only faults whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    fault: Option<Regex>,

    /// Only these instruction sets, such as scalar,avx2 [default: all that this CPU has]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    isa: Vec<Isa>,

    /// Random cases for each operation, after the shapes that are always checked
    #[arg(long, value_name = "N", default_value_t = 64)]
    cases: u32,

    /// Seconds that a fault may take on an instruction set
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "faults"))]
pub fn run(_: &FaultsArguments) -> Result<ExitCode, Failure> {
    Err("this program was built without faults: cargo run --release --features faults --bin lfm2 -- faults".into())
}

#[cfg(feature = "faults")]
pub fn run(arguments: &FaultsArguments) -> Result<ExitCode, Failure> {
    seeded::run(arguments)
}

#[cfg(feature = "faults")]
mod seeded {
    use std::io::{self, Write};
    use std::panic;
    use std::process::{self, ExitCode};
    use std::sync::mpsc::{self, RecvTimeoutError, Sender};
    use std::thread;
    use std::time::Duration;

    use lfm2_harness::faults::{Fault, Verdict};
    use lfm2_harness::machine::Machine;
    use lfm2_harness::witness;
    use lfm2_kernels::Isa;
    use serde::Serialize;

    use super::FaultsArguments;
    use crate::commands::output::{counted, print, print_json};
    use crate::commands::settings::chosen_isas;
    use crate::commands::{FAILED, Failure, progress};

    #[derive(Serialize)]
    struct Summary {
        commit: &'static str,
        is_dirty: bool,
        machine: Machine,
        is_right: bool,
        isas: Vec<&'static str>,
        faults: usize,
        caught: usize,
        survived: usize,
        unreached: usize,
        equivalent: usize,
        results: Vec<Row>,
    }

    /// A fault on an instruction set.
    #[derive(Serialize)]
    struct Row {
        fault: &'static str,
        class: String,
        /// `None` for a fault of the gate, which knows no instruction sets.
        isa: Option<&'static str>,
        result: &'static str,
        by: Option<String>,
        at: Option<&'static str>,
        after_cases: Option<usize>,
        equivalent_because: Option<&'static str>,
        is_right: bool,
    }

    pub fn run(arguments: &FaultsArguments) -> Result<ExitCode, Failure> {
        // A crash must name its fault.
        if let Some(status) = witness::supervise(FAILED) {
            return Ok(status);
        }
        let isas = chosen_isas(&arguments.isa);
        let mut faults = Fault::all();
        if let Some(pattern) = &arguments.fault {
            faults.retain(|fault| pattern.is_match(fault.name));
        }
        if faults.is_empty() {
            return Err("no fault has such a name".into());
        }
        // Faults make operations panic: what they say is not wanted.
        panic::set_hook(Box::new(|_| ()));
        let watchdog = Watchdog::start(Duration::from_secs(arguments.timeout));
        let on = |fault: &Fault| -> Vec<Isa> {
            let of = if fault.is_of_the_gate() { &isas[isas.len() - 1..] } else { &isas[..] };
            of.iter().copied().filter(|isa| fault.exists_on(*isa)).collect()
        };
        let runs = faults.iter().map(|fault| on(fault).len()).sum();
        if runs == 0 {
            return Err("no such fault exists on these instruction sets".into());
        }
        let bar = progress::bar("faults", "runs", runs);
        let mut results = Vec::new();
        for fault in &faults {
            for isa in on(fault) {
                bar.set_message(fault.name);
                let name = format!("with the fault {:?} on {isa}", fault.name);
                witness::announce_circumstances(&name);
                watchdog.watch(name);
                results.push(row(fault, isa, fault.try_on(isa, arguments.cases)?));
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        let count = |result: &str| results.iter().filter(|row| row.result == result).count();
        let summary = Summary {
            commit: env!("LFM2_COMMIT"),
            is_dirty: env!("LFM2_IS_DIRTY") == "true",
            machine: Machine::detect(),
            is_right: results.iter().all(|row| row.is_right),
            isas: isas.iter().map(|isa| isa.name()).collect(),
            faults: faults.len(),
            caught: count("caught"),
            survived: count("survived"),
            unreached: count("unreached"),
            equivalent: count("equivalent"),
            results,
        };
        if arguments.json {
            print_json(&summary)?;
        } else {
            print(&table(&summary, &faults, &isas))?;
        }
        Ok(if summary.is_right { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }

    fn row(fault: &Fault, isa: Isa, verdict: Verdict) -> Row {
        let mut row = Row {
            fault: fault.name,
            class: format!("{:?}", fault.class).to_lowercase(),
            isa: (!fault.is_of_the_gate()).then(|| isa.name()),
            result: "",
            by: None,
            at: None,
            after_cases: None,
            equivalent_because: fault.equivalent,
            is_right: false,
        };
        (row.result, row.is_right) = match (verdict, fault.equivalent) {
            (Verdict::Caught { by, at, after }, equivalent) => {
                (row.by, row.at, row.after_cases) = (Some(by), Some(at), Some(after));
                ("caught", equivalent.is_none())
            }
            (Verdict::Survived, Some(_)) => ("equivalent", true),
            (Verdict::Survived, None) => ("survived", false),
            (Verdict::Unreached, _) => ("unreached", false),
        };
        row
    }

    /// Faults by instruction sets, those of the gate, then those that change nothing.
    fn table(summary: &Summary, faults: &[Fault], isas: &[Isa]) -> String {
        let cell = |row: &Row| match (&row.by, row.at, row.after_cases) {
            (Some(by), Some(at), Some(after)) => format!("{by}, {at}, {after}"),
            _ => row.result.to_uppercase(),
        };
        let of = |fault: &Fault| -> Vec<&Row> {
            summary.results.iter().filter(|row| row.fault == fault.name).collect()
        };
        let width = faults.iter().map(|fault| fault.name.len()).max().unwrap_or(0);
        let mut text = format!(
            "{:width$}  caught by which check, of which operation, at which case\n",
            "fault"
        );
        text += &format!("{:width$}", "");
        for isa in isas {
            text += &format!("  {:30}", isa.name());
        }
        text += "\n";
        for fault in faults {
            text += &format!("{:width$}", fault.name);
            let rows = of(fault);
            if fault.is_of_the_gate() {
                text += &format!("  {:30}", cell(rows[0]));
            } else {
                for isa in isas {
                    let row = rows.iter().find(|row| row.isa == Some(isa.name()));
                    text += &format!("  {:30}", row.map_or("-".into(), |row| cell(row)));
                }
            }
            text.truncate(text.trim_end().len());
            text += "\n";
        }
        for fault in faults {
            if let Some(reason) = fault.equivalent {
                text += &format!("\nequivalent: {}: {reason}", fault.name);
            }
        }
        text + &format!(
            "\n\n{}: {} caught, {} survived, {} unreached, {} equivalent\n",
            counted(summary.faults, "fault"),
            summary.caught,
            summary.survived,
            summary.unreached,
            summary.equivalent
        )
    }

    /// Ends the program when a fault takes too long: a loop that does not end cannot be left otherwise.
    struct Watchdog {
        next: Sender<String>,
    }

    impl Watchdog {
        fn start(patience: Duration) -> Self {
            let (next, names) = mpsc::channel::<String>();
            thread::spawn(move || {
                let Ok(mut name) = names.recv() else { return };
                loop {
                    match names.recv_timeout(patience) {
                        Ok(next) => name = next,
                        Err(RecvTimeoutError::Disconnected) => return,
                        Err(RecvTimeoutError::Timeout) => {
                            // The exit status tells as well.
                            let _ = writeln!(io::stderr(), "TIMED OUT: {name}: {patience:?}");
                            process::exit(FAILED.into());
                        }
                    }
                }
            });
            Self { next }
        }

        fn watch(&self, name: String) {
            self.next.send(name).expect("the watchdog waits as long as this lives");
        }
    }
}
