//! Sixteen `f32` lanes on every CPU.
//!
//! A [`Simd`] token proves that an instruction set is present; [`Lanes`] can only be made from a token. Each
//! implementation rounds every operation identically, so a kernel written once against these traits returns the same
//! bits everywhere.
//!
//! One hazard: on x86 a function between [`Simd::vectorize`] and an intrinsic that is not `#[inline(always)]` is
//! compiled without the instruction set. It stays right and becomes thirty times slower. Loops over lanes are therefore
//! plain `for` loops (iterator adaptors are only `#[inline]`), closures go through `inlined!`, and CI looks for
//! intrinsics that were left as calls.

use std::fmt;
use std::ops::{Add, Div, Mul, Sub};
use std::str::FromStr;

use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};

pub(crate) mod environment;
pub(crate) mod math;
pub(crate) mod slices;

mod scalar;
pub use scalar::Scalar;

#[cfg(target_arch = "x86_64")]
mod nearness;
#[cfg(target_arch = "x86_64")]
mod pairs;

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

/// Every name that an instruction set can have, on any CPU, narrowest first.
pub const ISA_NAMES: [&str; 7] =
    ["scalar", "neon-nodot", "neon", "avx2-nodot", "avx2", "avx512-nodot", "avx512"];

/// How many accumulators the registers of an instruction set hold: the shape of its matrix tiles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Registers {
    /// Six lanes values and a little more.
    Few,
    /// Twenty-four lanes values and a little more.
    Many,
}

/// Proof that one instruction set is available.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen floats in this instruction set's registers.
    type Lanes: Lanes;

    /// Sixteen times four bytes in this instruction set's registers.
    type Words: Words<Lanes = Self::Lanes>;

    /// How many [`Lanes`] stay in registers.
    const REGISTERS: Registers;

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

    /// Asks for what lies `bytes` after the beginning of `elements` to be brought near, whatever it is: into which cache, is the CPU's choice. A
    /// hint without effect on any result.
    fn prefetch<L>(self, elements: &[L], bytes: usize);

    /// Runs `kernel` with this instruction set enabled and the default floating-point environment.
    ///
    /// Everything that `kernel` calls must be `#[inline(always)]` to be compiled for it.
    fn vectorize<R>(self, kernel: impl FnOnce() -> R) -> R;

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

    /// The instruction set.
    fn simd(self) -> Self::Simd;

    /// As [`Simd::vectorize`], with what the products need enabled besides.
    fn vectorize<R>(self, kernel: impl FnOnce() -> R) -> R;

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

    /// As [`Simd::vectorize`], with what the products need enabled besides.
    fn vectorize<R>(self, kernel: impl FnOnce() -> R) -> R;

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

/// What buffers are made of.
pub trait Storable: Copy + Default + Send + Sync + 'static {
    /// Its size in bytes.
    const BYTES: usize;

    /// What a buffer of them is made of: a type whose zeros the allocator provides without touching memory.
    type Stored: Copy + Send + Sync;

    /// A buffer of `length` zeros.
    fn zeros(length: usize) -> Vec<Self::Stored>;

    /// A buffer's elements.
    fn view(stored: &[Self::Stored]) -> &[Self];

    /// A buffer's elements, for writing.
    fn view_mut(stored: &mut [Self::Stored]) -> &mut [Self];
}

/// A number as stored in memory: a weight or a cached key or value.
pub trait Element: Storable {
    /// The number itself, widened exactly.
    fn to_f32(self) -> f32;

    /// The nearest element, ties to even.
    fn from_f32(value: f32) -> Self;

    /// Reads the element from its first [`BYTES`](Storable::BYTES) little-endian bytes.
    fn from_le_bytes(bytes: &[u8]) -> Self;
}

/// The types whose zeros are zero bytes.
macro_rules! storable {
    ($element:ident, $bytes:literal, $zero:literal) => {
        impl Storable for $element {
            const BYTES: usize = $bytes;

            type Stored = $element;

            fn zeros(length: usize) -> Vec<$element> {
                vec![$zero; length]
            }

            #[inline(always)]
            fn view(stored: &[$element]) -> &[$element] {
                stored
            }

            #[inline(always)]
            fn view_mut(stored: &mut [$element]) -> &mut [$element] {
                stored
            }
        }
    };
}
storable!(f32, 4, 0.0);
storable!(u8, 1, 0);

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
        impl Storable for $element {
            const BYTES: usize = 2;

            type Stored = u16;

            fn zeros(length: usize) -> Vec<u16> {
                vec![0; length]
            }

            #[inline(always)]
            fn view(stored: &[u16]) -> &[$element] {
                stored.reinterpret_cast()
            }

            #[inline(always)]
            fn view_mut(stored: &mut [u16]) -> &mut [$element] {
                stored.reinterpret_cast_mut()
            }
        }

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

/// Whether an instruction set has instructions for dot products, of bytes or of brain floats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DotInstructions {
    /// This CPU lacks them.
    Absent,
    /// This CPU has them.
    Present,
    /// This CPU has them, and they are not to be used.
    GivenUp,
}

impl DotInstructions {
    fn detected(present: bool) -> Self {
        if present { Self::Present } else { Self::Absent }
    }

    fn given_up(self) -> Self {
        if self == Self::Present { Self::GivenUp } else { self }
    }
}

/// An instruction set that this machine can run: the value holds the proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, the specification.
    Scalar(Scalar),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 Foundation.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// Advanced SIMD.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// Every instruction set that this machine can run, narrowest first.
    pub fn available() -> Vec<Self> {
        let mut isas = vec![Self::Scalar(Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            isas.extend(Avx2::detect().map(Self::Avx2));
            isas.extend(Avx512::detect().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        isas.extend(Neon::detect().map(Self::Neon));
        isas
    }

    /// The widest instruction set that this machine can run.
    pub fn best() -> Self {
        *Self::available().last().expect("scalar is always available")
    }

    /// As [`available`](Self::available), each also [without dot products](Self::without_dots): all ways to multiply integers and brain
    /// floats.
    pub fn available_for_integers() -> Vec<Self> {
        let variants = |isa: Self| isa.without_dots().into_iter().chain([isa]);
        Self::available().into_iter().flat_map(variants).collect()
    }

    /// The same instruction set without the instructions for dot products (VNNI, dotprod, AVX-512 BF16) that this CPU has, named with
    /// `-nodot`: what an older CPU would run. `None` if there are none to give up.
    pub fn without_dots(self) -> Option<Self> {
        let without = match self {
            Self::Scalar(token) => Self::Scalar(token),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => Self::Avx2(token.without_dots()),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => Self::Avx512(token.without_dots()),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => Self::Neon(token.without_dots()),
        };
        (without != self).then_some(without)
    }

    /// The same, with what is tuned as it is now.
    #[inline(always)]
    pub(crate) fn tuned(self) -> Self {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => Self::Avx2(token.tuned()),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => Self::Avx512(token.tuned()),
            isa => isa,
        }
    }

    /// The name that [`FromStr`] accepts, one of [`ISA_NAMES`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => {
                if token.dots() == DotInstructions::GivenUp {
                    "avx2-nodot"
                } else {
                    "avx2"
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => {
                if token.has_given_up_dots() {
                    "avx512-nodot"
                } else {
                    "avx512"
                }
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => {
                if token.dots() == DotInstructions::GivenUp {
                    "neon-nodot"
                } else {
                    "neon"
                }
            }
        }
    }
}

impl Isa {
    /// Whether it has [`BrainDots`] on this CPU: those of plain Rust, or an instruction that is not given up.
    pub fn has_brain_dots(self) -> bool {
        match self {
            Self::Scalar(_) => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.bf16().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => false,
        }
    }

    /// Whether its registers hold few accumulators, so that [`Knob::WidenedRows`](crate::tuning::Knob::WidenedRows) matters.
    pub fn has_few_registers(self) -> bool {
        self.registers() == Registers::Few
    }

    /// How many accumulators its registers hold.
    pub(crate) fn registers(self) -> Registers {
        #[inline(always)]
        fn of<S: Simd>(_: S) -> Registers {
            S::REGISTERS
        }
        match self {
            Self::Scalar(token) => of(token),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => of(token),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => of(token),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => of(token),
        }
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An instruction set that was asked for and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The name is not one of [`ISA_NAMES`].
    #[error("unknown instruction set {name:?}: expected one of {}", ISA_NAMES.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// This CPU lacks it.
    #[error("this CPU does not have {name}: it has {}", available.join(", "))]
    Unavailable {
        /// What was asked for.
        name: String,
        /// What there is.
        available: Vec<&'static str>,
    },
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        let available = Self::available_for_integers();
        if let Some(isa) = available.iter().find(|isa| isa.name() == name) {
            return Ok(*isa);
        }
        let name = name.to_string();
        if !ISA_NAMES.contains(&name.as_str()) {
            return Err(IsaError::Unknown { name });
        }
        Err(IsaError::Unavailable {
            name,
            available: available.into_iter().map(Self::name).collect(),
        })
    }
}

/// Evaluates `$body` with `$simd` bound to `$wrap` of the token inside `$isa`.
macro_rules! dispatch_wrapped {
    ($isa:expr, $wrap:path, $simd:ident => $body:expr) => {{
        use $crate::simd::{Isa, dispatch_wrapped};
        match Isa::tuned($isa) {
            Isa::Scalar(token) => dispatch_wrapped!(@ $wrap, token, $simd => $body),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => dispatch_wrapped!(@ $wrap, token, $simd => $body),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => dispatch_wrapped!(@ $wrap, token, $simd => $body),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(token) => dispatch_wrapped!(@ $wrap, token, $simd => $body),
        }
    }};
    (@ $wrap:path, $token:ident, $simd:ident => $body:expr) => {{
        use $crate::simd::{Simd, slices};
        let $simd = $wrap($token);
        Simd::vectorize($simd, slices::inlined!(|| $body))
    }};
}
pub(crate) use dispatch_wrapped;

/// Evaluates `$body` with `$dots` bound to `$wrap` of the best [`Dots`] of `$isa`.
macro_rules! dispatch_dots_wrapped {
    ($isa:expr, $wrap:path, $dots:ident => $body:expr) => {{
        use $crate::simd::{Isa, dispatch_dots_wrapped};
        match Isa::tuned($isa) {
            Isa::Scalar(token) => dispatch_dots_wrapped!(@ $wrap, token, $dots => $body),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => match token.vnni() {
                Some(vnni) => dispatch_dots_wrapped!(@ $wrap, vnni, $dots => $body),
                None => dispatch_dots_wrapped!(@ $wrap, token, $dots => $body),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => match token.vnni() {
                Some(vnni) => dispatch_dots_wrapped!(@ $wrap, vnni, $dots => $body),
                None => dispatch_dots_wrapped!(@ $wrap, token, $dots => $body),
            },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(token) => match token.dot() {
                Some(dot) => dispatch_dots_wrapped!(@ $wrap, dot, $dots => $body),
                None => dispatch_dots_wrapped!(@ $wrap, token, $dots => $body),
            },
        }
    }};
    (@ $wrap:path, $token:ident, $dots:ident => $body:expr) => {{
        use $crate::simd::{Dots, slices};
        let $dots = $wrap($token);
        Dots::vectorize($dots, slices::inlined!(|| $body))
    }};
}
pub(crate) use dispatch_dots_wrapped;

/// Evaluates `$body` with `$dots` bound to `$wrap` of the [`BrainDots`] of `$isa`, which [has](Isa::has_brain_dots) some.
macro_rules! dispatch_brain_dots_wrapped {
    ($isa:expr, $wrap:path, $dots:ident => $body:expr) => {{
        use $crate::simd::{Isa, dispatch_brain_dots_wrapped};
        match Isa::tuned($isa) {
            Isa::Scalar(token) => dispatch_brain_dots_wrapped!(@ $wrap, token, $dots => $body),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) if let Some(bf16) = token.bf16() => {
                dispatch_brain_dots_wrapped!(@ $wrap, bf16, $dots => $body)
            }
            isa => unreachable!("{isa} has no products of brain floats"),
        }
    }};
    (@ $wrap:path, $token:ident, $dots:ident => $body:expr) => {{
        use $crate::simd::{BrainDots, slices};
        let $dots = $wrap($token);
        BrainDots::vectorize($dots, slices::inlined!(|| $body))
    }};
}
pub(crate) use dispatch_brain_dots_wrapped;

/// Evaluates `$body` with `$simd` bound to the token inside `$isa`.
#[cfg(not(feature = "faults"))]
macro_rules! dispatch {
    ($isa:expr, $simd:ident => $body:expr) => {
        $crate::simd::dispatch_wrapped!($isa, std::convert::identity, $simd => $body)
    };
}

/// Evaluates `$body` with `$simd` bound to the token inside `$isa`, or, if that is the one whose lanes are wrong on purpose, to such.
#[cfg(feature = "faults")]
macro_rules! dispatch {
    ($isa:expr, $simd:ident => $body:expr) => {{
        use $crate::faults::{Faulty, has_wrong_lanes};
        use $crate::simd::dispatch_wrapped;
        if has_wrong_lanes($isa) {
            dispatch_wrapped!($isa, Faulty, $simd => $body)
        } else {
            dispatch_wrapped!($isa, std::convert::identity, $simd => $body)
        }
    }};
}
pub(crate) use dispatch;

/// Evaluates `$body` with `$dots` bound to the best [`Dots`] of `$isa`.
#[cfg(not(feature = "faults"))]
macro_rules! dispatch_dots {
    ($isa:expr, $dots:ident => $body:expr) => {
        $crate::simd::dispatch_dots_wrapped!($isa, std::convert::identity, $dots => $body)
    };
}

/// Evaluates `$body` with `$dots` bound to the best [`Dots`] of `$isa`, or, if that is the one whose lanes are wrong on purpose, to such.
#[cfg(feature = "faults")]
macro_rules! dispatch_dots {
    ($isa:expr, $dots:ident => $body:expr) => {{
        use $crate::faults::{Faulty, has_wrong_lanes};
        use $crate::simd::dispatch_dots_wrapped;
        if has_wrong_lanes($isa) {
            dispatch_dots_wrapped!($isa, Faulty, $dots => $body)
        } else {
            dispatch_dots_wrapped!($isa, std::convert::identity, $dots => $body)
        }
    }};
}
pub(crate) use dispatch_dots;

/// Evaluates `$body` with `$dots` bound to the [`BrainDots`] of `$isa`, which [has](Isa::has_brain_dots) some.
#[cfg(not(feature = "faults"))]
macro_rules! dispatch_brain_dots {
    ($isa:expr, $dots:ident => $body:expr) => {
        $crate::simd::dispatch_brain_dots_wrapped!($isa, std::convert::identity, $dots => $body)
    };
}

/// Evaluates `$body` with `$dots` bound to the [`BrainDots`] of `$isa`, or, if that is the one whose lanes are wrong on purpose, to such.
#[cfg(feature = "faults")]
macro_rules! dispatch_brain_dots {
    ($isa:expr, $dots:ident => $body:expr) => {{
        use $crate::faults::{Faulty, has_wrong_lanes};
        use $crate::simd::dispatch_brain_dots_wrapped;
        if has_wrong_lanes($isa) {
            dispatch_brain_dots_wrapped!($isa, Faulty, $dots => $body)
        } else {
            dispatch_brain_dots_wrapped!($isa, std::convert::identity, $dots => $body)
        }
    }};
}
pub(crate) use dispatch_brain_dots;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::available() {
            assert_eq!(isa.name().parse(), Ok(isa));
            assert!(ISA_NAMES.contains(&isa.name()));
        }
    }

    // `dispatch!` imports for other modules what is defined here.
    #[allow(unused_imports)]
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

    #[test]
    fn an_absent_isa_is_an_error() {
        let absent = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        let error = absent.parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains(absent) && error.contains("scalar"), "{error}");
        let error = "axv2".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("unknown") && error.contains("avx512"), "{error}");
    }
}
