//! Gates that do not see: wrong comparators, bounds, generators and counts.

use lfm2_kernels::Isa;
use lfm2_kernels::simd::Scalar;

use super::{Class, Fault, Kind};
use crate::cases::{Case, Output};
use crate::check::Outcome;
use crate::compare::{Errors, equal_bits, fraction, within_bounds};
use crate::data::Data;
use crate::fill::Fill;
use crate::gate::Judges;
use crate::hashes::hash_outputs;
use crate::oracle::expected::Expected;

const OURS: Judges = Judges::OURS;

const SCALAR: Isa = Isa::Scalar(Scalar);

const fn fault(name: &'static str, judges: Judges) -> Fault {
    // Where an error within a bound, an exact result and a fill of special numbers occur.
    const OPS: &[&str] = &["softmax", "linear_f32", "add"];
    Fault { name, class: Class::Judge, ops: OPS, kind: Kind::Judges(judges), equivalent: None }
}

/// Every one.
#[rustfmt::skip]
pub const FAULTS: &[Fault] = &[
    fault("bits always agree", Judges { equal_bits: |_, _| Ok(()), ..OURS }),
    fault("bits are compared as numbers", Judges { equal_bits: as_numbers, ..OURS }),
    fault("bits are blind to NaN", Judges { equal_bits: blind_to_nan, ..OURS }),
    fault("bits of the shorter slice alone", Judges { equal_bits: of_the_shorter, ..OURS }),
    fault("bounds always hold", Judges { within_bounds: |_, _| Ok(Errors::default()), ..OURS }),
    fault("bounds are blind to NaN", Judges { within_bounds: bounds_blind_to_nan, ..OURS }),
    fault("bounds hold wherever zero is expected", Judges { within_bounds: zero_is_free, ..OURS }),
    fault("bounds are checked a thousandfold", Judges { within_bounds: thousandfold, ..OURS }),
    fault("the oracle's bounds are a million times too wide", Judges { expect: a_million_times, ..OURS }),
    fault("the oracle knows no bounds", Judges { expect: no_bounds, ..OURS }),
    fault("the oracle is the kernel itself", Judges { expect: the_kernel_itself, ..OURS }),
    fault("the oracle expects nothing", Judges { expect: |_| Vec::new(), ..OURS }),
    fault("the seed is ignored", Judges { draw: |plan| Data { seed: 0, ..plan.data() }, ..OURS }),
    fault("the fill is ignored", Judges { draw: |plan| Data { fill: Fill::Normal, ..plan.data() }, ..OURS }),
    fault("scalar runs in place of what was asked for", Judges {
        run: |case, kernels, _| case.run(kernels, SCALAR),
        run_another_way: |case, kernels, _| case.run_another_way(kernels, SCALAR),
        ..OURS
    }),
    fault("the other way is skipped", Judges { run_another_way: |_, _, _| Vec::new(), ..OURS }),
    fault("writes beside an output are not seen", Judges { is_intact: |_| true, ..OURS }),
    fault("hashes do not depend on the last element", Judges { hash: without_the_last, ..OURS }),
    fault("hashes of NaN are taken", Judges { hash: of_anything, ..OURS }),
    fault("a missing hash is no change", Judges { changes: |kept, op, found| {
        kept.changes(op, found).into_iter().filter(|change| change.kept.is_some() && change.found.is_some()).collect()
    }, ..OURS }),
    fault("nothing is ever vacuous", Judges { weakness: |_, _| None, ..OURS }),
    fault("cases that did not run do not count", Judges { weakness: |outcome: &Outcome, _| outcome.find_weakness(outcome.cases as u64), ..OURS }),
];

fn as_numbers(expected: &[f32], actual: &[f32]) -> Result<(), crate::compare::Mismatch> {
    let zeros = |values: &[f32]| values.iter().map(|value| value + 0.0).collect::<Vec<_>>();
    equal_bits(&zeros(expected), &zeros(actual))
}

fn blind_to_nan(expected: &[f32], actual: &[f32]) -> Result<(), crate::compare::Mismatch> {
    let known: Vec<f32> = expected
        .iter()
        .zip(actual)
        .map(|(&expected, &actual)| if actual.is_nan() { actual } else { expected })
        .collect();
    equal_bits(if expected.len() == actual.len() { &known } else { expected }, actual)
}

fn of_the_shorter(expected: &[f32], actual: &[f32]) -> Result<(), crate::compare::Mismatch> {
    let length = expected.len().min(actual.len());
    equal_bits(&expected[..length], &actual[..length])
}

type Bounded = Result<Errors, crate::compare::Mismatch>;

/// `error > bound` is false for NaN.
fn bounds_blind_to_nan(expected: &[Expected], actual: &[f32]) -> Bounded {
    let known: Vec<f32> = expected
        .iter()
        .zip(actual)
        .map(|(expected, &actual)| if actual.is_nan() { expected.value as f32 } else { actual })
        .collect();
    within_bounds(expected, if expected.len() == actual.len() { &known } else { actual })
}

/// What a relative error does that divides by the smallest number in the place of zero.
fn zero_is_free(expected: &[Expected], actual: &[f32]) -> Bounded {
    let freed: Vec<Expected> = expected
        .iter()
        .map(|expected| match expected.value {
            0.0 => Expected { bound: f64::INFINITY, ..*expected },
            _ => *expected,
        })
        .collect();
    within_bounds(&freed, actual)
}

fn thousandfold(expected: &[Expected], actual: &[f32]) -> Bounded {
    let mut errors = within_bounds(&widened(expected, 1e3), actual)?;
    // It still reports the true fractions.
    let fractions = expected.iter().zip(actual).filter_map(|(e, a)| fraction(*e, *a));
    errors.worst = fractions.fold(0.0, f64::max);
    Ok(errors)
}

fn widened(expected: &[Expected], factor: f64) -> Vec<Expected> {
    expected.iter().map(|e| Expected { bound: e.bound * factor, ..*e }).collect()
}

fn a_million_times(case: &dyn Case) -> Vec<Vec<Expected>> {
    case.expected().iter().map(|expected| widened(expected, 1e6)).collect()
}

fn no_bounds(case: &dyn Case) -> Vec<Vec<Expected>> {
    case.expected().iter().map(|expected| widened(expected, f64::INFINITY)).collect()
}

fn the_kernel_itself(case: &dyn Case) -> Vec<Vec<Expected>> {
    let outputs = case.run(&crate::kernels::Kernels::OURS, SCALAR);
    let exact = |output: &Output, expected: &[Expected]| {
        let pairs = output.values.iter().zip(expected);
        pairs.map(|(&value, e)| Expected { value: value.into(), ..*e }).collect()
    };
    outputs.iter().zip(case.expected()).map(|(output, e)| exact(output, &e)).collect()
}

fn without_the_last(outputs: &[Output]) -> Result<String, String> {
    let shorter = |output: &Output| {
        let length = output.values.len().saturating_sub(1);
        Output::new(output.name, output.values[..length].into())
    };
    hash_outputs(&outputs.iter().map(shorter).collect::<Vec<_>>())
}

fn of_anything(outputs: &[Output]) -> Result<String, String> {
    let finite = |output: &Output| {
        let values: Vec<f32> =
            output.values.iter().map(|&v| if v.is_finite() { v } else { 0.0 }).collect();
        Output::new(output.name, values[..].into())
    };
    hash_outputs(&outputs.iter().map(finite).collect::<Vec<_>>())
}
