//! Starting programs of the architecture that this one was built for.

use std::env;
use std::ffi::OsStr;
use std::process::Command;

/// A command that runs `program`: through the emulator that cargo uses as runner, where this itself runs in one.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let runner = env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        Some(emulator) if cfg!(target_arch = "aarch64") => {
            let mut command = Command::new(emulator);
            command.args(words).arg(program);
            command
        }
        _ => Command::new(program),
    }
}
