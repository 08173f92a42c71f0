//! What came of a check, as text and as JSON.

use std::collections::BTreeMap;

use lfm2_harness::check::{Outcome, Report, hash_complaint};
use lfm2_harness::compare::Errors;
use lfm2_harness::fill::Fill;
use lfm2_harness::gate::Gate;
use lfm2_harness::hashes::{Change, Hashes, digest};
use lfm2_harness::machine::Machine;
use lfm2_harness::plan::{Cases, Counts, Depth};
use lfm2_kernels::Isa;
use serde::Serialize;

/// What came of an operation.
pub struct Verdict<'a> {
    pub report: &'a Report,
    /// Where its hashes are not those kept.
    changes: Vec<Change>,
}

impl<'a> Verdict<'a> {
    pub fn new(report: &'a Report, kept: &Hashes) -> Self {
        Self { report, changes: report.changes(&Gate::OURS, kept) }
    }

    pub fn is_right(&self) -> bool {
        let outcomes = &self.report.outcomes;
        !outcomes.is_empty() && outcomes.iter().all(|outcome| self.is_right_on(outcome))
    }

    /// Whether an instruction set is right: what is not the hash kept, is wrong on all.
    pub fn is_right_on(&self, outcome: &Outcome) -> bool {
        outcome.is_right() && self.changes.is_empty()
    }

    /// Why an instruction set is not right.
    pub fn reason_on(&self, outcome: &Outcome) -> Option<String> {
        let failure = outcome.failure.as_ref().map(|failure| failure.reason.clone());
        let of_outcome = failure.or_else(|| outcome.weakness.clone());
        of_outcome.or_else(|| hash_complaint(&self.report.op, &self.changes))
    }

    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = self.report.complaints();
        complaints.extend(hash_complaint(&self.report.op, &self.changes));
        complaints
    }
}

/// What came of a run.
pub struct Results<'a> {
    pub verdicts: Vec<Verdict<'a>>,
    /// Operations whose hashes are kept, but that did not run, though no choice was made.
    pub missing: Vec<String>,
}

/// What is wrong with an operation that is missing.
pub const DID_NOT_RUN: &str = "hashes are kept of it, but it did not run";

impl<'a> Results<'a> {
    /// Holds the reports of all operations, or of those that were chosen, to the hashes kept.
    pub fn new(reports: &'a [Report], kept: &Hashes, are_all: bool) -> Self {
        let ran = |name: &str| reports.iter().any(|report| report.op.name == name);
        let missing = kept.operations.keys().filter(|name| are_all && !ran(name));
        Self {
            verdicts: reports.iter().map(|report| Verdict::new(report, kept)).collect(),
            missing: missing.cloned().collect(),
        }
    }

    pub fn is_right(&self) -> bool {
        self.missing.is_empty()
            && !self.verdicts.is_empty()
            && self.verdicts.iter().all(Verdict::is_right)
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<String> =
            self.verdicts.iter().flat_map(Verdict::complaints).collect();
        complaints.extend(self.missing.iter().map(|name| format!("{name}: {DID_NOT_RUN}")));
        complaints
    }
}

/// Operations by instruction sets, then what is wrong.
pub fn text(isas: &[Isa], results: &Results) -> String {
    let mut text = format!("{:18} {:>11}", "operation", "error/bound");
    for isa in isas {
        text += &format!("  {isa:>14}");
    }
    text += "\n";
    for verdict in &results.verdicts {
        let report = verdict.report;
        let worst =
            report.outcomes.iter().map(Outcome::errors).max_by(|a, b| a.worst.total_cmp(&b.worst));
        let worst = worst.map_or("-".to_string(), error_fraction);
        text += &format!("{:18} {worst:>11}", report.op.name);
        for outcome in &report.outcomes {
            let result = if verdict.is_right_on(outcome) { "ok" } else { "FAILED" };
            text += &format!("  {:>7} {result:6}", outcome.cases);
        }
        text.truncate(text.trim_end().len());
        text += "\n";
    }
    text + &remarks(&results.complaints())
}

/// What is wrong, a paragraph each.
pub fn remarks(complaints: &[String]) -> String {
    complaints.iter().map(|complaint| format!("\nFAILED {complaint}\n")).collect()
}

/// How near errors came to their bounds.
pub fn error_fraction(errors: Errors) -> String {
    match errors.bounded {
        0 => "-".to_string(),
        bounded if bounded == errors.exact => "exact".to_string(),
        _ => format!("{:.3}", errors.worst),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
pub struct Summary<'a> {
    commit: &'static str,
    /// Whether the sources had changes that no commit holds when this was built.
    is_dirty: bool,
    machine: Machine,
    is_right: bool,
    seed: u64,
    depth: Depth,
    random_cases: u32,
    isas: Vec<&'static str>,
    /// One for all cases of an operation.
    hashes: BTreeMap<&'static str, String>,
    /// Cases whose hashes are not those that this was built with.
    changed_hashes: Vec<String>,
    /// Operations whose hashes are kept, but that did not run, though no choice was made.
    missing_operations: &'a [String],
    results: Vec<Row<'a>>,
}

/// One operation on one instruction set.
#[derive(Serialize)]
struct Row<'a> {
    op: &'static str,
    isa: &'static str,
    cases: usize,
    /// By check: how many cases it judged, and had to.
    judged_cases: &'a Counts,
    planned_cases: &'a Counts,
    mistrusted_cases: usize,
    /// Of the first outputs.
    zeros: usize,
    of_elements: usize,
    saturated_rows: usize,
    of_rows: usize,
    worst_error_over_bound: f64,
    worst_error_over_bound_by_fill: BTreeMap<&'static str, f64>,
    worst_case: Option<&'a str>,
    elements: usize,
    bounded_elements: usize,
    exact_elements: usize,
    is_vacuous: bool,
    result: &'static str,
    failed_case: Option<&'a str>,
    reason: Option<String>,
}

impl<'a> Summary<'a> {
    pub fn new(seed: u64, cases: Cases, isas: &[Isa], results: &'a Results<'a>) -> Self {
        let changed = |verdict: &Verdict| -> Vec<String> {
            let name = verdict.report.op.name;
            verdict.changes.iter().map(|change| format!("{name}:{}", change.case)).collect()
        };
        let verdicts = &results.verdicts;
        let hash = |verdict: &Verdict| (verdict.report.op.name, digest(&verdict.report.hashes));
        Self {
            commit: env!("LFM2_COMMIT"),
            is_dirty: env!("LFM2_IS_DIRTY") == "true",
            machine: Machine::detect(),
            is_right: results.is_right(),
            hashes: verdicts.iter().map(hash).collect(),
            changed_hashes: verdicts.iter().flat_map(changed).collect(),
            missing_operations: &results.missing,
            seed,
            depth: cases.depth,
            random_cases: cases.random,
            isas: isas.iter().map(|isa| isa.name()).collect(),
            results: verdicts.iter().flat_map(rows).collect(),
        }
    }
}

fn rows<'a>(verdict: &'a Verdict) -> impl Iterator<Item = Row<'a>> {
    let report = verdict.report;
    report.outcomes.iter().map(move |outcome| {
        let errors = outcome.errors();
        let by_fill = Fill::ALL.iter().zip(&outcome.errors_by_fill);
        let failure = outcome.failure.as_ref();
        Row {
            op: report.op.name,
            isa: outcome.isa.name(),
            cases: outcome.cases,
            judged_cases: &outcome.judged,
            planned_cases: &outcome.planned,
            mistrusted_cases: outcome.mistrusted,
            zeros: outcome.triviality.zeros,
            of_elements: outcome.triviality.elements,
            saturated_rows: outcome.triviality.saturated,
            of_rows: outcome.triviality.rows,
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
            result: if verdict.is_right_on(outcome) { "ok" } else { "failed" },
            failed_case: failure.map(|failure| &*failure.case),
            reason: verdict.reason_on(outcome),
        }
    })
}
