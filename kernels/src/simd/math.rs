//! Functions of lanes: their polynomials and the order of operations are part of the contract.

use super::{Lanes, Simd};

/// `e` to the power of each lane.
///
/// `x = n ln 2 + r` with integral `n`, `|r| <= ln 2 / 2`; a polynomial of degree 7 (Cephes `expf`) gives `e^r`, which is
/// scaled by `2^n` in one rounding. Results below the normal range are subnormal, then 0 (so `exp(-infinity)` is +0), above
/// it infinite; NaN stays NaN.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::Lanes) -> S::Lanes {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding 1.5 * 2^23 leaves no fraction bits: the sum is rounded to an integer.
    const ROUND: f32 = 12_582_912.0;

    // Beyond these limits the result is 0 or infinite; the order of operands lets NaN pass.
    let x = simd.splat(-105.0).max(x);
    let x = simd.splat(89.0).min(x);
    let round = simd.splat(ROUND);
    let power = x.mul_add(simd.splat(std::f32::consts::LOG2_E), round) - round;
    let r = power.mul_add(simd.splat(-LN_2_HIGH), x);
    let r = power.mul_add(simd.splat(-LN_2_LOW), r);
    let p = simd.splat(1.987_569_1e-4);
    let p = p.mul_add(r, simd.splat(1.398_2e-3));
    let p = p.mul_add(r, simd.splat(8.333_452e-3));
    let p = p.mul_add(r, simd.splat(4.166_579_6e-2));
    let p = p.mul_add(r, simd.splat(1.666_666_5e-1));
    let p = p.mul_add(r, simd.splat(5.000_000_1e-1));
    let p = p.mul_add(r, simd.splat(1.0));
    let p = p.mul_add(r, simd.splat(1.0));
    p.scale_by_power(power)
}

/// `x / (1 + e^-x)`, from `e^-|x|` so that nothing overflows.
#[inline(always)]
pub fn silu<S: Simd>(simd: S, x: S::Lanes) -> S::Lanes {
    let one = simd.splat(1.0);
    let e = exp(simd, simd.splat(0.0) - x.abs());
    x * (x.select_negative(e, one) / (one + e))
}
