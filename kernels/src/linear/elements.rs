//! Weights that are stored one by one, in the order in which they are read.
//!
//! A panel is sixteen outputs. *Pairs* of inputs follow each other, and the panels of a *strip* lie side by side, pair by pair: `[outputs /
//! 16 / panels of a strip][inputs / 2][panels of a strip][pair]`. A strip of narrow weights has two panels: one row then reads memory in one
//! straight line, with more than one chain to add to. Where there are no outputs or inputs any more, there are zeros.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;
use zerocopy::{Immutable, IntoBytes};

use super::tile::Line;
use crate::aligned::Aligned;
use crate::simd::{Element, LANES, Simd};

/// Inputs of a pair.
pub const PAIR: usize = 2;

/// Elements of a pair.
const PAIR_ELEMENTS: usize = PAIR * LANES;

/// A weight as stored.
pub trait Weight: Element {
    /// Two inputs of sixteen outputs.
    type Pair: Send + Sync;

    /// The same pair of the panels of a strip.
    type Strip: AsRef<[Self::Pair]> + IntoBytes + Immutable + Copy + Send + Sync;

    /// One input of sixteen outputs.
    type Line<'a>: Line;

    /// Panels of a strip.
    const STRIP: usize;

    /// A strip of zeros.
    const ZEROS: Self::Strip;

    /// Whether to widen them takes more than a shift.
    const ARE_CONVERTED: bool;

    /// Elements as strips.
    fn strips(elements: &[Self]) -> &[Self::Strip];

    /// Where in a pair an output's first or second input is.
    fn place(which: usize, lane: usize) -> usize;

    /// The first or second input of a pair.
    fn line(pair: &Self::Pair, which: usize) -> Self::Line<'_>;
}

/// Sixteen outputs of the first input, then of the second.
macro_rules! one_input_after_another {
    ($element:ident, $strip:literal, $zero:expr, converted: $are_converted:literal) => {
        impl Weight for $element {
            type Pair = [[$element; LANES]; PAIR];
            type Strip = [Self::Pair; $strip];
            type Line<'a> = &'a [$element; LANES];
            const STRIP: usize = $strip;
            const ZEROS: Self::Strip = [[[$zero; LANES]; PAIR]; $strip];
            const ARE_CONVERTED: bool = $are_converted;

            fn strips(elements: &[$element]) -> &[Self::Strip] {
                elements.as_chunks().0.as_chunks().0.as_chunks().0
            }

            fn place(which: usize, lane: usize) -> usize {
                which * LANES + lane
            }

            #[inline(always)]
            fn line(pair: &Self::Pair, which: usize) -> &[$element; LANES] {
                &pair[which]
            }
        }
    };
}
one_input_after_another!(f32, 1, 0.0, converted: false);
one_input_after_another!(f16, 2, f16::ZERO, converted: true);

/// Both inputs of an output side by side, the second first.
impl Weight for bf16 {
    type Pair = [[bf16; PAIR]; LANES];
    type Strip = [Self::Pair; 2];
    type Line<'a> = BrainLine<'a>;
    const STRIP: usize = 2;
    const ZEROS: Self::Strip = [[[bf16::ZERO; PAIR]; LANES]; 2];
    const ARE_CONVERTED: bool = false;

    fn strips(elements: &[bf16]) -> &[Self::Strip] {
        elements.as_chunks().0.as_chunks().0.as_chunks().0
    }

    fn place(which: usize, lane: usize) -> usize {
        lane * PAIR + 1 - which
    }

    #[inline(always)]
    fn line(pair: &Self::Pair, which: usize) -> BrainLine<'_> {
        BrainLine { pair, which }
    }
}

/// The first or second input of a pair of brain floats.
#[derive(Clone, Copy)]
pub struct BrainLine<'a> {
    pair: &'a [[bf16; PAIR]; LANES],
    which: usize,
}

impl Line for BrainLine<'_> {
    #[inline(always)]
    fn load<S: Simd>(self, simd: S) -> S::Lanes {
        simd.load_bf16_pairs(self.pair)[self.which]
    }
}

/// Some pairs of one panel.
pub struct Panel<'a, E: Weight> {
    strips: &'a [E::Strip],
    side: usize,
}

// Derived, they would ask as much of the strips.
impl<E: Weight> Clone for Panel<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E: Weight> Copy for Panel<'_, E> {}

impl<'a, E: Weight> Panel<'a, E> {
    /// Pairs of the panel `side` of a strip.
    pub fn new(strips: &'a [E::Strip], side: usize) -> Self {
        assert!(side < E::STRIP);
        Self { strips, side }
    }

    /// How many there are.
    #[inline(always)]
    pub fn pairs(self) -> usize {
        self.strips.len()
    }

    /// One of them.
    #[inline(always)]
    pub fn pair(self, pair: usize) -> &'a E::Pair {
        // So that the compiler knows that there is such a side.
        &self.strips[pair].as_ref()[self.side % E::STRIP]
    }

    /// Some of them.
    #[inline(always)]
    pub fn of_pairs(self, pairs: Range<usize>) -> Self {
        Self { strips: &self.strips[pairs], side: self.side }
    }

    /// Those of some inputs, of which the first has an even number.
    #[inline(always)]
    pub fn of_inputs(self, inputs: Range<usize>) -> Self {
        self.of_pairs(pairs_of(inputs))
    }

    /// Whether no other panel of the strip lies before it.
    #[inline(always)]
    pub fn is_first_of_strip(self) -> bool {
        self.side == 0
    }

    /// What they lie in.
    #[inline(always)]
    pub fn strips(self) -> &'a [E::Strip] {
        self.strips
    }
}

fn pairs_of(inputs: Range<usize>) -> Range<usize> {
    debug_assert!(inputs.start.is_multiple_of(PAIR));
    inputs.start / PAIR..inputs.end.div_ceil(PAIR)
}

/// Inputs that are packed at once: whole cache lines of each output.
const BATCH: usize = 32;

/// Puts the next inputs of the panel `side` of a strip where they belong, as far as there are places.
fn put<E: Weight>(rows: &[[E; BATCH]; LANES], side: usize, elements: &mut [E]) {
    let pairs = elements.as_chunks_mut::<PAIR_ELEMENTS>().0.iter_mut();
    for (pair, elements) in pairs.skip(side).step_by(E::STRIP).enumerate() {
        for which in 0..PAIR {
            for lane in 0..LANES {
                elements[E::place(which, lane)] = rows[lane][PAIR * pair + which];
            }
        }
    }
}

/// A packed matrix.
pub struct Elements<E: Weight> {
    /// Of a panel.
    pairs: usize,
    elements: Aligned<E>,
}

impl<E: Weight> Elements<E> {
    /// Packs `[outputs, inputs]` weights; `read` reads those from an index on, row-major.
    fn pack(outputs: usize, inputs: usize, read: impl Fn(usize, &mut [E]) + Sync) -> Self {
        let pairs = inputs.div_ceil(PAIR);
        let strip_outputs = E::STRIP * LANES;
        let strip_elements = pairs * E::STRIP * PAIR_ELEMENTS;
        let mut elements =
            Aligned::zeroed_in_arena(outputs.div_ceil(strip_outputs) * strip_elements);
        if elements.is_empty() {
            return Self { pairs, elements };
        }
        elements.par_chunks_exact_mut(strip_elements).enumerate().for_each(|(strip, elements)| {
            let batches = elements.chunks_mut(BATCH / PAIR * E::STRIP * PAIR_ELEMENTS);
            for (k, elements) in (0..inputs).step_by(BATCH).zip(batches) {
                for side in 0..E::STRIP {
                    let first = strip * strip_outputs + side * LANES;
                    let mut rows = [[E::default(); BATCH]; LANES];
                    for (n, row) in (first..outputs).zip(&mut rows) {
                        read(n * inputs + k, &mut row[..BATCH.min(inputs - k)]);
                    }
                    put(&rows, side, elements);
                }
            }
        });
        Self { pairs, elements }
    }

    /// Packs row-major `rows`.
    pub fn pack_rows(outputs: usize, inputs: usize, rows: &[E]) -> Self {
        Self::pack(outputs, inputs, |first, out| {
            out.copy_from_slice(&rows[first..][..out.len()]);
        })
    }

    /// Packs row-major little-endian `bytes`.
    pub fn pack_bytes(outputs: usize, inputs: usize, bytes: &[u8]) -> Self {
        Self::pack(outputs, inputs, |first, out| {
            let bytes = bytes[first * size_of::<E>()..].chunks_exact(size_of::<E>());
            for (out, bytes) in out.iter_mut().zip(bytes) {
                *out = E::from_le_bytes(bytes);
            }
        })
    }

    /// Replaces each element by `change` of it.
    pub fn change(&mut self, change: impl Fn(E) -> E + Sync) {
        self.elements.par_chunks_mut(1 << 16).for_each(|elements| {
            for element in elements {
                *element = change(*element);
            }
        });
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.elements[..])
    }

    /// Whether a weight takes less memory than a single.
    pub fn is_narrow(&self) -> bool {
        size_of::<E>() < size_of::<f32>()
    }

    /// Bytes of a panel.
    pub fn panel_bytes(&self) -> usize {
        self.pairs * PAIR_ELEMENTS * size_of::<E>()
    }

    /// Panels, those of zeros among them.
    pub fn panels(&self) -> usize {
        E::strips(&self.elements).len() / self.pairs.max(1) * E::STRIP
    }

    /// A whole panel.
    pub fn panel(&self, panel: usize) -> Panel<'_, E> {
        let strips = E::strips(&self.elements);
        let strips = &strips[panel / E::STRIP * self.pairs..][..self.pairs];
        Panel::new(strips, panel % E::STRIP)
    }

    /// Copies row `row` to `out`, widened exactly.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        let (panel, lane) = (row / LANES, row % LANES);
        let first = (panel / E::STRIP * self.pairs * E::STRIP + panel % E::STRIP) * PAIR_ELEMENTS;
        let pairs = self.elements[first..].chunks(E::STRIP * PAIR_ELEMENTS);
        for (out, pair) in out.chunks_mut(PAIR).zip(pairs) {
            for (which, out) in out.iter_mut().enumerate() {
                *out = pair[E::place(which, lane)].to_f32();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weight by weight, into zeros.
    fn pack_slowly<E: Weight>(outputs: usize, inputs: usize, weights: &[E]) -> Vec<E> {
        let (pairs, strips) = (inputs.div_ceil(PAIR), outputs.div_ceil(E::STRIP * LANES));
        let mut elements = vec![E::default(); strips * pairs * E::STRIP * PAIR_ELEMENTS];
        for (n, k) in (0..outputs).flat_map(|n| (0..inputs).map(move |k| (n, k))) {
            let (strip, side) = (n / LANES / E::STRIP, n / LANES % E::STRIP);
            let pair = (strip * pairs + k / PAIR) * E::STRIP + side;
            elements[pair * PAIR_ELEMENTS + E::place(k % PAIR, n % LANES)] =
                weights[n * inputs + k];
        }
        elements
    }

    fn check<E: Weight>() {
        let bits = |elements: &[E]| -> Vec<u32> {
            elements.iter().map(|element| element.to_f32().to_bits()).collect()
        };
        for outputs in [0, 1, 15, 16, 17, 31, 32, 33, 48, 65] {
            for inputs in [0, 1, 2, 3, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH, 3 * BATCH + 5] {
                // Halves of so many different values are exact.
                let value = |i| E::from_f32(((i * 37 + 1) % 251) as f32);
                let weights: Vec<E> = (0..outputs * inputs).map(value).collect();
                let packed = Elements::pack_rows(outputs, inputs, &weights);
                let slowly = pack_slowly(outputs, inputs, &weights);
                assert_eq!(bits(&packed.elements), bits(&slowly), "{outputs}x{inputs}");
            }
        }
    }

    #[test]
    fn weights_go_where_they_belong_and_zeros_elsewhere() {
        check::<f32>();
        check::<f16>();
        check::<bf16>();
    }
}
