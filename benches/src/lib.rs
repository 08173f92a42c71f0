//! What a conv layer of LFM2 costs against an attention layer, and how fast the kernels are.
//!
//! ```text
//! cargo bench                                  all benches but peers, in minutes
//! cargo bench --bench layers                   conv layer against attention layer
//! cargo bench --features peers --bench peers   linear layers against the matrix products of other crates
//! cargo bench -- --isa all --full              every instruction set, format and length
//! cargo bench --bench ops -- 'linear/.*/bf16'  what matches a regular expression
//! ```
//!
//! After `--` come Criterion's own flags, and those of [`Options`].
//!
//! # Ids
//!
//! An id is `op/isa/format/shape/threads`, and no part holds a slash:
//!
//! - `op`: an operation by its function's name; in `layers` `conv_layer`, `attention_layer`, `conv_mixer` or `attention_mixer`; in
//!   `forward` `model`;
//! - `isa`: a name that [`Isa`](lfm2_kernels::Isa) accepts;
//! - `format`: of the weights, or of the cached keys and values, or of the elements: `f32`, `f16`, `bf16`;
//! - `shape`: lengths joined by `x`, outermost first (`linear`: rows, outputs, inputs), or `prefill-T` for `T` tokens at the start of
//!   a sequence, or `decode-T` for one token after `T` others, or `decode-TxB` for that of `B` sequences in one call;
//! - `threads`: of the pool that ran it.
//!
//! # Memory
//!
//! A model's weights and caches do not fit the processor's caches, so each layer finds its own gone when its turn comes. What is
//! timed here is therefore one of many copies in turn, which together are several times as large as the last cache.
//!
//! # Results
//!
//! Criterion's reports are in `target/criterion`. `target/lfm2-bench/{layers,forward,ops,peers}.json` ([`Report`]) has the printed tables
//! and what each id did: operations and bytes, from which every rate follows.
#![forbid(unsafe_code)]

mod case;
mod data;
mod load;
mod options;
mod report;
mod session;
mod spread;

pub use case::{Case, Work, Workload};
pub use data::{Stored, matrices, values};
pub use lfm2_harness::ceiling::{self, beyond_cache};
pub use options::{Extent, Options};
pub use report::{Report, SCHEMA_VERSION, time};
pub use session::{Measurement, Session};
pub use spread::Spread;
