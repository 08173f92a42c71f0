//! What a conv layer of LFM2 costs against an attention layer, and how fast the kernels are.
//!
//! ```text
//! cargo bench                                  all benches but peers, in minutes
//! cargo bench --bench layers                   conv layer against attention layer
//! cargo bench --features peers --bench peers   linear layers against the matrix products of other crates
//! cargo bench -- --quick                       what answers the question, in two minutes
//! cargo bench -- --full                        every instruction set, format and length
//! cargo bench --bench ops -- 'linear/.*/bf16'  what matches a regular expression
//! ```
//!
//! After `--` come Criterion's own flags, and those of [`Options`].
//!
//! # Ids
//!
//! An id is `op/isa/format/shape/threads`; [`lfm2_harness::report::id`] has the grammar, and [`lfm2_harness::workload`] what runs.
//!
//! # Turns
//!
//! Memory that others use, too, changes its speed within seconds. Cases that make one curve, or are held against each other, therefore
//! take turns, each for some milliseconds, round after round; Criterion gets their samples when all have been taken, and makes of them
//! what it makes of its own. It takes samples itself, one case after the other, where there is nothing to take turns with, or where
//! `--sample-size`, `--measurement-time` or `--warm-up-time` say how.
//!
//! # Results
//!
//! Every bench ends with the report `target/lfm2-report/index.html` ([`lfm2_harness::report`]), made of the times that Criterion keeps in
//! `target/criterion` and of what each id did: operations, bytes and what the machine could do at most, in
//! `target/lfm2-bench/BENCH-THREADS.json` ([`Manifest`](lfm2_harness::report::Manifest)). A bench that is interrupted leaves both,
//! of what it has measured.
#![forbid(unsafe_code)]

mod case;
mod load;
mod options;
mod peaks;
mod recorder;
mod remaining;
mod session;
mod spread;
mod turns;

pub use lfm2_harness::ceiling::{self, Work, beyond_cache};
pub use lfm2_harness::report::text::{counted, time};
pub use lfm2_harness::workload::{
    Case, Extent, Last, Stored, Weights, Workload, layers, matrices, operations, values,
};
pub use options::Options;
pub use session::{Measurement, Session};
pub use spread::Spread;
