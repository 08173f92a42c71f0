use crate::simd::slices::{fold, inlined};
use crate::simd::{Isa, Lanes, dispatch};

/// The index of the largest element of `x`, the lowest one on ties. NaN is never the largest; if nothing is larger than
/// -infinity the answer is 0.
///
/// # Panics
///
/// If `x` is empty.
pub fn argmax(isa: Isa, x: &[f32]) -> usize {
    assert!(!x.is_empty(), "argmax: no elements");
    let largest = dispatch!(isa, simd => fold(
        simd,
        x,
        f32::NEG_INFINITY,
        inlined!(|largest, x| x.max(largest)),
        inlined!(|a, b| a.max(b)),
    )
    .largest());
    if largest == f32::NEG_INFINITY {
        return 0;
    }
    x.iter().position(|&x| x == largest).expect("the largest element is one of them")
}
