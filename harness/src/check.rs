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

use crate::buffer::Place;
use crate::case_line::{CaseLine, MOST_THREADS, Plan};
use crate::cases::{Case, Op, Output};
use crate::compare::{Errors, Triviality};
use crate::data::Stream;
use crate::fill::Fill;
use crate::gate::{Demand, Gate};
use crate::hashes::{Change, Hashes, OpHashes};
use crate::oracle::expected::Expected;
use crate::plan::{Cases, Counts, Depth, case_count, fixed_plans, floor};
use crate::witness;

pub use crate::plan::{Check, DEFAULT_CASES};

/// The seed of a run that names none.
pub const DEFAULT_SEED: u64 = 22287;

/// If the worst error of ordinary data is below this fraction of its bound, the bound is too wide to prove anything.
pub const VACUOUS: f64 = 1e-3;

/// How many random cases the environment asks each test for, in `LFM2_CASES`: fewer under an emulator.
///
/// # Errors
///
/// If it is not a number.
pub fn cases_from_environment() -> Result<Option<u32>, String> {
    match std::env::var("LFM2_CASES") {
        Ok(count) => {
            count.parse().map(Some).map_err(|error| format!("LFM2_CASES={count}: {error}"))
        }
        Err(_) => Ok(None),
    }
}

/// What came of the cases of one operation.
pub struct Report {
    /// The operation.
    pub op: Op,
    /// One for each instruction set that was asked for, in order.
    pub outcomes: Vec<Outcome>,
    /// Of what the fixed shapes gave with ordinary data.
    pub hashes: OpHashes,
}

impl Report {
    /// Where its hashes are not those kept, if it is held to them. Of an operation that failed only some cases ran, so nothing is
    /// compared.
    pub fn changes(&self, gate: &Gate, kept: &Hashes) -> Vec<Change> {
        let has_failed = self.outcomes.iter().any(|outcome| outcome.failure.is_some());
        if has_failed || gate.demand == Demand::Bounds {
            return Vec::new();
        }
        (gate.judges.changes)(kept, self.op.name, &self.hashes)
    }

    /// Whether nothing is wrong on any instruction set, hashes aside.
    pub fn is_right(&self) -> bool {
        !self.outcomes.is_empty() && self.outcomes.iter().all(Outcome::is_right)
    }

    /// What came of it, in a line for each instruction set, or more where something is wrong.
    pub fn verdict(&self) -> String {
        let right = |outcome: &Outcome| {
            let worst = outcome.errors().worst;
            let Outcome { isa, cases, .. } = outcome;
            format!(
                "{} on {isa}: right in {cases} cases, worst error {worst:.3} of its bound",
                self.op.name
            )
        };
        let text = |outcome: &Outcome| {
            let complaint = outcome.complaint(&self.op);
            complaint.map_or_else(|| right(outcome), |complaint| format!("FAILED {complaint}"))
        };
        self.outcomes.iter().map(text).collect::<Vec<_>>().join("\n")
    }

    /// All that is wrong, but for hashes: a text each.
    pub fn complaints(&self) -> Vec<String> {
        self.outcomes.iter().filter_map(|outcome| outcome.complaint(&self.op)).collect()
    }
}

/// What there is to say of hashes that are not those kept, if there are any.
pub fn hash_complaint(op: &Op, changes: &[Change]) -> Option<String> {
    let Change { case, kept, found } = changes.first()?;
    let count = changes.len();
    Some(format!(
        "{}: other hashes than those kept: {count}; the first is of {case}: {found:?} instead of {kept:?}",
        op.name
    ))
}

/// What came of the cases of one operation on one instruction set.
#[derive(Clone)]
pub struct Outcome {
    /// The instruction set.
    pub isa: Isa,
    /// How many cases ran, without those that looked for a simpler failure.
    pub cases: usize,
    /// How many of them each check judged.
    pub judged: Counts,
    /// How many it must have judged.
    pub planned: Counts,
    /// How many of all cases prove little: most of their first output is zero, or it is empty, or most rows are saturated.
    pub mistrusted: usize,
    /// That of all cases.
    pub triviality: Triviality,
    /// How near to their bounds the results came, for each of [`Fill::ALL`].
    pub errors_by_fill: [Errors; Fill::ALL.len()],
    /// The case whose error came nearest to its bound.
    pub worst_case: Option<String>,
    /// The simplest case that failed.
    pub failure: Option<Failure>,
    /// If none failed, what is wrong with the cases as a whole: too few ran or can be trusted, or a bound is too wide to prove
    /// anything.
    pub weakness: Option<String>,
}

impl Outcome {
    /// How near to their bounds the results came, whatever the data.
    pub fn errors(&self) -> Errors {
        let mut all = Errors::default();
        self.errors_by_fill.iter().for_each(|errors| all.merge(*errors));
        all
    }

    /// Whether nothing is wrong.
    pub fn is_right(&self) -> bool {
        self.failure.is_none() && self.weakness.is_none()
    }

    /// What is wrong, with the command that shows it where a single case does.
    fn complaint(&self, op: &Op) -> Option<String> {
        if let Some(Failure { case, reason, .. }) = &self.failure {
            return Some(format!("lfm2 check --repro '{case}'\n       {reason}"));
        }
        let weakness = self.weakness.as_ref()?;
        Some(format!("{} on {}: {weakness}", op.name, self.isa))
    }

    /// What is wrong with the cases as a whole, if none failed and `planned` should have run.
    pub fn find_weakness(&self, planned: u64) -> Option<String> {
        if self.cases == 0 || (self.cases as u64) < planned {
            return Some(format!("{} of {planned} cases ran", self.cases));
        }
        for (check, &planned) in &self.planned {
            let judged = self.judged.get(check).copied().unwrap_or(0);
            // A check that was planned for none proves nothing.
            if judged == 0 || judged < planned {
                let (name, demand) = (check.name(), check.demand());
                return Some(format!("{name}: {judged} of {planned} cases were held to {demand}"));
            }
        }
        if 2 * self.mistrusted > self.cases {
            return Some(format!(
                "MISTRUSTED: {} of {} cases are mostly zeros or saturated",
                self.mistrusted, self.cases
            ));
        }
        let Errors { worst, bounded, .. } = self.errors_by_fill[Fill::Normal as usize];
        if bounded == 0 {
            return Some("no element was held to the oracle".into());
        }
        self.is_vacuous()
            .then(|| format!("vacuous: no error came nearer to its bound than {worst:.1e} of it"))
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
    /// The case in one line, `operation:shape:instruction set:seed:fill`, the number of threads unless it is 1, and where its guard is.
    pub case: String,
    /// What saw it.
    pub by: Check,
    /// What is wrong with its result.
    pub reason: String,
}

/// Checks an operation: its [`fixed_plans`], always the same; then random cases, which depend on `seed` alone. Each runs on every one of
/// `isas`, must give the bits of the gate's reference on [`Scalar`] and one thread if it is held to them, and, where the data are finite,
/// what the oracle expects. Each check must have judged as many cases as were planned for it.
///
/// An instruction set that fails is left out of further cases; its failure is shrunk to the simplest case that still fails.
/// `before_case` is called as often as [`case_count`] says, or more often after a failure.
pub fn check(
    gate: &Gate,
    op: &Op,
    isas: &[Isa],
    cases: impl Into<Cases>,
    seed: u64,
    before_case: &(dyn Fn() + Sync),
) -> Report {
    let run = Run { gate, op, cases: cases.into(), seed, before_case };
    // In a pool of its own, most cases run where they are made: to hand each to another thread and back takes longer than many a case.
    pool(1).install(|| run.report(isas))
}

/// The hashes of what the fixed shapes give with ordinary data, on so many threads, which must not matter.
///
/// # Errors
///
/// If a case fails, or a result is not finite: naming it.
pub fn hashes(gate: &Gate, op: &Op, isa: Isa, threads: usize) -> Result<OpHashes, String> {
    let plans = fixed_plans(op, Depth::Quick).into_iter();
    let hash = |plan: Plan| {
        let line = line(&plan, op, isa);
        witness::announce(&line);
        let case = caught("making the case", || (op.make)(&plan.shape, (gate.judges.draw)(&plan)));
        let outputs = case.and_then(|case| {
            let run = || (gate.judges.run)(&*case, &gate.kernels, isa);
            gate.run(threads, run).map_err(|(_, reason)| reason)
        });
        let hash = outputs.and_then(|outputs| (gate.judges.hash)(&outputs));
        hash.map(|hash| (hash_key(op, &plan), hash)).map_err(|reason| format!("{line}: {reason}"))
    };
    let found = plans.filter(|plan| Check::Hashes.judges(plan)).map(hash).collect();
    witness::is_over();
    found
}

/// What the hash of a case is kept under.
fn hash_key(op: &Op, Plan { shape, seed, fill, .. }: &Plan) -> String {
    format!("{}:{seed}:{fill}", shape.display(op))
}

/// Runs one case again, on its instruction set: how near it came to its bounds, and how much of it is trivial.
///
/// # Errors
///
/// If it fails.
pub fn replay(gate: &Gate, line: &CaseLine) -> Result<(Errors, Triviality), Failure> {
    let CaseLine { op, isa, plan } = line;
    match judge(gate, plan, op, &[*isa]) {
        Ok(judgement) => Ok((judgement.verdicts[0].errors, judgement.triviality)),
        Err(failed) => Err(failure(plan, op, failed).1),
    }
}

/// One call of [`check`].
struct Run<'a> {
    gate: &'a Gate,
    op: &'a Op,
    cases: Cases,
    seed: u64,
    before_case: &'a (dyn Fn() + Sync),
}

impl Run<'_> {
    fn report(&self, isas: &[Isa]) -> Report {
        let &Self { gate, op, cases, .. } = self;
        let mut tally = Tally::new(isas, floor(op, gate.demand, cases));
        let mut left = isas.to_vec();
        while let Err((isa, failure)) = self.until_failure(&left, &mut tally) {
            tally.outcome(isa).failure = Some(failure);
            left.retain(|other| *other != isa);
            if left.is_empty() {
                break;
            }
        }
        // A case that failed had not said so.
        witness::is_over();
        for outcome in tally.outcomes.iter_mut().filter(|outcome| outcome.failure.is_none()) {
            outcome.judged.insert(Check::Hashes, tally.hashes.len());
            outcome.weakness = (gate.judges.weakness)(outcome, case_count(op, cases));
        }
        Report { op: *op, outcomes: tally.outcomes, hashes: tally.hashes }
    }

    /// Runs all cases on `isas`, or until one fails on one of them.
    fn until_failure(&self, isas: &[Isa], tally: &mut Tally) -> Result<(), (Isa, Failure)> {
        tally.restart(isas);
        let mut last: Option<Referenced> = None;
        for plan in fixed_plans(self.op, self.cases.depth) {
            (self.before_case)();
            let simplify = |failed| self.simplify(&plan, failed, isas);
            let referenced = match last.take() {
                Some(last) if last.has_numbers_of(&plan) => last,
                _ => Referenced::new(self.gate, &plan, self.op, isas).map_err(simplify)?,
            };
            let judgement = referenced.judge(self.gate, &plan, self.op, isas).map_err(simplify)?;
            if Check::Hashes.judges(&plan) {
                let fail = |reason| Failed { isa: isas[0], by: Check::Hashes, reason };
                let hash = (self.gate.judges.hash)(&referenced.reference)
                    .map_err(|reason| failure(&plan, self.op, fail(reason)))?;
                tally.hashes.insert(hash_key(self.op, &plan), hash);
            }
            tally.add(self.op, &plan, &judgement);
            last = Some(referenced);
        }
        self.random_cases(isas, Stream::new(self.seed, self.op.name), tally)
    }

    /// The failure of a fixed shape: with ordinary data, or else on one thread, if it fails so as well.
    fn simplify(&self, plan: &Plan, failed: Failed, isas: &[Isa]) -> (Isa, Failure) {
        let ordinary = Plan { place: Place::Ordinary, ..plan.clone() };
        let simpler = [
            Plan { fill: Fill::Normal, ..ordinary.clone() },
            Plan { threads: 1, ..ordinary.clone() },
            ordinary,
        ];
        for plan in simpler.into_iter().filter(|_| self.gate.shrinks) {
            if let Err(failed) = judge(self.gate, &plan, self.op, isas) {
                return failure(&plan, self.op, failed);
            }
        }
        failure(plan, self.op, failed)
    }

    fn random_cases(
        &self,
        isas: &[Isa],
        stream: Stream,
        tally: &mut Tally,
    ) -> Result<(), (Isa, Failure)> {
        let config = Config {
            cases: self.cases.random,
            failure_persistence: None,
            max_shrink_iters: if self.gate.shrinks { 400 } else { 0 },
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
            if first_failure.borrow().is_none() {
                counted.borrow_mut().expect(&plan);
            }
            let judged = judge(self.gate, &plan, self.op, isas);
            if first_failure.borrow().is_some() {
                return judged.map(|_| ()).map_err(|failed| TestCaseError::fail(failed.reason));
            }
            (self.before_case)();
            match judged {
                Ok(judgement) => {
                    counted.borrow_mut().add(self.op, &plan, &judgement);
                    Ok(())
                }
                Err(failed) => {
                    let reason = failed.reason.clone();
                    first_failure.replace(Some(failure(&plan, self.op, failed)));
                    Err(TestCaseError::fail(reason))
                }
            }
        });
        match result {
            Ok(()) => Ok(()),
            Err(TestError::Fail(_, simplest)) => {
                Err(match judge(self.gate, &simplest, self.op, isas) {
                    Err(failed) => failure(&simplest, self.op, failed),
                    Ok(_) => {
                        let (isa, mut failure) = first_failure.take().expect("a case failed");
                        failure.reason += " (not on every run: the result is unstable)";
                        (isa, failure)
                    }
                })
            }
            Err(TestError::Abort(reason)) => unreachable!("no case is ever rejected: {reason}"),
        }
    }
}

/// Random cases; simpler ones first.
fn plans(op: &Op) -> impl Strategy<Value = Plan> + use<> {
    let fills = [vec![Fill::Normal; 3], Fill::ALL.to_vec()].concat();
    let threads = vec![1, 1, 1, 2, MOST_THREADS];
    ((op.drawn_shapes)(), any::<u32>().no_shrink(), select(fills), select(threads)).prop_map(
        |(shape, seed, fill, threads)| Plan { shape, seed, fill, threads, place: Place::Ordinary },
    )
}

/// An instruction set whose result is wrong.
struct Failed {
    isa: Isa,
    by: Check,
    reason: String,
}

fn failure(plan: &Plan, op: &Op, failed: Failed) -> (Isa, Failure) {
    let Failed { isa, by, reason } = failed;
    (isa, Failure { case: line(plan, op, isa), by, reason })
}

fn line(plan: &Plan, op: &Op, isa: Isa) -> String {
    CaseLine { op: *op, isa, plan: plan.clone() }.to_string()
}

/// A case that is right everywhere.
struct Judgement {
    /// For each instruction set.
    verdicts: Vec<Verdict>,
    triviality: Triviality,
}

/// A case that is right on an instruction set.
struct Verdict {
    isa: Isa,
    /// How near it came to the bounds.
    errors: Errors,
    /// What really judged it.
    judged_by: Vec<Check>,
}

/// Runs a case on every instruction set and compares.
fn judge(gate: &Gate, plan: &Plan, op: &Op, isas: &[Isa]) -> Result<Judgement, Failed> {
    Referenced::new(gate, plan, op, isas)?.judge(gate, plan, op, isas)
}

/// A case in ordinary memory, and what scalar code gave for it on one thread: what it must give wherever its numbers lie and however many
/// threads run it.
struct Referenced {
    plan: Plan,
    case: Box<dyn Case>,
    reference: Vec<Output>,
}

impl Referenced {
    fn new(gate: &Gate, plan: &Plan, op: &Op, isas: &[Isa]) -> Result<Self, Failed> {
        let first = first_of(isas);
        witness::announce(&line(plan, op, first));
        let plan = Plan { place: Place::Ordinary, ..plan.clone() };
        let data = (gate.judges.draw)(&plan);
        let case = caught("making the case", || (op.make)(&plan.shape, data))
            .map_err(|reason| Failed { isa: first, by: Check::Runs, reason })?;
        let run = || (gate.judges.run)(&*case, &gate.reference, Isa::Scalar(Scalar));
        let reference = gate.run(1, run).map_err(|(by, reason)| {
            let reason = format!("scalar, which it is compared with: {reason}");
            Failed { isa: first, by, reason }
        })?;
        Ok(Self { plan, case, reference })
    }

    /// Whether `plan` is of this case, in whatever memory and on however many threads.
    fn has_numbers_of(&self, plan: &Plan) -> bool {
        let Plan { place, threads, .. } = self.plan;
        Plan { place, threads, ..plan.clone() } == self.plan
    }

    /// Runs it as `plan` says on every instruction set and compares.
    fn judge(&self, gate: &Gate, plan: &Plan, op: &Op, isas: &[Isa]) -> Result<Judgement, Failed> {
        let first = first_of(isas);
        let fail = |isa, by| move |reason| Failed { isa, by, reason };
        let judges = &gate.judges;
        let reference = &self.reference;
        let is_guarded = plan.place != Place::Ordinary;
        witness::announce(&line(plan, op, first));
        let mut case = &self.case;
        let (guarded, expected);
        if is_guarded {
            let data = (judges.draw)(plan);
            let moved = || case.moved(data).unwrap_or_else(|| (op.make)(&plan.shape, data));
            guarded = caught("making the case", moved).map_err(fail(first, Check::Runs))?;
            case = &guarded;
            expected = None;
        } else {
            expected = caught("the oracle", || gate.expected(op, &**case, plan.fill))
                .map_err(fail(first, Check::Bounds))?;
        }
        let mut verdicts = Vec::with_capacity(isas.len());
        for &isa in isas {
            witness::announce(&line(plan, op, isa));
            let failed = |(by, reason)| Failed { isa, by, reason };
            let outputs = gate
                .run(plan.threads, || (judges.run)(&**case, &gate.kernels, isa))
                .map_err(failed)?;
            assert_eq!(reference.len(), outputs.len(), "a case has the same outputs every time");
            let mut judged_by = Vec::new();
            if is_guarded {
                judged_by.push(Check::Memory);
            }
            if gate.demand == Demand::EqualBits {
                gate.same_outputs(reference, &outputs).map_err(fail(isa, Check::Bits))?;
                judged_by.push(Check::Bits);
                if plan.threads > 1 {
                    judged_by.push(Check::Threads);
                }
                let other = gate
                    .run(plan.threads, || (judges.run_another_way)(&**case, &gate.kernels, isa))
                    .and_then(|outputs| {
                        let same = gate.same_outputs(reference, &outputs).map(|()| outputs);
                        same.map_err(|reason| (Check::OtherWay, reason))
                    })
                    .map_err(|(by, reason)| (by, format!("{}: {reason}", case.other_way())))
                    .map_err(failed)?;
                if !other.is_empty() {
                    judged_by.push(Check::OtherWay);
                }
            }
            let mut errors = match &expected {
                Some(expected) if !expected.is_empty() => {
                    gate.near_outputs(expected, &outputs).map_err(fail(isa, Check::Bounds))?
                }
                _ => Errors::default(),
            };
            if !is_guarded {
                errors.merge(case.judge_whole(&outputs).map_err(fail(isa, Check::Bounds))?);
            }
            if let Some(expected) = &expected {
                // Of a whole that was judged, the oracle need not know everything.
                let known = match expected.is_empty() {
                    true => errors.elements.max(1),
                    false => outputs.iter().map(|output| output.values.len()).sum(),
                };
                judged_by.extend(judged_by_oracle(plan.fill, known, errors));
            }
            verdicts.push(Verdict { isa, errors, judged_by });
        }
        witness::is_over();
        let triviality = Triviality::of(&reference[0].values, case.saturated_rows(reference));
        Ok(Judgement { verdicts, triviality })
    }
}

fn first_of(isas: &[Isa]) -> Isa {
    *isas.first().expect("somewhere to run")
}

/// The checks that the oracle made, if it had a bound for all of so many elements.
fn judged_by_oracle(fill: Fill, elements: usize, errors: Errors) -> Vec<Check> {
    if errors.bounded != elements {
        return Vec::new();
    }
    match fill {
        Fill::NonFinite => vec![Check::NonFinite],
        Fill::Integers if errors.exact == elements => vec![Check::Bounds, Check::Integers],
        fill if fill.has_finite_results() => vec![Check::Bounds],
        _ => Vec::new(),
    }
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
}

/// Turns a panic into an error.
pub(crate) fn caught<R>(what: &str, work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| format!("{what} panicked: {}", panic_message(&*panic)))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

impl Gate {
    /// What the oracle demands, if it can say what data of that kind give.
    fn expected(&self, op: &Op, case: &dyn Case, fill: Fill) -> Option<Vec<Vec<Expected>>> {
        if !fill.is_finite() && !op.checks.contains(&Check::NonFinite) {
            return None;
        }
        let mut expected = (self.judges.expect)(case);
        if fill == Fill::Integers && op.checks.contains(&Check::Integers) {
            for expected in expected.iter_mut().flatten() {
                assert_eq!(expected.value.fract(), 0.0, "sums of integers are integers");
                expected.bound = 0.0;
            }
        }
        Some(expected)
    }

    /// Runs a case in a pool of this many threads; nothing may be written beside an output.
    fn run(
        &self,
        threads: usize,
        work: impl FnOnce() -> Vec<Output> + Send,
    ) -> Result<Vec<Output>, (Check, String)> {
        static POOLS: LazyLock<[ThreadPool; MOST_THREADS]> =
            LazyLock::new(|| std::array::from_fn(|i| pool(i + 1)));
        let is_alone = rayon::current_thread_index().is_some() && rayon::current_num_threads() == 1;
        let run = || match threads {
            1 if is_alone => work(),
            _ => POOLS[threads - 1].install(work),
        };
        let outputs = caught("the operation", run).map_err(|reason| (Check::Runs, reason))?;
        match outputs.iter().find(|output| !(self.judges.is_intact)(&output.values)) {
            Some(output) => Err((Check::Margins, format!("{}: written outside", output.name))),
            None => Ok(outputs),
        }
    }

    fn same_outputs(&self, reference: &[Output], outputs: &[Output]) -> Result<(), String> {
        for output in outputs {
            let reference = reference.iter().find(|reference| reference.name == output.name);
            let reference = reference.expect("other ways have no other outputs");
            (self.judges.equal_bits)(&reference.values, &output.values)
                .map_err(|mismatch| format!("{} differs from scalar: {mismatch}", output.name))?;
        }
        Ok(())
    }

    fn near_outputs(
        &self,
        expected: &[Vec<Expected>],
        outputs: &[Output],
    ) -> Result<Errors, String> {
        assert_eq!(expected.len(), outputs.len(), "the oracle knows every output");
        let mut errors = Errors::default();
        for (expected, output) in expected.iter().zip(outputs) {
            let of_output = (self.judges.within_bounds)(expected, &output.values)
                .map_err(|mismatch| format!("{} is wrong: {mismatch}", output.name))?;
            errors.merge(of_output);
        }
        Ok(errors)
    }
}

/// What has come of the cases so far.
struct Tally {
    /// What every run plans for each check.
    floor: Counts,
    outcomes: Vec<Outcome>,
    hashes: OpHashes,
}

impl Tally {
    fn new(isas: &[Isa], floor: Counts) -> Self {
        let outcome = |&isa| Outcome {
            isa,
            cases: 0,
            judged: Counts::new(),
            planned: floor.clone(),
            mistrusted: 0,
            triviality: Triviality::default(),
            errors_by_fill: [Errors::default(); Fill::ALL.len()],
            worst_case: None,
            failure: None,
            weakness: None,
        };
        let outcomes = isas.iter().map(outcome).collect();
        Self { floor, outcomes, hashes: OpHashes::new() }
    }

    fn outcome(&mut self, isa: Isa) -> &mut Outcome {
        self.outcomes.iter_mut().find(|outcome| outcome.isa == isa).expect("it was asked for")
    }

    /// Forgets what these did, since they begin again.
    fn restart(&mut self, isas: &[Isa]) {
        for fresh in Self::new(isas, self.floor.clone()).outcomes {
            let isa = fresh.isa;
            *self.outcome(isa) = fresh;
        }
    }

    /// Plans the checks of a random case that the floor does not count.
    fn expect(&mut self, plan: &Plan) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.failure.is_none()) {
            for (check, planned) in &mut outcome.planned {
                *planned += usize::from(check.depends_on_draw() && check.judges(plan));
            }
        }
    }

    fn add(&mut self, op: &Op, plan: &Plan, judgement: &Judgement) {
        for &Verdict { isa, errors, ref judged_by } in &judgement.verdicts {
            let outcome = self.outcome(isa);
            outcome.cases += 1;
            judged_by.iter().for_each(|check| *outcome.judged.entry(*check).or_default() += 1);
            outcome.triviality.merge(judgement.triviality);
            outcome.mistrusted += usize::from(judgement.triviality.prevails());
            if errors.worst > outcome.errors().worst {
                outcome.worst_case = Some(line(plan, op, isa));
            }
            outcome.errors_by_fill[plan.fill as usize].merge(errors);
        }
    }
}

#[cfg(test)]
mod tests;
