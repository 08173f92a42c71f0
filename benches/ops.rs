//! Each operation at the 350M's shapes, and linear layers as a share of what the same run measures the CPU to do at most.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lfm2_benches::{
    Case, Extent, Options, Session, Spread, Stored, Work, Workload, beyond_cache, ceiling,
    matrices, values,
};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::{Matrix, WeightFormat};
use lfm2_kernels::ops::{
    CacheElement, KeyValueCache, RopeTable, ShortConv, add, argmax, attention, embedding, linear,
    multiply, rms_norm, rope, short_conv, silu_multiply, softmax,
};
use serde::Serialize;

const WIDTH: usize = 1024;
const FEED_FORWARD_WIDTH: usize = 4608;
const HEADS: usize = 16;
const KEY_VALUE_HEADS: usize = 8;
const HEAD_DIM: usize = 64;
const CONV_LENGTH: usize = 3;
const VOCABULARY: usize = 65536;
const THETA: f64 = 1e6;

/// The rows of a prompt, and of a decoded token.
const ROWS: [usize; 2] = [512, 1];

/// The projections, `[outputs, inputs]`: into and out of the mixers, into and out of the feed-forward.
const SHAPES: [[usize; 2]; 5] = [
    [3 * WIDTH, WIDTH],
    [WIDTH, WIDTH],
    [KEY_VALUE_HEADS * HEAD_DIM, WIDTH],
    [FEED_FORWARD_WIDTH, WIDTH],
    [WIDTH, FEED_FORWARD_WIDTH],
];

const HEAD: [usize; 2] = [VOCABULARY, WIDTH];

/// How often a token of the 350M goes through layers of each shape: in ten conv layers, six attention layers and sixteen feed-forwards.
const TIMES: [(usize, [usize; 2]); 6] = [
    (10, [3 * WIDTH, WIDTH]),
    (10 + 2 * 6, [WIDTH, WIDTH]),
    (2 * 6, [KEY_VALUE_HEADS * HEAD_DIM, WIDTH]),
    (2 * 16, [FEED_FORWARD_WIDTH, WIDTH]),
    (16, [WIDTH, FEED_FORWARD_WIDTH]),
    (1, HEAD),
];

fn main() {
    Options::from_args().in_pool(run);
}

fn run(options: Options) {
    let mut session = Session::new("ops", options);
    let measures = session.options.measures();
    let isas = session.options.fast_isas();
    let memory = if measures { values("memory", beyond_cache() / 4) } else { Vec::new() };
    let ceilings =
        || -> Vec<_> { isas.iter().map(|&isa| Ceilings::measure(isa, &memory)).collect() };

    let before = if measures { ceilings() } else { Vec::new() };
    let weights = Weights::default();
    let cases = cases(&session.options, &weights);
    session.measure(Duration::from_millis(400), cases);
    session.finish();
    drop(weights);
    if measures {
        let shares = shares(&session.options, &isas, &memory);
        let ceilings = Drift::between(&before, &ceilings());
        print(&ceilings, &shares);
        session.report(Summary { ceilings, shares });
    }
}

/// The weights of the last shape that was asked for: cases of one shape follow each other.
#[derive(Default)]
struct Weights {
    last: RefCell<Option<Rc<[Matrix]>>>,
}

impl Weights {
    fn get(&self, stored: Stored, [outputs, inputs]: [usize; 2]) -> Rc<[Matrix]> {
        let is_it = |weight: &Matrix| {
            weight.format() == stored.format
                && weight.activations() == stored.activations
                && [weight.outputs(), weight.inputs()] == [outputs, inputs]
        };
        let mut last = self.last.borrow_mut();
        if !last.as_ref().is_some_and(|weights| is_it(&weights[0])) {
            // The old ones go before the new ones come.
            *last = None;
            *last = Some(matrices(stored, outputs, inputs).into());
        }
        last.clone().expect("made above")
    }
}

/// A workload that is a function over an output.
struct Function<F> {
    start: Vec<f32>,
    out: Vec<f32>,
    function: F,
    /// Whether an output that is not set back would drift away from ordinary numbers.
    drifts: bool,
    turn: usize,
}

impl<F: FnMut(Isa, usize, usize, &mut [f32])> Workload for Function<F> {
    fn restore(&mut self) {
        self.turn = 0;
        self.out.copy_from_slice(&self.start);
    }

    fn run(&mut self, isa: Isa, rows: usize) {
        let turn = self.turn;
        self.turn += 1;
        (self.function)(isa, rows, turn, black_box(&mut self.out));
    }

    fn output(&self) -> &[f32] {
        &self.out
    }

    fn rewinds(&self) -> bool {
        self.drifts
    }

    fn rewind(&mut self) {
        self.out.copy_from_slice(&self.start);
    }
}

/// A workload that runs `function(isa, rows, turn, out)`, where `out` is at first `start`.
fn workload<'a>(
    start: Vec<f32>,
    function: impl FnMut(Isa, usize, usize, &mut [f32]) + 'a,
) -> Box<dyn Workload + 'a> {
    Box::new(Function { out: start.clone(), start, function, drifts: false, turn: 0 })
}

fn cases<'a>(options: &Options, weights: &'a Weights) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for isa in options.isas() {
        for rows in ROWS {
            small_cases(isa, rows, &mut cases);
        }
        for element in [CacheElement::F32, CacheElement::F16] {
            for (context, rows) in [(0, 512), (4096, 1)] {
                cases.push(attention_case(isa, element, context, rows));
            }
        }
    }
    for stored in formats(options) {
        for shape in SHAPES.into_iter().chain([HEAD]) {
            for isa in options.isas() {
                if shape == HEAD && EMBEDDINGS.contains(&stored) {
                    cases.push(embedding_case(isa, stored, weights));
                }
                for &rows in rows_of_linear(options, shape) {
                    cases.push(linear_case(isa, stored, shape, rows, weights));
                }
            }
        }
    }
    cases
}

const F32: Stored = Stored::plain(WeightFormat::F32);
const BF16: Stored = Stored::plain(WeightFormat::Bf16);
const BF16_BF16: Stored = Stored::brain();
const Q8_0: Stored = Stored::int8(WeightFormat::Q8_0);
const Q4_0: Stored = Stored::int8(WeightFormat::Q4_0);

/// Formats in which the embedding is gathered.
const EMBEDDINGS: [Stored; 2] = [F32, BF16];

fn formats(options: &Options) -> Vec<Stored> {
    let more = match options.extent() {
        Extent::Quick => Vec::new(),
        Extent::Usual => vec![Stored::plain(WeightFormat::F16)],
        Extent::Full => {
            let others = WeightFormat::ALL.into_iter().filter(|format| format.is_quantised());
            let others = others.flat_map(|format| [Stored::plain(format), Stored::int8(format)]);
            let others = others.filter(|stored| ![Q8_0, Q4_0].contains(stored));
            [Stored::plain(WeightFormat::F16)].into_iter().chain(others).collect()
        }
    };
    [F32, BF16, BF16_BF16, Q8_0, Q4_0].into_iter().chain(more).collect()
}

fn rows_of_linear(options: &Options, shape: [usize; 2]) -> &'static [usize] {
    match (options.extent(), shape) {
        (Extent::Quick, HEAD) => &[1],
        (Extent::Quick, _) => &[1, 512],
        // Prompts need the logits of their last token only.
        (Extent::Usual, HEAD) => &[1, 4, 16],
        _ => &[1, 4, 16, 128, 512],
    }
}

/// Operations that need no more than rows, and touch memory little enough to stay in the caches, as between two linear layers.
fn small_cases<'a>(isa: Isa, rows: usize, cases: &mut Vec<Case<'a>>) {
    let mut push = |op,
                    shape: String,
                    [operations, elements]: [usize; 2],
                    prepare: Box<dyn Fn() -> Box<dyn Workload + 'a> + 'a>| {
        let bytes = (4 * rows * elements) as u64;
        let work = Work {
            rows,
            operations: (rows * operations) as u64,
            bytes,
            working_set: Some(bytes),
            ..Work::default()
        };
        cases.push(Case { op, isa, format: "f32", shape, work, prepare });
    };

    let norm = |vectors: usize, length: usize| -> Box<dyn Fn() -> Box<dyn Workload + 'a> + 'a> {
        Box::new(move || {
            let x = values("x", rows * vectors * length);
            let weight = values("weight", length);
            workload(vec![0.0; x.len()], move |isa, rows, _, out| {
                let elements = rows * vectors * length;
                rms_norm(isa, &x[..elements], &weight, 1e-5, &mut out[..elements]);
            })
        })
    };
    push("rms_norm", format!("{rows}x{WIDTH}"), [4 * WIDTH, 2 * WIDTH], norm(1, WIDTH));
    push(
        "rms_norm",
        format!("{}x{HEAD_DIM}", rows * HEADS),
        [4 * WIDTH, 2 * WIDTH],
        norm(HEADS, HEAD_DIM),
    );

    push(
        "rope",
        format!("{rows}x{HEADS}x{HEAD_DIM}"),
        [3 * WIDTH, WIDTH],
        Box::new(move || {
            let mut table = RopeTable::new(THETA, HEAD_DIM, rows);
            table.fill(0..rows);
            workload(values("x", rows * WIDTH), move |isa, rows, _, out| {
                rope(isa, &mut out[..rows * WIDTH], HEADS, &table);
            })
        }),
    );

    push(
        "rope_table",
        format!("{rows}x{HEAD_DIM}"),
        // Sines of doubles, which no ceiling is known of.
        [0, 0],
        Box::new(move || {
            let mut table = RopeTable::new(THETA, HEAD_DIM, rows);
            workload(vec![0.0; HEAD_DIM / 2], move |_, rows, turn, out| {
                table.fill(turn..turn + rows);
                out.copy_from_slice(table.sines(rows - 1));
            })
        }),
    );

    push(
        "short_conv",
        format!("{rows}x{WIDTH}"),
        [(2 * CONV_LENGTH + 1) * WIDTH, 4 * WIDTH],
        Box::new(move || {
            let conv = ShortConv::new(WIDTH, &values("conv", WIDTH * CONV_LENGTH), None);
            let input = values("input", rows * 3 * WIDTH);
            let mut state = vec![0.0; (CONV_LENGTH - 1) * WIDTH];
            workload(vec![0.0; rows * WIDTH], move |isa, rows, turn, out| {
                if turn == 0 {
                    state.fill(0.0);
                }
                let (input, out) = (&input[..rows * 3 * WIDTH], &mut out[..rows * WIDTH]);
                short_conv(isa, input, &conv, &mut state, out);
            })
        }),
    );

    push(
        "silu_multiply",
        format!("{rows}x{FEED_FORWARD_WIDTH}"),
        [0, 2 * FEED_FORWARD_WIDTH],
        Box::new(move || {
            let up = values("up", rows * FEED_FORWARD_WIDTH);
            let start = values("gate", up.len());
            let function = move |isa, rows, _, out: &mut [f32]| {
                let elements = rows * FEED_FORWARD_WIDTH;
                silu_multiply(isa, &mut out[..elements], &up[..elements]);
            };
            Box::new(Function { out: start.clone(), start, function, drifts: true, turn: 0 })
        }),
    );

    push(
        "add",
        format!("{rows}x{WIDTH}"),
        [0, 2 * WIDTH],
        Box::new(move || {
            let y = values("y", rows * WIDTH);
            workload(values("x", rows * WIDTH), move |isa, rows, _, out| {
                add(isa, &mut out[..rows * WIDTH], &y[..rows * WIDTH]);
            })
        }),
    );

    push(
        "multiply",
        format!("{rows}x{WIDTH}"),
        [0, 2 * WIDTH],
        Box::new(move || {
            // Signs, so that products of products stay as large as they are.
            let y: Vec<f32> = values("y", rows * WIDTH).into_iter().map(f32::signum).collect();
            workload(values("x", rows * WIDTH), move |isa, rows, _, out| {
                multiply(isa, &mut out[..rows * WIDTH], &y[..rows * WIDTH]);
            })
        }),
    );

    push(
        "softmax",
        format!("{rows}x{WIDTH}"),
        [0, WIDTH],
        Box::new(move || {
            workload(values("x", rows * WIDTH), move |isa, rows, _, out| {
                softmax(isa, &mut out[..rows * WIDTH], WIDTH);
            })
        }),
    );

    if rows == 1 {
        push(
            "argmax",
            format!("{VOCABULARY}"),
            [0, VOCABULARY],
            Box::new(move || {
                let x = values("logits", VOCABULARY);
                workload(vec![0.0], move |isa, _, _, out| out[0] = argmax(isa, &x) as f32)
            }),
        );
    }
}

fn attention_case<'a>(isa: Isa, element: CacheElement, context: usize, rows: usize) -> Case<'a> {
    let (phase, length) = if context == 0 { ("prefill", rows) } else { ("decode", context) };
    let (format, size) = match element {
        CacheElement::F32 => ("f32", 4),
        CacheElement::F16 => ("f16", 2),
    };
    let row = KEY_VALUE_HEADS * HEAD_DIM;
    let pairs = rows * context + rows * (rows + 1) / 2;
    let cached = (context + rows) * 2 * row * size;
    let bytes = (cached + 4 * 2 * rows * WIDTH) as u64;
    Case {
        op: "attention",
        isa,
        format,
        shape: format!("{phase}-{length}"),
        work: Work {
            rows,
            operations: (4 * pairs * WIDTH) as u64,
            bytes,
            // A decoded token finds the cache of its layer gone; a prompt has just written it.
            working_set: (context == 0).then_some(bytes),
            ..Work::default()
        },
        prepare: Box::new(move || {
            let positions = context + rows;
            let (keys, values_) =
                (values("keys", positions * row), values("values", positions * row));
            let mut cache = KeyValueCache::new(KEY_VALUE_HEADS, HEAD_DIM, positions, element);
            cache.append(&keys, &values_);
            let copies = if context == 0 { 1 } else { beyond_cache().div_ceil(cached) };
            let caches: Vec<_> = (0..copies).map(|_| cache.clone()).collect();
            let query = values("query", rows * WIDTH);
            workload(vec![0.0; rows * WIDTH], move |isa, rows, turn, out| {
                let (query, out) = (&query[..rows * WIDTH], &mut out[..rows * WIDTH]);
                attention(isa, query, HEADS, &caches[turn % copies], context, out);
            })
        }),
    }
}

/// Scattered rows of the embedding, which is not in a cache.
fn embedding_case(isa: Isa, stored: Stored, weights: &Weights) -> Case<'_> {
    let rows = ROWS[0];
    Case {
        op: "embedding",
        isa,
        format: stored.name(),
        shape: format!("{rows}x{WIDTH}"),
        work: Work {
            rows,
            bytes: (rows * (stored.format.bytes(WIDTH) + 4 * WIDTH)) as u64,
            ..Work::default()
        },
        prepare: Box::new(move || {
            let table = weights.get(stored, HEAD);
            workload(vec![0.0; rows * WIDTH], move |_, rows, turn, out| {
                let mut tokens = [0; ROWS[0]];
                for (i, token) in tokens.iter_mut().enumerate() {
                    *token = ((turn * rows + i) * 7919 % VOCABULARY) as u32;
                }
                embedding(&table[0], &tokens[..rows], &mut out[..rows * WIDTH]);
            })
        }),
    }
}

fn linear_case(
    isa: Isa,
    stored: Stored,
    [outputs, inputs]: [usize; 2],
    rows: usize,
    weights: &Weights,
) -> Case<'_> {
    Case {
        op: "linear",
        isa,
        format: stored.name(),
        shape: format!("{rows}x{outputs}x{inputs}"),
        work: linear_work(stored, [outputs, inputs], rows),
        prepare: Box::new(move || {
            let weights = weights.get(stored, [outputs, inputs]);
            let x = values("x", rows * inputs);
            workload(vec![0.0; rows * outputs], move |isa, rows, turn, out| {
                let weight = &weights[turn % weights.len()];
                let (x, out) = (&x[..rows * inputs], &mut out[..rows * outputs]);
                linear(isa, x, weight, None, out);
            })
        }),
    }
}

fn linear_work(stored: Stored, [outputs, inputs]: [usize; 2], rows: usize) -> Work {
    let bytes = stored.format.bytes(outputs * inputs) + 4 * rows * (inputs + outputs);
    Work { rows, bytes: bytes as u64, ..Work::default() }
        .with_linear(stored.activations, (2 * rows * outputs * inputs) as u64)
}

#[derive(Serialize)]
struct Summary {
    ceilings: Vec<Drift>,
    shares: Vec<Share>,
}

/// What the CPU can do at most with one instruction set.
struct Ceilings {
    isa: Isa,
    multiply_add: f64,
    brain_dot: f64,
    read: f64,
}

impl Ceilings {
    fn measure(isa: Isa, memory: &[f32]) -> Self {
        let median =
            |measure: &dyn Fn() -> f64| Spread::of((0..9).map(|_| measure()).collect()).median;
        Self {
            isa,
            multiply_add: median(&|| ceiling::multiply_add(isa)),
            brain_dot: median(&|| ceiling::brain_dot(isa)),
            read: median(&|| ceiling::read(isa, memory)),
        }
    }
}

/// A ceiling at the beginning of the run and at its end.
#[derive(Serialize)]
struct Drift {
    isa: &'static str,
    of: &'static str,
    before: f64,
    after: f64,
}

impl Drift {
    fn between(before: &[Ceilings], after: &[Ceilings]) -> Vec<Self> {
        let drifts = |(before, after): (&Ceilings, &Ceilings)| {
            let isa = before.isa.name();
            [
                Self {
                    isa,
                    of: "multiply-adds, operations per second",
                    before: before.multiply_add,
                    after: after.multiply_add,
                },
                Self {
                    isa,
                    of: "products of bf16, operations per second",
                    before: before.brain_dot,
                    after: after.brain_dot,
                },
                Self {
                    isa,
                    of: "reading memory, bytes per second",
                    before: before.read,
                    after: after.read,
                },
            ]
        };
        before.iter().zip(after).flat_map(drifts).collect()
    }

    fn percent(&self) -> f64 {
        100.0 * (self.after / self.before - 1.0)
    }
}

/// How near a linear layer comes to a ceiling.
#[derive(Serialize)]
struct Share {
    isa: &'static str,
    format: &'static str,
    shape: String,
    of: &'static str,
    ceiling: Spread,
    reached: Spread,
    /// The ratio of the medians, and the spread of the ratios of neighbours in time.
    percent: Spread,
}

/// Linear layers and ceilings in turn, so that a disturbance meets both.
fn shares(options: &Options, isas: &[Isa], memory: &[f32]) -> Vec<Share> {
    let [prompt, decoded] = ROWS;
    let mut shares = Vec::new();
    for shape in SHAPES {
        for stored in [F32, BF16_BF16, Q8_0, Q4_0] {
            share_of_peak(options, isas, stored, shape, prompt, &mut shares);
        }
    }
    for stored in [F32, BF16, BF16_BF16, Q8_0, Q4_0] {
        let first = shares.len();
        for shape in SHAPES.into_iter().chain([HEAD]) {
            share_of_read(options, isas, stored, shape, decoded, memory, &mut shares);
        }
        let together =
            isas.iter().filter_map(|isa| of_a_token(stored, isa.name(), &shares[first..]));
        shares.extend(together.collect::<Vec<_>>());
    }
    shares.sort_by_key(|share| {
        (
            share.of == READ,
            share.of == BRAIN_DOT,
            isas.iter().position(|isa| isa.name() == share.isa),
        )
    });
    shares
}

const MULTIPLY_ADD: &str = "multiply-add";
const BRAIN_DOT: &str = "products of bf16";
const READ: &str = "read";

fn share_of_peak(
    options: &Options,
    isas: &[Isa],
    stored: Stored,
    shape: [usize; 2],
    rows: usize,
    shares: &mut Vec<Share>,
) {
    const ROUNDS: usize = 21;
    let (of, peak): (_, fn(Isa) -> f64) = match stored {
        BF16_BF16 => (BRAIN_DOT, ceiling::brain_dot),
        _ => (MULTIPLY_ADD, ceiling::multiply_add),
    };
    let wanted: Vec<_> =
        isas.iter().filter(|isa| options.matches(&linear_id(**isa, stored, shape, rows))).collect();
    if wanted.is_empty() {
        return;
    }
    let mut layer = Layer::new(stored, shape, rows);
    for &&isa in &wanted {
        let (mut ceilings, mut reached) = (Vec::new(), Vec::new());
        layer.seconds(isa, 1);
        for _ in 0..ROUNDS {
            ceilings.push(peak(isa));
            reached.push(layer.work.operations as f64 / layer.seconds(isa, 1));
        }
        shares.push(Share::new(isa, &layer, of, ceilings, reached));
    }
}

fn share_of_read(
    options: &Options,
    isas: &[Isa],
    stored: Stored,
    shape: [usize; 2],
    rows: usize,
    memory: &[f32],
    shares: &mut Vec<Share>,
) {
    const ROUNDS: usize = 9;
    let wanted: Vec<_> =
        isas.iter().filter(|isa| options.matches(&linear_id(**isa, stored, shape, rows))).collect();
    if wanted.is_empty() {
        return;
    }
    let mut layer = Layer::new(stored, shape, rows);
    let copies = layer.weights.len();
    for &&isa in &wanted {
        let (mut ceilings, mut reached) = (Vec::new(), Vec::new());
        layer.seconds(isa, copies);
        for _ in 0..ROUNDS {
            ceilings.push(ceiling::read(isa, memory));
            let bytes = copies * layer.weights[0].bytes();
            reached.push(bytes as f64 / layer.seconds(isa, copies));
        }
        shares.push(Share::new(isa, &layer, READ, ceilings, reached));
    }
}

/// All linear layers that a decoded token goes through, one after another; `None` unless each was measured.
fn of_a_token(stored: Stored, isa: &'static str, shares: &[Share]) -> Option<Share> {
    let layers = TIMES.map(|(times, [outputs, inputs])| {
        let shape = format!("1x{outputs}x{inputs}");
        let share = shares.iter().find(|share| share.isa == isa && share.shape == shape)?;
        Some(((times * stored.format.bytes(outputs * inputs)) as f64, share))
    });
    let layers: Vec<_> = layers.into_iter().collect::<Option<_>>()?;
    let bytes: f64 = layers.iter().map(|(bytes, _)| bytes).sum();
    let together = |rate: &dyn Fn(&Share) -> f64| {
        bytes / layers.iter().map(|(bytes, share)| bytes / rate(share)).sum::<f64>()
    };
    let spread = |of: fn(&Share) -> Spread| Spread {
        low: together(&|share| of(share).low),
        median: together(&|share| of(share).median),
        high: together(&|share| of(share).high),
    };
    Some(Share {
        isa,
        format: stored.name(),
        shape: "all of a token".to_string(),
        of: READ,
        ceiling: spread(|share| share.ceiling),
        reached: spread(|share| share.reached),
        percent: spread(|share| share.percent),
    })
}

fn linear_id(isa: Isa, stored: Stored, [outputs, inputs]: [usize; 2], rows: usize) -> String {
    let threads = rayon::current_num_threads();
    format!("linear/{isa}/{}/{rows}x{outputs}x{inputs}/{threads}", stored.name())
}

/// A linear layer with weights that no cache holds.
struct Layer {
    stored: Stored,
    shape: [usize; 2],
    rows: usize,
    work: Work,
    weights: Vec<Matrix>,
    x: Vec<f32>,
    out: Vec<f32>,
    turn: usize,
}

impl Layer {
    fn new(stored: Stored, [outputs, inputs]: [usize; 2], rows: usize) -> Self {
        Self {
            stored,
            shape: [outputs, inputs],
            rows,
            work: linear_work(stored, [outputs, inputs], rows),
            weights: matrices(stored, outputs, inputs),
            x: values("x", rows * inputs),
            out: vec![0.0; rows * outputs],
            turn: 0,
        }
    }

    /// How long `runs` runs take.
    fn seconds(&mut self, isa: Isa, runs: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..runs {
            let weight = &self.weights[self.turn % self.weights.len()];
            linear(isa, &self.x, weight, None, black_box(&mut self.out));
            self.turn += 1;
        }
        start.elapsed().as_secs_f64()
    }
}

impl Share {
    fn new(
        isa: Isa,
        layer: &Layer,
        of: &'static str,
        ceilings: Vec<f64>,
        reached: Vec<f64>,
    ) -> Self {
        let [outputs, inputs] = layer.shape;
        let neighbours = reached.iter().zip(&ceilings).map(|(reached, ceiling)| reached / ceiling);
        let ratios = Spread::of(neighbours.map(|ratio| 100.0 * ratio).collect());
        let (ceiling, reached) = (Spread::of(ceilings), Spread::of(reached));
        Self {
            isa: isa.name(),
            format: layer.stored.name(),
            shape: format!("{}x{outputs}x{inputs}", layer.rows),
            of,
            percent: Spread { median: 100.0 * reached.median / ceiling.median, ..ratios },
            ceiling,
            reached,
        }
    }
}

fn print(ceilings: &[Drift], shares: &[Share]) {
    println!("\nwhat the CPU does at most, {} threads", rayon::current_num_threads());
    println!("{:10}{:40}{:>10}{:>10}{:>9}", "", "", "before", "after", "");
    for drift in ceilings {
        let percent = drift.percent();
        let note = if percent.abs() > 10.0 { "  the machine was not quiet" } else { "" };
        let Drift { isa, of, before, after } = drift;
        println!(
            "{isa:10}{of:40}{:>8.1} G{:>8.1} G{percent:>+7.1} %{note}",
            before / 1e9,
            after / 1e9
        );
    }
    for (of, what, unit) in [
        (MULTIPLY_ADD, "a prompt's linear layers, of the multiply-add peak", "Gflop/s"),
        (BRAIN_DOT, "a prompt's linear layers, of the peak of bf16 products", "Gflop/s"),
        (READ, "a decoded token's linear layers, of the bandwidth of reading memory", "GB/s"),
    ] {
        let shares: Vec<_> = shares.iter().filter(|share| share.of == of).collect();
        if shares.is_empty() {
            continue;
        }
        println!("\n{what}, {} threads", rayon::current_num_threads());
        println!(
            "{:13}{:11}{:16}{unit:>10}{:>10}{:>10}{:>16}",
            "", "format", "shape", "ceiling", "percent", "middle half"
        );
        for share in shares {
            let Share { isa, format, shape, ceiling, reached, percent, .. } = share;
            let half = format!("{:.0} to {:.0}", percent.low, percent.high);
            // Integers have more multipliers than floats: the peak is a yardstick for them.
            let is_ceiling = share.of == READ || !format.ends_with("int8");
            let note = match percent.median > 100.0 && is_ceiling {
                true => "  harness error: the ceiling is not one",
                false => "",
            };
            println!(
                "{isa:13}{format:11}{shape:16}{:>10.1}{:>10.1}{:>8.0} %{half:>16}{note}",
                reached.median / 1e9,
                ceiling.median / 1e9,
                percent.median,
            );
        }
    }
}
