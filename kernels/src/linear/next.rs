//! What a kernel reads next, asked for while it computes.

use std::ops::Range;

use super::tile::Columns;
use crate::aligned::CACHE_LINE;
use crate::simd::Simd;

/// A part of what `N` panels are read from next, in pieces of equal size: a little is asked for with each step of a tile. More at once, and the core would
/// wait for it before it gets what it needs now.
#[derive(Clone, Copy)]
pub struct Next<'a, T, const N: usize> {
    memory: [&'a [T]; N],
    /// Where the part begins in each piece, in bytes.
    start: usize,
    /// Bytes of each piece that belong to a step.
    step: usize,
}

impl<'a, T: Copy, const N: usize> Next<'a, T, N> {
    /// What belongs to `rows` when so many rows `of` a block share the work of asking for all of `memory`, in so many steps.
    #[inline(always)]
    pub fn part(memory: [&'a [T]; N], rows: Range<usize>, of: usize, steps: usize) -> Self {
        let bytes = size_of_val(memory[0]);
        let [start, end] = [rows.start * bytes / of, rows.end * bytes / of];
        Self { memory, start, step: (end - start).div_ceil(steps.max(1)) }
    }

    /// Asks for what belongs to a step, up to `LINES` lines of each piece.
    #[inline(always)]
    pub fn ask<S: Simd, const LINES: usize>(self, simd: S, step: usize) {
        for line in 0..LINES {
            self.ask_for(simd, step, line * CACHE_LINE);
        }
    }

    /// Asks for all that belongs to a step.
    #[inline(always)]
    pub fn ask_for_all<S: Simd>(self, simd: S, step: usize) {
        for bytes in (0..self.step).step_by(CACHE_LINE) {
            self.ask_for(simd, step, bytes);
        }
    }

    #[inline(always)]
    fn ask_for<S: Simd>(self, simd: S, step: usize, bytes: usize) {
        for n in 0..N {
            simd.prefetch(self.memory[n], self.start + step * self.step + bytes);
        }
    }
}

/// Columns, and what is asked for while they are read: up to `LINES` lines of each piece with each pair of lines.
#[derive(Clone, Copy)]
pub struct AndNext<'a, C, T, const N: usize, const LINES: usize> {
    pub columns: C,
    pub next: Next<'a, T, N>,
}

impl<C: Columns<N>, T: Copy, const N: usize, const LINES: usize> Columns<N>
    for AndNext<'_, C, T, N, LINES>
{
    #[inline(always)]
    fn pairs(self) -> usize {
        self.columns.pairs()
    }

    #[inline(always)]
    fn of_pair<S: Simd>(self, simd: S, pair: usize, which: usize) -> [S::Lanes; N] {
        if which == 0 {
            self.next.ask::<S, LINES>(simd, pair);
        }
        self.columns.of_pair(simd, pair, which)
    }

    #[inline(always)]
    fn line<S: Simd>(self, simd: S, k: usize) -> [S::Lanes; N] {
        self.columns.line(simd, k)
    }
}
