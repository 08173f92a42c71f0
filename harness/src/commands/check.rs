//! `lfm2 check`: the operations against each other and against the oracle.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use lfm2_harness::cases::{OPS, Op};
use lfm2_harness::check::{DEFAULT_CASES, DEFAULT_SEED, Outcome, Report, case_count, check};
use lfm2_harness::compare::Errors;
use lfm2_harness::fill::Fill;
use lfm2_kernels::Isa;
use regex::Regex;
use serde::Serialize;

use super::output::{print, print_json};
use super::settings::chosen_isas;
use super::{FAILED, Failure, progress};

/// Check every operation: equal bits on all instruction sets, and errors within the bounds of an f64 oracle
///
/// Each case runs on each instruction set, must give the bits of the scalar reference, and is compared with the oracle. The table
/// shows the worst error as a fraction of its bound: above 1 is wrong, and below 0.001 the bound proves nothing. Exit status: 0 all
/// right, 1 a check failed, 2 the question makes no sense.
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

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Checks what was asked for; the exit status says whether all of it is right.
pub fn run(arguments: CheckArguments) -> Result<ExitCode, Failure> {
    let ops = chosen_ops(arguments.op.as_ref())?;
    let isas = chosen_isas(&arguments.isa);
    let reports = check_all(&ops, &isas, arguments.cases, arguments.seed);
    if arguments.json {
        print_json(&Summary::new(&arguments, &isas, &reports))?;
    } else {
        print(&table(&isas, &reports))?;
    }
    let is_right = reports.iter().flat_map(|report| &report.outcomes).all(|o| o.failure.is_none());
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
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
        check(op, isas, cases, seed, &|| bar.inc(1))
    };
    ops.iter().map(check_one).collect()
}

/// Operations by instruction sets, then what is wrong.
fn table(isas: &[Isa], reports: &[Report]) -> String {
    let mut text = format!("{:18} {:>11}", "operation", "error/bound");
    for isa in isas {
        text += &format!("  {isa:>14}");
    }
    text += "\n";
    let mut remarks = String::new();
    for report in reports {
        let worst =
            report.outcomes.iter().map(Outcome::errors).max_by(|a, b| a.worst.total_cmp(&b.worst));
        let worst = worst.map_or("-".to_string(), error_fraction);
        text += &format!("{:18} {worst:>11}", report.op.name);
        for outcome in &report.outcomes {
            let result = if outcome.failure.is_some() { "FAILED" } else { "ok" };
            text += &format!("  {:>7} {result:6}", outcome.cases);
            if let Some(failure) = &outcome.failure {
                remarks += &format!("\nFAILED {}\n       {}\n", failure.case, failure.reason);
            }
        }
        text.truncate(text.trim_end().len());
        text += "\n";
        if report.outcomes.iter().any(Outcome::is_vacuous) {
            let name = report.op.name;
            remarks += &format!("\n{name}: no error came near its bound, which proves nothing\n");
        }
    }
    text + &remarks
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
    seed: u64,
    random_cases: u32,
    isas: Vec<&'static str>,
    results: Vec<Row<'a>>,
}

/// One operation on one instruction set.
#[derive(Serialize)]
struct Row<'a> {
    op: &'static str,
    isa: &'static str,
    cases: usize,
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
    fn new(arguments: &CheckArguments, isas: &[Isa], reports: &'a [Report]) -> Self {
        Self {
            seed: arguments.seed,
            random_cases: arguments.cases,
            isas: isas.iter().map(|isa| isa.name()).collect(),
            results: reports.iter().flat_map(rows).collect(),
        }
    }
}

fn rows(report: &Report) -> impl Iterator<Item = Row<'_>> {
    report.outcomes.iter().map(|outcome| {
        let errors = outcome.errors();
        let by_fill = Fill::ALL.iter().zip(&outcome.errors_by_fill);
        let failure = outcome.failure.as_ref();
        Row {
            op: report.op.name,
            isa: outcome.isa.name(),
            cases: outcome.cases,
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
            result: if failure.is_some() { "failed" } else { "ok" },
            failed_case: failure.map(|failure| &*failure.case),
            reason: failure.map(|failure| &*failure.reason),
        }
    })
}
