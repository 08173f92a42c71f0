//! The fixed cases once more, where a byte read or written beside a slice ends the process: each slice flush against a guard page, once at
//! its end and once at its start, and inputs read-only.
//!
//! What the kernels pack or keep themselves is not guarded: `Matrix`, `ShortConv`, `RopeTable`, `KeyValueCache`, states and scratch lie
//! where the kernels put them.

use lfm2_kernels::Isa;
use lfm2_kernels::simd::Scalar;

use crate::buffer::Place;
use crate::case_line::Plan;
use crate::cases::{Case, Op, Output};
use crate::check::{Check, Failure, caught, line};
use crate::gate::{Demand, Gate};
use crate::plan::{Depth, fixed_plans};
use crate::witness;

/// What came of the guarded cases of one operation on one instruction set.
pub struct GuardedOutcome {
    /// The instruction set.
    pub isa: Isa,
    /// How many cases ran.
    pub cases: usize,
    /// The first that failed. One that touches what it must not ends the process instead, which [`witness`] reports.
    pub failure: Option<Failure>,
}

/// How many cases [`check_guarded`] runs on each instruction set if none fails.
pub fn guarded_case_count(op: &Op) -> usize {
    fixed_plans(op, Depth::Quick).len() * Place::GUARDED.len()
}

/// Runs the fixed cases of an operation in guarded memory, on every one of `isas`: each must touch nothing beside its slices, not write
/// to its inputs, and, if the gate demands it, give the bits that its reference gives in ordinary memory on [`Scalar`] and one thread.
///
/// `before_case` is called as often as [`guarded_case_count`] says.
pub fn check_guarded(
    gate: &Gate,
    op: &Op,
    isas: &[Isa],
    before_case: &(dyn Fn() + Sync),
) -> Vec<GuardedOutcome> {
    let outcome = |&isa| GuardedOutcome { isa, cases: 0, failure: None };
    let mut outcomes: Vec<GuardedOutcome> = isas.iter().map(outcome).collect();
    for plan in fixed_plans(op, Depth::Quick) {
        let reference = reference(gate, op, &plan);
        for place in Place::GUARDED {
            before_case();
            let plan = Plan { place, ..plan.clone() };
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.failure.is_none()) {
                let case = line(&plan, op, outcome.isa);
                witness::announce(&case);
                let reference = reference.as_ref().map_err(Clone::clone);
                match reference.and_then(|reference| hold(gate, op, &plan, outcome.isa, reference))
                {
                    Ok(()) => outcome.cases += 1,
                    Err((by, reason)) => outcome.failure = Some(Failure { case, by, reason }),
                }
            }
        }
    }
    witness::is_over();
    outcomes
}

fn reference(gate: &Gate, op: &Op, plan: &Plan) -> Result<Vec<Output>, (Check, String)> {
    let case = make(gate, op, plan)?;
    gate.run(1, || (gate.judges.run)(&*case, &gate.reference, Isa::Scalar(Scalar)))
        .map_err(|(by, reason)| (by, format!("scalar, which it is compared with: {reason}")))
}

fn hold(
    gate: &Gate,
    op: &Op,
    plan: &Plan,
    isa: Isa,
    reference: &[Output],
) -> Result<(), (Check, String)> {
    let case = make(gate, op, plan)?;
    let outputs = gate.run(plan.threads, || (gate.judges.run)(&*case, &gate.kernels, isa))?;
    let others =
        gate.run(plan.threads, || (gate.judges.run_another_way)(&*case, &gate.kernels, isa))?;
    if gate.demand == Demand::Bounds {
        return Ok(());
    }
    gate.same_outputs(reference, &outputs).map_err(|reason| (Check::Bits, reason))?;
    gate.same_outputs(reference, &others)
        .map_err(|reason| (Check::OtherWay, format!("{}: {reason}", case.other_way())))
}

fn make(gate: &Gate, op: &Op, plan: &Plan) -> Result<Box<dyn Case>, (Check, String)> {
    let data = (gate.judges.draw)(plan);
    caught("making the case", || (op.make)(&plan.shape, data))
        .map_err(|reason| (Check::Runs, reason))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::buffer::Buffer;
    use crate::cases::OPS;
    use crate::kernels::Kernels;
    use crate::memory::Number;

    /// How many numbers after the start of a vector the buffers of some cases began, by name.
    type Alignments = BTreeMap<String, BTreeSet<usize>>;

    thread_local! {
        static ALIGNMENTS: RefCell<Alignments> = const { RefCell::new(BTreeMap::new()) };
    }

    pub fn note_alignment<N: Number>(name: &str, buffer: &Buffer<N>) {
        let alignment = buffer.as_ptr().addr() % 64 / size_of::<N>();
        ALIGNMENTS.with_borrow_mut(|all| all.entry(name.into()).or_default().insert(alignment));
    }

    /// Of all slices that the fixed cases of an operation have in this place.
    fn alignments(op: &Op, place: Place) -> Alignments {
        ALIGNMENTS.take();
        for plan in fixed_plans(op, Depth::Quick) {
            let plan = Plan { place, ..plan };
            let case = (op.make)(&plan.shape, plan.data());
            case.run(&Kernels::OURS, Isa::best());
        }
        ALIGNMENTS.take()
    }

    /// Of each of an operation's slices, and of all of a model's together. A slice that ends at a guard page is as long as the operation allows: pairs for `rope` and
    /// `exp`, whole vectors for attention. One that begins there is aligned to a page.
    #[test]
    fn every_alignment_occurs() {
        for op in OPS {
            let step = match op.name {
                "rope" | "exp" => 2,
                "attention_f32" | "attention_f16" => 16,
                _ => 1,
            };
            for (place, step) in
                [(Place::Ordinary, 1), (Place::GuardedEnd, step), (Place::GuardedStart, 16)]
            {
                let alignments = alignments(op, place);
                assert!(!alignments.is_empty());
                let expected: BTreeSet<usize> = (0..16).step_by(step).collect();
                if op.name == "model" {
                    let found: BTreeSet<usize> = alignments.into_values().flatten().collect();
                    assert_eq!(found, expected, "model, {place:?}");
                    continue;
                }
                for (name, found) in alignments {
                    assert_eq!(found, expected, "{} {name}, {place:?}", op.name);
                }
            }
        }
    }
}
