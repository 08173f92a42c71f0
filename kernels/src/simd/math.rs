//! Functions of lanes: their polynomials and the order of operations are part of the contract.

use super::{Lanes, Simd};

/// `ln 2` in two parts. The first has nine bits, so that its product with an integral power is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// The polynomial of Cephes' `expf`, from the highest degree down.
const COEFFICIENTS: [f32; 8] =
    [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0];

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
    exp_of_at_most_89(simd, x)
}

/// As [`exp`], one operation faster, for lanes that are at most 89.
#[inline(always)]
pub fn exp_of_at_most_89<S: Simd, const N: usize>(simd: S, mut x: [S::Lanes; N]) -> [S::Lanes; N] {
    /// Adding 1.5 * 2^23 leaves no fraction bits: the sum is rounded to an integer.
    const ROUND: f32 = 12_582_912.0;

    // Beyond this limit the result is 0; the order of operands lets NaN pass.
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
    let mut p = [simd.splat(COEFFICIENTS[0]); N];
    for i in 1..COEFFICIENTS.len() {
        for n in 0..N {
            p[n] = p[n].mul_add(r[n], simd.splat(COEFFICIENTS[i]));
        }
    }
    for n in 0..N {
        p[n] = p[n].scale_by_power(power[n]);
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

    fn exp_of(isa: Isa, x: &[f32; LANES]) -> [f32; LANES] {
        dispatch!(isa, simd => exp(simd, [simd.load(x)])[0].to_array())
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

        const STEPS: i32 = 100_000;
        let mut worst: f64 = 0.0;
        for step in -STEPS..=STEPS {
            // Where `power` changes, the reduced argument is a little more than ln 2 / 2.
            let r = f64::from(step) / f64::from(STEPS) * 0.346_58;
            let polynomial = COEFFICIENTS.iter().fold(0.0, |p, c| p * r + f64::from(*c));
            worst = worst.max((polynomial / r.exp() - 1.0).abs());
        }
        assert!((2.6e-9..2.7e-9).contains(&worst), "{worst:e}");
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
    fn exp_has_the_same_bits_on_every_isa() {
        for x in patterns() {
            let expected = exp_of(Isa::available()[0], &x);
            for isa in Isa::available() {
                for (expected, found) in expected.into_iter().zip(exp_of(isa, &x)) {
                    assert!(
                        expected.to_bits() == found.to_bits()
                            || expected.is_nan() && found.is_nan(),
                        "{isa}: {found:e}, expected {expected:e}"
                    );
                }
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
}
