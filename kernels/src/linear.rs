//! Linear layers: packed weights and the matrix kernels.
//!
//! A weight matrix `[outputs, inputs]` is packed once, in panels of sixteen outputs, so that a lane is an output and each output is one
//! chain over the inputs. A matrix times one row and times 512 rows give the same bits, and decoding
//! reads memory in one straight line.
#![forbid(unsafe_code)]

pub mod blocks;
pub(crate) mod brain_floats;
pub(crate) mod chains;
pub mod cut;
mod elements;
pub(crate) mod integers;
mod matrix;
mod multiply;
mod next;
mod quantised;
pub(crate) mod sums;
pub(crate) mod tile;
mod weight_format;

pub use matrix::Matrix;
pub(crate) use multiply::BLOCK_ROWS;
pub(crate) use multiply::UPS;
pub use multiply::{gated_linear, linear, linear_each, tiling};
pub use weight_format::{Activations, UnknownWeightFormat, WeightFormat};
