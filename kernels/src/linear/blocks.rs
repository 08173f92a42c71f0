//! The block formats of GGUF in plain Rust: what a file's bytes mean, and the bytes for given weights. Kernels have their own layout.

mod block;
mod search;
mod super_block;

use half::{bf16, f16};

use super::WeightFormat;
use crate::simd::Element;
pub(crate) use block::Block;
pub(crate) use super_block::SuperBlock;

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
        _ => {
            let mut weights = vec![0.0; bytes.len() / format.block_bytes() * format.block()];
            let blocks = bytes.chunks_exact(format.block_bytes());
            for (bytes, weights) in blocks.zip(weights.chunks_exact_mut(format.block())) {
                match format.block() {
                    Block::WEIGHTS => Block::unpack(format, bytes).decode(weights),
                    _ => SuperBlock::unpack(format, bytes).decode(weights),
                }
            }
            weights
        }
    }
}

/// `weights` in that format, each rounded to nearest, ties to even, or quantised block by block.
///
/// F16, BF16 and blocks of 32 are bit for bit those of gguf-py's quantiser, as long as the reciprocal of a block's scale is finite. In blocks
/// of 256, for which it has none, scales and minimums are those of least squares, then rounded, then each weight takes the nearest level.
/// A block with a weight that is not finite, or too large for its scale, decodes to something that is not finite either.
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
        _ => {
            let mut bytes = vec![0; format.bytes(weights.len())];
            let blocks = bytes.chunks_exact_mut(format.block_bytes());
            for (bytes, weights) in blocks.zip(weights.chunks_exact(format.block())) {
                match format.block() {
                    Block::WEIGHTS => Block::encode(format, weights).pack(format, bytes),
                    _ => SuperBlock::encode(format, weights).pack(format, bytes),
                }
            }
            bytes
        }
    }
}

fn widen<E: Element>(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(size_of::<E>()).map(|bytes| E::from_le_bytes(bytes).to_f32()).collect()
}

/// The value that comes first in that order, a NaN before all others; of equals the first.
fn extreme(values: &[f32], comes_before: impl Fn(f32, f32) -> bool) -> f32 {
    values.iter().copied().fold(values[0], |best, value| {
        match !best.is_nan() && (value.is_nan() || comes_before(value, best)) {
            true => value,
            false => best,
        }
    })
}

/// The value of largest magnitude, with its sign.
fn largest_magnitude(values: &[f32]) -> f32 {
    extreme(values, |value, best| value.abs() > best.abs())
}

/// `1 / scale`; 0 if that is 0.
fn reciprocal(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::Matrix;

    fn quantised() -> impl Iterator<Item = WeightFormat> {
        WeightFormat::ALL.into_iter().filter(|format| format.is_quantised())
    }

    #[test]
    fn taking_apart_and_packing_are_inverse() {
        for format in quantised() {
            for step in 1..=16_u8 {
                let byte = |i| (i as u8).wrapping_mul(step.wrapping_mul(59));
                let bytes: Vec<u8> = (0..format.block_bytes()).map(byte).collect();
                let mut packed = vec![0; bytes.len()];
                match format.block() {
                    Block::WEIGHTS => Block::unpack(format, &bytes).pack(format, &mut packed),
                    _ => SuperBlock::unpack(format, &bytes).pack(format, &mut packed),
                }
                assert_eq!(packed, bytes, "{format}");
            }
        }
    }

    /// Weights that are even between -1 and 1 have a mean square of 1/3, and lose one of step^2 / 12.
    #[test]
    fn the_error_is_that_of_the_step() {
        // A full period of a generator of all 2^16 numbers.
        let mut state = 1_u16;
        let weights: Vec<f32> = (0..1 << 16)
            .map(|_| {
                state = state.wrapping_mul(25173).wrapping_add(13849);
                f32::from(state) / 32768.0 - 1.0
            })
            .collect();
        for (format, steps) in [
            (WeightFormat::Q8_0, 254.0),
            (WeightFormat::Q4_0, 16.0),
            (WeightFormat::Q4_1, 15.0),
            (WeightFormat::Q5_0, 32.0),
            (WeightFormat::Q5_1, 31.0),
            (WeightFormat::Q4K, 15.0),
            (WeightFormat::Q5K, 31.0),
            (WeightFormat::Q6K, 63.0),
        ] {
            let decoded = decode(format, &encode(format, &weights));
            let error: f32 = weights.iter().zip(&decoded).map(|(w, d)| (w - d) * (w - d)).sum();
            let mean = f64::from(error) / weights.len() as f64;
            let step = 2.0 / steps;
            let ratio = mean / (step * step / 12.0);
            // Scales are rounded too, by up to 1 / 126; least squares find shorter steps that lose less.
            assert!((0.6..1.1).contains(&ratio), "{format}: {ratio}");
        }
    }

    #[test]
    fn extremes_are_kept_or_told() {
        let with = |special: f32| {
            let mut weights: Vec<f32> = (0..256).map(|i| (i as f32 / 256.0) - 0.5).collect();
            weights[77] = special;
            weights
        };
        for format in quantised() {
            let decoded = |weights: &[f32]| decode(format, &encode(format, weights));
            for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
                let decoded = decoded(&with(special));
                assert!(decoded.iter().any(|weight| !weight.is_finite()), "{format}: {special}");
            }
            for tiny in [0.0, 1e-45, -1e-38, 1e-20] {
                assert!(decoded(&[tiny; 256]).iter().all(|weight| weight.abs() <= 1e-7));
            }
            for constant in [1.0, -1.0, 0.25, -3000.0] {
                for weight in decoded(&[constant; 256]) {
                    // A half is rounded by 2^-11 of itself, once in the scale and once in the minimum.
                    let error = (weight - constant).abs();
                    assert!(error <= constant.abs() / 1024.0, "{format}: {constant} to {weight}");
                }
            }
        }
    }

    /// Rows come back from memory as they were in the file, whatever their number and length.
    #[test]
    fn packed_rows_decode_as_the_files() {
        for format in WeightFormat::ALL {
            let scales: &[usize] = match format {
                WeightFormat::Q4_1 | WeightFormat::Q5_1 | WeightFormat::Q4K | WeightFormat::Q5K => {
                    &[0, 2]
                }
                WeightFormat::Q6K => &[208],
                _ => &[0],
            };
            let lengths: &[usize] =
                if format.is_quantised() { &[1, 2, 5] } else { &[1, 2, 33, 70] };
            for outputs in [1, 15, 16, 17, 33, 47] {
                for inputs in lengths.iter().map(|blocks| blocks * format.block()) {
                    let mut state = 1_u32;
                    let mut byte = || {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    };
                    let count = outputs * format.bytes(inputs);
                    let mut bytes: Vec<u8> = (0..count).map(|_| byte()).collect();
                    // The upper byte of a number must not say infinite or NaN.
                    let upper = if format == WeightFormat::F32 { 3 } else { 1 };
                    for block in bytes.chunks_exact_mut(format.block_bytes()) {
                        scales.iter().for_each(|at| block[at + upper] &= 0xBB);
                    }
                    let packed = Matrix::from_le_bytes(format, outputs, inputs, &bytes).to_rows();
                    let bits = |weights: Vec<f32>| -> Vec<u32> {
                        weights.into_iter().map(f32::to_bits).collect()
                    };
                    assert_eq!(bits(packed), bits(decode(format, &bytes)), "{format}");
                }
            }
        }
    }
}
