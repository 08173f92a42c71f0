//! Seeded faults: realistic bugs, switched on one at a time, each of which the gate must catch.
//!
//! A lane fault is an instruction set with one wrong verb, on which every operation runs unchanged; an operation's or a state's is a
//! wrong twin in the [table of functions](Kernels); a line is one of eighteen wrong lines where nothing can be put between; a judge's
//! is a wrong comparator, bound or generator in the place of [`Judges`].

use lfm2_kernels::Isa;
use lfm2_kernels::faults::{self, LaneFault, Line};

use crate::cases::{OPS, Op};
use crate::check::{Check, DEFAULT_SEED, check};
use crate::gate::{Demand, Gate, Judges};
use crate::hashes::Hashes;
use crate::kernels::Kernels;
use crate::self_test::self_test;

mod judges;
mod operations;

/// A bug that can be switched on.
#[derive(Clone, Copy)]
pub struct Fault {
    /// What goes wrong, in a few words.
    pub name: &'static str,
    /// What kind of bug it is.
    pub class: Class,
    /// The operations where it lives, or none for all.
    pub ops: &'static [&'static str],
    /// If no result can show it, why.
    pub equivalent: Option<&'static str>,
    kind: Kind,
}

/// Kinds of bugs, after those that ports of LFM2 had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The elements after the last whole vector.
    Tail,
    /// A sum that is not begun anew, or taken twice.
    Accumulator,
    /// Wrong row, head, slot or stride.
    Indexing,
    /// Which keys a query may see.
    Mask,
    /// A wrong formula.
    Formula,
    /// What is remembered between calls.
    State,
    /// Who computes what.
    Threads,
    /// In which order, with how many roundings.
    Order,
    /// Too few bits, subnormals, infinities and NaN.
    Precision,
    /// Nothing was computed.
    Trivial,
    /// The gate itself.
    Judge,
}

#[derive(Clone, Copy)]
enum Kind {
    Lanes(LaneFault),
    Line(Line),
    Kernels(Kernels),
    Judges(Judges),
}

/// What came of a fault on an instruction set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something went red.
    Caught {
        /// The check.
        by: String,
        /// The operation, or the gate's self-test.
        at: &'static str,
        /// How many cases had run.
        after: usize,
    },
    /// Everything stayed green, though the fault did run.
    Survived,
    /// Everything stayed green, and the fault never ran.
    Unreached,
}

impl Fault {
    /// Every one.
    pub fn all() -> Vec<Self> {
        let lanes = LaneFault::ALL.map(of_lanes);
        let lines = Line::ALL.map(of_line);
        [&lanes[..], &lines, operations::FAULTS, judges::FAULTS].concat()
    }

    /// Whether it must be looked for on every instruction set, or once.
    pub fn is_of_the_gate(&self) -> bool {
        matches!(self.kind, Kind::Judges(_))
    }

    /// Whether there is what it makes wrong on `isa`.
    pub fn exists_on(&self, isa: Isa) -> bool {
        match self.kind {
            Kind::Lanes(fault) => fault.exists_on(isa),
            _ => true,
        }
    }

    /// Whether it may live in `op`.
    pub fn lives_in(&self, op: &Op) -> bool {
        self.ops.is_empty() || self.ops.contains(&op.name)
    }

    /// Runs the gate on `isa` with this fault on, and `cases` random cases for each operation, until something goes red.
    ///
    /// # Errors
    ///
    /// If the kept hashes cannot be read.
    pub fn try_on(&self, isa: Isa, cases: u32) -> Result<Verdict, String> {
        let mut gate = Gate { shrinks: false, ..Gate::of(Kernels::OURS, Demand::EqualBits) };
        match self.kind {
            Kind::Lanes(fault) => faults::switch_lanes(fault, isa),
            Kind::Line(line) => faults::switch_line(line),
            // One source for every instruction set: the reference has the bug, too.
            Kind::Kernels(kernels) => (gate.kernels, gate.reference) = (kernels, kernels),
            Kind::Judges(judges) => gate.judges = judges,
        }
        let verdict = self.first_red(&gate, isa, cases);
        faults::switch_off();
        verdict
    }

    fn first_red(&self, gate: &Gate, isa: Isa, cases: u32) -> Result<Verdict, String> {
        let caught =
            |by: &dyn ToString, at, after| Ok(Verdict::Caught { by: by.to_string(), at, after });
        if let Kind::Judges(judges) = &self.kind
            && let Err(reason) = self_test(judges)
        {
            return caught(&reason, "self-test", 0);
        }
        let kept = Hashes::kept()?;
        let mut before = 0;
        for op in OPS.iter().filter(|op| self.lives_in(op)) {
            let report = check(gate, op, &[isa], cases, DEFAULT_SEED, &|| ());
            let outcome = &report.outcomes[0];
            let after = before + outcome.cases;
            if let Some(failure) = &outcome.failure {
                return caught(&failure.by, op.name, after + 1);
            }
            if outcome.weakness.is_some() {
                return caught(&Check::Proof, op.name, after);
            }
            if !report.changes(gate, &kept).is_empty() {
                return caught(&Check::Hashes, op.name, after);
            }
            before = after;
        }
        let has_run = matches!(self.kind, Kind::Judges(_)) || faults::is_reached();
        Ok(if has_run { Verdict::Survived } else { Verdict::Unreached })
    }
}

fn of_lanes(fault: LaneFault) -> Fault {
    let (name, class) = match fault {
        LaneFault::UnfusedMultiplyAdd => ("lanes: multiply-add rounds twice", Class::Order),
        LaneFault::SumOfNeighbours => ("lanes: sum adds neighbours first", Class::Order),
        LaneFault::SumWithoutLastLane => ("lanes: sum without the last lane", Class::Accumulator),
        LaneFault::LargestWithoutLastLane => ("lanes: largest without the last lane", Class::Tail),
        LaneFault::MaxPrefersFirst => ("lanes: max lets its first operand win", Class::Precision),
        LaneFault::MinPrefersFirst => ("lanes: min lets its first operand win", Class::Precision),
        LaneFault::TailFilledWithOnes => ("lanes: partial load fills with ones", Class::Tail),
        LaneFault::TailReadShort => ("lanes: partial load drops an element", Class::Tail),
        LaneFault::TailWrittenShort => ("lanes: partial store drops an element", Class::Tail),
        LaneFault::SelectBySignBit => ("lanes: select goes by the sign bit", Class::Precision),
        LaneFault::ScaleFlushesSubnormals => {
            ("lanes: scaling flushes subnormals", Class::Precision)
        }
        LaneFault::ScaleCutsSubnormals => ("lanes: scaling cuts subnormals", Class::Precision),
        LaneFault::ExponentLosesABit => ("lanes: exponent loses a bit", Class::Precision),
        LaneFault::AbsKeepsSign => ("lanes: abs keeps the sign", Class::Formula),
        LaneFault::DivideByReciprocal => ("lanes: division by reciprocal", Class::Order),
        LaneFault::AddFlushesSubnormals => ("lanes: sums flush subnormals", Class::Precision),
        LaneFault::HalvesFlushSubnormals => ("lanes: halves flush subnormals", Class::Precision),
        LaneFault::BrainFloatsLoseABit => ("lanes: brain floats lose a bit", Class::Precision),
        LaneFault::SubtractAddsNegative => ("lanes: subtraction adds the negative", Class::Order),
        LaneFault::LoadCopies => ("lanes: load copies", Class::Order),
        LaneFault::DotsSaturate => ("lanes: dots saturate", Class::Precision),
        LaneFault::DotsDropAByte => ("lanes: dots drop a byte", Class::Accumulator),
        LaneFault::DotsReadUnsigned => ("lanes: dots read activations unsigned", Class::Formula),
        LaneFault::DotsKeepTheBias => ("lanes: dots keep the bias", Class::Accumulator),
        LaneFault::ShiftDropsTheSign => ("lanes: shift drops the sign", Class::Formula),
        LaneFault::ShiftStopsShort => ("lanes: shift stops a bit short", Class::Indexing),
        LaneFault::WordsReadUnsigned => ("lanes: words read unsigned", Class::Formula),
        LaneFault::BrainDotsSwapProducts => ("lanes: brain dots swap products", Class::Order),
        LaneFault::BrainDotsAddProducts => ("lanes: brain dots add products first", Class::Order),
        LaneFault::BrainDotsFlushSubnormals => {
            ("lanes: brain dots flush subnormals", Class::Precision)
        }
    };
    let equivalent = match fault {
        LaneFault::TailFilledWithOnes => {
            Some("the lanes beyond a tail are never stored; reductions pad their tails themselves")
        }
        LaneFault::SelectBySignBit => {
            Some("only SiLU selects, and at -0 it chooses between e^-0 and 1, at NaN between NaNs")
        }
        LaneFault::SubtractAddsNegative => Some("a - b and a + (-b) differ in the sign of NaN"),
        LaneFault::LoadCopies => Some("the bits are the same"),
        LaneFault::BrainDotsFlushSubnormals => {
            Some("no factor is below 2^-55, so neither factors nor sums are subnormal")
        }
        _ => None,
    };
    // Operations with the verb: all that have it would take minutes.
    let ops: &[&str] = match fault {
        LaneFault::UnfusedMultiplyAdd => &["rms_norm", "rope", "short_conv", "exp"],
        LaneFault::SumOfNeighbours | LaneFault::SumWithoutLastLane => &["rms_norm", "softmax"],
        LaneFault::LargestWithoutLastLane | LaneFault::MaxPrefersFirst => &["argmax", "softmax"],
        LaneFault::MinPrefersFirst => &["exp", "softmax"],
        LaneFault::SelectBySignBit | LaneFault::AbsKeepsSign => &["silu", "silu_multiply"],
        LaneFault::ScaleFlushesSubnormals | LaneFault::ScaleCutsSubnormals => &["exp"],
        LaneFault::ExponentLosesABit => &["attention_f32"],
        LaneFault::DivideByReciprocal => &["softmax", "silu"],
        LaneFault::AddFlushesSubnormals => &["add", "softmax"],
        LaneFault::HalvesFlushSubnormals => &["attention_f16", "linear_f16"],
        LaneFault::BrainFloatsLoseABit => &["linear_bf16"],
        LaneFault::DotsSaturate | LaneFault::DotsKeepTheBias => &["linear_q8_0_int8"],
        LaneFault::DotsDropAByte | LaneFault::DotsReadUnsigned | LaneFault::WordsReadUnsigned => {
            &["linear_q4_0_int8", "linear_q6_k_int8"]
        }
        LaneFault::ShiftDropsTheSign => &["linear_q6_k_int8"],
        LaneFault::BrainDotsSwapProducts
        | LaneFault::BrainDotsAddProducts
        | LaneFault::BrainDotsFlushSubnormals => operations::BRAIN,
        LaneFault::ShiftStopsShort => &["linear_q5_1_int8", "linear_q4_k"],
        LaneFault::TailFilledWithOnes
        | LaneFault::TailReadShort
        | LaneFault::TailWrittenShort
        | LaneFault::SubtractAddsNegative
        | LaneFault::LoadCopies => &["rms_norm", "softmax", "rope", "short_conv", "silu_multiply"],
    };
    Fault { name, class, ops, equivalent, kind: Kind::Lanes(fault) }
}

fn of_line(line: Line) -> Fault {
    const MODEL: &[&str] = &["model"];
    const EXPERTS: &[&str] = &["model_experts"];
    let (name, class, ops) = match line {
        Line::ResidualTwice => ("model adds a residual twice", Class::Accumulator, MODEL),
        Line::TailPaddedWithOnes => (
            "a reduction's tail is padded with ones",
            Class::Tail,
            &["rms_norm", "softmax", "argmax"][..],
        ),
        Line::KeyNormSkipped => ("model does not norm its keys", Class::Formula, MODEL),
        Line::GateAndUpSwapped => ("model swaps w1 and w3", Class::Indexing, MODEL),
        Line::PositionsRestart => ("each call counts positions from 0", Class::State, MODEL),
        Line::StaleAngles => ("angles of another position are kept", Class::State, MODEL),
        Line::StaleConvolutionState => ("reset leaves the conv state", Class::State, MODEL),
        Line::StateShifted => {
            ("conv state lags a row behind", Class::State, &["short_conv", "shift_sum_time"][..])
        }
        Line::SnapshotForgetsTail => ("snapshot forgets the last block", Class::State, MODEL),
        Line::LastLogitsOfFirstRow => ("last logits are the first row's", Class::Indexing, MODEL),
        Line::SegmentNotReset => {
            ("a segment of keys is not begun anew", Class::Accumulator, &["attention_f32"][..])
        }
        Line::ThreadsOverlap => (
            "a thread begins one row early",
            Class::Threads,
            &["rms_norm", "rope", "attention_f32", "short_conv"][..],
        ),
        Line::RouterSoftmax => ("router takes a softmax", Class::Formula, EXPERTS),
        Line::ExpertRowsRotated => ("expert's rows go to each other", Class::Indexing, EXPERTS),
        Line::ExpertOverwrites => ("the last expert overwrites", Class::Accumulator, EXPERTS),
        Line::TinyActivationsKept => {
            ("tiny activations are not dropped", Class::Precision, operations::BRAIN)
        }
        Line::TinyWeightsKept => {
            ("tiny weights are not dropped", Class::Precision, operations::BRAIN)
        }
        Line::LeastDoubled => {
            ("numbers count as tiny too early", Class::Precision, operations::BRAIN)
        }
    };
    Fault { name, class, ops, equivalent: None, kind: Kind::Line(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_faults_of_every_class_and_their_operations_exist() {
        let all = Fault::all();
        assert!(all.len() >= 40);
        for (i, fault) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other.name != fault.name), "{} twice", fault.name);
            assert!(
                fault.ops.iter().all(|name| OPS.iter().any(|op| op.name == *name)),
                "{}",
                fault.name
            );
        }
        let mut classes: Vec<Class> = all.iter().map(|fault| fault.class).collect();
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), 11);
    }
}
