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
mod avx2;
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;

/// Lanes in one vector, on every instruction set.
pub const LANES: usize = 16;

/// Every name that an instruction set can have, on any CPU, narrowest first.
pub const ISA_NAMES: [&str; 4] = ["scalar", "neon", "avx2", "avx512"];

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

    /// How many [`Lanes`] stay in registers.
    const REGISTERS: Registers;

    /// Sixteen copies of `value`.
    fn splat(self, value: f32) -> Self::Lanes;

    /// Reads sixteen floats.
    fn load(self, from: &[f32; LANES]) -> Self::Lanes;

    /// Reads sixteen halves, widened exactly.
    fn load_f16(self, from: &[f16; LANES]) -> Self::Lanes;

    /// Reads sixteen brain floats, widened exactly.
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::Lanes;

    /// Asks for `line` to be brought near, into the second-level cache; a hint without effect on any result.
    fn prefetch<E>(self, line: &[E; LANES]);

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

    /// Adds lane `i` to lane `i + 8`, then `i + 4`, `i + 2` and `i + 1`.
    fn sum(self) -> f32;

    /// The largest lane, found in the order of [`sum`](Self::sum).
    #[inline(always)]
    fn largest(self) -> f32 {
        fold_halves(self.to_array(), slices::inlined!(|a, b| if a > b { a } else { b }))
    }
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

/// A number as stored in memory: a weight or a cached key or value.
pub trait Element: Copy + Default + Send + Sync + 'static {
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

    /// Reads sixteen of them, widened exactly.
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes;

    /// The number itself, widened exactly.
    fn to_f32(self) -> f32;

    /// The nearest element, ties to even.
    fn from_f32(value: f32) -> Self;

    /// Reads the element from its first [`BYTES`](Self::BYTES) little-endian bytes.
    fn from_le_bytes(bytes: &[u8]) -> Self;
}

impl Element for f32 {
    const BYTES: usize = 4;

    type Stored = f32;

    fn zeros(length: usize) -> Vec<f32> {
        vec![0.0; length]
    }

    #[inline(always)]
    fn view(stored: &[f32]) -> &[f32] {
        stored
    }

    #[inline(always)]
    fn view_mut(stored: &mut [f32]) -> &mut [f32] {
        stored
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f32; LANES]) -> S::Lanes {
        simd.load(from)
    }

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

/// The two sixteen-bit formats differ only in the verb that widens them.
macro_rules! narrow_element {
    ($element:ident, $load:ident) => {
        impl Element for $element {
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

            #[inline(always)]
            fn load<S: Simd>(simd: S, from: &[$element; LANES]) -> S::Lanes {
                simd.$load(from)
            }

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
narrow_element!(f16, load_f16);
narrow_element!(bf16, load_bf16);

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

    /// The name that [`FromStr`] accepts, one of [`ISA_NAMES`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
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
        let available = Self::available();
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
        match $isa {
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
        use $crate::simd::{Simd as _, slices};
        let $simd = $wrap($token);
        $simd.vectorize(slices::inlined!(|| $body))
    }};
}
pub(crate) use dispatch_wrapped;

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

    #[test]
    fn an_absent_isa_is_an_error() {
        let absent = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        let error = absent.parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains(absent) && error.contains("scalar"), "{error}");
        let error = "axv2".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("unknown") && error.contains("avx512"), "{error}");
    }
}
