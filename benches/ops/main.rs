//! Each operation at the 350M's shapes, and linear layers as a share of what the same run measures the CPU to do at most.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use lfm2_benches::{
    Case, Extent, Last, Options, Session, Stored, Work, Workload, beyond_cache, matrices, values,
};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::{Matrix, WeightFormat};
use lfm2_kernels::ops::{
    CacheElement, KeyValueCache, RopeTable, ShortConv, add, argmax, attention, embedding, linear,
    multiply, rms_norm, rope, short_conv, silu_multiply, softmax,
};

mod shares;

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
    let weights = Weights::default();
    let cases = cases(&session.options, &weights);
    session.expect(shares::expected(&session.options));
    session.measure(Duration::from_millis(400), cases.into_iter().map(|case| vec![case]).collect());
    drop(weights);
    let shares = session.memory().map(|memory| shares::measure(&session.options, memory));
    session.finish();
    if let Some(shares) = shares {
        session.print_peaks();
        shares::print(&shares);
        session.report(shares);
    }
}

/// By format and shape: cases of one shape follow each other.
type Weights = Last<(Stored, [usize; 2]), Vec<Matrix>>;

fn weights_of(weights: &Weights, stored: Stored, shape: [usize; 2]) -> Rc<Vec<Matrix>> {
    let [outputs, inputs] = shape;
    weights.get((stored, shape), || matrices(stored, outputs, inputs))
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
            let table = weights_of(weights, stored, HEAD);
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
            let weights = weights_of(weights, stored, [outputs, inputs]);
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
