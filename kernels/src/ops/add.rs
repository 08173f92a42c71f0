use crate::simd::slices::{inlined, zip_in_place};
use crate::simd::{Isa, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Adds `y` to `x` element by element, the residual sum: `x[i] = x[i] + y[i]`.
///
/// # Panics
///
/// If `x` and `y` differ in length.
pub fn add(isa: Isa, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "add: x and y differ in length");
    split_rows(x, 1, rows_worth_sharing(1), &|first, x| {
        let y = &y[first..][..x.len()];
        dispatch!(isa, simd => zip_in_place(simd, x, y, inlined!(|[x], [y]| [x + y])));
    });
}
