//! What this CPU can do at most, measured with the lanes that the kernels use: the yardsticks of the benches.
#![forbid(unsafe_code)]

use crate::simd::{Isa, LANES, Lanes, Registers, Simd, dispatch};

/// Runs chains of multiply-adds in registers alone; the floating-point operations done (two per lane and multiply-add), and a number
/// that depends on all of them.
pub fn multiply_add(isa: Isa, iterations: usize) -> (u64, f32) {
    dispatch!(isa, simd => match registers(simd) {
        Registers::Few => chains::<_, 6>(simd, iterations),
        Registers::Many => chains::<_, 24>(simd, iterations),
    })
}

#[inline(always)]
fn registers<S: Simd>(_: S) -> Registers {
    S::REGISTERS
}

#[inline(always)]
fn chains<S: Simd, const N: usize>(simd: S, iterations: usize) -> (u64, f32) {
    let factor = simd.splat(std::hint::black_box(0.999));
    let term = simd.splat(std::hint::black_box(0.001));
    let mut sums = [simd.splat(0.0); N];
    for n in 0..N {
        sums[n] = simd.splat(n as f32);
    }
    for _ in 0..iterations {
        for n in 0..N {
            sums[n] = sums[n].mul_add(factor, term);
        }
    }
    let mut total = sums[0];
    for n in 1..N {
        total = total + sums[n];
    }
    ((2 * LANES * N * iterations) as u64, total.sum())
}

/// Reads `x` once in a straight line, as fast as it comes: its sum.
pub fn read(isa: Isa, x: &[f32]) -> f32 {
    dispatch!(isa, simd => sum(simd, x))
}

#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    const N: usize = 4;
    let (groups, _) = x.as_chunks::<{ N * LANES }>();
    let mut sums = [simd.splat(0.0); N];
    for group in groups {
        let (lines, _) = group.as_chunks::<LANES>();
        for n in 0..N {
            sums[n] = sums[n] + simd.load(&lines[n]);
        }
    }
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum()
}
