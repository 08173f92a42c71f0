//! Runs the cases of an operation: equal bits on every instruction set, and errors within the bounds of the oracle.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use lfm2_kernels::Isa;
use lfm2_kernels::simd::Scalar;
use proptest::prelude::any;
use proptest::sample::select;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::cases::{Case, Op, Output, Shape};
use crate::compare::{Errors, equal_bits, within_bounds};
use crate::data::{Data, Fill, Stream};
use crate::oracle::expected::Expected;

/// The seed of a run that names none.
pub const DEFAULT_SEED: u64 = 22287;

/// How many random cases a run takes that does not say.
pub const DEFAULT_CASES: u32 = 64;

/// If the worst error of ordinary data is below this fraction of its bound, the bound is too wide to prove anything.
pub const VACUOUS: f64 = 1e-3;

/// What came of the cases of one operation.
pub struct Report {
    /// The operation.
    pub op: Op,
    /// One for each instruction set that was asked for, in order.
    pub outcomes: Vec<Outcome>,
}

/// What came of the cases of one operation on one instruction set.
#[derive(Clone)]
pub struct Outcome {
    /// The instruction set.
    pub isa: Isa,
    /// How many cases ran, without those that looked for a simpler failure.
    pub cases: usize,
    /// How near to their bounds the results came, for each of [`Fill::ALL`].
    pub errors_by_fill: [Errors; Fill::ALL.len()],
    /// The case whose error came nearest to its bound.
    pub worst_case: Option<String>,
    /// The simplest case that failed.
    pub failure: Option<Failure>,
}

impl Outcome {
    /// How near to their bounds the results came, whatever the data.
    pub fn errors(&self) -> Errors {
        let mut all = Errors::default();
        self.errors_by_fill.iter().for_each(|errors| all.merge(*errors));
        all
    }

    /// Whether there were bounds, but no error of ordinary data came anywhere near one.
    pub fn is_vacuous(&self) -> bool {
        let ordinary = self.errors_by_fill[Fill::Normal as usize];
        ordinary.bounded > ordinary.exact && ordinary.worst < VACUOUS
    }
}

/// A case that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The case in one line, `operation:shape:instruction set:seed:fill`, and the number of threads unless it is 1.
    pub case: String,
    /// What is wrong with its result.
    pub reason: String,
}

/// How many cases [`check`] runs if none fails.
pub fn case_count(op: &Op, cases: u32) -> u64 {
    (op.fixed_shapes)().len() as u64 + u64::from(cases)
}

/// Checks an operation: its fixed shapes, then `cases` random ones, which depend on `seed` alone. Each runs on every one of `isas`
/// and must give the bits of [`Scalar`] on one thread, and, where the data are finite, what the oracle expects.
///
/// An instruction set that fails is left out of further cases; its failure is shrunk to the simplest case that still fails.
/// `before_case` is called as often as [`case_count`] says, or more often after a failure.
pub fn check(
    op: &Op,
    isas: &[Isa],
    cases: u32,
    seed: u64,
    before_case: &(dyn Fn() + Sync),
) -> Report {
    let mut tally = Tally::new(isas);
    let run = Run { op, cases, seed, before_case };
    let mut left = isas.to_vec();
    while let Err((isa, failure)) = run.until_failure(&left, &mut tally) {
        tally.outcome(isa).failure = Some(failure);
        left.retain(|other| *other != isa);
        if left.is_empty() {
            break;
        }
    }
    Report { op: *op, outcomes: tally.outcomes }
}

/// One call of [`check`].
struct Run<'a> {
    op: &'a Op,
    cases: u32,
    seed: u64,
    before_case: &'a (dyn Fn() + Sync),
}

impl Run<'_> {
    /// Runs all cases on `isas`, or until one fails on one of them.
    fn until_failure(&self, isas: &[Isa], tally: &mut Tally) -> Result<(), (Isa, Failure)> {
        tally.restart(isas);
        let stream = Stream::new(self.seed, self.op.name);
        for (i, shape) in (self.op.fixed_shapes)().into_iter().enumerate() {
            (self.before_case)();
            let seed = stream.bits(i as u64) as u32;
            let plan = Plan { shape, seed, fill: Fill::Normal, threads: 1 };
            let judgements =
                plan.judge(self.op, isas).map_err(|failure| plan.failure(self.op, failure))?;
            tally.add(self.op, &plan, judgements);
        }
        self.random_cases(isas, stream, tally)
    }

    fn random_cases(
        &self,
        isas: &[Isa],
        stream: Stream,
        tally: &mut Tally,
    ) -> Result<(), (Isa, Failure)> {
        let config = Config {
            cases: self.cases,
            failure_persistence: None,
            max_shrink_iters: 400,
            max_shrink_time: 0,
            ..Config::default()
        };
        let seed = [0, 1, 2, 3].map(|i| stream.bits(u64::MAX - i).to_le_bytes()).concat();
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(config, random);

        let plans = plans(self.op);
        // The runner shrinks after a failure: what it tries then is not counted.
        let first_failure = RefCell::new(None);
        let counted = RefCell::new(tally);
        let result = runner.run(&plans, |plan| {
            let judged = plan.judge(self.op, isas);
            if first_failure.borrow().is_some() {
                return judged.map(|_| ()).map_err(|failed| TestCaseError::fail(failed.reason));
            }
            (self.before_case)();
            match judged {
                Ok(judgements) => {
                    counted.borrow_mut().add(self.op, &plan, judgements);
                    Ok(())
                }
                Err(failed) => {
                    let reason = failed.reason.clone();
                    first_failure.replace(Some(plan.failure(self.op, failed)));
                    Err(TestCaseError::fail(reason))
                }
            }
        });
        match result {
            Ok(()) => Ok(()),
            Err(TestError::Fail(_, simplest)) => Err(match simplest.judge(self.op, isas) {
                Err(failed) => simplest.failure(self.op, failed),
                Ok(_) => {
                    let (isa, mut failure) = first_failure.take().expect("a case failed");
                    failure.reason += " (not on every run: the result is unstable)";
                    (isa, failure)
                }
            }),
            Err(TestError::Abort(reason)) => unreachable!("no case is ever rejected: {reason}"),
        }
    }
}

/// All that makes a case of an operation, besides the instruction set.
#[derive(Clone, Debug)]
struct Plan {
    shape: Shape,
    seed: u32,
    fill: Fill,
    /// Of the pool that runs everything but the reference.
    threads: usize,
}

/// Random cases; simpler ones first.
fn plans(op: &Op) -> impl Strategy<Value = Plan> + use<> {
    let fills = [vec![Fill::Normal; 3], Fill::ALL.to_vec()].concat();
    let threads = vec![1, 1, 1, 2, 3];
    ((op.drawn_shapes)(), any::<u32>().no_shrink(), select(fills), select(threads))
        .prop_map(|(shape, seed, fill, threads)| Plan { shape, seed, fill, threads })
}

/// An instruction set whose result is wrong.
struct Failed {
    isa: Isa,
    reason: String,
}

impl Plan {
    fn failure(&self, op: &Op, failed: Failed) -> (Isa, Failure) {
        let Failed { isa, reason } = failed;
        (isa, Failure { case: self.line(op, isa), reason })
    }

    fn line(&self, op: &Op, isa: Isa) -> String {
        let Self { shape, seed, fill, threads } = self;
        let line = format!("{}:{}:{isa}:{seed}:{fill}", op.name, shape.display(op));
        if *threads == 1 { line } else { format!("{line}:threads={threads}") }
    }

    /// Runs the case on every instruction set and compares.
    fn judge(&self, op: &Op, isas: &[Isa]) -> Result<Vec<(Isa, Errors)>, Failed> {
        let Some(&first) = isas.first() else { return Ok(Vec::new()) };
        let fail = |isa| move |reason| Failed { isa, reason };
        let data = Data { seed: self.seed.into(), fill: self.fill };
        let case =
            guarded("making the case", || (op.make)(&self.shape, data)).map_err(fail(first))?;
        let scalar = Isa::Scalar(Scalar);
        let reference = run(&*case, scalar, 1).map_err(|reason| Failed {
            isa: first,
            reason: format!("scalar, which it is compared with: {reason}"),
        })?;
        let expected = if self.fill.is_finite() || case.defines_non_finite() {
            Some(guarded("the oracle", || case.expected()).map_err(fail(first))?)
        } else {
            None
        };
        let mut judgements = Vec::with_capacity(isas.len());
        for &isa in isas {
            let outputs = run(&*case, isa, self.threads).map_err(fail(isa))?;
            same_outputs(&reference, &outputs).map_err(fail(isa))?;
            let errors = match &expected {
                Some(expected) => near_outputs(expected, &outputs).map_err(fail(isa))?,
                None => Errors::default(),
            };
            judgements.push((isa, errors));
        }
        Ok(judgements)
    }
}

/// Runs a case in a pool of this many threads; nothing may be written beside an output.
fn run(case: &dyn Case, isa: Isa, threads: usize) -> Result<Vec<Output>, String> {
    static POOLS: LazyLock<[ThreadPool; 3]> = LazyLock::new(|| {
        [1, 2, 3].map(|threads| {
            ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
        })
    });
    let outputs = guarded("the operation", || POOLS[threads - 1].install(|| case.run(isa)))?;
    match outputs.iter().find(|output| !output.values.margins_are_intact()) {
        Some(output) => Err(format!("{}: written outside", output.name)),
        None => Ok(outputs),
    }
}

/// Turns a panic into an error.
fn guarded<R>(what: &str, work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| format!("{what} panicked: {}", panic_message(&*panic)))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn same_outputs(reference: &[Output], outputs: &[Output]) -> Result<(), String> {
    assert_eq!(reference.len(), outputs.len(), "a case has the same outputs every time");
    for (reference, output) in reference.iter().zip(outputs) {
        equal_bits(&reference.values, &output.values)
            .map_err(|mismatch| format!("{} differs from scalar: {mismatch}", output.name))?;
    }
    Ok(())
}

fn near_outputs(expected: &[Vec<Expected>], outputs: &[Output]) -> Result<Errors, String> {
    assert_eq!(expected.len(), outputs.len(), "the oracle knows every output");
    let mut errors = Errors::default();
    for (expected, output) in expected.iter().zip(outputs) {
        let of_output = within_bounds(expected, &output.values)
            .map_err(|mismatch| format!("{} is wrong: {mismatch}", output.name))?;
        errors.merge(of_output);
    }
    Ok(errors)
}

/// What has come of the cases so far.
struct Tally {
    outcomes: Vec<Outcome>,
}

impl Tally {
    fn new(isas: &[Isa]) -> Self {
        let outcome = |&isa| Outcome {
            isa,
            cases: 0,
            errors_by_fill: [Errors::default(); Fill::ALL.len()],
            worst_case: None,
            failure: None,
        };
        Self { outcomes: isas.iter().map(outcome).collect() }
    }

    fn outcome(&mut self, isa: Isa) -> &mut Outcome {
        self.outcomes.iter_mut().find(|outcome| outcome.isa == isa).expect("it was asked for")
    }

    /// Forgets what these did, since they begin again.
    fn restart(&mut self, isas: &[Isa]) {
        for fresh in Self::new(isas).outcomes {
            let isa = fresh.isa;
            *self.outcome(isa) = fresh;
        }
    }

    fn add(&mut self, op: &Op, plan: &Plan, judgements: Vec<(Isa, Errors)>) {
        for (isa, errors) in judgements {
            let outcome = self.outcome(isa);
            outcome.cases += 1;
            if errors.worst > outcome.errors().worst {
                outcome.worst_case = Some(plan.line(op, isa));
            }
            outcome.errors_by_fill[plan.fill as usize].merge(errors);
        }
    }
}
