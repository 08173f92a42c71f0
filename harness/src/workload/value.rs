use std::time::{Duration, Instant};

use lfm2_kernels::Isa;
use serde::{Deserialize, Serialize};

use super::Workload;

/// How long one run takes, as one process finds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// The median of the batches: what disturbs fewer than half of them does not count.
    pub seconds: f64,
    /// Runs that were timed.
    pub runs: u64,
}

/// Times batches of runs for about as long as `each` says, or three runs where that is longer.
pub fn measure(workload: &mut dyn Workload, isa: Isa, rows: usize, each: Duration) -> Value {
    const BATCHES: u32 = 15;
    const LEAST: usize = 3;
    let runs = runs_within(workload, isa, rows, each / BATCHES);
    let began = Instant::now();
    let mut batches = Vec::new();
    while batches.len() < LEAST || began.elapsed() < each {
        batches.push(run(workload, isa, rows, runs).as_secs_f64() / runs as f64);
    }
    batches.sort_by(f64::total_cmp);
    Value { seconds: batches[batches.len() / 2], runs: runs * batches.len() as u64 }
}

/// How many runs take as long as `time`, found by doubling; that warms everything up.
fn runs_within(workload: &mut dyn Workload, isa: Isa, rows: usize, time: Duration) -> u64 {
    let mut runs = 1;
    loop {
        let elapsed = run(workload, isa, rows, runs);
        if elapsed >= time {
            return (runs as f64 * time.as_secs_f64() / elapsed.as_secs_f64()).ceil() as u64;
        }
        runs *= 2;
    }
}

/// How long that many runs take.
pub(super) fn run(workload: &mut dyn Workload, isa: Isa, rows: usize, runs: u64) -> Duration {
    if workload.rewinds() {
        let mut elapsed = Duration::ZERO;
        for _ in 0..runs {
            workload.rewind();
            let start = Instant::now();
            workload.run(isa, rows);
            elapsed += start.elapsed();
        }
        return elapsed;
    }
    let start = Instant::now();
    for _ in 0..runs {
        workload.run(isa, rows);
    }
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the longer, the more rows.
    struct Sleeper {
        runs: u64,
    }

    impl Workload for Sleeper {
        fn restore(&mut self) {}

        fn run(&mut self, _: Isa, rows: usize) {
            self.runs += 1;
            std::thread::sleep(Duration::from_micros(rows as u64));
        }

        fn output(&self) -> &[f32] {
            &[]
        }
    }

    #[test]
    fn what_takes_long_runs_three_times_and_once_before() {
        let mut sleeper = Sleeper { runs: 0 };
        let value = measure(&mut sleeper, Isa::best(), 2000, Duration::from_millis(1));
        assert_eq!((value.runs, sleeper.runs), (3, 4));
        assert!(value.seconds >= 2e-3);
    }

    #[test]
    fn what_takes_short_runs_in_batches() {
        let mut sleeper = Sleeper { runs: 0 };
        let value = measure(&mut sleeper, Isa::best(), 10, Duration::from_millis(15));
        assert!(value.seconds >= 1e-5 && value.runs >= 3 && value.runs < sleeper.runs);
    }
}
