//! Functions of lanes: their polynomials and the order of operations are part of the contract.

use super::{Lanes, Simd};

/// Adding 1.5 * 2^23 leaves no fraction bits: the sum is rounded to an integer.
const ROUND: f32 = 12_582_912.0;

/// `ln 2` in two parts. The first has nine bits, so that its product with an integral power is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// The polynomial of Cephes' `expf`, from the highest degree down.
const POWER_OF_E: [f32; 8] =
    [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0];

/// The polynomial of degree 6 that is closest to `2^r` for `|r| <= 1/2`, relatively, and 1 at 0, from the highest degree down.
const POWER_OF_TWO: [f32; 7] =
    [1.532_647_3e-4, 1.339_080_6e-3, 9.618_506e-3, 5.550_36e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0];

/// `e` to the power of each lane.
///
/// `x = n ln 2 + r` with integral `n`, `|r| <= ln 2 / 2`; a polynomial of degree 7 (Cephes `expf`) gives `e^r`, which is
/// scaled by `2^n` in one rounding. Results below the normal range are subnormal, then 0 (so `exp(-infinity)` is +0), above
/// it infinite; NaN stays NaN.
///
/// Of `N` at once, as all functions here, each operation of all before the next: it waits for the one before, and a core looks no further
/// ahead than a few functions are long.
#[inline(always)]
pub fn exp<S: Simd, const N: usize>(simd: S, mut x: [S::Lanes; N]) -> [S::Lanes; N] {
    // Beyond this limit the result is infinite; the order of operands lets NaN pass.
    for n in 0..N {
        x[n] = simd.splat(89.0).min(x[n]);
    }
    // Beyond this one it is 0.
    for n in 0..N {
        x[n] = simd.splat(-105.0).max(x[n]);
    }
    let round = simd.splat(ROUND);
    let mut power = x;
    for n in 0..N {
        power[n] = x[n].mul_add(simd.splat(std::f32::consts::LOG2_E), round);
    }
    for n in 0..N {
        power[n] = power[n] - round;
    }
    let mut r = x;
    for part in LN_2 {
        for n in 0..N {
            r[n] = power[n].mul_add(simd.splat(-part), r[n]);
        }
    }
    let mut p = polynomial(simd, &POWER_OF_E, r);
    for n in 0..N {
        p[n] = p[n].scale_by_power(power[n]);
    }
    p
}

/// 2 to the power of each lane, which must be at most 127: what a softmax takes, and faster than [`exp`].
///
/// `x = n + r` with integral `n`, `|r| <= 1/2`, both exact; a polynomial of degree 6 gives `2^r`, which is multiplied by `2^n`. Where `n` is
/// less than -126 the result is 0 (so for -infinity); NaN stays NaN.
#[inline(always)]
pub fn exp2<S: Simd, const N: usize>(simd: S, mut x: [S::Lanes; N]) -> [S::Lanes; N] {
    /// The lowest bits of a sum with this are `n + 127`, an exponent as a float stores it.
    const ROUND_AND_BIAS: f32 = ROUND + 127.0;

    // Whatever is less becomes 0; the order of operands lets NaN pass.
    for n in 0..N {
        x[n] = simd.splat(-127.0).max(x[n]);
    }
    let round = simd.splat(ROUND_AND_BIAS);
    let mut power = x;
    for n in 0..N {
        power[n] = x[n] + round;
    }
    let mut r = x;
    for n in 0..N {
        r[n] = x[n] - (power[n] - round);
    }
    let mut p = polynomial(simd, &POWER_OF_TWO, r);
    for n in 0..N {
        p[n] = p[n] * power[n].lowest_bits_as_exponent();
    }
    p
}

/// By Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const DEGREES: usize, const N: usize>(
    simd: S,
    coefficients: &[f32; DEGREES],
    x: [S::Lanes; N],
) -> [S::Lanes; N] {
    let mut p = [simd.splat(coefficients[0]); N];
    for i in 1..DEGREES {
        for n in 0..N {
            p[n] = p[n].mul_add(x[n], simd.splat(coefficients[i]));
        }
    }
    p
}

/// `1 / (1 + e^-x)`, from `e^-|x|` so that nothing overflows.
#[inline(always)]
pub fn sigmoid<S: Simd, const N: usize>(simd: S, x: [S::Lanes; N]) -> [S::Lanes; N] {
    let one = simd.splat(1.0);
    let mut e = x;
    for n in 0..N {
        e[n] = simd.splat(0.0) - x[n].abs();
    }
    e = exp(simd, e);
    let mut sigmoid = x;
    for n in 0..N {
        sigmoid[n] = x[n].select_negative(e[n], one) / (one + e[n]);
    }
    sigmoid
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub fn silu<S: Simd, const N: usize>(simd: S, mut x: [S::Lanes; N]) -> [S::Lanes; N] {
    let sigmoid = sigmoid(simd, x);
    for n in 0..N {
        x[n] = x[n] * sigmoid[n];
    }
    x
}

/// `silu(gate) * up`.
#[inline(always)]
pub fn silu_multiply<S: Simd, const N: usize>(
    simd: S,
    gate: [S::Lanes; N],
    up: [S::Lanes; N],
) -> [S::Lanes; N] {
    let mut product = silu(simd, gate);
    for n in 0..N {
        product[n] = product[n] * up[n];
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, LANES, dispatch};

    type Function = fn(Isa, &[f32; LANES]) -> [f32; LANES];

    fn exp_of(isa: Isa, x: &[f32; LANES]) -> [f32; LANES] {
        dispatch!(isa, simd => exp(simd, [simd.load(x)])[0].to_array())
    }

    /// Of numbers beyond 127, of 127.
    fn exp2_of(isa: Isa, x: &[f32; LANES]) -> [f32; LANES] {
        let x = x.map(|x| if x > 127.0 { 127.0 } else { x });
        dispatch!(isa, simd => exp2(simd, [simd.load(&x)])[0].to_array())
    }

    /// Every 4099th bit pattern of a float, which is prime to the lanes and to the exponent's period.
    fn patterns() -> impl Iterator<Item = [f32; LANES]> {
        let mut bits = (0..=u32::MAX).step_by(4099);
        std::iter::from_fn(move || {
            let mut lanes = [0.0; LANES];
            for lane in &mut lanes {
                *lane = f32::from_bits(bits.next()?);
            }
            Some(lanes)
        })
    }

    /// The two errors of `exp` that are no roundings: what `lfm2_harness::oracle::unary` derives its limits from.
    #[test]
    fn exp_approximates_as_closely_as_its_limit_is_derived_from() {
        let [high, low] = LN_2.map(f64::from);
        let reduction = (std::f64::consts::LN_2 - high - low).abs();
        assert!((1.6e-12..1.7e-12).contains(&reduction), "{reduction:e}");

        // Where `power` changes, the reduced argument is a little more than ln 2 / 2.
        let worst = worst_of_polynomial(&POWER_OF_E, 0.346_58, f64::exp);
        assert!((2.6e-9..2.7e-9).contains(&worst), "{worst:e}");
    }

    /// As above, of the one error of `exp2` that is no rounding.
    #[test]
    fn exp2_approximates_as_closely_as_its_limit_is_derived_from() {
        let worst = worst_of_polynomial(&POWER_OF_TWO, 0.5, f64::exp2);
        assert!((2.9e-9..3.0e-9).contains(&worst), "{worst:e}");
    }

    /// The largest relative error in exact arithmetic, for arguments up to `most` of either sign.
    fn worst_of_polynomial(coefficients: &[f32], most: f64, exact: fn(f64) -> f64) -> f64 {
        const STEPS: i32 = 100_000;
        let mut worst: f64 = 0.0;
        for step in -STEPS..=STEPS {
            let r = f64::from(step) / f64::from(STEPS) * most;
            let polynomial = coefficients.iter().fold(0.0, |p, c| p * r + f64::from(*c));
            worst = worst.max((polynomial / exact(r) - 1.0).abs());
        }
        worst
    }

    #[test]
    fn exp_is_within_one_unit_in_the_last_place() {
        let mut worst: f64 = 0.0;
        for x in patterns() {
            for (x, found) in x.into_iter().zip(exp_of(Isa::best(), &x)) {
                let exact = f64::from(x).exp();
                if x.is_nan() {
                    assert!(found.is_nan());
                } else if exact as f32 == f32::INFINITY || exact == 0.0 {
                    assert_eq!(found, exact as f32, "exp({x:e})");
                } else {
                    let unit = exact.log2().floor().max(-126.0).exp2() * f64::from(f32::EPSILON);
                    worst = worst.max((f64::from(found) - exact).abs() / unit);
                }
            }
        }
        assert!((0.5..1.0).contains(&worst), "{worst}");
    }

    #[test]
    fn exp2_is_within_one_unit_in_the_last_place() {
        let mut worst: f64 = 0.0;
        for x in patterns() {
            for (x, found) in x.into_iter().zip(exp2_of(Isa::best(), &x)) {
                if x.is_nan() {
                    assert!(found.is_nan());
                } else if x < -126.5 {
                    assert_eq!(found, 0.0, "exp2({x:e})");
                } else {
                    let x = f64::from(x).min(127.0);
                    let unit = x.floor().max(-126.0).exp2() * f64::from(f32::EPSILON);
                    worst = worst.max((f64::from(found) - x.exp2()).abs() / unit);
                }
            }
        }
        assert!((0.5..1.0).contains(&worst), "{worst}");
    }

    #[test]
    fn functions_have_the_same_bits_on_every_isa() {
        for (name, function) in [("exp", exp_of as Function), ("exp2", exp2_of)] {
            for x in patterns() {
                same_bits_on_every_isa(name, function, &x);
            }
        }
    }

    fn same_bits_on_every_isa(name: &str, function: Function, x: &[f32; LANES]) {
        let expected = function(Isa::available()[0], x);
        for isa in Isa::available() {
            for (expected, found) in expected.into_iter().zip(function(isa, x)) {
                assert!(
                    expected.to_bits() == found.to_bits() || expected.is_nan() && found.is_nan(),
                    "{name}, {isa}: {found:e}, expected {expected:e}"
                );
            }
        }
    }

    #[test]
    fn exp_of_the_extremes() {
        let mut x = [0.0; LANES];
        x[..5].copy_from_slice(&[f32::NEG_INFINITY, f32::INFINITY, 0.0, -104.5, 88.8]);
        for isa in Isa::available() {
            let found = exp_of(isa, &x);
            assert_eq!(found[..5], [0.0, f32::INFINITY, 1.0, 0.0, f32::INFINITY], "{isa}");
        }
    }

    #[test]
    fn exp2_of_integers_and_the_extremes() {
        let mut x = [0.0; LANES];
        x[..7].copy_from_slice(&[f32::NEG_INFINITY, -127.0, -126.0, -1.0, -0.0, 3.0, 127.0]);
        let power = |n: i32| 2.0_f64.powi(n) as f32;
        let expected = [0.0, 0.0, power(-126), 0.5, 1.0, 8.0, power(127)];
        for isa in Isa::available() {
            assert_eq!(exp2_of(isa, &x)[..7], expected, "{isa}");
        }
    }
}
