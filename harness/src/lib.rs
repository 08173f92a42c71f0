//! Proves the LFM2 kernels right: against each other to the bit, against an independent `f64` oracle within derived bounds, and
//! against PyTorch.
#![deny(unsafe_code)]

pub mod buffer;
pub mod case_line;
pub mod cases;
pub mod ceiling;
pub mod check;
pub mod compare;
pub mod coverage;
pub mod data;
pub mod emulator;
pub mod exhaustive;
#[cfg(feature = "faults")]
pub mod faults;
pub mod fill;
pub mod gate;
pub mod golden;
pub mod guarded_heap;
pub mod hashes;
pub mod kernels;
pub mod machine;
pub mod memory;
pub mod oracle;
pub mod plan;
pub mod profile;
pub mod quantize;
pub mod random_model;
pub mod regression;
pub mod report;
pub mod scaling;
pub mod self_test;
pub mod tune;
pub mod verbs;
pub mod witness;
pub mod workload;
