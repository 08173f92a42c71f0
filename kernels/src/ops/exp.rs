use crate::simd::math;
use crate::simd::slices::{AT_ONCE, inlined, map_in_place};
use crate::simd::{Isa, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Replaces each element of `x` by `e` to its power.
///
/// Results below the normal range are subnormal, then +0, and above it infinite: `exp(-infinity)` is +0. NaN stays NaN.
///
/// The error is at most 0.921 units in the last place, 0.961 where the result is subnormal: derived in `lfm2_harness::oracle::unary`.
/// Measured at every `f32` (`lfm2 check --exhaustive`) it is 0.895 and 0.844.
pub fn exp(isa: Isa, x: &mut [f32]) {
    split_rows(x, 1, rows_worth_sharing(1), &|_, x| {
        dispatch!(isa, simd => map_in_place(simd, x, inlined!(|x: [_; AT_ONCE]| math::exp(simd, x))));
    });
}
