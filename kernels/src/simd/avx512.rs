//! Sixteen lanes in one 512-bit register.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use half::{bf16, f16};

use super::avx2::sum_eight;
use super::{LANES, Lanes, Registers, Simd, environment};

/// Proof of AVX-512 Foundation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    /// The token, if this CPU has the feature.
    pub fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// All sixteen lanes.
///
/// Made only from an [`Avx512`], which is what lets the methods below call intrinsics.
#[derive(Clone, Copy)]
pub struct Avx512Lanes(__m512);

impl Simd for Avx512 {
    type Lanes = Avx512Lanes;

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
    fn load_bf16(self, from: &[bf16; LANES]) -> Avx512Lanes {
        // SAFETY: `self` proves the feature; `from` is sixteen 16-bit numbers.
        Avx512Lanes(unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    fn prefetch<E>(self, line: &[E; LANES]) {
        // SAFETY: SSE is part of x86-64; a prefetch reads nothing that the program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) }
    }

    #[inline(always)]
    fn vectorize<R>(self, kernel: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f")]
        fn with_avx512<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the feature.
        environment::with_default(move || unsafe { with_avx512(kernel) })
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
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: lanes prove the feature; `to` is sixteen floats.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: lanes prove the feature, which implies AVX.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            sum_eight(_mm256_add_ps(_mm512_castps512_ps256(self.0), high))
        }
    }
}
