//! What a check must not let pass, as operations that are wrong on purpose: each doubles its input, but not always.

use proptest::strategy::BoxedStrategy;

use super::*;
use crate::buffer::Input;
use crate::cases::{Dimension, Shape};
use crate::data::Data;
use crate::gate::Judges;
use crate::kernels::Kernels;

struct Doubled {
    x: Input,
    data: Data,
    double: fn(&[f32], &mut [f32]),
    bound: f64,
}

impl Case for Doubled {
    fn run(&self, _: &Kernels, _: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.x.len());
        (self.double)(&self.x, &mut out);
        vec![Output::new("out", out)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        let expected = |&x: &f32| Expected { value: 2.0 * f64::from(x), bound: self.bound };
        vec![self.x.iter().map(expected).collect()]
    }
}

fn double(x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x + x;
    }
}

fn case(shape: &Shape, data: Data, double: fn(&[f32], &mut [f32]), bound: f64) -> Box<dyn Case> {
    let [length] = shape.sizes();
    // Numbers whose doubles are exact and finite.
    let data = Data { fill: Fill::Normal, ..data };
    Box::new(Doubled { x: data.values("x", length), data, double, bound })
}

fn lengths() -> BoxedStrategy<Shape> {
    (0..100_usize).prop_map(|length| Shape::from([length])).boxed()
}

const LENGTH: &[Dimension] = &[Dimension::any("length")];

fn doubling(make: fn(&Shape, Data) -> Box<dyn Case>) -> Op {
    Op {
        name: "double",
        format: None,
        checks: &[Check::Bounds],
        dimensions: LENGTH,
        fit_together: Shape::is_affordable,
        fixed_shapes: || vec![Shape::from([3])],
        drawn_shapes: lengths,
        make,
    }
}

fn right() -> Op {
    doubling(|shape, data| case(shape, data, double, 0.0))
}

fn check_scalar(make: fn(&Shape, Data) -> Box<dyn Case>) -> Outcome {
    check_scalar_op(&doubling(make))
}

fn check_scalar_op(op: &Op) -> Outcome {
    check_scalar_under(&Gate::OURS, op, 200)
}

fn check_scalar_under(gate: &Gate, op: &Op, cases: u32) -> Outcome {
    let report = check(gate, op, &[Isa::Scalar(Scalar)], cases, 1, &|| ());
    report.outcomes.into_iter().next().expect("one instruction set was asked for")
}

fn weakness(outcome: Outcome) -> String {
    assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
    outcome.weakness.expect("it proves nothing")
}

fn failure(make: fn(&Shape, Data) -> Box<dyn Case>) -> Failure {
    check_scalar(make).failure.expect("it is wrong")
}

#[test]
fn what_is_right_passes_and_every_case_is_counted() {
    let outcome = check_scalar(|shape, data| case(shape, data, double, 0.0));
    assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
    assert!(outcome.is_right(), "{:?}", outcome.weakness);
    assert_eq!(outcome.cases, 206);
    assert_eq!(outcome.errors().worst, 0.0);
    assert_eq!(outcome.errors().exact, outcome.errors().bounded);
    assert!(!outcome.is_vacuous(), "an exact result needs no bound");
}

#[test]
fn a_wrong_element_is_shrunk_to_the_simplest_case() {
    let failure = failure(|shape, data| {
        let wrong_from_10 = |x: &[f32], out: &mut [f32]| {
            double(x, out);
            out.iter_mut().skip(9).for_each(|out| *out += 1.0);
        };
        case(shape, data, wrong_from_10, 0.5)
    });
    assert!(failure.case.starts_with("double:length=10:scalar:"), "{}", failure.case);
    assert!(failure.case.ends_with(":normal"), "{}", failure.case);
    assert!(failure.reason.contains("out is wrong: element 9"), "{}", failure.reason);
}

#[test]
fn a_result_that_depends_on_threads_is_seen() {
    let failure = failure(|shape, data| {
        let wrong_with_threads = |x: &[f32], out: &mut [f32]| {
            double(x, out);
            if let (2.., Some(out)) = (rayon::current_num_threads(), out.last_mut()) {
                *out = out.next_up();
            }
        };
        case(shape, data, wrong_with_threads, 1.0)
    });
    assert!(failure.case.starts_with("double:length=3:scalar:"), "{}", failure.case);
    assert!(failure.case.ends_with(":normal:threads=2"), "{}", failure.case);
    assert!(failure.reason.contains("differs from scalar"), "{}", failure.reason);
}

#[test]
fn a_result_that_depends_on_how_rows_come_is_seen() {
    struct RowsDiffer(Doubled);

    impl Case for RowsDiffer {
        fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
            self.0.run(kernels, isa)
        }

        fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
            let mut outputs = self.run(kernels, isa);
            outputs[0].values.iter_mut().skip(4).for_each(|out| *out = out.next_down());
            outputs
        }

        fn expected(&self) -> Vec<Vec<Expected>> {
            self.0.expected()
        }
    }

    let failure = failure(|shape, data| {
        let [length] = shape.sizes();
        let x = data.values("x", length);
        Box::new(RowsDiffer(Doubled { x, data, double, bound: f64::INFINITY }))
    });
    assert!(failure.case.starts_with("double:length=5:scalar:"), "{}", failure.case);
    assert!(failure.reason.starts_with("one row at a time: out differs"), "{}", failure.reason);
}

#[test]
fn an_element_that_is_not_written_is_seen() {
    let failure = failure(|shape, data| {
        case(shape, data, |x, out| double(&x[..x.len().min(8)], out), f64::MAX)
    });
    assert!(failure.case.starts_with("double:length=9:"), "{}", failure.case);
    assert!(failure.reason.contains("element 8 is NaN"), "{}", failure.reason);
}

#[test]
fn a_panic_is_a_failure() {
    let failure = failure(|shape, data| {
        case(shape, data, |x, _| assert!(x.len() < 2, "too long for me"), f64::INFINITY)
    });
    assert!(failure.case.starts_with("double:length=3:"), "{}", failure.case);
    assert!(failure.reason.contains("too long for me"), "{}", failure.reason);
}

#[test]
fn a_bound_that_nothing_comes_near_is_vacuous() {
    fn nearly(x: &[f32], out: &mut [f32]) {
        double(x, out);
        out.iter_mut().for_each(|out| *out = out.next_up());
    }
    let outcome = check_scalar(|shape, data| case(shape, data, nearly, 1e-6));
    assert!(outcome.is_right() && !outcome.is_vacuous());
    let outcome = check_scalar(|shape, data| case(shape, data, nearly, 1.0));
    assert!(outcome.is_vacuous());
    assert!(outcome.weakness.expect("it proves nothing").contains("vacuous"));
}

#[test]
fn cases_that_are_mostly_zeros_are_mistrusted() {
    fn nothing(_: &[f32], out: &mut [f32]) {
        out.fill(0.0);
    }
    let outcome = check_scalar(|shape, data| case(shape, data, nothing, 100.0));
    assert_eq!(outcome.mistrusted, outcome.cases);
    assert!(outcome.weakness.expect("it does nothing").contains("MISTRUSTED"));
}

#[test]
fn too_few_cases_are_a_weakness() {
    let outcome = check_scalar(|shape, data| case(shape, data, double, 0.0));
    assert_eq!(outcome.find_weakness(206), None);
    assert!(outcome.find_weakness(207).expect("one is missing").contains("206 of 207"));
}

#[test]
fn an_oracle_that_knows_nothing_is_a_weakness() {
    // One of the drawn cases is empty, and right.
    let silent = doubling(|shape, data| case(shape, data, double, f64::INFINITY));
    let told = weakness(check_scalar_op(&silent));
    assert!(told.starts_with("bounds: 1 of "), "{told}");
    let silent_on_long = doubling(|shape, data| {
        let [length] = shape.sizes();
        case(shape, data, double, if length > 90 { f64::INFINITY } else { 0.0 })
    });
    let told = weakness(check_scalar_op(&silent_on_long));
    assert!(told.starts_with("bounds: 1") && !told.starts_with("bounds: 1 of"), "{told}");
}

#[test]
fn a_comparison_that_compares_nothing_is_a_weakness() {
    let nothing = |_: &[Expected], _: &[f32]| Ok(Errors::default());
    let judges = Judges { within_bounds: nothing, ..Judges::OURS };
    let told = weakness(check_scalar_under(&Gate { judges, ..Gate::OURS }, &right(), 200));
    assert!(told.starts_with("bounds: 1 of "), "{told}");
}

#[test]
fn another_way_that_is_promised_and_not_run_is_a_weakness() {
    let told = weakness(check_scalar_op(&Op { checks: &[Check::OtherWay], ..right() }));
    assert!(told.starts_with("other-way: 0 of 206 "), "{told}");
}

#[test]
fn a_list_of_fixed_cases_that_is_empty_is_a_weakness() {
    let told = weakness(check_scalar_op(&Op { fixed_shapes: Vec::new, ..right() }));
    assert!(told.starts_with("memory: 0 of 0 "), "{told}");
}

#[test]
fn a_check_that_no_case_goes_through_is_a_weakness() {
    // The two fixed cases have neither kind of data.
    let promises: [(&[Check], &str); 2] =
        [(&[Check::Integers], "integers: 0 of 0 "), (&[Check::NonFinite], "non-finite: 0 of 0 ")];
    for (checks, expected) in promises {
        let op = Op { checks, ..right() };
        let told = weakness(check_scalar_under(&Gate::OURS, &op, 0));
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn every_planned_check_is_counted() {
    let outcome = check_scalar_op(&right());
    assert!(outcome.is_right(), "{:?}", outcome.weakness);
    assert_eq!(outcome.judged[&Check::Bits], 206);
    for (check, planned) in &outcome.planned {
        assert_eq!(outcome.judged[check], *planned, "{check:?}");
    }
}

#[test]
fn only_a_failed_case_has_a_command_that_shows_it() {
    let weak = || check_scalar(|shape, data| case(shape, data, |_, out| out.fill(0.0), 100.0));
    let wrong = || check_scalar(|shape, data| case(shape, data, |_, out| out.fill(0.0), 1e-9));
    let complaints = |outcome: Outcome| {
        let op = Op { name: "double", ..crate::cases::OPS[0] };
        Report { op, outcomes: vec![outcome], hashes: OpHashes::new() }.complaints()
    };
    let [weak, wrong] = [complaints(weak()), complaints(wrong())].map(|all| all.concat());
    assert!(weak.starts_with("double on scalar: MISTRUSTED"), "{weak}");
    assert!(wrong.starts_with("lfm2 check --repro 'double:length=3:scalar:"), "{wrong}");
}

#[test]
fn hashes_are_compared_unless_a_case_failed() {
    let mut outcome = check_scalar(|shape, data| case(shape, data, double, 0.0));
    let report = |outcome: &Outcome| Report {
        op: Op { name: "double", ..crate::cases::OPS[0] },
        outcomes: vec![outcome.clone()],
        hashes: OpHashes::from([("a".into(), "1".into())]),
    };
    let changes = report(&outcome).changes(&Gate::OURS, &Hashes::new());
    assert_eq!(changes.len(), 1);
    let complaint = hash_complaint(&report(&outcome).op, &changes).expect("a change");
    assert!(complaint.contains("kept: 1; the first is of a"), "{complaint}");
    outcome.failure = Some(Failure { case: "c".into(), by: Check::Bits, reason: "r".into() });
    assert_eq!(report(&outcome).changes(&Gate::OURS, &Hashes::new()), []);
}

#[test]
fn on_integers_nothing_but_the_exact_result_is_right() {
    fn nearly(x: &[f32], out: &mut [f32]) {
        double(x, out);
        out.iter_mut().for_each(|out| *out = out.next_up());
    }
    let op = doubling(|shape, data| {
        let [length] = shape.sizes();
        let x = data.values("x", length);
        Box::new(Doubled { x, data, double: nearly, bound: 1e30 })
    });
    let outcome = check_scalar_op(&Op { checks: &[Check::Bounds, Check::Integers], ..op });
    let failure = outcome.failure.expect("it is wrong");
    assert!(failure.case.ends_with(":integers"), "{}", failure.case);
}

/// Right within the bounds, in one rounding: better than ours, so with other bits.
fn softmax_in_64_bits(_: Isa, x: &mut [f32], length: usize) {
    for row in x.chunks_exact_mut(length) {
        let wide: Vec<f64> = row.iter().map(|&x| x.into()).collect();
        let has_nan = wide.iter().any(|x| x.is_nan());
        let largest = wide.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let largest = if has_nan { f64::NAN } else { largest };
        let sum: f64 = wide.iter().map(|x| (x - largest).exp()).sum();
        for (x, wide) in row.iter_mut().zip(wide) {
            *x = ((wide - largest).exp() / sum) as f32;
        }
    }
}

#[test]
fn kernels_that_promise_no_bits_are_held_to_bounds() {
    let outcome = |softmax, demand| {
        let gate = Gate::of(Kernels { softmax, ..Kernels::OURS }, demand);
        let op = Op::named("softmax").expect("one of them");
        check(&gate, op, &[Isa::best()], 40, 1, &|| ()).outcomes.remove(0)
    };
    let theirs = outcome(softmax_in_64_bits, Demand::Bounds);
    assert!(theirs.is_right(), "{:?} {:?}", theirs.failure, theirs.weakness);
    let theirs = outcome(softmax_in_64_bits, Demand::EqualBits);
    assert_eq!(theirs.failure.expect("other bits").by, Check::Bits);
    let nothing = outcome(|_, _, _| (), Demand::Bounds);
    assert_eq!(nothing.failure.expect("it does nothing").by, Check::Bounds);
}

#[test]
fn the_seed_decides_the_cases() {
    let op = doubling(|shape, data| case(shape, data, |x, out| double(&x[1..], out), 1.0));
    let op = Op { fixed_shapes: Vec::new, ..op };
    let first = |seed| {
        let report = check(&Gate::OURS, &op, &[Isa::Scalar(Scalar)], 50, seed, &|| ());
        report.outcomes[0].failure.clone().expect("it is wrong").case
    };
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
}
