//! The instruction sets that there are.

use std::fmt;
use std::str::FromStr;

use super::*;

/// Hands every instruction set, narrowest first, to `$then!`, after what else that takes.
///
/// One more is a line here: the type of its token, when it is compiled, its name, its name without dot products if it has instructions for such,
/// the method that gives its [`Dots`] with them, and the one that gives its [`BrainDots`].
macro_rules! each_isa {
    ($then:ident!($($arguments:tt)*)) => {
        $crate::simd::$then! {
            ($($arguments)*)
            /// Plain Rust, the specification.
            #[cfg(all())]
            Scalar = "scalar", brain_dots bf16;
            /// Advanced SIMD.
            #[cfg(target_arch = "aarch64")]
            Neon = "neon" or "neon-nodot", dots dot;
            /// SSE4.1, for CPUs without AVX2 or FMA.
            #[cfg(target_arch = "x86_64")]
            Sse41 = "sse41";
            /// AVX2 with FMA and F16C.
            #[cfg(target_arch = "x86_64")]
            Avx2 = "avx2" or "avx2-nodot", dots vnni;
            /// AVX-512 Foundation with its instructions for bytes and words.
            #[cfg(target_arch = "x86_64")]
            Avx512 = "avx512" or "avx512-nodot", dots vnni, brain_dots bf16;
        }
    };
}
pub(crate) use each_isa;

/// What a token tells of its instruction set besides the verbs. The defaults are those of one without instructions for dot products.
pub(crate) trait Token: Simd {
    /// Whether it is there for CPUs that lack the others: no bench times it unless it is named.
    const IS_FALLBACK: bool = false;

    /// The same without the instructions for dot products.
    fn without_dots(self) -> Self {
        self
    }

    /// Whether this CPU has such instructions, and they are not to be used.
    fn has_given_up_dots(self) -> bool {
        false
    }

    /// The same, with what is tuned as it is now.
    #[inline(always)]
    fn tuned(self) -> Self {
        self
    }
}

/// Whether an instruction set has instructions for dot products, of bytes or of brain floats.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DotInstructions {
    /// This CPU lacks them.
    Absent,
    /// This CPU has them.
    Present,
    /// This CPU has them, and they are not to be used.
    GivenUp,
}

impl DotInstructions {
    pub fn detected(present: bool) -> Self {
        if present { Self::Present } else { Self::Absent }
    }

    pub fn given_up(self) -> Self {
        if self == Self::Present { Self::GivenUp } else { self }
    }
}

macro_rules! isas {
    (()
        $(
            #[doc = $about:literal]
            #[cfg($condition:meta)]
            $isa:ident = $name:literal $(or $without_dots:literal)?
            $(, dots $dots:ident)? $(, brain_dots $brain_dots:ident)?;
        )*
    ) => {
        /// Every name that an instruction set can have, on any CPU, narrowest first.
        pub const ISA_NAMES: [&str; [$($($without_dots,)? $name),*].len()] =
            [$($($without_dots,)? $name),*];

        /// An instruction set that this machine can run: the value holds the proof.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub enum Isa {
            $(
                #[doc = $about]
                #[cfg($condition)]
                $isa($isa),
            )*
        }

        impl Isa {
            /// Every instruction set that this machine can run, narrowest first.
            pub fn available() -> Vec<Self> {
                let detected = [$(#[cfg($condition)] $isa::detect().map(Self::$isa)),*];
                detected.into_iter().flatten().collect()
            }

            /// The same instruction set without the instructions for dot products (VNNI, dotprod, AVX-512 BF16) that this CPU has, named
            /// with `-nodot`: what an older CPU would run. `None` if there are none to give up.
            pub fn without_dots(self) -> Option<Self> {
                let without = match self {
                    $(#[cfg($condition)] Self::$isa(token) => Self::$isa(token.without_dots()),)*
                };
                (without != self).then_some(without)
            }

            /// The same, with what is tuned as it is now.
            #[inline(always)]
            pub(crate) fn tuned(self) -> Self {
                match self {
                    $(#[cfg($condition)] Self::$isa(token) => Self::$isa(token.tuned()),)*
                }
            }

            /// The name that [`FromStr`] accepts, one of [`ISA_NAMES`].
            pub fn name(self) -> &'static str {
                match self {
                    $(
                        $(#[cfg($condition)] Self::$isa(token) if token.has_given_up_dots() => $without_dots,)?
                        #[cfg($condition)] Self::$isa(_) => $name,
                    )*
                }
            }

            /// Whether it has [`BrainDots`] on this CPU: those of plain Rust, or an instruction that is not given up.
            pub fn has_brain_dots(self) -> bool {
                match self {
                    $($(#[cfg($condition)] Self::$isa(token) if token.$brain_dots().is_some() => true,)?)*
                    _ => false,
                }
            }

            /// Whether it is there for CPUs that lack the others: no bench times it unless it is named.
            pub fn is_fallback(self) -> bool {
                fn of<T: Token>(_: T) -> bool {
                    T::IS_FALLBACK
                }
                match self {
                    $(#[cfg($condition)] Self::$isa(token) => of(token),)*
                }
            }

            /// Whether its registers hold few accumulators, so that [`Knob::WidenedRows`](crate::tuning::Knob::WidenedRows) matters.
            pub fn has_few_registers(self) -> bool {
                self.registers() == Registers::Few
            }

            /// Whether its tiles take two panels: see [`Simd::TAKES_TWO_PANELS`].
            pub(crate) fn takes_two_panels(self) -> bool {
                #[inline(always)]
                fn of<S: Simd>(_: S) -> bool {
                    S::TAKES_TWO_PANELS
                }
                match self {
                    $(#[cfg($condition)] Self::$isa(token) => of(token),)*
                }
            }

            /// How many accumulators its registers hold.
            pub(crate) fn registers(self) -> Registers {
                #[inline(always)]
                fn of<S: Simd>(_: S) -> Registers {
                    S::REGISTERS
                }
                match self {
                    $(#[cfg($condition)] Self::$isa(token) => of(token),)*
                }
            }
        }
    };
}
pub(crate) use isas;
each_isa!(isas!());

impl Isa {
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
