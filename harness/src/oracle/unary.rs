//! `exp`, `sigmoid` and `silu` of one number, and how far the kernels may stray from them.
//!
//! An error is given in units in the last place (ULP) of the result that was found (Goldberg, "What every computer scientist should know
//! about floating-point arithmetic"): `2^-23` times its power of two, `2^-149` for subnormal results. A relative error of `c u`, with
//! `u = 2^-24`, is therefore at most `c` ULP, and at least `c / 2`. One rounding is half a ULP, or a relative error of at most `u`.
//!
//! # `exp`
//!
//! The contract's `exp` (rule 7) is `x = n ln 2 + r`, `|r| <= R = ln 2 / 2`, `p = polynomial(r)`, `p 2^n`. In units of `u`, its relative
//! errors are
//!
//! - *Reduction*, 0.25: `x` less `n` times the first part of `ln 2` is exact, since both are multiples of 2^-25 and their difference is
//!   below 1/2. The second step rounds once: `|r| < 1/2`, so it moves `r` by at most 2^-26, which `exp` turns into a relative error.
//! - *Constants*, 0.0042: the two parts of `ln 2` are off by 1.65e-12, times `|n| <= 152`.
//! - *Polynomial*, 0.0453: in exact arithmetic it is within 2.7e-9 of `e^r` (a test beside the kernel holds both).
//! - *Horner*, 1.003: step by step, a rounding at the coefficient of `r^k` arrives at the result times `|r|^k`. For `r >= 0` the seven
//!   partial results lie in the octaves that begin at 1, 1, 1/2, 1/8, 1/32, 1/128, 1/1024, so the absolute error is at most
//!   `u (1 + r + r^2 / 2 + r^3 / 8 + r^4 / 32 + r^5 / 128 + r^6 / 1024) <= u e^r`. For `r = -a < 0` the first three lie one octave lower:
//!   `u (1/2 + a/2 + a^2 / 4 + a^3 / 8 + a^4 / 32 + ...) <= u (e^a / 2 + 0.0019)`, and `e^a / e^-a <= 2`, `0.0019 e^a < 0.003`.
//!
//! In ULP it is less. For `r >= 0`, `p < 1.41422` and a ULP is `2 u`: the sum of the relative errors times `p / 2`, largest at `r = R`.
//! For `r < 0` a ULP is `u`: `e^a / 2 + 0.0019 + e^-a (0.25 + 0.0042 + 0.0453)`, which grows with `a`, and at `a = R` is the relative error
//! times `sqrt(1/2)`, as in the other case. `p 2^n` is exact if it is normal. If it is subnormal, it is rounded once more, and what `p`
//! brings along is at most half as many ULP as before, since a ULP is twice as large or more.
//!
//! # `sigmoid`
//!
//! `(x < 0 ? e : 1) / (1 + e)` with `e = exp(-|x|)`. The sum is in 1..2 and off by `u` in rounding it.
//!
//! - `x >= 0`: the result is in 1/2..1, where a ULP is `u`. An `e` in `t/2..t`, `t` a power of two up to 1, is off by at most 1 ULP of
//!   it, `u t`; the sum by `u (1 + t)`; the quotient by that over `(1 + e)^2 >= (1 + t/2)^2 >= 1 + t`. So 1 ULP, and its own rounding.
//! - `x < 0`: the relative errors of `e` and of the sum, and half a ULP.
//! - `e` subnormal: the sum is 1, the result `e`, with the error of `exp`.
//!
//! # `silu`
//!
//! `x` times that.
//!
//! - `x >= 0`: as above, with `E` for the error of `exp` in ULP, the quotient is off by
//!   `u (1 + E t) / (1 + e) <= u (1 + E t) / (1 + t / 2)`, relatively. Since `E > 1/2`, it is largest at `t = 1`. Then it is
//!   rounded (`u`), and so is the product (half a ULP).
//! - `x < 0`: as above, with the rounding of the quotient (`u`), and half a ULP.
//! - `e` subnormal: `|x|` times the error of `exp`, which is of the size of 2^-149, and the rounding of the product: it is at most
//!   `|x| 2^-126`, so that half a ULP is at most `|x| 2^-150`. In ULP this is much where the result is subnormal, so it is given in units
//!   of `|x| 2^-149`: below 3e-43 in all.
//!
//! Products of these errors are below 1e-5 ULP, as is the reference's own error.

/// `exp`, `sigmoid` and `silu` of a number.
#[derive(Clone, Copy, Debug)]
pub struct Exact {
    /// `e^x`.
    pub exp: f64,
    /// `1 / (1 + e^-x)`.
    pub sigmoid: f64,
    /// `x / (1 + e^-x)`.
    pub silu: f64,
}

impl Exact {
    /// All three of `x`, from one `e^-|x|`: neither the quotients nor the signs of zeros suffer where `e^x` or `e^-x` overflows.
    ///
    /// The `libm` crate's `exp` is off by less than one ULP of `f64`, a relative error of 2^-52, and at most three roundings follow:
    /// less than 2^-50 in all, or 2^-26 ULP of `f32`.
    pub fn of(x: f32) -> Self {
        let x = f64::from(x);
        let e = libm::exp(-x.abs());
        let (exp, sigmoid) = if x < 0.0 { (e, e / (1.0 + e)) } else { (1.0 / e, 1.0 / (1.0 + e)) };
        Self { exp, sigmoid, silu: x * sigmoid }
    }
}

/// `ln 2^-126`: below it, `e^x` is subnormal. No `f32` is within 3e-6 of it, so no error makes it doubtful which.
pub const EXP_IS_SUBNORMAL: f64 = -126.0 * std::f64::consts::LN_2;

/// The errors of `exp` that are relative to its result, in units of 2^-24.
pub const EXP_RELATIVE: f64 = 0.25 + 0.0042 + 0.0453 + 1.003;

/// The largest error of `exp` in ULP, where its result is normal.
pub const EXP_ULP: f64 = EXP_RELATIVE * std::f64::consts::FRAC_1_SQRT_2 + SMALL;

/// The errors of the kernels' `exp2`, relative to its result where that is normal, in units of 2^-24.
///
/// The contract's `exp2` (rule 7) is `x = n + r`, `|r| <= 1/2`, `p = polynomial(r)`, `p 2^n`. `n` and `r` are exact: `r` is a multiple of the last
/// place of `x`, or `x` itself. Left are
///
/// - *Polynomial*, 0.0503: in exact arithmetic it is within 3.0e-9 of `2^r` (a test beside the kernel holds it).
/// - *Horner*, 1.112: as of `exp` above. The six partial results lie in the octaves that begin at 1, 1/2, 1/8 (1/4 from `r > 0` on), 1/32, 1/128,
///   1/1024. For `r >= 0` the absolute error is at most `u (1 + r / 2 + r^2 / 4 + r^3 / 32 + r^4 / 128 + r^5 / 1024) <= u 2^r`; for `r = -a < 0` the
///   first lies one octave lower, and it is at most `u (1/2 + a / 2 + a^2 / 8 + a^3 / 32 + a^4 / 128 + a^5 / 1024)`. Relatively to `2^-a` that
///   grows with `a`: at 1/2 it is `0.7857 * sqrt(2) u`.
pub const EXP2_RELATIVE: f64 = 0.0503 + 1.112;

/// Products of errors, and the reference's error.
const SMALL: f64 = 1e-5;

/// The largest error of `exp` in ULP, where its result is subnormal.
const EXP_SUBNORMAL: f64 = 0.5 + EXP_ULP / 2.0;

/// What errors of a range are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The distance of the result found to the next `f32`.
    LastPlace,
    /// `|x| 2^-149`.
    SubnormalTimesInput,
}

impl Unit {
    /// As a column of a table shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LastPlace => "ULP",
            Self::SubnormalTimesInput => "|x| 2^-149",
        }
    }

    /// How many of it lie between `found` and `exact`.
    #[inline]
    pub fn error(self, x: f32, exact: f64, found: f32) -> f64 {
        let difference = (f64::from(found) - exact).abs();
        match self {
            Self::LastPlace => difference * last_places_in_one(found),
            Self::SubnormalTimesInput => {
                difference / (f64::from(x).abs() * f64::from(f32::from_bits(1)))
            }
        }
    }
}

/// One divided by a unit in the last place of `found`, a power of two.
#[inline]
fn last_places_in_one(found: f32) -> f64 {
    let exponent = u64::from(found.to_bits() >> 23 & 0xFF).max(1);
    f64::from_bits((1023 + 150 - exponent) << 52)
}

/// Inputs to which one limit applies.
#[derive(Debug)]
pub struct Range {
    /// Which inputs these are.
    pub name: &'static str,
    /// They are below this, and not in the range before.
    pub below: f64,
    /// What their errors are measured in.
    pub unit: Unit,
    /// How many units the largest error may be.
    pub limit: f64,
}

const EXP_SUBNORMAL_RANGE: Range = Range {
    name: "exp(x) < 2^-126",
    below: EXP_IS_SUBNORMAL,
    unit: Unit::LastPlace,
    limit: EXP_SUBNORMAL,
};

/// The limits of `exp`.
pub const EXP_RANGES: [Range; 2] = [
    EXP_SUBNORMAL_RANGE,
    Range { name: "exp(x) >= 2^-126", below: f64::INFINITY, unit: Unit::LastPlace, limit: EXP_ULP },
];

/// The limits of `sigmoid`.
pub const SIGMOID_RANGES: [Range; 3] = [
    EXP_SUBNORMAL_RANGE,
    Range { name: "x < 0", below: 0.0, unit: Unit::LastPlace, limit: EXP_RELATIVE + 1.5 + SMALL },
    Range { name: "x >= 0", below: f64::INFINITY, unit: Unit::LastPlace, limit: 1.5 + SMALL },
];

/// The limits of `silu`.
pub const SILU_RANGES: [Range; 3] = [
    Range {
        name: "exp(x) < 2^-126",
        below: EXP_IS_SUBNORMAL,
        unit: Unit::SubnormalTimesInput,
        limit: EXP_SUBNORMAL + 0.5 + SMALL,
    },
    Range { name: "x < 0", below: 0.0, unit: Unit::LastPlace, limit: EXP_RELATIVE + 2.5 + SMALL },
    Range {
        name: "x >= 0",
        below: f64::INFINITY,
        unit: Unit::LastPlace,
        limit: (1.0 + EXP_ULP) / 1.5 + 1.5 + SMALL,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_by_hand() {
        let exact = Exact::of(1.0);
        assert!((exact.exp - std::f64::consts::E).abs() < 1e-15);
        assert!((exact.sigmoid - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert_eq!(exact.silu, exact.sigmoid);
        let exact = Exact::of(-2.0);
        assert!((exact.exp - 0.135_335_283_236_612_7).abs() < 1e-16);
        assert!((exact.sigmoid - 0.119_202_922_022_117_56).abs() < 1e-16);
        assert!((exact.silu + 0.238_405_844_044_235_1).abs() < 1e-16);
    }

    #[test]
    fn functions_of_the_extremes() {
        let exact = Exact::of(f32::INFINITY);
        assert_eq!([exact.exp, exact.sigmoid, exact.silu], [f64::INFINITY, 1.0, f64::INFINITY]);
        let exact = Exact::of(f32::NEG_INFINITY);
        assert_eq!([exact.exp, exact.sigmoid], [0.0; 2]);
        assert!(exact.silu.is_nan());
        let exact = Exact::of(f32::NAN);
        assert!([exact.exp, exact.sigmoid, exact.silu].into_iter().all(f64::is_nan));
        let exact = Exact::of(-f32::MAX);
        assert_eq!([exact.exp, exact.sigmoid, exact.silu], [0.0; 3]);
        assert!(exact.silu.is_sign_negative());
    }

    #[test]
    fn units_are_distances_to_the_next_float() {
        for found in [1.0_f32, 1.5, -3.0, 0.1, 1e-30, f32::MIN_POSITIVE, 1e-40, f32::MAX / 2.0] {
            let above = f32::from_bits(found.to_bits() + 1);
            assert_eq!(Unit::LastPlace.error(7.0, f64::from(above), found), 1.0, "{found:e}");
        }
        assert_eq!(Unit::LastPlace.error(7.0, 0.5 * f64::from(f32::from_bits(1)), 0.0), 0.5);
        let exact = 3.0 * f64::from(f32::from_bits(2));
        assert_eq!(Unit::SubnormalTimesInput.error(-2.0, exact, 0.0), 3.0);
    }

    /// Each limit as a number, so that it does not change unseen.
    #[test]
    fn limits_are_those_published() {
        let limits = |ranges: &[Range]| -> Vec<f64> {
            ranges.iter().map(|range| (range.limit * 1000.0).round() / 1000.0).collect()
        };
        assert_eq!(limits(&EXP_RANGES), [0.961, 0.921]);
        assert_eq!(limits(&SIGMOID_RANGES), [0.961, 2.803, 1.5]);
        assert_eq!(limits(&SILU_RANGES), [1.461, 3.803, 2.781]);
    }
}
