//! Holds the verbs of an instruction set against those of plain Rust, one at a time and to the bit: what is wrong there needs no operation to be seen.

use std::fmt;

use lfm2_kernels::Isa;
use lfm2_kernels::simd::verbs::{Found, Operands, Takes, Verb};
use lfm2_kernels::simd::{LANES, Scalar};

use crate::check::caught;
use crate::compare::equal_bits;
use crate::data::Stream;
use crate::witness;

mod draw;

/// How often each verb is tried, on sixteen lanes each.
pub const TRIALS: usize = 2048;

/// A verb that is wrong.
#[derive(Debug)]
pub struct WrongVerb {
    /// Its name.
    pub name: &'static str,
    /// Where.
    pub isa: Isa,
    /// What it did.
    pub reason: String,
}

impl fmt::Display for WrongVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, isa, reason } = self;
        write!(f, "{name} on {isa}: {reason}")
    }
}

/// Tries each of `verbs` that `isa` has; returns how many those are.
///
/// # Errors
///
/// The first that is not what plain Rust has.
pub fn check(verbs: &[Verb], isa: Isa) -> Result<usize, WrongVerb> {
    let mut count = 0;
    for verb in verbs.iter().filter(|verb| verb.exists_on(isa)) {
        witness::announce_circumstances(&format!("in {} on {isa}", verb.name));
        let wrong = |reason| WrongVerb { name: verb.name, isa, reason };
        for trial in 0..TRIALS {
            let operands = draw::operands(verb.takes, Stream::new(trial as u64, verb.name));
            let expected = (verb.run)(Isa::Scalar(Scalar), &operands);
            let found = caught("it", || (verb.run)(isa, &operands)).map_err(wrong)?;
            compare(verb.takes, &operands, &expected, &found).map_err(wrong)?;
        }
        count += 1;
    }
    witness::announce_circumstances("");
    Ok(count)
}

fn compare(
    takes: Takes,
    operands: &Operands,
    expected: &Found,
    found: &Found,
) -> Result<(), String> {
    let index = match (expected, found) {
        (Found::Lanes(expected), Found::Lanes(found)) => {
            let differs = |i: &usize| equal_bits(&expected[*i..=*i], &found[*i..=*i]).is_err();
            (0..expected.len()).find(differs)
        }
        (Found::Words(expected), Found::Words(found)) => {
            (0..expected.len()).find(|&i| expected[i] != found[i])
        }
        _ => unreachable!("a verb returns the same on every instruction set"),
    };
    let Some(index) = index else { return Ok(()) };
    let [expected, found] = [expected, found].map(|result| match result {
        Found::Lanes(lanes) => float(lanes[index]),
        Found::Words(words) => integer(words[index]),
    });
    let of = described(takes, operands, index % LANES);
    Err(format!("element {index} is {found} instead of {expected}, of {of}"))
}

/// What a result depends on.
fn described(takes: Takes, operands: &Operands, lane: usize) -> String {
    let Operands { lanes, words, count } = operands;
    let floats = |values: &[f32]| values.iter().copied().map(float).collect::<Vec<_>>().join(", ");
    let integers =
        |values: &[i32]| values.iter().copied().map(integer).collect::<Vec<_>>().join(", ");
    let of_lane = |count: usize| floats(&lanes.map(|lanes| lanes[lane])[..count]);
    match takes {
        Takes::Lanes(operands) => format!("{}, count {count}", of_lane(operands)),
        Takes::AllLanes => floats(&lanes[0]),
        Takes::Words(operands) => {
            format!("{}, count {count}", integers(&words.map(|words| words[lane])[..operands]))
        }
        Takes::Scaled => of_lane(2),
        Takes::Integers => of_lane(1),
        Takes::Bytes => integers(&words.map(|words| words[lane])),
        Takes::Groups => format!(
            "activations {} and weights {}, {}",
            integers(&words[0]),
            integer(words[1][lane]),
            integer(words[2][lane])
        ),
        Takes::BrainFloats => {
            let [_, weights, activations] = words.map(|words| integer(words[lane]));
            format!("{}, {weights}, {activations}", float(lanes[0][lane]))
        }
    }
}

fn float(value: f32) -> String {
    format!("{value:e} ({:#010x})", value.to_bits())
}

fn integer(value: i32) -> String {
    format!("{value} ({value:#010x})")
}

#[cfg(test)]
mod tests {
    use lfm2_kernels::simd::verbs::VERBS;

    use super::*;

    #[test]
    fn all_are_right_on_every_isa() {
        for isa in Isa::available_for_integers() {
            let count = check(VERBS, isa).unwrap_or_else(|wrong| panic!("{wrong}"));
            let without = VERBS.iter().filter(|verb| !verb.exists_on(isa)).count();
            assert_eq!(count + without, VERBS.len());
        }
    }

    /// Wrong on all instruction sets but the one that it is compared with.
    #[test]
    fn one_that_is_wrong_is_named_with_its_operands() {
        fn unfused(isa: Isa, operands: &Operands) -> Found {
            let right = VERBS.iter().find(|verb| verb.name == "Lanes::mul_add").unwrap();
            if isa.name() == "scalar" {
                return (right.run)(isa, operands);
            }
            let [a, b, c] = operands.lanes;
            Found::Lanes((0..LANES).map(|i| a[i] * b[i] + c[i]).collect())
        }
        let isas = Isa::available();
        let [_, .., isa] = isas[..] else { return };
        let verb = Verb { name: "unfused", takes: Takes::Lanes(3), run: unfused };
        let wrong = check(&[verb], isa).unwrap_err().to_string();
        assert!(wrong.starts_with(&format!("unfused on {isa}: element ")), "{wrong}");
        assert!(wrong.matches("(0x").count() == 5, "{wrong}");

        let verb = Verb {
            name: "panics",
            takes: Takes::Lanes(1),
            run: |isa, x| match isa.name() {
                "scalar" => Found::Lanes(x.lanes[0].into()),
                _ => todo!(),
            },
        };
        let wrong = check(&[verb], isa).unwrap_err().to_string();
        assert_eq!(wrong, format!("panics on {isa}: it panicked: not yet implemented"));
    }
}
