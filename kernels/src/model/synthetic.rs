use std::borrow::Cow;

use rayon::prelude::*;

use super::{Error, Tensor, Tensors};
use crate::linear::{WeightFormat, blocks};

/// Random weights from a seed: for benches and tests, where a real checkpoint is not at hand.
///
/// Element `i` of a tensor depends on the seed, the tensor's name and `i` alone, and is computed in integers and exact or
/// correctly rounded steps, so that every machine and thread count makes the same model. Projections are uniform with variance `1 / inputs`;
/// norms lie around 1; the biases of experts are small, so that they change some choices and leave no expert out.
#[derive(Clone, Copy, Debug)]
pub struct Synthetic {
    seed: u64,
    format: WeightFormat,
}

impl Synthetic {
    /// Weights of that type from `seed`.
    pub fn new(seed: u64, format: WeightFormat) -> Self {
        Self { seed, format }
    }

    /// The elements of one tensor.
    pub fn values(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let mut values = vec![0.0; shape.iter().product()];
        let (key, (center, spread)) = (self.key(name), distribution(name, shape));
        values.par_iter_mut().enumerate().for_each(|(i, value)| {
            *value = uniform(key, i) * spread + center;
        });
        values
    }

    fn key(&self, name: &str) -> u64 {
        name.bytes().fold(mix(self.seed), |key, byte| mix(key ^ u64::from(byte)))
    }
}

impl Tensors for Synthetic {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        if name == "lm_head.weight" {
            return Ok(None);
        }
        // Small tensors and routers stay singles where weights share scales, as in published files.
        let is_router = name.ends_with("feed_forward.gate.weight");
        let is_matrix =
            shape.len() == 2 && shape[1].is_multiple_of(self.format.block()) && !is_router;
        let format =
            if self.format.is_quantised() && !is_matrix { WeightFormat::F32 } else { self.format };
        let bytes = blocks::encode(format, &self.values(name, shape));
        Ok(Some(Tensor { format, shape: shape.to_vec(), bytes: Cow::Owned(bytes) }))
    }
}

/// The centre of a tensor's values and half their spread.
fn distribution(name: &str, shape: &[usize]) -> (f32, f32) {
    if name.contains("norm") {
        return (1.0, 0.25);
    }
    if name.ends_with("expert_bias") {
        return (0.0, 0.125);
    }
    // Biases are as large as what they are added to would be with variance 1 / 16.
    let inputs = if shape.len() < 2 { 16 } else { shape[1..].iter().product() };
    (0.0, (3.0 / inputs as f32).sqrt())
}

/// Element `i` of the sequence of `key`: uniform in -1 to 1, a multiple of 2^-23.
fn uniform(key: u64, i: usize) -> f32 {
    let bits = mix(key.wrapping_add((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    (bits >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
}

/// The finaliser of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
