//! `lfm2 scaling`: how speed would grow with threads on a machine that is not at hand.

use std::process::ExitCode;

use clap::value_parser;
use lfm2_harness::report::text::time;
use lfm2_harness::scaling::{Call, Hardware, Outcome, Placement, Spent, Stage, Step, step};
use lfm2_harness::workload::Stored;
use lfm2_kernels::Isa;
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::Config;
use serde::Serialize;

use super::output::{counted, print, print_json, table};
use super::settings::ActivationsName;
use super::{Failure, progress};

const EXAMPLES: &str = "\
Examples:
  lfm2 scaling                                              64 cores on 2 sockets, a few calls of the 350M
  lfm2 scaling --preset 1.2b --format q4_0 --activations int8 --call decode-4096
  lfm2 scaling --call decode-128x32 --placement local       what replicated weights would give
  lfm2 scaling --cores 2 --sockets 1 --socket-gb 60         a machine like the one that this was written on
  lfm2 scaling --call decode-0 --operations 64              which operations take the time of 64 threads";

/// Simulates how speed grows with threads, on a machine that need not be at hand
///
/// The work of a call is cut as the kernels cut it, and played in virtual time. The rates of a core were measured; the rest are assumptions, which
/// options change. `kernels/docs/scaling.md` has both, and how the simulation compares with what was measured.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ScalingArguments {
    /// Cores of all sockets
    #[arg(long, value_name = "N", default_value = "64", value_parser = value_parser!(u32).range(1..=1024))]
    cores: u32,
    /// Sockets, each with its own memory
    #[arg(long, value_name = "N", default_value = "2", value_parser = value_parser!(u32).range(1..=16))]
    sockets: u32,
    /// The shape of a published model
    #[arg(long, value_name = "NAME", default_value = "350m")]
    preset: String,
    /// In what weights are stored
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    format: WeightFormat,
    /// How weights meet activations
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    activations: ActivationsName,
    /// The instruction set whose tiles rows are cut to [default: this CPU's best]
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    /// What the model does: prefill-TOKENS, decode-CONTEXT, or decode-CONTEXTxSEQUENCES for several that are decoded together
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "prefill-512,prefill-4096,decode-0,decode-4096,decode-128x16"
    )]
    call: Vec<Call>,
    /// On which sockets' memory weights and caches lie
    #[arg(long, value_enum, default_value = "interleaved")]
    placement: Placement,
    /// Operations of a linear layer with many rows that a core does, in billions a second [default: as measured for the activations]
    #[arg(long, value_name = "N", value_parser = positive)]
    gops: Option<f64>,
    /// What a core reads of its socket's memory, in GB/s [default: as measured]
    #[arg(long, value_name = "N", value_parser = positive)]
    core_gb: Option<f64>,
    /// What a socket's memory gives to all cores, in GB/s [default: assumed]
    #[arg(long, value_name = "N", value_parser = positive)]
    socket_gb: Option<f64>,
    /// What of that goes to other sockets at most, in GB/s [default: assumed]
    #[arg(long, value_name = "N", value_parser = positive)]
    link_gb: Option<f64>,
    /// Show the time of each operation with so many threads
    #[arg(long, value_name = "THREADS", value_parser = value_parser!(u32).range(1..))]
    operations: Option<u32>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// A number above zero.
fn positive(text: &str) -> Result<f64, &'static str> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or("expected a number above 0")
}

#[derive(Serialize)]
struct Report {
    preset: String,
    stored: &'static str,
    hardware: Hardware,
    calls: Vec<Played>,
}

#[derive(Serialize)]
struct Played {
    call: String,
    threads: Vec<Row>,
    /// With the threads that were asked for.
    operations: Vec<Operation>,
}

#[derive(Serialize)]
struct Row {
    threads: usize,
    tokens_per_second: f64,
    /// Times the speed of one thread.
    speedup: f64,
    /// That, for each thread.
    efficiency: f64,
    /// On what threads spend most of their time.
    bound: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
struct Operation {
    name: &'static str,
    times: usize,
    /// At most, in one of them.
    tasks: usize,
    #[serde(flatten)]
    outcome: Outcome,
}

pub fn run(arguments: &ScalingArguments) -> Result<ExitCode, Failure> {
    let report = arguments.report()?;
    match arguments.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl ScalingArguments {
    fn report(&self) -> Result<Report, Failure> {
        let (config, stored, hardware) = (self.config()?, self.stored()?, self.hardware()?);
        let isa = self.isa.unwrap_or_else(Isa::best);
        let step = |call, threads| step(&config, stored, isa, call, &hardware.rates, threads);
        let counts = thread_counts(hardware.cores);
        let bar = progress::bar("simulating", "runs", self.call.len() * counts.len());
        let played = |&call: &Call| {
            let outcomes = counts.iter().map(|&threads| {
                let outcome = step(call, threads).play(&hardware, threads);
                bar.inc(1);
                (threads, outcome)
            });
            let operations = self.operations.map_or(Vec::new(), |threads| {
                Operation::of_step(&step(call, threads as usize), &hardware, threads as usize)
            });
            Played { call: call.to_string(), threads: rows(call, outcomes), operations }
        };
        let calls = self.call.iter().map(played).collect();
        Ok(Report { preset: self.preset.clone(), stored: stored.name(), hardware, calls })
    }

    fn config(&self) -> Result<Config, Failure> {
        let config = Config::preset(&self.preset)?;
        match config.experts {
            None => Ok(config),
            Some(_) => Err(format!(
                "preset {} has experts, which are not simulated: expected a dense model, such as 350m",
                self.preset
            )
            .into()),
        }
    }

    fn stored(&self) -> Result<Stored, Failure> {
        let stored = Stored { format: self.format, activations: self.activations.into() };
        match stored.format.meets(stored.activations) {
            true => Ok(stored),
            false => Err(format!(
                "weights in {} do not meet {} activations: int8 is for quantised weights, bf16 for bf16",
                stored.format,
                stored.activations.name()
            )
            .into()),
        }
    }

    fn hardware(&self) -> Result<Hardware, Failure> {
        let (cores, sockets) = (self.cores as usize, self.sockets as usize);
        if !cores.is_multiple_of(sockets) {
            return Err(format!(
                "--cores {cores} --sockets {sockets}: expected as many cores on each socket"
            )
            .into());
        }
        if let Some(threads) = self.operations.filter(|&threads| threads > self.cores) {
            return Err(format!("--operations {threads}: expected at most {cores} threads").into());
        }
        let defaults = Hardware::new(cores, sockets);
        let bytes = |gigabytes: Option<f64>, default| gigabytes.map_or(default, |gb| gb * 1e9);
        let mut hardware = Hardware {
            core_bandwidth: bytes(self.core_gb, defaults.core_bandwidth),
            socket_bandwidth: bytes(self.socket_gb, defaults.socket_bandwidth),
            link_bandwidth: bytes(self.link_gb, defaults.link_bandwidth),
            placement: self.placement,
            ..defaults
        };
        if let Some(gops) = self.gops {
            hardware.rates.linear = [gops * 1e9; 3];
        }
        Ok(hardware)
    }
}

/// Powers of two, and all.
fn thread_counts(cores: usize) -> Vec<usize> {
    let powers = (0..).map(|power| 1 << power).take_while(|&threads| threads < cores);
    powers.chain([cores]).collect()
}

fn rows(call: Call, outcomes: impl Iterator<Item = (usize, Outcome)>) -> Vec<Row> {
    let mut of_one = None;
    let row = |(threads, outcome): (usize, Outcome)| {
        let speedup = *of_one.get_or_insert(outcome.seconds) / outcome.seconds;
        Row {
            threads,
            tokens_per_second: call.rows() as f64 / outcome.seconds,
            speedup,
            efficiency: speedup / threads as f64,
            bound: bound(&outcome.spent),
            outcome,
        }
    };
    outcomes.map(row).collect()
}

impl Operation {
    /// Those of a step, each once.
    fn of_step(Step(stages): &Step, hardware: &Hardware, threads: usize) -> Vec<Self> {
        let mut operations: Vec<Self> = Vec::new();
        for stage in stages {
            let Stage { name, times, ref work } = *stage;
            let (tasks, outcome) = (work.tasks(), stage.play(hardware, threads));
            match operations.iter_mut().find(|operation| operation.name == name) {
                None => operations.push(Self { name, times, tasks, outcome }),
                Some(operation) => {
                    operation.times += times;
                    operation.tasks = operation.tasks.max(tasks);
                    operation.outcome = operation.outcome + outcome;
                }
            }
        }
        operations
    }
}

/// On what threads spend their time, as shares of it, in the order in which a table has them.
fn shares(spent: &Spent) -> [(&'static str, f64); 5] {
    let share = |seconds: f64| seconds / spent.total();
    [
        ("computing", share(spent.computing)),
        ("memory", share(spent.memory)),
        ("handing out", share(spent.handing_out)),
        ("unevenness", share(spent.uneven)),
        ("one thread alone", share(spent.alone)),
    ]
}

/// The largest share.
fn bound(spent: &Spent) -> &'static str {
    let largest = shares(spent).into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
    largest.expect("there are shares").0
}

fn text(report: &Report) -> String {
    let Hardware { cores, sockets, placement, core_bandwidth, socket_bandwidth, .. } =
        report.hardware;
    let memory = match sockets {
        1 => String::new(),
        _ => format!(", memory {}", name(placement)),
    };
    let mut text = format!(
        "simulated: LFM2-{}, {}, {} on {}, {:.0} GB/s to a core, {:.0} GB/s to a socket{memory}\n",
        report.preset.to_uppercase(),
        report.stored,
        counted(cores, "core"),
        counted(sockets, "socket"),
        core_bandwidth / 1e9,
        socket_bandwidth / 1e9,
    );
    for call in &report.calls {
        text += &format!("\n{}\n{}", call.call, table(&lines(&call.threads)));
        if !call.operations.is_empty() {
            text += &format!("\n{}", table(&operations(&call.operations)));
        }
    }
    text
}

fn name(placement: Placement) -> &'static str {
    match placement {
        Placement::One => "of one socket",
        Placement::Interleaved => "interleaved",
        Placement::Local => "local",
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn lines(rows: &[Row]) -> Vec<Vec<String>> {
    let head = ["threads", "tokens/s", "times one", "efficiency", "mostly"];
    let kinds = shares(&Spent::default()).map(|(kind, _)| kind);
    let head = head.into_iter().chain(kinds).map(String::from).collect();
    let line = |row: &Row| {
        let mut cells = vec![
            row.threads.to_string(),
            format!("{:.1}", row.tokens_per_second),
            format!("{:.2}", row.speedup),
            percent(row.efficiency),
            row.bound.to_string(),
        ];
        cells.extend(shares(&row.outcome.spent).map(|(_, share)| percent(share)));
        cells
    };
    [head].into_iter().chain(rows.iter().map(line)).collect()
}

fn operations(operations: &[Operation]) -> Vec<Vec<String>> {
    let head = ["operation", "times", "tasks", "each", "share", "mostly"].map(String::from).into();
    let all: f64 = operations.iter().map(|operation| operation.outcome.seconds).sum();
    let line = |operation: &Operation| {
        let Operation { name, times, tasks, outcome } = operation;
        vec![
            name.to_string(),
            times.to_string(),
            tasks.to_string(),
            time(outcome.seconds / *times as f64),
            percent(outcome.seconds / all),
            bound(&outcome.spent).to_string(),
        ]
    };
    [head].into_iter().chain(operations.iter().map(line)).collect()
}
