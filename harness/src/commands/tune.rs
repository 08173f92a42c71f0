//! `lfm2 tune`: which values of the kernels' knobs are fastest on this machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lfm2_harness::ceiling::Memory;
use lfm2_harness::machine::Machine;
use lfm2_harness::profile::{ProfileFile, SCHEMA_VERSION, commit};
use lfm2_harness::tune::cases::{Ready, SLOT, Shapes, Tuned, values};
use lfm2_harness::tune::search::Search;
use lfm2_harness::tune::settle::{Settled, Settling, Undone};
use lfm2_harness::tune::{CaseFinding, KnobFinding, Measurements, Start, Stopwatch, Verdict};
use lfm2_harness::workload::Weights;
use lfm2_kernels::Isa;
use lfm2_kernels::threads::enter;
use lfm2_kernels::tuning::{Knob, Profile};

use super::checkpoint::locate;
use super::output::{OutputFile, first_signal, print};
use super::settings::Threads;
use super::time::duration;
use super::{Failure, progress};

mod text;

const EXAMPLES: &str = "\
Examples:
  lfm2 tune --out profile.json
  lfm2 tune --budget 20m --shapes 1.2b --out profile.json
  lfm2 tune --shapes 350m.gguf --out profile.json
  lfm2 check --profile profile.json               the same hashes under it
  lfm2 generate --profile profile.json --preset 350m --tokens 1,2,3

Ctrl-C ends the search and writes what it has found; a second one ends it without.";

/// Finds what runs fastest on this CPU, and writes a profile of it
///
/// Work can be cut, and weights be asked for, in many ways that give the same bits. Each such knob is tried with several values, which take turns with
/// the best so far; one that is shown to be faster, twice, is taken. The last third of the time is for the whole profile and the
/// defaults, which take turns with every case: a knob that makes a case slower is undone.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TuneArguments {
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    budget: Duration,
    /// Of which model layers are timed: a preset, or a GGUF file, a Hugging Face folder or a config.json; `tiny` only shows that the command works
    #[arg(long, value_name = "PRESET|PATH", default_value = "350m")]
    shapes: String,
    /// From which values to begin, and with which to compare
    #[arg(long, value_name = "DEFAULTS", default_value = "built-in")]
    from: Start,
    /// The instruction set [default: this CPU's best]
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    #[command(flatten)]
    threads: Threads,
    /// Where the profile goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// The part of the time after which the search ends.
const SEARCHED: f64 = 0.65;

/// The part after which all cases were compared once. The rest is for what has to be undone.
const COMPARED: f64 = 0.85;

pub fn run(arguments: &TuneArguments) -> Result<ExitCode, Failure> {
    let tuning = Tuning::new(arguments)?;
    // What cannot be written shows before anything takes long.
    let mut file = OutputFile::create(&arguments.out)?;
    let pool = arguments.threads.pool()?;
    let threads = pool.current_num_threads();
    let (knobs, measurements) = pool.install(|| enter(|| tuning.run()));
    Profile::default().install();
    let profile = ProfileFile {
        schema_version: SCHEMA_VERSION,
        program: env!("CARGO_PKG_VERSION").to_string(),
        commit: commit(),
        machine: Machine::detect(),
        isa: tuning.isa.name().to_string(),
        threads,
        shapes: arguments.shapes.clone(),
        knobs,
        measurements,
    };
    file.write_all(profile.text().as_bytes())?;
    file.finish()?;
    print(&text::of(&profile, &arguments.out))?;
    Ok(ExitCode::SUCCESS)
}

struct Tuning {
    isa: Isa,
    shapes: Shapes,
    from: Start,
    began: Instant,
    budget: Duration,
    interrupted: &'static AtomicBool,
}

impl Tuning {
    fn new(arguments: &TuneArguments) -> Result<Self, Failure> {
        Ok(Self {
            isa: arguments.isa.unwrap_or_else(Isa::best),
            shapes: Shapes::of(&arguments.shapes)
                .map_err(|error| locate(error, Path::new(&arguments.shapes)))?,
            from: arguments.from,
            began: Instant::now(),
            budget: arguments.budget,
            interrupted: first_signal(),
        })
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// What part of the time has passed; all of it, if nobody wants to wait.
    fn now(&self) -> f64 {
        let passed = self.began.elapsed().div_duration_f64(self.budget);
        if self.is_interrupted() { passed.max(1.0) } else { passed }
    }

    fn run(&self) -> (Profile, Measurements) {
        let start = self.from.profile();
        let weights = Weights::of_bytes(self.shapes.weight_bytes());
        let cases = self.shapes.cases(self.isa, &weights);
        let (now, is_interrupted) = (|| self.now(), || self.is_interrupted());
        let mut ready = Ready::new(&cases, Memory::new(), &now, &is_interrupted);
        let bar = progress::bar("preparing", "cases", cases.len());
        for case in 0..cases.len() {
            if self.now() < SEARCHED {
                ready.prepare(&start, case);
            }
            bar.inc(1);
        }
        drop(bar);
        let mut random = fastrand::Rng::new();
        let (mut best, mut knobs) = self.search(&start, &cases, &mut ready, &mut random);
        ready.keep([&start, &best]);
        let taken = |finding: &KnobFinding| finding.verdict == Verdict::Faster;
        let knob_of = |(knob, finding)| taken(finding).then_some(knob);
        let taken: Vec<_> = Knob::ALL.into_iter().zip(&knobs).filter_map(knob_of).collect();
        let bar =
            progress::bar("comparing", "cases", if taken.is_empty() { 0 } else { cases.len() });
        let mut settling = Settling {
            watch: &mut ready,
            random: &mut random,
            start: &start,
            concerns: &|knob, case: usize| cases[case].depends_on(knob),
            progress: &|| {
                // Some are compared again.
                if bar.length() == Some(bar.position()) {
                    bar.inc_length(1);
                }
                bar.inc(1);
            },
        };
        let Settled { cases: compared, undone } =
            settling.settle(&mut best, taken, cases.len(), COMPARED);
        let finding = |(case, compared): (usize, _)| {
            let id = cases[case].case.id().parse().expect("a case's name follows the grammar");
            CaseFinding { id, compared }
        };
        for Undone { knob, verdict, slower } in undone {
            let found = &mut knobs[knob as usize];
            (found.verdict, found.tuned, found.slower) =
                (verdict, found.default, slower.map(finding));
        }
        let known = |(case, compared): (usize, Option<_>)| Some(finding((case, compared?)));
        let cases = compared.into_iter().enumerate().filter_map(known).collect();
        (best, Measurements { from: self.from, knobs, cases })
    }

    /// Goes through the knobs.
    fn search(
        &self,
        start: &Profile,
        cases: &[Tuned],
        ready: &mut Ready,
        random: &mut fastrand::Rng,
    ) -> (Profile, Vec<KnobFinding>) {
        let threads = rayon::current_num_threads();
        let judges = |knob| {
            let judges = |case: &usize| cases[*case].judges(knob);
            (0..cases.len()).filter(judges).collect::<Vec<_>>()
        };
        let mut left: Vec<_> =
            Knob::ALL.map(|knob| (knob, values(knob, threads), judges(knob))).into();
        // Each has as much of the time as it takes to try all of its values with all of its cases.
        let effort = |(_, values, judging): &(Knob, Vec<usize>, Vec<usize>)| {
            let seconds = |case: &usize| cases[*case].case.guess().max(SLOT.as_secs_f64());
            (values.len() + 1) as f64 * judging.iter().map(seconds).sum::<f64>()
        };
        let (mut best, mut found) = (start.clone(), Vec::new());
        let bar = progress::bar("tuning", "knobs", left.len());
        while !left.is_empty() {
            let all: f64 = left.iter().map(effort).sum();
            let next = left.remove(0);
            let now = ready.now();
            let until = now + (SEARCHED - now) * effort(&next) / all.max(f64::MIN_POSITIVE);
            let (knob, values, cases) = next;
            bar.set_message(knob.name());
            let mut search = Search { watch: ready, random };
            found.push(search.choose(knob, &values, &cases, &mut best, until));
            ready.keep([start, &best]);
            bar.inc(1);
        }
        (best, found)
    }
}
