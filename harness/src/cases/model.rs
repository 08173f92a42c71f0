//! Whole small models, from tokens to logits and state: equal bits however a prompt is split into calls, beside any other sequences and
//! in whatever state.

use std::sync::{Arc, OnceLock};

use lfm2_kernels::Isa;
use lfm2_kernels::linear::{Activations, WeightFormat};
use lfm2_kernels::model::{
    Config, ConvState, Description, ExpertsConfig, LayerKind, LayerState, Logits, Model,
    Operations, Scratch, Sequence, State,
};
use lfm2_kernels::ops::{CacheElement, MAX_GROUP, MAX_HEAD_DIM, ShiftAxis, ShortConv};
use lfm2_kernels::simd::LANES;
use proptest::strategy::BoxedStrategy;

use super::{Case, Dimension, Op, Output, Shape, Sizes, among, at_most, between, one_of, shapes};
use crate::buffer::{Buffer, Input};
use crate::compare::Errors;
use crate::data::Data;
use crate::golden::Difference;
use crate::kernels::Kernels;
use crate::oracle::expected::Expected;
use crate::oracle::model::OracleRun;
use crate::plan::Check;
use crate::random_model::{RandomModel, VOCABULARY, Weights};

pub const OP: Op = Op {
    name: "model",
    format: None,
    checks: &[Check::OtherWay, Check::Bounds],
    dimensions: &[
        Dimension::choice("description", DESCRIPTIONS.len()),
        Dimension::choice("format", DENSE_FORMATS.len()),
        Dimension::choice("cache", CACHES.len()),
        LAYERS,
        ATTENTION,
        Dimension::between("hidden_size", 1, WIDEST),
        Dimension::between("feed_forward_width", 1, WIDEST),
        Dimension::between("key_value_heads", 1, WIDEST / LANES),
        Dimension::between("group", 1, MAX_GROUP),
        Dimension::multiple("head_dim", LANES, MAX_HEAD_DIM),
        Dimension::between("length", 1, ShortConv::MAX_LENGTH),
        Dimension::flag("bias"),
        Dimension::positive("theta"),
        PROMPT,
        Dimension::choice("way", WAYS.len()),
    ],
    fit_together: |shape| small_enough(setup(shape)),
    fixed_shapes,
    drawn_shapes,
    make: |shape, data| whole_model(setup(shape), data),
};

/// A model with a mixture of experts. Its cache is of singles: with halves, too many choices of experts would be in doubt.
pub const WITH_EXPERTS: Op = Op {
    name: "model_experts",
    format: None,
    checks: &[Check::OtherWay, Check::Bounds],
    dimensions: &[
        Dimension::choice("format", FORMATS.len()),
        LAYERS,
        ATTENTION,
        Dimension::between("dense_layers", 0, MOST_LAYERS),
        Dimension::between("hidden_size", 1, WIDEST),
        Dimension::between("experts", 1, MOST_EXPERTS),
        Dimension::between("used", 1, MOST_EXPERTS),
        Dimension::between("expert_width", 1, WIDEST),
        Dimension::between("router", 0, 0b111),
        PROMPT,
        Dimension::choice("way", WAYS.len()),
    ],
    fit_together: |shape| {
        let [_, _, _, _, _, experts, used, ..] = shape.sizes::<11>();
        at_most(experts, "used", used)?;
        small_enough(setup_with_experts(shape))
    },
    fixed_shapes: fixed_shapes_with_experts,
    drawn_shapes: drawn_shapes_with_experts,
    make: |shape, data| whole_model(setup_with_experts(shape), data),
};

/// A model of quantised weights, in both modes of activations. Rows that are no whole blocks are singles, as in files.
pub const QUANTISED: Op = Op {
    name: "model_quantised",
    format: None,
    checks: &[Check::OtherWay, Check::Bounds],
    dimensions: &[
        Dimension::choice("format", QUANTISED_FORMATS.len()),
        Dimension::choice("activations", ACTIVATIONS.len()),
        LAYERS,
        ATTENTION,
        Dimension::between("blocks", 1, MOST_BLOCKS),
        Dimension::between("feed_forward_blocks", 1, MOST_BLOCKS),
        Dimension::between("experts", 0, MOST_EXPERTS),
        PROMPT,
        Dimension::choice("way", WAYS.len()),
    ],
    fit_together: |shape| small_enough(setup_of_blocks(shape)),
    fixed_shapes: fixed_shapes_of_blocks,
    drawn_shapes: drawn_shapes_of_blocks,
    make: |shape, data| whole_model(setup_of_blocks(shape), data),
};

const LAYERS: Dimension = Dimension::between("layers", 1, MOST_LAYERS);

const ATTENTION: Dimension = Dimension::between("attention", 0, (1 << MOST_LAYERS) - 1);

const PROMPT: Dimension = Dimension::between("prompt", 1, 1 << 16);

const MOST_LAYERS: usize = 16;

const MOST_EXPERTS: usize = 64;

/// The most that a model is wide: more than any that is checked.
const WIDEST: usize = 2048;

const MOST_BLOCKS: usize = WIDEST / 32;

/// The most weights that a model has, and the most products that it takes: more than any that is checked.
const MOST_WEIGHTS: usize = 1 << 24;
const MOST_PRODUCTS: usize = 1 << 31;

const DESCRIPTIONS: [Description; 3] = [
    Description::Lfm2,
    Description::Issue22287 { shift_axis: ShiftAxis::Time },
    Description::Issue22287 { shift_axis: ShiftAxis::Feature },
];

const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16];

/// With experts, rounded activations could choose others than the oracle does.
const DENSE_FORMATS: [(WeightFormat, Activations); 4] = [
    (WeightFormat::F32, Activations::F32),
    (WeightFormat::F16, Activations::F32),
    (WeightFormat::Bf16, Activations::F32),
    (WeightFormat::Bf16, Activations::Bf16),
];

const QUANTISED_FORMATS: [WeightFormat; 8] = [
    WeightFormat::Q8_0,
    WeightFormat::Q4_0,
    WeightFormat::Q4_1,
    WeightFormat::Q5_0,
    WeightFormat::Q5_1,
    WeightFormat::Q4K,
    WeightFormat::Q5K,
    WeightFormat::Q6K,
];

const ACTIVATIONS: [Activations; 2] = [Activations::F32, Activations::Int8];

const CACHES: [CacheElement; 2] = [CacheElement::F32, CacheElement::F16];

/// A prompt of more rows takes several passes; a number of its own, since shapes name what is hashed.
const LONG: usize = 512;
const _: () = assert!(LONG > Scratch::MAX_ROWS);

/// The largest normalised mean squared error of a random model's logits and state against the oracle.
///
/// Not derived: errors pass through several layers, and norms may divide by small numbers. PyTorch's own 32-bit results of such models
/// are wrong by up to 4e-12 (`fixtures/manifest.json`), and the worst of 500 random models here was, too. Known mistakes give 1e-2.
const NMSE_BOUND: f64 = 1e-10;

/// As [`NMSE_BOUND`], with keys and values rounded to halves: wrong by up to 2^-12 of each, 2e-8 in the mean square, before later layers
/// add to that. The worst of 500 models was 3e-6.
const NMSE_BOUND_F16: f64 = 1e-5;

/// As [`NMSE_BOUND`], with activations of 8 bits: the oracle does not quantise them, and each linear layer's are wrong by up to a 254th of the
/// largest of 32. This tells a model that is right from one that is not; how linear layers quantise is held to a bound of its own.
const NMSE_BOUND_INT8: f64 = 2e-2;

/// As [`NMSE_BOUND`], with activations rounded to brain floats, which the oracle's are not: wrong by up to 2^-8 of each, 2.6e-6 in the mean
/// square, before other layers add to that. The worst of 1400 models was 3e-4. How linear layers round is held to a bound of its own.
const NMSE_BOUND_BF16: f64 = 1e-3;

/// Experts whose ranks differ by less than this are in doubt: either may be right.
///
/// [`NMSE_BOUND`] allows what enters a sigmoid, numbers of size one, an error of 1e-5. A quarter of it reaches a score, since that is the
/// largest slope of a sigmoid, and two scores are compared: 5e-6. The bound is of a mean, so a factor of six is left for single rows.
const DOUBT: f64 = 3e-5;

/// A convolution, attention (bit 1 of 0b010), a convolution.
fn shape(description: usize, format: usize, cache: usize, prompt: usize, way: usize) -> Shape {
    let bias = prompt % 2;
    [description, format, cache, 3, 0b010, 48, 40, 2, 2, 16, 3, bias, 1_000_000, prompt, way].into()
}

fn fixed_shapes() -> Vec<Shape> {
    let mut shapes: Vec<Shape> = (1..=36)
        .chain([70])
        .map(|prompt| {
            shape(prompt % 3, prompt / 3 % 3, prompt / 2 % 2, prompt, prompt % WAYS.len())
        })
        .collect();
    // Every way to run both descriptions, and prompts that take more than one pass.
    for way in 0..WAYS.len() {
        shapes.push(shape(0, way % 3, way % 2, 19, way));
        shapes.push(shape(1 + way % 2, way % 3, 1 - way % 2, 20, way));
    }
    shapes.push(shape(0, 0, 0, LONG + 5, 1));
    shapes.push(shape(1, 2, 1, LONG + 31, 2));
    // Rounded activations, in every way.
    for way in 0..WAYS.len() {
        shapes.push(shape(way % 3, 3, way % 2, 11 + 5 * way, way));
    }
    shapes
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    let of = |layers: Sizes, widest, prompt: Sizes| {
        shapes([
            among(&[0, 0, 1, 2]),
            between(0, DENSE_FORMATS.len() - 1),
            between(0, 1),
            layers,
            between(0, 15),
            between(32, widest),
            between(1, widest + 40),
            between(1, 3),
            between(1, 4),
            among(&[16, 32, 64]),
            between(1, 4),
            between(0, 1),
            among(&[1_000_000, 10_000, 10_000_000]),
            prompt,
            between(0, WAYS.len() - 1),
        ])
    };
    one_of([
        (12, of(between(1, 4), 160, between(1, 24))),
        (4, of(between(1, 4), 160, between(25, 120))),
        (1, of(between(1, 2), 48, between(LONG + 1, 1100))),
    ])
}

/// A dense layer, then two with experts, one of attention.
fn shape_with_experts(format: usize, router: usize, prompt: usize, way: usize) -> Shape {
    let (experts, used) = [(5, 2), (8, 4), (3, 1)][prompt % 3];
    [format, 3, 0b010, 1, 48, experts, used, 20 + prompt % 7, router, prompt, way].into()
}

fn fixed_shapes_with_experts() -> Vec<Shape> {
    let mut shapes: Vec<Shape> = (1..=36)
        .chain([70])
        .map(|prompt| shape_with_experts(prompt / 3 % 3, prompt % 8, prompt, prompt % WAYS.len()))
        .collect();
    for way in 0..WAYS.len() {
        shapes.push(shape_with_experts(way % 3, 0b011, 19 + way % 3, way));
    }
    // All experts; none dense; more experts than rows; more than one pass.
    shapes.push([0, 2, 0b10, 0, 33, 4, 4, 17, 0b011, 9, 0].into());
    shapes.push([1, 2, 0b01, 0, 32, 32, 4, 16, 0b111, 5, 1].into());
    shapes.push([0, 2, 0b00, 1, 40, 6, 2, 33, 0b011, LONG + 5, 1].into());
    shapes
}

fn drawn_shapes_with_experts() -> BoxedStrategy<Shape> {
    let of = |widest, experts, prompt| {
        shapes([
            between(0, 2),
            between(1, 4),
            between(0, 15),
            between(0, 2),
            between(32, widest),
            experts,
            between(1, 4),
            between(1, widest),
            between(0, 7),
            prompt,
            between(0, WAYS.len() - 1),
        ])
    };
    one_of([
        (8, of(120, between(4, 12), between(1, 24))),
        (2, of(64, between(4, 40), between(25, 80))),
    ])
}

fn fixed_shapes_of_blocks() -> Vec<Shape> {
    let shape = |format: usize, activations: usize, experts: usize, prompt: usize| {
        let (blocks, feed_forward) = if format < 5 { (1 + prompt % 2, 2) } else { (1, 1) };
        let way = (format + prompt) % WAYS.len();
        [format, activations, 3, 0b010, blocks, feed_forward, experts, prompt, way].into()
    };
    // Every tail of a prompt, every format in both modes.
    let mut shapes: Vec<Shape> =
        (1..=33).map(|prompt| shape(prompt % 5, prompt / 5 % 2, 0, prompt)).collect();
    for format in 0..QUANTISED_FORMATS.len() {
        for activations in 0..2 {
            shapes.push(shape(format, activations, 0, 7 + format));
        }
    }
    shapes.extend((0..2).map(|activations| shape(1, activations, 3, 11)));
    shapes
}

fn drawn_shapes_of_blocks() -> BoxedStrategy<Shape> {
    let of = |formats, blocks, prompt| {
        shapes([
            formats,
            between(0, 1),
            between(1, 3),
            between(0, 7),
            blocks,
            between(1, 2),
            among(&[0, 0, 0, 4]),
            prompt,
            between(0, WAYS.len() - 1),
        ])
    };
    one_of([
        (8, of(between(0, 4), between(1, 3), between(1, 24))),
        (1, of(between(5, 7), between(1, 1), between(1, 6))),
    ])
}

struct WholeModel {
    setup: Setup,
    /// To quantise weights takes longer than most prompts: made once, wherever the prompt lies.
    made: Arc<(Model, Weights)>,
    prompt: Input<u32>,
    /// Where pieces of the prompt end.
    ends: Vec<usize>,
    /// Tokens of the sequences beside it.
    neighbours: [Input<u32>; 4],
    /// More than one where experts are all but equally good.
    expected: OnceLock<Vec<OracleRun>>,
    data: Data,
}

/// What a shape describes: a model, and how it runs.
#[derive(Clone)]
struct Setup {
    config: Config,
    format: WeightFormat,
    activations: Activations,
    cache: CacheElement,
    prompt: usize,
    way: usize,
}

/// Bit `i` of `attention` is whether layer `i` is one.
fn kinds(layers: usize, attention: usize) -> Vec<LayerKind> {
    let kind = |layer: usize| match attention >> layer & 1 {
        0 => LayerKind::Conv,
        _ => LayerKind::Attention,
    };
    (0..layers).map(kind).collect()
}

fn setup(shape: &Shape) -> Setup {
    let [
        description,
        format,
        cache,
        layers,
        attention,
        hidden_size,
        feed_forward_width,
        key_value_heads,
        group,
        head_dim,
        conv_length,
        conv_bias,
        theta,
        prompt,
        way,
    ] = shape.sizes();
    let config = Config {
        description: DESCRIPTIONS[description],
        vocabulary: VOCABULARY,
        hidden_size,
        layers: kinds(layers, attention),
        heads: key_value_heads * group,
        key_value_heads,
        head_dim,
        feed_forward_width,
        experts: None,
        conv_length,
        conv_bias: conv_bias == 1,
        norm_epsilon: 1e-5,
        rope_theta: theta as f64,
        tied_embedding: true,
    };
    let ((format, activations), cache) = (DENSE_FORMATS[format], CACHES[cache]);
    Setup { config, format, activations, cache, prompt, way }
}

/// As [`setup`]. Bits of `router` are whether it has a bias, normalises and scales its weights.
fn setup_with_experts(shape: &Shape) -> Setup {
    let [
        format,
        layers,
        attention,
        dense_layers,
        hidden_size,
        count,
        used,
        width,
        router,
        prompt,
        way,
    ] = shape.sizes();
    let experts = ExpertsConfig {
        count,
        used,
        width,
        dense_layers: dense_layers.min(layers),
        use_bias: router & 1 == 1,
        normalise: router >> 1 & 1 == 1,
        scale: if router >> 2 & 1 == 1 { 2.5 } else { 1.0 },
    };
    let config = Config {
        hidden_size,
        layers: kinds(layers, attention),
        experts: Some(experts),
        conv_bias: false,
        ..RandomModel::small(Description::Lfm2).config
    };
    let (activations, cache) = (Activations::F32, CacheElement::F32);
    Setup { config, format: FORMATS[format], activations, cache, prompt, way }
}

/// As [`setup`], with that many experts, if there are any. Two of them are used, or all with activations of 8 bits, which may well choose
/// others than the oracle does.
fn setup_of_blocks(shape: &Shape) -> Setup {
    let [format, activations, layers, attention, blocks, feed_forward, experts, prompt, way] =
        shape.sizes();
    let (format, activations) = (QUANTISED_FORMATS[format], ACTIVATIONS[activations]);
    let experts = (experts > 0).then(|| ExpertsConfig {
        count: experts,
        used: if activations == Activations::Int8 { experts } else { experts.min(2) },
        width: feed_forward * format.block(),
        dense_layers: 0,
        use_bias: true,
        normalise: true,
        scale: 1.0,
    });
    let config = Config {
        hidden_size: blocks * format.block(),
        feed_forward_width: feed_forward * format.block(),
        layers: kinds(layers, attention),
        experts,
        conv_bias: false,
        ..RandomModel::small(Description::Lfm2).config
    };
    Setup { config, format, activations, cache: CacheElement::F32, prompt, way }
}

/// Whether a model is small enough, and its prompt short enough: an error says how large they may be.
fn small_enough(setup: Setup) -> Result<(), String> {
    let Setup { mut config, prompt, .. } = setup;
    // As if a row used every expert, since all are there.
    config.experts = config.experts.map(|all| ExpertsConfig { used: all.count, ..all });
    let products = |rows| {
        let Operations { linear, attention } = config.operations(0, rows);
        ((linear + attention) / 2) as usize
    };
    at_most(MOST_WEIGHTS, "the number of weights", products(1))?;
    at_most(MOST_PRODUCTS, "the number of products", products(prompt))
}

/// The numbers come from the seed alone: weights that a model could have.
fn whole_model(setup: Setup, data: Data) -> Box<dyn Case> {
    let made = Arc::new(setup.random(data.seed).recorded());
    Box::new(WholeModel::new(setup, made, data))
}

impl Setup {
    fn random(&self, seed: u64) -> RandomModel {
        let Self { config, format, activations, .. } = self.clone();
        RandomModel { config, format, activations, seed }
    }
}

impl Case for WholeModel {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut state = self.new_state();
        let logits = self.advance(kernels, isa, &mut state, [self.prompt.len()]);
        outputs(logits, &state)
    }

    fn moved(&self, data: Data) -> Option<Box<dyn Case>> {
        Some(Box::new(Self::new(self.setup.clone(), Arc::clone(&self.made), data)))
    }

    fn other_way(&self) -> &'static str {
        WAYS[self.setup.way].0
    }

    fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        WAYS[self.setup.way].1(self, kernels, isa)
    }

    /// Nothing, since no bound of an element survives several layers: see [`judge_whole`](Self::judge_whole).
    fn expected(&self) -> Vec<Vec<Expected>> {
        Vec::new()
    }

    fn judge_whole(&self, outputs: &[Output]) -> Result<Errors, String> {
        let oracle = || self.setup.random(self.data.seed).oracle(&self.made.1);
        let expected = self.expected.get_or_init(|| oracle().alternatives(&self.prompt, DOUBT));
        let mut judged = expected.iter().map(|expected| self.judge_against(expected, outputs));
        let exact = judged.next().expect("the exact run is the first");
        exact.or_else(|reason| judged.find_map(Result::ok).ok_or(reason))
    }
}

impl WholeModel {
    fn new(setup: Setup, made: Arc<(Model, Weights)>, data: Data) -> Self {
        let prompt = setup.prompt;
        let tokens = |name: &str, count: usize| data.indices(name, count, VOCABULARY);
        let lengths = data.stream("neighbours");
        let neighbour =
            |i: usize, most| tokens(&format!("neighbour {i}"), 1 + lengths.below(i as u64, most));
        let cuts = data.stream("cuts");
        let mut ends: Vec<usize> =
            (1..=1 + cuts.below(0, 4) as u64).map(|i| 1 + cuts.below(i, prompt)).collect();
        ends.push(prompt);
        ends.sort_unstable();
        ends.dedup();
        Self {
            setup,
            made,
            prompt: tokens("tokens", prompt),
            ends,
            neighbours: [neighbour(0, 9), neighbour(1, 40), neighbour(2, 3), neighbour(3, 20)],
            expected: OnceLock::new(),
            data,
        }
    }

    fn model(&self) -> &Model {
        &self.made.0
    }

    fn judge_against(&self, expected: &OracleRun, outputs: &[Output]) -> Result<Errors, String> {
        let bound = match (self.setup.activations, self.setup.cache) {
            (Activations::Int8, _) => NMSE_BOUND_INT8,
            (Activations::Bf16, _) => NMSE_BOUND_BF16,
            (_, CacheElement::F32) => NMSE_BOUND,
            (_, CacheElement::F16) => NMSE_BOUND_F16,
        };
        let mut errors = Errors::default();
        for (name, expected) in [
            ("logits", &[expected.logits.clone()][..]),
            ("conv_state", &expected.conv_state),
            ("keys", &expected.keys),
            ("values", &expected.values),
        ] {
            let output = outputs.iter().find(|output| output.name == name);
            let found = &output.expect("a model has all of them").values;
            let error = Difference::between(found, expected.concat().into_iter());
            if !error.is_within(bound) {
                return Err(format!("{name} far from the oracle: {error:?}"));
            }
            let elements = found.len();
            let worst = error.nmse / bound;
            errors.merge(Errors { worst, elements, bounded: elements, exact: 0 });
        }
        Ok(errors)
    }
}

/// A way to run a prompt, with the bits of one call for all of it.
type Way = fn(&WholeModel, &Kernels, Isa) -> Vec<Output>;

const WAYS: [(&str, Way); 9] = [
    ("one token at a time", token_by_token),
    ("in chunks", in_chunks),
    ("beside others", beside_others),
    ("beside others in another order", beside_others_in_another_order),
    ("beside more and other neighbours", beside_more),
    ("in a state used before", in_a_state_used_before),
    ("from a snapshot", from_a_snapshot),
    ("with the last logits alone", last_logits),
    ("in chunks with the last logits alone", last_logits_of_chunks),
];

/// The logits of some rows, the last row's apart, and all that a model remembers.
fn outputs(logits: Buffer, state: &State) -> Vec<Output> {
    let last = Buffer::from(&logits[logits.len() - VOCABULARY..]);
    let mut outputs = vec![Output::new("logits", logits)];
    outputs.extend(last_outputs(last, state));
    outputs
}

fn last_outputs(last_logits: Buffer, state: &State) -> Vec<Output> {
    let (mut conv_state, mut chunks, mut keys, mut values) = (vec![], vec![], vec![], vec![]);
    for layer in state.layers() {
        match layer {
            LayerState::Conv(ConvState::Gated(inputs)) => conv_state.extend_from_slice(inputs),
            LayerState::Conv(ConvState::ShiftSum(state)) => {
                conv_state.extend_from_slice(&state.sums);
                chunks.extend(state.chunks.concat());
            }
            LayerState::Attention(cache) => {
                keys.extend(cache.keys());
                values.extend(cache.values());
            }
        }
    }
    vec![
        Output::new("last_logits", last_logits),
        Output::returned("conv_state", &conv_state),
        Output::returned("chunks", &chunks),
        Output::returned("keys", &keys),
        Output::returned("values", &values),
        Output::returned("position", &[state.position() as f32]),
    ]
}

impl WholeModel {
    fn new_state(&self) -> State {
        self.model().new_state(self.prompt.len(), self.setup.cache)
    }

    /// Advances `state` by its part of the prompt, in pieces that end at `ends`; the logits of every row.
    fn advance(
        &self,
        kernels: &Kernels,
        isa: Isa,
        state: &mut State,
        ends: impl IntoIterator<Item = usize>,
    ) -> Buffer {
        let mut scratch = Scratch::default();
        let mut logits = self.data.poisoned("logits", self.prompt.len() * VOCABULARY);
        for end in ends {
            let start = state.position();
            let sequence = Sequence { tokens: &self.prompt[start..end], state: &mut *state };
            let logits = Logits::All(&mut logits[start * VOCABULARY..end * VOCABULARY]);
            (kernels.forward)(self.model(), isa, &mut [sequence], &mut scratch, logits)
                .expect("a valid call");
        }
        logits
    }

    /// Advances `state` by tokens of somebody else.
    fn use_up(&self, kernels: &Kernels, isa: Isa, state: &mut State, tokens: &[u32]) {
        let mut ignored = self.data.poisoned("ignored", VOCABULARY);
        let sequence = Sequence { tokens, state };
        let logits = Logits::Last(&mut ignored);
        (kernels.forward)(self.model(), isa, &mut [sequence], &mut Scratch::default(), logits)
            .expect("a valid call");
    }

    /// In pieces, each in a call with pieces of other sequences. The others differ in length, stand elsewhere, and from call to call the
    /// places rotate, beginning with `place`.
    fn between(&self, kernels: &Kernels, isa: Isa, others: &[&[u32]], place: usize) -> Vec<Output> {
        let mut scratch = Scratch::default();
        let mut state = self.new_state();
        let capacity = |other: &&[u32]| self.ends.len() * other.len();
        let mut states: Vec<State> = others
            .iter()
            .map(|other| self.model().new_state(capacity(other), self.setup.cache))
            .collect();
        let mut rows = self.data.poisoned("logits", self.prompt.len() * VOCABULARY);
        for (call, &end) in self.ends.iter().enumerate() {
            let start = state.position();
            let own = Sequence { tokens: &self.prompt[start..end], state: &mut state };
            let mut sequences = vec![own];
            sequences.extend(
                others
                    .iter()
                    .zip(&mut states)
                    .map(|(other, state)| Sequence { tokens: other, state }),
            );
            let place = (place + call) % sequences.len();
            sequences.rotate_right(place);
            let before: usize =
                sequences[..place].iter().map(|sequence| sequence.tokens.len()).sum();
            let all: usize = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
            let mut logits = self.data.poisoned("all_logits", all * VOCABULARY);
            let written = Logits::All(&mut logits);
            (kernels.forward)(self.model(), isa, &mut sequences, &mut scratch, written)
                .expect("a valid call");
            let own = &logits[before * VOCABULARY..][..(end - start) * VOCABULARY];
            rows[start * VOCABULARY..end * VOCABULARY].copy_from_slice(own);
        }
        outputs(rows, &state)
    }

    /// In pieces that end at `ends`, each between others, with the logits of last tokens alone.
    fn last_logits(&self, kernels: &Kernels, isa: Isa, ends: &[usize]) -> Vec<Output> {
        let [short, long, ..] = &self.neighbours;
        let mut scratch = Scratch::default();
        let mut state = self.new_state();
        let mut states = [short, long]
            .map(|other| self.model().new_state(ends.len() * other.len(), self.setup.cache));
        let mut last = self.data.poisoned("last_logits", VOCABULARY);
        for &end in ends {
            let start = state.position();
            let [left, right] = &mut states;
            let mut sequences = [
                Sequence { tokens: long, state: right },
                Sequence { tokens: &self.prompt[start..end], state: &mut state },
                Sequence { tokens: short, state: left },
            ];
            let mut logits = self.data.poisoned("all_logits", 3 * VOCABULARY);
            let written = Logits::Last(&mut logits);
            (kernels.forward)(self.model(), isa, &mut sequences, &mut scratch, written)
                .expect("a valid call");
            last.copy_from_slice(&logits[VOCABULARY..2 * VOCABULARY]);
        }
        last_outputs(last, &state)
    }
}

fn token_by_token(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    let mut state = model.new_state();
    let logits = model.advance(kernels, isa, &mut state, 1..=model.prompt.len());
    outputs(logits, &state)
}

fn in_chunks(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    let mut state = model.new_state();
    let logits = model.advance(kernels, isa, &mut state, model.ends.iter().copied());
    outputs(logits, &state)
}

fn beside_others(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    let [short, long, ..] = &model.neighbours;
    model.between(kernels, isa, &[short, long], 1)
}

fn beside_others_in_another_order(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    let [short, long, ..] = &model.neighbours;
    model.between(kernels, isa, &[long, short], 0)
}

fn beside_more(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    let [short, long, shortest, other] = &model.neighbours;
    model.between(kernels, isa, &[shortest, other, short, long, shortest], 3)
}

/// After another prompt, and a reset.
fn in_a_state_used_before(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    let [_, other, ..] = &model.neighbours;
    let capacity = model.prompt.len().max(other.len());
    let mut state = model.model().new_state(capacity, model.setup.cache);
    model.use_up(kernels, isa, &mut state, other);
    (kernels.reset)(&mut state);
    let logits = model.advance(kernels, isa, &mut state, model.ends.iter().copied());
    outputs(logits, &state)
}

/// Part of the prompt, a snapshot, something else on the original, then the rest on the snapshot.
fn from_a_snapshot(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    let [_, other, ..] = &model.neighbours;
    let (first, rest) = (model.ends[0], model.prompt.len());
    let mut original = model.model().new_state(rest + other.len(), model.setup.cache);
    let mut logits = model.advance(kernels, isa, &mut original, [first]);
    let mut snapshot = (kernels.snapshot)(&original);
    model.use_up(kernels, isa, &mut original, other);
    if first < rest {
        let later = model.advance(kernels, isa, &mut snapshot, [rest]);
        logits[first * VOCABULARY..].copy_from_slice(&later[first * VOCABULARY..]);
    }
    outputs(logits, &snapshot)
}

fn last_logits(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    model.last_logits(kernels, isa, &[model.prompt.len()])
}

fn last_logits_of_chunks(model: &WholeModel, kernels: &Kernels, isa: Isa) -> Vec<Output> {
    model.last_logits(kernels, isa, &model.ends)
}
