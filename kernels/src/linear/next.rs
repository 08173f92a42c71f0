//! What a kernel reads next, asked for while it computes.

use std::ops::Range;

use super::tile::Columns;
use crate::aligned::CACHE_LINE;
use crate::simd::Simd;

/// What `N` panels are read from next, in pieces of equal size, of which a part belongs to each row of a block. Bytes, whatever they mean: so
/// kernels are compiled once for all formats that differ in nothing else.
#[derive(Clone, Copy)]
pub struct Upcoming<'a, const N: usize> {
    memory: [&'a [u8]; N],
    /// Bytes of each piece that belong to a row.
    of_row: usize,
    /// And to a step of a row, in parts of a byte: a tile has no time to divide.
    of_step: usize,
}

/// Of a byte.
const PARTS: usize = 256;

impl<'a, const N: usize> Upcoming<'a, N> {
    /// Shares `memory` among so many rows, each of which has so many steps.
    #[inline(always)]
    pub fn new(memory: [&'a [u8]; N], rows: usize, steps: usize) -> Self {
        let of_row = memory[0].len().div_ceil(rows);
        Self { memory, of_row, of_step: (of_row * PARTS).div_ceil(steps.max(1)) }
    }

    /// What belongs to a tile of `rows` rows from `first` on and of the first `M` panels.
    #[inline(always)]
    pub fn of_tile<const M: usize>(self, first: usize, rows: usize) -> Next<'a, M> {
        let memory = *self.memory.first_chunk().expect("the tile's panels");
        let step = (rows * self.of_step).div_ceil(PARTS);
        Next { memory, start: first * self.of_row, step }
    }
}

/// What belongs to a tile: a little is asked for with each step. More at once, and the core would wait for it before it gets what it needs now.
#[derive(Clone, Copy)]
pub struct Next<'a, const N: usize> {
    memory: [&'a [u8]; N],
    /// Where it begins in each piece, in bytes.
    start: usize,
    /// Bytes of each piece that belong to a step.
    step: usize,
}

impl<const N: usize> Next<'_, N> {
    /// Asks for what belongs to a step, up to `LINES` lines of each piece.
    #[inline(always)]
    pub fn ask<S: Simd, const LINES: usize>(self, simd: S, step: usize) {
        for line in 0..LINES {
            self.ask_for(simd, self.start + step * self.step + line * CACHE_LINE);
        }
    }

    /// Asks for all lines that begin in what belongs to a step: for none twice.
    #[inline(always)]
    pub fn ask_for_all<S: Simd>(self, simd: S, step: usize) {
        let start = self.start + step * self.step;
        for line in start.div_ceil(CACHE_LINE)..(start + self.step).div_ceil(CACHE_LINE) {
            self.ask_for(simd, line * CACHE_LINE);
        }
    }

    #[inline(always)]
    fn ask_for<S: Simd>(self, simd: S, bytes: usize) {
        for n in 0..N {
            simd.prefetch(self.memory[n], bytes);
        }
    }
}

/// Columns, and what is asked for while they are read: up to `LINES` lines of each piece with each pair of lines.
#[derive(Clone, Copy)]
pub struct AndNext<'a, C, const N: usize, const LINES: usize> {
    pub columns: C,
    pub next: Next<'a, N>,
}

impl<C: Columns<N>, const N: usize, const LINES: usize> Columns<N> for AndNext<'_, C, N, LINES> {
    type Line = C::Line;

    // Where a line a pair is enough, there are, by default, so many rows that a line a turn is, too.
    const TURN: usize = if LINES == 1 { C::TURN } else { 1 };

    #[inline(always)]
    fn ask<S: Simd>(self, simd: S, pair: usize) {
        self.next.ask::<S, LINES>(simd, pair);
    }

    #[inline(always)]
    fn pairs(self) -> usize {
        self.columns.pairs()
    }

    #[inline(always)]
    fn of_pairs(self, pairs: Range<usize>) -> Self {
        Self { columns: self.columns.of_pairs(pairs), ..self }
    }

    #[inline(always)]
    fn of_pair(self, pair: usize, which: usize, n: usize) -> C::Line {
        self.columns.of_pair(pair, which, n)
    }

    #[inline(always)]
    fn line(self, k: usize, n: usize) -> C::Line {
        self.columns.line(k, n)
    }
}
