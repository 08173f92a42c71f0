//! The smallest model that has a layer of each kind: a few KiB, so that files of it can be fuzzed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::{
    Config, Description, Error, LayerKind, Model, Synthetic, Tensor, Tensors,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

/// The shape and the bytes of each tensor, which are bf16.
pub type Weights = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// The `config.json` of the model, in each of the ways in which the kinds of layers may be given; the last has the keys of issue #22287.
pub fn config_jsons() -> [Value; 3] {
    let with = |key: &str, value: Value| {
        let mut config = json!({
            "model_type": "lfm2", "vocab_size": 4, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 16, "conv_L_cache": 3, "conv_bias": true,
            "norm_eps": 1e-5, "rope_theta": 1e6
        });
        config[key] = value;
        config
    };
    let issue = json!({
        "vocab_size": 4, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
        "num_hidden_layers": 2, "head_dim": 16, "conv_layers": [0], "attention_layers": [1], "conv_kernel": 3,
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "shift_axis": "time"
    });
    [
        with("layer_types", json!(["conv", "full_attention"])),
        with("full_attn_idxs", json!([1])),
        issue,
    ]
}

/// The index of two shards.
pub fn index_json(weights: &Weights) -> Value {
    let shard = |index: usize| format!("model-{:05}-of-00002.safetensors", index % 2 + 1);
    let names = weights.keys().enumerate();
    let map: Map<_, _> = names.map(|(i, name)| (name.clone(), shard(i).into())).collect();
    json!({"metadata": {"total_size": 1}, "weight_map": map})
}

/// The same as a value.
pub fn config() -> Config {
    Config {
        description: Description::Lfm2,
        vocabulary: 4,
        hidden_size: 16,
        layers: vec![LayerKind::Conv, LayerKind::Attention],
        heads: 2,
        key_value_heads: 1,
        head_dim: 16,
        feed_forward_width: 16,
        experts: None,
        conv_length: 3,
        conv_bias: true,
        norm_epsilon: 1e-5,
        rope_theta: 1e6,
        tied_embedding: true,
    }
}

/// Its weights.
///
/// # Panics
///
/// Never: the model can be made.
pub fn weights() -> Weights {
    let recorder = Recorder::default();
    Model::new(config(), &recorder).expect("the model can be made");
    recorder.0.into_inner()
}

/// The files that hold `weights`, split among `count`.
///
/// # Panics
///
/// Never: they can be serialized.
pub fn files(weights: &Weights, count: usize) -> Vec<Vec<u8>> {
    let file = |index: usize| {
        let part = weights.iter().skip(index).step_by(count);
        let views = part.map(|(name, (shape, bytes))| {
            (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).expect("bytes fit the shape"))
        });
        safetensors::serialize(views, None).expect("tensors can be serialized")
    };
    (0..count).map(file).collect()
}

#[derive(Default)]
struct Recorder(RefCell<Weights>);

impl Tensors for Recorder {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        let synthetic = Synthetic::new(1, WeightFormat::Bf16);
        let tensor = synthetic.tensor(name, shape)?;
        Ok(tensor.map(|Tensor { format, shape, bytes }| {
            let bytes = bytes.into_owned();
            self.0.borrow_mut().insert(name.into(), (shape.clone(), bytes.clone()));
            Tensor { format, shape, bytes: bytes.into() }
        }))
    }
}
