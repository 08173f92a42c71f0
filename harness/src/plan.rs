//! Which cases a run takes, which checks each goes through, and how many each check must have judged at least.

use std::collections::BTreeMap;
use std::{fmt, iter};

use serde::Serialize;

use crate::buffer::Place;
use crate::case_line::{MOST_THREADS, Plan};
use crate::cases::Op;
use crate::data::Stream;
use crate::fill::Fill;
use crate::gate::Demand;

/// What the fixed cases depend on: never on the seed of a run, since their hashes are kept.
const FIXED_SEED: u64 = 22287;

/// How many random cases a quick run takes that does not say.
pub const DEFAULT_CASES: u32 = 64;

/// How thorough a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Each fixed shape with ordinary data, and again with another fill and more threads.
    Quick,
    /// Each fixed shape with every fill on every number of threads.
    Full,
}

impl Depth {
    /// How many random cases an operation takes unless a number is named.
    pub fn random_cases(self) -> u32 {
        match self {
            Self::Quick => DEFAULT_CASES,
            Self::Full => 32 * DEFAULT_CASES,
        }
    }
}

/// How many cases a run takes of each operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cases {
    /// What is done with the fixed shapes.
    pub depth: Depth,
    /// Random ones.
    pub random: u32,
}

impl From<u32> for Cases {
    /// So many random ones in a quick run.
    fn from(random: u32) -> Self {
        Self { depth: Depth::Quick, random }
    }
}

/// What is checked of a case, or of all cases together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// It runs and does not panic.
    Runs,
    /// Nothing is written beside an output.
    Margins,
    /// The bits of the scalar reference on one thread.
    Bits,
    /// The same where a byte touched beside a slice, or written to an input, ends the process.
    Memory,
    /// The same from several threads.
    Threads,
    /// The same from another way to run it, such as one row at a time.
    OtherWay,
    /// Every element within its bound of what the oracle expects.
    Bounds,
    /// The exact result where the data are integers.
    Integers,
    /// What the oracle expects where infinities and NaN are among the data.
    NonFinite,
    /// The hash that is kept for the case, whose result is finite.
    Hashes,
    /// Enough cases ran, their results are not trivial, and some error comes near its bound.
    Proof,
}

impl Check {
    /// Those that compare results, so that what they compared is counted.
    pub const COUNTED: [Self; 8] = [
        Self::Bits,
        Self::Memory,
        Self::Threads,
        Self::OtherWay,
        Self::Bounds,
        Self::Integers,
        Self::NonFinite,
        Self::Hashes,
    ];

    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Margins => "margins",
            Self::Bits => "bits",
            Self::Memory => "memory",
            Self::Threads => "threads",
            Self::OtherWay => "other-way",
            Self::Bounds => "bounds",
            Self::Integers => "integers",
            Self::NonFinite => "non-finite",
            Self::Hashes => "hashes",
            Self::Proof => "proof",
        }
    }

    /// What it demands.
    pub fn demand(self) -> &'static str {
        match self {
            Self::Runs => "an end without a panic",
            Self::Margins => "nothing written beside an output",
            Self::Bits => "the bits of the scalar reference on one thread",
            Self::Memory => "nothing touched beside a slice, nothing written to an input",
            Self::Threads => "the same bits from several threads",
            Self::OtherWay => "the same bits from another way to run it, such as one row at a time",
            Self::Bounds => "every element within its bound of what the f64 oracle expects",
            Self::Integers => "the exact result where the data are integers",
            Self::NonFinite => {
                "what the oracle expects where infinities and NaN are among the data"
            }
            Self::Hashes => "the hash in fixtures/hashes.json",
            Self::Proof => "results that are not trivial, and an error that comes near its bound",
        }
    }

    /// Those of [`COUNTED`](Self::COUNTED) that results of an operation go through.
    pub fn of(op: &Op, demand: Demand) -> Vec<Self> {
        let applies = |check: &Self| match check {
            Self::Memory => true,
            Self::Bits | Self::Threads | Self::Hashes => demand == Demand::EqualBits,
            Self::OtherWay => demand == Demand::EqualBits && op.checks.contains(check),
            _ => op.checks.contains(check),
        };
        Self::COUNTED.into_iter().filter(applies).collect()
    }

    /// Whether it judges each case, whatever it is.
    fn judges_all(self) -> bool {
        matches!(self, Self::Bits | Self::OtherWay)
    }

    /// Whether it depends on what is drawn if it judges a random case.
    pub(crate) fn depends_on_draw(self) -> bool {
        !self.judges_all() && self != Self::Hashes
    }

    /// Whether it must judge this case, if it is one of the operation's.
    pub fn judges(self, plan: &Plan) -> bool {
        match self {
            Self::Runs | Self::Margins | Self::Bits | Self::OtherWay | Self::Proof => true,
            Self::Threads => plan.threads > 1,
            Self::Memory => plan.place != Place::Ordinary,
            // The oracle and the hashes know the result of the same case in ordinary memory.
            _ if plan.place != Place::Ordinary => false,
            Self::Bounds => plan.fill.has_finite_results(),
            Self::Integers => plan.fill == Fill::Integers,
            Self::NonFinite => !plan.fill.is_finite(),
            Self::Hashes => plan.fill == Fill::Normal && plan.threads == 1,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A number of cases for each check.
pub type Counts = BTreeMap<Check, usize>;

/// How many cases each check of an operation must have judged at least, on every instruction set. Random cases count where a check
/// judges each, whatever is drawn.
pub fn floor(op: &Op, demand: Demand, cases: Cases) -> Counts {
    let fixed = fixed_plans(op, cases.depth);
    let least = |check: Check| {
        let of_fixed = fixed.iter().filter(|plan| check.judges(plan)).count();
        let of_random = if check.judges_all() { cases.random as usize } else { 0 };
        of_fixed + of_random
    };
    Check::of(op, demand).into_iter().map(|check| (check, least(check))).collect()
}

/// How many cases a run takes if none fails.
pub fn case_count(op: &Op, cases: impl Into<Cases>) -> u64 {
    let cases = cases.into();
    fixed_plans(op, cases.depth).len() as u64 + u64::from(cases.random)
}

/// The cases that every run takes, always the same. Those with ordinary data on one thread are in both depths, and have a hash. What a
/// quick run takes runs twice more in guarded memory, then and there.
pub fn fixed_plans(op: &Op, depth: Depth) -> Vec<Plan> {
    let stream = Stream::new(FIXED_SEED, op.name);
    let mut plans = Vec::new();
    for (i, shape) in (op.fixed_shapes)().into_iter().enumerate() {
        let others = &Fill::ALL[1..];
        let quick = [(Fill::Normal, 1), (others[i % others.len()], 2 + i % 2)];
        let full = Fill::ALL
            .into_iter()
            .flat_map(|fill| (1..=MOST_THREADS).map(move |threads| (fill, threads)));
        let kinds: Vec<_> = match depth {
            Depth::Quick => quick.to_vec(),
            Depth::Full => full.collect(),
        };
        let seed = stream.bits(i as u64) as u32;
        for (fill, threads) in kinds {
            let guarded: &[Place] =
                if quick.contains(&(fill, threads)) { &Place::GUARDED } else { &[] };
            let places = iter::once(Place::Ordinary).chain(guarded.iter().copied());
            plans.extend(places.map(|place| Plan {
                shape: shape.clone(),
                seed,
                fill,
                threads,
                place,
            }));
        }
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::OPS;

    #[test]
    fn a_full_run_holds_a_quick_one() {
        for op in OPS {
            let [quick, full] = [Depth::Quick, Depth::Full].map(|depth| fixed_plans(op, depth));
            let shapes = (op.fixed_shapes)().len();
            assert_eq!((quick.len(), full.len()), (6 * shapes, 52 * shapes), "{}", op.name);
            assert!(quick.iter().all(|plan| full.contains(plan)), "{}", op.name);
            let hashed = |plans: &[Plan]| -> Vec<Plan> {
                plans.iter().filter(|plan| Check::Hashes.judges(plan)).cloned().collect()
            };
            assert_eq!(hashed(&quick), hashed(&full), "{}", op.name);
        }
    }

    #[test]
    fn fixed_cases_go_through_every_check() {
        for op in OPS {
            let fixed = fixed_plans(op, Depth::Quick);
            for (check, least) in floor(op, Demand::EqualBits, 0.into()) {
                assert!(least > 0, "{}: no fixed case has {check:?}", op.name);
            }
            assert_eq!(floor(op, Demand::EqualBits, 10.into())[&Check::Bits], fixed.len() + 10);
            let held_to_bounds = floor(op, Demand::Bounds, 10.into());
            let applies = |check: &Check| *check == Check::Memory || op.checks.contains(check);
            assert!(held_to_bounds.keys().all(applies), "{}", op.name);
        }
    }
}
