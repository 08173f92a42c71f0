use std::f64::consts::TAU;

use fastrand::Rng;

/// Normal numbers, the same ones each time.
pub struct Noise(Rng);

impl Noise {
    /// From the first on.
    pub fn new() -> Self {
        Self(Rng::with_seed(1))
    }

    /// The next, of mean 0 and variance 1: by Box and Muller.
    pub fn next(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.f64()).ln()).sqrt();
        radius * (TAU * self.0.f64()).cos()
    }
}

/// The ends of the middle 95 % of `values`.
pub fn interval(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let left_out = values.len() / 40;
    (values[left_out], values[values.len() - 1 - left_out])
}
