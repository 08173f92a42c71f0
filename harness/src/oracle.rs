//! The independent second opinion: LFM2 in plain `f64` textbook code.
//!
//! Nothing here is shared with the `lfm2-kernels` crate: no lanes, no blocks, no panels. [`ops`]
//! says what each operation is, [`bound`] how far an `f32` kernel under the numeric contract may
//! stray from it, [`expected`] joins the two for a comparison, and [`model`] runs a whole
//! checkpoint.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod bound;
pub mod expected;
pub mod model;
pub mod ops;
pub mod unary;

#[cfg(test)]
mod random;
