//! `lfm2 check`: the operations against each other and against the oracle.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use lfm2_harness::case_line::CaseLine;
use lfm2_harness::cases::{OPS, Op};
use lfm2_harness::check::{
    DEFAULT_CASES, DEFAULT_SEED, Outcome, Report, case_count, check, hash_complaint, replay,
};
use lfm2_harness::compare::Errors;
use lfm2_harness::fill::Fill;
use lfm2_harness::gate::{Gate, Judges};
use lfm2_harness::hashes::{Change, Hashes, digest};
use lfm2_harness::machine::Machine;
use lfm2_harness::self_test::self_test;
use lfm2_harness::witness;
use lfm2_kernels::Isa;
use regex::Regex;
use serde::Serialize;

use super::output::{OutputFile, counted, print, print_json, table};
use super::settings::chosen_isas;
use super::{FAILED, Failure, progress};

/// Check every operation: equal bits on all instruction sets, and errors within the bounds of an f64 oracle
///
/// Each case runs on each instruction set, must give the bits of the scalar reference, and is compared with the oracle. The table
/// shows the worst error as a fraction of its bound: above 1 is wrong, and below 0.001 the bound proves nothing, which fails, too. So
/// does an operation most of whose cases are mistrusted: their results are zeros, or saturated. The shapes that are always checked
/// must give the hashes that this program was built with, whatever the CPU. Exit status: 0 all right, 1 a check failed, 2 the
/// question makes no sense.
#[derive(Args)]
pub struct CheckArguments {
    /// Only operations whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    op: Option<Regex>,

    /// Only these instruction sets, such as scalar,avx2 [default: all that this CPU has]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    isa: Vec<Isa>,

    /// Random cases for each operation, after the shapes that are always checked
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CASES)]
    cases: u32,

    /// What the random cases depend on: the same seed gives the same cases on every machine
    #[arg(long, value_name = "S", default_value_t = DEFAULT_SEED)]
    seed: u64,

    /// Print JSON instead of a table: what `lfm2 merge` compares
    #[arg(long)]
    json: bool,

    /// Run one case again: the line that a failure printed
    #[arg(long, value_name = "LINE", conflicts_with_all = ["op", "isa", "cases", "seed", "json"])]
    repro: Option<CaseLine>,

    /// List the operations with what is checked of each, and run nothing
    #[arg(long, conflicts_with_all = ["repro", "json"])]
    list: bool,

    /// Keep the hashes that were found, in fixtures/hashes.json of the source tree that this was built from, and print what changed
    #[arg(long, conflicts_with_all = ["repro", "list", "json"])]
    bless: bool,
}

/// Checks what was asked for; the exit status says whether all of it is right.
pub fn run(arguments: CheckArguments) -> Result<ExitCode, Failure> {
    let ops = chosen_ops(arguments.op.as_ref())?;
    let isas = chosen_isas(&arguments.isa);
    if arguments.list {
        print(&list(&ops, &isas, arguments.cases))?;
        return Ok(ExitCode::SUCCESS);
    }
    // A crash must name its case.
    if let Some(status) = witness::supervise(FAILED) {
        return Ok(status);
    }
    if let Some(line) = &arguments.repro {
        return run_again(line);
    }
    self_test(&Judges::OURS).map_err(|error| format!("the gate itself is broken: {error}"))?;
    let reports = check_all(&ops, &isas, arguments.cases, arguments.seed);
    let kept = Hashes::kept()?;
    if arguments.bless {
        return bless(&reports, kept);
    }
    let checks: Vec<Check> = reports.iter().map(|report| Check::new(report, &kept)).collect();
    let is_right = checks.iter().all(Check::is_right);
    if arguments.json {
        print_json(&Summary::new(&arguments, &isas, &checks))?;
    } else {
        print(&summary(&isas, &checks))?;
    }
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What came of an operation.
struct Check<'a> {
    report: &'a Report,
    /// Where its hashes are not those kept.
    changes: Vec<Change>,
}

impl<'a> Check<'a> {
    fn new(report: &'a Report, kept: &Hashes) -> Self {
        Self { report, changes: report.changes(&Gate::OURS, kept) }
    }

    fn is_right(&self) -> bool {
        let outcomes = &self.report.outcomes;
        !outcomes.is_empty() && outcomes.iter().all(|outcome| self.is_right_on(outcome))
    }

    /// Whether an instruction set is right: what is not the hash kept, is wrong on all.
    fn is_right_on(&self, outcome: &Outcome) -> bool {
        outcome.is_right() && self.changes.is_empty()
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.report.complaints();
        complaints.extend(hash_complaint(&self.report.op, &self.changes));
        complaints
    }
}

fn run_again(line: &CaseLine) -> Result<ExitCode, Failure> {
    match replay(&Gate::OURS, line) {
        Ok(errors) => {
            print(&format!("ok     {line}\n       error/bound {}\n", error_fraction(errors)))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            print(&format!("FAILED {}\n       {}\n", failure.case, failure.reason))?;
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// Operations and what is checked of each.
fn list(ops: &[&Op], isas: &[Isa], cases: u32) -> String {
    let names: Vec<&str> = isas.iter().map(|isa| isa.name()).collect();
    let mut rows =
        vec![["operation", "shape", "instruction sets", "cases", "checks"].map(String::from)];
    for op in ops {
        rows.push([
            op.name.into(),
            op.dimensions.join(","),
            names.join(","),
            case_count(op, cases).to_string(),
            "equal bits, threads, bound, hashes".into(),
        ]);
    }
    table(&rows)
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
    file.write((serde_json::to_string_pretty(&hashes)? + "\n").as_bytes())?;
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

fn check_all(ops: &[&Op], isas: &[Isa], cases: u32, seed: u64) -> Vec<Report> {
    let count: u64 = ops.iter().map(|op| case_count(op, cases)).sum();
    let bar = progress::bar("checking", "cases", count as usize);
    let check_one = |op: &&Op| {
        bar.set_message(op.name);
        check(&Gate::OURS, op, isas, cases, seed, &|| bar.inc(1))
    };
    ops.iter().map(check_one).collect()
}

/// Operations by instruction sets, then what is wrong.
fn summary(isas: &[Isa], checks: &[Check]) -> String {
    let mut text = format!("{:18} {:>11}", "operation", "error/bound");
    for isa in isas {
        text += &format!("  {isa:>14}");
    }
    text += "\n";
    for check in checks {
        let report = check.report;
        let worst =
            report.outcomes.iter().map(Outcome::errors).max_by(|a, b| a.worst.total_cmp(&b.worst));
        let worst = worst.map_or("-".to_string(), error_fraction);
        text += &format!("{:18} {worst:>11}", report.op.name);
        for outcome in &report.outcomes {
            let result = if check.is_right_on(outcome) { "ok" } else { "FAILED" };
            text += &format!("  {:>7} {result:6}", outcome.cases);
        }
        text.truncate(text.trim_end().len());
        text += "\n";
    }
    text + &remarks(&checks.iter().flat_map(Check::complaints).collect::<Vec<_>>())
}

fn remarks(complaints: &[String]) -> String {
    complaints.iter().map(|complaint| format!("\nFAILED {complaint}\n")).collect()
}

fn error_fraction(errors: Errors) -> String {
    match errors.bounded {
        0 => "-".to_string(),
        bounded if bounded == errors.exact => "exact".to_string(),
        _ => format!("{:.3}", errors.worst),
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    commit: &'static str,
    /// Whether the sources had changes that no commit holds when this was built.
    is_dirty: bool,
    machine: Machine,
    is_right: bool,
    seed: u64,
    random_cases: u32,
    isas: Vec<&'static str>,
    /// One for all cases of an operation.
    hashes: BTreeMap<&'static str, String>,
    /// Cases whose hashes are not those that this was built with.
    changed_hashes: Vec<String>,
    results: Vec<Row<'a>>,
}

/// One operation on one instruction set.
#[derive(Serialize)]
struct Row<'a> {
    op: &'static str,
    isa: &'static str,
    cases: usize,
    mistrusted_cases: usize,
    worst_error_over_bound: f64,
    worst_error_over_bound_by_fill: BTreeMap<&'static str, f64>,
    worst_case: Option<&'a str>,
    elements: usize,
    bounded_elements: usize,
    exact_elements: usize,
    is_vacuous: bool,
    result: &'static str,
    failed_case: Option<&'a str>,
    reason: Option<&'a str>,
}

impl<'a> Summary<'a> {
    fn new(arguments: &CheckArguments, isas: &[Isa], checks: &'a [Check<'a>]) -> Self {
        let changed = |check: &Check| {
            let name = check.report.op.name;
            check
                .changes
                .iter()
                .map(move |change| format!("{name}:{}", change.case))
                .collect::<Vec<_>>()
        };
        Self {
            commit: env!("LFM2_COMMIT"),
            is_dirty: env!("LFM2_IS_DIRTY") == "true",
            machine: Machine::detect(),
            is_right: checks.iter().all(Check::is_right),
            hashes: checks.iter().map(|c| (c.report.op.name, digest(&c.report.hashes))).collect(),
            changed_hashes: checks.iter().flat_map(changed).collect(),
            seed: arguments.seed,
            random_cases: arguments.cases,
            isas: isas.iter().map(|isa| isa.name()).collect(),
            results: checks.iter().flat_map(rows).collect(),
        }
    }
}

fn rows<'a>(check: &'a Check) -> impl Iterator<Item = Row<'a>> {
    let report = check.report;
    report.outcomes.iter().map(move |outcome| {
        let errors = outcome.errors();
        let by_fill = Fill::ALL.iter().zip(&outcome.errors_by_fill);
        let failure = outcome.failure.as_ref();
        Row {
            op: report.op.name,
            isa: outcome.isa.name(),
            cases: outcome.cases,
            mistrusted_cases: outcome.mistrusted,
            worst_error_over_bound: errors.worst,
            worst_error_over_bound_by_fill: by_fill
                .filter(|(_, errors)| errors.bounded > 0)
                .map(|(fill, errors)| (fill.name(), errors.worst))
                .collect(),
            worst_case: outcome.worst_case.as_deref(),
            elements: errors.elements,
            bounded_elements: errors.bounded,
            exact_elements: errors.exact,
            is_vacuous: outcome.is_vacuous(),
            result: if check.is_right_on(outcome) { "ok" } else { "failed" },
            failed_case: failure.map(|failure| &*failure.case),
            reason: failure.map(|failure| &*failure.reason).or(outcome.weakness.as_deref()),
        }
    })
}
