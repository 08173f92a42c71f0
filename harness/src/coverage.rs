//! What a run did cover: nothing is skipped in silence.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use lfm2_kernels::Isa;
use lfm2_kernels::simd::ISA_NAMES;

/// Counts the cases that each suite of tests ran on each instruction set.
#[derive(Default)]
pub struct Coverage {
    suites: Mutex<BTreeMap<String, BTreeMap<&'static str, usize>>>,
}

impl Coverage {
    /// Nothing covered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces a suite: from now on it is missing until it has run.
    pub fn announce(&self, suite: &str) {
        self.with_suite(suite, |_| ());
    }

    /// Adds `cases` that `suite` ran on `isa`.
    pub fn record(&self, suite: &str, isa: Isa, cases: usize) {
        self.with_suite(suite, |counts| *counts.entry(isa.name()).or_default() += cases);
    }

    fn with_suite(&self, suite: &str, change: impl FnOnce(&mut BTreeMap<&'static str, usize>)) {
        let mut suites = self.suites.lock().unwrap_or_else(PoisonError::into_inner);
        change(suites.entry(suite.to_string()).or_default());
    }

    /// Suites by instruction sets, and the cases that ran.
    pub fn table(&self) -> String {
        let suites = self.suites.lock().unwrap_or_else(PoisonError::into_inner);
        let ran = |isa: &&str| suites.values().any(|counts| counts.contains_key(isa));
        let isas: Vec<&str> = ISA_NAMES.into_iter().filter(ran).collect();
        let width = suites.keys().map(String::len).max().unwrap_or(0).max("cases".len());
        let mut table = format!("{:width$}", "cases");
        for isa in &isas {
            write!(table, "{isa:>10}").expect("a string takes any text");
        }
        for (suite, counts) in suites.iter() {
            write!(table, "\n{suite:width$}").expect("a string takes any text");
            for isa in &isas {
                let count = counts.get(isa).map_or("-".to_string(), usize::to_string);
                write!(table, "{count:>10}").expect("a string takes any text");
            }
        }
        table
    }

    /// Which of the instruction sets in `expected`, such as `scalar,avx2`, some suite did not run on, one line each.
    ///
    /// # Errors
    ///
    /// If `expected` names something that is no instruction set.
    pub fn missing(&self, expected: &str) -> Result<Vec<String>, String> {
        let expected = expected_isas(expected)?;
        let suites = self.suites.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        for isa in expected {
            if suites.is_empty() {
                missing.push(format!("{isa}: nothing ran"));
            }
            for (suite, counts) in suites.iter() {
                if counts.get(isa).is_none_or(|&count| count == 0) {
                    missing.push(format!("{isa}: {suite} did not run"));
                }
            }
        }
        Ok(missing)
    }
}

/// The instruction sets in a list such as `scalar,avx2`.
///
/// # Errors
///
/// If it names something that is no instruction set.
pub fn expected_isas(list: &str) -> Result<Vec<&str>, String> {
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    match names.iter().find(|name| !ISA_NAMES.contains(name)) {
        Some(name) => Err(format!(
            "unknown instruction set {name:?} among those expected: valid are {}",
            ISA_NAMES.join(", ")
        )),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar() -> Isa {
        "scalar".parse().expect("every machine has it")
    }

    #[test]
    fn what_ran_is_not_missing() {
        let coverage = Coverage::new();
        coverage.record("add", scalar(), 3);
        coverage.record("add", scalar(), 4);
        coverage.record("rope", scalar(), 1);
        assert_eq!(coverage.missing("scalar"), Ok(vec![]));
        assert_eq!(coverage.missing(" scalar, "), Ok(vec![]));
        assert_eq!(coverage.missing(""), Ok(vec![]));
        assert_eq!(coverage.table(), "cases    scalar\nadd           7\nrope          1");
    }

    #[test]
    fn an_isa_that_did_not_run_everywhere_is_missing() {
        let coverage = Coverage::new();
        assert_eq!(coverage.missing("scalar"), Ok(vec!["scalar: nothing ran".to_string()]));
        coverage.record("add", scalar(), 3);
        assert_eq!(coverage.missing("avx512"), Ok(vec!["avx512: add did not run".to_string()]));
        coverage.record("rope", scalar(), 0);
        assert_eq!(coverage.missing("scalar"), Ok(vec!["scalar: rope did not run".to_string()]));
        coverage.record("rope", scalar(), 1);
        coverage.announce("softmax");
        assert_eq!(coverage.missing("scalar"), Ok(vec!["scalar: softmax did not run".to_string()]));
    }

    #[test]
    fn an_unknown_isa_is_an_error_that_names_the_valid_ones() {
        let error = Coverage::new().missing("scalar,axv2").unwrap_err();
        assert!(error.contains("\"axv2\""), "{error}");
        assert!(ISA_NAMES.iter().all(|name| error.contains(name)), "{error}");
    }
}
