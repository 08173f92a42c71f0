//! Sixteen lanes in two 256-bit registers.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use half::{bf16, f16};

use super::nearness::Nearness;
use super::pairs::Pairs;
use super::{DotInstructions, Dots, LANES, Lanes, Registers, Simd, Token, Words};

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Avx2 {
    dots: DotInstructions,
    nearness: Nearness,
}

/// Proof of AVX2, FMA, F16C and AVX-VNNI.
#[derive(Clone, Copy)]
pub struct AvxVnni(Avx2);

impl Avx2 {
    /// The token, if this CPU has the features.
    pub fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let has_vnni = is_x86_feature_detected!("avxvnni");
        present.then(|| Self {
            dots: DotInstructions::detected(has_vnni),
            nearness: Nearness::default(),
        })
    }

    /// The same with an instruction for dot products of bytes, if this CPU has it and it is not given up.
    pub fn vnni(self) -> Option<AvxVnni> {
        (self.dots == DotInstructions::Present).then_some(AvxVnni(self))
    }
}

impl Token for Avx2 {
    fn without_dots(self) -> Self {
        Self { dots: self.dots.given_up(), ..self }
    }

    fn has_given_up_dots(self) -> bool {
        self.dots == DotInstructions::GivenUp
    }

    #[inline(always)]
    fn tuned(self) -> Self {
        Self { nearness: Nearness::in_force(), ..self }
    }
}

/// The upper half of a word.
pub const UPPER_HALF: i32 = !0xFFFF;

/// Lanes 0..8 and 8..16.
///
/// Made only from an [`Avx2`], which is what lets the methods below call intrinsics.
#[derive(Clone, Copy)]
pub struct Avx2Lanes([__m256; 2]);

/// The words of lanes 0..8 and 8..16; as [`Avx2Lanes`], made only from an [`Avx2`].
#[derive(Clone, Copy)]
pub struct Avx2Words([__m256i; 2]);

/// Calls a function on both halves.
macro_rules! halves {
    ($function:ident($($lanes:expr),+)) => {
        halves!(Avx2Lanes: $function($($lanes),+))
    };
    ($type:ident: $function:ident($($lanes:expr),+)) => {
        // SAFETY: lanes and words exist only where an `Avx2` token was made, so the features are present.
        $type(unsafe { [$function($($lanes.0[0]),+), $function($($lanes.0[1]),+)] })
    };
    ($type:ident: $function:ident($lanes:expr; $of_both:expr)) => {{
        let of_both = $of_both;
        // SAFETY: as above.
        $type(unsafe { [$function($lanes.0[0], of_both), $function($lanes.0[1], of_both)] })
    }};
}

impl Simd for Avx2 {
    type Lanes = Avx2Lanes;
    type Words = Avx2Words;

    const REGISTERS: Registers = Registers::Few;
    const TAKES_TWO_PANELS: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> Avx2Lanes {
        // SAFETY: `self` proves the features.
        Avx2Lanes([unsafe { _mm256_set1_ps(value) }; 2])
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Avx2Lanes {
        let from = from.as_ptr();
        // SAFETY: `self` proves the features; both halves lie within the sixteen floats.
        Avx2Lanes(unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] })
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Avx2Lanes {
        let from = from.as_ptr().cast::<__m128i>();
        // SAFETY: `self` proves the features; both halves lie within the sixteen 16-bit numbers.
        Avx2Lanes(unsafe {
            [_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))]
        })
    }

    #[inline(always)]
    fn load_bf16_pairs(self, from: &[[bf16; 2]; LANES]) -> [Avx2Lanes; 2] {
        let from = from.as_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the features; both halves lie within the sixteen words of 32 bits.
        unsafe {
            let (low, high) = (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)));
            let mask = _mm256_set1_epi32(UPPER_HALF);
            let upper = [_mm256_and_si256(low, mask), _mm256_and_si256(high, mask)];
            let lower = [_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high)];
            [
                Avx2Lanes([_mm256_castsi256_ps(upper[0]), _mm256_castsi256_ps(upper[1])]),
                Avx2Lanes([_mm256_castsi256_ps(lower[0]), _mm256_castsi256_ps(lower[1])]),
            ]
        }
    }

    #[inline(always)]
    fn load_words(self, from: &[u8; 4 * LANES]) -> Avx2Words {
        let from = from.as_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the features; both halves lie within the 64 bytes.
        Avx2Words(unsafe { [_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))] })
    }

    #[inline(always)]
    fn splat_words(self, word: i32) -> Avx2Words {
        // SAFETY: `self` proves the features.
        Avx2Words([unsafe { _mm256_set1_epi32(word) }; 2])
    }

    // Half a line after the other: a register for one is all that twelve sums and three factors leave.
    #[inline(always)]
    fn add_multiples<const R: usize>(
        self,
        line: &[f32; LANES],
        factors: [Avx2Lanes; R],
        mut sums: [Avx2Lanes; R],
    ) -> [Avx2Lanes; R] {
        for half in 0..2 {
            // SAFETY: `self` proves the features; both halves lie within the sixteen floats.
            let line = unsafe { _mm256_loadu_ps(line.as_ptr().add(8 * half)) };
            for r in 0..R {
                let (factor, sum) = (factors[r].0[half], sums[r].0[half]);
                // SAFETY: `self` proves the features.
                sums[r].0[half] = unsafe { mul_add_in_order(factor, line, sum) };
            }
        }
        sums
    }

    #[inline(always)]
    fn prefetch<L>(self, elements: &[L], bytes: usize) {
        self.nearness.prefetch(elements, bytes);
    }

    #[inline(always)]
    fn prefetch_for_later<L>(self, elements: &[L], bytes: usize) {
        Nearness::SecondLevel.prefetch(elements, bytes);
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn with_avx2<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the features.
        unsafe { with_avx2(kernel) }
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $intrinsic:ident) => {
        impl $trait for Avx2Lanes {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                halves!($intrinsic(self, other))
            }
        }
    };
}
operator!(Add, add, _mm256_add_ps);
operator!(Sub, sub, _mm256_sub_ps);
operator!(Mul, mul, _mm256_mul_ps);
operator!(Div, div, _mm256_div_ps);

impl Lanes for Avx2Lanes {
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        halves!(_mm256_fmadd_ps(self, factor, term))
    }

    #[inline(always)]
    fn mul_add_in_order(self, factor: Self, term: Self) -> Self {
        halves!(mul_add_in_order(self, factor, term))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        halves!(_mm256_max_ps(self, other))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        halves!(_mm256_min_ps(self, other))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        #[inline(always)]
        unsafe fn abs(x: __m256) -> __m256 {
            // SAFETY: the caller proves the features.
            unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) }
        }
        halves!(abs(self))
    }

    #[inline(always)]
    fn select_negative(self, negative: Self, otherwise: Self) -> Self {
        #[inline(always)]
        unsafe fn select(x: __m256, negative: __m256, otherwise: __m256) -> __m256 {
            // SAFETY: the caller proves the features.
            unsafe {
                let below = _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps());
                _mm256_blendv_ps(otherwise, negative, below)
            }
        }
        halves!(select(self, negative, otherwise))
    }

    #[inline(always)]
    fn scale_by_power(self, power: Self) -> Self {
        /// In two factors, as the scalar specification does.
        #[inline(always)]
        unsafe fn scale(x: __m256, power: __m256) -> __m256 {
            // SAFETY: the caller proves the features.
            unsafe {
                let bias = _mm256_set1_epi32(127);
                let power = _mm256_cvtps_epi32(power);
                let first = _mm256_srai_epi32::<1>(power);
                let second = _mm256_sub_epi32(power, first);
                let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(first, bias));
                let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(second, bias));
                let x = _mm256_mul_ps(x, _mm256_castsi256_ps(first));
                _mm256_mul_ps(x, _mm256_castsi256_ps(second))
            }
        }
        halves!(scale(self, power))
    }

    #[inline(always)]
    fn lowest_bits_as_exponent(self) -> Self {
        #[inline(always)]
        unsafe fn shift(x: __m256) -> __m256 {
            // SAFETY: the caller proves the features.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(x))) }
        }
        halves!(shift(self))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: lanes prove the features; both halves lie within the sixteen floats.
        unsafe {
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        }
    }

    #[inline(always)]
    fn store_integers(self, to: &mut [i8; LANES]) {
        // SAFETY: lanes prove the features; `to` is sixteen bytes.
        unsafe {
            let low = _mm256_cvtps_epi32(self.0[0]);
            let high = _mm256_cvtps_epi32(self.0[1]);
            // Packing works on each half of a register: eight of the first lanes and the last, with those between them swapped.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: lanes prove the features.
        unsafe { sum_eight(_mm256_add_ps(self.0[0], self.0[1])) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: lanes prove the features.
        unsafe { largest_of_eight(_mm256_max_ps(self.0[0], self.0[1])) }
    }
}

impl Words for Avx2Words {
    type Lanes = Avx2Lanes;

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        halves!(Avx2Words: _mm256_and_si256(self, other))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        halves!(Avx2Words: _mm256_or_si256(self, other))
    }

    #[inline(always)]
    fn shift_left(self, bits: u32) -> Self {
        halves!(Avx2Words: _mm256_sll_epi32(self; count(bits)))
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        halves!(Avx2Words: _mm256_srl_epi32(self; count(bits)))
    }

    #[inline(always)]
    fn shift_right_signed(self, bits: u32) -> Self {
        halves!(Avx2Words: _mm256_sra_epi32(self; count(bits)))
    }

    #[inline(always)]
    fn to_lanes(self) -> Avx2Lanes {
        halves!(Avx2Lanes: _mm256_cvtepi32_ps(self))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 4 * LANES]) {
        let to = to.as_mut_ptr().cast::<__m256i>();
        // SAFETY: words prove the features; both halves lie within the 64 bytes.
        unsafe {
            _mm256_storeu_si256(to, self.0[0]);
            _mm256_storeu_si256(to.add(1), self.0[1]);
        }
    }
}

/// The same integers, which are computed here and in this order. Left to itself, the compiler adds the products of a row as a tree, row by row, and
/// keeps the weights of a whole run on the stack for the next row.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order(mut integers: __m256i) -> __m256i {
    // SAFETY: there is no instruction.
    unsafe { asm!("/* {0} */", inout(ymm_reg) integers, options(nomem, nostack, preserves_flags)) };
    integers
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn mul_add_in_order(x: __m256, factor: __m256, term: __m256) -> __m256 {
    _mm256_castsi256_ps(in_order(_mm256_castps_si256(_mm256_fmadd_ps(x, factor, term))))
}

/// By how many bits to shift.
#[inline(always)]
pub fn count(bits: u32) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_cvtsi32_si128(bits.cast_signed()) }
}

impl Pairs for Avx2Words {
    // There are more units for an exclusive or than for signs.
    const TAKES_APART: bool = true;

    #[inline(always)]
    fn pairs(self, activations: Self) -> Self {
        halves!(Avx2Words: _mm256_maddubs_epi16(self, activations))
    }

    #[inline(always)]
    fn sizes_and_signs(self) -> (Self, Self) {
        // SAFETY: words prove the features.
        let highest = Self([unsafe { _mm256_set1_epi8(i8::MIN) }; 2]);
        let signed = halves!(Avx2Words: _mm256_xor_si256(self, highest));
        (halves!(Avx2Words: _mm256_abs_epi8(signed)), signed)
    }

    #[inline(always)]
    fn with_signs(self, signs: Self) -> Self {
        halves!(Avx2Words: _mm256_sign_epi8(self, signs))
    }

    #[inline(always)]
    fn add_pairs(self, other: Self) -> Self {
        #[inline(always)]
        unsafe fn add(sums: __m256i, pairs: __m256i) -> __m256i {
            // SAFETY: the caller proves the features.
            unsafe { in_order(_mm256_add_epi16(sums, pairs)) }
        }
        halves!(Avx2Words: add(self, other))
    }

    #[inline(always)]
    fn add_to(self, sums: Self, factor: i16) -> Self {
        #[inline(always)]
        unsafe fn add(pairs: __m256i, sums: __m256i, factor: __m256i) -> __m256i {
            // SAFETY: the caller proves the features.
            unsafe { in_order(_mm256_add_epi32(sums, _mm256_madd_epi16(pairs, factor))) }
        }
        // SAFETY: words prove the features.
        let factor = Self([unsafe { _mm256_set1_epi16(factor) }; 2]);
        halves!(Avx2Words: add(self, sums, factor))
    }

    /// Sizes, and ones where a weight is negative: with those flipped an activation `a` is `-a - 1`, which is a size too little.
    #[inline(always)]
    fn take_apart(self, sums: Self) -> ([Self; 2], Self) {
        let (sizes, signs) = self.sizes_and_signs();
        // SAFETY: words prove the features.
        let (zero, one) = unsafe { (_mm256_setzero_si256(), _mm256_set1_epi8(1)) };
        let (zero, one) = (Self([zero; 2]), Self([one; 2]));
        let flips = halves!(Avx2Words: _mm256_cmpgt_epi8(zero, signs));
        ([sizes, flips], sizes.and(flips).pairs(one).add_to(sums, 1))
    }

    /// Two products are at least `2 * 128 * -128`.
    #[inline(always)]
    fn dot_apart(self, sums: Self, [sizes, flips]: [Self; 2]) -> Self {
        sizes.pairs(halves!(Avx2Words: _mm256_xor_si256(self, flips))).add_to(sums, 1)
    }
}

impl Dots for AvxVnni {
    type Simd = Avx2;

    #[inline(always)]
    fn simd(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn with_vnni<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the features.
        unsafe { with_vnni(kernel) }
    }

    #[inline(always)]
    fn dot_small(self, sums: Avx2Words, weights: Avx2Words, activations: Avx2Words) -> Avx2Words {
        #[inline(always)]
        unsafe fn dot(sums: __m256i, weights: __m256i, activations: __m256i) -> __m256i {
            // SAFETY: the caller proves the features.
            unsafe { _mm256_dpbusd_avx_epi32(sums, weights, activations) }
        }
        // SAFETY: `self` proves AVX-VNNI besides.
        halves!(Avx2Words: dot(sums, weights, activations))
    }

    #[inline(always)]
    fn dot_biased(self, sums: Avx2Words, weights: Avx2Words, activations: Avx2Words) -> Avx2Words {
        self.dot_small(sums, weights, activations)
    }

    #[inline(always)]
    fn biased_start(self, activations: i32) -> i32 {
        -128 * activations
    }
}

/// Adds eight lanes by halves.
///
/// # Safety
///
/// The CPU must have AVX.
#[inline(always)]
pub unsafe fn sum_eight(eight: __m256) -> f32 {
    // SAFETY: the caller proves the feature.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The largest of eight lanes, by halves.
///
/// # Safety
///
/// The CPU must have AVX.
#[inline(always)]
pub unsafe fn largest_of_eight(eight: __m256) -> f32 {
    // SAFETY: the caller proves the feature.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}
