//! What a conv layer and an attention layer cost as the sequence grows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use lfm2_kernels::model::{Config, LayerKind};
use serde::{Deserialize, Serialize};

use super::band::{self, Band};
use super::crossing::{Crossing, Pair};
use super::estimate::Estimate;
use super::fit::{Fit, HeldOut, exponent, fits_cross};
use super::id::{Id, Shape};
use super::measurement::{Measurement, find};

/// How much of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Norm, projections, mixer, output projection and residual.
    Layer,
    /// What is between the projections.
    Mixer,
}

/// What the sequence is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// So many tokens at its start.
    Prefill,
    /// One token after so many.
    Decode,
}

/// What does not change as the sequence grows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Setting {
    /// The instruction set.
    pub isa: String,
    /// Of the weights.
    pub format: String,
    /// Of the pool.
    pub threads: usize,
}

impl Setting {
    /// That of a case.
    pub fn of(id: &Id) -> Self {
        Self { isa: id.isa.clone(), format: id.format.clone(), threads: id.threads }
    }

    /// The name of a case in it.
    pub fn id(&self, op: &str, shape: Shape) -> Id {
        let Self { isa, format, threads } = self.clone();
        Id { op: op.to_string(), isa, format, shape, threads }
    }
}

/// Both kinds in one phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Growth {
    /// On what.
    #[serde(flatten)]
    pub setting: Setting,
    /// How much of a layer.
    pub part: Part,
    /// Which phase.
    pub phase: Phase,
    /// Both kinds at each length, shortest first.
    pub pairs: Vec<Pair>,
    /// Whether all of them were measured in turn, so that what memory did meanwhile met all.
    #[serde(default)]
    pub took_turns: bool,
    /// Where they cost the same.
    pub crossing: Crossing,
    /// Where the fits are equal, if they are within the range: another way to ask the same.
    pub fits_cross: Option<f64>,
    /// What is made of conv's times.
    pub conv: Curve,
    /// What is made of attention's times.
    pub attention: Curve,
}

/// What is made of times against lengths.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// The fit through all lengths, if there are enough.
    pub fit: Option<Fit>,
    /// How far it is to be trusted.
    #[serde(default)]
    pub band: Vec<Band>,
    /// The power by which time grows at the long end.
    pub exponent: Option<f64>,
    /// The check of the fit.
    pub held_out: Option<HeldOut>,
}

impl Curve {
    fn of(pairs: &[Pair], time: impl Fn(&Pair) -> Estimate) -> Self {
        let times: Vec<_> = pairs.iter().map(|pair| (pair.length as f64, time(pair))).collect();
        let points: Vec<_> = times.iter().map(|(length, time)| (*length, time.seconds)).collect();
        let fit = Fit::of(&points);
        let band = fit.map_or_else(Vec::new, |fit| band::of(&fit, &times));
        Self { fit, band, exponent: exponent(&points), held_out: HeldOut::of(&points) }
    }
}

impl Part {
    /// The name of that part of a layer of that kind in ids.
    pub fn op(self, kind: LayerKind) -> &'static str {
        match (kind, self) {
            (LayerKind::Conv, Self::Layer) => "conv_layer",
            (LayerKind::Attention, Self::Layer) => "attention_layer",
            (LayerKind::Conv, Self::Mixer) => "conv_mixer",
            (LayerKind::Attention, Self::Mixer) => "attention_mixer",
        }
    }
}

impl Phase {
    /// The shape in ids.
    pub fn shape(self, length: usize) -> Shape {
        match self {
            Self::Prefill => Shape::Prefill(length),
            Self::Decode => Shape::Decode { context: length, sequences: 1 },
        }
    }

    fn of(shape: &Shape) -> Option<(Self, usize)> {
        match *shape {
            Shape::Prefill(length) => Some((Self::Prefill, length)),
            Shape::Decode { context, sequences: 1 } => Some((Self::Decode, context)),
            _ => None,
        }
    }
}

impl Growth {
    /// The pair of that length.
    pub fn at(&self, length: usize) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.length == length)
    }

    /// The pair to answer with: 4096 tokens, or the longest.
    pub fn answer(&self) -> &Pair {
        const ASKED: usize = 4096;
        self.at(ASKED).unwrap_or_else(|| self.pairs.last().expect("growths have pairs"))
    }
}

/// Every growth of two lengths or more, those of the setting with most lengths first; prefill before decode and layers before mixers.
pub fn of(measurements: &[Measurement]) -> Vec<Growth> {
    let mut keys = BTreeSet::new();
    for Measurement { id, .. } in measurements {
        for part in [Part::Layer, Part::Mixer] {
            if let (Some((phase, _)), true) =
                (Phase::of(&id.shape), id.op == part.op(LayerKind::Conv))
            {
                keys.insert((Setting::of(id), part, phase));
            }
        }
    }
    let growths = keys.into_iter().filter_map(|(setting, part, phase)| {
        let pairs = pairs(measurements, &setting, part, phase).into_iter();
        let (pairs, turns): (Vec<_>, Vec<_>) = pairs.unzip();
        let [first, .., last] = &pairs[..] else { return None };
        let conv = Curve::of(&pairs, |pair| pair.conv);
        let attention = Curve::of(&pairs, |pair| pair.attention);
        let fits_cross = conv.fit.zip(attention.fit).and_then(|(conv, attention)| {
            fits_cross(&conv, &attention, first.length as f64, last.length as f64)
        });
        let crossing = Crossing::of(&pairs);
        let took_turns = turns.into_iter().all(|took_turns| took_turns);
        Some(Growth {
            setting,
            part,
            phase,
            pairs,
            took_turns,
            crossing,
            fits_cross,
            conv,
            attention,
        })
    });
    let mut growths: Vec<_> = growths.collect();
    let mut lengths: BTreeMap<Setting, usize> = BTreeMap::new();
    for Growth { setting, pairs, .. } in &growths {
        *lengths.entry(setting.clone()).or_default() += pairs.len();
    }
    growths.sort_by_key(|growth| {
        (Reverse(lengths[&growth.setting]), growth.setting.clone(), growth.part, growth.phase)
    });
    growths
}

/// At every length at which both kinds were measured, and whether that was in turn.
fn pairs(
    measurements: &[Measurement],
    setting: &Setting,
    part: Part,
    phase: Phase,
) -> Vec<(Pair, bool)> {
    let phases = measurements.iter().filter_map(|one| Phase::of(&one.id.shape));
    let lengths: BTreeSet<_> =
        phases.filter(|(of, _)| *of == phase).map(|(_, length)| length).collect();
    let pair = |length| {
        let of = |kind| find(measurements, &setting.id(part.op(kind), phase.shape(length)));
        let (conv, attention) = (of(LayerKind::Conv)?, of(LayerKind::Attention)?);
        let pair = Pair { length, conv: conv.time, attention: attention.time };
        Some((pair, conv.took_turns && attention.took_turns))
    };
    lengths.into_iter().filter_map(pair).collect()
}

/// What a layer keeps of a sequence of `length` tokens, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBytes {
    /// Its tokens.
    pub length: usize,
    /// A conv layer: the last inputs of its convolution.
    pub conv: usize,
    /// An attention layer: keys and values of every token, in `f32`.
    pub attention: usize,
    /// The same in `f16`.
    pub attention_f16: usize,
}

/// At every length of decoding that was measured.
pub fn states(growths: &[Growth]) -> Vec<StateBytes> {
    let config = Config::preset("350m").expect("a preset");
    let decoding = growths.iter().filter(|growth| growth.phase == Phase::Decode);
    let lengths: BTreeSet<_> =
        decoding.flat_map(|growth| &growth.pairs).map(|pair| pair.length).collect();
    let state = |length| {
        let elements = 2 * config.key_value_width() * length;
        StateBytes {
            length,
            conv: (config.conv_length - 1) * config.hidden_size * size_of::<f32>(),
            attention: elements * size_of::<f32>(),
            attention_f16: elements * size_of::<half::f16>(),
        }
    };
    lengths.into_iter().map(state).collect()
}
