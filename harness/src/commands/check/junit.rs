//! What came of a check as JUnit XML, which every CI server shows: a suite for each instruction set, a test for each operation.

use std::io::Write;
use std::path::Path;

use lfm2_harness::check::Outcome;
use lfm2_harness::machine::Machine;
use lfm2_kernels::Isa;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::super::Failure;
use super::super::output::OutputFile;
use super::summary::{DID_NOT_RUN, Results, Verdict};

const NAME: &str = "lfm2 check";

/// Puts a report at `path` that says that the check did not end, for a crash to leave behind instead of the report of an earlier run.
///
/// # Errors
///
/// If no file can be written there.
pub fn begin(path: &Path) -> Result<(), Failure> {
    // What is written to a pipe cannot be replaced.
    if path.exists() && !path.is_file() && !path.is_dir() {
        return Ok(());
    }
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message("the check did not end");
    let mut suite = TestSuite::new("unfinished");
    suite.add_test_case(test(NAME, "unfinished", status));
    write(path, [suite])
}

/// Puts what came of every operation at `path`.
///
/// # Errors
///
/// If it cannot be written.
pub fn finish(path: &Path, isas: &[Isa], results: &Results) -> Result<(), Failure> {
    let machine = Machine::detect();
    let suite = |(i, isa): (usize, &Isa)| {
        let mut suite = TestSuite::new(isa.name());
        suite.add_property(("architecture", machine.architecture.as_str()));
        suite.add_property(("cpu", machine.cpu.as_deref().unwrap_or("unknown")));
        suite.add_property(("commit", env!("LFM2_COMMIT")));
        suite.add_property(("is_dirty", env!("LFM2_IS_DIRTY")));
        for verdict in &results.verdicts {
            suite.add_test_case(test_case(verdict, &verdict.report.outcomes[i]));
        }
        for name in &results.missing {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(DID_NOT_RUN);
            suite.add_test_case(test(name, isa.name(), status));
        }
        suite
    };
    write(path, isas.iter().enumerate().map(suite))
}

fn test_case(verdict: &Verdict, outcome: &Outcome) -> TestCase {
    let status = match verdict.reason_on(outcome) {
        None => TestCaseStatus::success(),
        Some(reason) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(&reason);
            if let Some(failure) = &outcome.failure {
                status.set_type(failure.by.name());
            }
            // Some servers show the one, some the other.
            status.set_description(match &outcome.failure {
                Some(failure) => format!("lfm2 check --repro '{}'\n{reason}", failure.case),
                None => reason,
            });
            status
        }
    };
    let mut test = test(verdict.report.op.name, outcome.isa.name(), status);
    test.set_assertions(outcome.cases);
    test
}

fn test(name: &str, suite: &str, status: TestCaseStatus) -> TestCase {
    let mut test = TestCase::new(name, status);
    test.set_classname(format!("lfm2.{suite}"));
    test
}

fn write(path: &Path, suites: impl IntoIterator<Item = TestSuite>) -> Result<(), Failure> {
    let mut report = Report::new(NAME);
    report.add_test_suites(suites);
    let mut file = OutputFile::create(path)?;
    file.write_all(report.to_string()?.as_bytes())?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use lfm2_harness::cases::OPS;
    use lfm2_harness::check::{self, check};
    use lfm2_harness::gate::Gate;
    use lfm2_harness::hashes::Hashes;

    use super::*;

    fn read(path: &Path) -> Report {
        Report::deserialize_from_str(&fs::read_to_string(path).expect("a file")).expect("JUnit XML")
    }

    /// The message and the text of a test that failed.
    fn told(test: &TestCase) -> [&str; 2] {
        let TestCaseStatus::NonSuccess { message, description, .. } = &test.status else {
            panic!("{} passed", test.name.as_str());
        };
        [message, description].map(|text| text.as_ref().map_or("", |text| text.as_str()))
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("junit.xml");
        begin(&path).expect("a report");
        let unfinished = read(&path);
        assert_eq!((unfinished.tests, unfinished.errors), (1, 1));

        let isas = Isa::available();
        let op = OPS.iter().find(|op| op.name == "add").expect("an operation");
        let mut report = check(&Gate::OURS, op, &isas, 0, 1, &|| ());
        let kept = Hashes::kept().expect("a file that was blessed");
        let write = |report: &check::Report, kept: &Hashes| {
            let verdicts = vec![Verdict::new(report, kept)];
            let results = Results { verdicts, missing: vec!["rope".into()] };
            finish(&path, &isas, &results).expect("a report");
            read(&path)
        };
        let right = write(&report, &kept);
        // The one that did not run is an error on each.
        let count = isas.len();
        assert_eq!((right.tests, right.failures, right.errors), (2 * count, 0, count));
        for (suite, isa) in right.test_suites.iter().zip(&isas) {
            assert_eq!((suite.name.as_str(), suite.test_cases.len()), (isa.name(), 2));
            assert_eq!(suite.test_cases[0].name.as_str(), "add");
            assert_eq!(told(&suite.test_cases[1])[0], DID_NOT_RUN);
        }

        let changed = write(&report, &Hashes::new());
        assert_eq!(changed.failures, count);
        assert!(told(&changed.test_suites[0].test_cases[0])[0].contains("other hashes"));

        report.outcomes[0].failure = Some(check::Failure {
            case: "add:length=1".into(),
            by: check::Check::Bits,
            reason: "1 < 2 & \"wrong\"".into(),
        });
        let wrong = write(&report, &kept);
        assert_eq!((wrong.failures, wrong.errors), (1, count));
        let [message, text] = told(&wrong.test_suites[0].test_cases[0]);
        assert_eq!(message, "1 < 2 & \"wrong\"");
        assert!(text.starts_with("lfm2 check --repro 'add:length=1'\n"), "{text}");
    }

    #[test]
    fn a_path_that_cannot_be_written_is_told_before_anything_runs() {
        assert!(begin(Path::new("/no/such/folder/junit.xml")).is_err());
        assert!(begin(&std::env::temp_dir()).is_err());
    }
}
