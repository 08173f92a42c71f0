//! Kinds of numbers.

use std::fmt;
use std::str::FromStr;

use crate::data::Stream;

/// What kind of numbers a case is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nearly normal with mean 0 and variance 1, all 24 bits used.
    Normal,
    /// Uniform between -1 and 1.
    Uniform,
    /// Integers from -8 to 8, whose sums and products are exact.
    Integers,
    /// One normal number, over and over.
    Constant,
    /// Ever larger, or ever smaller, in steps of about a thousandth.
    Sorted,
    /// Zeros of both signs, with a normal number after each, more or less.
    Zeros,
    /// Either sign, magnitudes from 2^-30 to 2^30.
    Wide,
    /// Normal numbers in pairs that all but cancel when they, or their products with factors, are added.
    Cancelling,
    /// Subnormal numbers, and small ones whose products are subnormal.
    Subnormal,
    /// Magnitudes at both ends of the range of `f32`.
    Extreme,
    /// Normal numbers among which there are zeros of both signs, the smallest and largest subnormal and normal numbers, and 1e30.
    Special,
    /// As [`Special`](Self::Special), with infinities and NaN.
    NonFinite,
}

impl Fill {
    /// Every fill, the plainest first.
    pub const ALL: [Self; 12] = [
        Self::Normal,
        Self::Uniform,
        Self::Integers,
        Self::Constant,
        Self::Sorted,
        Self::Zeros,
        Self::Wide,
        Self::Cancelling,
        Self::Subnormal,
        Self::Extreme,
        Self::Special,
        Self::NonFinite,
    ];

    /// Its name, as printed with a case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Uniform => "uniform",
            Self::Integers => "integers",
            Self::Constant => "constant",
            Self::Sorted => "sorted",
            Self::Zeros => "zeros",
            Self::Wide => "wide",
            Self::Cancelling => "cancelling",
            Self::Subnormal => "subnormal",
            Self::Extreme => "extreme",
            Self::Special => "special",
            Self::NonFinite => "non-finite",
        }
    }

    /// Whether all its numbers are finite, so that an oracle can say what must come out.
    pub fn is_finite(self) -> bool {
        self != Self::NonFinite
    }

    /// Whether what an operation makes of its numbers is finite, too: none is so large that a product overflows, or that it is infinity
    /// when rounded to half precision.
    pub fn has_finite_results(self) -> bool {
        !matches!(self, Self::Wide | Self::Extreme | Self::Special | Self::NonFinite)
    }

    /// Element `index` of `stream`.
    pub(crate) fn value(self, stream: Stream, index: usize) -> f32 {
        let index = index as u64;
        let bits = |draw: u64| stream.bits(4 * index + draw);
        match self {
            Self::Normal => normal(bits(0), bits(1)),
            Self::Uniform => bits(0) as i64 as f32 * power_of_two(-63),
            Self::Integers => (bits(0) % 17) as f32 - 8.0,
            Self::Constant => normal(stream.bits(0), stream.bits(1)),
            Self::Sorted => {
                let place = (index * 1024 + bits(0) % 1024) as i64 - 4 * 1024 * 1024;
                let sign = if stream.bits(u64::MAX).is_multiple_of(2) { 1.0 } else { -1.0 };
                sign * place as f32 * power_of_two(-20)
            }
            Self::Zeros if bits(2).is_multiple_of(2) => f32::from_bits(bits(0) as u32 & 1 << 31),
            Self::Zeros => normal(bits(0), bits(1)),
            Self::Wide => signed_power(bits(0), -30, 60),
            Self::Cancelling => {
                let first = index & !1;
                let value = normal(stream.bits(4 * first), stream.bits(4 * first + 1));
                if index == first { value } else { -nudged(value, bits(2)) }
            }
            Self::Subnormal if bits(1).is_multiple_of(2) => {
                f32::from_bits(bits(0) as u32 & 0x807F_FFFF)
            }
            Self::Subnormal => signed_power(bits(0), -126, 64),
            Self::Extreme if bits(1).is_multiple_of(2) => signed_power(bits(0), -126, 26),
            Self::Extreme => signed_power(bits(0), 100, 28),
            Self::Special => salted(stream, index, &SPECIAL[4..]),
            Self::NonFinite => salted(stream, index, &SPECIAL),
        }
    }
}

/// A name that no fill has.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("no data are named {name:?}: there are {}", Fill::ALL.map(Fill::name).join(", "))]
pub struct UnknownFill {
    name: String,
}

impl FromStr for Fill {
    type Err = UnknownFill;

    fn from_str(name: &str) -> Result<Self, UnknownFill> {
        let found = Self::ALL.into_iter().find(|fill| fill.name() == name);
        found.ok_or_else(|| UnknownFill { name: name.into() })
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The numbers that [`Fill::NonFinite`] mixes in; the first four are not finite.
const SPECIAL: [f32; 18] = [
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    -f32::NAN,
    0.0,
    -0.0,
    f32::from_bits(1),
    -f32::from_bits(1),
    f32::from_bits(0x007F_FFFF),
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    1e30,
    -1e30,
    1.0,
    -1.0,
    f32::EPSILON,
];

/// A sum of four uniform numbers; integers until the last step, which rounds the same everywhere.
fn normal(first: u64, second: u64) -> f32 {
    let halves = [first >> 32, first & 0xFFFF_FFFF, second >> 32, second & 0xFFFF_FFFF];
    let centred = halves.iter().sum::<u64>() as i64 - 2 * 0xFFFF_FFFF;
    centred as f32 * (1.732_050_8 * power_of_two(-32))
}

/// Either sign, and an exponent among `exponents` from `lowest` on.
fn signed_power(bits: u64, lowest: i32, exponents: u64) -> f32 {
    let power = power_of_two(lowest + ((bits >> 32) % exponents) as i32);
    f32::from_bits((bits as u32 & 0x807F_FFFF) | power.to_bits())
}

/// 2 to the power of `exponent`, exactly, for normal results: `powi` promises no precision.
pub fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// A number that agrees with `value` in all but the last one to twelve bits.
pub(crate) fn nudged(value: f32, bits: u64) -> f32 {
    let changed = (1_u32 << (1 + bits % 12)) - 1;
    f32::from_bits(value.to_bits() ^ ((bits >> 32) as u32 & changed))
}

/// Normal numbers with one element in 2 to 256, as the stream will have it, from `palette`. Where specials are rare, some results do
/// not depend on any.
fn salted(stream: Stream, index: u64, palette: &[f32]) -> f32 {
    let one_in = 2 << stream.below(u64::MAX, 8);
    if stream.below(4 * index, one_in) == 0 {
        palette[stream.below(4 * index + 1, palette.len())]
    } else {
        normal(stream.bits(4 * index + 2), stream.bits(4 * index + 3))
    }
}
