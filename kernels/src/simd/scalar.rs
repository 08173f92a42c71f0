//! The specification: sixteen lanes in an array.

use std::array;
use std::ops::{Add, Div, Mul, Sub};

use half::{bf16, f16};

use super::{BrainDots, Dots, LANES, Lanes, Registers, Simd, Token, Words, fold_halves};

/// Needs nothing from the CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scalar;

impl Scalar {
    /// The token, which every CPU has.
    pub fn detect() -> Option<Self> {
        Some(Self)
    }

    /// The same with products of brain floats, which it has in plain Rust.
    pub fn bf16(self) -> Option<Self> {
        Some(self)
    }
}

impl Token for Scalar {}

/// Sixteen floats in memory.
#[derive(Clone, Copy)]
pub struct ScalarLanes([f32; LANES]);

/// Sixteen words in memory.
#[derive(Clone, Copy)]
pub struct ScalarWords([i32; LANES]);

impl Simd for Scalar {
    type Lanes = ScalarLanes;
    type Words = ScalarWords;

    const REGISTERS: Registers = Registers::Few;

    #[inline(always)]
    fn splat(self, value: f32) -> ScalarLanes {
        ScalarLanes([value; LANES])
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> ScalarLanes {
        ScalarLanes(*from)
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> ScalarLanes {
        ScalarLanes(from.map(f16::to_f32))
    }

    #[inline(always)]
    fn load_bf16_pairs(self, from: &[[bf16; 2]; LANES]) -> [ScalarLanes; 2] {
        [1, 0].map(|i| ScalarLanes(from.map(|pair| pair[i].to_f32())))
    }

    #[inline(always)]
    fn load_words(self, from: &[u8; 4 * LANES]) -> ScalarWords {
        let (words, _) = from.as_chunks();
        ScalarWords(array::from_fn(|i| i32::from_le_bytes(words[i])))
    }

    #[inline(always)]
    fn splat_words(self, word: i32) -> ScalarWords {
        ScalarWords([word; LANES])
    }

    #[inline(always)]
    fn prefetch<L>(self, _elements: &[L], _bytes: usize) {}

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        #[inline(never)]
        fn call<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }
        call(kernel)
    }
}

impl ScalarLanes {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident) => {
        impl $trait for ScalarLanes {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                self.zip(other, f32::$method)
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

/// [`Lanes::mul_add`]. Not inlined where each lane is a call of the C library: sixteen of them are much code, and kernels are full of these.
#[cfg_attr(all(target_arch = "x86_64", not(target_feature = "fma")), inline(never))]
#[cfg_attr(not(all(target_arch = "x86_64", not(target_feature = "fma"))), inline(always))]
fn mul_add(x: ScalarLanes, factor: ScalarLanes, term: ScalarLanes) -> ScalarLanes {
    ScalarLanes(array::from_fn(|i| x.0[i].mul_add(factor.0[i], term.0[i])))
}

impl Lanes for ScalarLanes {
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        mul_add(self, factor, term)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    fn select_negative(self, negative: Self, otherwise: Self) -> Self {
        Self(array::from_fn(|i| if self.0[i] < 0.0 { negative.0[i] } else { otherwise.0[i] }))
    }

    #[inline(always)]
    fn scale_by_power(self, power: Self) -> Self {
        // Two factors, since 2^power alone may leave the normal range; the first product is exact.
        self.zip(power, |x, power| {
            let power = power as i32;
            let first = power >> 1;
            (x * power_of_two(first)) * power_of_two(power - first)
        })
    }

    #[inline(always)]
    fn lowest_bits_as_exponent(self) -> Self {
        Self(self.0.map(|x| f32::from_bits(x.to_bits() << 23)))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    #[inline(always)]
    fn store_integers(self, to: &mut [i8; LANES]) {
        *to = self.0.map(|integer| integer as i8);
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        fold_halves(self.0, f32::add)
    }
}

impl Words for ScalarWords {
    type Lanes = ScalarLanes;

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(array::from_fn(|i| self.0[i] & other.0[i]))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(array::from_fn(|i| self.0[i] | other.0[i]))
    }

    #[inline(always)]
    fn shift_left(self, bits: u32) -> Self {
        Self(self.0.map(|word| word << bits))
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        Self(self.0.map(|word| (word.cast_unsigned() >> bits).cast_signed()))
    }

    #[inline(always)]
    fn shift_right_signed(self, bits: u32) -> Self {
        Self(self.0.map(|word| word >> bits))
    }

    #[inline(always)]
    fn to_lanes(self) -> ScalarLanes {
        ScalarLanes(self.0.map(|word| word as f32))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 4 * LANES]) {
        let (words, _) = to.as_chunks_mut();
        for i in 0..LANES {
            words[i] = self.0[i].to_le_bytes();
        }
    }
}

impl Dots for Scalar {
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
        sums: ScalarWords,
        weights: ScalarWords,
        activations: ScalarWords,
    ) -> ScalarWords {
        add_products(sums, weights, activations, i32::from)
    }

    #[inline(always)]
    fn dot_biased(
        self,
        sums: ScalarWords,
        weights: ScalarWords,
        activations: ScalarWords,
    ) -> ScalarWords {
        add_products(sums, weights, activations, |weight| i32::from(weight) - 128)
    }

    #[inline(always)]
    fn biased_start(self, _activations: i32) -> i32 {
        0
    }
}

#[inline(always)]
fn add_products(
    sums: ScalarWords,
    weights: ScalarWords,
    activations: ScalarWords,
    meaning: impl Fn(u8) -> i32,
) -> ScalarWords {
    ScalarWords(array::from_fn(|i| {
        let (weights, activations) = (weights.0[i].to_le_bytes(), activations.0[i].to_le_bytes());
        let mut sum = sums.0[i];
        for byte in 0..4 {
            sum += meaning(weights[byte]) * i32::from(activations[byte].cast_signed());
        }
        sum
    }))
}

impl BrainDots for Scalar {
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
    fn load_pairs(self, from: &[[bf16; 2]; LANES]) -> ScalarWords {
        ScalarWords(from.map(|[low, high]| {
            (u32::from(high.to_bits()) << 16 | u32::from(low.to_bits())).cast_signed()
        }))
    }

    #[inline(always)]
    fn add_products(
        self,
        sums: ScalarLanes,
        weights: ScalarWords,
        activations: ScalarWords,
    ) -> ScalarLanes {
        let upper = |word: i32| f32::from_bits(word.cast_unsigned() & 0xFFFF_0000);
        let lower = |word: i32| f32::from_bits(word.cast_unsigned() << 16);
        ScalarLanes(array::from_fn(|i| {
            let (weights, activations) = (weights.0[i], activations.0[i]);
            let sum = upper(weights).mul_add(upper(activations), sums.0[i]);
            lower(weights).mul_add(lower(activations), sum)
        }))
    }
}

#[inline(always)]
fn power_of_two(power: i32) -> f32 {
    f32::from_bits(((power + 127) as u32) << 23)
}
