//! Where the time goes: what each operation of a layer, and each part of the model, takes of the whole.
//!
//! Nothing is timed inside of a layer. The parts are the operations by themselves, at the shapes and as often as the layer runs them; what
//! they add up to is held against the time of the whole.

use lfm2_kernels::model::{Config, LayerKind};
use serde::{Deserialize, Serialize};

use super::growth::{Growth, Part, Phase, Setting};
use super::id::Shape;
use super::measurement::{Measurement, find};

/// What something takes, part by part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Breakdown {
    /// Of what.
    pub of: Whole,
    /// Doing what.
    pub phase: Phase,
    /// How long a sequence.
    pub length: usize,
    /// Its parts, in the order in which they run.
    pub shares: Vec<Share>,
    /// What the parts add up to.
    pub sum: f64,
    /// What the whole takes, if that was measured.
    pub measured: Option<f64>,
}

/// What has parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whole {
    /// A conv layer, without its feed-forward.
    ConvLayer,
    /// An attention layer, without its feed-forward.
    AttentionLayer,
    /// The whole model.
    Model,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// How long it takes.
    pub seconds: f64,
    /// What that is of the sum.
    pub percent: f64,
}

impl Breakdown {
    fn new(of: Whole, phase: Phase, length: usize, parts: Parts, measured: Option<f64>) -> Self {
        let sum = parts.iter().map(|(_, seconds)| seconds).sum();
        let share = |(name, seconds): (&str, f64)| Share {
            name: name.to_string(),
            seconds,
            percent: 100.0 * seconds / sum,
        };
        let shares = parts.into_iter().map(share).collect();
        Self { of, phase, length, shares, sum, measured }
    }
}

type Parts = Vec<(&'static str, f64)>;

/// Of every length at which all operations were measured that the first growth's setting runs.
pub fn of(measurements: &[Measurement], growths: &[Growth]) -> Vec<Breakdown> {
    let Some(Growth { setting, .. }) = growths.first() else { return Vec::new() };
    let config = Config::preset("350m").expect("a preset");
    let parts = Operations { measurements, config: &config, setting };
    let mixers =
        growths.iter().filter(|growth| growth.part == Part::Mixer && growth.setting == *setting);
    let lengths: Vec<_> = mixers
        .flat_map(|growth| growth.pairs.iter().map(|pair| (growth.phase, pair.length)))
        .collect();
    let mut breakdowns = Vec::new();
    for (phase, length) in lengths {
        breakdowns.extend(parts.breakdowns(phase, length).into_iter().flatten());
    }
    breakdowns.sort_by_key(|breakdown| (breakdown.of, breakdown.phase, breakdown.length));
    breakdowns
}

/// What parts are made of.
struct Operations<'a> {
    measurements: &'a [Measurement],
    config: &'a Config,
    setting: &'a Setting,
}

impl Operations<'_> {
    fn seconds(&self, op: &str, shape: Shape) -> Option<f64> {
        let id = self.setting.id(op, shape);
        Some(find(self.measurements, &id)?.time.seconds)
    }

    fn breakdowns(&self, phase: Phase, length: usize) -> [Option<Breakdown>; 3] {
        let shape = phase.shape(length);
        let layer = |of, kind| {
            let parts = self.layer(kind, phase, length)?;
            let measured = self.seconds(Part::Layer.op(kind), shape.clone());
            Some(Breakdown::new(of, phase, length, parts, measured))
        };
        let model = || {
            let parts = self.model(phase, length)?;
            Some(Breakdown::new(
                Whole::Model,
                phase,
                length,
                parts,
                self.seconds("model", shape.clone()),
            ))
        };
        [
            layer(Whole::ConvLayer, LayerKind::Conv),
            layer(Whole::AttentionLayer, LayerKind::Attention),
            model(),
        ]
    }

    /// Operations on the rows of a piece of a prompt, as often as a prompt has pieces; or on one row.
    fn pieces(phase: Phase, length: usize) -> Option<(usize, f64)> {
        const ROWS: usize = 512;
        match phase {
            Phase::Decode => Some((1, 1.0)),
            Phase::Prefill => length.is_multiple_of(ROWS).then_some((ROWS, (length / ROWS) as f64)),
        }
    }

    fn layer(&self, kind: LayerKind, phase: Phase, length: usize) -> Option<Parts> {
        let config = self.config;
        let (rows, pieces) = Self::pieces(phase, length)?;
        let (width, query_width) = (config.hidden_size, config.query_width());
        let op = |op, lengths: &[usize]| {
            Some(pieces * self.seconds(op, Shape::Lengths(lengths.to_vec()))?)
        };
        let linear = |outputs, inputs| op("linear", &[rows, outputs, inputs]);
        let mixer = self.seconds(Part::Mixer.op(kind), phase.shape(length))?;
        let norm = op("rms_norm", &[rows, width])?;
        let residual = op("add", &[rows, width])?;
        Some(match kind {
            LayerKind::Conv => vec![
                ("norm", norm),
                ("projection in", linear(3 * width, width)?),
                ("convolution", mixer),
                ("projection out", linear(width, width)?),
                ("residual", residual),
            ],
            LayerKind::Attention => {
                // What is measured of the queries' heads takes as much less for the keys' as there are fewer.
                let with_keys = 1.0 + config.key_value_heads as f64 / config.heads as f64;
                let heads = op("rms_norm", &[rows * config.heads, config.head_dim])?;
                let rope = op("rope", &[rows, config.heads, config.head_dim])?;
                let angles = op("rope_table", &[rows, config.head_dim])?;
                let keys_and_values = 2.0 * linear(config.key_value_width(), width)?;
                vec![
                    ("norm", norm + with_keys * heads),
                    ("projection in", linear(query_width, width)? + keys_and_values),
                    ("rope", with_keys * rope + angles),
                    ("attention", mixer),
                    ("projection out", linear(width, query_width)?),
                    ("residual", residual),
                ]
            }
        })
    }

    fn model(&self, phase: Phase, length: usize) -> Option<Parts> {
        let config = self.config;
        let (rows, pieces) = Self::pieces(phase, length)?;
        let (width, inner) = (config.hidden_size, config.feed_forward_width);
        let seconds = |op, lengths: &[usize]| self.seconds(op, Shape::Lengths(lengths.to_vec()));
        let sum = |parts: Parts| parts.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let layers = |kind| {
            let count = config.layers.iter().filter(|layer| **layer == kind).count() as f64;
            Some(count * sum(self.layer(kind, phase, length)?))
        };
        // The angles are found once for all layers.
        let attention_layers =
            config.layers.iter().filter(|layer| **layer == LayerKind::Attention).count() as f64;
        let angles = pieces * seconds("rope_table", &[rows, config.head_dim])?;
        let feed_forward = seconds("rms_norm", &[rows, width])?
            + 2.0 * seconds("linear", &[rows, inner, width])?
            + seconds("silu_multiply", &[rows, inner])?
            + seconds("linear", &[rows, width, inner])?
            + seconds("add", &[rows, width])?;
        let head =
            seconds("rms_norm", &[1, width])? + seconds("linear", &[1, config.vocabulary, width])?;
        Some(vec![
            ("conv layers", layers(LayerKind::Conv)?),
            ("attention layers", layers(LayerKind::Attention)? - (attention_layers - 1.0) * angles),
            ("feed-forward", config.layers.len() as f64 * pieces * feed_forward),
            ("head", head),
        ])
    }
}
