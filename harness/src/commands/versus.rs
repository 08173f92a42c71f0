use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::value_parser;
use lfm2_harness::ceiling::{Ceilings, Work};
use lfm2_harness::machine::Machine;
use lfm2_kernels::Isa;
use lfm2_kernels::linear::Activations;
use lfm2_kernels::model::{Logits, Model, Operations, Scratch, Sequence, State};
use lfm2_kernels::ops::CacheElement;
use lfm2_kernels::threads::enter;
use serde::Serialize;

use super::checkpoint::{check_memory, locate};
use super::output::{print, print_json, table};
use super::settings::{ActivationsName, KeyValue, Threads, bytes_of};
use super::{FAILED, Failure, progress};

mod interval;
mod peer;

use interval::{Interval, median};
use peer::Peer;

const EXAMPLES: &str = "\
Examples:
  lfm2 versus --llama-bench ~/llama.cpp/build/bin/llama-bench --model LFM2-350M-Q4_0.gguf
  lfm2 versus --llama-bench ./llama-bench --model F.gguf --threads 2 --prompt 0 --depth 0,4096
  lfm2 versus --llama-bench ./llama-bench --model F.gguf -- --flash-attn 1";

/// Compares the speed with that of llama.cpp, on the same file, threads and lengths
///
/// Runs llama.cpp's own bench program and this one in turn: ours, theirs, theirs, ours, and again. Each such round gives one ratio, and one of
/// each program with itself, whose truth is 1. Prints tokens per second, the median ratio with an interval that holds the true median in 95
/// of 100 cases or more, and what share each reaches of what the machine allows, as measured between the rounds. Where a program disagrees
/// with itself there is no conclusion, and the exit status is 1.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct VersusArguments {
    /// The program `llama-bench`, built as it is used
    #[arg(long, value_name = "PATH")]
    llama_bench: PathBuf,
    /// A GGUF file, for both
    #[arg(long, value_name = "F.gguf")]
    model: PathBuf,
    /// The instruction set [default: this CPU's best]
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    #[command(flatten)]
    threads: Threads,
    /// How many tokens a prompt has; 0 to leave prompts out
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = value_parser!(u32).range(..=1 << 20))]
    prompt: u32,
    /// How many tokens are generated; 0 to leave that out
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(..=1 << 20))]
    generate: u32,
    /// After how many other tokens; several with commas between them
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0", value_parser = value_parser!(u32).range(..=1 << 20))]
    depth: Vec<u32>,
    /// How often each program runs twice
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = value_parser!(u32).range(interval::LEAST as i64..=1000))]
    rounds: u32,
    /// In what we keep keys and values: llama.cpp's own default is f16
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv: KeyValue,
    /// How our weights meet activations: llama.cpp always quantises them for quantised weights, and rounds them for bf16 ones
    #[arg(long, value_name = "TYPE", default_value = "int8")]
    activations: ActivationsName,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Flags for llama-bench, such as `--flash-attn 1`
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

/// What both do.
#[derive(Clone, Copy, Serialize)]
struct Task {
    /// Tokens before.
    depth: usize,
    /// Tokens of a prompt, or 0.
    prompt: usize,
    /// Tokens that are generated, or 0.
    generate: usize,
}

impl Task {
    fn name(self) -> String {
        match self {
            Self { prompt: 0, generate, depth } => format!("decode {generate} at {depth}"),
            Self { prompt, depth, .. } => format!("prefill {prompt} at {depth}"),
        }
    }

    fn tokens(self) -> usize {
        self.prompt + self.generate
    }
}

#[derive(Serialize)]
struct Report {
    model: PathBuf,
    isa: &'static str,
    threads: usize,
    kv: &'static str,
    activations: &'static str,
    llama_bench: PathBuf,
    llama_build: Option<String>,
    flags: Vec<String>,
    machine: Machine,
    tasks: Vec<Comparison>,
}

#[derive(Serialize)]
struct Comparison {
    #[serde(flatten)]
    task: Task,
    /// Each program's times, two of each round.
    ours: Side,
    theirs: Side,
    /// How many times as fast we are.
    ratio: Interval,
    /// Of the machine, the medians of what was measured between the rounds.
    ceilings: Ceilings,
    verdict: Verdict,
}

#[derive(Serialize)]
struct Side {
    seconds: Vec<f64>,
    tokens_per_second: f64,
    percent_of_limit: f64,
    /// The program against itself.
    control: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Faster,
    Slower,
    /// The interval holds 1.
    NoDifferenceShown,
    /// A program disagrees with itself.
    NoConclusion,
}

pub fn run(arguments: VersusArguments) -> Result<ExitCode, Failure> {
    let report = arguments.threads.pool()?.install(|| compare(&arguments))?;
    match arguments.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    let concludes = report.tasks.iter().all(|task| task.verdict != Verdict::NoConclusion);
    Ok(if concludes { ExitCode::SUCCESS } else { FAILED.into() })
}

fn compare(arguments: &VersusArguments) -> Result<Report, Failure> {
    let tasks = tasks(arguments)?;
    let mut peer = Peer::new(&arguments.llama_bench, &arguments.model, &arguments.flags);
    // What is wrong with the other program shows before anything takes long.
    peer.run(Task { depth: 0, prompt: 1, generate: 0 })?;
    let mut ours = Ours::load(arguments, &tasks)?;
    // As much as a token reads: what of it stays in a cache, does so for the model, too.
    let memory = vec![1.0; ours.model.bytes() / size_of::<f32>()];

    let rounds = arguments.rounds as usize;
    let bar = progress::bar("rounds", "rounds", tasks.len() * rounds);
    let mut comparisons = Vec::new();
    for task in tasks {
        let mut times = Times::default();
        let mut ceilings = Vec::new();
        ours.prepare(task)?;
        for _ in 0..rounds {
            times.ours.push(ours.run(task)?);
            times.theirs.push(peer.run(task)?);
            times.theirs.push(peer.run(task)?);
            times.ours.push(ours.run(task)?);
            ceilings.push(Ceilings::measure(ours.isa, &memory));
            bar.inc(1);
        }
        let ceilings = medians(&ceilings);
        comparisons.push(times.compare(task, ours.limit(task, ceilings), ceilings));
    }
    drop(bar);
    Ok(Report {
        model: arguments.model.clone(),
        isa: ours.isa.name(),
        threads: rayon::current_num_threads(),
        kv: arguments.kv.name(),
        activations: Activations::from(arguments.activations).name(),
        llama_bench: arguments.llama_bench.clone(),
        llama_build: peer.build,
        flags: arguments.flags.clone(),
        machine: Machine::detect(),
        tasks: comparisons,
    })
}

fn tasks(arguments: &VersusArguments) -> Result<Vec<Task>, Failure> {
    let [prompt, generate] = [arguments.prompt, arguments.generate].map(|count| count as usize);
    let of_depth = |&depth: &u32| {
        let task = Task { depth: depth as usize, prompt: 0, generate: 0 };
        [Task { prompt, ..task }, Task { generate, ..task }]
    };
    let tasks: Vec<_> =
        arguments.depth.iter().flat_map(of_depth).filter(|task| task.tokens() > 0).collect();
    match tasks.is_empty() {
        true => Err("nothing to compare: --prompt or --generate must be more than 0".into()),
        false => Ok(tasks),
    }
}

/// This program: the model is loaded once.
struct Ours {
    isa: Isa,
    model: Model,
    element: CacheElement,
    scratch: Scratch,
    logits: Vec<f32>,
    /// After the tokens before.
    before: State,
    state: State,
}

impl Ours {
    fn load(arguments: &VersusArguments, tasks: &[Task]) -> Result<Self, Failure> {
        let path = &arguments.model;
        let bar = std::cell::OnceCell::new();
        let report = |done, all| {
            bar.get_or_init(|| progress::bar("loading", "layers", all)).set_position(done as u64);
        };
        let mut model = Model::load_reporting(path, report).map_err(|error| locate(error, path))?;
        model.set_activations(arguments.activations.into());
        let element = arguments.kv.into();
        let most = tasks.iter().map(|task| task.depth + task.tokens()).max().unwrap_or(0);
        // One state to go back to, one to go on with.
        let states = (2 * model.config().cached(most) * bytes_of(element)) as u64;
        check_memory("the model with two states", model.bytes() as u64 + states)?;
        Ok(Self {
            isa: arguments.isa.unwrap_or_else(Isa::best),
            logits: vec![0.0; model.config().vocabulary],
            before: model.new_state(0, element),
            state: model.new_state(0, element),
            scratch: Scratch::default(),
            model,
            element,
        })
    }

    /// Goes through the tokens before, once for all rounds.
    fn prepare(&mut self, task: Task) -> Result<(), Failure> {
        self.state = self.model.new_state(task.depth + task.tokens(), self.element);
        if task.depth > 0 {
            self.forward(0, task.depth)?;
        }
        self.before = self.state.clone();
        Ok(())
    }

    /// Seconds of the task, after what llama-bench does untimed, too: the prompt once, or one token.
    fn run(&mut self, task: Task) -> Result<f64, Failure> {
        let warm_up = if task.prompt > 0 { task.prompt } else { 1 };
        self.state.clone_from(&self.before);
        self.forward(task.depth, warm_up)?;
        self.state.clone_from(&self.before);
        let began = Instant::now();
        if task.prompt > 0 {
            self.forward(task.depth, task.prompt)?;
        }
        enter(|| {
            (0..task.generate).try_for_each(|i| self.forward(task.depth + i, 1))?;
            Ok(began.elapsed().as_secs_f64())
        })
    }

    /// Any tokens take as long as any others.
    fn forward(&mut self, first: usize, count: usize) -> Result<(), Failure> {
        let vocabulary = self.model.config().vocabulary;
        let tokens: Vec<_> =
            (first..first + count).map(|i| (i * 7919 % vocabulary) as u32).collect();
        let sequence = Sequence { tokens: &tokens, state: &mut self.state };
        let logits = Logits::Last(&mut self.logits);
        self.model.forward(self.isa, &mut [sequence], &mut self.scratch, logits)?;
        Ok(())
    }

    /// Seconds that the task takes at least on a machine with these ceilings: it computes, and meanwhile reads all weights and what is
    /// cached, once for each call.
    fn limit(&self, task: Task, ceilings: Ceilings) -> f64 {
        let Self { model, .. } = self;
        let activations = model.head().activations();
        let call = |context: usize, rows: usize| {
            let Operations { linear, attention } = model.config().operations(context, rows);
            let cached = bytes_of(self.element) * model.config().cached(context + rows);
            let work = Work {
                rows,
                operations: attention,
                bytes: (model.bytes() + cached) as u64,
                ..Work::default()
            };
            ceilings.seconds(&work.with_linear(activations, linear)).0
        };
        let prompt = if task.prompt > 0 { call(task.depth, task.prompt) } else { 0.0 };
        prompt + (0..task.generate).map(|i| call(task.depth + i, 1)).sum::<f64>()
    }
}

fn medians(all: &[Ceilings]) -> Ceilings {
    let of = |ceiling: fn(&Ceilings) -> f64| median(&all.iter().map(ceiling).collect::<Vec<_>>());
    Ceilings {
        multiply_add: of(|ceilings| ceilings.multiply_add),
        dot: of(|ceilings| ceilings.dot),
        brain_dot: of(|ceilings| ceilings.brain_dot),
        read: of(|ceilings| ceilings.read),
    }
}

/// Seconds, in the order of the runs: two of each round.
#[derive(Default)]
struct Times {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Times {
    fn compare(self, task: Task, limit: f64, ceilings: Ceilings) -> Comparison {
        let rounds = |times: &[f64]| times.as_chunks::<2>().0.to_vec();
        let ratios = rounds(&self.ours).into_iter().zip(rounds(&self.theirs));
        let ratio = Interval::of(ratios.map(|([a, d], [b, c])| (b + c) / (a + d)).collect());
        let side = |seconds: Vec<f64>| {
            let control = rounds(&seconds).into_iter().map(|[first, second]| second / first);
            Side {
                tokens_per_second: task.tokens() as f64 / median(&seconds),
                percent_of_limit: 100.0 * limit / median(&seconds),
                control: Interval::of(control.collect()),
                seconds,
            }
        };
        let (ours, theirs) = (side(self.ours), side(self.theirs));
        let verdict = Verdict::of(&ratio, [&ours.control, &theirs.control]);
        Comparison { task, ours, theirs, ratio, ceilings, verdict }
    }
}

impl Verdict {
    fn of(ratio: &Interval, controls: [&Interval; 2]) -> Self {
        /// What a machine that warms up or cools down may do between two runs without our concern.
        const DRIFT: f64 = 0.02;
        let disagrees =
            |control: &Interval| control.low > 1.0 + DRIFT || control.high < 1.0 - DRIFT;
        if controls.into_iter().any(disagrees) {
            Self::NoConclusion
        } else if ratio.low > 1.0 {
            Self::Faster
        } else if ratio.high < 1.0 {
            Self::Slower
        } else {
            Self::NoDifferenceShown
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifferenceShown => "no difference shown",
            Self::NoConclusion => "no conclusion: a program disagrees with itself",
        }
    }
}

fn text(report: &Report) -> String {
    let heads =
        ["", "ours", "of limit", "theirs", "of limit", "ratio", "ours twice", "theirs twice", ""];
    let mut rows = vec![heads.map(String::from)];
    for Comparison { task, ours, theirs, ratio, verdict, .. } in &report.tasks {
        let speed = |side: &Side| format!("{:.1}/s", side.tokens_per_second);
        let percent = |side: &Side| format!("{:.0} %", side.percent_of_limit);
        rows.push([
            task.name(),
            speed(ours),
            percent(ours),
            speed(theirs),
            percent(theirs),
            ratio.text(),
            ours.control.text(),
            theirs.control.text(),
            verdict.text().into(),
        ]);
    }
    format!(
        "{}tokens per second on {}, {} threads; ratio: how many times as fast we are, median (interval)\n",
        table(&rows),
        report.isa,
        report.threads,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: Task = Task { depth: 0, prompt: 0, generate: 10 };
    const CEILINGS: Ceilings = Ceilings { multiply_add: 1.0, dot: 1.0, brain_dot: 1.0, read: 1.0 };

    fn compared(ours: &[f64], theirs: &[f64]) -> Comparison {
        let times = Times { ours: ours.to_vec(), theirs: theirs.to_vec() };
        times.compare(TASK, 1.0, CEILINGS)
    }

    #[test]
    fn ratios_are_of_times_within_a_round() {
        let ours = [1.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 1.0];
        let found = compared(&ours, &[3.0; 12]);
        assert_eq!([found.ratio.low, found.ratio.median, found.ratio.high], [1.5; 3]);
        assert_eq!(found.verdict, Verdict::Faster);
        assert_eq!((found.ours.tokens_per_second, found.ours.percent_of_limit), (5.0, 50.0));
        assert_eq!([found.ours.control.low, found.ours.control.high], [1.0 / 3.0, 3.0]);
        assert_eq!(compared(&[3.0; 12], &ours).verdict, Verdict::Slower);
    }

    #[test]
    fn nothing_follows_from_programs_that_disagree_with_themselves() {
        let drifting: Vec<_> = (0..12).map(|i| if i % 2 == 0 { 1.0 } else { 1.1 }).collect();
        assert_eq!(compared(&drifting, &[3.0; 12]).verdict, Verdict::NoConclusion);
        assert_eq!(compared(&[3.0; 12], &drifting).verdict, Verdict::NoConclusion);
        assert_eq!(compared(&[1.0; 12], &[1.0; 12]).verdict, Verdict::NoDifferenceShown);
    }
}
