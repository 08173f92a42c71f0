//! Every operation of LFM2 (Liquid AI's hybrid of gated short convolutions and grouped-query attention) and its full
//! forward pass, on scalar, AVX2, AVX-512 and NEON, **with the same bits on all of them**.
//!
//! - [`simd`]: sixteen lanes on every CPU, one file per instruction set;
//! - [`ops`]: the operations, each written once over the lanes;
//! - [`linear`]: packed weights and the matrix kernels;
//! - [`model`]: configuration, weights, state and the forward pass;
//! - [`mod@format`]: checkpoint files;
//! - [`peak`]: what the CPU can do at most, for the benches.
//!
#![doc = include_str!("../CONTRACT.md")]

mod aligned;
pub mod format;
pub mod linear;
pub mod model;
pub mod ops;
pub mod peak;
pub mod simd;
mod threads;

pub use aligned::Aligned;
pub use simd::Isa;
