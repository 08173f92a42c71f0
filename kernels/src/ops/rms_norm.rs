use crate::simd::slices::{fold, inlined, zip_in_place, zip_map};
use crate::simd::{Isa, Lanes, Simd, dispatch};
use crate::slowed;
use crate::threads::{rows_worth_sharing, split_rows, split_rows_of_each};

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
    check("rms_norm", [x, out], weight);
    let length = weight.len();
    split_rows(out, length, rows_worth_sharing(length), &|first, out| {
        let x = &x[first * length..][..out.len()];
        slowed!(dispatch!(isa, simd => {
            for (x, out) in x.chunks_exact(length).zip(out.chunks_exact_mut(length)) {
                norm_row(simd, x, weight, epsilon, out);
            }
        }));
    });
}

/// Adds `y` to `x`, the residual sum, and norms each row of it while it is near:
/// `x[t][i] = x[t][i] + y[t][i]`, then `out[t][i] = x[t][i] / sqrt(mean(x[t]²) + epsilon) * weight[i]`.
///
/// The bits are those of [`add`](super::add) and [`rms_norm`]. Source: `Lfm2DecoderLayer` of Hugging Face transformers.
///
/// # Panics
///
/// If `x`, `y` and `out` differ in length, or are not whole rows of `weight.len()`.
pub fn add_rms_norm(
    isa: Isa,
    x: &mut [f32],
    y: &[f32],
    weight: &[f32],
    epsilon: f32,
    out: &mut [f32],
) {
    assert_eq!(x.len(), y.len(), "add_rms_norm: x and y differ in length");
    check("add_rms_norm", [x, out], weight);
    let length = weight.len();
    split_rows_of_each([x, out], length, rows_worth_sharing(length), &|first, [x, out]| {
        let y = &y[first * length..][..x.len()];
        dispatch!(isa, simd => {
            let rows = x.chunks_exact_mut(length).zip(y.chunks_exact(length));
            for ((x, y), out) in rows.zip(out.chunks_exact_mut(length)) {
                zip_in_place(simd, x, y, inlined!(|[x], [y]| [x + y]));
                norm_row(simd, x, weight, epsilon, out);
            }
        });
    });
}

fn check(operation: &str, [x, out]: [&[f32]; 2], weight: &[f32]) {
    assert_eq!(x.len(), out.len(), "{operation}: x and out differ in length");
    let length = weight.len();
    assert!(
        x.is_empty() || length > 0 && x.len().is_multiple_of(length),
        "{operation}: {} elements are not rows of {length}",
        x.len()
    );
}

#[inline(always)]
fn norm_row<S: Simd>(simd: S, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let squares = fold(simd, x, 0.0, inlined!(|sum, x| x.mul_add(x, sum)), inlined!(|a, b| a + b));
    let mean = squares.sum() / weight.len() as f32;
    let scale = simd.splat(1.0 / (mean + epsilon).sqrt());
    zip_map(simd, x, weight, out, inlined!(|x, weight| x * scale * weight));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add;

    #[test]
    fn a_norm_of_a_sum_has_the_bits_of_its_parts() {
        for (rows, length) in [(0, 5), (1, 1), (3, 16), (2, 100), (5, 64), (70, 1024)] {
            let of = |seed: u32| -> Vec<f32> {
                let elements = 0..(rows * length) as u32;
                elements.map(|i| (i.wrapping_mul(seed) >> 20) as f32 / 999.0 - 2.0).collect()
            };
            let (x, y) = (of(2_654_435_761), of(2_246_822_519));
            let weight: Vec<f32> = (0..length).map(|i| 1.0 - i as f32 / 77.0).collect();
            for isa in Isa::available() {
                let (mut sum, mut normed) = (x.clone(), vec![f32::NAN; x.len()]);
                add(isa, &mut sum, &y);
                rms_norm(isa, &sum, &weight, 1e-5, &mut normed);
                let (mut found, mut out) = (x.clone(), vec![f32::NAN; x.len()]);
                add_rms_norm(isa, &mut found, &y, &weight, 1e-5, &mut out);
                assert_eq!((found, out), (sum, normed), "{isa} {rows}x{length}");
            }
        }
    }
}
