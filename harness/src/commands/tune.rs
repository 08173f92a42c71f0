//! `lfm2 tune`: which values of the kernels' knobs are fastest on this machine.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use lfm2_harness::machine::Machine;
use lfm2_harness::profile::{ProfileFile, SCHEMA_VERSION, users_file};
use lfm2_harness::regression::Estimate;
use lfm2_harness::report::text::{signed, time};
use lfm2_harness::tune::cases::{Ready, Shapes};
use lfm2_harness::tune::{CaseFinding, KnobFinding, Measurements, Verdict, choose, compare};
use lfm2_harness::workload::Weights;
use lfm2_kernels::Isa;
use lfm2_kernels::threads::enter;
use lfm2_kernels::tuning::{Knob, Profile};

use super::output::{OutputFile, first_signal, print, table};
use super::settings::Threads;
use super::time::duration;
use super::{Failure, progress};

const EXAMPLES: &str = "\
Examples:
  lfm2 tune --out profile.json
  lfm2 tune --budget 20m --shapes 1.2b --out profile.json
  lfm2 check --profile profile.json               the same hashes under it
  lfm2 generate --profile profile.json --preset 350m --tokens 1,2,3

Ctrl-C ends the search and writes what it has found; a second one ends it without.";

/// Finds what runs fastest on this CPU, and writes a profile of it
///
/// Work can be cut, and weights be asked for, in many ways that give the same bits. Each such knob is tried with several values, which take turns with
/// the best so far; one that is shown to be faster, twice, is taken. The last fifth of the time is for
/// the whole profile and the defaults, which take turns with every case.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TuneArguments {
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    budget: Duration,
    /// Of which model the linear layers are timed; `tiny` only shows that the command works
    #[arg(long, value_name = "PRESET", default_value = "350m", value_parser = PossibleValuesParser::new(Shapes::names()))]
    shapes: String,
    /// The instruction set [default: this CPU's best]
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    #[command(flatten)]
    threads: Threads,
    /// Where the profile goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// The part of the time that is left for the comparison at the end.
const COMPARISON: f64 = 0.2;

pub fn run(arguments: &TuneArguments) -> Result<ExitCode, Failure> {
    let search = Search::new(arguments)?;
    // What cannot be written shows before anything takes long.
    let mut file = OutputFile::create(&arguments.out)?;
    let pool = arguments.threads.pool()?;
    let threads = pool.current_num_threads();
    let (knobs, measurements) = pool.install(|| enter(|| search.run()));
    Profile::default().install();
    let profile = ProfileFile {
        schema_version: SCHEMA_VERSION,
        program: env!("CARGO_PKG_VERSION").to_string(),
        machine: Machine::detect(),
        isa: search.isa.name().to_string(),
        threads,
        knobs,
        measurements,
    };
    file.write_all(profile.text().as_bytes())?;
    file.finish()?;
    print(&text(&profile, arguments))?;
    Ok(ExitCode::SUCCESS)
}

struct Search {
    isa: Isa,
    shapes: Shapes,
    began: Instant,
    budget: Duration,
    interrupted: &'static std::sync::atomic::AtomicBool,
}

impl Search {
    fn new(arguments: &TuneArguments) -> Result<Self, Failure> {
        Ok(Self {
            isa: arguments.isa.unwrap_or_else(Isa::best),
            shapes: Shapes::named(&arguments.shapes)?,
            began: Instant::now(),
            budget: arguments.budget,
            interrupted: first_signal(),
        })
    }

    /// Whether that part of the time has passed, or nobody wants to wait.
    fn is_past(&self, part: f64) -> bool {
        self.interrupted.load(Ordering::Relaxed)
            || self.began.elapsed() >= self.budget.mul_f64(part)
    }

    /// The part of the time until which the next of so many takes, if all until `end` take as long.
    fn until(&self, end: f64, left: usize) -> f64 {
        let now = self.began.elapsed().div_duration_f64(self.budget);
        now + (end - now) / left as f64
    }

    fn run(&self) -> (Profile, Measurements) {
        let mut random = fastrand::Rng::new();
        let (mut best, mut found) = (Profile::default(), Measurements::default());
        let bar = progress::bar("tuning", "knobs", Knob::ALL.len());
        for (done, knob) in Knob::ALL.into_iter().enumerate() {
            bar.set_message(knob.name());
            let end = self.until(1.0 - COMPARISON, Knob::ALL.len() - done);
            let weights = Weights::of_bytes(self.shapes.weight_bytes);
            let is_over = || self.is_past(end);
            let cases = self.shapes.of_knob(knob, self.isa, &weights);
            let finding = choose(knob, &mut best, &mut Ready::new(cases, &is_over), &mut random);
            found.knobs.push(finding);
            bar.inc(1);
        }
        drop(bar);
        if best != Profile::default() {
            found.cases = self.compare(&best, &mut random);
        }
        (best, found)
    }

    /// Holds the profile against the defaults.
    fn compare(&self, profile: &Profile, random: &mut fastrand::Rng) -> Vec<CaseFinding> {
        let weights = Weights::of_bytes(self.shapes.weight_bytes);
        let cases = self.shapes.all(self.isa, &weights);
        let bar = progress::bar("comparing", "cases", cases.len());
        let (count, mut found) = (cases.len(), Vec::new());
        for (done, case) in cases.into_iter().enumerate() {
            let end = self.until(1.0, count - done);
            let is_over = || self.is_past(end);
            let id = case.id().parse().expect("a case's name follows the grammar");
            found.extend(compare(id, profile, &mut Ready::new(vec![case], &is_over), random));
            bar.inc(1);
        }
        found
    }
}

fn text(profile: &ProfileFile, arguments: &TuneArguments) -> String {
    let Measurements { knobs, cases } = &profile.measurements;
    let header = ["knob", "default", "tuned", "gain", ""].map(String::from);
    let rows = [header].into_iter().chain(knobs.iter().map(knob_row));
    let mut text = table(&rows.collect::<Vec<_>>());
    if !cases.is_empty() {
        let header = ["case", "default", "tuned", "gain", ""].map(String::from);
        let rows = [header].into_iter().chain(cases.iter().map(case_row));
        text += "\n";
        text += &table(&rows.collect::<Vec<_>>());
    }
    let out = arguments.out.display();
    let _ = match profile.knobs.iter().count() {
        0 => {
            writeln!(text, "\nnothing was shown to be faster than the defaults: {out} changes none")
        }
        _ => writeln!(text, "\n{out} holds what is faster: --profile {out}{}", users_hint()),
    };
    text
}

fn users_hint() -> String {
    let path = users_file();
    path.map_or(String::new(), |path| format!(", or for all runs as {}", path.display()))
}

fn knob_row(finding: &KnobFinding) -> [String; 5] {
    let remark = match finding.verdict {
        Verdict::Faster => "",
        Verdict::NotFaster => "no other value was shown to be faster",
        Verdict::SlowerElsewhere => "another value is faster, but not for all cases",
        Verdict::NoTime => "no time",
        Verdict::Unused => "nothing depends on it here",
    };
    let taken = finding.verdict == Verdict::Faster;
    [
        finding.knob.clone(),
        finding.default.to_string(),
        if taken { finding.tuned.to_string() } else { "-".to_string() },
        finding.ratio.filter(|_| taken).map_or("-".to_string(), gain),
        remark.to_string(),
    ]
}

fn case_row(case: &CaseFinding) -> [String; 5] {
    let remark = if case.ratio.low > 1.0 { "slower" } else { "" };
    [
        case.id.to_string(),
        time(case.default_seconds),
        time(case.tuned_seconds),
        gain(case.ratio),
        remark.to_string(),
    ]
}

/// By how much more is done in the same time, with its interval.
fn gain(ratio: Estimate) -> String {
    let percent = |ratio: f64| signed(100.0 * (1.0 / ratio - 1.0), 1);
    format!("{} % ({} to {})", percent(ratio.mean), percent(ratio.high), percent(ratio.low))
}
