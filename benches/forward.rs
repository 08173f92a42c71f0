//! Tokens per second of the whole LFM2-350M with random weights: prefill and decode, f32 and bf16.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use lfm2_benches::{
    Case, Extent, Measurement, Options, Report, Session, Stored, Work, Workload, time,
};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::{Config, Logits, Model, Operations, Scratch, Sequence, State, Synthetic};
use lfm2_kernels::ops::CacheElement;
use serde::Serialize;

fn main() {
    Options::from_args().in_pool(run);
}

fn run(options: Options) {
    let mut session = Session::new(options);
    const F32: Stored = Stored::plain(WeightFormat::F32);
    const BF16: Stored = Stored::plain(WeightFormat::Bf16);
    const F16: Stored = Stored::plain(WeightFormat::F16);
    const Q8_0: Stored = Stored::int8(WeightFormat::Q8_0);
    const Q4_0: Stored = Stored::int8(WeightFormat::Q4_0);
    let formats: &[Stored] = match session.options.extent() {
        Extent::Quick => &[F32, Q4_0],
        Extent::Usual => &[F32, BF16, Q8_0, Q4_0],
        Extent::Full => &[F32, BF16, F16, Q8_0, Q4_0],
    };
    let states = RefCell::default();
    let mut measurements = Vec::new();
    for &stored in formats {
        // One model at a time is in memory.
        let model = OnceCell::new();
        let cases = cases(&session.options, stored, &model, &states);
        measurements.extend(session.measure(Duration::from_millis(2500), cases));
    }
    session.finish();
    if !measurements.is_empty() {
        let speeds: Vec<_> = measurements.iter().map(Speed::of).collect();
        print(&measurements, &speeds);
        Report::new("forward", &session, &measurements, speeds).write();
    }
}

fn config() -> Config {
    Config::preset("350m").expect("a preset")
}

fn cases<'a>(
    options: &Options,
    stored: Stored,
    model: &'a OnceCell<Model>,
    states: &'a RefCell<Vec<Snapshot>>,
) -> Vec<Case<'a>> {
    let (prompts, contexts): (&[usize], &[usize]) = match options.extent() {
        Extent::Quick => (&[128], &[128]),
        Extent::Usual => (&[128, 512], &[128, 4096]),
        Extent::Full => (&[128, 512, 2048], &[128, 1024, 4096]),
    };
    let prefills = prompts.iter().map(|&rows| (format!("prefill-{rows}"), 0, rows));
    let decodes = contexts.iter().map(|&context| (format!("decode-{context}"), context, 1));
    let runs: Vec<_> = prefills.chain(decodes).collect();
    let mut cases = Vec::new();
    for isa in options.isas() {
        for (shape, context, rows) in runs.clone() {
            cases.push(Case {
                op: "model",
                isa,
                format: stored.name(),
                shape,
                work: work(stored, context, rows),
                prepare: Box::new(move || {
                    let model = model.get_or_init(|| {
                        let source = Synthetic::new(1, stored.format);
                        let mut model = Model::new(config(), &source)
                            .expect("synthetic weights have every tensor");
                        model.set_activations(stored.activations);
                        model
                    });
                    Box::new(Forward::new(model, states, context, rows))
                }),
            });
        }
    }
    cases
}

fn work(stored: Stored, context: usize, rows: usize) -> Work {
    let config = config();
    let Operations { linear, attention } = config.operations(context, rows);
    let weights = config.operations(0, 1).linear as usize / 2;
    Work {
        rows,
        operations: linear + attention,
        bytes: (stored.format.bytes(weights) + 4 * config.cached(context + rows)) as u64,
    }
}

/// A state after many tokens, which takes long to make. Weights of another format would make other numbers and take as long to read.
struct Snapshot {
    context: usize,
    state: State,
}

/// Some tokens of one sequence.
struct Forward<'a> {
    model: &'a Model,
    tokens: Vec<u32>,
    /// What to go back to; none at the start of a sequence.
    snapshot: Option<State>,
    state: State,
    scratch: Scratch,
    logits: Vec<f32>,
}

/// Tokens that are decoded before going back: decoding cannot be undone, and going back takes a copy.
const DECODED: usize = 64;

impl<'a> Forward<'a> {
    fn new(model: &'a Model, states: &RefCell<Vec<Snapshot>>, context: usize, rows: usize) -> Self {
        let tokens: Vec<u32> = (0..rows.max(context) as u32).map(|i| i * 7919 % 65536).collect();
        let capacity = if context > 0 { context + DECODED } else { rows };
        let mut forward = Self {
            model,
            tokens,
            snapshot: None,
            state: model.new_state(capacity, CacheElement::F32),
            scratch: Scratch::default(),
            logits: vec![0.0; model.config().vocabulary],
        };
        if context > 0 {
            let mut states = states.borrow_mut();
            if !states.iter().any(|snapshot| snapshot.context == context) {
                forward.run(Isa::best(), context);
                states.push(Snapshot { context, state: forward.state.clone() });
            }
            let kept = states.iter().find(|snapshot| snapshot.context == context);
            let kept = kept.expect("pushed above").state.clone();
            forward.state = kept.clone();
            forward.snapshot = Some(kept);
        }
        forward
    }
}

impl Workload for Forward<'_> {
    fn restore(&mut self) {
        match &self.snapshot {
            Some(snapshot) => self.state = snapshot.clone(),
            None => self.state.reset(),
        }
    }

    fn run(&mut self, isa: Isa, rows: usize) {
        let sequence = Sequence { tokens: &self.tokens[..rows], state: &mut self.state };
        let logits = Logits::Last(&mut self.logits);
        self.model
            .forward(isa, &mut [sequence], &mut self.scratch, logits)
            .expect("the state has room");
    }

    fn output(&self) -> &[f32] {
        &self.logits
    }

    fn rewinds(&self) -> bool {
        true
    }

    fn rewind(&mut self) {
        if self.snapshot.is_none() || self.state.position() == self.state.capacity() {
            self.restore();
        }
    }
}

#[derive(Serialize)]
struct Speed {
    id: String,
    tokens_per_second: f64,
    operations_per_second: f64,
    bytes_per_second: f64,
}

impl Speed {
    fn of(measurement: &Measurement) -> Self {
        let seconds = measurement.seconds.median;
        Self {
            id: measurement.id.clone(),
            tokens_per_second: measurement.rows as f64 / seconds,
            operations_per_second: measurement.operations as f64 / seconds,
            bytes_per_second: measurement.bytes as f64 / seconds,
        }
    }
}

fn print(measurements: &[Measurement], speeds: &[Speed]) {
    println!("\nthe whole LFM2-350M, {} threads", rayon::current_num_threads());
    println!(
        "{:13}{:11}{:14}{:>12}{:>14}{:>12}{:>10}",
        "", "format", "", "time", "tokens/s", "Gflop/s", "GB/s"
    );
    for (measurement, speed) in measurements.iter().zip(speeds) {
        println!(
            "{:13}{:11}{:14}{:>12}{:>14.1}{:>12.1}{:>10.1}",
            measurement.isa,
            measurement.format,
            measurement.shape,
            time(measurement.seconds.median),
            speed.tokens_per_second,
            speed.operations_per_second / 1e9,
            speed.bytes_per_second / 1e9,
        );
    }
}
