//! Each operation at the 350M's shapes, and linear layers as a share of what the same run measures the CPU to do at most.

use std::hint::black_box;
use std::time::{Duration, Instant};

use lfm2_benches::operations::{
    self, BF16, BF16_BF16, F32, FEED_FORWARD_WIDTH, HEAD, HEAD_DIM, KEY_VALUE_HEADS, Q4_0, Q8_0,
    ROWS, SHAPES, WIDTH, linear_work,
};
use lfm2_benches::{
    Options, Session, Spread, Stored, Weights, Work, beyond_cache, ceiling, matrices, values,
};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::Matrix;
use lfm2_kernels::ops::linear;
use serde::Serialize;

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
    let cases = operations::cases(&session.options.isas(), session.options.extent(), &weights);
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
