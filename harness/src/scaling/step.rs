use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use lfm2_kernels::Isa;
use lfm2_kernels::linear::cut::{Cut, Tiling, half_of_panels};
use lfm2_kernels::linear::{Activations, Matrix, tiling};
use lfm2_kernels::model::{Config, LayerKind, Scratch};
use lfm2_kernels::ops::AttentionCut;
use lfm2_kernels::simd::LANES;
use lfm2_kernels::threads::{half_of_rows, parts_of_runs, rows_worth_sharing};
use serde::Serialize;

use super::{Hardware, Outcome, Rates, Task, Work, play};
use crate::workload::Stored;

/// A call of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Sequences that are advanced together.
    pub sequences: usize,
    /// Tokens that each has already had.
    pub context: usize,
    /// Tokens that each gets.
    pub tokens: usize,
}

impl Call {
    /// Of all sequences.
    pub fn rows(&self) -> usize {
        self.sequences * self.tokens
    }
}

/// Text that names no call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown call {0:?}: expected prefill-TOKENS, decode-CONTEXT or decode-CONTEXTxSEQUENCES, such as decode-128x16"
)]
pub struct UnknownCall(String);

impl FromStr for Call {
    type Err = UnknownCall;

    /// Reads the name that the bench `forward` gives a call.
    fn from_str(text: &str) -> Result<Self, UnknownCall> {
        let parse = || {
            let (kind, shape) = text.split_once('-')?;
            let (shape, sequences) = shape.split_once('x').unwrap_or((shape, "1"));
            let (number, sequences) = (shape.parse().ok()?, sequences.parse().ok()?);
            match kind {
                "prefill" => Some(Self { sequences, context: 0, tokens: number }),
                "decode" => Some(Self { sequences, context: number, tokens: 1 }),
                _ => None,
            }
        };
        let is_sound = |call: &Self| {
            let Self { sequences, context, tokens } = *call;
            (1..=MOST).contains(&sequences) && context <= MOST && (1..=MOST).contains(&tokens)
        };
        parse().filter(is_sound).ok_or_else(|| UnknownCall(text.to_string()))
    }
}

/// Sequences, tokens before and tokens now: of more, a simulation would take too long.
const MOST: usize = 1 << 17;

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self { context: 0, tokens, .. } if tokens > 1 => write!(f, "prefill-{tokens}")?,
            Self { context, .. } => write!(f, "decode-{context}")?,
        }
        match self.sequences {
            1 => Ok(()),
            sequences => write!(f, "x{sequences}"),
        }
    }
}

/// Operations that all threads do together: none begins the next one before all have ended.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What it is.
    pub name: &'static str,
    /// How often it is done.
    pub times: usize,
    /// One of them.
    pub work: Work,
}

impl Stage {
    /// Lets `threads` threads do all of it.
    pub fn play(&self, hardware: &Hardware, threads: usize) -> Outcome {
        play(hardware, threads, &self.work) * self.times as f64
    }
}

/// All that a call does.
#[derive(Clone, Debug)]
pub struct Step(pub Vec<Stage>);

impl Step {
    /// Lets `threads` threads do it.
    pub fn play(&self, hardware: &Hardware, threads: usize) -> Outcome {
        let outcomes = self.0.iter().map(|stage| stage.play(hardware, threads));
        outcomes.fold(Outcome::default(), |sum, outcome| sum + outcome)
    }
}

/// A call of a model of that shape, with one kind of feed-forward and every weight `stored` so, cut for `threads` threads.
pub fn step(
    config: &Config,
    stored: Stored,
    isa: Isa,
    call: Call,
    rates: &Rates,
    threads: usize,
) -> Step {
    let mut model = Maker { config, stored, isa, rates, threads, stages: Vec::new() };
    let most = Scratch::pass_rows(call.rows());
    for first in (0..call.rows()).step_by(most) {
        model.pass(call, first..call.rows().min(first + most));
    }
    model.head(call.sequences);
    Step(model.stages)
}

struct Maker<'a> {
    config: &'a Config,
    stored: Stored,
    isa: Isa,
    rates: &'a Rates,
    threads: usize,
    stages: Vec<Stage>,
}

impl Maker<'_> {
    fn push(&mut self, name: &'static str, times: usize, work: Work) {
        self.stages.push(Stage { name, times, work });
    }

    /// Rows of all sequences, those of a sequence one after another: `Model::pass`.
    fn pass(&mut self, call: Call, rows: Range<usize>) {
        let Config { hidden_size: width, feed_forward_width, head_dim, .. } = *self.config;
        let (count, layers) = (rows.len(), self.config.layers.len());
        let embedded = width as f64 / self.rates.embedded;
        self.push("embedding", 1, self.split_rows(count, rows_worth_sharing(width), embedded));
        self.push("angles", 1, alone((count * head_dim / 2) as f64 / self.rates.angles));

        // Each number is read and another one written; sums and products read two. A norm finds the sum near.
        self.push("norm", 1, self.elements(count, width, 8));
        self.push("residual and norm", 2 * layers - 1, self.elements(count, width, 16));
        self.push("residual", 1, self.elements(count * width, 1, 12));
        let convolutions = self.config.count(LayerKind::Conv);
        self.push("in_proj", convolutions, self.linear(count, 3 * width, width));
        self.push("out_proj", layers, self.linear(count, width, width));
        let attentions = self.config.count(LayerKind::Attention);
        let (queries, keys) = (self.config.query_width(), self.config.key_value_width());
        let qkv = [queries, keys, keys].map(|outputs| self.linear(count, outputs, width));
        self.push("q, k and v", attentions, each(qkv.into()));
        for (name, wide) in [("query norm", queries), ("key norm", keys)] {
            self.push(name, attentions, self.elements(count * wide / head_dim, head_dim, 8));
            self.push("rope", attentions, self.elements(count, wide, 8));
        }
        for sequence in rows.start / call.tokens..rows.end.div_ceil(call.tokens) {
            let begin = (sequence * call.tokens).max(rows.start);
            let own = begin..((sequence + 1) * call.tokens).min(rows.end);
            self.push("convolution", convolutions, self.elements(own.len(), width, 16));
            let of_head = 2 * own.len() * head_dim;
            let appended = of_head as f64 / self.rates.cached;
            let heads = self.config.key_value_heads;
            let cache = self.split_rows(heads, rows_worth_sharing(of_head), appended);
            self.push("cache", attentions, cache);
            let position = call.context + own.start % call.tokens;
            self.push("attention", attentions, self.attention(own.len(), position));
        }
        if count == 1 {
            let gate_and_up = [(); 2].map(|()| self.linear(count, feed_forward_width, width));
            self.push("gate and up", layers, each(gate_and_up.into()));
            self.push("silu", layers, self.elements(count * feed_forward_width, 1, SILU_BYTES));
        } else {
            let gated = self.linears::<2>(count, feed_forward_width, width);
            self.push("gate, up and silu", layers, gated);
        }
        self.push("down", layers, self.linear(count, width, feed_forward_width));
    }

    fn head(&mut self, sequences: usize) {
        let Config { hidden_size: width, vocabulary, .. } = *self.config;
        self.push("norm", sequences, self.elements(1, width, 8));
        self.push("head", 1, self.linear(sequences, vocabulary, width));
    }

    /// Rows of an operation on elements that touches so many bytes for each: `threads::split_rows`.
    fn elements(&self, rows: usize, row: usize, bytes: usize) -> Work {
        let seconds = (row * bytes) as f64 / self.rates.elements;
        self.split_rows(rows, rows_worth_sharing(row), seconds)
    }

    fn split_rows(&self, rows: usize, most: usize, seconds: f64) -> Work {
        let most = if self.threads == 1 { rows } else { most };
        Work::halved(0..rows, &|rows| half_of_rows(rows, most), &|rows| {
            alone(rows.len() as f64 * seconds)
        })
    }

    /// `linear` of so many rows.
    fn linear(&self, rows: usize, outputs: usize, inputs: usize) -> Work {
        self.linears::<1>(rows, outputs, inputs)
    }

    /// `linear` of one matrix, or `gated_linear` of two.
    fn linears<const N: usize>(&self, rows: usize, outputs: usize, inputs: usize) -> Work {
        /// From here on computing takes longer than reading.
        const MANY: usize = 48;
        let tiling = self.tiling(inputs).of_each(N);
        let Tiling { panel_bytes, .. } = tiling;
        let panels = outputs.div_ceil(LANES);
        let cut = Cut { panels, panel_bytes, threads: self.threads };
        if rows == 1 {
            let per_run = cut.panels_of_run(tiling.row_panels);
            let run = |first: usize| {
                let reading = (per_run.min(panels - first) * panel_bytes) as f64;
                Task { computing: reading / self.rates.row, reading }
            };
            let runs: Vec<_> = (0..panels).step_by(per_run).map(run).collect();
            let parts = parts_of_runs(runs.len(), self.threads).collect();
            return Work::InOrder(vec![self.prepare(1, inputs), Work::Runs { runs, parts }]);
        }
        let most = cut.panels_of_task(rows);
        let rate = self.rates.of(self.stored.activations);
        let waiting = if rows < MANY { self.rates.few_rows } else { 1.0 };
        Work::halved(0..rows, &|rows| tiling.half_of_rows(rows), &|rows| {
            let multiply =
                Work::halved(0..panels, &|panels| half_of_panels(panels, most), &|panels| {
                    let elements = rows.len() * panels.len() * LANES;
                    let meeting = ((N - 1) * elements * SILU_BYTES) as f64 / self.rates.elements;
                    let operations = 2 * N * elements * inputs;
                    let computing = operations as f64 / rate + meeting;
                    let reading = waiting * (panels.len() * panel_bytes) as f64;
                    Work::Task(Task { computing, reading })
                });
            Work::InOrder(vec![self.prepare(rows.len(), inputs), multiply])
        })
    }

    /// How a matrix with so many inputs is cut, as one with few outputs says.
    fn tiling(&self, inputs: usize) -> Tiling {
        let Stored { format, activations } = self.stored;
        let bytes = vec![0; 2 * LANES * format.bytes(inputs)];
        let mut matrix = Matrix::from_le_bytes(format, 2 * LANES, inputs, &bytes);
        matrix.set_activations(activations);
        tiling(self.isa, &matrix)
    }

    /// Activations of a block, quantised, rounded or copied in pieces: of one row by one thread, and not copied.
    fn prepare(&self, rows: usize, inputs: usize) -> Work {
        const PIECE: usize = 512;
        if rows == 1 && self.stored.activations == Activations::F32 {
            return Work::InOrder(Vec::new());
        }
        let pieces = rows * inputs.div_ceil(PIECE);
        let most = if rows == 1 { pieces } else { rows_worth_sharing(PIECE) };
        let seconds = (PIECE * size_of::<f32>()) as f64 / self.rates.prepare;
        self.split_rows(pieces, most, seconds)
    }

    /// `attention` of rows of one sequence, of which the first stands at `first_position`.
    fn attention(&self, rows: usize, first_position: usize) -> Work {
        let Config { heads, key_value_heads, head_dim, .. } = *self.config;
        let group = heads / key_value_heads;
        let cut = AttentionCut { heads: key_value_heads, head_dim, group, first_position };
        let task = |heads: usize, rows: Range<usize>| {
            let keys: usize = rows.clone().map(|row| first_position + row + 1).sum();
            let seen = first_position + rows.end;
            let computing = (4 * heads * group * head_dim * keys) as f64 / self.rates.attention;
            let reading = (2 * heads * head_dim * seen * size_of::<f32>()) as f64;
            Work::Task(Task { computing, reading })
        };
        if rows == 1 {
            let most = if self.threads == 1 { key_value_heads } else { cut.heads_of_task() };
            return Work::halved(
                0..key_value_heads,
                &|heads| half_of_rows(heads, most),
                &|heads| task(heads.len(), 0..1),
            );
        }
        let most = cut.rows_of_task(rows, self.threads);
        shared(&cut, 0..rows, self.threads, most, &|rows| task(key_value_heads, rows))
    }
}

/// Rows in tasks of at most `most`, and in `parts` parts at least.
fn shared(
    cut: &AttentionCut,
    rows: Range<usize>,
    parts: usize,
    most: usize,
    task: &impl Fn(Range<usize>) -> Work,
) -> Work {
    let Some(half) = cut.half_of_rows(rows.start, rows.len(), parts, most) else {
        return task(rows);
    };
    let middle = rows.start + half;
    Work::both(
        shared(cut, rows.start..middle, parts.div_ceil(2), most, task),
        shared(cut, middle..rows.end, parts / 2, most, task),
    )
}

/// Of each element of `silu_multiply`.
const SILU_BYTES: usize = 12;

/// Several linear layers with no wait in between: `linear_each`.
fn each(mut works: Vec<Work>) -> Work {
    let mut all = works.pop().expect("there is one");
    while let Some(work) = works.pop() {
        all = Work::both(work, all);
    }
    all
}

/// What memory has no part in.
fn alone(seconds: f64) -> Work {
    Work::Task(Task { computing: seconds, reading: 0.0 })
}
