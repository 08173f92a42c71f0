//! Every operation on every instruction set: equal bits, and errors within the bounds of the oracle.

use std::sync::Arc;

use lfm2_harness::cases::{OPS, Op};
use lfm2_harness::check::{DEFAULT_CASES, DEFAULT_SEED, cases_from_environment, check};
use lfm2_harness::coverage::Coverage;
use lfm2_harness::hashes::{Change, Hashes};
use lfm2_kernels::Isa;
use libtest_mimic::{Failed, Trial};

/// One trial for each operation.
pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    let trial = |op: &'static Op| {
        coverage.announce(op.name);
        let coverage = Arc::clone(coverage);
        Trial::test(format!("operations::{}", op.name), move || holds(op, &coverage))
    };
    OPS.iter().map(trial).collect()
}

fn holds(op: &Op, coverage: &Coverage) -> Result<(), Failed> {
    let cases = cases_from_environment()?.unwrap_or(DEFAULT_CASES);
    let report = check(op, &Isa::available(), cases, DEFAULT_SEED, &|| ());
    let mut failures = Vec::new();
    for outcome in report.outcomes {
        coverage.record(op.name, outcome.isa, outcome.cases);
        failures.extend(outcome.failure.map(|failure| {
            format!("lfm2 check --repro '{}'\n    {}", failure.case, failure.reason)
        }));
    }
    for Change { case, kept, found } in Hashes::kept()?.changes(op.name, &report.hashes) {
        failures.push(format!("hash of {case}: {found:?} instead of {kept:?}"));
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}
