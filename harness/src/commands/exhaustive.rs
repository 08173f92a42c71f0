//! `lfm2 check --exhaustive`: functions of one number for every number.

use std::process::ExitCode;

use clap::Args;
use lfm2_harness::exhaustive::rope::{self, ENTRY_LIMIT, TABLES};
use lfm2_harness::exhaustive::{Failures, Outcome, Patterns, shown, sweep};
use lfm2_harness::machine::Machine;
use lfm2_kernels::Isa;
use serde::Serialize;

use super::output::{counted, print, print_json, table};
use super::{FAILED, Failure, progress};

#[derive(Args)]
pub struct ExhaustiveArguments {
    /// Check exp, sigmoid and silu for all 2^32 inputs, and the tables of rope to position 131072: minutes
    ///
    /// Every instruction set must give the bits of the scalar reference for every input, and these must be within limits derived from the
    /// algorithm.
    #[arg(
        long = "exhaustive",
        conflicts_with_all = ["op", "quick", "full", "cases", "seed", "repro", "list", "bless", "junit"]
    )]
    pub asked: bool,

    /// With --exhaustive: only every N-th bit pattern and every N-th position; N is odd
    #[arg(long, value_name = "N", default_value = "1", requires = "asked", value_parser = odd)]
    stride: u32,
}

/// More would leave ranges of inputs with none that tells something.
const LARGEST_STRIDE: u32 = 65_535;

fn odd(text: &str) -> Result<u32, String> {
    match text.parse() {
        // An even one would leave out every odd pattern.
        Ok(stride) if stride % 2 == 1 && stride <= LARGEST_STRIDE => Ok(stride),
        _ => Err(format!("expected an odd number from 1 to {LARGEST_STRIDE}")),
    }
}

pub fn run(
    arguments: &ExhaustiveArguments,
    isas: &[Isa],
    is_json: bool,
) -> Result<ExitCode, Failure> {
    let stride = arguments.stride;
    let patterns = Patterns::all(stride);
    let bar = progress::bar("inputs", "inputs", patterns.count() as usize);
    let others: Vec<Isa> = isas.iter().filter(|isa| isa.name() != "scalar").copied().collect();
    let outcomes = sweep(patterns, &others, &|count| bar.inc(count));
    drop(bar);
    let positions = rope::position_count(stride) * TABLES.len() as u64;
    let bar = progress::bar("tables", "positions", positions as usize);
    let tables = TABLES.map(|table| rope::sweep(table, stride, &|count| bar.inc(count)));
    drop(bar);

    let mut complaints: Vec<String> = outcomes.iter().flat_map(Outcome::complaints).collect();
    if stride == 1 {
        complaints.extend(outcomes.iter().filter_map(Outcome::digest_complaint));
    }
    complaints.extend(tables.iter().flat_map(rope::Outcome::complaints));
    let is_right = complaints.is_empty();
    if is_json {
        print_json(&Summary {
            commit: env!("LFM2_COMMIT"),
            is_dirty: env!("LFM2_IS_DIRTY") == "true",
            machine: Machine::detect(),
            is_right,
            isas: isas.iter().map(|isa| isa.name()).collect(),
            stride,
            inputs: patterns.count(),
            functions: outcomes.iter().map(FunctionRow::new).collect(),
            rope: tables.iter().map(TableRow::new).collect(),
            complaints: &complaints,
        })?;
    } else {
        print(&text(patterns, isas, &outcomes, &tables, &complaints))?;
    }
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn text(
    patterns: Patterns,
    isas: &[Isa],
    outcomes: &[Outcome],
    tables: &[rope::Outcome],
    complaints: &[String],
) -> String {
    let header = ["function", "inputs", "measured", "largest error", "limit", "unit", "at"];
    let mut rows = vec![header.map(String::from)];
    for Outcome { function, worst, .. } in outcomes {
        for (range, worst) in function.ranges.iter().zip(worst) {
            rows.push([
                function.name.into(),
                range.name.into(),
                worst.count.to_string(),
                format!("{:.4}", worst.error),
                format!("{:.4}", range.limit),
                range.unit.name().into(),
                shown(worst.input),
            ]);
        }
    }
    for rope::Outcome { table, entries, entry, angle, .. } in tables {
        let name = format!("theta {:e}, head_dim {}", table.theta, table.head_dim);
        let mut row = |what: &str, error: String, limit: String, unit: &str, place: rope::Place| {
            let at = format!("position {}, pair {}", place.position, place.pair);
            rows.push(["rope".into(), name.clone(), what.into(), error, limit, unit.into(), at]);
        };
        let limit = format!("{ENTRY_LIMIT:.8}");
        row(&entries.to_string(), format!("{:.8}", entry.0), limit, "ULP", entry.1);
        row("angles", format!("{:.4}", angle.0), "1".into(), "of bound", angle.1);
    }
    let names: Vec<&str> = isas.iter().map(|isa| isa.name()).collect();
    let mut text = table(&rows);
    if complaints.is_empty() {
        let inputs = counted(patterns.count() as usize, "input");
        text += &format!("\n{inputs}, all right and equal to the bit on {}\n", names.join(", "));
    }
    for complaint in complaints {
        text += &format!("\nFAILED {complaint}\n");
    }
    text
}

#[derive(Serialize)]
struct Summary<'a> {
    commit: &'static str,
    is_dirty: bool,
    machine: Machine,
    is_right: bool,
    isas: Vec<&'static str>,
    stride: u32,
    inputs: u64,
    functions: Vec<FunctionRow<'a>>,
    rope: Vec<TableRow>,
    complaints: &'a [String],
}

#[derive(Serialize)]
struct FunctionRow<'a> {
    name: &'static str,
    ranges: Vec<RangeRow>,
    wrong: &'a Failures,
    different: Vec<DifferentRow<'a>>,
}

#[derive(Serialize)]
struct RangeRow {
    inputs: &'static str,
    measured: u64,
    largest_error: f64,
    limit: f64,
    unit: &'static str,
    at: String,
}

/// Results of an instruction set that are not those of the scalar reference.
#[derive(Serialize)]
struct DifferentRow<'a> {
    isa: &'static str,
    #[serde(flatten)]
    failures: &'a Failures,
}

impl<'a> FunctionRow<'a> {
    fn new(outcome: &'a Outcome) -> Self {
        let ranges = outcome.function.ranges.iter().zip(&outcome.worst);
        Self {
            name: outcome.function.name,
            ranges: ranges
                .map(|(range, worst)| RangeRow {
                    inputs: range.name,
                    measured: worst.count,
                    largest_error: worst.error,
                    limit: range.limit,
                    unit: range.unit.name(),
                    at: shown(worst.input),
                })
                .collect(),
            wrong: &outcome.wrong,
            different: outcome
                .different
                .iter()
                .map(|(isa, failures)| DifferentRow { isa: isa.name(), failures })
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct TableRow {
    theta: f64,
    head_dim: usize,
    last_position: u32,
    entries: u64,
    largest_entry_error_ulp: f64,
    entry_limit_ulp: f64,
    largest_angle_error_over_bound: f64,
    largest_angle_error_radians: f64,
}

impl TableRow {
    fn new(outcome: &rope::Outcome) -> Self {
        Self {
            theta: outcome.table.theta,
            head_dim: outcome.table.head_dim,
            last_position: rope::LAST_POSITION,
            entries: outcome.entries,
            largest_entry_error_ulp: outcome.entry.0,
            entry_limit_ulp: ENTRY_LIMIT,
            largest_angle_error_over_bound: outcome.angle.0,
            largest_angle_error_radians: outcome.radians,
        }
    }
}
