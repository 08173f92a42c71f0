//! Linear layers: packed weights and the matrix kernels.
//!
//! A weight matrix `[outputs, inputs]` is packed once, in panels of sixteen outputs, so that a lane is an output and each output is one
//! chain over the inputs. A matrix times one row and times 512 rows give the same bits, and decoding
//! reads memory in one straight line.
#![forbid(unsafe_code)]

pub mod blocks;
mod brain_floats;
mod buffers;
mod chains;
mod elements;
mod integers;
mod matrix;
mod multiply;
mod quantised;
pub(crate) mod tile;
mod weight_format;

pub use matrix::Matrix;
pub(crate) use multiply::BLOCK_ROWS;
pub use multiply::{linear, linear_each};
pub use weight_format::{Activations, UnknownWeightFormat, WeightFormat};

/// Frees the working buffers that calls of [`linear`] have left to later ones, such as after a long prompt.
pub fn free_buffers() {
    chains::PACKED.clear();
    integers::QUANTISED.clear();
    brain_floats::ROUNDED.clear();
    brain_floats::SINGLES.clear();
}
