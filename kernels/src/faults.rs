//! Wrong on purpose: bugs that are switched on one at a time while the program runs, so that a gate can be seen to catch them.
//!
//! [`Faulty`] is an instruction set with one wrong verb; every operation and the model run on it unchanged. A [`Line`] is a wrong line
//! where nothing can be put between. Nothing of this is compiled without the feature `faults`.

use std::ops::{Add, Div, Mul, Sub};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use half::{bf16, f16};

use crate::Isa;
use crate::simd::{BrainDots, Dots, ISA_NAMES, LANES, Lanes, Registers, Simd, Words, WordsOf};

/// A verb of [`Simd`] or [`Lanes`] that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LaneFault {
    /// The product is rounded before the sum.
    UnfusedMultiplyAdd = 1,
    /// Neighbours are added first, not halves.
    SumOfNeighbours,
    /// The last lane is not in the sum.
    SumWithoutLastLane,
    /// The last lane is never the largest.
    LargestWithoutLastLane,
    /// `max` returns its first operand where both are equal or unordered.
    MaxPrefersFirst,
    /// `min` returns its first operand where both are equal or unordered.
    MinPrefersFirst,
    /// Missing lanes of a tail hold 1, whatever the fill.
    TailFilledWithOnes,
    /// The last element of a tail is not read.
    TailReadShort,
    /// The last element of a tail is not written.
    TailWrittenShort,
    /// The sign alone decides: -0 and -NaN count as negative.
    SelectBySignBit,
    /// Results of scaling that are subnormal become 0.
    ScaleFlushesSubnormals,
    /// The scaled power is not rounded once: subnormal results are cut.
    ScaleCutsSubnormals,
    /// The lowest bit of an exponent is lost.
    ExponentLosesABit,
    /// `abs` keeps the sign.
    AbsKeepsSign,
    /// Division multiplies by the rounded reciprocal.
    DivideByReciprocal,
    /// Sums that are subnormal become 0.
    AddFlushesSubnormals,
    /// Subnormal halves widen to 0.
    HalvesFlushSubnormals,
    /// Brain floats lose the last bit of their fraction.
    BrainFloatsLoseABit,
    /// `a - b` is `a + (-b)`. Equivalent: only the sign of a NaN can differ.
    SubtractAddsNegative,
    /// `load` goes through memory once more. Equivalent: the bits are the same.
    LoadCopies,
    /// Two products of bytes saturate at 16 bits before they are added to a sum, as `maddubs` does.
    DotsSaturate,
    /// The fourth product of each sum is missing.
    DotsDropAByte,
    /// Activations below 0 count as above 127.
    DotsReadUnsigned,
    /// The 128 that biased weights are too large is never taken off, or too early.
    DotsKeepTheBias,
    /// A signed shift lets zeros in.
    ShiftDropsTheSign,
    /// A shift to the right stops one bit early.
    ShiftStopsShort,
    /// Words below 0 become large numbers.
    WordsReadUnsigned,
    /// Of two products of brain floats the second is added first.
    BrainDotsSwapProducts,
    /// Two products of brain floats are added to each other first.
    BrainDotsAddProducts,
    /// Products of brain floats take subnormal numbers for 0, as instructions do. Equivalent: there are none.
    BrainDotsFlushSubnormals,
}

impl LaneFault {
    /// Every one.
    pub const ALL: [Self; 30] = [
        Self::UnfusedMultiplyAdd,
        Self::SumOfNeighbours,
        Self::SumWithoutLastLane,
        Self::LargestWithoutLastLane,
        Self::MaxPrefersFirst,
        Self::MinPrefersFirst,
        Self::TailFilledWithOnes,
        Self::TailReadShort,
        Self::TailWrittenShort,
        Self::SelectBySignBit,
        Self::ScaleFlushesSubnormals,
        Self::ScaleCutsSubnormals,
        Self::ExponentLosesABit,
        Self::AbsKeepsSign,
        Self::DivideByReciprocal,
        Self::AddFlushesSubnormals,
        Self::HalvesFlushSubnormals,
        Self::BrainFloatsLoseABit,
        Self::SubtractAddsNegative,
        Self::LoadCopies,
        Self::DotsSaturate,
        Self::DotsDropAByte,
        Self::DotsReadUnsigned,
        Self::DotsKeepTheBias,
        Self::ShiftDropsTheSign,
        Self::ShiftStopsShort,
        Self::WordsReadUnsigned,
        Self::BrainDotsSwapProducts,
        Self::BrainDotsAddProducts,
        Self::BrainDotsFlushSubnormals,
    ];

    /// Whether `isa` has the verb.
    pub fn exists_on(self, isa: Isa) -> bool {
        match self {
            Self::BrainDotsSwapProducts
            | Self::BrainDotsAddProducts
            | Self::BrainDotsFlushSubnormals => isa.has_brain_dots(),
            _ => true,
        }
    }
}

/// A line of an operation or of the model that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Line {
    /// The feed-forward's output is added twice.
    ResidualTwice = 1,
    /// A reduction's tail is padded with ones.
    TailPaddedWithOnes,
    /// Keys are not normed.
    KeyNormSkipped,
    /// SwiGLU's gate and up projection change places.
    GateAndUpSwapped,
    /// Each call counts positions from 0.
    PositionsRestart,
    /// A row's angles are kept although its position is another.
    StaleAngles,
    /// A reset leaves the convolutions' state.
    StaleConvolutionState,
    /// A convolution's state lags one row behind.
    StateShifted,
    /// The last, partly filled block of a cache is not in a snapshot.
    SnapshotForgetsTail,
    /// The logits of a sequence's first row pass for those of its last.
    LastLogitsOfFirstRow,
    /// The sums of a segment of keys begin with those of the one before.
    SegmentNotReset,
    /// A thread's first row is the one before.
    ThreadsOverlap,
    /// The scores of experts sum to one.
    RouterSoftmax,
    /// What an expert made of a row goes to the next row that chose it.
    ExpertRowsRotated,
    /// A row has the result of its last expert alone.
    ExpertOverwrites,
    /// Activations that count as 0 are taken as they are.
    TinyActivationsKept,
    /// Weights that count as 0 are taken as they are.
    TinyWeightsKept,
    /// Numbers from 2^-55 to 2^-54 count as 0, too.
    LeastDoubled,
}

impl Line {
    /// Every one.
    pub const ALL: [Self; 18] = [
        Self::ResidualTwice,
        Self::TailPaddedWithOnes,
        Self::KeyNormSkipped,
        Self::GateAndUpSwapped,
        Self::PositionsRestart,
        Self::StaleAngles,
        Self::StaleConvolutionState,
        Self::StateShifted,
        Self::SnapshotForgetsTail,
        Self::LastLogitsOfFirstRow,
        Self::SegmentNotReset,
        Self::ThreadsOverlap,
        Self::RouterSoftmax,
        Self::ExpertRowsRotated,
        Self::ExpertOverwrites,
        Self::TinyActivationsKept,
        Self::TinyWeightsKept,
        Self::LeastDoubled,
    ];
}

/// The lane fault that is on, or 0.
static LANE_FAULT: AtomicU8 = AtomicU8::new(0);

/// The instruction set whose lanes are wrong, as its index in [`ISA_NAMES`].
static ISA: AtomicU32 = AtomicU32::new(u32::MAX);

/// The line that is on, or 0.
static LINE: AtomicU8 = AtomicU8::new(0);

static REACHED: AtomicBool = AtomicBool::new(false);

/// Switches a lane fault on, on one instruction set, and every other fault off.
pub fn switch_lanes(fault: LaneFault, isa: Isa) {
    switch_off();
    LANE_FAULT.store(fault as u8, Ordering::SeqCst);
    ISA.store(index(isa), Ordering::SeqCst);
}

/// Switches a line on, and every other fault off.
pub fn switch_line(line: Line) {
    switch_off();
    LINE.store(line as u8, Ordering::SeqCst);
}

/// Switches every fault off and forgets whether one was reached.
pub fn switch_off() {
    LANE_FAULT.store(0, Ordering::SeqCst);
    ISA.store(u32::MAX, Ordering::SeqCst);
    LINE.store(0, Ordering::SeqCst);
    REACHED.store(false, Ordering::SeqCst);
}

/// Whether the fault that is on did run.
pub fn is_reached() -> bool {
    REACHED.load(Ordering::SeqCst)
}

/// Notes that a fault did run: for faults that live elsewhere, too.
pub fn reach() {
    REACHED.store(true, Ordering::Relaxed);
}

fn index(isa: Isa) -> u32 {
    // Without its dot products it is the same one.
    let name = isa.name().trim_end_matches("-nodot");
    let index = ISA_NAMES.iter().position(|other| *other == name);
    index.expect("every instruction set has a name") as u32
}

pub(crate) fn has_wrong_lanes(isa: Isa) -> bool {
    ISA.load(Ordering::Relaxed) == index(isa)
}

pub(crate) fn is_wrong(line: Line) -> bool {
    let is_on = LINE.load(Ordering::Relaxed) == line as u8;
    if is_on {
        reach();
    }
    is_on
}

#[inline(always)]
fn is_on(fault: LaneFault) -> bool {
    LANE_FAULT.load(Ordering::Relaxed) == fault as u8
}

/// An instruction set with one wrong verb.
#[derive(Clone, Copy)]
pub(crate) struct Faulty<S>(pub S);

/// Its lanes.
#[derive(Clone, Copy)]
pub(crate) struct FaultyLanes<S: Simd> {
    simd: S,
    lanes: S::Lanes,
}

/// Its words.
#[derive(Clone, Copy)]
pub(crate) struct FaultyWords<S: Simd> {
    simd: S,
    words: S::Words,
}

impl<S: Simd> Faulty<S> {
    #[inline(always)]
    fn words(self, words: S::Words) -> FaultyWords<S> {
        FaultyWords { simd: self.0, words }
    }

    #[inline(always)]
    fn lanes(self, lanes: S::Lanes) -> FaultyLanes<S> {
        FaultyLanes { simd: self.0, lanes }
    }
}

/// The wrong verbs. Not inlined: they are rare, and every kernel is compiled with all of them.
macro_rules! wrong {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)*) => {
        $(
            #[cold]
            #[inline(never)]
            fn $name<S: Simd>($($argument: $type),*) -> $result {
                reach();
                $body
            }
        )*
    };
}

wrong! {
    fn copied(simd: S, from: &[f32; LANES]) -> S::Lanes {
        simd.load(&simd.load(from).to_array())
    }

    fn load_f16_flushed(simd: S, from: &[f16; LANES]) -> S::Lanes {
        simd.load(&from.map(|half| if half.is_normal() { half.to_f32() } else { 0.0 }))
    }

    fn load_bf16_pairs_shortened(simd: S, from: &[[bf16; 2]; LANES]) -> [S::Lanes; 2] {
        simd.load_bf16_pairs(&from.map(|pair| pair.map(|value| bf16::from_bits(value.to_bits() & !1))))
    }

    fn load_partial_with_ones(simd: S, from: &[f32]) -> S::Lanes {
        simd.load_partial(from, 1.0)
    }

    fn load_partial_short(simd: S, from: &[f32], fill: f32) -> S::Lanes {
        simd.load_partial(&from[..from.len().saturating_sub(1)], fill)
    }

    fn store_partial_short(simd: S, lanes: S::Lanes, to: &mut [f32]) -> S {
        let most = to.len().saturating_sub(1);
        lanes.store_partial(&mut to[..most]);
        simd
    }

    fn sum_flushed(a: FaultyLanes<S>, b: FaultyLanes<S>) -> FaultyLanes<S> {
        a.zip(b, |a, b| without_subnormals(a + b))
    }

    fn difference_by_sum(a: FaultyLanes<S>, b: FaultyLanes<S>) -> FaultyLanes<S> {
        a.zip(b, |a, b| f32::add(a, -b))
    }

    fn quotient_by_reciprocal(a: FaultyLanes<S>, b: FaultyLanes<S>) -> FaultyLanes<S> {
        a.zip(b, |a, b| a * (1.0 / b))
    }

    fn multiply_add_unfused(a: FaultyLanes<S>, b: FaultyLanes<S>, c: FaultyLanes<S>) -> FaultyLanes<S> {
        a.with(a.lanes * b.lanes + c.lanes)
    }

    fn max_swapped(a: FaultyLanes<S>, b: FaultyLanes<S>) -> FaultyLanes<S> {
        a.with(b.lanes.max(a.lanes))
    }

    fn min_swapped(a: FaultyLanes<S>, b: FaultyLanes<S>) -> FaultyLanes<S> {
        a.with(b.lanes.min(a.lanes))
    }

    fn unchanged(a: FaultyLanes<S>) -> FaultyLanes<S> {
        a
    }

    fn by_sign_bit(a: FaultyLanes<S>) -> FaultyLanes<S> {
        a.zip(a, |a, _| 1.0_f32.copysign(a))
    }

    fn scaled_and_cut(a: FaultyLanes<S>, power: FaultyLanes<S>) -> FaultyLanes<S> {
        a.zip(power, |x, power| {
            let exact = f64::from(x) * 2.0_f64.powi(power as i32);
            let nearest = exact as f32;
            let is_above = nearest.is_subnormal() && f64::from(nearest) > exact;
            if is_above { nearest.next_down() } else { nearest }
        })
    }

    fn scaled_and_flushed(a: FaultyLanes<S>, power: FaultyLanes<S>) -> FaultyLanes<S> {
        let scaled = a.with(a.lanes.scale_by_power(power.lanes));
        scaled.zip(scaled, |x, _| without_subnormals(x))
    }

    fn exponent_without_a_bit(a: FaultyLanes<S>) -> FaultyLanes<S> {
        a.zip(a, |a, _| f32::from_bits(a.to_bits() & !1))
    }

    fn sum_of_neighbours(a: FaultyLanes<S>) -> f32 {
        let mut lanes = a.lanes.to_array();
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                lanes[i] = lanes[2 * i] + lanes[2 * i + 1];
            }
        }
        lanes[0]
    }

    fn sum_short(a: FaultyLanes<S>) -> f32 {
        a.with_last(0.0).sum()
    }

    fn largest_short(a: FaultyLanes<S>) -> f32 {
        a.with_last(f32::NEG_INFINITY).largest()
    }

    fn shifted_without_sign(words: FaultyWords<S>, bits: u32) -> FaultyWords<S> {
        words.with(words.words.shift_right(bits))
    }

    fn shifted_short(words: FaultyWords<S>, bits: u32) -> FaultyWords<S> {
        words.with(words.words.shift_right(bits.saturating_sub(1)))
    }

    fn unsigned_lanes(words: FaultyWords<S>) -> S::Lanes {
        let lanes = words.bytes().map(|bytes| u32::from_le_bytes(bytes) as f32);
        words.simd.load(&lanes)
    }

    fn brain_products(simd: S, sums: FaultyLanes<S>, weights: FaultyWords<S>, activations: FaultyWords<S>) -> FaultyLanes<S> {
        let flushes = is_on(LaneFault::BrainDotsFlushSubnormals);
        let flushed = |value: f32| if flushes { without_subnormals(value) } else { value };
        let halves = |word: [u8; 4]| {
            let word = u32::from_le_bytes(word);
            [word & 0xFFFF_0000, word << 16].map(|bits| flushed(f32::from_bits(bits)))
        };
        let (weights, activations) = (weights.bytes(), activations.bytes());
        let mut lanes = sums.lanes.to_array();
        for i in 0..LANES {
            let ([w0, w1], [x0, x1]) = (halves(weights[i]), halves(activations[i]));
            lanes[i] = if is_on(LaneFault::BrainDotsSwapProducts) {
                w0.mul_add(x0, w1.mul_add(x1, lanes[i]))
            } else if is_on(LaneFault::BrainDotsAddProducts) {
                w0.mul_add(x0, w1 * x1) + lanes[i]
            } else {
                flushed(w1.mul_add(x1, flushed(w0.mul_add(x0, flushed(lanes[i])))))
            };
        }
        sums.with(simd.load(&lanes))
    }

    fn summed(sums: FaultyWords<S>, weights: FaultyWords<S>, activations: FaultyWords<S>, is_biased: bool) -> FaultyWords<S> {
        let (weights, activations) = (weights.bytes(), activations.bytes());
        let mut totals = sums.bytes().map(i32::from_le_bytes);
        for i in 0..LANES {
            let bias = if is_biased { 128 } else { 0 };
            for pair in [[0, 1], [2, 3]] {
                let activation = |k: usize| match is_on(LaneFault::DotsReadUnsigned) {
                    true => i32::from(activations[i][k]),
                    false => i32::from(activations[i][k].cast_signed()),
                };
                let kept = |k: &usize| *k < 3 || !is_on(LaneFault::DotsDropAByte);
                let kept: Vec<usize> = pair.into_iter().filter(kept).collect();
                let products = kept.iter().map(|&k| i32::from(weights[i][k]) * activation(k));
                let mut sum: i32 = products.sum();
                if is_on(LaneFault::DotsSaturate) {
                    sum = sum.clamp(i16::MIN.into(), i16::MAX.into());
                }
                totals[i] += sum - bias * kept.iter().map(|&k| activation(k)).sum::<i32>();
            }
        }
        let mut bytes = [0; 4 * LANES];
        bytes.as_chunks_mut().0.copy_from_slice(&totals.map(i32::to_le_bytes));
        sums.with(sums.simd.load_words(&bytes))
    }
}

fn without_subnormals(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

impl<S: Simd> FaultyLanes<S> {
    #[inline(always)]
    fn with(self, lanes: S::Lanes) -> Self {
        Self { lanes, ..self }
    }

    fn with_last(self, value: f32) -> S::Lanes {
        let mut lanes = self.lanes.to_array();
        lanes[LANES - 1] = value;
        self.simd.load(&lanes)
    }

    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let (mut lanes, others) = (self.lanes.to_array(), other.lanes.to_array());
        for i in 0..LANES {
            lanes[i] = f(lanes[i], others[i]);
        }
        self.with(self.simd.load(&lanes))
    }
}

impl<S: Simd> Simd for Faulty<S> {
    type Lanes = FaultyLanes<S>;
    type Words = FaultyWords<S>;

    const REGISTERS: Registers = S::REGISTERS;
    const TAKES_TWO_PANELS: bool = S::TAKES_TWO_PANELS;

    #[inline(always)]
    fn splat(self, value: f32) -> FaultyLanes<S> {
        self.lanes(self.0.splat(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> FaultyLanes<S> {
        let is_wrong = is_on(LaneFault::LoadCopies);
        self.lanes(if is_wrong { copied(self.0, from) } else { self.0.load(from) })
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> FaultyLanes<S> {
        let is_wrong = is_on(LaneFault::HalvesFlushSubnormals);
        self.lanes(if is_wrong { load_f16_flushed(self.0, from) } else { self.0.load_f16(from) })
    }

    #[inline(always)]
    fn load_bf16_pairs(self, from: &[[bf16; 2]; LANES]) -> [FaultyLanes<S>; 2] {
        let [first, second] = if is_on(LaneFault::BrainFloatsLoseABit) {
            load_bf16_pairs_shortened(self.0, from)
        } else {
            self.0.load_bf16_pairs(from)
        };
        [self.lanes(first), self.lanes(second)]
    }

    #[inline(always)]
    fn load_words(self, from: &[u8; 4 * LANES]) -> FaultyWords<S> {
        self.words(self.0.load_words(from))
    }

    #[inline(always)]
    fn splat_words(self, word: i32) -> FaultyWords<S> {
        self.words(self.0.splat_words(word))
    }

    #[inline(always)]
    fn prefetch<L>(self, elements: &[L], bytes: usize) {
        self.0.prefetch(elements, bytes);
    }

    #[inline(always)]
    fn prefetch_for_later<L>(self, elements: &[L], bytes: usize) {
        self.0.prefetch_for_later(elements, bytes);
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        Simd::apart(self.0, kernel)
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32], fill: f32) -> FaultyLanes<S> {
        self.lanes(if is_on(LaneFault::TailFilledWithOnes) {
            load_partial_with_ones(self.0, from)
        } else if is_on(LaneFault::TailReadShort) {
            load_partial_short(self.0, from, fill)
        } else {
            self.0.load_partial(from, fill)
        })
    }
}

impl<S: Simd> Add for FaultyLanes<S> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        if is_on(LaneFault::AddFlushesSubnormals) {
            return sum_flushed(self, other);
        }
        self.with(self.lanes + other.lanes)
    }
}

impl<S: Simd> Sub for FaultyLanes<S> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        if is_on(LaneFault::SubtractAddsNegative) {
            return difference_by_sum(self, other);
        }
        self.with(self.lanes - other.lanes)
    }
}

impl<S: Simd> Mul for FaultyLanes<S> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(self.lanes * other.lanes)
    }
}

impl<S: Simd> Div for FaultyLanes<S> {
    type Output = Self;

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        if is_on(LaneFault::DivideByReciprocal) {
            return quotient_by_reciprocal(self, other);
        }
        self.with(self.lanes / other.lanes)
    }
}

impl<S: Simd> Lanes for FaultyLanes<S> {
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        if is_on(LaneFault::UnfusedMultiplyAdd) {
            return multiply_add_unfused(self, factor, term);
        }
        self.with(self.lanes.mul_add(factor.lanes, term.lanes))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if is_on(LaneFault::MaxPrefersFirst) {
            return max_swapped(self, other);
        }
        self.with(self.lanes.max(other.lanes))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if is_on(LaneFault::MinPrefersFirst) {
            return min_swapped(self, other);
        }
        self.with(self.lanes.min(other.lanes))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        if is_on(LaneFault::AbsKeepsSign) {
            return unchanged(self);
        }
        self.with(self.lanes.abs())
    }

    #[inline(always)]
    fn select_negative(self, negative: Self, otherwise: Self) -> Self {
        let signs = if is_on(LaneFault::SelectBySignBit) { by_sign_bit(self) } else { self };
        self.with(signs.lanes.select_negative(negative.lanes, otherwise.lanes))
    }

    #[inline(always)]
    fn scale_by_power(self, power: Self) -> Self {
        if is_on(LaneFault::ScaleCutsSubnormals) {
            return scaled_and_cut(self, power);
        }
        if is_on(LaneFault::ScaleFlushesSubnormals) {
            return scaled_and_flushed(self, power);
        }
        self.with(self.lanes.scale_by_power(power.lanes))
    }

    #[inline(always)]
    fn lowest_bits_as_exponent(self) -> Self {
        let bits =
            if is_on(LaneFault::ExponentLosesABit) { exponent_without_a_bit(self) } else { self };
        self.with(bits.lanes.lowest_bits_as_exponent())
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        self.lanes.store(to);
    }

    #[inline(always)]
    fn store_integers(self, to: &mut [i8; LANES]) {
        self.lanes.store_integers(to);
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        if is_on(LaneFault::TailWrittenShort) {
            store_partial_short(self.simd, self.lanes, to);
        } else {
            self.lanes.store_partial(to);
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        if is_on(LaneFault::SumOfNeighbours) {
            sum_of_neighbours(self)
        } else if is_on(LaneFault::SumWithoutLastLane) {
            sum_short(self)
        } else {
            self.lanes.sum()
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        if is_on(LaneFault::LargestWithoutLastLane) {
            return largest_short(self);
        }
        self.lanes.largest()
    }
}

impl<S: Simd> FaultyWords<S> {
    #[inline(always)]
    fn with(self, words: S::Words) -> Self {
        Self { words, ..self }
    }

    fn bytes(self) -> [[u8; 4]; LANES] {
        let mut bytes = [0; 4 * LANES];
        self.words.store(&mut bytes);
        let mut words = [[0; 4]; LANES];
        words.copy_from_slice(bytes.as_chunks().0);
        words
    }
}

impl<S: Simd> Words for FaultyWords<S> {
    type Lanes = FaultyLanes<S>;

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.with(self.words.and(other.words))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.with(self.words.or(other.words))
    }

    #[inline(always)]
    fn shift_left(self, bits: u32) -> Self {
        self.with(self.words.shift_left(bits))
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        if is_on(LaneFault::ShiftStopsShort) {
            return shifted_short(self, bits);
        }
        self.with(self.words.shift_right(bits))
    }

    #[inline(always)]
    fn shift_right_signed(self, bits: u32) -> Self {
        if is_on(LaneFault::ShiftDropsTheSign) {
            return shifted_without_sign(self, bits);
        }
        self.with(self.words.shift_right_signed(bits))
    }

    #[inline(always)]
    fn to_lanes(self) -> FaultyLanes<S> {
        let simd = self.simd;
        let lanes = if is_on(LaneFault::WordsReadUnsigned) {
            unsigned_lanes(self)
        } else {
            self.words.to_lanes()
        };
        FaultyLanes { simd, lanes }
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; 4 * LANES]) {
        self.words.store(to);
    }
}

/// Whether products of bytes are added wrongly.
#[inline(always)]
fn has_wrong_dots() -> bool {
    is_on(LaneFault::DotsSaturate)
        || is_on(LaneFault::DotsDropAByte)
        || is_on(LaneFault::DotsReadUnsigned)
}

impl<D: Dots> Dots for Faulty<D> {
    type Simd = Faulty<D::Simd>;

    #[inline(always)]
    fn simd(self) -> Faulty<D::Simd> {
        Faulty(self.0.simd())
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        Dots::apart(self.0, kernel)
    }

    #[inline(always)]
    fn dot_small(
        self,
        sums: WordsOf<Self>,
        weights: WordsOf<Self>,
        activations: WordsOf<Self>,
    ) -> WordsOf<Self> {
        if has_wrong_dots() {
            return summed(sums, weights, activations, false);
        }
        sums.with(self.0.dot_small(sums.words, weights.words, activations.words))
    }

    #[inline(always)]
    fn dot_biased(
        self,
        sums: WordsOf<Self>,
        weights: WordsOf<Self>,
        activations: WordsOf<Self>,
    ) -> WordsOf<Self> {
        if is_on(LaneFault::DotsKeepTheBias) {
            reach();
            return sums.with(self.0.dot_small(sums.words, weights.words, activations.words));
        }
        if has_wrong_dots() {
            return summed(sums, weights, activations, true);
        }
        sums.with(self.0.dot_biased(sums.words, weights.words, activations.words))
    }

    #[inline(always)]
    fn biased_start(self, activations: i32) -> i32 {
        if has_wrong_dots() || is_on(LaneFault::DotsKeepTheBias) {
            return 0;
        }
        self.0.biased_start(activations)
    }
}

impl<D: BrainDots> BrainDots for Faulty<D> {
    type Simd = Faulty<D::Simd>;

    #[inline(always)]
    fn simd(self) -> Faulty<D::Simd> {
        Faulty(self.0.simd())
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        BrainDots::apart(self.0, kernel)
    }

    #[inline(always)]
    fn load_pairs(self, from: &[[bf16; 2]; LANES]) -> FaultyWords<D::Simd> {
        self.simd().words(self.0.load_pairs(from))
    }

    #[inline(always)]
    fn add_products(
        self,
        sums: FaultyLanes<D::Simd>,
        weights: FaultyWords<D::Simd>,
        activations: FaultyWords<D::Simd>,
    ) -> FaultyLanes<D::Simd> {
        if is_on(LaneFault::BrainDotsSwapProducts)
            || is_on(LaneFault::BrainDotsAddProducts)
            || is_on(LaneFault::BrainDotsFlushSubnormals)
        {
            return brain_products(self.0.simd(), sums, weights, activations);
        }
        sums.with(self.0.add_products(sums.lanes, weights.words, activations.words))
    }
}
