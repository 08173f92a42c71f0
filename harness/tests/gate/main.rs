//! The gate: is every kernel right, on every instruction set, and did it run at all.
//!
//! `EXPECT_ISAS=scalar,avx2,avx512` names the instruction sets that must have run; `LFM2_CASES=N` says how many random cases each
//! operation takes.

use std::env::{self, VarError};
use std::process::ExitCode;
use std::sync::Arc;

use lfm2_harness::coverage::{Coverage, expected_isas};
use lfm2_harness::gate::Judges;
use lfm2_harness::self_test::self_test;
use lfm2_harness::witness;
use lfm2_kernels::Isa;
use libtest_mimic::{Arguments, Failed, Trial};

mod formats;
mod goldens;
mod operations;
mod unary;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // A crash must name its case.
    if let Some(status) = witness::supervise(101) {
        return status;
    }
    let coverage = Arc::new(Coverage::new());
    let mut trials = vec![
        Trial::test("coverage::expected_isas_are_available", available),
        Trial::test("self_test", || Ok(self_test(&Judges::OURS)?)),
    ];
    trials.extend(operations::trials(&coverage));
    trials.extend(goldens::trials(&coverage));
    trials.extend(formats::trials());
    trials.extend(unary::trials(&coverage));

    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    let is_partial = arguments.filter.is_some() || !arguments.skip.is_empty() || arguments.ignored;
    let is_covered = if is_partial {
        println!("not all tests were asked for: coverage is not checked\n");
        true
    } else {
        println!("{}\n", coverage.table());
        is_covered(&coverage)
    };
    if conclusion.has_failed() || !is_covered { ExitCode::from(101) } else { ExitCode::SUCCESS }
}

/// Whether every suite ran on every instruction set that was expected to.
fn is_covered(coverage: &Coverage) -> bool {
    match expected().and_then(|expected| coverage.missing(&expected)) {
        Ok(missing) if missing.is_empty() => true,
        Ok(missing) => {
            eprintln!("EXPECT_ISAS is not covered:\n    {}\n", missing.join("\n    "));
            false
        }
        Err(error) => {
            eprintln!("EXPECT_ISAS: {error}\n");
            false
        }
    }
}

/// A test of its own, so that runs that take only some tests cannot pass on a machine that lacks what was expected.
fn available() -> Result<(), Failed> {
    let expected = expected()?;
    for name in expected_isas(&expected)? {
        name.parse::<Isa>()?;
    }
    Ok(())
}

/// What `EXPECT_ISAS` says; nothing is expected if it is not set.
fn expected() -> Result<String, String> {
    match env::var("EXPECT_ISAS") {
        Ok(expected) => Ok(expected),
        Err(VarError::NotPresent) => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    }
}
