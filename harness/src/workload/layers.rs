//! A conv layer of LFM2-350M and an attention layer.
//!
//! `conv_layer` and `attention_layer` are whole: operator norm, projections, mixer, output projection, residual. `conv_mixer` and
//! `attention_mixer` are what is between the projections: the gated convolution, or writing the cache and attending. An attention
//! layer here finds the angles of its positions by itself, which a model does once for all its layers (`rope_table`).

use std::cell::OnceCell;
use std::rc::Rc;

use lfm2_kernels::Isa;
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::{Config, ConvState, LayerKind, LayerState, Mixer, Scratch, Synthetic};
use lfm2_kernels::ops::{CacheElement, KeyValueCache};
use serde::Serialize;

use self::run::{Alone, Whole};
use super::{Case, Extent, values};
use crate::ceiling::{Work, beyond_cache};

mod run;

/// A thing to time.
#[derive(Clone, Copy, PartialEq)]
pub struct Part {
    /// The instruction set that is timed.
    pub isa: Isa,
    /// With norm, projections and residual, or the mixer alone.
    pub is_whole: bool,
    /// What comes.
    pub phase: Phase,
    /// How many.
    pub length: usize,
    /// Of which layer.
    pub kind: LayerKind,
}

/// Which tokens come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// That many tokens at the start of a sequence.
    Prefill,
    /// One token after that many.
    Decode,
}

impl Phase {
    /// As results name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }

    fn lengths(self, extent: Extent) -> Vec<usize> {
        let (range, factor) = match (self, extent) {
            (Self::Prefill, Extent::Quick) => (16..=4096, 4),
            (Self::Prefill, Extent::Usual) => (16..=8192, 2),
            (Self::Prefill, Extent::Full) => (16..=32768, 2),
            (Self::Decode, Extent::Quick | Extent::Usual) => (128..=32768, 4),
            (Self::Decode, Extent::Full) => (128..=32768, 2),
        };
        let lengths = std::iter::successors(Some(*range.start()), |length| Some(length * factor));
        lengths.take_while(|length| range.contains(length)).collect()
    }
}

/// Every length of both kinds, in groups that take turns: points of curves that are held against each other must have had the same
/// memory, and on many machines that changes its speed by itself.
pub fn parts(isas: &[Isa], extent: Extent) -> Vec<Vec<Part>> {
    let mut groups = Vec::new();
    for &isa in isas {
        for is_whole in [true, false] {
            for phase in [Phase::Prefill, Phase::Decode] {
                let mut group = Vec::new();
                for length in phase.lengths(extent) {
                    for kind in [LayerKind::Conv, LayerKind::Attention] {
                        group.push(Part { isa, is_whole, phase, length, kind });
                    }
                }
                groups.push(group);
            }
        }
    }
    groups
}

/// A prompt and a decoded token, short enough for the slowest that they are compared with.
pub fn compared(isas: &[Isa]) -> Vec<Vec<Part>> {
    let mut groups = Vec::new();
    for (phase, length) in [(Phase::Prefill, 256), (Phase::Decode, 128)] {
        let mut group = Vec::new();
        for &isa in isas {
            for kind in [LayerKind::Conv, LayerKind::Attention] {
                group.push(Part { isa, is_whole: true, phase, length, kind });
            }
        }
        groups.push(group);
    }
    groups
}

impl Part {
    fn op(self) -> &'static str {
        match (self.kind, self.is_whole) {
            (LayerKind::Conv, true) => "conv_layer",
            (LayerKind::Attention, true) => "attention_layer",
            (LayerKind::Conv, false) => "conv_mixer",
            (LayerKind::Attention, false) => "attention_mixer",
        }
    }

    /// Tokens that come before, and those that are timed.
    fn context_and_rows(self) -> (usize, usize) {
        match self.phase {
            Phase::Prefill => (0, self.length),
            Phase::Decode => (self.length, 1),
        }
    }

    /// The case of it.
    pub fn case(self, layers: &Layers) -> Case<'_> {
        let (context, rows) = self.context_and_rows();
        Case {
            op: self.op(),
            isa: self.isa,
            format: "f32",
            shape: format!("{}-{}", self.phase.name(), self.length),
            work: self.work(&layers.config),
            prepare: Box::new(move || {
                let states = layers.states(self.kind, self.is_whole, context, rows);
                match self.is_whole {
                    true => Box::new(Whole::new(layers, self.kind, states, rows)),
                    false => Box::new(Alone::new(&layers.config, states, rows)),
                }
            }),
        }
    }

    fn work(self, config: &Config) -> Work {
        let (context, rows) = self.context_and_rows();
        let (width, key_value_width) = (config.hidden_size, config.key_value_width());
        let elements = |columns: usize| (rows * columns) as u64;
        // The rows that pass through the same buffers.
        let piece = Scratch::pass_rows(rows);
        let (weights, mixer) = match self.kind {
            LayerKind::Conv => {
                // A gate before, the taps, a gate after; B, C, x and the result.
                let operations = elements((2 * config.conv_length + 1) * width);
                let bytes = 4 * elements(4 * width);
                let working_set = Some((4 * piece * 4 * width) as u64);
                let mixer = Work { rows, operations, bytes, working_set, ..Work::default() };
                (4 * width * width, mixer)
            }
            LayerKind::Attention => {
                let pairs = (rows * context + rows * (rows + 1) / 2) as u64;
                let operations = 4 * pairs * config.query_width() as u64;
                let cache = (context + rows) * 2 * key_value_width;
                let bytes = 4 * (elements(2 * width) + cache as u64);
                // A decoded token finds the cache of its layer gone; a prompt has just written it.
                let near = (4 * (piece * 2 * width + cache)) as u64;
                let working_set = (context == 0).then_some(near);
                let mixer = Work { rows, operations, bytes, working_set, ..Work::default() };
                (2 * width * (width + key_value_width), mixer)
            }
        };
        if !self.is_whole {
            return mixer;
        }
        Work {
            operations: mixer.operations + 2 * elements(weights) + elements(5 * width),
            bytes: mixer.bytes + 4 * weights as u64 + 4 * elements(2 * width),
            working_set: None,
            ..mixer
        }
    }
}

/// Layers of both kinds with random weights, made when they are first needed.
pub struct Layers {
    config: Config,
    conv: OnceCell<Rc<[Layer]>>,
    attention: OnceCell<Rc<[Layer]>>,
}

struct Layer {
    norm: Vec<f32>,
    mixer: Mixer,
}

impl Default for Layers {
    fn default() -> Self {
        let config = Config::preset("350m").expect("a preset");
        Self { config, conv: OnceCell::new(), attention: OnceCell::new() }
    }
}

impl Layers {
    /// As many as are together beyond any cache.
    fn of(&self, kind: LayerKind) -> Rc<[Layer]> {
        let cell = match kind {
            LayerKind::Conv => &self.conv,
            LayerKind::Attention => &self.attention,
        };
        let source = Synthetic::new(1, WeightFormat::F32);
        let layer = |index| {
            let name = format!("model.layers.{index}");
            Layer {
                norm: source
                    .values(&format!("{name}.operator_norm.weight"), &[self.config.hidden_size]),
                mixer: Mixer::load(kind, &self.config, &source, &name)
                    .expect("synthetic weights have every tensor"),
            }
        };
        let make = || {
            let first = layer(0);
            let bytes = first.mixer.matrices().iter().map(|matrix| matrix.bytes()).sum();
            let count = beyond_cache().div_ceil(bytes);
            std::iter::once(first).chain((1..count).map(layer)).collect()
        };
        cell.get_or_init(make).clone()
    }

    /// States after `context` tokens with room for `rows`: as many as are together beyond any cache, but no more than layers; of a
    /// convolution as many as the model has; of a prompt's attention one.
    fn states(
        &self,
        kind: LayerKind,
        is_whole: bool,
        context: usize,
        rows: usize,
    ) -> Vec<LayerState> {
        let config = &self.config;
        let width = config.key_value_width();
        let (keys, values) = (values("keys", 512 * width), values("values", 512 * width));
        let state = |_| match kind {
            LayerKind::Conv => {
                let length = (config.conv_length - 1) * config.hidden_size;
                LayerState::Conv(ConvState::Gated(vec![0.0; length]))
            }
            LayerKind::Attention => {
                let (heads, head_dim) = (config.key_value_heads, config.head_dim);
                let mut cache =
                    KeyValueCache::new(heads, head_dim, context + rows, CacheElement::F32);
                while cache.len() < context {
                    let elements = (context - cache.len()).min(512) * width;
                    cache.append(&keys[..elements], &values[..elements]);
                }
                LayerState::Attention(cache)
            }
        };
        let bytes = 4 * 2 * width * context.max(1);
        let of_kind = config.layers.iter().filter(|layer| **layer == kind).count();
        let cold = match (kind, context) {
            (LayerKind::Conv, _) => of_kind,
            (LayerKind::Attention, 0) => 1,
            (LayerKind::Attention, _) => beyond_cache().div_ceil(bytes),
        };
        let count = if is_whole { cold.min(self.of(kind).len()) } else { cold };
        (0..count).map(state).collect()
    }
}
