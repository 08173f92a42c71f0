//! Starting programs of the architecture that this one was built for.

use std::env;
use std::ffi::OsStr;
use std::process::Command;

/// Whether this program runs in an emulator, so that what is the same on every CPU need not be repeated.
pub fn is_at_work() -> bool {
    runner().is_some()
}

/// The emulator that cargo uses as runner, where this program needs it.
fn runner() -> Option<String> {
    let runner = env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").ok()?;
    (cfg!(target_arch = "aarch64") && !runner.trim().is_empty()).then_some(runner)
}

/// A command that runs `program`: through the emulator that cargo uses as runner, where this itself runs in one.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let Some(runner) = runner() else {
        return Command::new(program);
    };
    let mut words = runner.split_whitespace();
    let mut command = Command::new(words.next().expect("a runner is not empty"));
    command.args(words).arg(program);
    command
}
