use crate::simd::slices::{fold, inlined, zip_map};
use crate::simd::{Isa, Lanes, Simd, dispatch};
use crate::slowed;
use crate::threads::{rows_worth_sharing, split_rows};

/// Divides each row of `x` by its root mean square, then multiplies it by `weight`:
/// `out[t][i] = x[t][i] / sqrt(mean(x[t]²) + epsilon) * weight[i]`.
///
/// `x` and `out` are `[rows, weight.len()]`. With rows of `head_dim` it is the norm of queries and keys per head.
/// Source: `Lfm2RMSNorm` of Hugging Face transformers.
///
/// # Panics
///
/// If `x` and `out` differ in length, or are not whole rows of `weight.len()`.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "rms_norm: x and out differ in length");
    if x.is_empty() {
        return;
    }
    let length = weight.len();
    assert!(
        length > 0 && x.len().is_multiple_of(length),
        "rms_norm: {} elements are not rows of {length}",
        x.len()
    );
    split_rows(out, length, rows_worth_sharing(length), &|first, out| {
        let x = &x[first * length..][..out.len()];
        slowed!(dispatch!(isa, simd => kernel(simd, x, weight, epsilon, out)));
    });
}

#[inline(always)]
fn kernel<S: Simd>(simd: S, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let length = weight.len();
    for (x, out) in x.chunks_exact(length).zip(out.chunks_exact_mut(length)) {
        let squares =
            fold(simd, x, 0.0, inlined!(|sum, x| x.mul_add(x, sum)), inlined!(|a, b| a + b));
        let mean = squares.sum() / length as f32;
        let scale = simd.splat(1.0 / (mean + epsilon).sqrt());
        zip_map(simd, x, weight, out, inlined!(|x, weight| x * scale * weight));
    }
}
