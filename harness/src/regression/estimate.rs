use serde::{Deserialize, Serialize};

/// A geometric mean of ratios, with an interval that holds the true one in about 95 of 100 runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The geometric mean.
    pub mean: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// The standard error of the mean's logarithm.
    pub error: f64,
}

/// The normal distribution leaves 2.5 % above so many standard deviations.
const NORMAL: f64 = 1.959_964;

impl Estimate {
    /// From the logarithms of ratios that were found independently.
    ///
    /// The interval is the middle 95 % of the means of samples drawn from them with replacement, as many of each as there are. Such an
    /// interval is too narrow for few ratios: their spread is taken around their own mean, and is itself known only roughly. Both limits
    /// are therefore moved away from the mean by `sqrt(n / (n - 1)) t / z`, with the quantiles of Student's distribution with `n - 1` degrees of
    /// freedom and of the normal one.
    ///
    /// The same ratios and seed give the same interval on every machine.
    ///
    /// # Panics
    ///
    /// If there are fewer than two.
    pub fn of(logs: &[f64], seed: u64) -> Self {
        const SAMPLES: usize = 2000;
        let count = logs.len();
        assert!(count >= 2, "an interval of {count} ratios");
        let mean = logs.iter().sum::<f64>() / count as f64;
        let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
        let error = (squares / ((count - 1) * count) as f64).sqrt();

        let mut random = fastrand::Rng::with_seed(seed);
        let mut sample =
            || (0..count).map(|_| logs[random.usize(..count)]).sum::<f64>() / count as f64;
        let mut means: Vec<_> = (0..SAMPLES).map(|_| sample()).collect();
        means.sort_by(f64::total_cmp);
        let out = SAMPLES / 40;
        let wider = expansion(count);
        let limit = |at: usize| libm::exp(mean + wider * (means[at] - mean));
        Self { mean: libm::exp(mean), low: limit(out), high: limit(SAMPLES - 1 - out), error }
    }

    /// How far a mean of as many ratios may be from 1 if this one's truth is 1: the root of the mean square of its logarithm, as a share.
    pub fn distance_from_one(&self) -> f64 {
        libm::expm1(libm::hypot(libm::log(self.mean), self.error))
    }
}

/// By how much an interval of so many ratios is too narrow.
fn expansion(count: usize) -> f64 {
    (count as f64 / (count - 1) as f64).sqrt() * student(count - 1) / NORMAL
}

/// Above what Student's distribution leaves 2.5 %: the expansion in powers of `1 / freedom` about the normal quantile (Abramowitz and
/// Stegun, 26.7.5), good to 1 % from 3 degrees of freedom on.
fn student(freedom: usize) -> f64 {
    let (z, n) = (NORMAL, freedom as f64);
    let square = z * z;
    let first = z * (square + 1.0) / 4.0;
    let second = z * ((5.0 * square + 16.0) * square + 3.0) / 96.0;
    let third = z * (((3.0 * square + 19.0) * square + 17.0) * square - 15.0) / 384.0;
    z + first / n + second / (n * n) + third / (n * n * n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Against a table.
    #[test]
    fn quantiles_are_students() {
        for (freedom, expected) in [(3, 3.1824), (5, 2.5706), (11, 2.2010), (30, 2.0423)] {
            assert_relative_eq!(student(freedom), expected, max_relative = 0.01);
        }
    }

    #[test]
    fn equal_ratios_have_no_interval() {
        let estimate = Estimate::of(&[0.1; 6], 1);
        for found in [estimate.mean, estimate.low, estimate.high] {
            assert_relative_eq!(found, 0.1_f64.exp(), max_relative = 1e-12);
        }
        assert_relative_eq!(estimate.distance_from_one(), 0.1_f64.exp_m1(), max_relative = 1e-9);
    }

    #[test]
    fn slow_and_fast_count_alike() {
        let estimate = Estimate::of(&[0.5, -0.5, 0.3, -0.3], 7);
        assert_relative_eq!(estimate.mean, 1.0, max_relative = 1e-12);
        assert!(estimate.low < 0.8 && estimate.high > 1.25);
        let error = (0.68_f64 / 12.0).sqrt();
        assert_relative_eq!(estimate.error, error, max_relative = 1e-12);
    }

    #[test]
    fn a_seed_gives_an_interval() {
        let logs = [0.1, 0.05, -0.02, 0.07, 0.01];
        assert_eq!(Estimate::of(&logs, 3), Estimate::of(&logs, 3));
        assert_ne!(Estimate::of(&logs, 3), Estimate::of(&logs, 4));
    }

    /// Of normal logarithms, where the truth is known; fewer than the fewest blocks, so that it shows how much wider they must be.
    #[test]
    fn intervals_hold_the_truth() {
        const TRIALS: u64 = 400;
        for (count, least) in [(4, 0.90), (6, 0.92), (12, 0.92)] {
            let holds = |seed: &u64| {
                let mut random = fastrand::Rng::with_seed(*seed);
                let logs: Vec<_> = (0..count)
                    .map(|_| 0.1 * super::super::simulation::normal(&mut random))
                    .collect();
                let estimate = Estimate::of(&logs, *seed);
                estimate.low <= 1.0 && 1.0 <= estimate.high
            };
            let share = (0..TRIALS).filter(holds).count() as f64 / TRIALS as f64;
            assert!((least..=0.985).contains(&share), "{count} blocks: {share}");
        }
    }
}
