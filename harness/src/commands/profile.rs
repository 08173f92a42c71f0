//! Which profile a command runs under. It changes how long a command takes, and no result.

use std::io::{self, Write};

use lfm2_harness::machine::Machine;
use lfm2_harness::profile::{Applied, Choice};

use super::Failure;

#[derive(clap::Args)]
pub struct ProfileArguments {
    /// What `lfm2 tune` wrote, or `none` for the built-in values [default: lfm2/profile.json in your folder of configurations, if it is there]
    ///
    /// The result is the same under each.
    #[arg(long, value_name = "FILE|none")]
    profile: Option<Choice>,
}

impl ProfileArguments {
    /// The profile that applies, after a warning if it is another machine's.
    pub fn applied(&self) -> Result<Applied, Failure> {
        let applied = self.profile.clone().unwrap_or_default().on(Machine::detect)?;
        if let Some(warning) = &applied.warning {
            // Nobody is left to warn if standard error is closed.
            let _ = writeln!(io::stderr(), "warning: {warning}");
        }
        Ok(applied)
    }

    /// Puts it in force.
    pub fn install(&self) -> Result<(), Failure> {
        self.applied()?.profile.install();
        Ok(())
    }
}
