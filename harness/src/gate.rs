//! What is under test, what it is held to, and the functions that judge it.

use lfm2_kernels::Isa;

use crate::buffer::Buffer;
use crate::case_line::Plan;
use crate::cases::{Case, Output};
use crate::check::Outcome;
use crate::compare::{Errors, Mismatch, equal_bits, within_bounds};
use crate::data::Data;
use crate::hashes::{Change, Hashes, OpHashes, hash_outputs};
use crate::kernels::Kernels;
use crate::oracle::expected::Expected;

/// All that decides whether a case is right.
#[derive(Clone, Copy)]
pub struct Gate {
    /// The functions under test.
    pub kernels: Kernels,
    /// What they are compared with: these on the scalar instruction set and one thread.
    pub reference: Kernels,
    /// What they are held to.
    pub demand: Demand,
    /// Who judges.
    pub judges: Judges,
    /// Whether a failure is followed to its simplest case.
    pub shrinks: bool,
}

/// What results are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The numeric contract: the bits of the reference and the kept hashes, and, within its bounds, what the oracle expects.
    EqualBits,
    /// What the oracle expects, within bounds derived from the contract's operation counts: for kernels that promise nothing about bits.
    Bounds,
}

/// The functions that draw data, run cases and judge results, so that wrong ones can be put in their place: a gate is worth what it
/// catches.
#[derive(Clone, Copy)]
pub struct Judges {
    /// The data of a case: [`Plan::data`].
    pub draw: fn(&Plan) -> Data,
    /// [`Case::run`].
    pub run: fn(&dyn Case, &Kernels, Isa) -> Vec<Output>,
    /// [`Case::run_another_way`].
    pub run_another_way: fn(&dyn Case, &Kernels, Isa) -> Vec<Output>,
    /// [`Buffer::margins_are_intact`].
    pub is_intact: fn(&Buffer) -> bool,
    /// [`equal_bits`].
    pub equal_bits: fn(&[f32], &[f32]) -> Result<(), Mismatch>,
    /// [`Case::expected`].
    pub expect: fn(&dyn Case) -> Vec<Vec<Expected>>,
    /// [`within_bounds`].
    pub within_bounds: fn(&[Expected], &[f32]) -> Result<Errors, Mismatch>,
    /// [`hash_outputs`].
    pub hash: fn(&[Output]) -> Result<String, String>,
    /// [`Hashes::changes`].
    pub changes: fn(&Hashes, &str, &OpHashes) -> Vec<Change>,
    /// [`Outcome::find_weakness`].
    pub weakness: fn(&Outcome, u64) -> Option<String>,
}

impl Judges {
    /// Those that this project trusts.
    pub const OURS: Self = Self {
        draw: Plan::data,
        run: |case, kernels, isa| case.run(kernels, isa),
        run_another_way: |case, kernels, isa| case.run_another_way(kernels, isa),
        is_intact: Buffer::margins_are_intact,
        equal_bits,
        expect: |case| case.expected(),
        within_bounds,
        hash: hash_outputs,
        changes: Hashes::changes,
        weakness: Outcome::find_weakness,
    };
}

impl Gate {
    /// Our kernels under the whole contract.
    pub const OURS: Self = Self::of(Kernels::OURS, Demand::EqualBits);

    /// Kernels that may be somebody else's.
    pub const fn of(kernels: Kernels, demand: Demand) -> Self {
        Self { kernels, reference: Kernels::OURS, demand, judges: Judges::OURS, shrinks: true }
    }
}
