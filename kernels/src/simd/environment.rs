//! The floating-point environment that kernels run in: round to nearest, subnormals kept.
//!
//! A host program may have set flush-to-zero, and threads inherit it. It would change bits, so it is undone for the
//! length of each kernel and restored afterwards, also when a kernel panics.
#![allow(unsafe_code)]

use std::arch::asm;

/// Restores the host's control register when dropped.
struct Restore(Control);

impl Drop for Restore {
    fn drop(&mut self) {
        write(self.0);
    }
}

/// Runs `kernel` in the default environment.
#[inline(always)]
pub fn with_default<R>(kernel: impl FnOnce() -> R) -> R {
    let host = read();
    if host & CHANGES_BITS == 0 {
        return kernel();
    }
    let _restore = Restore(host);
    write(host & !CHANGES_BITS);
    kernel()
}

#[cfg(target_arch = "x86_64")]
type Control = u32;

/// MXCSR: flush to zero (15), rounding (14, 13), denormals are zero (6).
#[cfg(target_arch = "x86_64")]
const CHANGES_BITS: Control = 0xE040;

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn read() -> Control {
    let mut control: Control = 0;
    // SAFETY: SSE is part of x86-64; the instruction writes the four bytes that it is given.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut control, options(nostack, preserves_flags)) }
    control
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn write(control: Control) {
    // SAFETY: SSE is part of x86-64; the value was read from MXCSR with bits cleared that may be clear.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &control, options(nostack, preserves_flags)) }
}

#[cfg(target_arch = "aarch64")]
type Control = u64;

/// FPCR: flush to zero (24), rounding (23, 22), flush to zero for halves (19), alternate handling (1),
/// flush inputs to zero (0).
#[cfg(target_arch = "aarch64")]
const CHANGES_BITS: Control = 0x01C8_0003;

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn read() -> Control {
    let control: Control;
    // SAFETY: FPCR can be read at every privilege level.
    unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags)) }
    control
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn write(control: Control) {
    // SAFETY: FPCR can be written at every privilege level; the value was read from it with bits cleared that may be
    // clear. Without `nomem`, so that no arithmetic on memory moves across.
    unsafe { asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags)) }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;
    use crate::simd::{Isa, Lanes, Simd, dispatch};

    #[cfg(target_arch = "x86_64")]
    const FLUSH: Control = 0x8040;
    #[cfg(target_arch = "aarch64")]
    const FLUSH: Control = 0x0100_0000;

    #[test]
    fn flush_to_zero_is_undone_and_restored() {
        let host = read();
        write(host | FLUSH);
        let flushed = black_box(1e-40_f32) * black_box(0.5);
        let mut kept = Vec::new();
        for isa in Isa::available() {
            let subnormal = black_box([1e-40_f32; 16]);
            let half = black_box([0.5_f32; 16]);
            kept.push(dispatch!(isa, simd => {
                (simd.load(&subnormal) * simd.load(&half)).to_array()
            }));
        }
        let after = read();
        write(host);
        assert_eq!(flushed, 0.0, "the test did not set flush-to-zero");
        assert_eq!(after & CHANGES_BITS, FLUSH, "the host's environment was not restored");
        for lanes in kept {
            assert_eq!(lanes, [5e-41; 16]);
        }
    }
}
