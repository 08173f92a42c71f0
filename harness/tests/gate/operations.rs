//! Every operation on every instruction set: equal bits, and errors within the bounds of the oracle.

use std::sync::Arc;

use lfm2_harness::cases::{OPS, Op};
use lfm2_harness::check::{
    DEFAULT_CASES, DEFAULT_SEED, cases_from_environment, check, hash_complaint,
};
use lfm2_harness::coverage::Coverage;
use lfm2_harness::gate::Gate;
use lfm2_harness::hashes::Hashes;
use lfm2_kernels::Isa;
use libtest_mimic::{Failed, Trial};

/// One trial for each operation. The largest, whole models, are the last of the list and run first, so that no thread waits for them
/// when all else is done.
pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    let trial = |op: &'static Op| {
        coverage.announce(op.name);
        let coverage = Arc::clone(coverage);
        Trial::test(format!("operations::{}", op.name), move || holds(op, &coverage))
    };
    OPS.iter().rev().map(trial).collect()
}

fn holds(op: &Op, coverage: &Coverage) -> Result<(), Failed> {
    let cases = cases_from_environment()?.unwrap_or(DEFAULT_CASES);
    let report = check(&Gate::OURS, op, &Isa::available(), cases, DEFAULT_SEED, &|| ());
    for outcome in &report.outcomes {
        coverage.record(op.name, outcome.isa, outcome.cases);
    }
    let mut failures = report.complaints();
    failures.extend(hash_complaint(op, &report.changes(&Gate::OURS, &Hashes::kept()?)));
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}
