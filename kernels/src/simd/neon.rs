//! Sixteen lanes in four 128-bit registers.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::arch::is_aarch64_feature_detected;
use std::ops::{Add, Div, Mul, Sub};

use half::{bf16, f16};

use super::{DotInstructions, Dots, LANES, Lanes, Registers, Simd, Token, Words};

/// Proof of Advanced SIMD.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Neon {
    dots: DotInstructions,
}

/// Proof of Advanced SIMD and its dot products.
#[derive(Clone, Copy)]
pub struct NeonDot(Neon);

impl Neon {
    /// The token, if this CPU has the feature.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then(|| Self {
            dots: DotInstructions::detected(is_aarch64_feature_detected!("dotprod")),
        })
    }

    /// The same with an instruction for dot products of bytes, if this CPU has it and it is not given up.
    pub fn dot(self) -> Option<NeonDot> {
        (self.dots == DotInstructions::Present).then_some(NeonDot(self))
    }
}

impl Token for Neon {
    fn without_dots(self) -> Self {
        Self { dots: self.dots.given_up() }
    }

    fn has_given_up_dots(self) -> bool {
        self.dots == DotInstructions::GivenUp
    }
}

/// Lanes 0..4, 4..8, 8..12 and 12..16.
///
/// Made only from a [`Neon`], which is what lets the methods below call intrinsics.
#[derive(Clone, Copy)]
pub struct NeonLanes([float32x4_t; 4]);

/// The words of lanes 0..4, 4..8, 8..12 and 12..16; as [`NeonLanes`], made only from a [`Neon`].
#[derive(Clone, Copy)]
pub struct NeonWords([int32x4_t; 4]);

/// Calls a function on all four quarters.
macro_rules! quarters {
    ($function:ident($($lanes:expr),+)) => {
        quarters!(NeonLanes: $function($($lanes),+))
    };
    ($type:ident: $function:ident($($lanes:expr),+)) => {
        // SAFETY: lanes and words exist only where a `Neon` token was made.
        $type(unsafe {
            [
                $function($($lanes.0[0]),+),
                $function($($lanes.0[1]),+),
                $function($($lanes.0[2]),+),
                $function($($lanes.0[3]),+),
            ]
        })
    };
}

impl Simd for Neon {
    type Lanes = NeonLanes;
    type Words = NeonWords;

    const REGISTERS: Registers = Registers::Few;

    #[inline(always)]
    fn splat(self, value: f32) -> NeonLanes {
        // SAFETY: `self` proves the feature.
        NeonLanes([unsafe { vdupq_n_f32(value) }; 4])
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> NeonLanes {
        let from = from.as_ptr();
        // SAFETY: `self` proves the feature; all quarters lie within the sixteen floats.
        NeonLanes(unsafe {
            [
                vld1q_f32(from),
                vld1q_f32(from.add(4)),
                vld1q_f32(from.add(8)),
                vld1q_f32(from.add(12)),
            ]
        })
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> NeonLanes {
        let from = from.as_ptr().cast::<u16>();
        // SAFETY: `self` proves the feature; both halves lie within the sixteen 16-bit numbers.
        NeonLanes(unsafe {
            let low = vreinterpretq_f16_u16(vld1q_u16(from));
            let high = vreinterpretq_f16_u16(vld1q_u16(from.add(8)));
            [
                vcvt_f32_f16(vget_low_f16(low)),
                vcvt_high_f32_f16(low),
                vcvt_f32_f16(vget_low_f16(high)),
                vcvt_high_f32_f16(high),
            ]
        })
    }

    #[inline(always)]
    fn load_bf16_pairs(self, from: &[[bf16; 2]; LANES]) -> [NeonLanes; 2] {
        let from = from.as_ptr().cast::<u32>();
        let (mut upper, mut lower) = (self.splat(0.0), self.splat(0.0));
        for i in 0..4 {
            // SAFETY: `self` proves the feature; all quarters lie within the sixteen words of 32 bits.
            unsafe {
                let words = vld1q_u32(from.add(4 * i));
                upper.0[i] = vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xFFFF_0000)));
                lower.0[i] = vreinterpretq_f32_u32(vshlq_n_u32::<16>(words));
            }
        }
        [upper, lower]
    }

    #[inline(always)]
    fn load_words(self, from: &[u8; 4 * LANES]) -> NeonWords {
        let from = from.as_ptr();
        // SAFETY: `self` proves the feature; all quarters lie within the 64 bytes.
        NeonWords(unsafe {
            [
                vreinterpretq_s32_u8(vld1q_u8(from)),
                vreinterpretq_s32_u8(vld1q_u8(from.add(16))),
                vreinterpretq_s32_u8(vld1q_u8(from.add(32))),
                vreinterpretq_s32_u8(vld1q_u8(from.add(48))),
            ]
        })
    }

    #[inline(always)]
    fn splat_words(self, word: i32) -> NeonWords {
        // SAFETY: `self` proves the feature.
        NeonWords([unsafe { vdupq_n_s32(word) }; 4])
    }

    #[inline(always)]
    fn prefetch<L>(self, elements: &[L], bytes: usize) {
        let address = elements.as_ptr().cast::<u8>().wrapping_add(bytes);
        // SAFETY: a prefetch reads nothing that the program can see, wherever it points.
        unsafe {
            asm!("prfm pldl2keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "neon")]
        fn with_neon<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the feature.
        unsafe { with_neon(kernel) }
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $intrinsic:ident) => {
        impl $trait for NeonLanes {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                quarters!($intrinsic(self, other))
            }
        }
    };
}
operator!(Add, add, vaddq_f32);
operator!(Sub, sub, vsubq_f32);
operator!(Mul, mul, vmulq_f32);
operator!(Div, div, vdivq_f32);

/// Like x86's `maxps`, unlike `vmaxq_f32`, which treats NaN and zeros differently.
///
/// # Safety
///
/// The CPU must have Advanced SIMD.
#[inline(always)]
unsafe fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the caller proves the feature.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

impl Lanes for NeonLanes {
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        quarters!(vfmaq_f32(term, self, factor))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        quarters!(larger(self, other))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        #[inline(always)]
        unsafe fn smaller(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: the caller proves the feature.
            unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
        }
        quarters!(smaller(self, other))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        quarters!(vabsq_f32(self))
    }

    #[inline(always)]
    fn select_negative(self, negative: Self, otherwise: Self) -> Self {
        #[inline(always)]
        unsafe fn select(
            x: float32x4_t,
            negative: float32x4_t,
            otherwise: float32x4_t,
        ) -> float32x4_t {
            // SAFETY: the caller proves the feature.
            unsafe { vbslq_f32(vcltzq_f32(x), negative, otherwise) }
        }
        quarters!(select(self, negative, otherwise))
    }

    #[inline(always)]
    fn scale_by_power(self, power: Self) -> Self {
        /// In two factors, as the scalar specification does.
        #[inline(always)]
        unsafe fn scale(x: float32x4_t, power: float32x4_t) -> float32x4_t {
            // SAFETY: the caller proves the feature.
            unsafe {
                let bias = vdupq_n_s32(127);
                let power = vcvtnq_s32_f32(power);
                let first = vshrq_n_s32::<1>(power);
                let second = vsubq_s32(power, first);
                let first = vshlq_n_s32::<23>(vaddq_s32(first, bias));
                let second = vshlq_n_s32::<23>(vaddq_s32(second, bias));
                let x = vmulq_f32(x, vreinterpretq_f32_s32(first));
                vmulq_f32(x, vreinterpretq_f32_s32(second))
            }
        }
        quarters!(scale(self, power))
    }

    #[inline(always)]
    fn lowest_bits_as_exponent(self) -> Self {
        #[inline(always)]
        unsafe fn shift(x: float32x4_t) -> float32x4_t {
            // SAFETY: the caller proves the feature.
            unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(x))) }
        }
        quarters!(shift(self))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: lanes prove the feature; all quarters lie within the sixteen floats.
        unsafe {
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
            vst1q_f32(to.add(8), self.0[2]);
            vst1q_f32(to.add(12), self.0[3]);
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: lanes prove the feature.
        unsafe {
            let four = larger(larger(a, c), larger(b, d));
            let two = larger(four, vextq_f32::<2>(four, four));
            vgetq_lane_f32::<0>(larger(two, vextq_f32::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn store_integers(self, to: &mut [i8; LANES]) {
        let [a, b, c, d] = self.0;
        // SAFETY: lanes prove the feature; `to` is sixteen bytes.
        unsafe {
            let eight = |low, high| {
                vcombine_s16(vmovn_s32(vcvtnq_s32_f32(low)), vmovn_s32(vcvtnq_s32_f32(high)))
            };
            vst1q_s8(to.as_mut_ptr(), vcombine_s8(vmovn_s16(eight(a, b)), vmovn_s16(eight(c, d))));
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: lanes prove the feature.
        unsafe {
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vpadds_f32(two)
        }
    }
}

/// By how many bits to shift to the left.
#[inline(always)]
fn counts(bits: i32) -> NeonWords {
    // SAFETY: Advanced SIMD is part of aarch64.
    NeonWords([unsafe { vdupq_n_s32(bits) }; 4])
}

impl Words for NeonWords {
    type Lanes = NeonLanes;

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        quarters!(NeonWords: vandq_s32(self, other))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        quarters!(NeonWords: vorrq_s32(self, other))
    }

    #[inline(always)]
    fn shift_left(self, bits: u32) -> Self {
        let counts = counts(bits.cast_signed());
        quarters!(NeonWords: vshlq_s32(self, counts))
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        #[inline(always)]
        unsafe fn shift(four: int32x4_t, counts: int32x4_t) -> int32x4_t {
            // SAFETY: the caller proves the feature.
            unsafe { vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(four), counts)) }
        }
        let counts = counts(-bits.cast_signed());
        quarters!(NeonWords: shift(self, counts))
    }

    #[inline(always)]
    fn shift_right_signed(self, bits: u32) -> Self {
        let counts = counts(-bits.cast_signed());
        quarters!(NeonWords: vshlq_s32(self, counts))
    }

    #[inline(always)]
    fn to_lanes(self) -> NeonLanes {
        quarters!(NeonLanes: vcvtq_f32_s32(self))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 4 * LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: words prove the feature; all quarters lie within the 64 bytes.
        unsafe {
            vst1q_u8(to, vreinterpretq_u8_s32(self.0[0]));
            vst1q_u8(to.add(16), vreinterpretq_u8_s32(self.0[1]));
            vst1q_u8(to.add(32), vreinterpretq_u8_s32(self.0[2]));
            vst1q_u8(to.add(48), vreinterpretq_u8_s32(self.0[3]));
        }
    }
}

/// Each byte of a word less 128: an unsigned byte with its highest bit turned is a signed one.
///
/// # Safety
///
/// The CPU must have Advanced SIMD.
#[inline(always)]
unsafe fn unbiased(weights: int32x4_t) -> int32x4_t {
    // SAFETY: the caller proves the feature.
    unsafe { veorq_s32(weights, vreinterpretq_s32_s8(vdupq_n_s8(i8::MIN))) }
}

impl Dots for Neon {
    type Simd = Self;

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        Simd::apart(self, kernel)
    }

    #[inline(always)]
    fn dot_small(self, sums: NeonWords, weights: NeonWords, activations: NeonWords) -> NeonWords {
        /// Products of 16 bits are added in pairs, then the pairs.
        #[inline(always)]
        unsafe fn dot(sums: int32x4_t, weights: int32x4_t, activations: int32x4_t) -> int32x4_t {
            // SAFETY: the caller proves the feature.
            unsafe {
                let weights = vreinterpretq_s8_s32(weights);
                let activations = vreinterpretq_s8_s32(activations);
                let low = vmull_s8(vget_low_s8(weights), vget_low_s8(activations));
                let high = vmull_high_s8(weights, activations);
                vaddq_s32(sums, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
            }
        }
        quarters!(NeonWords: dot(sums, weights, activations))
    }

    #[inline(always)]
    fn dot_biased(self, sums: NeonWords, weights: NeonWords, activations: NeonWords) -> NeonWords {
        self.dot_small(sums, quarters!(NeonWords: unbiased(weights)), activations)
    }

    #[inline(always)]
    fn biased_start(self, _activations: i32) -> i32 {
        0
    }
}

impl Dots for NeonDot {
    type Simd = Neon;

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        Simd::apart(self.0, kernel)
    }

    #[inline(always)]
    fn dot_small(self, sums: NeonWords, weights: NeonWords, activations: NeonWords) -> NeonWords {
        /// By name, since the intrinsic is not stable yet.
        #[inline(always)]
        unsafe fn dot(sums: int32x4_t, weights: int32x4_t, activations: int32x4_t) -> int32x4_t {
            let mut sums = sums;
            // SAFETY: the caller proves the feature, the instruction touches registers alone.
            unsafe {
                asm!(
                    ".arch_extension dotprod",
                    "sdot {sums:v}.4s, {weights:v}.16b, {activations:v}.16b",
                    sums = inout(vreg) sums,
                    weights = in(vreg) weights,
                    activations = in(vreg) activations,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sums
        }
        quarters!(NeonWords: dot(sums, weights, activations))
    }

    #[inline(always)]
    fn dot_biased(self, sums: NeonWords, weights: NeonWords, activations: NeonWords) -> NeonWords {
        self.dot_small(sums, quarters!(NeonWords: unbiased(weights)), activations)
    }

    #[inline(always)]
    fn biased_start(self, _activations: i32) -> i32 {
        0
    }
}
