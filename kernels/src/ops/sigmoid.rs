use crate::simd::math;
use crate::simd::slices::{AT_ONCE, inlined, map_in_place};
use crate::simd::{Isa, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Replaces each element of `x` by its logistic function: `x[i] = 1 / (1 + exp(-x[i]))`.
///
/// `sigmoid(-infinity)` is +0 and `sigmoid(infinity)` is 1. NaN stays NaN.
///
/// The error is at most 1.501 units in the last place for `x >= 0`, 2.803 for `x < 0`, 0.961 where the result is subnormal: derived in
/// `lfm2_harness::oracle::unary`. Measured at every `f32` (`lfm2 check --exhaustive`) it is 1.499, 2.402 and 0.844.
pub fn sigmoid(isa: Isa, x: &mut [f32]) {
    split_rows(x, 1, rows_worth_sharing(1), &|_, x| {
        dispatch!(isa, simd => map_in_place(simd, x, inlined!(|x: [_; AT_ONCE]| math::sigmoid(simd, x))));
    });
}
