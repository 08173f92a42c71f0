//! A whole LFM2 model in `f64`, from a Hugging Face folder or from tensors in memory.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

use super::ops::{self, ShiftAxis};

/// Which text the model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description {
    /// LFM2 as Liquid AI published it: gated short convolutions, one residual after the other.
    Lfm2,
    /// llama.cpp issue #22287 at its word: shifted chunks are summed, and mixer and feed-forward
    /// network read the same residual stream.
    Issue22287(ShiftAxis),
}

/// What mixes the tokens in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixer {
    /// A short convolution.
    Convolution,
    /// Attention.
    Attention,
}

/// What the shapes of a mixture of experts do not say.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// How many experts a row uses.
    pub used: usize,
    /// How many layers come before those with experts.
    pub dense_layers: usize,
    /// Whether scores are compared with `expert_bias` added.
    pub bias: bool,
    /// Whether the weights of a row's experts are divided by their sum.
    pub normalise: bool,
    /// By what weights are multiplied in the end.
    pub scale: f64,
}

/// What the shapes of a model's tensors do not say.
#[derive(Clone, Debug, PartialEq)]
pub struct OracleConfig {
    /// Which text the model follows.
    pub description: Description,
    /// The mixer of every layer.
    pub mixers: Vec<Mixer>,
    /// How many query heads there are.
    pub heads: usize,
    /// How many key-value heads there are.
    pub key_value_heads: usize,
    /// The width of one head.
    pub head_dim: usize,
    /// Its mixture of experts, if it has one.
    pub experts: Option<Mixture>,
    /// Whether a convolution layer's projections and its convolution have biases.
    pub convolution_bias: bool,
    /// Whether the logits are taken with the embedding where there is no `lm_head.weight`.
    pub tied_embedding: bool,
    /// What every norm adds to the mean square.
    pub norm_epsilon: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
}

/// A model's tensors by name, each with its shape and its elements in row-major order.
///
/// The names are those of Hugging Face's LFM2, for both descriptions:
/// `model.layers.0.conv.in_proj.weight`.
pub type Tensors = HashMap<String, (Vec<usize>, Vec<f64>)>;

/// What one run returns.
#[derive(Clone, Debug, PartialEq)]
pub struct OracleRun {
    /// `[T, V]`: the logits after every token.
    pub logits: Vec<f64>,
    /// `[L - 1, D]` for every convolution layer, in order: the last rows of the depthwise
    /// convolution's input, oldest first, zeros before the start. The input is `B x` in
    /// [`Description::Lfm2`] and the sum of the shifted chunks in [`Description::Issue22287`].
    pub conv_state: Vec<Vec<f64>>,
    /// `[T, key_value_heads * head_dim]` for every attention layer, in order: keys after norm and
    /// rotation.
    pub keys: Vec<Vec<f64>>,
    /// `[T, key_value_heads * head_dim]` for every attention layer, in order: values as projected.
    pub values: Vec<Vec<f64>>,
}

/// A model that can run.
#[derive(Clone, Debug)]
pub struct Oracle {
    config: OracleConfig,
    hidden: usize,
    tensors: Tensors,
}

impl Oracle {
    /// Reads `config.json`, and `model.safetensors` or the files that
    /// `model.safetensors.index.json` lists.
    ///
    /// A config with the issue's keys (`conv_layers`, `attention_layers`) is read as
    /// [`Description::Issue22287`]; its `shift_axis` is `"time"`, the default, or `"feature"`.
    pub fn load(directory: &Path) -> Result<Oracle, String> {
        let config = OracleConfig::from_json(&read_json(&directory.join("config.json"))?)?;
        let index = directory.join("model.safetensors.index.json");
        let mut files = vec!["model.safetensors".to_string()];
        if index.exists() {
            let json = read_json(&index)?;
            let map = json
                .get("weight_map")
                .and_then(Value::as_object)
                .ok_or("the index has no weight_map")?;
            files = map
                .values()
                .map(|file| Ok(file.as_str().ok_or("a file name is not text")?.to_string()))
                .collect::<Result<_, String>>()?;
            files.sort();
            files.dedup();
        }
        let mut tensors = Tensors::new();
        for file in files {
            read_tensors(&directory.join(file), &mut tensors)?;
        }
        Oracle::new(config, tensors)
    }

    /// Makes a model of tensors in memory; every one that the config asks for must be there in its
    /// right shape, and no bias besides.
    pub fn new(config: OracleConfig, tensors: Tensors) -> Result<Oracle, String> {
        let hidden = match tensors.get("model.embed_tokens.weight") {
            Some((shape, _)) if shape.len() == 2 => shape[1],
            _ => return Err("no model.embed_tokens.weight of two dimensions".into()),
        };
        if config.key_value_heads == 0 || !config.heads.is_multiple_of(config.key_value_heads) {
            return Err(format!("{} heads cannot share {}", config.heads, config.key_value_heads));
        }
        let oracle = Oracle { config, hidden, tensors };
        oracle.check()?;
        Ok(oracle)
    }

    /// The config that the model runs with.
    pub fn config(&self) -> &OracleConfig {
        &self.config
    }

    /// The same tensors under another description.
    pub fn with_description(mut self, description: Description) -> Oracle {
        self.config.description = description;
        self
    }

    /// The number of logits after a token.
    pub fn vocabulary(&self) -> usize {
        self.tensors["model.embed_tokens.weight"].0[0]
    }

    /// Runs a sequence from its start.
    ///
    /// # Panics
    /// If there is no token, or one outside the vocabulary.
    pub fn forward(&self, tokens: &[u32]) -> OracleRun {
        self.run(tokens, &mut Doubts::default())
    }

    /// Every run that a computation may come to whose scores of experts are off by less than `margin / 2`, the exact one first: where
    /// the best expert that is not chosen is nearer than `margin` to the worst that is, either may be used.
    ///
    /// At most 64: with many rows, a margin must be narrow to say anything.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn alternatives(&self, tokens: &[u32], margin: f64) -> Vec<OracleRun> {
        const MOST: usize = 64;
        let mut runs = Vec::new();
        let mut left = VecDeque::from([Vec::new()]);
        while let Some(turns) = left.pop_front().filter(|_| runs.len() < MOST) {
            let mut doubts = Doubts { margin, turns, met: 0 };
            runs.push(self.run(tokens, &mut doubts));
            // Each doubt that was met after the last known turn may be turned first.
            for known in doubts.turns.len()..doubts.met {
                let mut turns = doubts.turns.clone();
                turns.resize(known, false);
                turns.push(true);
                left.push_back(turns);
            }
        }
        runs
    }

    fn run(&self, tokens: &[u32], doubts: &mut Doubts) -> OracleRun {
        assert!(!tokens.is_empty(), "a sequence has tokens");
        let mut run = OracleRun {
            logits: Vec::new(),
            conv_state: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
        };
        let embedding = self.tensor("model.embed_tokens.weight");
        let mut hidden = ops::embedding(tokens, embedding, self.hidden);
        for (index, mixer) in self.config.mixers.iter().enumerate() {
            let layer = Layer {
                oracle: self,
                prefix: format!("model.layers.{index}."),
                experts: self.config.experts_of(index),
                rows: tokens.len(),
            };
            let normed = layer.norm("operator_norm", &hidden);
            let mixed = match mixer {
                Mixer::Convolution => layer.convolution(&normed, &mut run),
                Mixer::Attention => layer.attention(&normed, &mut run),
            };
            let after_mixer = ops::add(&hidden, &mixed);
            let feed_forward_input = match self.config.description {
                Description::Lfm2 => &after_mixer,
                Description::Issue22287(_) => &hidden,
            };
            let normed = layer.norm("ffn_norm", feed_forward_input);
            let fed_forward = match layer.experts {
                Some(mixture) => layer.experts(mixture, &normed, doubts),
                None => layer.feed_forward("feed_forward", &normed, layer.rows),
            };
            hidden = ops::add(&after_mixer, &fed_forward);
        }
        let normed = ops::rms_norm(
            &hidden,
            self.tensor("model.embedding_norm.weight"),
            self.config.norm_epsilon,
        );
        let head = self.tensors.get("lm_head.weight").map_or(embedding, |(_, head)| head);
        run.logits = ops::linear(&normed, tokens.len(), head, None);
        run
    }

    fn tensor(&self, name: &str) -> &[f64] {
        &self.tensors[name].1
    }

    fn check(&self) -> Result<(), String> {
        let OracleConfig { heads, key_value_heads, head_dim, .. } = self.config;
        let hidden = self.hidden;
        let (query_width, key_width) = (heads * head_dim, key_value_heads * head_dim);
        self.expect("model.embed_tokens.weight", &[self.vocabulary(), hidden])?;
        self.expect("model.embedding_norm.weight", &[hidden])?;
        if self.tensors.contains_key("lm_head.weight") {
            self.expect("lm_head.weight", &[self.vocabulary(), hidden])?;
        } else if !self.config.tied_embedding {
            return Err("no lm_head.weight, and the embedding is not tied".into());
        }
        for (index, mixer) in self.config.mixers.iter().enumerate() {
            let expect = |name: &str, shape: &[usize]| {
                self.expect(&format!("model.layers.{index}.{name}"), shape)
            };
            let first_dimension = |name: &str| {
                let name = format!("model.layers.{index}.{name}");
                self.tensors
                    .get(&name)
                    .and_then(|(shape, _)| shape.first().copied())
                    .ok_or(format!("no {name}"))
            };
            expect("operator_norm.weight", &[hidden])?;
            expect("ffn_norm.weight", &[hidden])?;
            let expect_network = |prefix: &str| {
                let width = first_dimension(&format!("{prefix}.w1.weight"))?;
                expect(&format!("{prefix}.w1.weight"), &[width, hidden])?;
                expect(&format!("{prefix}.w3.weight"), &[width, hidden])?;
                expect(&format!("{prefix}.w2.weight"), &[hidden, width])
            };
            match self.config.experts_of(index) {
                None => expect_network("feed_forward")?,
                Some(mixture) => {
                    let experts = first_dimension("feed_forward.gate.weight")?;
                    if !(1..=experts).contains(&mixture.used) {
                        return Err(format!(
                            "a row cannot use {} of {experts} experts",
                            mixture.used
                        ));
                    }
                    expect("feed_forward.gate.weight", &[experts, hidden])?;
                    if mixture.bias {
                        expect("feed_forward.expert_bias", &[experts])?;
                    }
                    for expert in 0..experts {
                        expect_network(&format!("feed_forward.experts.{expert}"))?;
                    }
                }
            }
            match mixer {
                Mixer::Convolution => {
                    expect("conv.in_proj.weight", &[3 * hidden, hidden])?;
                    expect("conv.out_proj.weight", &[hidden, hidden])?;
                    let taps = self.taps(index)?;
                    expect("conv.conv.weight", &[hidden, 1, taps])?;
                    for (name, width) in
                        [("in_proj", 3 * hidden), ("conv", hidden), ("out_proj", hidden)]
                    {
                        let bias = format!("conv.{name}.bias");
                        if self.config.convolution_bias {
                            expect(&bias, &[width])?;
                        } else if self.tensors.contains_key(&format!("model.layers.{index}.{bias}"))
                        {
                            return Err(format!(
                                "layer {index} has a {bias}, but the config has no biases"
                            ));
                        }
                    }
                }
                Mixer::Attention => {
                    expect("self_attn.q_proj.weight", &[query_width, hidden])?;
                    expect("self_attn.k_proj.weight", &[key_width, hidden])?;
                    expect("self_attn.v_proj.weight", &[key_width, hidden])?;
                    expect("self_attn.out_proj.weight", &[hidden, query_width])?;
                    expect("self_attn.q_layernorm.weight", &[head_dim])?;
                    expect("self_attn.k_layernorm.weight", &[head_dim])?;
                }
            }
        }
        Ok(())
    }

    fn taps(&self, index: usize) -> Result<usize, String> {
        let name = format!("model.layers.{index}.conv.conv.weight");
        let shape = self.tensors.get(&name).map(|(shape, _)| shape.as_slice());
        match shape {
            Some(&[_, _, taps]) if taps > 0 => Ok(taps),
            _ => Err(format!("no {name} with taps")),
        }
    }

    fn expect(&self, name: &str, shape: &[usize]) -> Result<(), String> {
        let (actual, elements) = self.tensors.get(name).ok_or(format!("no {name}"))?;
        if actual != shape || elements.len() != shape.iter().product::<usize>() {
            return Err(format!(
                "{name} is {actual:?} with {} elements, not {shape:?}",
                elements.len()
            ));
        }
        Ok(())
    }
}

/// Choices of experts that a small error would change.
#[derive(Default)]
struct Doubts {
    /// How near ranks must be to be in doubt.
    margin: f64,
    /// Which of the doubts are decided against the exact ranks, in the order in which they are met; none of those after.
    turns: Vec<bool>,
    /// How many were met.
    met: usize,
}

impl Doubts {
    /// The `used` largest of `ranks`, or with the next one in the place of the last.
    fn choose(&mut self, ranks: &[f64], used: usize) -> Vec<usize> {
        let mut order = ops::by_rank(ranks);
        if used < order.len() && ranks[order[used - 1]] - ranks[order[used]] < self.margin {
            if self.turns.get(self.met) == Some(&true) {
                order.swap(used - 1, used);
            }
            self.met += 1;
        }
        order.truncate(used);
        order
    }
}

/// One layer at work on `rows` tokens.
struct Layer<'a> {
    oracle: &'a Oracle,
    prefix: String,
    experts: Option<&'a Mixture>,
    rows: usize,
}

impl Layer<'_> {
    fn tensor(&self, name: &str) -> &[f64] {
        self.oracle.tensor(&format!("{}{name}", self.prefix))
    }

    fn bias(&self, name: &str) -> Option<&[f64]> {
        self.oracle.config.convolution_bias.then(|| self.tensor(&format!("{name}.bias")))
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        ops::rms_norm(x, self.tensor(&format!("{name}.weight")), self.oracle.config.norm_epsilon)
    }

    fn project(&self, name: &str, x: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
        ops::linear(x, self.rows, self.tensor(&format!("{name}.weight")), bias)
    }

    fn convolution(&self, x: &[f64], run: &mut OracleRun) -> Vec<f64> {
        let width = self.oracle.hidden;
        let weight = self.tensor("conv.conv.weight");
        let bias = self.bias("conv.conv");
        let start = vec![0.0; weight.len() - width];
        let projected = self.project("conv.in_proj", x, self.bias("conv.in_proj"));
        let (mixed, state) = match self.oracle.config.description {
            Description::Lfm2 => ops::short_conv(&projected, width, weight, bias, &start),
            Description::Issue22287(axis) => {
                let sums = ops::add_shifted_chunks(&projected, width, axis);
                ops::causal_convolution(&sums, width, weight, bias, &start)
            }
        };
        run.conv_state.push(state);
        self.project("conv.out_proj", &mixed, self.bias("conv.out_proj"))
    }

    fn attention(&self, x: &[f64], run: &mut OracleRun) -> Vec<f64> {
        let OracleConfig { heads, key_value_heads, head_dim, rope_theta, .. } = self.oracle.config;
        let positions: Vec<u32> = (0..self.rows as u32).collect();
        let normed_and_rotated = |name: &str, heads: usize| {
            let projected = self.project(&format!("self_attn.{name}_proj"), x, None);
            let normed = self.norm(&format!("self_attn.{name}_layernorm"), &projected);
            ops::rope(&normed, heads, head_dim, &positions, rope_theta)
        };
        let query = normed_and_rotated("q", heads);
        let key = normed_and_rotated("k", key_value_heads);
        let value = self.project("self_attn.v_proj", x, None);
        let mixed = ops::attention(&query, &key, &value, heads, key_value_heads, head_dim);
        run.keys.push(key);
        run.values.push(value);
        self.project("self_attn.out_proj", &mixed, None)
    }

    /// The network `name` on `rows` of `x`.
    fn feed_forward(&self, name: &str, x: &[f64], rows: usize) -> Vec<f64> {
        let weight = |part: &str| self.tensor(&format!("{name}.{part}.weight"));
        let gate = ops::linear(x, rows, weight("w1"), None);
        let up = ops::linear(x, rows, weight("w3"), None);
        ops::linear(&ops::silu_multiply(&gate, &up), rows, weight("w2"), None)
    }

    /// Row by row, the weighted sum of what its experts make of it.
    fn experts(&self, mixture: &Mixture, x: &[f64], doubts: &mut Doubts) -> Vec<f64> {
        let mut out = Vec::with_capacity(x.len());
        for row in x.chunks_exact(self.oracle.hidden) {
            let gate = self.tensor("feed_forward.gate.weight");
            let scores = ops::sigmoid(&ops::linear(row, 1, gate, None));
            let ranks = match mixture.bias {
                true => ops::add(&scores, self.tensor("feed_forward.expert_bias")),
                false => scores.clone(),
            };
            let chosen = doubts.choose(&ranks, mixture.used);
            let weights = ops::expert_weights(&scores, &chosen, mixture.normalise, mixture.scale);
            let mut sum = vec![0.0; row.len()];
            for (expert, weight) in chosen.iter().zip(weights) {
                let network = format!("feed_forward.experts.{expert}");
                sum = ops::add_scaled(&sum, &self.feed_forward(&network, row, 1), weight);
            }
            out.extend(sum);
        }
        out
    }
}

impl OracleConfig {
    /// The mixture of experts of a layer, or nothing where its feed-forward network is dense.
    fn experts_of(&self, layer: usize) -> Option<&Mixture> {
        self.experts.as_ref().filter(|mixture| layer >= mixture.dense_layers)
    }

    /// Reads the fields of a parsed `config.json`.
    pub fn from_json(json: &Value) -> Result<OracleConfig, String> {
        let fields = json.as_object().ok_or("the config is not an object")?;
        let layers = count(fields, "num_hidden_layers")?;
        let from_issue =
            fields.contains_key("conv_layers") || fields.contains_key("attention_layers");
        let heads = count(fields, "num_attention_heads")?;
        let head_dim = match present(fields, "head_dim") {
            Some(_) => count(fields, "head_dim")?,
            None => count(fields, "hidden_size")? / heads,
        };
        let epsilon_key = if from_issue { "rms_norm_eps" } else { "norm_eps" };
        Ok(OracleConfig {
            description: if from_issue {
                Description::Issue22287(shift_axis(fields)?)
            } else {
                Description::Lfm2
            },
            mixers: if from_issue {
                mixers_of_issue(fields, layers)?
            } else {
                mixers(fields, layers)?
            },
            heads,
            key_value_heads: count(fields, "num_key_value_heads")?,
            head_dim,
            experts: mixture(fields)?,
            convolution_bias: truth(fields, "conv_bias")?.unwrap_or(from_issue),
            tied_embedding: truth(fields, "tie_embedding")?
                .map_or_else(|| truth(fields, "tie_word_embeddings"), |tied| Ok(Some(tied)))?
                .unwrap_or(true),
            norm_epsilon: number(fields, epsilon_key)?.unwrap_or(1e-5),
            rope_theta: rope_theta(fields)?,
        })
    }
}

/// The mixture of experts of a config of the type `lfm2_moe`.
fn mixture(fields: &Map<String, Value>) -> Result<Option<Mixture>, String> {
    if present(fields, "model_type").is_none_or(|kind| kind != "lfm2_moe") {
        return Ok(None);
    }
    let dense_layers = present(fields, "num_dense_layers").and_then(Value::as_u64);
    Ok(Some(Mixture {
        used: count(fields, "num_experts_per_tok")?,
        dense_layers: dense_layers.ok_or("num_dense_layers is not a number")? as usize,
        bias: truth(fields, "use_expert_bias")?.unwrap_or(true),
        normalise: truth(fields, "norm_topk_prob")?.unwrap_or(true),
        scale: number(fields, "routed_scaling_factor")?.unwrap_or(1.0),
    }))
}

/// The mixers of a published config: `layer_types`, else `full_attn_idxs`, else attention
/// everywhere. A surplus of types is harmless.
fn mixers(fields: &Map<String, Value>, layers: usize) -> Result<Vec<Mixer>, String> {
    if let Some(types) = present(fields, "layer_types") {
        let types = types.as_array().ok_or("layer_types is not a list")?;
        if types.len() < layers {
            return Err(format!("{} layer_types for {layers} layers", types.len()));
        }
        let mixer =
            |kind: &Value| if kind == "conv" { Mixer::Convolution } else { Mixer::Attention };
        return Ok(types[..layers].iter().map(mixer).collect());
    }
    if present(fields, "full_attn_idxs").is_some() {
        let attention = indices(fields, "full_attn_idxs", layers)?;
        let mixer =
            |index| if attention.contains(&index) { Mixer::Attention } else { Mixer::Convolution };
        return Ok((0..layers).map(mixer).collect());
    }
    Ok(vec![Mixer::Attention; layers])
}

/// The mixers of the issue's config, which lists every layer in `conv_layers` or in
/// `attention_layers`.
fn mixers_of_issue(fields: &Map<String, Value>, layers: usize) -> Result<Vec<Mixer>, String> {
    let convolution = indices(fields, "conv_layers", layers)?;
    let attention = indices(fields, "attention_layers", layers)?;
    let mixer = |index| match (convolution.contains(&index), attention.contains(&index)) {
        (true, false) => Ok(Mixer::Convolution),
        (false, true) => Ok(Mixer::Attention),
        _ => Err(format!("layer {index} is not in one of conv_layers and attention_layers")),
    };
    (0..layers).map(mixer).collect()
}

fn indices(fields: &Map<String, Value>, key: &str, layers: usize) -> Result<Vec<usize>, String> {
    let list =
        present(fields, key).map_or(Some([].as_slice()), |list| list.as_array().map(Vec::as_slice));
    let index =
        |index: &Value| index.as_u64().map(|index| index as usize).filter(|&index| index < layers);
    list.and_then(|list| list.iter().map(index).collect())
        .ok_or(format!("{key} is not a list of layers"))
}

fn shift_axis(fields: &Map<String, Value>) -> Result<ShiftAxis, String> {
    match present(fields, "shift_axis").map(|axis| axis.as_str()) {
        None | Some(Some("time")) => Ok(ShiftAxis::Time),
        Some(Some("feature")) => Ok(ShiftAxis::Feature),
        Some(_) => Err("shift_axis is neither \"time\" nor \"feature\"".into()),
    }
}

/// `rope_parameters.rope_theta`, as newer files have it, else `rope_theta`, else a million.
fn rope_theta(fields: &Map<String, Value>) -> Result<f64, String> {
    let mut theta = number(fields, "rope_theta")?.unwrap_or(1e6);
    for key in ["rope_scaling", "rope_parameters"] {
        if let Some(parameters) = present(fields, key).and_then(Value::as_object) {
            if let Some(kind) = present(parameters, "rope_type").filter(|kind| *kind != "default") {
                return Err(format!("rotary embeddings of type {kind} are not supported"));
            }
            theta = number(parameters, "rope_theta")?.unwrap_or(theta);
        }
    }
    Ok(theta)
}

fn present<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|value| !value.is_null())
}

fn number(fields: &Map<String, Value>, key: &str) -> Result<Option<f64>, String> {
    present(fields, key)
        .map(|value| value.as_f64().ok_or(format!("{key} is not a number")))
        .transpose()
}

fn truth(fields: &Map<String, Value>, key: &str) -> Result<Option<bool>, String> {
    present(fields, key)
        .map(|value| value.as_bool().ok_or(format!("{key} is not true or false")))
        .transpose()
}

fn count(fields: &Map<String, Value>, key: &str) -> Result<usize, String> {
    match present(fields, key).and_then(Value::as_u64) {
        Some(count) if count > 0 => Ok(count as usize),
        _ => Err(format!("{key} is not a positive number")),
    }
}

fn read_json(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_tensors(path: &Path, tensors: &mut Tensors) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    for (name, view) in file.tensors() {
        let pairs = view.data().chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        let elements = match view.dtype() {
            Dtype::F32 => {
                let words =
                    view.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
                words.map(|word| f64::from(f32::from_le_bytes(word))).collect()
            }
            Dtype::F16 => pairs.map(|pair| f16::from_le_bytes(pair).to_f64()).collect(),
            Dtype::BF16 => pairs.map(|pair| bf16::from_le_bytes(pair).to_f64()).collect(),
            other => return Err(format!("{name} is of type {other:?}")),
        };
        tensors.insert(name, (view.shape().to_vec(), elements));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
