//! Instructions, which a machine's moods do not change: a second signal, from valgrind.
//!
//! They say nothing of caches and of memory, and so decide nothing. Valgrind does not run every instruction set (AVX-512 not at all), and
//! counts threads that wait: where it cannot count, the reason is kept.

use lfm2_harness::report::Id;
use serde::Serialize;

use super::program::Program;

/// What a case takes.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Counts {
    /// Instructions of one run.
    Counted { base: u64, head: u64, ratio: f64 },
    /// Why they were not counted.
    None { none: String },
}

impl Counts {
    /// Of a case that takes about so long.
    pub fn of(base: &Program, head: &Program, id: &Id, seconds: f64) -> Self {
        // Starting a process takes some thousand instructions more or less: runs must take many more.
        const ENOUGH_SECONDS: f64 = 0.005;
        let runs = (ENOUGH_SECONDS / seconds).clamp(4.0, 1e6) as u64;
        let both = || {
            if id.threads != 1 {
                return Err("threads wait for each other: count with --threads 1".to_string());
            }
            Ok([of_one_run(base, id, runs)?, of_one_run(head, id, runs)?])
        };
        match both() {
            Ok([base, head]) => Self::Counted { base, head, ratio: head as f64 / base as f64 },
            Err(none) => Self::None { none },
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Counted { ratio, .. } => format!("{ratio:.4}"),
            Self::None { .. } => "no counts".to_string(),
        }
    }
}

/// What more runs take more: starting and preparing cancel out.
fn of_one_run(program: &Program, id: &Id, runs: u64) -> Result<u64, String> {
    let [once, more] = [1, 1 + runs].map(|runs| program.instructions(id, runs));
    let (once, more) = (once?, more?);
    match more.checked_sub(once).map(|difference| difference / runs) {
        None | Some(0) => Err(format!("{once} instructions for one run, {more} for {}", 1 + runs)),
        Some(count) => Ok(count),
    }
}
