use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use crate::format::{read_text, reason};
use crate::ops::{MAX_GROUP, MAX_HEAD_DIM, ShiftAxis, ShortConv};
use crate::simd::LANES;

/// Which of the two descriptions of LFM2 a model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description {
    /// The published model (Hugging Face `lfm2`): gated short convolutions, sequential residuals.
    Lfm2,
    /// llama.cpp issue #22287 taken at its word: shift-and-sum convolutions, parallel residuals.
    Issue22287 {
        /// Along what its chunks are shifted.
        shift_axis: ShiftAxis,
    },
}

/// What mixes the positions in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// A short convolution.
    Conv,
    /// Grouped-query attention.
    Attention,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which description the model follows.
    pub description: Description,
    /// Rows of the embedding: `vocab_size`. A checkpoint's embedding overrides it, since fine-tuned files change the vocabulary and
    /// not always the configuration.
    pub vocabulary: usize,
    /// Width of the residual stream: `hidden_size`.
    pub hidden_size: usize,
    /// The kind of each layer.
    pub layers: Vec<LayerKind>,
    /// Query heads: `num_attention_heads`.
    pub heads: usize,
    /// Key and value heads: `num_key_value_heads`.
    pub key_value_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width inside the feed-forward of a dense layer, as adjusted.
    pub feed_forward_width: usize,
    /// The mixture of experts, if the model has one.
    pub experts: Option<ExpertsConfig>,
    /// Taps of the convolution: `conv_L_cache`.
    pub conv_length: usize,
    /// Whether the conv blocks' projections and convolution have biases.
    pub conv_bias: bool,
    /// The epsilon of every norm.
    pub norm_epsilon: f32,
    /// The base of the rotary embedding.
    pub rope_theta: f64,
    /// Whether the head is the embedding.
    pub tied_embedding: bool,
}

/// The shape of a mixture of experts: in the layers after the first few, which are dense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertsConfig {
    /// Experts in a layer: `num_experts`.
    pub count: usize,
    /// Experts that each row uses: `num_experts_per_tok`.
    pub used: usize,
    /// Width inside an expert: `moe_intermediate_size`.
    pub width: usize,
    /// Layers without experts, the first ones: `num_dense_layers`.
    pub dense_layers: usize,
    /// Whether a bias helps to choose experts: `use_expert_bias`.
    pub use_bias: bool,
    /// Whether the weights of a row's experts are divided by their sum: `norm_topk_prob`.
    pub normalise: bool,
    /// By what weights are multiplied in the end: `routed_scaling_factor`.
    pub scale: f32,
}

/// Floating-point operations; a product and its addition are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations {
    /// Of linear layers.
    pub linear: u64,
    /// Of queries with keys, and of their weights with values.
    pub attention: u64,
}

impl ExpertsConfig {
    /// As published models have it.
    const fn published(count: usize, width: usize) -> Self {
        Self { count, used: 4, width, dense_layers: 2, use_bias: true, normalise: true, scale: 1.0 }
    }

    fn validate(&self, layers: usize) -> Result<(), Error> {
        for (key, value, least, most) in [
            ("num_experts", self.count, 1, Config::MAX_EXPERTS),
            ("num_experts_per_tok", self.used, 1, self.count),
            ("moe_intermediate_size", self.width, 1, 1 << 24),
            ("num_dense_layers", self.dense_layers, 0, layers),
        ] {
            let ok = (least..=most).contains(&value);
            check(ok, format!("{key} is {value}: expected {least} to {most}"))?;
        }
        check(
            self.scale.is_finite(),
            format!("routed_scaling_factor is {}: expected a finite number", self.scale),
        )
    }
}

/// A preset's name and the shape it stands for.
struct Preset {
    name: &'static str,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    feed_forward_width: usize,
    experts: Option<ExpertsConfig>,
    attention_layers: &'static [usize],
}

/// The published text models (0-based attention layers), and the shape that issue #22287 gives.
const PRESETS: [Preset; 8] = [
    Preset {
        name: "230m",
        layers: 14,
        hidden_size: 1024,
        heads: 16,
        feed_forward_width: 2560,
        experts: None,
        attention_layers: &[2, 4, 6, 8, 10, 12],
    },
    Preset {
        name: "350m",
        layers: 16,
        hidden_size: 1024,
        heads: 16,
        feed_forward_width: 4608,
        experts: None,
        attention_layers: &[2, 5, 8, 10, 12, 14],
    },
    Preset {
        name: "700m",
        layers: 16,
        hidden_size: 1536,
        heads: 24,
        feed_forward_width: 6912,
        experts: None,
        attention_layers: &[2, 5, 8, 10, 12, 14],
    },
    Preset {
        name: "1.2b",
        layers: 16,
        hidden_size: 2048,
        heads: 32,
        feed_forward_width: 8192,
        experts: None,
        attention_layers: &[2, 5, 8, 10, 12, 14],
    },
    Preset {
        name: "2.6b",
        layers: 30,
        hidden_size: 2048,
        heads: 32,
        feed_forward_width: 10752,
        experts: None,
        attention_layers: &[2, 5, 9, 13, 17, 21, 24, 27],
    },
    Preset {
        name: "lfm2-8b-a1b",
        layers: 24,
        hidden_size: 2048,
        heads: 32,
        feed_forward_width: 7168,
        experts: Some(ExpertsConfig::published(32, 1792)),
        attention_layers: &[2, 6, 10, 14, 18, 21],
    },
    Preset {
        name: "lfm2-24b-a2b",
        layers: 40,
        hidden_size: 2048,
        heads: 32,
        feed_forward_width: 11776,
        experts: Some(ExpertsConfig::published(64, 1536)),
        attention_layers: &[2, 6, 10, 14, 18, 22, 26, 30, 34, 38],
    },
    Preset {
        name: Config::ISSUE_22287,
        layers: 16,
        hidden_size: 1024,
        heads: 16,
        feed_forward_width: 4608,
        experts: None,
        attention_layers: &[10, 11, 12, 13, 14, 15],
    },
];

/// Most bytes of a `config.json`: a thousand times a usual one.
const MOST_BYTES: u64 = 1 << 22;

impl Config {
    /// Most layers that a model may have.
    pub const MAX_LAYERS: usize = 1 << 16;

    /// Most experts that a layer may have.
    pub const MAX_EXPERTS: usize = 1 << 12;

    const ISSUE_22287: &'static str = "issue-22287";

    /// The names that [`preset`](Self::preset) knows.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|preset| preset.name)
    }

    /// The shape of a published model, or of issue #22287.
    ///
    /// # Errors
    ///
    /// If the name is not one of [`preset_names`](Self::preset_names).
    pub fn preset(name: &str) -> Result<Self, Error> {
        let preset = PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
            let known = Self::preset_names().collect::<Vec<_>>().join(", ");
            Error::Config(format!("unknown preset {name:?}: expected one of {known}"))
        })?;
        let kind = |i| match preset.attention_layers.contains(&i) {
            true => LayerKind::Attention,
            false => LayerKind::Conv,
        };
        let issue_22287 = name == Self::ISSUE_22287;
        Ok(Self {
            description: match issue_22287 {
                true => Description::Issue22287 { shift_axis: ShiftAxis::Time },
                false => Description::Lfm2,
            },
            vocabulary: 65536,
            hidden_size: preset.hidden_size,
            layers: (0..preset.layers).map(kind).collect(),
            heads: preset.heads,
            key_value_heads: 8,
            head_dim: 64,
            feed_forward_width: preset.feed_forward_width,
            experts: preset.experts,
            conv_length: 3,
            conv_bias: issue_22287,
            norm_epsilon: 1e-5,
            rope_theta: 1e6,
            tied_embedding: true,
        })
    }

    /// Reads a `config.json`: of a Hugging Face checkpoint, or one with the keys of issue #22287.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not such a configuration, or describes a model that cannot be run.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path, MOST_BYTES)?;
        Self::from_json(&text).map_err(|error| error.in_file(path))
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn from_json(text: &str) -> Result<Self, Error> {
        /// What tells the two apart, read first, so that neither is held as a tree of values, which takes fifty times the text.
        #[derive(Deserialize)]
        struct Keys {
            conv_layers: Option<IgnoredAny>,
        }
        let invalid = |error: serde_json::Error| Error::Config(reason(&error));
        let keys: Keys = serde_json::from_str(text).map_err(invalid)?;
        let config = if keys.conv_layers.is_some() {
            serde_json::from_str::<Issue22287Json>(text).map_err(invalid)?.into_config()?
        } else {
            serde_json::from_str::<Lfm2Json>(text).map_err(invalid)?.into_config()?
        };
        config.validate()?;
        Ok(config)
    }

    /// Layers of one kind.
    pub fn count(&self, kind: LayerKind) -> usize {
        self.layers.iter().filter(|layer| **layer == kind).count()
    }

    /// The experts of layer `layer`; `None` where its feed-forward is dense.
    pub fn experts_of(&self, layer: usize) -> Option<&ExpertsConfig> {
        self.experts.as_ref().filter(|experts| layer >= experts.dense_layers)
    }

    /// The experts, if any layer has them: then the last one has.
    pub(super) fn experts_in_use(&self) -> Option<&ExpertsConfig> {
        self.experts_of(self.layers.len().checked_sub(1)?)
    }

    /// The largest width inside the feed-forward of any layer.
    pub(super) fn widest_feed_forward(&self) -> usize {
        let width =
            |layer| self.experts_of(layer).map_or(self.feed_forward_width, |experts| experts.width);
        (0..self.layers.len()).map(width).max().unwrap_or(0)
    }

    /// Width of all query heads.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    pub fn key_value_width(&self) -> usize {
        self.key_value_heads * self.head_dim
    }

    /// What a call computes that takes one sequence from `context` tokens `rows` further and makes logits of the last.
    pub fn operations(&self, context: usize, rows: usize) -> Operations {
        let width = self.hidden_size;
        let feed_forward = |layer| match self.experts_of(layer) {
            None => 3 * width * self.feed_forward_width,
            Some(experts) => width * (experts.used * 3 * experts.width + experts.count),
        };
        let weights = self.count(LayerKind::Conv) * 4 * width * width
            + self.count(LayerKind::Attention)
                * 2
                * width
                * (self.query_width() + self.key_value_width())
            + (0..self.layers.len()).map(feed_forward).sum::<usize>();
        let pairs = rows * context + rows * (rows + 1) / 2;
        Operations {
            linear: 2 * (rows * weights + self.vocabulary * width) as u64,
            attention: (self.count(LayerKind::Attention) * 4 * pairs * self.query_width()) as u64,
        }
    }

    /// Keys and values of `positions` tokens, in all layers.
    pub fn cached(&self, positions: usize) -> usize {
        self.count(LayerKind::Attention) * positions * 2 * self.key_value_width()
    }

    /// Checks that the kernels can run such a model.
    ///
    /// # Errors
    ///
    /// Naming the key, its value and what would be right.
    pub fn validate(&self) -> Result<(), Error> {
        for (key, value) in [
            ("vocab_size", self.vocabulary),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.key_value_heads),
            ("intermediate_size", self.feed_forward_width),
            ("head_dim", self.head_dim),
        ] {
            check((1..=1 << 24).contains(&value), format!("{key} is {value}: expected 1 to 2^24"))?;
        }
        check_layers(self.layers.len())?;
        check(
            self.heads.is_multiple_of(self.key_value_heads)
                && self.heads / self.key_value_heads <= MAX_GROUP,
            format!(
                "num_attention_heads is {}: expected a multiple of num_key_value_heads, {}, up to {MAX_GROUP} times it",
                self.heads, self.key_value_heads
            ),
        )?;
        check(
            self.head_dim.is_multiple_of(LANES) && self.head_dim <= MAX_HEAD_DIM,
            format!(
                "head_dim is {}: expected a multiple of {LANES} up to {MAX_HEAD_DIM}",
                self.head_dim
            ),
        )?;
        check(
            (1..=ShortConv::MAX_LENGTH).contains(&self.conv_length),
            format!(
                "conv_L_cache is {}: expected 1 to {}",
                self.conv_length,
                ShortConv::MAX_LENGTH
            ),
        )?;
        check(
            self.norm_epsilon.is_finite() && self.norm_epsilon >= 0.0,
            format!("norm_eps is {}: expected a small positive number", self.norm_epsilon),
        )?;
        check(
            self.rope_theta.is_finite() && self.rope_theta > 0.0,
            format!("rope_theta is {}: expected a positive number", self.rope_theta),
        )?;
        self.experts.map_or(Ok(()), |experts| experts.validate(self.layers.len()))
    }
}

fn check(ok: bool, message: String) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::Config(message)) }
}

/// The keys of a Hugging Face `config.json`; others are legacy and ignored, as transformers ignores them.
#[derive(Deserialize)]
struct Lfm2Json {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    block_ff_dim: Option<usize>,
    #[serde(default)]
    block_auto_adjust_ff_dim: bool,
    block_ffn_dim_multiplier: Option<f64>,
    #[serde(default = "default_multiple")]
    block_multiple_of: usize,
    layer_types: Option<Vec<LayerTypeJson>>,
    full_attn_idxs: Option<Vec<usize>>,
    #[serde(rename = "conv_L_cache", default = "default_conv_length")]
    conv_l_cache: usize,
    #[serde(default)]
    conv_bias: bool,
    #[serde(default = "default_epsilon")]
    norm_eps: f32,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeJson>,
    rope_scaling: Option<RopeJson>,
    tie_embedding: Option<bool>,
    tie_word_embeddings: Option<bool>,
    num_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    moe_intermediate_size: Option<usize>,
    num_dense_layers: Option<usize>,
    #[serde(default = "default_true")]
    use_expert_bias: bool,
    #[serde(default = "default_true")]
    norm_topk_prob: bool,
    #[serde(default = "default_scale")]
    routed_scaling_factor: f32,
}

#[derive(Clone, Copy, Deserialize)]
enum LayerTypeJson {
    #[serde(rename = "conv")]
    Conv,
    #[serde(rename = "full_attention", alias = "attention")]
    Attention,
}

/// Files that shall be read by old and new versions of transformers have both names of the type.
#[derive(Deserialize)]
struct RopeJson {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    r#type: Option<String>,
}

fn default_multiple() -> usize {
    256
}

fn default_conv_length() -> usize {
    3
}

fn default_epsilon() -> f32 {
    1e-5
}

fn default_true() -> bool {
    true
}

fn default_scale() -> f32 {
    1.0
}

const DEFAULT_THETA: f64 = 1e6;

impl Lfm2Json {
    fn into_config(self) -> Result<Config, Error> {
        let experts = match self.model_type.as_deref() {
            Some("lfm2") => None,
            Some("lfm2_moe") => Some(self.experts()?),
            Some(other) => {
                return Err(Error::Config(format!(
                    "model_type is {other:?}: expected \"lfm2\" or \"lfm2_moe\""
                )));
            }
            None => {
                return Err(Error::Config(
                    "no model_type: expected \"lfm2\" or \"lfm2_moe\" (or the keys of issue #22287)"
                        .into(),
                ));
            }
        };
        for rope in [&self.rope_parameters, &self.rope_scaling].into_iter().flatten() {
            let kinds = [("rope_type", &rope.rope_type), ("type", &rope.r#type)];
            for (key, kind) in kinds {
                if let Some(kind) = kind.as_deref().filter(|kind| *kind != "default") {
                    return Err(Error::Config(format!("{key} is {kind:?}: expected \"default\"")));
                }
            }
        }
        let layers = self.layers()?;
        let feed_forward_width = match experts {
            None => self.feed_forward_width()?,
            Some(_) => needed("intermediate_size", self.intermediate_size)?,
        };
        let nested_theta = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        Ok(Config {
            description: Description::Lfm2,
            vocabulary: self.vocab_size,
            hidden_size: self.hidden_size,
            layers,
            heads: self.num_attention_heads,
            key_value_heads: self.num_key_value_heads,
            head_dim: head_dim(self.head_dim, self.hidden_size, self.num_attention_heads)?,
            feed_forward_width,
            experts,
            conv_length: self.conv_l_cache,
            conv_bias: self.conv_bias,
            norm_epsilon: self.norm_eps,
            rope_theta: nested_theta.or(self.rope_theta).unwrap_or(DEFAULT_THETA),
            tied_embedding: self.tie_embedding.or(self.tie_word_embeddings).unwrap_or(true),
        })
    }

    fn layers(&self) -> Result<Vec<LayerKind>, Error> {
        let count = self.num_hidden_layers;
        check_layers(count)?;
        if let Some(types) = &self.layer_types {
            // Some files list more types than there are layers.
            if types.len() < count {
                return Err(Error::Config(format!(
                    "layer_types has {} entries: expected num_hidden_layers, {count}",
                    types.len()
                )));
            }
            let kind = |kind: &LayerTypeJson| match kind {
                LayerTypeJson::Conv => LayerKind::Conv,
                LayerTypeJson::Attention => LayerKind::Attention,
            };
            return Ok(types[..count].iter().map(kind).collect());
        }
        if self.model_type.as_deref() == Some("lfm2_moe") {
            return Err(Error::Config("layer_types is not given: lfm2_moe needs it".into()));
        }
        let Some(indices) = &self.full_attn_idxs else {
            return Ok(vec![LayerKind::Attention; count]);
        };
        let mut layers = vec![LayerKind::Conv; count];
        for &i in indices {
            *layer(&mut layers, i, "full_attn_idxs")? = LayerKind::Attention;
        }
        Ok(layers)
    }

    /// As `Lfm2MoeConfig` reads them.
    fn experts(&self) -> Result<ExpertsConfig, Error> {
        Ok(ExpertsConfig {
            count: needed("num_experts", self.num_experts)?,
            used: needed("num_experts_per_tok", self.num_experts_per_tok)?,
            width: needed("moe_intermediate_size", self.moe_intermediate_size)?,
            dense_layers: needed("num_dense_layers", self.num_dense_layers)?,
            use_bias: self.use_expert_bias,
            normalise: self.norm_topk_prob,
            scale: self.routed_scaling_factor,
        })
    }

    /// The rule of `Lfm2Config` and `Lfm2MLP`.
    fn feed_forward_width(&self) -> Result<usize, Error> {
        let width = self.block_ff_dim.or(self.intermediate_size).ok_or_else(|| {
            Error::Config("neither intermediate_size nor block_ff_dim is given".into())
        })?;
        if !self.block_auto_adjust_ff_dim {
            return Ok(width);
        }
        let width = width.saturating_mul(2) / 3;
        let Some(multiplier) = self.block_ffn_dim_multiplier else {
            return Ok(width);
        };
        if self.block_multiple_of == 0 {
            return Err(Error::Config("block_multiple_of is 0: expected a positive number".into()));
        }
        let width = (multiplier * width as f64) as usize;
        width.checked_next_multiple_of(self.block_multiple_of).ok_or_else(|| {
            Error::Config(format!("block_multiple_of is {}: too large", self.block_multiple_of))
        })
    }
}

/// The keys of issue #22287. It gives no vocabulary, which is that of the published model unless `vocab_size` says otherwise, and
/// contradicts itself about the axis, so `shift_axis` (ours) chooses.
#[derive(Deserialize)]
struct Issue22287Json {
    #[serde(default = "default_vocabulary")]
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    num_hidden_layers: usize,
    head_dim: Option<usize>,
    conv_layers: Vec<usize>,
    attention_layers: Vec<usize>,
    conv_kernel: usize,
    rms_norm_eps: f32,
    rope_theta: f64,
    #[serde(default)]
    shift_axis: ShiftAxisJson,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ShiftAxisJson {
    #[default]
    Time,
    Feature,
}

fn default_vocabulary() -> usize {
    65536
}

impl Issue22287Json {
    fn into_config(self) -> Result<Config, Error> {
        check_layers(self.num_hidden_layers)?;
        let mut kinds = vec![None; self.num_hidden_layers];
        let both = "conv_layers and attention_layers";
        for (key, indices, kind) in [
            ("conv_layers", &self.conv_layers, LayerKind::Conv),
            ("attention_layers", &self.attention_layers, LayerKind::Attention),
        ] {
            for &i in indices {
                let known = layer(&mut kinds, i, key)?;
                if known.is_some_and(|known| known != kind) {
                    return Err(Error::Config(format!("layer {i} is in both {both}")));
                }
                *known = Some(kind);
            }
        }
        let found = |(i, kind): (usize, Option<_>)| {
            kind.ok_or_else(|| Error::Config(format!("layer {i} is in neither of {both}")))
        };
        let layers = kinds.into_iter().enumerate().map(found).collect::<Result<_, _>>()?;
        let shift_axis = match self.shift_axis {
            ShiftAxisJson::Time => ShiftAxis::Time,
            ShiftAxisJson::Feature => ShiftAxis::Feature,
        };
        Ok(Config {
            description: Description::Issue22287 { shift_axis },
            vocabulary: self.vocab_size,
            hidden_size: self.hidden_size,
            layers,
            heads: self.num_attention_heads,
            key_value_heads: self.num_key_value_heads,
            head_dim: head_dim(self.head_dim, self.hidden_size, self.num_attention_heads)?,
            feed_forward_width: self.intermediate_size,
            experts: None,
            conv_length: self.conv_kernel,
            conv_bias: true,
            norm_epsilon: self.rms_norm_eps,
            rope_theta: self.rope_theta,
            tied_embedding: true,
        })
    }
}

/// The value of a key that a mixture of experts must have.
fn needed<T>(key: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::Config(format!("{key} is not given: lfm2_moe needs it")))
}

fn head_dim(given: Option<usize>, hidden_size: usize, heads: usize) -> Result<usize, Error> {
    given
        .or(hidden_size.checked_div(heads))
        .ok_or_else(|| Error::Config("num_attention_heads is 0: expected a positive number".into()))
}

/// Fails before memory is asked for.
fn check_layers(count: usize) -> Result<(), Error> {
    match count {
        1..=Config::MAX_LAYERS => Ok(()),
        _ => Err(Error::Config(format!(
            "num_hidden_layers is {count}: expected 1 to {}",
            Config::MAX_LAYERS
        ))),
    }
}

/// What `layers` has for layer `i`, which `key` names.
fn layer<'a, T>(layers: &'a mut [T], i: usize, key: &str) -> Result<&'a mut T, Error> {
    let count = layers.len();
    layers
        .get_mut(i)
        .ok_or_else(|| Error::Config(format!("{key} names layer {i}: expected less than {count}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(extra: &str) -> Result<Config, Error> {
        Config::from_json(&format!(
            r#"{{"model_type": "lfm2", "vocab_size": 320, "hidden_size": 256, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 2 {extra}}}"#
        ))
    }

    #[test]
    fn feed_forward_widths_of_the_published_models() {
        for (given, adjusted) in [(6656, 4608), (10240, 6912), (12288, 8192)] {
            let config = published(&format!(
                r#", "intermediate_size": {given}, "block_auto_adjust_ff_dim": true, "block_ffn_dim_multiplier": 1.0"#
            ));
            assert_eq!(config.unwrap().feed_forward_width, adjusted);
        }
        let config =
            published(r#", "intermediate_size": 10752, "block_auto_adjust_ff_dim": false"#);
        assert_eq!(config.unwrap().feed_forward_width, 10752);
        let config = published(r#", "intermediate_size": 1, "block_ff_dim": 300"#);
        assert_eq!(config.unwrap().feed_forward_width, 300);
    }

    #[test]
    fn nested_theta_wins_over_flat() {
        let theta = |extra: &str| {
            published(&format!(r#", "intermediate_size": 64 {extra}"#)).unwrap().rope_theta
        };
        assert_eq!(theta(""), 1e6);
        assert_eq!(theta(r#", "rope_theta": 5e6"#), 5e6);
        assert_eq!(theta(r#", "rope_theta": 5e6, "rope_parameters": {"rope_theta": 1e7}"#), 1e7);
    }

    #[test]
    fn layer_kinds() {
        use LayerKind::{Attention, Conv};
        let layers = |extra: &str| {
            published(&format!(r#", "intermediate_size": 64 {extra}"#)).unwrap().layers
        };
        assert_eq!(layers(""), [Attention; 4]);
        let mixed = [Conv, Attention, Conv, Attention];
        assert_eq!(layers(r#", "full_attn_idxs": [1, 3]"#), mixed);
        let types = r#", "layer_types": ["conv", "full_attention", "conv", "attention", "conv"]"#;
        assert_eq!(layers(types), mixed);
    }

    #[test]
    fn the_older_key_for_tied_embeddings_wins() {
        let tied = |extra: &str| {
            published(&format!(r#", "intermediate_size": 64 {extra}"#)).unwrap().tied_embedding
        };
        assert!(tied(""));
        assert!(!tied(r#", "tie_word_embeddings": false"#));
        assert!(!tied(r#", "tie_embedding": false, "tie_word_embeddings": true"#));
    }

    #[test]
    fn bad_values_are_named() {
        for (extra, expected) in [
            (r#", "intermediate_size": 0"#, "intermediate_size is 0"),
            (r#", "intermediate_size": 64, "head_dim": 20"#, "head_dim is 20"),
            (r#", "intermediate_size": 64, "conv_L_cache": 0"#, "conv_L_cache is 0"),
            (r#", "intermediate_size": 64, "full_attn_idxs": [4]"#, "layer 4"),
            (r#", "intermediate_size": 64, "layer_types": ["conv"]"#, "1 entries"),
            (r#", "intermediate_size": 64, "rope_theta": -1"#, "rope_theta is -1"),
            (r#", "intermediate_size": 64, "rope_parameters": {"rope_type": "yarn"}"#, "yarn"),
            ("", "intermediate_size"),
        ] {
            let error = published(extra).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = Config::from_json(r#"{"model_type": "llama"}"#).unwrap_err().to_string();
        assert!(error.contains("vocab_size") || error.contains("llama"), "{error}");
    }

    fn with_experts(extra: &str) -> Result<Config, Error> {
        Config::from_json(&format!(
            r#"{{"model_type": "lfm2_moe", "vocab_size": 320, "hidden_size": 256, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 300,
                "block_auto_adjust_ff_dim": true {extra}}}"#
        ))
    }

    const TYPES: &str = r#", "layer_types": ["conv", "conv", "full_attention", "conv"], "moe_intermediate_size": 96"#;

    #[test]
    fn experts_are_in_the_layers_after_the_dense_ones() {
        let keys = r#", "num_experts": 8, "num_experts_per_tok": 3, "num_dense_layers": 1"#;
        let config = with_experts(&format!("{TYPES}{keys}")).unwrap();
        assert_eq!(config.feed_forward_width, 300);
        let experts = ExpertsConfig {
            count: 8,
            used: 3,
            width: 96,
            dense_layers: 1,
            use_bias: true,
            normalise: true,
            scale: 1.0,
        };
        assert_eq!(config.experts, Some(experts));
        assert_eq!(config.experts_of(0), None);
        assert_eq!(config.experts_of(1), Some(&experts));
        let extra =
            r#", "use_expert_bias": false, "norm_topk_prob": false, "routed_scaling_factor": 2.5"#;
        let config = with_experts(&format!("{TYPES}{keys}{extra}")).unwrap();
        let changed = ExpertsConfig { use_bias: false, normalise: false, scale: 2.5, ..experts };
        assert_eq!(config.experts, Some(changed));
        // Only the other model type has experts.
        let dense = published(&format!(r#"{TYPES}{keys}, "intermediate_size": 64"#)).unwrap();
        assert_eq!(dense.experts, None);
    }

    #[test]
    fn bad_values_of_experts_are_named() {
        let keys = |count: usize, used: usize, dense: usize| {
            format!(
                r#", "num_experts": {count}, "num_experts_per_tok": {used}, "num_dense_layers": {dense}"#
            )
        };
        for (extra, expected) in [
            (keys(4, 2, 1) + r#", "moe_intermediate_size": 96"#, "layer_types is not given"),
            (keys(4, 2, 1), "moe_intermediate_size is not given"),
            (TYPES.to_string(), "num_experts is not given"),
            (TYPES.to_string() + &keys(0, 1, 1), "num_experts is 0: expected 1 to 4096"),
            (TYPES.to_string() + &keys(1 << 40, 1, 1), "num_experts is 1099511627776"),
            (TYPES.to_string() + &keys(4, 5, 1), "num_experts_per_tok is 5: expected 1 to 4"),
            (TYPES.to_string() + &keys(4, 0, 1), "num_experts_per_tok is 0"),
            (TYPES.to_string() + &keys(4, 2, 5), "num_dense_layers is 5: expected 0 to 4"),
            (
                TYPES.to_string() + &keys(4, 2, 1) + r#", "routed_scaling_factor": 1e39"#,
                "routed_scaling_factor",
            ),
        ] {
            let error = with_experts(&extra).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn presets_have_the_published_number_of_weights() {
        for (name, weights) in [("lfm2-8b-a1b", 8_339_930_560), ("lfm2-24b-a2b", 23_843_661_440)] {
            let config = Config::preset(name).unwrap();
            let (width, attention) = (config.hidden_size, config.count(LayerKind::Attention));
            let mixers = config.count(LayerKind::Conv) * width * (4 * width + config.conv_length)
                + attention * 2 * width * (config.query_width() + config.key_value_width())
                + attention * 2 * config.head_dim;
            let feed_forward = |layer| match config.experts_of(layer) {
                None => 3 * width * config.feed_forward_width,
                Some(experts) => experts.count * (3 * width * experts.width + width + 1),
            };
            let layers = config.layers.len();
            let norms = width * (2 * layers + 1);
            let sum = config.vocabulary * width
                + mixers
                + norms
                + (0..layers).map(feed_forward).sum::<usize>();
            assert_eq!(sum, weights, "{name}");
        }
    }

    #[test]
    fn presets_are_valid() {
        for name in Config::preset_names() {
            Config::preset(name).unwrap().validate().unwrap();
        }
        assert!(Config::preset("13b").unwrap_err().to_string().contains("350m"));
    }
}
