//! The gate's own test: judges that know what is right and what is wrong. It runs before they judge anything.

use lfm2_kernels::Isa;
use proptest::strategy::{BoxedStrategy, Strategy};

use crate::buffer::{Input, Place};
use crate::case_line::Plan;
use crate::cases::{Case, Dimension, Op, Output, Shape};
use crate::check::{Check, Outcome, check};
use crate::data::Data;
use crate::fill::Fill;
use crate::gate::{Gate, Judges};
use crate::hashes::{Hashes, OpHashes};
use crate::kernels::Kernels;
use crate::oracle::expected::Expected;

/// Whether these judges pass what is right and fail what is wrong.
///
/// # Errors
///
/// What they got wrong.
pub fn self_test(judges: &Judges) -> Result<(), String> {
    bits(judges)?;
    bounds(judges)?;
    data(judges)?;
    hashes(judges)?;
    planted(judges)
}

fn demand(what: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_string()) }
}

fn bits(judges: &Judges) -> Result<(), String> {
    let equal = |a: &[f32], b: &[f32]| (judges.equal_bits)(a, b).is_ok();
    let values = [0.0, -0.0, 1.5, f32::NEG_INFINITY, f32::from_bits(1), f32::NAN];
    demand("equal bits are equal", equal(&values, &values))?;
    demand("all NaNs are one", equal(&[f32::NAN], &[-f32::NAN]))?;
    for (a, b) in [
        (0.0, -0.0),
        (0.0, f32::from_bits(1)),
        (1.0, 1.0 + f32::EPSILON),
        (1.0, -1.0),
        (f32::INFINITY, f32::MAX),
        (1.0, f32::NAN),
        (f32::INFINITY, f32::NAN),
    ] {
        let differ = !equal(&[7.0, a], &[7.0, b]) && !equal(&[7.0, b], &[7.0, a]);
        demand(&format!("the bits of {a:e} and {b:e} differ"), differ)?;
    }
    demand("lengths differ", !equal(&[1.0], &[1.0, 2.0]) && !equal(&[1.0, 2.0], &[1.0]))
}

fn bounds(judges: &Judges) -> Result<(), String> {
    let holds = |value, bound, actual: f32| {
        (judges.within_bounds)(&[Expected { value, bound }], &[actual]).is_ok()
    };
    demand("an error within its bound is", holds(1.0, 0.5, 1.25))?;
    demand(
        "an infinite result that is expected is right",
        holds(f64::INFINITY, 1.0, f32::INFINITY),
    )?;
    for (value, bound, actual) in [
        (1.0, 0.5, 1.75),
        (1.0, 0.5, 400.0),
        (0.0, 1e-40, 1e-38),
        (0.0, 0.0, f32::from_bits(1)),
        (3.0, 0.0, 3.0 + 2.0 * f32::EPSILON),
        (1.0, 1.0, f32::NAN),
        (1.0, 1.0, f32::INFINITY),
        (f64::NAN, 1.0, 1.0),
    ] {
        let what = format!("{actual:e} is not within {bound:e} of {value:e}");
        demand(&what, !holds(value, bound, actual))?;
    }
    let none: &[Expected] = &[];
    demand(
        "a result that nothing is known of is too long",
        (judges.within_bounds)(none, &[1.0]).is_err(),
    )
}

fn data(judges: &Judges) -> Result<(), String> {
    let draw = |seed, fill| {
        let plan =
            Plan { shape: Shape::from([64]), seed, fill, threads: 1, place: Place::Ordinary };
        (judges.draw)(&plan).values("x", 64).to_vec()
    };
    demand("a seed gives the same data", draw(1, Fill::Normal) == draw(1, Fill::Normal))?;
    demand("seeds give other data", draw(1, Fill::Normal) != draw(2, Fill::Normal))?;
    let are_integers = draw(1, Fill::Integers).iter().all(|value| value.fract() == 0.0);
    demand("integers are integers", are_integers)?;
    let is_special = draw(1, Fill::NonFinite).iter().any(|value| !value.is_finite());
    let is_special = is_special || draw(2, Fill::NonFinite).iter().any(|value| !value.is_finite());
    demand("special numbers are drawn", is_special)
}

fn hashes(judges: &Judges) -> Result<(), String> {
    let hash = |values: &[f32]| (judges.hash)(&[Output::new("out", values.into())]);
    demand("equal results have one hash", hash(&[1.0, 0.0]) == hash(&[1.0, 0.0]))?;
    for other in [&[1.0, -0.0][..], &[1.0 + f32::EPSILON, 0.0], &[1.0], &[1.0, 0.0, 0.0]] {
        demand("other results have other hashes", hash(&[1.0, 0.0]) != hash(other))?;
    }
    demand("what is not finite has no hash", hash(&[1.0, f32::NAN]).is_err())?;

    let of = |pairs: &[(&str, &str)]| -> OpHashes {
        pairs.iter().map(|(case, hash)| (case.to_string(), hash.to_string())).collect()
    };
    let mut kept = Hashes::new();
    kept.operations.insert("double".into(), of(&[("a", "1"), ("b", "2")]));
    let count = |found: &[(&str, &str)]| (judges.changes)(&kept, "double", &of(found)).len();
    demand("kept hashes are no change", count(&[("a", "1"), ("b", "2")]) == 0)?;
    demand("a changed hash is seen", count(&[("a", "1"), ("b", "3")]) == 1)?;
    demand("a missing hash is seen", count(&[("a", "1")]) == 1)?;
    demand("a new hash is seen", count(&[("a", "1"), ("b", "2"), ("c", "3")]) == 1)
}

/// An operation that doubles its input, rightly or not.
struct Double {
    x: Input,
    data: Data,
    bound: f64,
    double: fn(Isa, &[f32], &mut [f32]),
    /// Whether another way changes the tenth element and later.
    differs: bool,
    /// Whether it writes beside its output: in ordinary memory, since it would not survive that elsewhere.
    spoils: bool,
}

impl Case for Double {
    fn run(&self, _: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.x.len());
        (self.double)(isa, &self.x, &mut out);
        if self.spoils && self.data.place == Place::Ordinary {
            out.write_at(self.x.len() as isize, 0.0);
        }
        vec![Output::new("out", out)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        let expected = |&x: &f32| Expected { value: 2.0 * f64::from(x), bound: self.bound };
        vec![self.x.iter().map(expected).collect()]
    }

    fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut outputs = self.run(kernels, isa);
        if self.differs {
            outputs[0].values.iter_mut().skip(9).for_each(|out| *out = out.next_up());
        }
        outputs
    }
}

/// As [`Op::make`].
type Make = fn(&Shape, Data) -> Box<dyn Case>;

fn rightly(x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x + x;
    }
}

fn double(shape: &Shape, data: Data, bound: f64, double: fn(Isa, &[f32], &mut [f32])) -> Double {
    let [length] = shape.sizes();
    // Numbers whose doubles are exact and finite.
    let data = Data { fill: Fill::Normal, ..data };
    Double { x: data.values("x", length), data, bound, double, differs: false, spoils: false }
}

fn lengths() -> BoxedStrategy<Shape> {
    (1..40_usize).prop_map(|length| Shape::from([length])).boxed()
}

/// Operations that are wrong on purpose, and one that is right.
fn planted(judges: &Judges) -> Result<(), String> {
    let right: Make = |shape, data| Box::new(double(shape, data, 0.0, |_, x, out| rightly(x, out)));
    let outcome = outcome(judges, right, fixed, CASES);
    demand("what is right passes", outcome.is_right())?;
    let planned = outcome.cases as u64;
    demand(
        "a case that did not run is missed",
        (judges.weakness)(&outcome, planned + 1).is_some(),
    )?;
    let wrong: [(&str, Make); 9] = [
        ("an element that is not written", |shape, data| {
            Box::new(double(shape, data, 0.0, |_, x, out| rightly(&x[..x.len() - 1], out)))
        }),
        ("a wrong element", |shape, data| {
            Box::new(double(shape, data, 1e-3, |_, x, out| {
                rightly(x, out);
                out[0] += 1.0;
            }))
        }),
        ("a result that depends on threads", |shape, data| {
            Box::new(double(shape, data, f64::from(f32::EPSILON), |_, x, out| {
                rightly(x, out);
                if rayon::current_num_threads() > 1 {
                    out[0] = out[0].next_up();
                }
            }))
        }),
        ("another way that gives other bits", |shape, data| {
            let double = double(shape, data, 0.0, |_, x, out| rightly(x, out));
            Box::new(Double { differs: true, ..double })
        }),
        ("a write beside the output", |shape, data| {
            let double = double(shape, data, 0.0, |_, x, out| rightly(x, out));
            Box::new(Double { spoils: true, ..double })
        }),
        ("a bound that proves nothing", |shape, data| {
            Box::new(double(shape, data, 1.0, |_, x, out| {
                rightly(x, out);
                out[0] = out[0].next_up();
            }))
        }),
        ("a result without bounds", |shape, data| {
            Box::new(double(shape, data, f64::INFINITY, |_, x, out| rightly(x, out)))
        }),
        ("results that are all zero", |shape, data| {
            Box::new(double(shape, data, 100.0, |_, _, out| out.fill(0.0)))
        }),
        ("what is wrong beside scalar alone", |shape, data| {
            Box::new(double(shape, data, 0.0, |isa, x, out| {
                rightly(x, out);
                if isa.name() != "scalar" {
                    out[0] = out[0].next_up();
                }
            }))
        }),
    ];
    // Where scalar is all there is, nothing can be wrong beside it.
    let count = wrong.len() - usize::from(Isa::available().len() == 1);
    for (what, make) in &wrong[..count] {
        demand(&format!("{what} is seen"), !self::outcome(judges, *make, fixed, CASES).is_right())?;
    }
    demand("no cases are no proof", !self::outcome(judges, right, Vec::new, 0).is_right())
}

const LENGTH: &[Dimension] = &[Dimension::any("length")];

/// Random cases of each.
const CASES: u32 = 24;

fn fixed() -> Vec<Shape> {
    vec![Shape::from([3]), Shape::from([17])]
}

fn outcome(judges: &Judges, make: Make, fixed_shapes: fn() -> Vec<Shape>, cases: u32) -> Outcome {
    let op = Op {
        name: "double",
        format: None,
        checks: &[Check::OtherWay, Check::Bounds],
        dimensions: LENGTH,
        fit_together: Shape::is_affordable,
        fixed_shapes,
        drawn_shapes: lengths,
        make,
    };
    let gate = Gate { judges: *judges, shrinks: false, ..Gate::OURS };
    check(&gate, &op, &[Isa::best()], cases, 1, &|| ()).outcomes.remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_judges_see() {
        assert_eq!(self_test(&Judges::OURS), Ok(()));
    }
}
