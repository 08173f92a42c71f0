//! Sixteen `f32` lanes on every CPU.
//!
//! A [`Simd`] token proves that an instruction set is present; [`Lanes`] can only be made from a token. Each
//! implementation rounds every operation identically, so a kernel written once against these traits returns the same
//! bits everywhere.
//!
//! One hazard: on x86 a function between [`Simd::apart`] and an intrinsic that is not `#[inline(always)]` is
//! compiled without the instruction set. It stays right and becomes thirty times slower. Loops over lanes are therefore
//! plain `for` loops (iterator adaptors are only `#[inline]`), closures go through `inlined!`, and CI looks for
//! intrinsics that were left as calls.

use std::ops::{Add, Div, Mul, Sub};

use half::{bf16, f16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

mod dispatch;
pub(crate) mod environment;
mod isa;
pub(crate) mod math;
pub(crate) mod slices;
pub mod verbs;

pub(crate) use dispatch::*;
use environment::with_default;
use isa::{DotInstructions, Token};
pub use isa::{ISA_NAMES, Isa, IsaError};
pub(crate) use isa::{each_isa, isas};

mod scalar;
pub use scalar::Scalar;

/// A file to begin an instruction set with, named `template`, which is right as it is. Tests compile it.
pub const TEMPLATE: &str = include_str!("simd/template.rs");

#[cfg(all(test, target_arch = "x86_64"))]
mod template;

#[cfg(target_arch = "x86_64")]
mod nearness;
#[cfg(target_arch = "x86_64")]
mod pairs;

#[cfg(target_arch = "x86_64")]
mod sse41;
#[cfg(target_arch = "x86_64")]
pub use sse41::Sse41;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub use avx2::{Avx2, AvxVnni};

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub use avx512::{Avx512, Avx512Bf16, Avx512Vnni};

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonDot};

/// Lanes in one vector, on every instruction set.
pub const LANES: usize = 16;

/// How many accumulators the registers of an instruction set hold: the shape of its matrix tiles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Registers {
    /// Six lanes values and a little more.
    Few,
    /// Twenty-four lanes values and a little more.
    Many,
}

impl Registers {
    /// Whether they are [`Many`](Self::Many).
    #[inline(always)]
    pub const fn are_many(self) -> bool {
        matches!(self, Self::Many)
    }
}

/// Proof that one instruction set is available.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen floats in this instruction set's registers.
    type Lanes: Lanes;

    /// Sixteen times four bytes in this instruction set's registers.
    type Words: Words<Lanes = Self::Lanes>;

    /// How many [`Lanes`] stay in registers.
    const REGISTERS: Registers;

    /// Whether tiles of few registers take two panels of three rows, not one of six: of twelve multiply-adds, with seven loads instead of eight. That
    /// leaves one register for weights, so [`add_multiples`](Self::add_multiples) must need no more.
    const TAKES_TWO_PANELS: bool = false;

    /// Sixteen copies of `value`.
    fn splat(self, value: f32) -> Self::Lanes;

    /// Reads sixteen floats.
    fn load(self, from: &[f32; LANES]) -> Self::Lanes;

    /// Reads sixteen halves, widened exactly.
    fn load_f16(self, from: &[f16; LANES]) -> Self::Lanes;

    /// Reads sixteen words of two brain floats, widened exactly: the upper halves, which instructions for brain floats multiply first, then
    /// the lower ones. In memory the lower half of a word comes first.
    fn load_bf16_pairs(self, from: &[[bf16; 2]; LANES]) -> [Self::Lanes; 2];

    /// Reads four bytes for each lane.
    fn load_words(self, from: &[u8; 4 * LANES]) -> Self::Words;

    /// Sixteen copies of `word`.
    fn splat_words(self, word: i32) -> Self::Words;

    /// `factors[r] * line + sums[r]` for each `r`, rounded once: what a tile adds that holds all factors in registers while lines pass by.
    #[inline(always)]
    fn add_multiples<const R: usize>(
        self,
        line: &[f32; LANES],
        factors: [Self::Lanes; R],
        mut sums: [Self::Lanes; R],
    ) -> [Self::Lanes; R] {
        let line = self.load(line);
        for r in 0..R {
            sums[r] = factors[r].mul_add(line, sums[r]);
        }
        sums
    }

    /// Asks for what lies `bytes` after the beginning of `elements` to be brought near, whatever it is: into which cache, is the CPU's choice. A
    /// hint without effect on any result.
    fn prefetch<L>(self, elements: &[L], bytes: usize);

    /// As [`prefetch`](Self::prefetch), for what is read after more than the nearest cache holds: into the next one, where there is a choice.
    #[inline(always)]
    fn prefetch_for_later<L>(self, elements: &[L], bytes: usize) {
        self.prefetch(elements, bytes);
    }

    /// Runs `kernel` in a function of its own, which has this instruction set enabled.
    ///
    /// Everything that `kernel` calls must be `#[inline(always)]` to be compiled for it. The function itself must be `#[inline(never)]`: no
    /// arithmetic may move out of the environment it must run in, and loops that are kept apart are not to meet again in one function.
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R;

    /// As [`apart`](Self::apart), and with the default floating-point environment.
    #[inline(always)]
    fn vectorize<R>(self, kernel: impl FnOnce() -> R) -> R {
        with_default(move || self.apart(kernel))
    }

    /// Reads fewer than sixteen floats; the missing lanes hold `fill`.
    #[inline(always)]
    fn load_partial(self, from: &[f32], fill: f32) -> Self::Lanes {
        let mut padded = [fill; LANES];
        padded[..from.len()].copy_from_slice(from);
        self.load(&padded)
    }
}

/// Sixteen `f32` lanes.
pub trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;

    /// As [`mul_add`](Self::mul_add), and where registers are few, in the order written: loads that a compiler moves ahead would push sums out to
    /// the stack.
    #[inline(always)]
    fn mul_add_in_order(self, factor: Self, term: Self) -> Self {
        self.mul_add(factor, term)
    }

    /// `self` where it is greater than `other`, else `other` (also where they are equal or unordered).
    fn max(self, other: Self) -> Self;

    /// `self` where it is less than `other`, else `other` (also where they are equal or unordered).
    fn min(self, other: Self) -> Self;

    /// Each lane without its sign.
    fn abs(self) -> Self;

    /// `negative` where `self < 0`, else `otherwise`.
    fn select_negative(self, negative: Self, otherwise: Self) -> Self;

    /// `self * 2^power`, rounded once. `power` must hold integers in `-160..=160`, and `self` lie in `0.5..2`.
    fn scale_by_power(self, power: Self) -> Self;

    /// The numbers whose bits are these moved up by 23: where a number's lowest eight bits hold `n + 127`, that is `2^n`, or 0 if `n` is -127.
    fn lowest_bits_as_exponent(self) -> Self;

    /// Writes all sixteen lanes.
    fn store(self, to: &mut [f32; LANES]);

    /// The lanes as an array.
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        lanes
    }

    /// Writes the first `to.len()` lanes.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        to.copy_from_slice(&self.to_array()[..to.len()]);
    }

    /// Writes each lane as a byte. It must hold an integer in `-128..=127`: what becomes of other numbers differs between instruction sets.
    fn store_integers(self, to: &mut [i8; LANES]);

    /// Adds lane `i` to lane `i + 8`, then `i + 4`, `i + 2` and `i + 1`.
    fn sum(self) -> f32;

    /// The largest lane, found in the order of [`sum`](Self::sum).
    #[inline(always)]
    fn largest(self) -> f32 {
        fold_halves(self.to_array(), slices::inlined!(|a, b| if a > b { a } else { b }))
    }
}

/// Sixteen words of 32 bits: four bytes, the first in the lowest bits, or one signed integer.
pub trait Words: Copy {
    /// The floats of the same instruction set.
    type Lanes: Lanes;

    /// The bits that are set in both.
    fn and(self, other: Self) -> Self;

    /// The bits that are set in either.
    fn or(self, other: Self) -> Self;

    /// Each word moved up by `bits`, fewer than 32; zeros come in.
    fn shift_left(self, bits: u32) -> Self;

    /// Each word moved down by `bits`, fewer than 32; zeros come in.
    fn shift_right(self, bits: u32) -> Self;

    /// Each word divided by `2^bits`, fewer than 32 of them, and rounded down: its sign comes in.
    fn shift_right_signed(self, bits: u32) -> Self;

    /// Each word as a signed integer, rounded once where it has more than 24 bits.
    fn to_lanes(self) -> Self::Lanes;

    /// Writes all sixteen words.
    fn store(self, to: &mut [u8; 4 * LANES]);
}

/// How products of bytes are added: each instruction set has at least one way, and all give the same integers.
pub trait Dots: Copy + Send + Sync {
    /// The instruction set.
    type Simd: Simd;

    /// Whether [`dot_biased`](Self::dot_biased) is slower than [`dot_apart`](Self::dot_apart). Then its [`biased_start`](Self::biased_start) is 0.
    const TAKES_APART: bool = false;

    /// The instruction set.
    fn simd(self) -> Self::Simd;

    /// As [`Simd::apart`], with what the products need enabled besides.
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R;

    /// As [`Simd::vectorize`], with what the products need enabled besides.
    #[inline(always)]
    fn vectorize<R>(self, kernel: impl FnOnce() -> R) -> R {
        with_default(move || self.apart(kernel))
    }

    /// Adds to each sum its four products of bytes. Those of `weights` are unsigned and at most 63, those of `activations` signed and at
    /// least -127.
    fn dot_small(
        self,
        sums: WordsOf<Self>,
        weights: WordsOf<Self>,
        activations: WordsOf<Self>,
    ) -> WordsOf<Self>;

    /// Adds to each sum its four products of bytes. Those of `weights` are unsigned and stand for 128 less, those of `activations` are
    /// signed and at least -127. Sums begin at [`biased_start`](Self::biased_start) of all activations.
    fn dot_biased(
        self,
        sums: WordsOf<Self>,
        weights: WordsOf<Self>,
        activations: WordsOf<Self>,
    ) -> WordsOf<Self>;

    /// Adds to the sums of `R` rows and `N` panels the products of `G` groups of bytes. `weights` gives a panel's group: weights of `BITS` bits, 8 as in
    /// [`dot_biased`](Self::dot_biased), fewer as in [`dot_small`](Self::dot_small).
    #[inline(always)]
    fn dots<const BITS: u32, const G: usize, const N: usize, const R: usize>(
        self,
        weights: impl Fn(usize, usize) -> WordsOf<Self>,
        activations: [&[i32; G]; R],
        sums: &mut [[WordsOf<Self>; N]; R],
    ) {
        let mut local = *sums;
        for g in 0..G {
            let mut groups = [self.simd().splat_words(0); N];
            for n in 0..N {
                groups[n] = weights(n, g);
            }
            for r in 0..R {
                let activations = self.simd().splat_words(activations[r][g]);
                for n in 0..N {
                    local[r][n] = if BITS == 8 {
                        self.dot_biased(local[r][n], groups[n], activations)
                    } else {
                        self.dot_small(local[r][n], groups[n], activations)
                    };
                }
            }
        }
        *sums = local;
    }

    /// Makes weights of [`dot_biased`](Self::dot_biased) ready for [`dot_apart`](Self::dot_apart), and adds to `sums` what is theirs in each sum of
    /// products, whatever the activations are.
    #[inline(always)]
    fn take_apart(
        self,
        sums: WordsOf<Self>,
        weights: WordsOf<Self>,
    ) -> ([WordsOf<Self>; 2], WordsOf<Self>) {
        ([weights, weights], sums)
    }

    /// As [`dot_biased`](Self::dot_biased) with weights that were [taken apart](Self::take_apart).
    #[inline(always)]
    fn dot_apart(
        self,
        sums: WordsOf<Self>,
        [weights, _]: [WordsOf<Self>; 2],
        activations: WordsOf<Self>,
    ) -> WordsOf<Self> {
        self.dot_biased(sums, weights, activations)
    }

    /// At what sums begin that [`dot_biased`](Self::dot_biased) adds to, where the activations of all its calls add up to
    /// `activations`: an instruction set may leave the 128 to the end.
    fn biased_start(self, activations: i32) -> i32;
}

/// The words of the instruction set of `D`.
pub type WordsOf<D> = <<D as Dots>::Simd as Simd>::Words;

/// How products of brain floats are added two at a time, where that takes one instruction: words of two meet words of two.
///
/// Such instructions take subnormal numbers for 0, so whoever uses them keeps such from occurring.
pub trait BrainDots: Copy + Send + Sync {
    /// The instruction set.
    type Simd: Simd;

    /// The instruction set.
    fn simd(self) -> Self::Simd;

    /// As [`Simd::apart`], with what the products need enabled besides.
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R;

    /// As [`Simd::vectorize`], with what the products need enabled besides.
    #[inline(always)]
    fn vectorize<R>(self, kernel: impl FnOnce() -> R) -> R {
        with_default(move || self.apart(kernel))
    }

    /// Reads sixteen words of two brain floats as they are.
    fn load_pairs(self, from: &[[bf16; 2]; LANES]) -> <Self::Simd as Simd>::Words;

    /// Adds to each sum the product of the upper halves, rounds, and adds that of the lower ones: two fused multiply-adds.
    fn add_products(
        self,
        sums: <Self::Simd as Simd>::Lanes,
        weights: <Self::Simd as Simd>::Words,
        activations: <Self::Simd as Simd>::Words,
    ) -> <Self::Simd as Simd>::Lanes;
}

/// The order of reduction that every instruction set follows.
#[inline(always)]
fn fold_halves(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = combine(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// What buffers are made of: any bytes are some element, and zeros are zero.
pub trait Storable:
    Copy + Send + Sync + FromBytes + IntoBytes + Immutable + KnownLayout + 'static
{
}

impl<E: Copy + Send + Sync + FromBytes + IntoBytes + Immutable + KnownLayout + 'static> Storable
    for E
{
}

/// A number as stored in memory: a weight or a cached key or value.
pub trait Element: Storable + Default {
    /// The number itself, widened exactly.
    fn to_f32(self) -> f32;

    /// The nearest element, ties to even.
    fn from_f32(value: f32) -> Self;

    /// Reads the element from its first bytes, little-endian.
    fn from_le_bytes(bytes: &[u8]) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn from_le_bytes(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

macro_rules! narrow_element {
    ($element:ident) => {
        impl Element for $element {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                $element::to_f32(self)
            }

            #[inline(always)]
            fn from_f32(value: f32) -> $element {
                $element::from_f32(value)
            }

            #[inline(always)]
            fn from_le_bytes(bytes: &[u8]) -> $element {
                $element::from_le_bytes([bytes[0], bytes[1]])
            }
        }
    };
}
narrow_element!(f16);
narrow_element!(bf16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_choose_as_documented() {
        for isa in Isa::available() {
            let chosen = dispatch!(isa, simd => {
                let (plus, minus) = (simd.splat(0.0), simd.splat(-0.0));
                let selected = minus.select_negative(simd.splat(1.0), simd.splat(2.0));
                [plus.max(minus), minus.max(plus), plus.min(minus), minus.min(plus), selected]
                    .map(Lanes::to_array)
            });
            let expected = [-0.0, 0.0, -0.0, 0.0, 2.0].map(|value: f32| [value.to_bits(); LANES]);
            assert_eq!(chosen.map(|lanes| lanes.map(f32::to_bits)), expected, "{isa}");
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_template_is_right() {
        fn of<S: Simd>(simd: S, x: &[f32; LANES]) -> [u32; LANES] {
            simd.vectorize(|| math::sigmoid(simd, [simd.load(x)])[0].to_array().map(f32::to_bits))
        }
        let template = template::Template::detect().expect("every x86-64 has its features");
        for power in -20..20 {
            let x = std::array::from_fn(|i| (i as f32 - 7.3) * 2.0_f32.powi(power));
            assert_eq!(of(template, &x), of(Scalar, &x));
        }
    }
}
