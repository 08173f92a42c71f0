//! `lfm2 check`: the operations against each other and against the oracle.

use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::Args;
use lfm2_harness::case_line::CaseLine;
use lfm2_harness::cases::{OPS, Op};
use lfm2_harness::check::{DEFAULT_SEED, Report, check, replay};
use lfm2_harness::gate::{Gate, Judges};
use lfm2_harness::hashes::{Change, Hashes};
use lfm2_harness::plan::{Cases, Depth, case_count};
use lfm2_harness::self_test::self_test;
use lfm2_harness::witness;
use lfm2_kernels::Isa;
use regex::Regex;

use self::matrix::Matrix;
pub use self::summary::{Results, text};
use self::summary::{Summary, error_fraction, remarks};
use super::exhaustive::{self, ExhaustiveArguments};
use super::output::{OutputFile, counted, print, print_json};
use super::profile::ProfileArguments;
use super::settings::chosen_isas;
use super::{FAILED, Failure, progress};

mod junit;
mod matrix;
mod random_profiles;
mod summary;

const EXIT_STATUS: &str = "\
Exit status:
  0  every check of every operation ran, and was right
  1  a check failed, proved nothing, did not run, or crashed
  2  the question makes no sense: an instruction set that this CPU lacks, an operation that there is not, a file that cannot be written";

/// Check every operation: equal bits on all instruction sets, and errors within the bounds of an f64 oracle
///
/// Each case runs on each instruction set, must give the bits of the scalar reference, and is compared with the oracle. The table
/// shows the worst error as a fraction of its bound: above 1 is wrong, and below 0.001 the bound proves nothing, which fails, too. So
/// does an operation most of whose cases are mistrusted: their results are zeros, or saturated. The shapes that are always checked
/// must give the hashes that this program was built with, whatever the CPU, and they run again where a byte read or written beside a
/// slice, or written to an input, ends the program, which then names the case.
#[derive(Args)]
#[command(after_help = EXIT_STATUS)]
pub struct CheckArguments {
    /// Only operations whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    op: Option<Regex>,

    /// Only these instruction sets, such as scalar,avx2 [default: all that this CPU has]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    isa: Vec<Isa>,

    /// Each fixed shape with two kinds of data, and 64 random cases of each operation: less than a minute; the default
    #[arg(long, conflicts_with = "full")]
    quick: bool,

    /// Each fixed shape with every kind of data on 1 to 4 threads, and 2048 random cases of each operation: minutes
    #[arg(long)]
    full: bool,

    /// Another number of random cases for each operation
    #[arg(long, value_name = "N")]
    cases: Option<u32>,

    /// What the random cases depend on: the same seed gives the same cases on every machine
    #[arg(long, value_name = "S", default_value_t = DEFAULT_SEED)]
    seed: u64,

    /// Print JSON instead of a table: what `lfm2 merge` compares
    #[arg(long)]
    json: bool,

    /// Write JUnit XML as well, which CI servers show: a suite for each instruction set, a test for each operation
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Run one case again: the line that a failure printed
    #[arg(long, value_name = "LINE", conflicts_with_all = ["op", "isa", "quick", "full", "cases", "seed", "json", "junit"])]
    repro: Option<CaseLine>,

    /// List the checks of each operation in each format, with the least number of cases that each must judge, and run nothing
    #[arg(long, conflicts_with_all = ["repro", "junit"])]
    list: bool,

    /// Keep the hashes that were found, in fixtures/hashes.json of the source tree that this was built from, and print what changed
    #[arg(long, conflicts_with_all = ["repro", "list", "json", "junit"])]
    bless: bool,

    #[command(flatten)]
    profile: ProfileArguments,

    /// Only give the fixed shapes their hashes, under so many random profiles one after another: no profile may change a bit
    #[arg(long, value_name = "N", conflicts_with_all = ["quick", "full", "cases", "repro", "list", "bless", "junit", "json", "asked", "profile"], value_parser = clap::value_parser!(u32).range(1..))]
    random_profiles: Option<u32>,

    #[command(flatten)]
    exhaustive: ExhaustiveArguments,
}

impl CheckArguments {
    fn cases(&self) -> Cases {
        let depth = if self.full { Depth::Full } else { Depth::Quick };
        Cases { depth, random: self.cases.unwrap_or_else(|| depth.random_cases()) }
    }
}

/// Checks what was asked for; the exit status says whether all of it is right.
pub fn run(arguments: CheckArguments) -> Result<ExitCode, Failure> {
    let ops = chosen_ops(arguments.op.as_ref())?;
    let isas = chosen_isas(&arguments.isa);
    let cases = arguments.cases();
    if arguments.exhaustive.asked {
        arguments.profile.install()?;
        return exhaustive::run(&arguments.exhaustive, &isas, arguments.json);
    }
    if arguments.list {
        let matrix = Matrix::new(&ops, &isas, cases);
        match arguments.json {
            true => print_json(&matrix)?,
            false => print(&matrix.text())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    // A crash must name its case.
    if let Some(status) = witness::supervise(FAILED) {
        return Ok(status);
    }
    if let Some(count) = arguments.random_profiles {
        return random_profiles::run(&ops, &isas, count, arguments.seed);
    }
    arguments.profile.install()?;
    if let Some(line) = &arguments.repro {
        return run_again(line);
    }
    self_test(&Judges::OURS).map_err(|error| format!("the gate itself is broken: {error}"))?;
    if let Some(path) = &arguments.junit {
        junit::begin(path)?;
    }
    let reports = check_all(&ops, &isas, cases, arguments.seed);
    let kept = Hashes::kept()?;
    if arguments.bless {
        return bless(&reports, kept);
    }
    let results = Results::new(&reports, &kept, arguments.op.is_none());
    if let Some(path) = &arguments.junit {
        junit::finish(path, &isas, &results)?;
    }
    if arguments.json {
        print_json(&Summary::new(arguments.seed, cases, &isas, &results))?;
    } else {
        print(&text(&isas, &results))?;
    }
    Ok(if results.is_right() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn run_again(line: &CaseLine) -> Result<ExitCode, Failure> {
    match replay(&Gate::OURS, line) {
        Ok((errors, triviality)) => {
            let worst = error_fraction(errors);
            print(&format!("ok     {line}\n       error/bound {worst}, {triviality}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            print(&format!("FAILED {}\n       {}\n", failure.case, failure.reason))?;
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// Keeps the hashes, if all that was checked is right.
fn bless(reports: &[Report], kept: Hashes) -> Result<ExitCode, Failure> {
    let complaints: Vec<String> = reports.iter().flat_map(Report::complaints).collect();
    if !complaints.is_empty() {
        print(&(remarks(&complaints) + "\nnothing is kept\n"))?;
        return Ok(ExitCode::from(FAILED));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/hashes.json");
    let mut hashes = kept.clone();
    hashes.operations.retain(|name, _| OPS.iter().any(|op| op.name == name));
    let mut count = 0;
    for report in reports {
        for Change { case, kept, found } in kept.changes(report.op.name, &report.hashes) {
            let shown = |hash: Option<String>| hash.unwrap_or_else(|| "none".into());
            print(&format!("{}:{case}: {} -> {}\n", report.op.name, shown(kept), shown(found)))?;
            count += 1;
        }
        hashes.operations.insert(report.op.name.into(), report.hashes.clone());
    }
    let mut file = OutputFile::create(&path)?;
    file.write_all((serde_json::to_string_pretty(&hashes)? + "\n").as_bytes())?;
    file.finish()?;
    print(&format!("{} changed in fixtures/hashes.json\n", counted(count, "case")))?;
    Ok(ExitCode::SUCCESS)
}

fn chosen_ops(pattern: Option<&Regex>) -> Result<Vec<&'static Op>, String> {
    let is_chosen = |op: &&Op| pattern.is_none_or(|pattern| pattern.is_match(op.name));
    let ops: Vec<&Op> = OPS.iter().filter(is_chosen).collect();
    if ops.is_empty() {
        let names: Vec<&str> = OPS.iter().map(|op| op.name).collect();
        let pattern = pattern.map_or("", Regex::as_str);
        return Err(format!("no operation matches {pattern:?}: there are {}", names.join(", ")));
    }
    Ok(ops)
}

/// Checks operations on all cores, with a bar.
pub fn check_all(ops: &[&Op], isas: &[Isa], cases: Cases, seed: u64) -> Vec<Report> {
    let count: u64 = ops.iter().map(|op| case_count(op, cases)).sum();
    let bar = progress::bar("checking", "cases", count as usize);
    on_all_cores(ops, |op| {
        bar.set_message(op.name);
        check(&Gate::OURS, op, isas, cases, seed, &|| bar.inc(1))
    })
}

/// What `work` makes of each operation, on all cores.
fn on_all_cores<R: Send>(ops: &[&Op], work: impl Fn(&Op) -> R + Sync) -> Vec<R> {
    // The last is whole models, which take longest. Threads of their own: one that waits for a pool would begin another operation.
    let next = Mutex::new((0..ops.len()).rev());
    let work = || {
        let mut results = Vec::new();
        loop {
            let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(i) = taken else { return results };
            results.push((i, work(ops[i])));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join().expect("no check panics"));
        results.flatten().collect()
    });
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}
