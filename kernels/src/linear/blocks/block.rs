use half::f16;

use super::{extreme, largest_magnitude, reciprocal};
use crate::linear::WeightFormat;

/// A block of 32 weights, taken apart: `scale * q`, or `scale * q + minimum` in a format that has minimums.
pub(crate) struct Block {
    pub scale: f16,
    pub minimum: Option<f16>,
    /// -128 to 127 in Q8_0, -8 to 7 in Q4_0, -16 to 15 in Q5_0, 0 to 15 in Q4_1, 0 to 31 in Q5_1.
    pub quants: [i8; Block::WEIGHTS],
}

/// How a format of blocks of 32 stores a block.
struct Layout {
    has_minimum: bool,
    bits: u32,
    /// The stored number that stands for q = 0.
    zero: i8,
}

impl Layout {
    const fn of(format: WeightFormat) -> Self {
        let (has_minimum, bits, zero) = match format {
            WeightFormat::Q8_0 => (false, 8, 0),
            WeightFormat::Q4_0 => (false, 4, 8),
            WeightFormat::Q4_1 => (true, 4, 0),
            WeightFormat::Q5_0 => (false, 5, 16),
            WeightFormat::Q5_1 => (true, 5, 0),
            _ => panic!("not a format of blocks of 32"),
        };
        Self { has_minimum, bits, zero }
    }

    /// The largest stored number.
    const fn largest(&self) -> u8 {
        (1 << self.bits) - 1
    }
}

impl Block {
    /// Weights in a block.
    pub const WEIGHTS: usize = 32;

    /// Takes `bytes` apart: the scale, the minimum if the format has one, the fifth bits if it has them, then the quants, of which a byte
    /// of four-bit ones holds `i` (low) and `i + 16` (high).
    #[inline(always)]
    pub fn unpack(format: WeightFormat, bytes: &[u8]) -> Self {
        let layout = Layout::of(format);
        let half = |at| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut quants = [0; Self::WEIGHTS];
        if layout.bits == 8 {
            let stored = bytes.last_chunk::<{ Self::WEIGHTS }>().expect("a whole block");
            for (quant, byte) in quants.iter_mut().zip(stored) {
                *quant = byte.cast_signed();
            }
        } else {
            let (rest, nibbles) = bytes.split_last_chunk::<16>().expect("a whole block");
            let (first_half, second_half) = quants.split_at_mut(16);
            for (i, nibbles) in nibbles.iter().enumerate() {
                first_half[i] = (nibbles & 15).cast_signed();
                second_half[i] = (nibbles >> 4).cast_signed();
            }
            if let (5, Some(fifth_bits)) = (layout.bits, rest.last_chunk::<4>()) {
                for (bits, quants) in fifth_bits.iter().zip(quants.as_chunks_mut::<8>().0) {
                    for (i, quant) in quants.iter_mut().enumerate() {
                        *quant |= ((bits >> i & 1) << 4).cast_signed();
                    }
                }
            }
            for quant in &mut quants {
                *quant -= layout.zero;
            }
        }
        Self { scale: half(0), minimum: layout.has_minimum.then(|| half(2)), quants }
    }

    /// The reverse of [`unpack`](Self::unpack).
    pub fn pack(&self, format: WeightFormat, bytes: &mut [u8]) {
        let layout = Layout::of(format);
        bytes[..2].copy_from_slice(&self.scale.to_le_bytes());
        if let Some(minimum) = self.minimum {
            bytes[2..4].copy_from_slice(&minimum.to_le_bytes());
        }
        if layout.bits == 8 {
            for (byte, quant) in bytes[2..].iter_mut().zip(&self.quants) {
                *byte = quant.cast_unsigned();
            }
            return;
        }
        let stored = self.quants.map(|quant| (quant + layout.zero).cast_unsigned());
        let (rest, nibbles) = bytes.split_last_chunk_mut::<16>().expect("a whole block");
        for (i, byte) in nibbles.iter_mut().enumerate() {
            *byte = stored[i] & 15 | stored[i + 16] << 4;
        }
        if let (5, Some(bits)) = (layout.bits, rest.last_chunk_mut()) {
            let fifth = |bits, (i, stored): (usize, &u8)| bits | u32::from(stored >> 4) << i;
            *bits = stored.iter().enumerate().fold(0, fifth).to_le_bytes();
        }
    }

    /// The weights.
    pub fn decode(&self, weights: &mut [f32]) {
        let scale = self.scale.to_f32();
        for (weight, quant) in weights.iter_mut().zip(self.quants) {
            *weight = scale * f32::from(quant);
        }
        if let Some(minimum) = self.minimum {
            for weight in weights {
                *weight += minimum.to_f32();
            }
        }
    }

    /// The block for 32 weights, as gguf-py makes it: quants are those of the scale before it is rounded to a half.
    pub fn encode(format: WeightFormat, weights: &[f32]) -> Self {
        let layout = Layout::of(format);
        if layout.has_minimum {
            let (low, high) = (extreme(weights, |a, b| a < b), extreme(weights, |a, b| a > b));
            let scale = (high - low) / f32::from(layout.largest());
            let inverse = reciprocal(scale);
            let quant = |i| ((weights[i] - low) * inverse + 0.5) as u8;
            return Self {
                scale: f16::from_f32(scale),
                minimum: Some(f16::from_f32(low)),
                quants: std::array::from_fn(|i| quant(i).min(layout.largest()).cast_signed()),
            };
        }
        let extreme = largest_magnitude(weights);
        let scale = match layout.bits {
            8 => extreme.abs() / 127.0,
            _ => extreme / f32::from(-layout.zero),
        };
        let inverse = reciprocal(scale);
        let quants = std::array::from_fn(|i| match layout.bits {
            8 => (weights[i] * inverse).round() as i8,
            _ => {
                let stored = (weights[i] * inverse + (f32::from(layout.zero) + 0.5)) as u8;
                stored.min(layout.largest()).cast_signed() - layout.zero
            }
        });
        Self { scale: f16::from_f32(scale), minimum: None, quants }
    }
}
