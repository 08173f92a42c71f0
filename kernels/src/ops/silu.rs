use crate::simd::math;
use crate::simd::slices::{AT_ONCE, inlined, map_in_place};
use crate::simd::{Isa, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Replaces each element of `x` by its sigmoid-weighted self: `x[i] = x[i] / (1 + exp(-x[i]))`.
///
/// Zeros keep their sign, and what underflows is -0. `silu(infinity)` is infinite; `silu(-infinity)` is NaN, a product of infinity and
/// zero. NaN stays NaN.
///
/// The error is at most 2.781 units in the last place for `x >= 0` and 3.803 for `x < 0`; where `exp(x)` is subnormal it is at most
/// `1.461 |x| 2^-149`, which is below 3e-43, and may be many units of a subnormal result. All are derived in `lfm2_harness::oracle::unary`.
/// Measured at every `f32` (`lfm2 check --exhaustive`) it is 2.242, 3.223 and 1.160.
///
/// Source: Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units" (2018).
pub fn silu(isa: Isa, x: &mut [f32]) {
    split_rows(x, 1, rows_worth_sharing(1), &|_, x| {
        dispatch!(isa, simd => map_in_place(simd, x, inlined!(|x: [_; AT_ONCE]| math::silu(simd, x))));
    });
}
