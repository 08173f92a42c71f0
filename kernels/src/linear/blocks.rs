//! The block formats of GGUF, one row at a time, in plain Rust: what a file's bytes mean. Kernels have their own layout.

use half::{bf16, f16};

use super::WeightFormat;
use crate::simd::Element;

/// The weights that `bytes` stand for, in order: bit for bit those of gguf-py's dequantiser.
///
/// # Panics
///
/// If `bytes` are no whole blocks.
pub fn decode(format: WeightFormat, bytes: &[u8]) -> Vec<f32> {
    assert!(bytes.len().is_multiple_of(format.block_bytes()), "{format}: bytes are no blocks");
    match format {
        WeightFormat::F32 => widen::<f32>(bytes),
        WeightFormat::F16 => widen::<f16>(bytes),
        WeightFormat::Bf16 => widen::<bf16>(bytes),
        _ => todo!("{format}"),
    }
}

/// `weights` in that format, each rounded to nearest, ties to even, or quantised block by block.
///
/// # Panics
///
/// If `weights` are no whole blocks.
pub fn encode(format: WeightFormat, weights: &[f32]) -> Vec<u8> {
    assert!(weights.len().is_multiple_of(format.block()), "{format}: weights are no blocks");
    match format {
        WeightFormat::F32 => weights.iter().flat_map(|weight| weight.to_le_bytes()).collect(),
        WeightFormat::F16 => {
            weights.iter().flat_map(|&weight| f16::from_f32(weight).to_le_bytes()).collect()
        }
        WeightFormat::Bf16 => {
            weights.iter().flat_map(|&weight| bf16::from_f32(weight).to_le_bytes()).collect()
        }
        _ => todo!("{format}"),
    }
}

fn widen<E: Element>(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(E::BYTES).map(|bytes| E::from_le_bytes(bytes).to_f32()).collect()
}
