//! The block formats of GGUF as their description reads: each run of weights that shares a scale.

use half::f16;

/// A format of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of GGUF")]
pub enum BlockFormat {
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
}

/// Weights that share a scale: `scale * quant + minimum`.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What a quant of 1 stands for.
    pub scale: f64,
    /// What is added to each weight, in formats that have it.
    pub minimum: Option<f64>,
    /// 32 signed integers; 16 in Q6_K.
    pub quants: Vec<i32>,
}

impl Run {
    /// The weights as dequantisers give them: the product is exact, the sum is rounded to a single.
    pub fn weights(&self) -> Vec<f32> {
        let weight = |&quant: &i32| match self.minimum {
            Some(minimum) => self.scale as f32 * quant as f32 + minimum as f32,
            None => self.scale as f32 * quant as f32,
        };
        self.quants.iter().map(weight).collect()
    }
}

/// The runs of some blocks, in order.
///
/// # Panics
/// If `bytes` are no whole blocks.
pub fn runs(format: BlockFormat, bytes: &[u8]) -> Vec<Run> {
    let size = match format {
        BlockFormat::Q8_0 => 34,
        BlockFormat::Q4_0 => 18,
        BlockFormat::Q4_1 => 20,
        BlockFormat::Q5_0 => 22,
        BlockFormat::Q5_1 => 24,
        BlockFormat::Q4K => 144,
        BlockFormat::Q5K => 176,
        BlockFormat::Q6K => 210,
    };
    assert!(bytes.len().is_multiple_of(size), "{} bytes are no blocks of {size}", bytes.len());
    bytes.chunks_exact(size).flat_map(|block| runs_of_block(format, block)).collect()
}

fn runs_of_block(format: BlockFormat, block: &[u8]) -> Vec<Run> {
    let half = |at: usize| f64::from(f16::from_le_bytes([block[at], block[at + 1]]));
    let simple = |minimum, quants| vec![Run { scale: half(0), minimum, quants }];
    match format {
        BlockFormat::Q8_0 => {
            simple(None, block[2..].iter().map(|&byte| i32::from(byte as i8)).collect())
        }
        BlockFormat::Q4_0 => simple(None, less(8, nibbles(&block[2..]))),
        BlockFormat::Q4_1 => simple(Some(half(2)), nibbles(&block[4..])),
        BlockFormat::Q5_0 => simple(None, less(16, with_fifth_bits(&block[2..6], &block[6..]))),
        BlockFormat::Q5_1 => simple(Some(half(2)), with_fifth_bits(&block[4..8], &block[8..])),
        BlockFormat::Q4K | BlockFormat::Q5K => {
            let (scales, quants) = (&block[4..16], &block[block.len() - 128..]);
            let run = |s: usize| {
                let (scale, minimum) = six_bits(scales, s);
                let quants = (0..32).map(|i| {
                    let nibble = quants[32 * (s / 2) + i] >> (4 * (s % 2)) & 15;
                    let fifth = match format {
                        BlockFormat::Q5K => block[16 + i] >> s & 1,
                        _ => 0,
                    };
                    i32::from(nibble) + 16 * i32::from(fifth)
                });
                Run {
                    scale: half(0) * f64::from(scale),
                    minimum: Some(-(half(2) * f64::from(minimum))),
                    quants: quants.collect(),
                }
            };
            (0..8).map(run).collect()
        }
        BlockFormat::Q6K => {
            let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
            let quant = |i: usize| {
                let (n, quarter, l) = (i / 128, i % 128 / 32, i % 32);
                let low = low[64 * n + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
                let high = high[32 * n + l] >> (2 * quarter) & 3;
                i32::from(low) + 16 * i32::from(high) - 32
            };
            let run = |s: usize| Run {
                scale: half(208) * f64::from(scales[s] as i8),
                minimum: None,
                quants: (16 * s..16 * (s + 1)).map(quant).collect(),
            };
            (0..16).map(run).collect()
        }
    }
}

/// Byte `i` holds quants `i` and `i + 16`.
fn nibbles(bytes: &[u8]) -> Vec<i32> {
    let low = bytes.iter().map(|byte| i32::from(byte & 15));
    low.chain(bytes.iter().map(|byte| i32::from(byte >> 4))).collect()
}

fn with_fifth_bits(bits: &[u8], bytes: &[u8]) -> Vec<i32> {
    let mut quants = nibbles(bytes);
    for (i, quant) in quants.iter_mut().enumerate() {
        *quant += 16 * i32::from(bits[i / 8] >> (i % 8) & 1);
    }
    quants
}

fn less(offset: i32, quants: Vec<i32>) -> Vec<i32> {
    quants.into_iter().map(|quant| quant - offset).collect()
}

/// The scale and the minimum of part `s`.
fn six_bits(scales: &[u8], s: usize) -> (u8, u8) {
    if s < 4 {
        return (scales[s] & 63, scales[s + 4] & 63);
    }
    let scale = scales[s + 4] & 15 | scales[s - 4] >> 6 << 4;
    let minimum = scales[s + 4] >> 4 | scales[s] >> 6 << 4;
    (scale, minimum)
}
