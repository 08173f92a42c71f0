use crate::simd::math;
use crate::simd::slices::{inlined, map_in_place};
use crate::simd::{Isa, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Replaces each element of `x` by its sigmoid-weighted self: `x[i] = x[i] / (1 + exp(-x[i]))`.
///
/// Zeros keep their sign, and what underflows is -0. `silu(infinity)` is infinite; `silu(-infinity)` is NaN, a product of infinity and
/// zero, as in PyTorch. NaN stays NaN.
///
/// The error is at most 2.781 units in the last place for `x >= 0` and 3.803 for `x < 0`; where `exp(x)` is subnormal it is at most
/// `1.461 |x| 2^-149`, which is below 3e-43, and may be many units of a subnormal result. All are derived in `lfm2_harness::oracle::unary`.
/// Measured at every 101st `f32` it is 2.194, 3.107 and 1.085; `lfm2 check --exhaustive` measures it at all of them.
///
/// Source: Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units" (2018).
pub fn silu(isa: Isa, x: &mut [f32]) {
    split_rows(x, 1, rows_worth_sharing(1), &|_, x| {
        dispatch!(isa, simd => map_in_place(simd, x, inlined!(|x| math::silu(simd, x))));
    });
}
