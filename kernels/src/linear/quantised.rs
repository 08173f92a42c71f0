//! Quantised weights in memory: as many bytes as in the file, in an order that sixteen rows can be read at once.
//!
//! A panel is sixteen rows. For each block of it there are the rows' halves (`d` and `m`), side by side, and *lines* of 64 bytes, four
//! for each row: first the finer scales, then the quants of every 32 weights. All quants are unsigned; what they stand for is less by
//! an offset.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use half::f16;
use rayon::prelude::*;

use super::WeightFormat;
use super::blocks::{self, SuperBlock};
use crate::aligned::Aligned;
use crate::simd::{LANES, Lanes, Simd, Words};
use crate::tuning::Knob;

/// Weights that share a scale, or two, and an activation's scale.
pub const RUN: usize = 32;

/// From what a row reads to what it asks for. The hardware's own prefetching ends at each page and leaves a core waiting.
#[derive(Clone, Copy)]
pub struct Ahead {
    lines: usize,
    blocks: usize,
}

/// Words of four quants in a run.
pub const GROUPS: usize = RUN / 4;

/// Four bytes of each of sixteen rows.
pub type Line = [u8; 4 * LANES];

/// How the quants of a run are stored.
pub trait Quants: Send + Sync + 'static {
    /// Lines for the runs of sixteen rows.
    const LINES: usize;

    /// Bits of a quant.
    const BITS: u32;

    /// Stores one row's, all bits of its words.
    fn put(quants: &[u8; RUN], lane: usize, lines: &mut [Line]);

    /// The quants of sixteen rows: those of the first four weights, then of the next.
    fn groups<S: Simd>(simd: S, lines: &[Line]) -> [S::Words; GROUPS];
}

/// Eight bits: a line for each group.
pub struct Bytes;

/// Four bits: a line for two groups, the first half of the run in the lower bits.
pub struct Nibbles;

/// Four bits as [`Nibbles`], and the fifths of all groups in one line: bit `g` of a byte belongs to group `g`.
pub struct FiveBits;

/// Four bits as [`Nibbles`], and two more of four groups in each of two lines.
pub struct SixBits;

impl Quants for Bytes {
    const LINES: usize = GROUPS;
    const BITS: u32 = 8;

    #[inline(always)]
    fn put(quants: &[u8; RUN], lane: usize, lines: &mut [Line]) {
        put_words(quants, lane, lines);
    }

    #[inline(always)]
    fn groups<S: Simd>(simd: S, lines: &[Line]) -> [S::Words; GROUPS] {
        let mut groups = [simd.splat_words(0); GROUPS];
        for g in 0..GROUPS {
            groups[g] = simd.load_words(&lines[g]);
        }
        groups
    }
}

impl Quants for Nibbles {
    const LINES: usize = GROUPS / 2;
    const BITS: u32 = 4;

    #[inline(always)]
    fn put(quants: &[u8; RUN], lane: usize, lines: &mut [Line]) {
        let (first_half, second_half) = quants.split_at(RUN / 2);
        let mut both = [0; RUN / 2];
        for k in 0..RUN / 2 {
            both[k] = first_half[k] & 15 | second_half[k] << 4;
        }
        put_words(&both, lane, lines);
    }

    #[inline(always)]
    fn groups<S: Simd>(simd: S, lines: &[Line]) -> [S::Words; GROUPS] {
        let mask = simd.splat_words(0x0F0F_0F0F);
        let mut groups = [mask; GROUPS];
        for g in 0..GROUPS / 2 {
            let both = simd.load_words(&lines[g]);
            groups[g] = both.and(mask);
            groups[g + GROUPS / 2] = both.shift_right(4).and(mask);
        }
        groups
    }
}

impl Quants for FiveBits {
    const LINES: usize = Nibbles::LINES + 1;
    const BITS: u32 = 5;

    #[inline(always)]
    fn put(quants: &[u8; RUN], lane: usize, lines: &mut [Line]) {
        let (nibbles, high) = lines.split_at_mut(Nibbles::LINES);
        Nibbles::put(quants, lane, nibbles);
        let mut fifths = [0; 4];
        for (group, quants) in quants.as_chunks::<4>().0.iter().enumerate() {
            for (fifths, quant) in fifths.iter_mut().zip(quants) {
                *fifths |= (quant >> 4) << group;
            }
        }
        put_words(&fifths, lane, high);
    }

    #[inline(always)]
    fn groups<S: Simd>(simd: S, lines: &[Line]) -> [S::Words; GROUPS] {
        let mut groups = Nibbles::groups(simd, lines);
        let high = simd.load_words(&lines[Nibbles::LINES]);
        let mask = simd.splat_words(0x1010_1010);
        for g in 0..GROUPS {
            groups[g] = groups[g].or(moved_to_four(high, g as u32).and(mask));
        }
        groups
    }
}

impl Quants for SixBits {
    const LINES: usize = Nibbles::LINES + 2;
    const BITS: u32 = 6;

    #[inline(always)]
    fn put(quants: &[u8; RUN], lane: usize, lines: &mut [Line]) {
        let (nibbles, high) = lines.split_at_mut(Nibbles::LINES);
        Nibbles::put(quants, lane, nibbles);
        for (line, quants) in high.iter_mut().zip(quants.as_chunks::<{ RUN / 2 }>().0) {
            let mut upper = [0; 4];
            for (group, quants) in quants.as_chunks::<4>().0.iter().enumerate() {
                for (upper, quant) in upper.iter_mut().zip(quants) {
                    *upper |= (quant >> 4) << (2 * group);
                }
            }
            put_words(&upper, lane, slice::from_mut(line));
        }
    }

    #[inline(always)]
    fn groups<S: Simd>(simd: S, lines: &[Line]) -> [S::Words; GROUPS] {
        let mut groups = Nibbles::groups(simd, lines);
        let mask = simd.splat_words(0x3030_3030);
        for half in 0..2 {
            let high = simd.load_words(&lines[Nibbles::LINES + half]);
            for i in 0..4 {
                let g = 4 * half + i;
                groups[g] = groups[g].or(moved_to_four(high, 2 * i as u32).and(mask));
            }
        }
        groups
    }
}

/// Puts four bytes of one row into each line.
#[inline(always)]
fn put_words(bytes: &[u8], lane: usize, lines: &mut [Line]) {
    for (line, word) in lines.iter_mut().zip(bytes.as_chunks::<4>().0) {
        line.as_chunks_mut().0[lane] = *word;
    }
}

/// Words moved so that their bit `from` becomes bit 4.
#[inline(always)]
fn moved_to_four<W: Words>(words: W, from: u32) -> W {
    if from < 4 { words.shift_left(4 - from) } else { words.shift_right(from - 4) }
}

/// The scales of a run of sixteen rows.
#[derive(Clone, Copy)]
pub struct Scales<L> {
    /// Of each half of the run; the first of both where a run has one.
    pub scales: [L; 2],
    /// What is added to every weight, in formats with a minimum.
    pub minimum: L,
}

/// A quantised format: how its scales are stored. Weight `k` of a row is `scale * (quant[k] - OFFSET) (+ minimum)`.
pub trait Blocks: Send + Sync + 'static {
    /// Its name.
    const FORMAT: WeightFormat;

    /// How its quants are stored.
    type Quants: Quants;

    /// What quants are more than what they stand for.
    const OFFSET: i32;

    /// Halves of a block: `d`, and in some formats `m`.
    const HALVES: usize;

    /// Where the finer scales lie in a file's block: whole words.
    const FINE: Range<usize> = 0..0;

    /// Whether each half of a run has its own scale.
    const HAS_TWO_SCALES: bool = false;

    /// Whether there is a minimum.
    const HAS_MINIMUM: bool = false;

    /// The scales of run `run` of a block.
    fn scales<S: Simd>(
        simd: S,
        halves: &[[f16; LANES]],
        fine: &[Line],
        run: usize,
    ) -> Scales<S::Lanes>;
}

/// `d` alone.
macro_rules! simple_format {
    ($format:ident, $quants:ident, $offset:literal) => {
        pub struct $format;

        impl Blocks for $format {
            const FORMAT: WeightFormat = WeightFormat::$format;
            type Quants = $quants;
            const OFFSET: i32 = $offset;
            const HALVES: usize = 1;

            #[inline(always)]
            fn scales<S: Simd>(
                simd: S,
                halves: &[[f16; LANES]],
                _fine: &[Line],
                _run: usize,
            ) -> Scales<S::Lanes> {
                Scales { scales: [simd.load_f16(&halves[0]); 2], minimum: simd.splat(0.0) }
            }
        }
    };
}
simple_format!(Q8_0, Bytes, 128);
simple_format!(Q4_0, Nibbles, 8);
simple_format!(Q5_0, FiveBits, 16);

/// `d` and `m`.
macro_rules! format_with_minimum {
    ($format:ident, $quants:ident) => {
        pub struct $format;

        impl Blocks for $format {
            const FORMAT: WeightFormat = WeightFormat::$format;
            type Quants = $quants;
            const OFFSET: i32 = 0;
            const HALVES: usize = 2;
            const HAS_MINIMUM: bool = true;

            #[inline(always)]
            fn scales<S: Simd>(
                simd: S,
                halves: &[[f16; LANES]],
                _fine: &[Line],
                _run: usize,
            ) -> Scales<S::Lanes> {
                let minimum = simd.load_f16(&halves[1]);
                Scales { scales: [simd.load_f16(&halves[0]); 2], minimum }
            }
        }
    };
}
format_with_minimum!(Q4_1, Nibbles);
format_with_minimum!(Q5_1, FiveBits);

/// `d` and `m`, and for each run a scale and a minimum of six bits.
macro_rules! format_with_six_bits {
    ($format:ident, $quants:ident) => {
        pub struct $format;

        impl Blocks for $format {
            const FORMAT: WeightFormat = WeightFormat::$format;
            type Quants = $quants;
            const OFFSET: i32 = 0;
            const HALVES: usize = 2;
            const FINE: Range<usize> = 4..16;
            const HAS_MINIMUM: bool = true;

            #[inline(always)]
            fn scales<S: Simd>(
                simd: S,
                halves: &[[f16; LANES]],
                fine: &[Line],
                run: usize,
            ) -> Scales<S::Lanes> {
                let mut words = [simd.splat_words(0); 3];
                for i in 0..3 {
                    words[i] = simd.load_words(&fine[i]);
                }
                // Those of the first four runs are whole; the others have their four lower bits in the third word, and the two upper
                // ones above those of the first four.
                let at = 8 * (run as u32 % 4);
                let (six, four) = (simd.splat_words(0x3F), simd.splat_words(0x0F));
                let (scale, minimum) = if run < 4 {
                    (words[0].shift_right(at).and(six), words[1].shift_right(at).and(six))
                } else {
                    let upper = simd.splat_words(0x30);
                    (
                        words[2]
                            .shift_right(at)
                            .and(four)
                            .or(words[0].shift_right(at + 2).and(upper)),
                        words[2]
                            .shift_right(at + 4)
                            .and(four)
                            .or(words[1].shift_right(at + 2).and(upper)),
                    )
                };
                let scale = simd.load_f16(&halves[0]) * scale.to_lanes();
                let minimum = simd.load_f16(&halves[1]) * minimum.to_lanes();
                Scales { scales: [scale; 2], minimum: minimum * simd.splat(-1.0) }
            }
        }
    };
}
format_with_six_bits!(Q4K, Nibbles);
format_with_six_bits!(Q5K, FiveBits);

pub struct Q6K;

impl Blocks for Q6K {
    const FORMAT: WeightFormat = WeightFormat::Q6K;
    type Quants = SixBits;
    const OFFSET: i32 = 32;
    const HALVES: usize = 1;
    const FINE: Range<usize> = 192..208;
    const HAS_TWO_SCALES: bool = true;

    #[inline(always)]
    fn scales<S: Simd>(
        simd: S,
        halves: &[[f16; LANES]],
        fine: &[Line],
        run: usize,
    ) -> Scales<S::Lanes> {
        let word = simd.load_words(&fine[run / 2]);
        let d = simd.load_f16(&halves[0]);
        // Two scales of a run lie in one word: its lower bytes, or its upper ones.
        let first = if run.is_multiple_of(2) { word.shift_left(16) } else { word };
        let first_scale = first.shift_left(8).shift_right_signed(24).to_lanes();
        let second_scale = first.shift_right_signed(24).to_lanes();
        Scales { scales: [d * first_scale, d * second_scale], minimum: simd.splat(0.0) }
    }
}

/// A packed matrix of one format.
pub struct Quantised<B> {
    /// Blocks of a row.
    row_blocks: usize,
    halves: Aligned<f16>,
    lines: Aligned<u8>,
    format: PhantomData<B>,
}

/// A block of sixteen rows.
#[derive(Clone, Copy)]
pub struct Block<'a, B> {
    halves: &'a [[f16; LANES]],
    lines: &'a [Line],
    format: PhantomData<B>,
}

impl<B: Blocks> Quantised<B> {
    /// Runs of a block.
    pub const RUNS: usize = B::FORMAT.block() / RUN;
    const FINE_LINES: usize = (B::FINE.end - B::FINE.start) / 4;
    /// Lines of a block.
    const LINES: usize = Self::FINE_LINES + Self::RUNS * B::Quants::LINES;

    /// Packs rows of `inputs` weights from a file's blocks.
    pub fn pack(outputs: usize, inputs: usize, bytes: &[u8]) -> Self {
        let row_blocks = inputs / B::FORMAT.block();
        let panels = outputs.div_ceil(LANES);
        let halves_of_panel = row_blocks * B::HALVES * LANES;
        let lines_of_panel = row_blocks * Self::LINES;
        let mut halves = Aligned::<f16>::zeroed_in_arena(panels * halves_of_panel);
        let mut lines = Aligned::<u8>::zeroed_in_arena(panels * lines_of_panel * size_of::<Line>());
        let packed = Self {
            row_blocks,
            halves: Aligned::zeroed(0),
            lines: Aligned::zeroed(0),
            format: PhantomData,
        };
        if panels * row_blocks == 0 {
            return packed;
        }
        let row_bytes = B::FORMAT.bytes(inputs);
        halves
            .par_chunks_exact_mut(halves_of_panel)
            .zip(lines.as_chunks_mut().0.par_chunks_exact_mut(lines_of_panel))
            .zip(bytes.par_chunks(LANES * row_bytes))
            .for_each(|((halves, lines), rows)| {
                let halves = halves.chunks_exact_mut(B::HALVES * LANES);
                let blocks = halves.zip(lines.chunks_exact_mut(Self::LINES));
                let starts = (0..row_bytes).step_by(B::FORMAT.block_bytes());
                for (start, (halves, lines)) in starts.zip(blocks) {
                    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                        let block = &row[start..][..B::FORMAT.block_bytes()];
                        Self::put_block(block, lane, halves, lines);
                    }
                }
            });
        Self { halves, lines, ..packed }
    }

    /// Stores one row's block.
    #[inline(always)]
    fn put_block(block: &[u8], lane: usize, halves: &mut [f16], lines: &mut [Line]) {
        let (fine_lines, quant_lines) = lines.split_at_mut(Self::FINE_LINES);
        put_words(&block[B::FINE], lane, fine_lines);
        let values = if B::FORMAT.block() == RUN {
            let block = blocks::Block::unpack(B::FORMAT, block);
            Self::put_quants(&block.quants, lane, quant_lines);
            [Some(block.scale), block.minimum]
        } else {
            let block = SuperBlock::unpack(B::FORMAT, block);
            Self::put_quants(&block.quants, lane, quant_lines);
            [Some(block.scale), Some(block.minimum)]
        };
        for (half, value) in values.into_iter().flatten().take(B::HALVES).enumerate() {
            halves[half * LANES + lane] = value;
        }
    }

    /// Stores one row's quants of a block.
    #[inline(always)]
    fn put_quants(quants: &[i8], lane: usize, lines: &mut [Line]) {
        let runs = quants.as_chunks::<RUN>().0;
        for (lines, quants) in lines.chunks_exact_mut(B::Quants::LINES).zip(runs) {
            let mut unsigned = [0; RUN];
            for (unsigned, quant) in unsigned.iter_mut().zip(quants) {
                *unsigned = quant.cast_unsigned().wrapping_add(B::OFFSET as u8);
            }
            B::Quants::put(&unsigned, lane, lines);
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.halves[..]) + size_of_val(&self.lines[..])
    }

    /// Bytes of a panel.
    pub fn panel_bytes(&self) -> usize {
        self.row_blocks * LANES * B::FORMAT.block_bytes()
    }

    /// Runs of a row.
    pub fn row_runs(&self) -> usize {
        self.row_blocks * Self::RUNS
    }

    #[inline(always)]
    fn lines(&self) -> &[Line] {
        self.lines.as_chunks().0
    }

    /// The blocks of a panel from run `first_run` on, which begins one.
    #[inline(always)]
    pub fn blocks(&self, panel: usize, first_run: usize) -> impl Iterator<Item = Block<'_, B>> {
        let first = panel * self.row_blocks + first_run / Self::RUNS;
        let end = (panel + 1) * self.row_blocks;
        let (halves, _) = self.halves.as_chunks();
        let halves = halves[first * B::HALVES..end * B::HALVES].chunks_exact(B::HALVES);
        let lines = self.lines()[first * Self::LINES..end * Self::LINES].chunks_exact(Self::LINES);
        halves.zip(lines).map(|(halves, lines)| Block { halves, lines, format: PhantomData })
    }

    /// The lines of some whole blocks of a panel that have these runs; those of the last one where there is no such panel.
    pub fn lines_of(&self, panel: usize, runs: Range<usize>) -> &[Line] {
        let panels = self.lines().len() / (self.row_blocks * Self::LINES);
        let first = panel.min(panels - 1) * self.row_blocks + runs.start / Self::RUNS;
        let count = runs.end.div_ceil(Self::RUNS) - runs.start / Self::RUNS;
        &self.lines()[first * Self::LINES..][..count * Self::LINES]
    }

    /// How far ahead a row asks that takes panel after panel.
    pub fn ahead() -> Ahead {
        let knob =
            if B::Quants::BITS == Bytes::BITS { Knob::EightBitAhead } else { Knob::QuantisedAhead };
        let lines = knob.get() / size_of::<Line>();
        Ahead { lines, blocks: lines.div_ceil(Self::LINES) }
    }

    /// The quants and scales of a run of a panel.
    #[inline(always)]
    pub fn run<S: Simd>(
        &self,
        simd: S,
        panel: usize,
        run: usize,
    ) -> ([S::Words; GROUPS], Scales<S::Lanes>) {
        let mut blocks = self.blocks(panel, run);
        blocks.next().expect("a block of the panel").run(simd, run % Self::RUNS)
    }

    /// Widens a run of a panel exactly: `[RUN][16]`.
    #[inline(always)]
    pub fn widen<S: Simd>(&self, simd: S, panel: usize, run: usize, out: &mut [[f32; LANES]; RUN]) {
        let (groups, Scales { scales, minimum }) = self.run(simd, panel, run);
        let (byte, offset) = (simd.splat_words(255), simd.splat(B::OFFSET as f32));
        for g in 0..GROUPS {
            let scale = scales[g / (GROUPS / 2)];
            for i in 0..4 {
                let quant = groups[g].shift_right(8 * i as u32).and(byte).to_lanes() - offset;
                // The product is exact, so that the sum is rounded once in either way.
                let weight =
                    if B::HAS_MINIMUM { quant.mul_add(scale, minimum) } else { quant * scale };
                weight.store(&mut out[4 * g + i]);
            }
        }
    }

    /// Copies row `row` to `out`, widened exactly.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        let scalar = crate::simd::Scalar;
        let mut widened = [[0.0; LANES]; RUN];
        for (run, out) in out.chunks_exact_mut(RUN).enumerate() {
            self.widen(scalar, row / LANES, run, &mut widened);
            for (out, lanes) in out.iter_mut().zip(&widened) {
                *out = lanes[row % LANES];
            }
        }
    }
}

impl<B: Blocks> Block<'_, B> {
    /// Asks for what a row will read that takes panel after panel, so far after a run.
    #[inline(always)]
    pub fn prefetch_ahead<S: Simd>(&self, simd: S, run: usize, ahead: Ahead) {
        if run == 0 {
            simd.prefetch(self.halves, ahead.blocks * B::HALVES * size_of::<[f16; LANES]>());
        }
        let lines = Self::lines_of(run);
        for i in if run == 0 { 0 } else { lines.start }..lines.end {
            simd.prefetch(self.lines, (ahead.lines + i) * size_of::<Line>());
        }
    }

    /// The quants and scales of a run.
    #[inline(always)]
    pub fn run<S: Simd>(&self, simd: S, run: usize) -> ([S::Words; GROUPS], Scales<S::Lanes>) {
        let fine = &self.lines[..Quantised::<B>::FINE_LINES];
        let quants = &self.lines[Self::lines_of(run)];
        (B::Quants::groups(simd, quants), B::scales(simd, self.halves, fine, run))
    }

    /// Where the quants of a run lie.
    #[inline(always)]
    fn lines_of(run: usize) -> Range<usize> {
        let start = Quantised::<B>::FINE_LINES + run * B::Quants::LINES;
        start..start + B::Quants::LINES
    }
}
