//! Functions of one number, for every number: the unary functions over all 2^32 inputs, and the tables of `rope` over all positions.
//!
//! [`sweep`] demands of each input that every instruction set gives the bits of the scalar reference, and that these are right: within
//! the derived limit where the result is finite, and the result of the formula in `f64` where it is infinite, NaN or a zero. What is
//! said of all inputs is thus proven, not sampled, unless a stride leaves some out.

use std::ops::Range as Span;

use lfm2_kernels::{Isa, ops};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::Serialize;

use crate::compare::{Mismatch, equal_bits};
use crate::data::mix;
use crate::oracle::unary::{EXP_RANGES, Exact, Range, SIGMOID_RANGES, SILU_RANGES};

pub mod rope;

/// A function of one number.
pub struct Function {
    /// The name of its operation.
    pub name: &'static str,
    kernel: fn(Isa, &mut [f32]),
    exact: fn(&Exact) -> f64,
    /// Its limits; the first whose `below` is above an input applies to it.
    pub ranges: &'static [Range],
    /// The [digest](Outcome::digest) of all inputs, kept: no limit is narrow enough to see every change of the last coefficients.
    pub digest: u64,
}

/// The functions.
pub static FUNCTIONS: [Function; 3] = [
    Function {
        name: "exp",
        kernel: ops::exp,
        exact: |exact| exact.exp,
        ranges: &EXP_RANGES,
        digest: 0x684c_fd75_e61c_07d2,
    },
    Function {
        name: "sigmoid",
        kernel: ops::sigmoid,
        exact: |exact| exact.sigmoid,
        ranges: &SIGMOID_RANGES,
        digest: 0x0cb1_1ca2_8a63_16b0,
    },
    Function {
        name: "silu",
        kernel: ops::silu,
        exact: |exact| exact.silu,
        ranges: &SILU_RANGES,
        digest: 0x65ee_d84b_0f7d_1bce,
    },
];

/// Bit patterns of `f32`: `first`, and every `stride`-th after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patterns {
    first: u32,
    stride: u32,
    count: u64,
}

impl Patterns {
    /// Every `stride`-th of all 2^32. An odd stride reaches all lanes, exponents and low bits.
    ///
    /// # Panics
    ///
    /// If `stride` is 0.
    pub fn all(stride: u32) -> Self {
        Self { first: 0, stride, count: (1_u64 << 32).div_ceil(u64::from(stride)) }
    }

    /// The `count` patterns around that of `x`.
    pub fn around(x: f32, count: u32) -> Self {
        Self { first: x.to_bits().wrapping_sub(count / 2), stride: 1, count: u64::from(count) }
    }

    /// How many there are.
    pub fn count(self) -> u64 {
        self.count
    }

    fn get(self, span: Span<u64>) -> impl Iterator<Item = f32> {
        // Truncation keeps what counts: patterns are taken modulo 2^32.
        span.map(move |i| {
            f32::from_bits(self.first.wrapping_add((i as u32).wrapping_mul(self.stride)))
        })
    }
}

/// An input, and what is wrong with its result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wrong {
    /// The input.
    #[serde(serialize_with = "as_bits")]
    pub input: f32,
    /// What is wrong.
    pub reason: String,
}

fn as_bits<S: serde::Serializer>(x: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&shown(*x))
}

/// A float for people and for machines: `-1.5e0 (0xbfc00000)`.
pub fn shown(x: f32) -> String {
    format!("{x:e} ({:#010x})", x.to_bits())
}

/// How many inputs have something wrong, and the one with the lowest bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Option<Wrong>,
}

impl Failures {
    fn add(&mut self, input: f32, reason: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.as_ref().is_none_or(|first| input.to_bits() < first.input.to_bits()) {
            self.first = Some(Wrong { input, reason: reason() });
        }
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        let bits = |failures: &Self| failures.first.as_ref().map(|first| first.input.to_bits());
        if bits(self).is_none_or(|own| bits(&other).is_some_and(|other| other < own)) {
            self.first = other.first;
        }
    }
}

/// The largest error in a range of inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// In the range's unit.
    pub error: f64,
    /// The input that has it; the one with the lowest bits if there are several.
    pub input: f32,
    /// Inputs whose errors were measured.
    pub count: u64,
}

impl Worst {
    const NONE: Self = Self { error: 0.0, input: f32::NAN, count: 0 };

    fn merge(&mut self, other: Self) {
        let is_worse = other.error > self.error
            || other.error == self.error && other.input.to_bits() < self.input.to_bits();
        if other.count > 0 && (self.count == 0 || is_worse) {
            (self.error, self.input) = (other.error, other.input);
        }
        self.count += other.count;
    }
}

/// What was found of a function.
pub struct Outcome {
    /// The function.
    pub function: &'static Function,
    /// The largest error in each of its ranges, in the scalar reference.
    pub worst: Vec<Worst>,
    /// Results of the scalar reference that are wrong: beyond the limit, or not the infinity, NaN or sign of the formula.
    pub wrong: Failures,
    /// Results of the other instruction sets that are not those of the scalar reference.
    pub different: Vec<(Isa, Failures)>,
    /// A sum of hashes of each input and what the scalar reference gives for it, all NaNs counting as one.
    pub digest: u64,
}

impl Outcome {
    fn new(function: &'static Function, isas: &[Isa]) -> Self {
        Self {
            function,
            worst: vec![Worst::NONE; function.ranges.len()],
            wrong: Failures::default(),
            different: isas.iter().map(|isa| (*isa, Failures::default())).collect(),
            digest: 0,
        }
    }

    fn merge(&mut self, other: Self) {
        for (worst, other) in self.worst.iter_mut().zip(other.worst) {
            worst.merge(other);
        }
        self.wrong.merge(other.wrong);
        self.digest = self.digest.wrapping_add(other.digest);
        for ((_, failures), (_, other)) in self.different.iter_mut().zip(other.different) {
            failures.merge(other);
        }
    }

    /// What is wrong, one line each: [`mistakes`](Self::mistakes), and ranges that prove nothing, since no error in them comes to a quarter
    /// of the limit.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = self.mistakes();
        for (range, worst) in self.function.ranges.iter().zip(&self.worst) {
            let Range { name, unit, limit, .. } = range;
            if worst.error < limit / 4.0 {
                complaints.push(format!(
                    "{}: {name}: proves nothing: the largest error of {} inputs is {:.4}, the limit {limit:.4} {}",
                    self.function.name,
                    worst.count,
                    worst.error,
                    unit.name()
                ));
            }
        }
        complaints
    }

    /// Wrong results, and instruction sets that are not equal: a line for each.
    pub fn mistakes(&self) -> Vec<String> {
        let name = self.function.name;
        let line = |what: &str, failures: &Failures| {
            let Wrong { input, reason } = failures.first.as_ref()?;
            let count = failures.count;
            Some(format!("{name}: {count} {what}, the first {name}({}): {reason}", shown(*input)))
        };
        let different = self.different.iter();
        let different = different
            .filter_map(|(isa, failures)| line(&format!("on {isa} unlike scalar"), failures));
        line("wrong", &self.wrong).into_iter().chain(different).collect()
    }

    /// What is wrong with the digest of all inputs.
    pub fn digest_complaint(&self) -> Option<String> {
        let Function { name, digest: kept, .. } = self.function;
        let found = self.digest;
        (found != *kept).then(|| {
            format!("{name}: the digest of all results is {found:#018x} instead of {kept:#018x}")
        })
    }

    /// Judges what the scalar reference found for `x`.
    fn judge(&mut self, x: f32, exact: f64, found: f32) {
        let canonical = if found.is_nan() { f32::NAN } else { found };
        let pair = u64::from(x.to_bits()) << 32 | u64::from(canonical.to_bits());
        self.digest = self.digest.wrapping_add(mix(pair));
        let rounded = exact as f32;
        if !rounded.is_finite() {
            let is_right = rounded == found || rounded.is_nan() && found.is_nan();
            if !is_right {
                self.wrong.add(x, || format!("{} instead of {rounded}", shown(found)));
            }
            return;
        }
        if !found.is_finite() || found.is_sign_negative() != exact.is_sign_negative() {
            self.wrong.add(x, || format!("{} instead of {exact:e}", shown(found)));
            return;
        }
        let ranges = self.function.ranges;
        let is_in = |range: &Range| f64::from(x) < range.below;
        let index = ranges.iter().position(is_in).unwrap_or(ranges.len() - 1);
        let Range { name, unit, limit, .. } = &ranges[index];
        let error = if f64::from(found) == exact { 0.0 } else { unit.error(x, exact, found) };
        self.worst[index].merge(Worst { error, input: x, count: 1 });
        if error > *limit {
            self.wrong.add(x, || {
                format!(
                    "{} is {error:.4} {} from {exact:e}: the limit for {name} is {limit:.4}",
                    shown(found),
                    unit.name()
                )
            });
        }
    }
}

/// Inputs of a block: as many as an operation takes without sharing them with other threads.
const BLOCK: u64 = 16 * 1024;

/// Tries every function for `patterns` in the scalar reference, and on `isas`. `progress` is told how many inputs are done.
pub fn sweep(patterns: Patterns, isas: &[Isa], progress: &(dyn Fn(u64) + Sync)) -> [Outcome; 3] {
    let none = || FUNCTIONS.each_ref().map(|function| Outcome::new(function, isas));
    let scalar = Isa::Scalar(lfm2_kernels::simd::Scalar);
    let block = |block: u64| {
        let span = block * BLOCK..((block + 1) * BLOCK).min(patterns.count);
        let inputs: Vec<f32> = patterns.get(span).collect();
        let exact: Vec<Exact> = inputs.iter().map(|x| Exact::of(*x)).collect();
        let mut outcomes = none();
        for outcome in &mut outcomes {
            let results = |isa| {
                let mut x = inputs.clone();
                (outcome.function.kernel)(isa, &mut x);
                x
            };
            let expected = results(scalar);
            let others: Vec<Vec<f32>> = isas.iter().map(|isa| results(*isa)).collect();
            for ((_, failures), actual) in outcome.different.iter_mut().zip(&others) {
                compare(&inputs, &expected, actual, failures);
            }
            for i in 0..inputs.len() {
                outcome.judge(inputs[i], (outcome.function.exact)(&exact[i]), expected[i]);
            }
        }
        progress(inputs.len() as u64);
        outcomes
    };
    let merge = |mut all: [Outcome; 3], other: [Outcome; 3]| {
        for (outcome, other) in all.iter_mut().zip(other) {
            outcome.merge(other);
        }
        all
    };
    (0..patterns.count.div_ceil(BLOCK)).into_par_iter().map(block).reduce(none, merge)
}

/// Adds each difference in bits to `failures`.
fn compare(inputs: &[f32], expected: &[f32], actual: &[f32], failures: &mut Failures) {
    let mut from = 0;
    while let Err(mismatch) = equal_bits(&expected[from..], &actual[from..]) {
        let Mismatch::Bits { index, expected, actual } = mismatch else {
            unreachable!("an operation in place changes no length")
        };
        failures.add(inputs[from + index], || {
            format!("{} instead of {}", shown(actual), shown(expected))
        });
        from += index + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_all_or_every_third_or_those_around() {
        assert_eq!(Patterns::all(1).count(), 1 << 32);
        assert_eq!(Patterns::all(3).count(), (1 << 32) / 3 + 1);
        let patterns = Patterns::all(3);
        let last = patterns.get(patterns.count - 1..patterns.count).next().map(f32::to_bits);
        assert_eq!(last, Some(u32::MAX));
        let around: Vec<u32> = Patterns::around(0.0, 5).get(0..5).map(f32::to_bits).collect();
        assert_eq!(around, [u32::MAX - 1, u32::MAX, 0, 1, 2]);
    }

    #[test]
    fn what_is_wrong_is_counted_with_the_lowest_first() {
        let judged = |x: f32, exact: f64, found: f32| {
            let mut outcome = Outcome::new(&FUNCTIONS[0], &[]);
            outcome.judge(x, exact, found);
            outcome.wrong.count
        };
        let next = 1.0 + f32::EPSILON;
        for (exact, found, wrong) in [
            (1.0, 1.0, 0),
            (1.0, next, 1),
            (1.0 + 0.9 * f64::from(f32::EPSILON), 1.0, 0),
            (1.0 + 0.93 * f64::from(f32::EPSILON), 1.0, 1),
            (1.0, f32::NAN, 1),
            (1.0, f32::INFINITY, 1),
            (f64::NAN, f32::NAN, 0),
            (f64::NAN, 1.0, 1),
            (1e39, f32::INFINITY, 0),
            (1e39, f32::MAX, 1),
            (1e39, f32::NEG_INFINITY, 1),
            (0.0, 0.0, 0),
            (0.0, -0.0, 1),
            (-0.0, 0.0, 1),
        ] {
            assert_eq!(judged(2.0, exact, found), wrong, "{found:e} for {exact:e}");
        }
        let mut outcome = Outcome::new(&FUNCTIONS[0], &[]);
        outcome.judge(3.0, 20.0, 21.0);
        outcome.judge(2.0, 7.0, 8.0);
        assert_eq!(outcome.wrong.count, 2);
        assert!(outcome.complaints()[0].contains("exp(2e0 (0x40000000))"), "{:?}", outcome.wrong);
    }

    #[test]
    fn differences_are_counted_and_nans_are_one() {
        let mut failures = Failures::default();
        let nan = f32::from_bits(0xFFC0_0001);
        let inputs = [1.0, 2.0, 3.0, 4.0];
        compare(&inputs, &[f32::NAN, 0.0, 1.0, 1.0], &[nan, -0.0, 1.0, 2.0], &mut failures);
        assert_eq!(failures.count, 2);
        assert_eq!(failures.first.expect("a difference").input, 2.0);
    }

    #[test]
    fn a_range_without_errors_proves_nothing() {
        let outcome = Outcome::new(&FUNCTIONS[0], &[]);
        assert_eq!(outcome.complaints().len(), FUNCTIONS[0].ranges.len());
    }
}
