//! A file is read as a `config.json`, and the model that it describes is asked of a few good weights.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use lfm2_fuzz::model::{self, Weights};
use lfm2_fuzz::mutate::{Mutator, store};
use lfm2_fuzz::{limited, replace};
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::{Config, Error, Model, Tensor, Tensors};
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target, fuzzer_mutate};
use serde_json::Value;
use tempfile::TempDir;

const WORDS: &[&str] = &[
    "model_type",
    "lfm2",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "block_ff_dim",
    "block_auto_adjust_ff_dim",
    "block_ffn_dim_multiplier",
    "block_multiple_of",
    "layer_types",
    "conv",
    "full_attention",
    "full_attn_idxs",
    "conv_L_cache",
    "conv_bias",
    "norm_eps",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    "rope_type",
    "type",
    "default",
    "yarn",
    "tie_embedding",
    "tie_word_embeddings",
    "conv_layers",
    "attention_layers",
    "conv_kernel",
    "rms_norm_eps",
    "shift_axis",
    "time",
    "feature",
];

struct Known(Weights);

impl Tensors for Known {
    fn tensor(&self, name: &str, _shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        Ok(self.0.get(name).map(|(shape, bytes)| Tensor {
            format: WeightFormat::Bf16,
            shape: shape.clone(),
            bytes: bytes.into(),
        }))
    }
}

struct Fixed {
    _folder: TempDir,
    path: PathBuf,
    weights: Known,
    bytes: usize,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("config.json");
    let weights = model::weights();
    let bytes = weights.values().map(|(_, bytes)| bytes.len()).sum();
    Fixed { _folder: folder, path, weights: Known(weights), bytes }
});

static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let configs = model::config_jsons();
    configs.map(|config| config.to_string().into_bytes()).into()
});

fuzz_target!(|data: &[u8]| {
    let Fixed { path, weights, bytes, .. } = &*FIXED;
    replace(path, data);
    let config = limited(data.len(), || Config::read(path));
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            assert!(error.to_string().contains("config.json: "), "no file in: {error}");
            return;
        }
    };
    config.validate().expect("what is read is valid");
    // A tree of values may be refused for a key that nobody reads.
    if let Ok(text) = serde_json::from_slice::<Value>(data) {
        assert_eq!(text["num_hidden_layers"].as_u64(), Some(config.layers.len() as u64));
        assert_eq!(text["hidden_size"].as_u64(), Some(config.hidden_size as u64));
    }
    let _ = limited(data.len() + bytes, || Model::new(config, weights));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut mutator = Mutator::new(seed, WORDS);
    if mutator.below(16) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let text = mutator.edited(&GOOD[..], &data[..size], max_size);
    store(data, &text, max_size)
});

fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| {
    let text = Mutator::new(seed, WORDS).cross(one, other);
    store(out, &text, out.len())
});
