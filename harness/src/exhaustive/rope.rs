//! The tables of `rope` at every position, against sine and cosine in `f64`.
//!
//! Two errors are told apart, since the contract (rule 8) takes angles in `f32`, as the published model does:
//!
//! - *Entries*, against sine and cosine of the contract's angle: one rounding, half a ULP. The kernels take them in `f64` from the `libm`
//!   crate, off by less than one ULP of `f64`, and so is the reference: 2^-28 ULP of `f32` each, and as much for its reduced argument.
//! - *Angles*, against `position / theta^(2i / head_dim)`: power, quotient and product are rounded, which gives a relative error of 3 u
//!   with `u = 2^-24`, and products of those; where `2i / head_dim` is no `f32`, a difference of `d` adds `d ln theta`. The powers in `f64`
//!   are off by less than 2^-48 on either side. The position itself is exact up to 2^24.
//!
//! Sine and cosine change by no more than the angle, so what the table holds is within the sum of both of the exact value.

use std::f64::consts::FRAC_2_PI;

use lfm2_kernels::ops::RopeTable;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::oracle::bound::UNIT_ROUNDOFF;
use crate::oracle::ops::rope_angles;
use crate::oracle::unary::Unit;

/// The last position.
pub const LAST_POSITION: u32 = 131_072;

/// The largest error of an entry, in ULP.
pub const ENTRY_LIMIT: f64 = 0.5 + 1.0 / (1 << 26) as f64;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Table {
    /// The base of the angles.
    pub theta: f64,
    /// Two numbers for each angle.
    pub head_dim: usize,
}

/// The published model's table, other bases, and a head whose exponents are no `f32`.
pub const TABLES: [Table; 5] = [
    Table { theta: 1e6, head_dim: 64 },
    Table { theta: 1e4, head_dim: 64 },
    Table { theta: 1e7, head_dim: 128 },
    Table { theta: 5e5, head_dim: 96 },
    Table { theta: 1e6, head_dim: 80 },
];

/// A place in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// The position.
    pub position: u32,
    /// The pair of elements that is rotated by the angle.
    pub pair: usize,
}

/// What was found of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Which table.
    pub table: Table,
    /// Entries that were compared.
    pub entries: u64,
    /// The largest error of an entry, in ULP, and where.
    pub entry: (f64, Place),
    /// The largest error of an angle as a fraction of its bound, and where.
    pub angle: (f64, Place),
    /// The largest error of an angle, in radians.
    pub radians: f64,
}

impl Outcome {
    fn new(table: Table) -> Self {
        let none = (0.0, Place::default());
        Self { table, entries: 0, entry: none, angle: none, radians: 0.0 }
    }

    /// What is wrong, one line each.
    pub fn complaints(&self) -> Vec<String> {
        let Table { theta, head_dim } = self.table;
        let mut complaints = Vec::new();
        let mut complain = |what: &str, (error, place): (f64, Place), limit: f64| {
            let Place { position, pair } = place;
            let at = format!(
                "rope: theta {theta:e}, head_dim {head_dim}: {what} of pair {pair} at position {position}"
            );
            if error > limit {
                complaints.push(format!("{at} is off by {error:.8}: the limit is {limit:.8}"));
            } else if error < limit / 4.0 {
                complaints.push(format!(
                    "{at} is off by {error:.8}, and none by more: that proves nothing"
                ));
            }
        };
        complain("an entry", self.entry, ENTRY_LIMIT);
        complain("the angle, as a fraction of its bound,", self.angle, 1.0);
        complaints
    }

    fn merge(mut self, other: Self) -> Self {
        self.entries += other.entries;
        worsen(&mut self.entry, other.entry);
        worsen(&mut self.angle, other.angle);
        self.radians = self.radians.max(other.radians);
        self
    }
}

/// Keeps the larger error; the earlier place where they are equal.
fn worsen(worst: &mut (f64, Place), other: (f64, Place)) {
    let place = |(_, place): &(f64, Place)| (place.position, place.pair);
    if other.0 > worst.0 || other.0 == worst.0 && place(&other) < place(worst) {
        *worst = other;
    }
}

/// Compares `table` at every `stride`-th position and at the last. `progress` is told how many positions are done.
///
/// # Panics
///
/// If `stride` is 0.
pub fn sweep(table: Table, stride: u32, progress: &(dyn Fn(u64) + Sync)) -> Outcome {
    const BLOCK: usize = 512;
    let mut positions: Vec<u32> = (0..=LAST_POSITION).step_by(stride as usize).collect();
    if positions.last() != Some(&LAST_POSITION) {
        positions.push(LAST_POSITION);
    }
    let blocks: Vec<&[u32]> = positions.chunks(BLOCK).collect();
    let block = |positions: &[u32]| {
        let outcome = compare(table, positions);
        progress(positions.len() as u64);
        outcome
    };
    blocks.into_par_iter().map(block).reduce(|| Outcome::new(table), Outcome::merge)
}

/// How many positions [`sweep`] compares.
pub fn position_count(stride: u32) -> u64 {
    u64::from(LAST_POSITION.div_ceil(stride)) + 1
}

fn compare(table: Table, positions: &[u32]) -> Outcome {
    let Table { theta, head_dim } = table;
    let half = head_dim / 2;
    let mut found = RopeTable::new(theta, head_dim, positions.len());
    found.fill(positions.iter().map(|position| *position as usize));
    let angles = rope_angles(positions, head_dim, theta);
    let mut outcome = Outcome::new(table);
    for (row, &position) in positions.iter().enumerate() {
        for pair in 0..half {
            let place = Place { position, pair };
            let angle = angles[row * half + pair];
            let (sine, cosine) = sine_and_cosine(angle);
            for (exact, found) in
                [(sine, found.sines(row)[pair]), (cosine, found.cosines(row)[pair])]
            {
                let error = Unit::LastPlace.error(found, exact, found);
                // NaN is as wrong as can be.
                let error = if error.is_nan() { f64::INFINITY } else { error };
                worsen(&mut outcome.entry, (error, place));
                outcome.entries += 1;
            }
            let (exact, bound) = angle_and_bound(table, place);
            let error = (angle - exact).abs();
            outcome.radians = outcome.radians.max(error);
            if position > 0 {
                worsen(&mut outcome.angle, (error / bound, place));
            }
        }
    }
    outcome
}

/// The exact angle, and how far the contract's may be from it.
fn angle_and_bound(table: Table, place: Place) -> (f64, f64) {
    let exponent = (2 * place.pair) as f64 / table.head_dim as f64;
    let exact = f64::from(place.position) * table.theta.powf(-exponent);
    let exponent_error = (f64::from(exponent as f32) - exponent).abs();
    let rounded = (1.0 + UNIT_ROUNDOFF).powi(3) * (exponent_error * table.theta.ln()).exp();
    // 2^-46: the powers in f64, on both sides.
    (exact, exact * (rounded - 1.0 + 1.0 / (1_u64 << 46) as f64))
}

/// Sine and cosine of `angle`, which is not above 2^17, by a reduction of its own: only between -pi/4 and pi/4 is the platform trusted.
fn sine_and_cosine(angle: f64) -> (f64, f64) {
    // pi / 2 in parts of 33 bits: a quadrant below 2^17 times the first two is exact, and so is the difference from the first product.
    // No f32 up to 2^17 comes closer to a multiple than 4e-9, so what the last part leaves out, below 2^-80, does not count.
    const HALF_PI: [f64; 3] = [
        f64::from_bits(0x3FF9_21FB_5440_0000),
        f64::from_bits(0x3DD0_B461_1A60_0000),
        f64::from_bits(0x3BA3_198A_2E03_7073),
    ];
    let quadrant = (angle * FRAC_2_PI).round();
    let reduced = HALF_PI.iter().fold(angle, |rest, part| rest - quadrant * part);
    let (sine, cosine) = reduced.sin_cos();
    match quadrant as u32 % 4 {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sines_and_cosines_of_large_angles() {
        // Computed with mpmath to 40 digits.
        for (angle, sine, cosine) in [
            (0.5, 0.479425538604203, 0.8775825618903728),
            (131072.0, -0.9991137889507709, 0.04209081525029623),
            (100000.0, 0.03574879797201651, -0.9993608074382124),
            (77777.703125, -0.9618812049667914, -0.2734676352543998),
            (252.89820861816406, 1.0, -4.185706803757208e-09),
            (505.7964172363281, -8.371413607514415e-09, -1.0),
            (3.1415927410125732, -8.742278000372475e-08, -0.9999999999999962),
            (1.5707963705062866, 0.999999999999999, -4.371139000186241e-08),
        ] {
            let found = sine_and_cosine(angle);
            for (found, exact) in [(found.0, sine), (found.1, cosine)] {
                let error: f64 = (found / exact - 1.0_f64).abs();
                assert!(error < 2.0 * f64::EPSILON, "{angle}: {found:e} for {exact:e}");
            }
        }
    }

    #[test]
    fn a_wrong_angle_is_beyond_the_limit() {
        let table = TABLES[0];
        let place = Place { position: 100_000, pair: 3 };
        let (exact, bound) = angle_and_bound(table, place);
        let angle = rope_angles(&[100_000], 64, 1e6)[3];
        assert!((angle - exact).abs() < bound);
        let next = f64::from(f32::from_bits((angle as f32).to_bits() + 1));
        let error = Unit::LastPlace.error(0.0, next.sin(), angle.sin() as f32);
        assert!(error > 1000.0, "{error}");
    }

    #[test]
    fn what_is_wrong_or_proves_nothing_is_said() {
        let place = Place { position: 7, pair: 2 };
        let right = Outcome { entry: (0.5, place), angle: (0.8, place), ..Outcome::new(TABLES[0]) };
        assert!(right.complaints().is_empty());
        for wrong in [
            Outcome { entry: (0.500_001, place), ..right },
            Outcome { entry: (f64::INFINITY, place), ..right },
            Outcome { entry: (0.0, place), ..right },
            Outcome { angle: (1.001, place), ..right },
        ] {
            let complaints = wrong.complaints();
            assert!(
                complaints.len() == 1 && complaints[0].contains("position 7"),
                "{complaints:?}"
            );
        }
    }
}
