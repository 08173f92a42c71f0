//! Test data that depend on a seed, a name and a counter alone: the same on every platform, in whatever order they are drawn.

use crate::buffer::{Buffer, Input, Place};
use crate::fill::{Fill, nudged};
use crate::memory::Number;

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
pub(crate) fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(GOLDEN_RATIO);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// The source of one case's data.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// What makes it differ from other cases.
    pub seed: u64,
    /// What kind of numbers it gives.
    pub fill: Fill,
    /// Where they lie.
    pub place: Place,
}

impl Data {
    /// The random bits of this name.
    pub fn stream(&self, name: &str) -> Stream {
        Stream::new(self.seed, name)
    }

    /// `length` numbers of this name.
    pub fn values(&self, name: &str, length: usize) -> Input {
        self.unsealed(name, length).seal()
    }

    /// As [`values`](Self::values), for cases that alter them before they seal them.
    pub fn unsealed(&self, name: &str, length: usize) -> Buffer {
        let stream = self.stream(name);
        self.buffer(name, length, |i| self.fill.value(stream, i))
    }

    /// As [`values`](Self::values), but where values cancel in pairs, factors agree in pairs, so that sums of products cancel.
    pub fn factors(&self, name: &str, length: usize) -> Input {
        let mut factors = self.unsealed(name, length);
        if self.fill == Fill::Cancelling {
            for factor in factors.iter_mut().skip(1).step_by(2) {
                *factor = -*factor;
            }
        }
        factors.seal()
    }

    /// As [`values`](Self::values), but where values cancel, these cancel `others` one by one.
    pub fn against(&self, name: &str, others: &[f32]) -> Input {
        if self.fill != Fill::Cancelling {
            return self.values(name, others.len());
        }
        let stream = self.stream(name);
        self.buffer(name, others.len(), |i| -nudged(others[i], stream.bits(i as u64))).seal()
    }

    /// `length` whole numbers of this name, below `limit`.
    pub fn indices(&self, name: &str, length: usize, limit: usize) -> Input<u32> {
        let stream = self.stream(name);
        self.buffer(name, length, |i| stream.below(i as u64, limit) as u32).seal()
    }

    /// Room for `length` results, NaN until they are written.
    pub fn poisoned(&self, name: &str, length: usize) -> Buffer {
        self.buffer(name, length, |_| f32::NAN)
    }

    fn buffer<N: Number>(
        &self,
        name: &str,
        length: usize,
        value: impl Fn(usize) -> N,
    ) -> Buffer<N> {
        // Other fills of the same shape and seed lie elsewhere.
        let draw = u64::MAX - 1 - self.fill as u64;
        let buffer = Buffer::new(self.place, self.stream(name).below(draw, 16), length, value);
        #[cfg(test)]
        tests::note_alignment(name, &buffer);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};

    use lfm2_kernels::Isa;

    use super::*;
    use crate::case_line::Plan;
    use crate::cases::{OPS, Op};
    use crate::fill::power_of_two;
    use crate::kernels::Kernels;
    use crate::memory::Number;
    use crate::plan::{Depth, fixed_plans};

    fn data(seed: u64, fill: Fill) -> Data {
        Data { seed, fill, place: Place::Ordinary }
    }

    fn draw(fill: Fill, length: usize) -> Input {
        data(1, fill).values("x", length)
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
                "integers a2ec1003276218bd",
                "constant 548337b721db4816",
                "sorted 7fb4d7f70d843813",
                "zeros bdcfe23eef4aaf18",
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
        let first = data(1, Fill::Normal);
        assert_ne!(first.values("x", 9)[..], first.values("y", 9)[..]);
        assert_ne!(first.values("x", 9)[..], data(2, Fill::Normal).values("x", 9)[..]);
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
        let integers = draw(Fill::Integers, 1000);
        assert!(integers.iter().all(|x| x.abs() <= 8.0 && x.fract() == 0.0));
        let constant = draw(Fill::Constant, 1000);
        assert!(constant.iter().all(|&x| x == constant[0]));
        let sorted = draw(Fill::Sorted, 100_000);
        assert!(sorted.is_sorted() || sorted.is_sorted_by(|a, b| a >= b));
        let zeros = draw(Fill::Zeros, 1000);
        let count = |bits| zeros.iter().filter(|x| x.to_bits() == bits).count();
        assert!(count(0) > 200 && count(1 << 31) > 200 && zeros.iter().any(|&x| x != 0.0));
        for pair in draw(Fill::Cancelling, 1000).chunks(2) {
            assert!((pair[0] + pair[1]).abs() <= pair[0].abs() / 1000.0);
        }
        let non_finite = |fill| {
            let values = (0..20).map(|seed| data(seed, fill).values("x", 1000));
            values.map(|values| values.iter().filter(|x| !x.is_finite()).count()).sum::<usize>()
        };
        assert!(non_finite(Fill::NonFinite) > 100);
        assert!(Fill::ALL.into_iter().all(|fill| fill.is_finite() == (non_finite(fill) == 0)));
    }

    /// How many numbers after the start of a vector the buffers of some cases began, by name.
    type Alignments = BTreeMap<String, BTreeSet<usize>>;

    thread_local! {
        static ALIGNMENTS: RefCell<Alignments> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(super) fn note_alignment<N: Number>(name: &str, buffer: &Buffer<N>) {
        let alignment = buffer.as_ptr().addr() % 64 / size_of::<N>();
        ALIGNMENTS.with_borrow_mut(|all| all.entry(name.into()).or_default().insert(alignment));
    }

    /// Of all slices that the fixed cases of an operation have in this place.
    fn alignments(op: &Op, place: Place) -> Alignments {
        ALIGNMENTS.take();
        let plans = fixed_plans(op, Depth::Quick).into_iter();
        for plan in plans.filter(|plan| plan.place == Place::Ordinary) {
            let plan = Plan { place, ..plan };
            let case = (op.make)(&plan.shape, plan.data());
            case.run(&Kernels::OURS, Isa::best());
        }
        ALIGNMENTS.take()
    }

    /// Of each of an operation's slices, and of all of a model's together. A slice that ends at a guard page is as long as the operation
    /// allows: pairs for `rope` and `exp`, whole vectors for attention. One that begins there is aligned to a page.
    #[test]
    #[cfg_attr(
        target_arch = "aarch64",
        ignore = "the same everywhere, and slow where it is emulated"
    )]
    fn every_alignment_occurs() {
        for op in OPS {
            let step = match op.name {
                "rope" | "exp" => 2,
                "attention_f32" | "attention_f16" => 16,
                _ => 1,
            };
            for (place, step) in
                [(Place::Ordinary, 1), (Place::GuardedEnd, step), (Place::GuardedStart, 16)]
            {
                let alignments = alignments(op, place);
                assert!(!alignments.is_empty());
                let expected: BTreeSet<usize> = (0..16).step_by(step).collect();
                if op.name.starts_with("model") {
                    let found: BTreeSet<usize> = alignments.into_values().flatten().collect();
                    assert_eq!(found, expected, "{}, {place:?}", op.name);
                    continue;
                }
                for (name, found) in alignments {
                    // Rows of whole blocks.
                    let is_whole = (op.name.starts_with("linear_q") && name == "x")
                        || (op.name.starts_with("embedding_q") && name == "out");
                    if is_whole && place == Place::GuardedEnd {
                        assert_eq!(found, [0].into(), "{} {name}, {place:?}", op.name);
                        continue;
                    }
                    assert_eq!(found, expected, "{} {name}, {place:?}", op.name);
                }
            }
        }
    }
}
