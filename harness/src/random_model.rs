//! Small random models and prompts: what must hold for every model is tried on them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use lfm2_kernels::linear::{Activations, WeightFormat};
use lfm2_kernels::model::{
    Config, ConvState, Description, Error, ExpertsConfig, LayerKind, LayerState, Model, State,
    Synthetic, Tensor, Tensors,
};
use lfm2_kernels::ops::ShiftAxis;

use crate::golden::widen;
use crate::oracle::model::{self as oracle, Oracle, OracleConfig};
use crate::oracle::ops::ShiftAxis as OracleShiftAxis;

/// A model's shape and the seed of its weights.
#[derive(Clone, Debug)]
pub struct RandomModel {
    /// The shape.
    pub config: Config,
    /// In what the weights are stored.
    pub format: WeightFormat,
    /// How weights meet activations.
    pub activations: Activations,
    /// From what the weights are made.
    pub seed: u64,
}

/// The vocabulary of every random model: neither a multiple of the lanes nor less than two of their vectors.
pub const VOCABULARY: usize = 37;

impl RandomModel {
    /// A model with a layer of each kind, for tests of something else than numbers.
    pub fn small(description: Description) -> Self {
        let config = Config {
            description,
            vocabulary: VOCABULARY,
            hidden_size: 48,
            layers: vec![LayerKind::Conv, LayerKind::Attention, LayerKind::Conv],
            heads: 4,
            key_value_heads: 2,
            head_dim: 16,
            feed_forward_width: 40,
            experts: None,
            conv_length: 3,
            conv_bias: true,
            norm_epsilon: 1e-5,
            rope_theta: 1e6,
            tied_embedding: true,
        };
        Self { config, format: WeightFormat::F32, activations: Activations::F32, seed: 1 }
    }

    /// The same with experts, but for its first layer.
    pub fn small_with_experts() -> Self {
        let experts = ExpertsConfig {
            count: 6,
            used: 2,
            width: 24,
            dense_layers: 1,
            use_bias: true,
            normalise: true,
            scale: 1.0,
        };
        let small = Self::small(Description::Lfm2);
        Self { config: Config { experts: Some(experts), ..small.config }, ..small }
    }

    /// The model.
    ///
    /// # Panics
    ///
    /// If it cannot be made: every random model can.
    pub fn model(&self) -> Model {
        self.recorded().0
    }

    /// The model and the weights that it asked for.
    ///
    /// # Panics
    ///
    /// As [`model`](Self::model).
    pub fn recorded(&self) -> (Model, Weights) {
        let recorder = Recorder {
            source: Synthetic::new(self.seed, self.format),
            weights: RefCell::default(),
        };
        let mut model = Model::new(self.config.clone(), &recorder)
            .unwrap_or_else(|error| panic!("{self:?}: {error}"));
        model.set_activations(self.activations);
        (model, Weights { tensors: recorder.weights.into_inner() })
    }

    /// The same model in 64 bits, of the weights that it asked for.
    ///
    /// # Panics
    ///
    /// If they are another's.
    pub fn oracle(&self, weights: &Weights) -> Oracle {
        let config = &self.config;
        let mixer = |kind: &LayerKind| match kind {
            LayerKind::Conv => oracle::Mixer::Convolution,
            LayerKind::Attention => oracle::Mixer::Attention,
        };
        let oracle_config = OracleConfig {
            description: oracle_description(config.description),
            mixers: config.layers.iter().map(mixer).collect(),
            heads: config.heads,
            key_value_heads: config.key_value_heads,
            head_dim: config.head_dim,
            experts: config.experts.map(|experts| oracle::Mixture {
                used: experts.used,
                dense_layers: experts.dense_layers,
                bias: experts.use_bias,
                normalise: experts.normalise,
                scale: experts.scale.into(),
            }),
            convolution_bias: config.conv_bias,
            tied_embedding: config.tied_embedding,
            norm_epsilon: config.norm_epsilon.into(),
            rope_theta: config.rope_theta,
        };
        Oracle::new(oracle_config, weights.widened())
            .unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

/// The oracle's name of a description.
pub fn oracle_description(description: Description) -> oracle::Description {
    match description {
        Description::Lfm2 => oracle::Description::Lfm2,
        Description::Issue22287 { shift_axis: ShiftAxis::Time } => {
            oracle::Description::Issue22287(OracleShiftAxis::Time)
        }
        Description::Issue22287 { shift_axis: ShiftAxis::Feature } => {
            oracle::Description::Issue22287(OracleShiftAxis::Feature)
        }
    }
}

/// The weights of a model, as stored.
pub struct Weights {
    /// Each tensor.
    pub tensors: StoredTensors,
}

/// Tensors by name.
pub type StoredTensors = HashMap<String, Tensor<'static>>;

impl Weights {
    /// The weights as numbers.
    fn widened(&self) -> oracle::Tensors {
        let widened = |(name, tensor): (&String, &Tensor)| {
            let values = widen(tensor.format, &tensor.bytes).into_iter().map(f64::from);
            (name.clone(), (tensor.shape.clone(), values.collect()))
        };
        self.tensors.iter().map(widened).collect()
    }
}

/// Passes on a source's tensors and keeps them.
struct Recorder {
    source: Synthetic,
    weights: RefCell<StoredTensors>,
}

impl Tensors for Recorder {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        let tensor = self.source.tensor(name, shape)?;
        if let Some(tensor) = &tensor {
            let Tensor { format, shape, bytes } = tensor;
            let bytes = Cow::Owned(bytes.to_vec());
            let kept = Tensor { format: *format, shape: shape.clone(), bytes };
            self.weights.borrow_mut().insert(name.to_string(), kept);
        }
        Ok(tensor)
    }
}

/// All that a model remembers of a sequence, layer by layer: convolution states, keys and values.
pub fn state_values(state: &State) -> Vec<Vec<f32>> {
    let mut values = Vec::new();
    for layer in state.layers() {
        match layer {
            LayerState::Conv(ConvState::Gated(inputs)) => values.push(inputs.clone()),
            LayerState::Conv(ConvState::ShiftSum(state)) => {
                values.extend(state.chunks.iter().cloned());
                values.push(state.sums.clone());
            }
            LayerState::Attention(cache) => values.extend([cache.keys(), cache.values()]),
        }
    }
    values
}
