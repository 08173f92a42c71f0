//! Random numbers for this module's tests, the same on every platform.

/// Steele, Lea and Flood's SplitMix64.
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Uniform on (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Normal with mean 0 and variance 1, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Normal numbers in `f32`.
    pub fn normals(&mut self, length: usize) -> Vec<f32> {
        (0..length).map(|_| self.normal() as f32).collect()
    }

    /// Numbers of either sign whose exponents are uniform between two powers of two.
    pub fn wide(&mut self, length: usize, lowest: f64, highest: f64) -> Vec<f32> {
        (0..length)
            .map(|_| {
                let magnitude = (lowest + (highest - lowest) * self.uniform()).exp2();
                (if self.uniform() < 0.5 { -magnitude } else { magnitude }) as f32
            })
            .collect()
    }
}
