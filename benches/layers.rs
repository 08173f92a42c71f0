//! What a conv layer of LFM2-350M costs against an attention layer as the sequence grows.
//!
//! `conv_layer` and `attention_layer` are whole: operator norm, projections, mixer, output projection, residual. `conv_mixer` and
//! `attention_mixer` are what is between the projections: the gated convolution, or writing the cache and attending. An attention
//! layer here finds the angles of its positions by itself, which a model does once for all its layers (`rope_table` in `ops`).
//!
//! Both kinds at all lengths take turns. Criterion would time one after the other, and what memory does meanwhile would bend the curves.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use lfm2_benches::{
    Case, Extent, Measurement, Options, Session, Work, Workload, beyond_cache, buffer, time, values,
};
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::{
    BlockBuffers, Config, ConvState, LayerKind, LayerState, Mixer, Scratch, Synthetic,
};
use lfm2_kernels::ops::{
    CacheElement, KeyValueCache, ShortConv, add, attention, rms_norm, short_conv,
};
use lfm2_kernels::{Aligned, Isa};
use serde::Serialize;

fn main() {
    let options = Options::from_args();
    let alone = options.with_one_thread();
    // What follows on one thread: four cases and peaks.
    let later = if alone.is_some() { Duration::from_secs(10) } else { Duration::ZERO };
    options.in_pool(|options| {
        let (parts, others) = (parts(&options), other_isas(&options));
        run(options, parts, others, later);
    });
    if let Some(alone) = alone {
        alone.in_pool(|options| {
            let parts = compared(&options.isas());
            run(options, Vec::new(), parts, Duration::ZERO);
        });
    }
}

/// Times groups of `parts`, which make the tables, and of `others`, which are there for reports to compare. More follows `later`.
fn run(options: Options, parts: Vec<Vec<Part>>, others: Vec<Vec<Part>>, later: Duration) {
    let mut session = Session::new("layers", options);
    session.expect(later);
    let layers = Layers::default();
    let cases = |group: &Vec<Part>| group.iter().map(|part| part.case(&layers)).collect();
    let groups = parts.iter().chain(&others).map(cases).collect();
    let measurements = session.measure(Duration::from_millis(800), groups);
    session.finish();
    if !measurements.is_empty() {
        let tables = tables(&parts.concat(), &measurements);
        tables.iter().for_each(print);
        session.report(tables);
    }
}

/// A thing to time.
#[derive(Clone, Copy, PartialEq)]
struct Part {
    isa: Isa,
    is_whole: bool,
    phase: Phase,
    length: usize,
    kind: LayerKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    /// That many tokens at the start of a sequence.
    Prefill,
    /// One token after that many.
    Decode,
}

impl Phase {
    fn name(self) -> &'static str {
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
fn parts(options: &Options) -> Vec<Vec<Part>> {
    let mut groups = Vec::new();
    for isa in options.isas() {
        for is_whole in [true, false] {
            for phase in [Phase::Prefill, Phase::Decode] {
                let mut group = Vec::new();
                for length in phase.lengths(options.extent()) {
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
fn compared(isas: &[Isa]) -> Vec<Vec<Part>> {
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

/// What the instruction sets that are not timed otherwise do of it.
fn other_isas(options: &Options) -> Vec<Vec<Part>> {
    let mut isas = options.compared_isas();
    isas.retain(|isa| !options.isas().contains(isa));
    compared(&isas)
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

    fn case(self, layers: &Layers) -> Case<'_> {
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
        let piece = rows.min(Scratch::MAX_ROWS);
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
struct Layers {
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

/// What every state of a workload has in common.
struct States {
    states: Vec<LayerState>,
    context: usize,
    turn: usize,
}

impl States {
    fn new(states: Vec<LayerState>) -> Self {
        let context = match &states[0] {
            LayerState::Conv(_) => 0,
            LayerState::Attention(cache) => cache.len(),
        };
        Self { states, context, turn: 0 }
    }

    fn restore(&mut self) {
        self.turn = 0;
        for state in &mut self.states {
            if let LayerState::Conv(ConvState::Gated(inputs)) = state {
                inputs.fill(0.0);
            }
        }
    }

    /// The turn's number and its state, after the context. A convolution goes on from where it is, since that costs the same.
    fn next(&mut self) -> (usize, &mut LayerState) {
        let turn = self.turn;
        self.turn += 1;
        let at = turn % self.states.len();
        let state = &mut self.states[at];
        if let LayerState::Attention(cache) = state {
            cache.truncate(self.context);
        }
        (turn, state)
    }
}

/// The rows of a run in the pieces that the model takes.
fn pieces(rows: usize) -> impl Iterator<Item = usize> {
    (0..rows).step_by(Scratch::MAX_ROWS).map(move |first| Scratch::MAX_ROWS.min(rows - first))
}

/// A whole layer. As in the model, every piece of a prompt passes through the same buffers.
struct Whole {
    layers: Rc<[Layer]>,
    states: States,
    epsilon: f32,
    width: usize,
    start: Vec<f32>,
    hidden: Aligned<f32>,
    normed: Aligned<f32>,
    mixed: Aligned<f32>,
    buffers: BlockBuffers,
}

impl Whole {
    fn new(layers: &Layers, kind: LayerKind, states: Vec<LayerState>, rows: usize) -> Self {
        let (config, rows) = (&layers.config, rows.min(Scratch::MAX_ROWS));
        let width = config.hidden_size;
        let hidden = buffer("hidden", rows * width);
        Self {
            layers: layers.of(kind),
            states: States::new(states),
            epsilon: config.norm_epsilon,
            width,
            start: hidden.to_vec(),
            hidden,
            normed: Aligned::zeroed(rows * width),
            mixed: Aligned::zeroed(rows * width),
            buffers: BlockBuffers::new(config, rows),
        }
    }
}

impl Workload for Whole {
    fn restore(&mut self) {
        self.states.restore();
        self.hidden.copy_from_slice(&self.start);
    }

    fn run(&mut self, isa: Isa, rows: usize) {
        let (turn, state) = self.states.next();
        let Layer { norm, mixer } = &self.layers[turn % self.layers.len()];
        for piece in pieces(rows) {
            let elements = piece * self.width;
            let hidden = &mut self.hidden[..elements];
            let normed = &mut self.normed[..elements];
            let mixed = &mut self.mixed[..elements];
            rms_norm(isa, hidden, norm, self.epsilon, normed);
            mixer.forward(isa, normed, state, &mut self.buffers, mixed);
            add(isa, hidden, mixed);
        }
    }

    fn output(&self) -> &[f32] {
        &self.hidden
    }
}

/// A mixer without its projections. As in the model, its input has just been written by them, piece by piece.
struct Alone {
    states: States,
    conv: ShortConv,
    heads: usize,
    width: usize,
    key_value_width: usize,
    /// B, C and x, or the queries.
    input: Aligned<f32>,
    keys: Aligned<f32>,
    values: Aligned<f32>,
    out: Aligned<f32>,
}

impl Alone {
    fn new(config: &Config, states: Vec<LayerState>, rows: usize) -> Self {
        let (width, key_value_width) = (config.hidden_size, config.key_value_width());
        let rows = rows.min(Scratch::MAX_ROWS);
        Self {
            states: States::new(states),
            conv: ShortConv::new(width, &values("conv", width * config.conv_length), None),
            heads: config.heads,
            width,
            key_value_width,
            input: buffer("input", rows * 3 * width),
            keys: buffer("new keys", rows * key_value_width),
            values: buffer("new values", rows * key_value_width),
            out: Aligned::zeroed(rows * width),
        }
    }
}

impl Workload for Alone {
    fn restore(&mut self) {
        self.states.restore();
    }

    fn run(&mut self, isa: Isa, rows: usize) {
        let (_, state) = self.states.next();
        for piece in pieces(rows) {
            let out = &mut self.out[..piece * self.width];
            match state {
                LayerState::Conv(ConvState::Gated(state)) => {
                    short_conv(isa, &self.input[..3 * out.len()], &self.conv, state, out);
                }
                LayerState::Attention(cache) => {
                    let (position, elements) = (cache.len(), piece * self.key_value_width);
                    cache.append(&self.keys[..elements], &self.values[..elements]);
                    attention(isa, &self.input[..out.len()], self.heads, cache, position, out);
                }
                LayerState::Conv(ConvState::ShiftSum(_)) => unreachable!("the published model"),
            }
        }
    }

    fn output(&self) -> &[f32] {
        &self.out
    }
}

/// Both kinds side by side.
#[derive(Serialize)]
struct Table {
    isa: &'static str,
    what: &'static str,
    phase: Phase,
    rows: Vec<Row>,
    /// Lengths at which both cost the same.
    crossings: Vec<f64>,
}

#[derive(Serialize)]
struct Row {
    length: usize,
    conv_seconds: f64,
    attention_seconds: f64,
    attention_over_conv: f64,
}

fn tables(parts: &[Part], measurements: &[Measurement]) -> Vec<Table> {
    let layers = Layers::default();
    let seconds = |part: Part| {
        let id = part.case(&layers).id();
        let measurement = measurements.iter().find(|measurement| measurement.id == id)?;
        Some(measurement.seconds.median)
    };
    let mut tables: Vec<Table> = Vec::new();
    for &part in parts.iter().filter(|part| part.kind == LayerKind::Conv) {
        let both = (seconds(part), seconds(Part { kind: LayerKind::Attention, ..part }));
        let (Some(conv), Some(attention)) = both else { continue };
        let what = if part.is_whole { "layer" } else { "mixer" };
        let key = (part.isa.name(), what, part.phase);
        if tables.last().is_none_or(|table| (table.isa, table.what, table.phase) != key) {
            let (isa, what, phase) = key;
            tables.push(Table { isa, what, phase, rows: Vec::new(), crossings: Vec::new() });
        }
        tables.last_mut().expect("pushed above").rows.push(Row {
            length: part.length,
            conv_seconds: conv,
            attention_seconds: attention,
            attention_over_conv: attention / conv,
        });
    }
    for table in &mut tables {
        table.crossings = crossings(&table.rows);
    }
    tables
}

/// Where the ratio passes 1, on a straight line between two lengths in logarithms of both.
fn crossings(rows: &[Row]) -> Vec<f64> {
    let crossing = |pair: &[Row]| {
        let [shorter, longer] = pair else { return None };
        let (before, after) = (shorter.attention_over_conv.ln(), longer.attention_over_conv.ln());
        let part = before / (before - after);
        ((before < 0.0) != (after < 0.0)).then(|| {
            shorter.length as f64 * (longer.length as f64 / shorter.length as f64).powf(part)
        })
    };
    rows.windows(2).filter_map(crossing).collect()
}

fn print(table: &Table) {
    let Table { isa, what, phase, rows, crossings } = table;
    let what = match *what {
        "layer" => "one layer",
        _ => "the mixer alone",
    };
    let (phase, threads) = (phase.name(), rayon::current_num_threads());
    let length = match table.phase {
        Phase::Prefill => "tokens",
        Phase::Decode => "context",
    };
    println!("\n{phase}, {what}: LFM2-350M, {isa}, f32, {threads} threads");
    println!(
        "{length:>8}  {:>11}  {:>11}  {:>11}  {:>11}  {:>14}",
        "conv", "per token", "attention", "per token", "attention/conv"
    );
    for row in rows {
        let tokens = match table.phase {
            Phase::Prefill => row.length as f64,
            Phase::Decode => 1.0,
        };
        println!(
            "{:>8}  {:>11}  {:>11}  {:>11}  {:>11}  {:>14.2}",
            row.length,
            time(row.conv_seconds),
            time(row.conv_seconds / tokens),
            time(row.attention_seconds),
            time(row.attention_seconds / tokens),
            row.attention_over_conv,
        );
    }
    match (&crossings[..], rows.iter().all(|row| row.attention_over_conv > 1.0)) {
        ([], true) => println!("  they never cost the same in this range: attention costs more"),
        ([], false) => println!("  they never cost the same in this range: attention costs less"),
        (lengths, _) => {
            let lengths: Vec<_> = lengths.iter().map(|length| format!("{length:.0}")).collect();
            println!("  they cost the same at about {} tokens", lengths.join(", "));
        }
    }
}
