//! Functions of one number, for some of the numbers that `lfm2 check --exhaustive` tries all of.

use std::sync::Arc;

use lfm2_harness::coverage::Coverage;
use lfm2_harness::exhaustive::{Outcome, Patterns, rope, sweep};
use lfm2_kernels::{Isa, ops};
use libtest_mimic::{Failed, Trial};

/// The suite's name in the table of coverage.
const SUITE: &str = "unary";

/// Some 700,000 inputs: 2,700 for each sign and exponent.
const STRIDE: u32 = 6151;

/// A thousand positions of each table: all of them would take minutes under emulation.
const POSITION_STRIDE: u32 = 131;

pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    coverage.announce(SUITE);
    let coverage = Arc::clone(coverage);
    vec![
        Trial::test("unary::every_exponent", move || {
            let outcomes = sweep(Patterns::all(STRIDE), &Isa::available(), &|_| ());
            for isa in Isa::available() {
                coverage.record(SUITE, isa, outcomes.len());
            }
            verdict(outcomes.iter().flat_map(Outcome::complaints))
        }),
        Trial::test("unary::around_thresholds", around_thresholds),
        Trial::test("unary::defined_results", defined_results),
        Trial::test("unary::rope_tables", || {
            let sweep = |table| rope::sweep(table, POSITION_STRIDE, &|_| ());
            verdict(rope::TABLES.map(sweep).iter().flat_map(rope::Outcome::complaints))
        }),
    ]
}

fn verdict(complaints: impl Iterator<Item = String>) -> Result<(), Failed> {
    let complaints: Vec<String> = complaints.collect();
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n").into()) }
}

/// Where results become subnormal, zero or infinite, where `exp` cuts its input, and where exponents and signs begin.
fn around_thresholds() -> Result<(), Failed> {
    let ln_2 = std::f32::consts::LN_2;
    let thresholds =
        [0.0, -0.0, -87.336_55, -103.279, -103.972, -104.0, -105.0, 88.722_84, 89.0, ln_2 / 2.0];
    let exponents = (0..=255).map(|exponent| f32::from_bits(exponent << 23));
    let both_signs = exponents.flat_map(|x| [x, -x]);
    let isas = Isa::available();
    let mistakes = |patterns| {
        let outcomes = sweep(patterns, &isas, &|_| ());
        outcomes.iter().flat_map(Outcome::mistakes).collect::<Vec<_>>()
    };
    let around = thresholds.map(|x| Patterns::around(x, 4096));
    let beginnings = both_signs.map(|x| Patterns::around(x, 64));
    verdict(around.into_iter().chain(beginnings).flat_map(mistakes))
}

/// As the documentation of the functions says, whatever the formula in `f64` gives.
fn defined_results() -> Result<(), Failed> {
    const INFINITY: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    type Kernel = fn(Isa, &mut [f32]);
    let functions: [(&str, Kernel, [f32; 8]); 3] = [
        ("exp", ops::exp, [1.0, 1.0, INFINITY, 0.0, NAN, INFINITY, 0.0, f32::from_bits(1)]),
        ("sigmoid", ops::sigmoid, [0.5, 0.5, 1.0, 0.0, NAN, 1.0, 0.0, f32::from_bits(1)]),
        (
            "silu",
            ops::silu,
            [0.0, -0.0, INFINITY, NAN, NAN, f32::MAX, -0.0, -103.0 * f32::from_bits(1)],
        ),
    ];
    let inputs = [0.0, -0.0, INFINITY, -INFINITY, NAN, f32::MAX, -f32::MAX, -103.0];
    for (name, kernel, expected) in functions {
        for isa in Isa::available() {
            let mut found = inputs;
            kernel(isa, &mut found);
            for ((x, expected), found) in inputs.iter().zip(expected).zip(found) {
                let both_nan = expected.is_nan() && found.is_nan();
                if !both_nan && expected.to_bits() != found.to_bits() {
                    return Err(
                        format!("{name}({x:e}) is {found:e} on {isa}, not {expected:e}").into()
                    );
                }
            }
        }
    }
    Ok(())
}
