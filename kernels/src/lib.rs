//! Every operation of LFM2 (Liquid AI's hybrid of gated short convolutions and grouped-query attention) and its full
//! forward pass, on scalar, AVX2, AVX-512 and NEON, **with the same bits on all of them**.
//!
//! - [`simd`]: sixteen lanes on every CPU, one file per instruction set;
//! - [`ops`]: the operations, each written once over the lanes;
//! - [`linear`]: packed weights and the matrix kernels;
//! - [`model`]: configuration, weights, state and the forward pass;
//! - [`mod@format`]: checkpoint files;
//! - [`threads`]: how work is shared; `docs/scaling.md` says how far that goes, and what 64 cores on two sockets would give;
//! - [`tuning`]: what may be tuned to a CPU; `docs/tuning-notes.md` has what was tried;
//! - [`peak`]: what the CPU can do at most, for the benches.
//!
#![doc = include_str!("../CONTRACT.md")]

mod aligned;
mod buffers;
#[cfg(feature = "faults")]
pub mod faults;
pub mod format;
mod huge_pages;
pub mod linear;
pub mod model;
pub mod ops;
pub mod peak;
pub mod simd;
pub mod threads;
pub mod tuning;

/// `$right`; with the feature `faults`, `$wrong` while that line is switched on.
#[cfg(not(feature = "faults"))]
macro_rules! fault {
    ($line:ident: $wrong:expr, else $right:expr) => {
        $right
    };
    ($line:ident => $wrong:stmt) => {};
}
#[cfg(feature = "faults")]
macro_rules! fault {
    ($line:ident: $wrong:expr, else $right:expr) => {
        if $crate::faults::is_wrong($crate::faults::Line::$line) { $wrong } else { $right }
    };
    ($line:ident => $wrong:stmt) => {
        if $crate::faults::is_wrong($crate::faults::Line::$line) {
            $wrong
        }
    };
}
pub(crate) use fault;

/// `$work`; with the feature `slowdown`, it takes a tenth longer, and as much longer as it takes to look at the clock.
#[cfg(not(feature = "slowdown"))]
macro_rules! slowed {
    ($work:expr) => {
        $work
    };
}
#[cfg(feature = "slowdown")]
macro_rules! slowed {
    ($work:expr) => {{
        let began = std::time::Instant::now();
        $work;
        let end = began.elapsed() * 11 / 10;
        while began.elapsed() < end {
            std::hint::spin_loop();
        }
    }};
}
pub(crate) use slowed;

pub use aligned::Aligned;
pub use buffers::free_buffers;
pub use simd::Isa;
