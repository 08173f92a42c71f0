use crate::simd::math::exp;
use crate::simd::slices::{AT_ONCE, fold, inlined, map_in_place};
use crate::simd::{Isa, Lanes, Simd, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Exponentiates each row of `x` in place and scales it to sum to one:
/// `x[t][i] = exp(x[t][i] - max(x[t])) / sum(exp(x[t] - max(x[t])))`.
///
/// `x` is `[rows, length]`.
///
/// # Panics
///
/// If `x` is not whole rows of `length`.
pub fn softmax(isa: Isa, x: &mut [f32], length: usize) {
    if x.is_empty() {
        return;
    }
    assert!(
        length > 0 && x.len().is_multiple_of(length),
        "softmax: {} elements are not rows of {length}",
        x.len()
    );
    split_rows(x, length, rows_worth_sharing(length), &|_, x| {
        dispatch!(isa, simd => kernel(simd, x, length));
    });
}

#[inline(always)]
fn kernel<S: Simd>(simd: S, x: &mut [f32], length: usize) {
    for x in x.chunks_exact_mut(length) {
        let largest = fold(
            simd,
            x,
            f32::NEG_INFINITY,
            inlined!(|largest, x| x.max(largest)),
            inlined!(|a, b| a.max(b)),
        );
        let largest = simd.splat(largest.largest());
        map_in_place(
            simd,
            x,
            inlined!(|mut x: [_; AT_ONCE]| {
                for n in 0..AT_ONCE {
                    x[n] = x[n] - largest;
                }
                exp(simd, x)
            }),
        );
        let sum = fold(simd, x, 0.0, inlined!(|sum, x| sum + x), inlined!(|a, b| a + b));
        let sum = simd.splat(sum.sum());
        map_in_place(simd, x, inlined!(|[x]| [x / sum]));
    }
}
