use half::f16;

use super::search;
use crate::linear::WeightFormat;

/// A block of 256 weights, taken apart. In Q4_K and Q5_K each 32 weights are `(scale * scales[i]) * q - (minimum * minimums[i])`; in Q6_K each
/// 16 weights are `(scale * scales[i]) * q`.
pub(crate) struct SuperBlock {
    pub scale: f16,
    pub minimum: f16,
    /// Eight of 0 to 63, or sixteen of -128 to 127 in Q6_K.
    pub scales: [i8; 16],
    /// Eight of 0 to 63; none in Q6_K.
    pub minimums: Option<[u8; 8]>,
    /// 0 to 15 in Q4_K, 0 to 31 in Q5_K, -32 to 31 in Q6_K.
    pub quants: [i8; SuperBlock::WEIGHTS],
}

/// Weights whose bits lie in bytes that follow each other.
const RUN: usize = 32;

impl SuperBlock {
    /// Weights in a block.
    pub const WEIGHTS: usize = 256;

    /// Takes `bytes` apart.
    #[inline(always)]
    pub fn unpack(format: WeightFormat, bytes: &[u8]) -> Self {
        let half = |at| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (mut scales, mut quants) = ([0; 16], [0; Self::WEIGHTS]);
        if format == WeightFormat::Q6K {
            for (scale, byte) in scales.iter_mut().zip(&bytes[192..]) {
                *scale = byte.cast_signed();
            }
            for (run, quants) in quants.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
                let SixBits { low, low_shift, high, high_shift } = SixBits::of(run);
                let [low, high] = [low, high].map(|at| bytes[at..].first_chunk::<RUN>());
                let (low, high) = (low.expect("a whole block"), high.expect("a whole block"));
                for (i, quant) in quants.iter_mut().enumerate() {
                    let (low, high) = (low[i] >> low_shift & 15, high[i] >> high_shift & 3);
                    *quant = (low | high << 4).cast_signed() - 32;
                }
            }
            return Self { scale: half(208), minimum: f16::ZERO, scales, minimums: None, quants };
        }
        let mut minimums = [0; 8];
        let packed = &bytes[4..16];
        for i in 0..4 {
            scales[i] = (packed[i] & 63).cast_signed();
            minimums[i] = packed[i + 4] & 63;
            scales[i + 4] = (packed[i + 8] & 15 | packed[i] >> 6 << 4).cast_signed();
            minimums[i + 4] = packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4;
        }
        let (fifth_bits, nibbles) = bytes[16..].split_at(bytes.len() - 16 - 128);
        for (run, quants) in quants.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
            let nibbles = &nibbles.as_chunks::<RUN>().0[run / 2];
            for (quant, nibbles) in quants.iter_mut().zip(nibbles) {
                *quant = (nibbles >> (run % 2 * 4) & 15).cast_signed();
            }
            if let Some(fifth_bits) = fifth_bits.first_chunk::<RUN>() {
                for (quant, bits) in quants.iter_mut().zip(fifth_bits) {
                    *quant |= ((bits >> run & 1) << 4).cast_signed();
                }
            }
        }
        Self { scale: half(0), minimum: half(2), scales, minimums: Some(minimums), quants }
    }

    /// The reverse of [`unpack`](Self::unpack), into zeros.
    pub fn pack(&self, format: WeightFormat, bytes: &mut [u8]) {
        if format == WeightFormat::Q6K {
            for (run, quants) in self.quants.as_chunks::<RUN>().0.iter().enumerate() {
                let SixBits { low, low_shift, high, high_shift } = SixBits::of(run);
                for (i, quant) in quants.iter().enumerate() {
                    let stored = (quant + 32).cast_unsigned();
                    bytes[low + i] |= (stored & 15) << low_shift;
                    bytes[high + i] |= stored >> 4 << high_shift;
                }
            }
            for (byte, scale) in bytes[192..].iter_mut().zip(self.scales) {
                *byte = scale.cast_unsigned();
            }
            bytes[208..].copy_from_slice(&self.scale.to_le_bytes());
            return;
        }
        bytes[..2].copy_from_slice(&self.scale.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.minimum.to_le_bytes());
        let scales = self.scales.map(i8::cast_unsigned);
        let minimums = self.minimums.unwrap_or_default();
        let packed = &mut bytes[4..16];
        for i in 0..4 {
            packed[i] = scales[i] | scales[i + 4] >> 4 << 6;
            packed[i + 4] = minimums[i] | minimums[i + 4] >> 4 << 6;
            packed[i + 8] = scales[i + 4] & 15 | minimums[i + 4] << 4;
        }
        let fifth_bits_end = bytes.len() - 128;
        let (fifth_bits, nibbles) = bytes[16..].split_at_mut(fifth_bits_end - 16);
        for (i, quant) in self.quants.iter().enumerate() {
            let stored = quant.cast_unsigned();
            nibbles[i / 64 * 32 + i % 32] |= (stored & 15) << (i / 32 % 2 * 4);
            if let Some(bits) = fifth_bits.get_mut(i % 32) {
                *bits |= stored >> 4 << (i / 32);
            }
        }
    }

    /// The weights.
    pub fn decode(&self, weights: &mut [f32]) {
        let (scale, minimum) = (self.scale.to_f32(), self.minimum.to_f32());
        let group = if self.minimums.is_some() { 32 } else { 16 };
        let groups = weights.chunks_exact_mut(group).zip(self.quants.chunks_exact(group));
        for (i, (weights, quants)) in groups.enumerate() {
            let scale = scale * f32::from(self.scales[i]);
            for (weight, quant) in weights.iter_mut().zip(quants) {
                *weight = scale * f32::from(*quant);
            }
            if let Some(minimums) = self.minimums {
                let minimum = minimum * f32::from(minimums[i]);
                for weight in weights {
                    *weight -= minimum;
                }
            }
        }
    }

    /// The block for 256 weights.
    pub fn encode(format: WeightFormat, weights: &[f32]) -> Self {
        if weights.iter().any(|weight| !weight.is_finite()) {
            // There is no scale for them, and they must not get lost.
            let mut lost = Self::unpack(format, &vec![0; format.block_bytes()]);
            lost.scale = f16::NAN;
            return lost;
        }
        match format {
            WeightFormat::Q4K => search::with_minimums(weights, 15.0),
            WeightFormat::Q5K => search::with_minimums(weights, 31.0),
            WeightFormat::Q6K => search::without_minimums(weights),
            _ => panic!("{format}: not a format of blocks of 256"),
        }
    }
}

/// Where Q6_K keeps the bits of 32 weights: from which byte on, and from which bit on of each byte.
struct SixBits {
    low: usize,
    low_shift: usize,
    high: usize,
    high_shift: usize,
}

impl SixBits {
    fn of(run: usize) -> Self {
        let (half, quarter) = (run / 4, run % 4);
        Self {
            low: 64 * half + 32 * (quarter % 2),
            low_shift: quarter / 2 * 4,
            high: 128 + 32 * half,
            high_shift: quarter * 2,
        }
    }
}
