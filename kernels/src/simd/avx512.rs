//! Sixteen lanes in one 512-bit register.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::{Add, Div, Mul, Sub};
use std::sync::OnceLock;

use half::{bf16, f16};

use super::avx2::{UPPER_HALF, count, largest_of_eight, sum_eight};
use super::nearness::Nearness;
use super::pairs::Pairs;
use super::slices::inlined;
use super::{
    BrainDots, DotInstructions, Dots, LANES, Lanes, Registers, Scalar, Simd, Token, Words,
};

/// Proof of AVX-512 Foundation and its instructions for bytes and words (BW).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Avx512 {
    dots: DotInstructions,
    brain_dots: DotInstructions,
    nearness: Nearness,
}

/// Proof of AVX-512 Foundation, BW and VNNI.
#[derive(Clone, Copy)]
pub struct Avx512Vnni(Avx512);

/// Proof of AVX-512 Foundation, BW and BF16.
#[derive(Clone, Copy)]
pub struct Avx512Bf16(Avx512);

impl Avx512 {
    /// The token, if this CPU has the features.
    pub fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        let has_vnni = is_x86_feature_detected!("avx512vnni");
        present.then(|| {
            let token = Self {
                dots: DotInstructions::detected(has_vnni),
                brain_dots: DotInstructions::Absent,
                nearness: Nearness::default(),
            };
            Self { brain_dots: DotInstructions::detected(token.has_usable_bf16()), ..token }
        })
    }

    /// Whether this CPU has an instruction for products of brain floats, and it rounds as [`BrainDots`] says: no document promises it.
    fn has_usable_bf16(self) -> bool {
        static IS_USABLE: OnceLock<bool> = OnceLock::new();
        is_x86_feature_detected!("avx512bf16")
            && *IS_USABLE
                .get_or_init(|| probe_brain_dots(Avx512Bf16(self)) == probe_brain_dots(Scalar))
    }

    /// The same with an instruction for dot products of bytes, if this CPU has it and it is not given up.
    pub fn vnni(self) -> Option<Avx512Vnni> {
        (self.dots == DotInstructions::Present).then_some(Avx512Vnni(self))
    }

    /// The same with an instruction for products of brain floats, if this CPU has it and it is not given up.
    pub fn bf16(self) -> Option<Avx512Bf16> {
        (self.brain_dots == DotInstructions::Present).then_some(Avx512Bf16(self))
    }
}

impl Token for Avx512 {
    fn without_dots(self) -> Self {
        Self { dots: self.dots.given_up(), brain_dots: self.brain_dots.given_up(), ..self }
    }

    fn has_given_up_dots(self) -> bool {
        [self.dots, self.brain_dots].contains(&DotInstructions::GivenUp)
    }

    #[inline(always)]
    fn tuned(self) -> Self {
        Self { nearness: Nearness::in_force(), ..self }
    }
}

/// Sums and products that another order, another rounding or a product rounded by itself would show, and the same with other signs.
fn probe_brain_dots<D: BrainDots>(dots: D) -> [u32; LANES] {
    let power = |exponent: i32| 2.0_f32.powi(exponent);
    // A sum, the first product's factors, and the second's.
    let probes = [
        // Either product alone is lost, both together are not.
        [1.0, power(-12), power(-12), power(-12), power(-12)],
        // The second product is lost, if it does not come first.
        [1.0, power(12), power(12), 1.0, 1.0],
        // Half a unit in the last place, and a little more than that from another product.
        [1.0, power(-12), power(-12), 3.0, power(-50)],
        [1.0, 3.0, power(-50), power(-12), power(-12)],
        // Three quarters of a unit, up and down.
        [1.0, 3.0, power(-25), 0.0, 0.0],
        [1.0, 0.0, 0.0, -3.0, power(-26)],
        // A product that no single holds, and one of sixteen bits.
        [-power(127), power(64), power(64), 1.0, 1.0],
        [power(-20), 1.992_187_5, 1.992_187_5, -1.992_187_5, 1.984_375],
    ];
    let (mut sums, mut weights, mut activations) =
        ([0.0; LANES], [[bf16::ZERO; 2]; LANES], [[bf16::ZERO; 2]; LANES]);
    for i in 0..LANES {
        let [sum, factors @ ..] = probes[i / 2];
        let [first_weight, first, second_weight, second] = factors.map(bf16::from_f32);
        let sign = if i % 2 == 0 { bf16::ONE } else { bf16::NEG_ONE };
        sums[i] = sum * sign.to_f32();
        weights[i] = [second_weight, first_weight];
        activations[i] = [second * sign, first * sign];
    }
    added(dots, &sums, &weights, &activations).map(f32::to_bits)
}

/// As [`BrainDots::add_products`].
fn added<D: BrainDots>(
    dots: D,
    sums: &[f32; LANES],
    weights: &[[bf16; 2]; LANES],
    activations: &[[bf16; 2]; LANES],
) -> [f32; LANES] {
    dots.vectorize(inlined!(|| {
        let (weights, activations) = (dots.load_pairs(weights), dots.load_pairs(activations));
        dots.add_products(dots.simd().load(sums), weights, activations).to_array()
    }))
}

/// All sixteen lanes.
///
/// Made only from an [`Avx512`], which is what lets the methods below call intrinsics.
#[derive(Clone, Copy)]
pub struct Avx512Lanes(__m512);

/// All sixteen words; as [`Avx512Lanes`], made only from an [`Avx512`].
#[derive(Clone, Copy)]
pub struct Avx512Words(__m512i);

impl Simd for Avx512 {
    type Lanes = Avx512Lanes;
    type Words = Avx512Words;

    const REGISTERS: Registers = Registers::Many;

    #[inline(always)]
    fn splat(self, value: f32) -> Avx512Lanes {
        // SAFETY: `self` proves the feature.
        Avx512Lanes(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Avx512Lanes {
        // SAFETY: `self` proves the feature; `from` is sixteen floats.
        Avx512Lanes(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Avx512Lanes {
        // SAFETY: `self` proves the feature; `from` is sixteen 16-bit numbers.
        Avx512Lanes(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_bf16_pairs(self, from: &[[bf16; 2]; LANES]) -> [Avx512Lanes; 2] {
        // SAFETY: `self` proves the feature; `from` is sixteen words of 32 bits.
        unsafe {
            let words = _mm512_loadu_si512(from.as_ptr().cast());
            let upper = _mm512_and_si512(words, _mm512_set1_epi32(UPPER_HALF));
            let lower = _mm512_slli_epi32::<16>(words);
            [Avx512Lanes(_mm512_castsi512_ps(upper)), Avx512Lanes(_mm512_castsi512_ps(lower))]
        }
    }

    #[inline(always)]
    fn load_words(self, from: &[u8; 4 * LANES]) -> Avx512Words {
        // SAFETY: `self` proves the feature; `from` is 64 bytes.
        Avx512Words(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn splat_words(self, word: i32) -> Avx512Words {
        // SAFETY: `self` proves the feature.
        Avx512Words(unsafe { _mm512_set1_epi32(word) })
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
        #[target_feature(enable = "avx512f,avx512bw")]
        fn with_avx512<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the feature.
        unsafe { with_avx512(kernel) }
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $intrinsic:ident) => {
        impl $trait for Avx512Lanes {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: lanes exist only where an `Avx512` token was made.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}
operator!(Add, add, _mm512_add_ps);
operator!(Sub, sub, _mm512_sub_ps);
operator!(Mul, mul, _mm512_mul_ps);
operator!(Div, div, _mm512_div_ps);

impl Lanes for Avx512Lanes {
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: lanes prove the feature.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: lanes prove the feature.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: lanes prove the feature.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: lanes prove the feature.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    fn select_negative(self, negative: Self, otherwise: Self) -> Self {
        // SAFETY: lanes prove the feature.
        Self(unsafe {
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
            _mm512_mask_blend_ps(below, otherwise.0, negative.0)
        })
    }

    #[inline(always)]
    fn scale_by_power(self, power: Self) -> Self {
        // SAFETY: lanes prove the feature.
        Self(unsafe { _mm512_scalef_ps(self.0, power.0) })
    }

    #[inline(always)]
    fn lowest_bits_as_exponent(self) -> Self {
        // SAFETY: lanes prove the feature.
        Self(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0))) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: lanes prove the feature; `to` is sixteen floats.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn store_integers(self, to: &mut [i8; LANES]) {
        // SAFETY: lanes prove the feature; `to` is sixteen bytes.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: lanes prove the feature, which implies AVX.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            sum_eight(_mm256_add_ps(_mm512_castps512_ps256(self.0), high))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: lanes prove the feature, which implies AVX.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            largest_of_eight(_mm256_max_ps(_mm512_castps512_ps256(self.0), high))
        }
    }
}

impl Words for Avx512Words {
    type Lanes = Avx512Lanes;

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: words prove the feature.
        Self(unsafe { _mm512_and_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: words prove the feature.
        Self(unsafe { _mm512_or_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn shift_left(self, bits: u32) -> Self {
        // SAFETY: words prove the feature.
        Self(unsafe { _mm512_sll_epi32(self.0, count(bits)) })
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        // SAFETY: words prove the feature.
        Self(unsafe { _mm512_srl_epi32(self.0, count(bits)) })
    }

    #[inline(always)]
    fn shift_right_signed(self, bits: u32) -> Self {
        // SAFETY: words prove the feature.
        Self(unsafe { _mm512_sra_epi32(self.0, count(bits)) })
    }

    #[inline(always)]
    fn to_lanes(self) -> Avx512Lanes {
        // SAFETY: words prove the feature.
        Avx512Lanes(unsafe { _mm512_cvtepi32_ps(self.0) })
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 4 * LANES]) {
        // SAFETY: words prove the feature; `to` is 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
    }
}

impl Pairs for Avx512Words {
    #[inline(always)]
    fn pairs(self, activations: Self) -> Self {
        // SAFETY: words prove the features.
        Self(unsafe { _mm512_maddubs_epi16(self.0, activations.0) })
    }

    #[inline(always)]
    fn sizes_and_signs(self) -> (Self, Self) {
        // SAFETY: words prove the features.
        unsafe {
            let signed = _mm512_xor_si512(self.0, _mm512_set1_epi8(i8::MIN));
            (Self(_mm512_abs_epi8(signed)), Self(signed))
        }
    }

    #[inline(always)]
    fn with_signs(self, signs: Self) -> Self {
        // SAFETY: words prove the features. Where a sign is 0 so is the factor.
        Self(unsafe {
            let negative = _mm512_movepi8_mask(signs.0);
            _mm512_mask_sub_epi8(self.0, negative, _mm512_setzero_si512(), self.0)
        })
    }

    #[inline(always)]
    fn add_pairs(self, other: Self) -> Self {
        // SAFETY: words prove the features.
        Self(unsafe { _mm512_add_epi16(self.0, other.0) })
    }

    #[inline(always)]
    fn add_to(self, sums: Self, factor: i16) -> Self {
        // SAFETY: words prove the features.
        Self(unsafe {
            _mm512_add_epi32(sums.0, _mm512_madd_epi16(self.0, _mm512_set1_epi16(factor)))
        })
    }
}

impl Dots for Avx512Vnni {
    type Simd = Avx512;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn with_vnni<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the features.
        unsafe { with_vnni(kernel) }
    }

    #[inline(always)]
    fn dot_small(
        self,
        sums: Avx512Words,
        weights: Avx512Words,
        activations: Avx512Words,
    ) -> Avx512Words {
        // SAFETY: `self` proves the features.
        Avx512Words(unsafe { _mm512_dpbusd_epi32(sums.0, weights.0, activations.0) })
    }

    #[inline(always)]
    fn dot_biased(
        self,
        sums: Avx512Words,
        weights: Avx512Words,
        activations: Avx512Words,
    ) -> Avx512Words {
        self.dot_small(sums, weights, activations)
    }

    #[inline(always)]
    fn biased_start(self, activations: i32) -> i32 {
        -128 * activations
    }
}

impl BrainDots for Avx512Bf16 {
    type Simd = Avx512;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
        fn with_bf16<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the features.
        unsafe { with_bf16(kernel) }
    }

    #[inline(always)]
    fn load_pairs(self, from: &[[bf16; 2]; LANES]) -> Avx512Words {
        // SAFETY: `self` proves the features; `from` is sixteen words of 32 bits.
        Avx512Words(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn add_products(
        self,
        sums: Avx512Lanes,
        weights: Avx512Words,
        activations: Avx512Words,
    ) -> Avx512Lanes {
        // SAFETY: `self` proves the features; both types are 512 bits.
        unsafe {
            let weights = transmute::<__m512i, __m512bh>(weights.0);
            let activations = transmute::<__m512i, __m512bh>(activations.0);
            Avx512Lanes(_mm512_dpbf16_ps(sums.0, weights, activations))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as no number is below 2^-55, and kernels let it see no other.
    #[test]
    fn the_instruction_for_brain_floats_is_two_multiply_adds() {
        let Some(bf16) = Avx512::detect().and_then(Avx512::bf16) else { return };
        let mut state = 1_u64;
        let mut bits = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        };
        // Exponents far from each other, or close, so that sums cancel; those of products that overflow.
        for (lowest, exponents) in [(-55, 183), (-55, 20), (-4, 8), (55, 73)] {
            let mut number = || {
                let exponent = (127 + lowest) as u32 + bits() % exponents;
                f32::from_bits(bits() & 0x807F_FFFF | exponent << 23)
            };
            for _ in 0..20_000 {
                let sums = [(); LANES].map(|()| number());
                let mut pairs = || {
                    [[(); 2]; LANES].map(|pair| {
                        pair.map(|()| bf16::from_bits((number().to_bits() >> 16) as u16))
                    })
                };
                let (weights, activations) = (pairs(), pairs());
                let sums_of_instruction = added(bf16, &sums, &weights, &activations);
                let expected = added(Scalar, &sums, &weights, &activations);
                for (sum, expected) in sums_of_instruction.into_iter().zip(expected) {
                    let is_equal = sum.to_bits() == expected.to_bits();
                    assert!(is_equal || sum.is_nan() && expected.is_nan(), "{sum} {expected}");
                }
            }
        }
    }
}
