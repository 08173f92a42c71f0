use crate::simd::slices::{inlined, zip_in_place};
use crate::simd::{Isa, Lanes, Simd, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Adds `scale * y` to `x` element by element with one rounding, the sum of weighted experts: `x[i] = fma(y[i], scale, x[i])`.
///
/// # Panics
///
/// If `x` and `y` differ in length.
pub fn add_scaled(isa: Isa, x: &mut [f32], y: &[f32], scale: f32) {
    assert_eq!(x.len(), y.len(), "add_scaled: x and y differ in length");
    split_rows(x, 1, rows_worth_sharing(1), &|first, x| {
        let y = &y[first..][..x.len()];
        dispatch!(isa, simd => kernel(simd, x, y, scale));
    });
}

#[inline(always)]
fn kernel<S: Simd>(simd: S, x: &mut [f32], y: &[f32], scale: f32) {
    let scale = simd.splat(scale);
    zip_in_place(simd, x, y, inlined!(|[x], [y]| [y.mul_add(scale, x)]));
}
