use crate::simd::slices::{inlined, zip_in_place};
use crate::simd::{Isa, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Multiplies `x` by `y` element by element, the gate of the convolution: `x[i] = x[i] * y[i]`.
///
/// # Panics
///
/// If `x` and `y` differ in length.
pub fn multiply(isa: Isa, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "multiply: x and y differ in length");
    split_rows(x, 1, rows_worth_sharing(1), &|first, x| {
        let y = &y[first..][..x.len()];
        dispatch!(isa, simd => zip_in_place(simd, x, y, inlined!(|[x], [y]| [x * y])));
    });
}
