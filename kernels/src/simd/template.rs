//! Sixteen lanes in an array so far: put REGISTERS here.
//!
//! Each verb goes through [`Scalar`], so this is right and slow. Change what [`TemplateLanes`] and [`TemplateWords`] hold to registers, and their four
//! conversions with it; then replace one verb after another by intrinsics, and look at each with `lfm2 bring-up --isa template --until lanes`. What a
//! verb must do is said at the traits in `simd.rs`. Everything on the way to an intrinsic is `#[inline(always)]`; loops are plain `for` loops, and
//! closures go through `slices::inlined!`.
#![allow(unsafe_code)]

use std::ops::{Add, Div, Mul, Sub};

use half::{bf16, f16};

use super::{Dots, LANES, Lanes, Registers, Scalar, Simd, Token, Words};

/// Proof of FEATURES.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Template(());

impl Template {
    /// The token, if this CPU has the features: the only way to make one.
    pub fn detect() -> Option<Self> {
        is_x86_feature_detected!("sse2").then_some(Self(()))
    }
}

impl Token for Template {}

/// Lanes 0..16.
///
/// Made only from a [`Template`], which is what lets the methods below call intrinsics.
#[derive(Clone, Copy)]
pub struct TemplateLanes([f32; LANES]);

/// The words of lanes 0..16; as [`TemplateLanes`], made only from a [`Template`].
#[derive(Clone, Copy)]
pub struct TemplateWords([i32; LANES]);

/// The lanes of plain Rust.
type Plain = <Scalar as Simd>::Lanes;

/// The words of plain Rust.
type PlainWords = <Scalar as Simd>::Words;

impl TemplateLanes {
    #[inline(always)]
    fn of(plain: Plain) -> Self {
        Self(plain.to_array())
    }

    #[inline(always)]
    fn plain(self) -> Plain {
        Scalar.load(&self.0)
    }
}

impl TemplateWords {
    #[inline(always)]
    fn of(plain: PlainWords) -> Self {
        let mut bytes = [0; 4 * LANES];
        plain.store(&mut bytes);
        let mut words = [0; LANES];
        for i in 0..LANES {
            words[i] = i32::from_le_bytes(bytes.as_chunks().0[i]);
        }
        Self(words)
    }

    #[inline(always)]
    fn plain(self) -> PlainWords {
        let mut bytes = [0; 4 * LANES];
        for i in 0..LANES {
            bytes.as_chunks_mut().0[i] = self.0[i].to_le_bytes();
        }
        Scalar.load_words(&bytes)
    }
}

impl Simd for Template {
    type Lanes = TemplateLanes;
    type Words = TemplateWords;

    const REGISTERS: Registers = Registers::Few;

    #[inline(always)]
    fn splat(self, value: f32) -> TemplateLanes {
        TemplateLanes::of(Scalar.splat(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> TemplateLanes {
        TemplateLanes::of(Scalar.load(from))
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> TemplateLanes {
        TemplateLanes::of(Scalar.load_f16(from))
    }

    #[inline(always)]
    fn load_bf16_pairs(self, from: &[[bf16; 2]; LANES]) -> [TemplateLanes; 2] {
        let [upper, lower] = Scalar.load_bf16_pairs(from);
        [TemplateLanes::of(upper), TemplateLanes::of(lower)]
    }

    #[inline(always)]
    fn load_words(self, from: &[u8; 4 * LANES]) -> TemplateWords {
        TemplateWords::of(Scalar.load_words(from))
    }

    #[inline(always)]
    fn splat_words(self, word: i32) -> TemplateWords {
        TemplateWords::of(Scalar.splat_words(word))
    }

    #[inline(always)]
    fn prefetch<L>(self, elements: &[L], bytes: usize) {
        Scalar.prefetch(elements, bytes);
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "sse2")]
        fn with_features<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        // SAFETY: `self` proves the features.
        unsafe { with_features(kernel) }
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident) => {
        impl $trait for TemplateLanes {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self::of(self.plain().$method(other.plain()))
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl Lanes for TemplateLanes {
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self::of(self.plain().mul_add(factor.plain(), term.plain()))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self::of(self.plain().max(other.plain()))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self::of(self.plain().min(other.plain()))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::of(self.plain().abs())
    }

    #[inline(always)]
    fn select_negative(self, negative: Self, otherwise: Self) -> Self {
        Self::of(self.plain().select_negative(negative.plain(), otherwise.plain()))
    }

    #[inline(always)]
    fn scale_by_power(self, power: Self) -> Self {
        Self::of(self.plain().scale_by_power(power.plain()))
    }

    #[inline(always)]
    fn lowest_bits_as_exponent(self) -> Self {
        Self::of(self.plain().lowest_bits_as_exponent())
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        self.plain().store(to);
    }

    #[inline(always)]
    fn store_integers(self, to: &mut [i8; LANES]) {
        self.plain().store_integers(to);
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        self.plain().sum()
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.plain().largest()
    }
}

impl Words for TemplateWords {
    type Lanes = TemplateLanes;

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self::of(self.plain().and(other.plain()))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self::of(self.plain().or(other.plain()))
    }

    #[inline(always)]
    fn shift_left(self, bits: u32) -> Self {
        Self::of(self.plain().shift_left(bits))
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        Self::of(self.plain().shift_right(bits))
    }

    #[inline(always)]
    fn shift_right_signed(self, bits: u32) -> Self {
        Self::of(self.plain().shift_right_signed(bits))
    }

    #[inline(always)]
    fn to_lanes(self) -> TemplateLanes {
        TemplateLanes::of(self.plain().to_lanes())
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 4 * LANES]) {
        self.plain().store(to);
    }
}

impl Dots for Template {
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
    fn dot_small(
        self,
        sums: TemplateWords,
        weights: TemplateWords,
        activations: TemplateWords,
    ) -> TemplateWords {
        let [sums, weights, activations] = [sums.plain(), weights.plain(), activations.plain()];
        TemplateWords::of(Scalar.dot_small(sums, weights, activations))
    }

    #[inline(always)]
    fn dot_biased(
        self,
        sums: TemplateWords,
        weights: TemplateWords,
        activations: TemplateWords,
    ) -> TemplateWords {
        let [sums, weights, activations] = [sums.plain(), weights.plain(), activations.plain()];
        TemplateWords::of(Scalar.dot_biased(sums, weights, activations))
    }

    #[inline(always)]
    fn biased_start(self, _activations: i32) -> i32 {
        0
    }
}
