//! What a CPU can do at most, measured with the lanes that the kernels use: the yardsticks of the benches.
#![forbid(unsafe_code)]

use std::array;
use std::hint::black_box;

use crate::aligned::CACHE_LINE;
use crate::simd::slices::inlined;
use crate::simd::{
    BrainDots, Dots, Isa, LANES, Lanes, Registers, Simd, Words, dispatch, dispatch_brain_dots,
    dispatch_dots,
};

/// Runs chains of multiply-adds in registers alone; the floating-point operations done (two per lane and multiply-add), and a number
/// that depends on all of them.
pub fn multiply_add(isa: Isa, iterations: usize) -> (u64, f32) {
    dispatch!(isa, simd => match registers(simd) {
        // Two registers each: twelve chains.
        Registers::Few => multiply_adds_in_chains::<_, 6>(simd, iterations),
        Registers::Many => multiply_adds_in_chains::<_, 24>(simd, iterations),
    })
}

/// As [`multiply_add`] for products of bytes, four of which are added to each word. Where that takes several instructions, kernels may need fewer for weights
/// of few bits, whose sums fit 16 bits for a while.
pub fn dot(isa: Isa, iterations: usize) -> (u64, i32) {
    dispatch_dots!(isa, dots => match registers(Dots::simd(dots)) {
        // Ten registers of sums, so that those of the operands and their products are not on the stack.
        Registers::Few => dots_in_chains::<_, 1, 5>(dots, iterations),
        Registers::Many => dots_in_chains::<_, 4, 6>(dots, iterations),
    })
}

/// As [`multiply_add`] for products of brain floats, two of which are added to each sum where there is an instruction for it: elsewhere the
/// same.
pub fn brain_dot(isa: Isa, iterations: usize) -> (u64, f32) {
    if !isa.has_brain_dots() {
        return multiply_add(isa, iterations);
    }
    dispatch_brain_dots!(isa, dots => match registers(BrainDots::simd(dots)) {
        Registers::Few => brain_dots_in_chains::<_, 6>(dots, iterations),
        Registers::Many => brain_dots_in_chains::<_, 24>(dots, iterations),
    })
}

#[inline(always)]
fn brain_dots_in_chains<D: BrainDots, const N: usize>(dots: D, iterations: usize) -> (u64, f32) {
    let simd = dots.simd();
    // 1 and 2 times 0.5 and -0.25.
    let weights = simd.splat_words(black_box(0x3F80_4000));
    let activations = simd.splat_words(black_box(0x3F00_BE80));
    chains::<_, N>(
        simd,
        iterations,
        2 * 2 * LANES,
        inlined!(|sum| { dots.add_products(sum, weights, activations) }),
    )
}

/// A tile of `R` rows and `N` panels, whose operands are the same in each iteration. But nobody knows: where products take instructions of their own, they
/// would else be computed once for all.
#[inline(always)]
fn dots_in_chains<D: Dots, const N: usize, const R: usize>(
    dots: D,
    iterations: usize,
) -> (u64, i32) {
    let simd = dots.simd();
    let weights = [array::from_fn(|byte| [1, 3, 2, 1][byte % 4]); N];
    let activations = [i32::from_le_bytes([-1, 1, -1, 1].map(i8::cast_unsigned)); R];
    let mut sums = [[simd.splat_words(0); N]; R];
    for _ in 0..iterations {
        let (weights, activations) = black_box((&weights, &activations));
        let mut panels = [simd.splat_words(0); N];
        for n in 0..N {
            panels[n] = simd.load_words(&weights[n]);
        }
        for r in 0..R {
            let row = simd.splat_words(activations[r]);
            for n in 0..N {
                sums[r][n] = dots.dot_small(sums[r][n], panels[n], row);
            }
        }
    }
    let mut total = 0;
    for sum in sums.as_flattened() {
        let mut bytes = [0; 4 * LANES];
        sum.store(&mut bytes);
        let words = bytes.as_chunks().0.iter().map(|&word| i32::from_le_bytes(word));
        total = words.fold(total, i32::wrapping_add);
    }
    ((2 * 4 * LANES * N * R * iterations) as u64, total)
}

#[inline(always)]
fn registers<S: Simd>(_: S) -> Registers {
    S::REGISTERS
}

#[inline(always)]
fn multiply_adds_in_chains<S: Simd, const N: usize>(simd: S, iterations: usize) -> (u64, f32) {
    let factor = simd.splat(black_box(0.999));
    let term = simd.splat(black_box(0.001));
    chains::<_, N>(simd, iterations, 2 * LANES, inlined!(|sum: S::Lanes| sum.mul_add(factor, term)))
}

/// `N` chains side by side, each link of which does `operations`.
#[inline(always)]
fn chains<S: Simd, const N: usize>(
    simd: S,
    iterations: usize,
    operations: usize,
    link: impl Fn(S::Lanes) -> S::Lanes,
) -> (u64, f32) {
    let mut sums = [simd.splat(0.0); N];
    for n in 0..N {
        sums[n] = simd.splat(n as f32);
    }
    for _ in 0..iterations {
        for n in 0..N {
            sums[n] = link(sums[n]);
        }
    }
    let mut total = sums[0];
    for n in 1..N {
        total = total + sums[n];
    }
    ((operations * N * iterations) as u64, total.sum())
}

/// In what order [`read`] goes through memory: which is fastest, differs between machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In one straight line.
    Line,
    /// In one straight line, asking for what lies ahead.
    LineAhead,
    /// Four lines side by side.
    FourLines,
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Line, Self::LineAhead, Self::FourLines];
}

/// Sums of a group that are kept apart, so that none waits for the one before.
const SUMS: usize = 4;

/// Bytes that [`Order::LineAhead`] asks for before it reads them.
const READ_AHEAD: usize = 12 * 1024;

/// A group of lines of memory.
type Group = [f32; SUMS * LANES];

/// Reads `x` once, as fast as it comes, but for a tail of under a kilobyte: its sum.
pub fn read(isa: Isa, x: &[f32], order: Order) -> f32 {
    let (groups, _) = x.as_chunks();
    dispatch!(isa, simd => match order {
        Order::Line => line::<_, 0>(simd, groups),
        Order::LineAhead => line::<_, READ_AHEAD>(simd, groups),
        Order::FourLines => four_lines(simd, groups),
    })
}

#[inline(always)]
fn line<S: Simd, const AHEAD: usize>(simd: S, groups: &[Group]) -> f32 {
    let mut sums = [simd.splat(0.0); SUMS];
    for group in groups {
        if AHEAD > 0 {
            for line in 0..SUMS {
                simd.prefetch(group, AHEAD + line * CACHE_LINE);
            }
        }
        add(simd, group, &mut sums);
    }
    total::<S>(sums)
}

#[inline(always)]
fn four_lines<S: Simd>(simd: S, groups: &[Group]) -> f32 {
    let quarter = groups.len() / 4;
    let (first, rest) = groups.split_at(quarter);
    let (second, rest) = rest.split_at(quarter);
    let (third, fourth) = rest.split_at(quarter);
    let mut sums = [simd.splat(0.0); SUMS];
    for i in 0..quarter {
        add(simd, &first[i], &mut sums);
        add(simd, &second[i], &mut sums);
        add(simd, &third[i], &mut sums);
        add(simd, &fourth[i], &mut sums);
    }
    total::<S>(sums)
}

#[inline(always)]
fn add<S: Simd>(simd: S, group: &Group, sums: &mut [S::Lanes; SUMS]) {
    let (lines, _) = group.as_chunks::<LANES>();
    for n in 0..SUMS {
        sums[n] = sums[n] + simd.load(&lines[n]);
    }
}

#[inline(always)]
fn total<S: Simd>(sums: [S::Lanes; SUMS]) -> f32 {
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_reads_everything() {
        let ones = [1.0; 8 * SUMS * LANES];
        for isa in Isa::available() {
            for order in Order::ALL {
                assert_eq!(read(isa, &ones, order), ones.len() as f32, "{isa} {order:?}");
            }
        }
    }

    #[test]
    fn multiply_adds_are_counted_and_agree() {
        for isa in Isa::available() {
            let (operations, sum) = multiply_add(isa, 10);
            assert_eq!(operations % (2 * 10 * LANES as u64), 0);
            assert!(sum.is_finite() && sum > 0.0);
        }
    }

    #[test]
    fn dots_are_counted_and_agree() {
        for isa in Isa::available_for_integers() {
            let (operations, sum) = dot(isa, 10);
            // -1 + 3 - 2 + 1 in each word, from the first byte to the last.
            let words = i32::try_from(operations / 8).expect("a small number");
            assert_eq!(sum, words, "{isa}");
        }
    }
}
