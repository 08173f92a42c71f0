use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long one run takes, as one process finds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// The median of the batches: what disturbs fewer than half of them does not count.
    pub seconds: f64,
    /// Runs that were timed.
    pub runs: u64,
}

impl Value {
    /// Times batches of runs for about as long as `each` says, or three runs where that is longer. `time` says how long so many runs take.
    pub fn measure(mut time: impl FnMut(u64) -> Duration, each: Duration) -> Self {
        const BATCHES: u32 = 15;
        const LEAST: usize = 3;
        let runs = runs_within(each / BATCHES, &mut time);
        let began = Instant::now();
        let mut batches = Vec::new();
        while batches.len() < LEAST || began.elapsed() < each {
            batches.push(time(runs).as_secs_f64() / runs as f64);
        }
        batches.sort_by(f64::total_cmp);
        Self { seconds: batches[batches.len() / 2], runs: runs * batches.len() as u64 }
    }

    /// Times just so many runs.
    pub fn of_runs(runs: u64, time: impl FnOnce(u64) -> Duration) -> Self {
        Self { seconds: time(runs).as_secs_f64() / runs as f64, runs }
    }
}

/// How many runs take as long as `wanted`, found by doubling; that warms everything up.
pub fn runs_within(wanted: Duration, mut time: impl FnMut(u64) -> Duration) -> u64 {
    let mut runs = 1;
    loop {
        let elapsed = time(runs);
        if elapsed >= wanted {
            return (runs as f64 * wanted.as_secs_f64() / elapsed.as_secs_f64()).ceil() as u64;
        }
        runs *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs that take so long each, without a clock; and how many there were.
    fn measured(seconds_of_run: f64, each: Duration) -> (Value, u64) {
        let mut all = 0;
        let time = |runs| {
            all += runs;
            let elapsed = Duration::from_secs_f64(seconds_of_run * runs as f64);
            std::thread::sleep(elapsed);
            elapsed
        };
        let value = Value::measure(time, each);
        (value, all)
    }

    #[test]
    fn what_takes_long_runs_three_times_and_once_before() {
        let (value, runs) = measured(2e-3, Duration::from_millis(1));
        assert_eq!((value, runs), (Value { seconds: 2e-3, runs: 3 }, 4));
    }

    #[test]
    fn what_takes_short_runs_in_batches() {
        let (value, runs) = measured(1e-5, Duration::from_millis(15));
        assert!((value.seconds - 1e-5).abs() < 1e-12 && value.runs >= 3 * 100 && value.runs < runs);
    }

    #[test]
    fn of_runs_is_their_mean() {
        let value = Value::of_runs(4, |runs| Duration::from_secs(2 * runs));
        assert_eq!(value, Value { seconds: 2.0, runs: 4 });
    }
}
