//! Test data that depend on a seed, a name and a counter alone: the same on every platform, in whatever order they are drawn.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// A sequence of random bits: element `i` is a hash of the seed, the stream's name and `i`.
#[derive(Clone, Copy)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of this seed and name.
    pub fn new(seed: u64, name: &str) -> Self {
        Self { key: name.bytes().fold(mix(seed), |key, byte| mix(key ^ u64::from(byte))) }
    }

    /// Element `index`.
    pub fn bits(self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_mul(GOLDEN_RATIO)))
    }

    /// Element `index` as a number below `limit`.
    pub fn below(self, index: u64, limit: usize) -> usize {
        ((u128::from(self.bits(index)) * limit as u128) >> 64) as usize
    }
}

const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(GOLDEN_RATIO);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// What kind of numbers a case is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nearly normal with mean 0 and variance 1, all 24 bits used.
    Normal,
    /// Uniform between -1 and 1.
    Uniform,
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
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Uniform,
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

    /// Element `index` of `stream`.
    fn value(self, stream: Stream, index: usize) -> f32 {
        let index = index as u64;
        let bits = |draw: u64| stream.bits(4 * index + draw);
        match self {
            Self::Normal => normal(bits(0), bits(1)),
            Self::Uniform => bits(0) as i64 as f32 * power_of_two(-63),
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
fn nudged(value: f32, bits: u64) -> f32 {
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

/// The source of one case's data.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// What makes it differ from other cases.
    pub seed: u64,
    /// What kind of numbers it gives.
    pub fill: Fill,
}

impl Data {
    /// The random bits of this name.
    pub fn stream(&self, name: &str) -> Stream {
        Stream::new(self.seed, name)
    }

    /// `length` numbers of this name.
    pub fn values(&self, name: &str, length: usize) -> Buffer {
        let stream = self.stream(name);
        self.buffer(name, length, |i| self.fill.value(stream, i))
    }

    /// As [`values`](Self::values), but where values cancel in pairs, factors agree in pairs, so that sums of products cancel.
    pub fn factors(&self, name: &str, length: usize) -> Buffer {
        let mut factors = self.values(name, length);
        if self.fill == Fill::Cancelling {
            for factor in factors.iter_mut().skip(1).step_by(2) {
                *factor = -*factor;
            }
        }
        factors
    }

    /// As [`values`](Self::values), but where values cancel, these cancel `others` one by one.
    pub fn against(&self, name: &str, others: &[f32]) -> Buffer {
        if self.fill != Fill::Cancelling {
            return self.values(name, others.len());
        }
        let stream = self.stream(name);
        self.buffer(name, others.len(), |i| -nudged(others[i], stream.bits(i as u64)))
    }

    /// Room for `length` results, NaN until they are written.
    pub fn poisoned(&self, name: &str, length: usize) -> Buffer {
        self.buffer(name, length, |_| f32::NAN)
    }

    fn buffer(&self, name: &str, length: usize, value: impl Fn(usize) -> f32) -> Buffer {
        Buffer::new(self.stream(name).below(u64::MAX - 1, 16), length, value)
    }
}

/// Numbers in memory, begun anywhere within a vector, between margins that must stay as they are.
#[derive(Clone)]
pub struct Buffer {
    storage: Vec<f32>,
    start: usize,
    length: usize,
}

impl Buffer {
    const MARGIN: usize = 64;

    /// A NaN that no kernel makes.
    const UNTOUCHED: f32 = f32::from_bits(0x7FC5_A5A5);

    fn new(offset: usize, length: usize, value: impl Fn(usize) -> f32) -> Self {
        let start = Self::MARGIN + offset;
        let mut storage = vec![Self::UNTOUCHED; start + length + Self::MARGIN];
        for (i, element) in storage[start..][..length].iter_mut().enumerate() {
            *element = value(i);
        }
        Self { storage, start, length }
    }

    /// Whether nothing was written outside.
    pub fn margins_are_intact(&self) -> bool {
        let (before, rest) = self.storage.split_at(self.start);
        let margins = before.iter().chain(&rest[self.length..]);
        margins.into_iter().all(|value| value.to_bits() == Self::UNTOUCHED.to_bits())
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Self {
        Self::new(0, values.len(), |i| values[i])
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.storage[self.start..][..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.storage[self.start..][..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(fill: Fill, length: usize) -> Buffer {
        Data { seed: 1, fill }.values("x", length)
    }

    /// Stored, so that another platform or a later change cannot draw other data unnoticed.
    #[test]
    fn numbers_are_the_same_everywhere() {
        let hash = |fill| {
            let values = draw(fill, 1000);
            values.iter().fold(0, |hash, value| mix(hash ^ u64::from(value.to_bits())))
        };
        let hashes = Fill::ALL.map(|fill| format!("{fill} {:016x}", hash(fill)));
        assert_eq!(
            hashes,
            [
                "normal 725af77fdb1b438a",
                "uniform e950e0641612fd7e",
                "wide 270e00ef088ec96a",
                "cancelling 03bbd0b04aaa97c4",
                "subnormal 6abbdd016b2fd30a",
                "extreme 24ad455b43654256",
                "special 30e0f0f19137c893",
                "non-finite e38df3b578a6a2a8",
            ]
        );
    }

    #[test]
    fn an_element_does_not_depend_on_the_length() {
        for fill in Fill::ALL {
            let (short, long) = (draw(fill, 10), draw(fill, 1000));
            assert!(short.iter().zip(&long[..10]).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn names_and_seeds_give_other_numbers() {
        let data = Data { seed: 1, fill: Fill::Normal };
        assert_ne!(data.values("x", 9)[..], data.values("y", 9)[..]);
        assert_ne!(data.values("x", 9)[..], Data { seed: 2, ..data }.values("x", 9)[..]);
    }

    #[test]
    fn fills_are_what_they_say() {
        let normal = draw(Fill::Normal, 100_000);
        let mean = normal.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
        let square = normal.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.02, "{mean} {square}");
        assert!(normal.iter().any(|x| x.to_bits() & 1 == 1), "the last bit is used");

        assert!(draw(Fill::Uniform, 1000).iter().all(|x| x.abs() <= 1.0));
        let wide = draw(Fill::Wide, 1000);
        assert!(wide.iter().all(|x| (power_of_two(-30)..power_of_two(30)).contains(&x.abs())));
        assert!(draw(Fill::Subnormal, 1000).iter().filter(|x| x.is_subnormal()).count() > 300);
        let extreme = draw(Fill::Extreme, 1000);
        assert!(extreme.iter().all(|x| !(1e-29..1e29).contains(&x.abs()) && x.is_finite()));
        for pair in draw(Fill::Cancelling, 1000).chunks(2) {
            assert!((pair[0] + pair[1]).abs() <= pair[0].abs() / 1000.0);
        }
        let non_finite = |fill| {
            let values = (0..20).map(|seed| Data { seed, fill }.values("x", 1000));
            values.map(|values| values.iter().filter(|x| !x.is_finite()).count()).sum::<usize>()
        };
        assert!(non_finite(Fill::NonFinite) > 100);
        assert!(Fill::ALL.into_iter().all(|fill| fill.is_finite() == (non_finite(fill) == 0)));
    }

    #[test]
    fn a_write_outside_is_seen() {
        for offset in [0, 15] {
            let buffer = Buffer::new(offset, 5, |_| 0.0);
            assert!(buffer.margins_are_intact());
            for outside in [buffer.start - 1, buffer.start + 5] {
                let mut buffer = buffer.clone();
                buffer.storage[outside] = f32::NAN;
                assert!(!buffer.margins_are_intact());
            }
        }
    }
}
