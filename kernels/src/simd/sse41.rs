//! Sixteen lanes in four 128-bit registers, on x86 CPUs without AVX2 or FMA.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use half::{bf16, f16};

use super::avx2::{UPPER_HALF, count};
use super::nearness::Nearness;
use super::pairs::Pairs;
use super::{LANES, Lanes, Registers, Simd, Token, Words};

/// Proof of SSE4.1 and SSSE3.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sse41 {
    nearness: Nearness,
}

impl Sse41 {
    /// The token, if this CPU has the features.
    pub fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3");
        present.then(|| Self { nearness: Nearness::default() })
    }
}

impl Token for Sse41 {
    const IS_FALLBACK: bool = true;

    #[inline(always)]
    fn tuned(self) -> Self {
        Self { nearness: Nearness::in_force() }
    }
}

/// Lanes 0..4, 4..8, 8..12 and 12..16.
///
/// Made only from an [`Sse41`], which is what lets the methods below call intrinsics.
#[derive(Clone, Copy)]
pub struct Sse41Lanes([__m128; 4]);

/// The words of lanes 0..4, 4..8, 8..12 and 12..16; as [`Sse41Lanes`], made only from an [`Sse41`].
#[derive(Clone, Copy)]
pub struct Sse41Words([__m128i; 4]);

/// Calls a function on all four quarters.
macro_rules! quarters {
    ($function:ident($($lanes:expr),+)) => {
        quarters!(Sse41Lanes: $function($($lanes),+))
    };
    ($type:ident: $function:ident($($lanes:expr),+)) => {
        // SAFETY: lanes and words exist only where an `Sse41` token was made, so the features are present.
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

impl Simd for Sse41 {
    type Lanes = Sse41Lanes;
    type Words = Sse41Words;

    const REGISTERS: Registers = Registers::Few;

    #[inline(always)]
    fn splat(self, value: f32) -> Sse41Lanes {
        // SAFETY: `self` proves the features.
        Sse41Lanes([unsafe { _mm_set1_ps(value) }; 4])
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Sse41Lanes {
        let from = from.as_ptr();
        // SAFETY: `self` proves the features; all quarters lie within the sixteen floats.
        Sse41Lanes(unsafe {
            [
                _mm_loadu_ps(from),
                _mm_loadu_ps(from.add(4)),
                _mm_loadu_ps(from.add(8)),
                _mm_loadu_ps(from.add(12)),
            ]
        })
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Sse41Lanes {
        let from = from.as_ptr().cast::<__m128i>();
        // SAFETY: `self` proves the features; both halves lie within the sixteen 16-bit numbers.
        unsafe {
            let (low, high) = (_mm_loadu_si128(from), _mm_loadu_si128(from.add(1)));
            Sse41Lanes([
                widened(_mm_cvtepu16_epi32(low)),
                widened(_mm_cvtepu16_epi32(_mm_unpackhi_epi64(low, low))),
                widened(_mm_cvtepu16_epi32(high)),
                widened(_mm_cvtepu16_epi32(_mm_unpackhi_epi64(high, high))),
            ])
        }
    }

    #[inline(always)]
    fn load_bf16_pairs(self, from: &[[bf16; 2]; LANES]) -> [Sse41Lanes; 2] {
        let from = from.as_ptr().cast::<__m128i>();
        let (mut upper, mut lower) = (self.splat(0.0), self.splat(0.0));
        for i in 0..4 {
            // SAFETY: `self` proves the features; all quarters lie within the sixteen words of 32 bits.
            unsafe {
                let words = _mm_loadu_si128(from.add(i));
                let mask = _mm_set1_epi32(UPPER_HALF);
                upper.0[i] = _mm_castsi128_ps(_mm_and_si128(words, mask));
                lower.0[i] = _mm_castsi128_ps(_mm_slli_epi32::<16>(words));
            }
        }
        [upper, lower]
    }

    #[inline(always)]
    fn load_words(self, from: &[u8; 4 * LANES]) -> Sse41Words {
        let from = from.as_ptr().cast::<__m128i>();
        // SAFETY: `self` proves the features; all quarters lie within the 64 bytes.
        Sse41Words(unsafe {
            [
                _mm_loadu_si128(from),
                _mm_loadu_si128(from.add(1)),
                _mm_loadu_si128(from.add(2)),
                _mm_loadu_si128(from.add(3)),
            ]
        })
    }

    #[inline(always)]
    fn splat_words(self, word: i32) -> Sse41Words {
        // SAFETY: `self` proves the features.
        Sse41Words([unsafe { _mm_set1_epi32(word) }; 4])
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
        #[target_feature(enable = "sse4.1,ssse3")]
        fn with_sse41<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the features.
        unsafe { with_sse41(kernel) }
    }
}

/// Four halves, each in the lower bits of a word, as floats.
///
/// # Safety
///
/// The CPU must have SSE4.1.
#[inline(always)]
unsafe fn widened(halves: __m128i) -> __m128 {
    // SAFETY: the caller proves the feature.
    unsafe {
        let magnitude = _mm_and_si128(halves, _mm_set1_epi32(0x7FFF));
        let sign = _mm_slli_epi32::<16>(_mm_xor_si128(halves, magnitude));
        // Exponents begin 112 lower, and the highest means infinity or NaN.
        let bias = _mm_set1_epi32(112 << 23);
        let is_special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7BFF));
        let normal = _mm_add_epi32(_mm_slli_epi32::<13>(magnitude), bias);
        let normal = _mm_add_epi32(normal, _mm_and_si128(is_special, bias));
        let subnormal = _mm_mul_ps(_mm_cvtepi32_ps(magnitude), _mm_set1_ps(1.0 / 16_777_216.0));
        let is_subnormal = _mm_cmpgt_epi32(_mm_set1_epi32(0x400), magnitude);
        let value =
            _mm_blendv_ps(_mm_castsi128_ps(normal), subnormal, _mm_castsi128_ps(is_subnormal));
        _mm_or_ps(value, _mm_castsi128_ps(sign))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $intrinsic:ident) => {
        impl $trait for Sse41Lanes {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                quarters!($intrinsic(self, other))
            }
        }
    };
}
operator!(Add, add, _mm_add_ps);
operator!(Sub, sub, _mm_sub_ps);
operator!(Mul, mul, _mm_mul_ps);
operator!(Div, div, _mm_div_ps);

/// Two lanes and two lanes in double precision.
///
/// # Safety
///
/// The CPU must have SSE4.1.
#[inline(always)]
unsafe fn doubles(four: __m128) -> [__m128d; 2] {
    // SAFETY: the caller proves the feature.
    unsafe { [_mm_cvtps_pd(four), _mm_cvtps_pd(_mm_movehl_ps(four, four))] }
}

/// The same, rounded.
///
/// # Safety
///
/// The CPU must have SSE4.1.
#[inline(always)]
unsafe fn singles([low, high]: [__m128d; 2]) -> __m128 {
    // SAFETY: the caller proves the feature.
    unsafe { _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high)) }
}

/// Without its sign.
///
/// # Safety
///
/// The CPU must have SSE4.1.
#[inline(always)]
unsafe fn magnitude(two: __m128d) -> __m128d {
    // SAFETY: the caller proves the feature.
    unsafe { _mm_andnot_pd(_mm_set1_pd(-0.0), two) }
}

/// `a * b + c`, rounded to 53 bits, the last of which is set where anything was lost: so that rounding once more to fewer gives what rounding once
/// does.
///
/// # Safety
///
/// The CPU must have SSE4.1.
#[inline(always)]
unsafe fn sum_to_odd(a: __m128d, b: __m128d, c: __m128d) -> __m128d {
    // SAFETY: the caller proves the feature.
    unsafe {
        // Exact: 48 bits at most, and no exponent of singles is out of range.
        let product = _mm_mul_pd(a, b);
        let sum = _mm_add_pd(product, c);
        // What the sum lost, exactly (Knuth's TwoSum). NaN where the sum is not finite.
        let term = _mm_sub_pd(sum, product);
        let lost = _mm_add_pd(_mm_sub_pd(product, _mm_sub_pd(sum, term)), _mm_sub_pd(c, term));
        let is_inexact = _mm_cmplt_pd(_mm_setzero_pd(), magnitude(lost));
        // Where the signs differ, the sum was rounded away from zero.
        let is_above = _mm_srli_epi64::<63>(_mm_castpd_si128(_mm_xor_pd(sum, lost)));
        let towards_zero = _mm_sub_epi64(_mm_castpd_si128(sum), is_above);
        let odd = _mm_or_si128(towards_zero, _mm_set1_epi64x(1));
        _mm_blendv_pd(sum, _mm_castsi128_pd(odd), is_inexact)
    }
}

/// [`Lanes::mul_add`] for any operands.
#[cold]
#[inline(never)]
#[target_feature(enable = "sse4.1,ssse3")]
fn mul_add_to_odd(x: Sse41Lanes, factor: Sse41Lanes, term: Sse41Lanes) -> Sse41Lanes {
    let mut result = x;
    for i in 0..4 {
        // SAFETY: lanes prove the features.
        unsafe {
            let ([a, b], [c, d]) = (doubles(x.0[i]), doubles(factor.0[i]));
            let [e, f] = doubles(term.0[i]);
            result.0[i] = singles([sum_to_odd(a, c, e), sum_to_odd(b, d, f)]);
        }
    }
    result
}

/// [`Lanes::mul_add`], in double precision, where the product is exact and only the sum is rounded. Rounding that once more is wrong only if it is
/// halfway between two singles: then all is done again with more care, and also if it may be subnormal, where halfway looks otherwise.
///
/// Not inlined: no register is left beside it anyway, and kernels would take minutes to compile.
#[inline(never)]
#[target_feature(enable = "sse4.1,ssse3")]
fn mul_add(x: Sse41Lanes, factor: Sse41Lanes, term: Sse41Lanes) -> Sse41Lanes {
    let (beyond, halfway) = (_mm_set1_epi64x((1 << 29) - 1), _mm_set1_epi64x(1 << 28));
    let mut smallest = _mm_set1_pd(1.0);
    let mut is_halfway = _mm_setzero_si128();
    let mut result = x;
    for i in 0..4 {
        // SAFETY: lanes prove the features.
        let (a, b, mut sums) =
            unsafe { (doubles(x.0[i]), doubles(factor.0[i]), doubles(term.0[i])) };
        for half in 0..2 {
            let sum = _mm_add_pd(_mm_mul_pd(a[half], b[half]), sums[half]);
            let last = _mm_and_si128(_mm_castpd_si128(sum), beyond);
            is_halfway = _mm_or_si128(is_halfway, _mm_cmpeq_epi64(last, halfway));
            // SAFETY: lanes prove the features.
            smallest = _mm_min_pd(unsafe { magnitude(sum) }, smallest);
            sums[half] = sum;
        }
        // SAFETY: lanes prove the features.
        result.0[i] = unsafe { singles(sums) };
    }
    let is_small = _mm_cmplt_pd(smallest, _mm_set1_pd(f32::MIN_POSITIVE.into()));
    let needs_care = _mm_or_si128(is_halfway, _mm_castpd_si128(is_small));
    if _mm_movemask_epi8(needs_care) == 0 { result } else { mul_add_to_odd(x, factor, term) }
}

impl Lanes for Sse41Lanes {
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: lanes prove the features.
        unsafe { mul_add(self, factor, term) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        quarters!(_mm_max_ps(self, other))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        quarters!(_mm_min_ps(self, other))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        #[inline(always)]
        unsafe fn abs(x: __m128) -> __m128 {
            // SAFETY: the caller proves the features.
            unsafe { _mm_andnot_ps(_mm_set1_ps(-0.0), x) }
        }
        quarters!(abs(self))
    }

    #[inline(always)]
    fn select_negative(self, negative: Self, otherwise: Self) -> Self {
        #[inline(always)]
        unsafe fn select(x: __m128, negative: __m128, otherwise: __m128) -> __m128 {
            // SAFETY: the caller proves the features.
            unsafe { _mm_blendv_ps(otherwise, negative, _mm_cmplt_ps(x, _mm_setzero_ps())) }
        }
        quarters!(select(self, negative, otherwise))
    }

    #[inline(always)]
    fn scale_by_power(self, power: Self) -> Self {
        /// In two factors, as the scalar specification does.
        #[inline(always)]
        unsafe fn scale(x: __m128, power: __m128) -> __m128 {
            // SAFETY: the caller proves the features.
            unsafe {
                let bias = _mm_set1_epi32(127);
                let power = _mm_cvtps_epi32(power);
                let first = _mm_srai_epi32::<1>(power);
                let second = _mm_sub_epi32(power, first);
                let first = _mm_slli_epi32::<23>(_mm_add_epi32(first, bias));
                let second = _mm_slli_epi32::<23>(_mm_add_epi32(second, bias));
                let x = _mm_mul_ps(x, _mm_castsi128_ps(first));
                _mm_mul_ps(x, _mm_castsi128_ps(second))
            }
        }
        quarters!(scale(self, power))
    }

    #[inline(always)]
    fn lowest_bits_as_exponent(self) -> Self {
        #[inline(always)]
        unsafe fn shift(x: __m128) -> __m128 {
            // SAFETY: the caller proves the features.
            unsafe { _mm_castsi128_ps(_mm_slli_epi32::<23>(_mm_castps_si128(x))) }
        }
        quarters!(shift(self))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: lanes prove the features; all quarters lie within the sixteen floats.
        unsafe {
            _mm_storeu_ps(to, self.0[0]);
            _mm_storeu_ps(to.add(4), self.0[1]);
            _mm_storeu_ps(to.add(8), self.0[2]);
            _mm_storeu_ps(to.add(12), self.0[3]);
        }
    }

    #[inline(always)]
    fn store_integers(self, to: &mut [i8; LANES]) {
        let [a, b, c, d] = self.0;
        // SAFETY: lanes prove the features; `to` is sixteen bytes.
        unsafe {
            let low = _mm_packs_epi32(_mm_cvtps_epi32(a), _mm_cvtps_epi32(b));
            let high = _mm_packs_epi32(_mm_cvtps_epi32(c), _mm_cvtps_epi32(d));
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_packs_epi16(low, high));
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: lanes prove the features.
        unsafe {
            let four = _mm_add_ps(_mm_add_ps(a, c), _mm_add_ps(b, d));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: lanes prove the features.
        unsafe {
            let four = _mm_max_ps(_mm_max_ps(a, c), _mm_max_ps(b, d));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

/// Shifts all four quarters by `$bits`.
macro_rules! shifted {
    ($words:expr, $intrinsic:ident, $bits:expr) => {{
        let mut words = $words;
        for i in 0..4 {
            // SAFETY: words prove the features.
            words.0[i] = unsafe { $intrinsic(words.0[i], count($bits)) };
        }
        words
    }};
}

impl Words for Sse41Words {
    type Lanes = Sse41Lanes;

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        quarters!(Sse41Words: _mm_and_si128(self, other))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        quarters!(Sse41Words: _mm_or_si128(self, other))
    }

    #[inline(always)]
    fn shift_left(self, bits: u32) -> Self {
        shifted!(self, _mm_sll_epi32, bits)
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        shifted!(self, _mm_srl_epi32, bits)
    }

    #[inline(always)]
    fn shift_right_signed(self, bits: u32) -> Self {
        shifted!(self, _mm_sra_epi32, bits)
    }

    #[inline(always)]
    fn to_lanes(self) -> Sse41Lanes {
        quarters!(Sse41Lanes: _mm_cvtepi32_ps(self))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 4 * LANES]) {
        let to = to.as_mut_ptr().cast::<__m128i>();
        for i in 0..4 {
            // SAFETY: words prove the features; all quarters lie within the 64 bytes.
            unsafe { _mm_storeu_si128(to.add(i), self.0[i]) }
        }
    }
}

impl Pairs for Sse41Words {
    #[inline(always)]
    fn pairs(self, activations: Self) -> Self {
        quarters!(Sse41Words: _mm_maddubs_epi16(self, activations))
    }

    #[inline(always)]
    fn sizes_and_signs(self) -> (Self, Self) {
        // SAFETY: words prove the features.
        let highest = Self([unsafe { _mm_set1_epi8(i8::MIN) }; 4]);
        let signed = quarters!(Sse41Words: _mm_xor_si128(self, highest));
        (quarters!(Sse41Words: _mm_abs_epi8(signed)), signed)
    }

    #[inline(always)]
    fn with_signs(self, signs: Self) -> Self {
        quarters!(Sse41Words: _mm_sign_epi8(self, signs))
    }

    #[inline(always)]
    fn add_pairs(self, other: Self) -> Self {
        quarters!(Sse41Words: _mm_add_epi16(self, other))
    }

    #[inline(always)]
    fn add_to(self, sums: Self, factor: i16) -> Self {
        #[inline(always)]
        unsafe fn add(pairs: __m128i, sums: __m128i, factor: __m128i) -> __m128i {
            // SAFETY: the caller proves the features.
            unsafe { _mm_add_epi32(sums, _mm_madd_epi16(pairs, factor)) }
        }
        // SAFETY: words prove the features.
        let factor = Self([unsafe { _mm_set1_epi16(factor) }; 4]);
        quarters!(Sse41Words: add(self, sums, factor))
    }
}
