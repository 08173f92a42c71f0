//! Tokens per second of the whole LFM2-350M with random weights: prefill, decode, and decode of several sequences together.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lfm2_benches::operations::{BF16, BF16_BF16, F16, F32, Q4_0, Q8_0};
use lfm2_benches::{
    Case, Extent, Last, Measurement, Options, Session, Stored, Work, Workload, time,
};
use lfm2_kernels::Isa;
use lfm2_kernels::model::{Config, Logits, Model, Operations, Scratch, Sequence, State, Synthetic};
use lfm2_kernels::ops::CacheElement;
use serde::Serialize;

fn main() {
    Options::from_args().in_pool(run);
}

fn run(options: Options) {
    let mut session = Session::new("forward", options);
    let formats: &[Stored] = match session.options.extent() {
        Extent::Quick => &[F32, Q4_0],
        Extent::Usual => &[F32, BF16, BF16_BF16, Q8_0, Q4_0],
        Extent::Full => &[F32, BF16, BF16_BF16, F16, Q8_0, Q4_0],
    };
    let (model, snapshots) = (Last::default(), RefCell::default());
    let mut cases = Vec::new();
    for &stored in formats {
        cases.extend(cases_of(&session.options, stored, &model, &snapshots));
    }
    let alone = cases.into_iter().map(|case| vec![case]).collect();
    let measurements = session.measure(Duration::from_millis(2500), alone);
    session.finish();
    if !measurements.is_empty() {
        let speeds: Vec<_> = measurements.iter().map(Speed::of).collect();
        print(&measurements, &speeds);
        session.report(speeds);
    }
}

fn config() -> Config {
    Config::preset("350m").expect("a preset")
}

/// What a call of the model does.
#[derive(Clone, Copy)]
struct Call {
    /// Tokens that each sequence has already had.
    context: usize,
    sequences: usize,
    /// Tokens that each sequence gets.
    tokens: usize,
}

impl Call {
    fn shape(self) -> String {
        match self {
            Self { context: 0, tokens, .. } => format!("prefill-{tokens}"),
            Self { context, sequences: 1, .. } => format!("decode-{context}"),
            Self { context, sequences, .. } => format!("decode-{context}x{sequences}"),
        }
    }

    fn work(self, stored: Stored) -> Work {
        let Self { context, sequences, tokens } = self;
        let config = config();
        let Operations { linear, attention } = config.operations(context, tokens);
        let weights = config.operations(0, 1).linear as usize / 2;
        let cached = sequences * config.cached(context + tokens);
        let attention = Work {
            rows: sequences * tokens,
            operations: sequences as u64 * attention,
            bytes: (stored.format.bytes(weights) + 4 * cached) as u64,
            ..Work::default()
        };
        attention.with_linear(stored.activations, sequences as u64 * linear)
    }
}

fn calls(extent: Extent, stored: Stored) -> Vec<Call> {
    const TOGETHER: [Stored; 2] = [F32, Q8_0];
    let (prompts, contexts, together): (&[usize], &[usize], &[usize]) = match extent {
        Extent::Quick => (&[128], &[128], &[16]),
        Extent::Usual => (&[128, 512], &[128, 4096], &[4, 16]),
        Extent::Full => (&[128, 512, 2048], &[128, 1024, 4096], &[2, 4, 8, 16, 32]),
    };
    let together = if TOGETHER.contains(&stored) { together } else { &[] };
    let prefills = prompts.iter().map(|&tokens| Call { context: 0, sequences: 1, tokens });
    let decodes = contexts.iter().map(|&context| Call { context, sequences: 1, tokens: 1 });
    let together = together.iter().map(|&sequences| Call { context: 128, sequences, tokens: 1 });
    prefills.chain(decodes).chain(together).collect()
}

fn cases_of<'a>(
    options: &Options,
    stored: Stored,
    model: &'a Last<Stored, Model>,
    snapshots: &'a RefCell<Vec<Snapshot>>,
) -> Vec<Case<'a>> {
    let calls = calls(options.extent(), stored);
    let mut cases = Vec::new();
    for isa in options.isas() {
        for &call in &calls {
            cases.push(Case {
                op: "model",
                isa,
                format: stored.name(),
                shape: call.shape(),
                work: call.work(stored),
                prepare: Box::new(move || {
                    let model = model.get(stored, || {
                        let source = Synthetic::new(1, stored.format);
                        let mut model = Model::new(config(), &source)
                            .expect("synthetic weights have every tensor");
                        model.set_activations(stored.activations);
                        model
                    });
                    Box::new(Forward::new(model, snapshots, call))
                }),
            });
        }
    }
    cases
}

/// A state after many tokens, which takes long to make. Weights of another format would make other numbers and take as long to read.
struct Snapshot {
    context: usize,
    state: State,
}

/// Some tokens of one sequence, or of several.
struct Forward {
    model: Rc<Model>,
    call: Call,
    tokens: Vec<u32>,
    /// What to go back to.
    start: State,
    /// Of each sequence.
    states: Vec<State>,
    scratch: Scratch,
    logits: Vec<f32>,
}

/// Tokens that are decoded before going back: decoding cannot be undone, and going back takes a copy.
const DECODED: usize = 64;

impl Forward {
    fn new(model: Rc<Model>, snapshots: &RefCell<Vec<Snapshot>>, call: Call) -> Self {
        let Call { context, sequences, tokens } = call;
        let start = match context {
            0 => model.new_state(tokens, CacheElement::F32),
            _ => state_after(context, &model, &mut snapshots.borrow_mut()),
        };
        Self {
            call,
            tokens: some_tokens(sequences * tokens),
            states: vec![start.clone(); sequences],
            start,
            scratch: Scratch::default(),
            logits: vec![0.0; sequences * model.config().vocabulary],
            model,
        }
    }
}

fn some_tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| i * 7919 % 65536).collect()
}

fn state_after(context: usize, model: &Model, snapshots: &mut Vec<Snapshot>) -> State {
    if let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.context == context) {
        return snapshot.state.clone();
    }
    let mut state = model.new_state(context + DECODED, CacheElement::F32);
    let sequence = Sequence { tokens: &some_tokens(context), state: &mut state };
    let mut logits = vec![0.0; model.config().vocabulary];
    model
        .forward(Isa::best(), &mut [sequence], &mut Scratch::default(), Logits::Last(&mut logits))
        .expect("the state has room");
    snapshots.push(Snapshot { context, state: state.clone() });
    state
}

impl Workload for Forward {
    fn restore(&mut self) {
        for state in &mut self.states {
            match self.call.context {
                0 => state.reset(),
                _ => *state = self.start.clone(),
            }
        }
    }

    fn run(&mut self, isa: Isa, rows: usize) {
        let tokens = self.tokens[..rows].chunks(self.call.tokens);
        let states = self.states.iter_mut();
        let mut sequences: Vec<_> =
            tokens.zip(states).map(|(tokens, state)| Sequence { tokens, state }).collect();
        let logits = &mut self.logits[..sequences.len() * self.model.config().vocabulary];
        self.model
            .forward(isa, &mut sequences, &mut self.scratch, Logits::Last(logits))
            .expect("the states have room");
    }

    fn output(&self) -> &[f32] {
        &self.logits
    }

    fn rewinds(&self) -> bool {
        true
    }

    fn rewind(&mut self) {
        if self.states[0].position() + self.call.tokens > self.states[0].capacity() {
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
        let (work, seconds) = (measurement.work, measurement.seconds.median);
        Self {
            id: measurement.id.clone(),
            tokens_per_second: work.rows as f64 / seconds,
            operations_per_second: work.operations as f64 / seconds,
            bytes_per_second: work.bytes as f64 / seconds,
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
