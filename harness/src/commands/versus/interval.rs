//! Intervals that assume nothing of how times are distributed.

use serde::Serialize;

/// The fewest numbers that give an interval.
pub const LEAST: usize = 6;

/// How sure an interval is at least.
const CONFIDENCE: f64 = 0.95;

/// A median, and between which two of the numbers the true one lies.
#[derive(Clone, Copy, Serialize)]
pub struct Interval {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// The chance that such an interval holds the true median.
    pub confidence: f64,
}

impl Interval {
    /// From numbers that were drawn independently: so many of them are below the true median as of as many coins show heads. What is left
    /// out at each end is as much as can be.
    ///
    /// # Panics
    ///
    /// If there are fewer than [`LEAST`].
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let count = numbers.len();
        assert!(count >= LEAST, "an interval of {count} numbers");
        let mut interval = None;
        // The chance that exactly so many coins show heads, and that so many or fewer do.
        let (mut exactly, mut at_most) = (0.5_f64.powi(count as i32), 0.0);
        for out in 0..count / 2 {
            at_most += exactly;
            let confidence = 1.0 - 2.0 * at_most;
            if confidence < CONFIDENCE {
                break;
            }
            interval = Some((numbers[out], numbers[count - 1 - out], confidence));
            exactly *= (count - out) as f64 / (out + 1) as f64;
        }
        let (low, high, confidence) = interval.expect("there are enough numbers");
        Self { median: median(&numbers), low, high, confidence }
    }

    pub fn text(&self) -> String {
        format!("{:.3} ({:.3} to {:.3})", self.median, self.low, self.high)
    }
}

/// The middle one, or halfway between the middle two.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a table of the sign test.
    #[test]
    fn bounds_are_those_of_the_sign_test() {
        for (count, out, confidence) in
            [(6, 0, 0.968_75), (8, 0, 0.992_187_5), (9, 1, 0.960_937_5), (20, 5, 0.958_610_5)]
        {
            let found = Interval::of((0..count).rev().map(f64::from).collect());
            assert_eq!([found.low, found.high], [out, count - 1 - out].map(f64::from));
            assert!((found.confidence - confidence).abs() < 1e-6, "{count}");
            assert_eq!(found.median, f64::from(count - 1) / 2.0);
        }
    }
}
