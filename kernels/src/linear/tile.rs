//! The tile: `R` rows times `N` panels of sixteen outputs, all in registers. Linear layers, attention scores and attention
//! outputs are made of it.

use std::ops::Range;

use half::f16;

use super::elements::{PAIR, Panel, Weight};
use crate::simd::slices::{inlined, straight};
use crate::simd::{Element, LANES, Lanes, Simd};

/// The left side of a tile: `R` rows, of which element `k` is multiplied by line `k` of each panel.
pub trait Rows<const R: usize>: Copy {
    /// How many whole pairs of elements there are at most.
    fn pairs(self) -> usize;

    /// Element `PAIR * pair + which` of row `r`, in a whole pair.
    fn of_pair(self, pair: usize, which: usize, r: usize) -> f32;

    /// Element `k` of row `r`.
    fn element(self, k: usize, r: usize) -> f32;
}

/// Rows packed side by side, `[depth][R]`.
#[derive(Clone, Copy)]
pub struct SideBySide<'a, const R: usize>(pub &'a [[f32; R]]);

impl<const R: usize> Rows<R> for SideBySide<'_, R> {
    #[inline(always)]
    fn pairs(self) -> usize {
        self.0.as_chunks::<PAIR>().0.len()
    }

    #[inline(always)]
    fn of_pair(self, pair: usize, which: usize, r: usize) -> f32 {
        self.0.as_chunks::<PAIR>().0[pair][which][r]
    }

    #[inline(always)]
    fn element(self, k: usize, r: usize) -> f32 {
        self.0[k][r]
    }
}

/// Rows one after another, `[R][L]`, of which the first elements count.
#[derive(Clone, Copy)]
pub struct OneByOne<'a, const R: usize, const L: usize>(pub &'a [[f32; L]; R]);

impl<const R: usize, const L: usize> Rows<R> for OneByOne<'_, R, L> {
    #[inline(always)]
    fn pairs(self) -> usize {
        L / PAIR
    }

    #[inline(always)]
    fn of_pair(self, pair: usize, which: usize, r: usize) -> f32 {
        self.0[r].as_chunks::<PAIR>().0[pair][which]
    }

    #[inline(always)]
    fn element(self, k: usize, r: usize) -> f32 {
        self.0[r][k]
    }
}

/// Rows wherever they are, of which the first elements count.
impl<const R: usize> Rows<R> for [&[f32]; R] {
    #[inline(always)]
    fn pairs(self) -> usize {
        let mut elements = self[0].len();
        for r in 1..R {
            elements = if self[r].len() < elements { self[r].len() } else { elements };
        }
        elements / PAIR
    }

    #[inline(always)]
    fn of_pair(self, pair: usize, which: usize, r: usize) -> f32 {
        self[r].as_chunks::<PAIR>().0[pair][which]
    }

    #[inline(always)]
    fn element(self, k: usize, r: usize) -> f32 {
        self[r][k]
    }
}

/// Sixteen numbers as stored.
pub trait Line: Copy {
    /// Reads them, widened exactly.
    fn load<S: Simd>(self, simd: S) -> S::Lanes;

    /// `factors[r] * line + sums[r]` for each `r`, rounded once.
    #[inline(always)]
    fn add_multiples<S: Simd, const R: usize>(
        self,
        simd: S,
        factors: [S::Lanes; R],
        mut sums: [S::Lanes; R],
    ) -> [S::Lanes; R] {
        let line = self.load(simd);
        for r in 0..R {
            sums[r] = factors[r].mul_add(line, sums[r]);
        }
        sums
    }
}

/// The right side of a tile: lines of `N` panels.
pub trait Columns<const N: usize>: Copy {
    /// A line of a panel.
    type Line: Line;

    /// Pairs of lines that a turn of a loop may take.
    const TURN: usize = 1;

    /// How many whole pairs of lines there are at most.
    fn pairs(self) -> usize;

    /// Some whole pairs of lines.
    ///
    /// # Panics
    ///
    /// If they are not there.
    fn of_pairs(self, pairs: Range<usize>) -> Self;

    /// Asks for what is next, when a turn begins.
    #[inline(always)]
    fn ask<S: Simd>(self, _simd: S, _pair: usize) {}

    /// Line `PAIR * pair + which` of panel `n`, in a whole pair.
    fn of_pair(self, pair: usize, which: usize, n: usize) -> Self::Line;

    /// Line `k` of panel `n`.
    fn line(self, k: usize, n: usize) -> Self::Line;
}

impl<'a, E: Weight, const N: usize> Columns<N> for [Panel<'a, E>; N] {
    type Line = E::Line<'a>;

    // To widen, registers are needed that are not there for several pairs.
    const TURN: usize = if E::STRIP == 1 { 4 } else { 1 };

    #[inline(always)]
    fn pairs(self) -> usize {
        let mut pairs = self[0].pairs();
        for n in 1..N {
            pairs = if self[n].pairs() < pairs { self[n].pairs() } else { pairs };
        }
        pairs
    }

    #[inline(always)]
    fn of_pairs(mut self, pairs: Range<usize>) -> Self {
        for n in 0..N {
            self[n] = self[n].of_pairs(pairs.clone());
        }
        self
    }

    #[inline(always)]
    fn of_pair(self, pair: usize, which: usize, n: usize) -> E::Line<'a> {
        E::line(self[n].pair(pair), which)
    }

    #[inline(always)]
    fn line(self, k: usize, n: usize) -> E::Line<'a> {
        self.of_pair(k / PAIR, k % PAIR, n)
    }
}

impl Line for &[f32; LANES] {
    #[inline(always)]
    fn load<S: Simd>(self, simd: S) -> S::Lanes {
        simd.load(self)
    }

    #[inline(always)]
    fn add_multiples<S: Simd, const R: usize>(
        self,
        simd: S,
        factors: [S::Lanes; R],
        sums: [S::Lanes; R],
    ) -> [S::Lanes; R] {
        simd.add_multiples(self, factors, sums)
    }
}

impl Line for &[f16; LANES] {
    #[inline(always)]
    fn load<S: Simd>(self, simd: S) -> S::Lanes {
        simd.load_f16(self)
    }
}

/// A number that is stored in lines of sixteen.
pub trait InLines: Element {
    /// Such a line.
    type Line<'a>: Line;

    /// The line.
    fn line(line: &[Self; LANES]) -> Self::Line<'_>;
}

impl InLines for f32 {
    type Line<'a> = &'a [f32; LANES];

    #[inline(always)]
    fn line(line: &[f32; LANES]) -> &[f32; LANES] {
        line
    }
}

impl InLines for f16 {
    type Line<'a> = &'a [f16; LANES];

    #[inline(always)]
    fn line(line: &[f16; LANES]) -> &[f16; LANES] {
        line
    }
}

/// Panels whose lines follow each other.
#[derive(Clone, Copy)]
pub struct Lines<'a, E, const N: usize>(pub [&'a [[E; LANES]]; N]);

impl<'a, E: InLines, const N: usize> Columns<N> for Lines<'a, E, N> {
    type Line = E::Line<'a>;

    #[inline(always)]
    fn pairs(self) -> usize {
        let mut lines = self.0[0].len();
        for n in 1..N {
            lines = if self.0[n].len() < lines { self.0[n].len() } else { lines };
        }
        lines / PAIR
    }

    #[inline(always)]
    fn of_pairs(mut self, pairs: Range<usize>) -> Self {
        for n in 0..N {
            self.0[n] = &self.0[n][PAIR * pairs.start..PAIR * pairs.end];
        }
        self
    }

    #[inline(always)]
    fn of_pair(self, pair: usize, which: usize, n: usize) -> E::Line<'a> {
        E::line(&self.0[n].as_chunks::<PAIR>().0[pair][which])
    }

    #[inline(always)]
    fn line(self, k: usize, n: usize) -> E::Line<'a> {
        E::line(&self.0[n][k])
    }
}

/// Evaluates `$body` for each element `[$r][$n]` of a tile of `R` rows and `N` panels, in straight code.
macro_rules! each_of_tile {
    ([$r:ident; $R:ident], [$n:ident; $N:ident] => $body:expr) => {
        straight!($r in 0, $R, of 12 => straight!($n in 0, $N, of 4 => $body))
    };
}
pub(super) use each_of_tile;

/// Reads the tile whose first column is `column` from rows; where they end before it does, the missing columns hold 0.
#[inline(always)]
pub fn read_tile<S: Simd, const R: usize, const N: usize>(
    simd: S,
    rows: &[&mut [f32]; R],
    column: usize,
) -> [[S::Lanes; N]; R] {
    let mut tile = [[simd.splat(0.0); N]; R];
    if is_whole::<R, N>(rows, column) {
        each_of_tile!([r; R], [n; N] => tile[r][n] = simd.load(&lines::<N>(rows[r], column)[n]));
    } else {
        let mut copy = [[[0.0; LANES]; N]; R];
        copy_from_rows(rows, column, N * LANES, copy.as_flattened_mut().as_flattened_mut());
        each_of_tile!([r; R], [n; N] => tile[r][n] = simd.load(&copy[r][n]));
    }
    tile
}

/// Adds `tile` to what [`read_tile`] reads, of which it never holds all: that would take as many registers again.
#[inline(always)]
pub fn add_tile<S: Simd, const R: usize, const N: usize>(
    simd: S,
    rows: &[&mut [f32]; R],
    column: usize,
    mut tile: [[S::Lanes; N]; R],
) -> [[S::Lanes; N]; R] {
    if is_whole::<R, N>(rows, column) {
        each_of_tile!([r; R], [n; N] => {
            tile[r][n] = simd.load(&lines::<N>(rows[r], column)[n]) + tile[r][n];
        });
    } else {
        let before: [[S::Lanes; N]; R] = read_tile(simd, rows, column);
        each_of_tile!([r; R], [n; N] => tile[r][n] = before[r][n] + tile[r][n]);
    }
    tile
}

/// Writes `tile` to rows from `column` on, as far as they go.
#[inline(always)]
pub fn write_tile<L: Lanes, const R: usize, const N: usize>(
    tile: &[[L; N]; R],
    rows: &mut [&mut [f32]; R],
    column: usize,
) {
    if is_whole::<R, N>(rows, column) {
        each_of_tile!([r; R], [n; N] => {
            let lines = rows[r][column..].as_chunks_mut().0;
            tile[r][n].store(&mut lines.first_chunk_mut::<N>().expect("a whole tile")[n]);
        });
    } else {
        let mut copy = [[[0.0; LANES]; N]; R];
        each_of_tile!([r; R], [n; N] => tile[r][n].store(&mut copy[r][n]));
        copy_to_rows(copy.as_flattened().as_flattened(), N * LANES, rows, column);
    }
}

/// Copies `width` columns of rows to `tile`, or as many as there are. Not inlined, so that there is not one for each size of a tile.
#[inline(never)]
fn copy_from_rows(rows: &[&mut [f32]], column: usize, width: usize, tile: &mut [f32]) {
    for (row, tile) in rows.iter().zip(tile.chunks_exact_mut(width)) {
        let count = width.min(row.len() - column);
        tile[..count].copy_from_slice(&row[column..][..count]);
    }
}

/// The other way round.
#[inline(never)]
fn copy_to_rows(tile: &[f32], width: usize, rows: &mut [&mut [f32]], column: usize) {
    for (tile, row) in tile.chunks_exact(width).zip(rows) {
        let count = width.min(row.len() - column);
        row[column..][..count].copy_from_slice(&tile[..count]);
    }
}

#[inline(always)]
fn lines<const N: usize>(row: &[f32], column: usize) -> &[[f32; LANES]; N] {
    row[column..].as_chunks().0.first_chunk().expect("a whole tile")
}

/// Whether rows, all of one length, go on for all columns of a tile: then it takes straight lines of code, in which its sums stay in registers.
#[inline(always)]
fn is_whole<const R: usize, const N: usize>(rows: &[&mut [f32]; R], column: usize) -> bool {
    rows[0].len() >= column + N * LANES
}

/// Continues the chains `sums` over some elements, of which the first has an even number: `sums[r][n] = fma(rows[k][r], columns[n][k],
/// sums[r][n])` for each `k` in order.
#[inline(always)]
pub fn chain<S: Simd, C: Columns<N>, const R: usize, const N: usize>(
    simd: S,
    elements: Range<usize>,
    rows: impl Rows<R>,
    columns: C,
    mut sums: [[S::Lanes; N]; R],
) -> [[S::Lanes; N]; R] {
    let pairs = elements.start / PAIR..elements.end / PAIR;
    assert!(rows.pairs() >= pairs.end && columns.pairs() >= pairs.end);
    // The compiler knows this limit of rows, and leaves out a check of each pair.
    let end = pairs.end.min(rows.pairs());
    let mut pair = pairs.start;
    if const { is_worth_turns::<S, C, R, N>() } {
        while pair + C::TURN <= end {
            columns.ask(simd, pair);
            // One check of their length for all pairs.
            let lines = columns.of_pairs(pair..pair + C::TURN);
            straight!(i in 0, C::TURN, of 4 => add_pair(simd, rows, pair + i, lines, i, &mut sums));
            pair += C::TURN;
        }
    }
    for pair in pair..end {
        columns.ask(simd, pair);
        add_pair(simd, rows, pair, columns, pair, &mut sums);
    }
    if !elements.end.is_multiple_of(PAIR) {
        let k = elements.end - 1;
        add_products(
            simd,
            inlined!(|r| rows.element(k, r)),
            inlined!(|n| columns.line(k, n)),
            &mut sums,
        );
    }
    sums
}

/// Whether a tile takes several pairs a turn. What is beside the multiply-adds, to count and to ask, is a fifth of a pair's instructions where
/// the largest tile is one of few registers; a core that another thread uses, too, has no time for it.
#[inline(always)]
const fn is_worth_turns<S: Simd, C: Columns<N>, const R: usize, const N: usize>() -> bool {
    fills_registers::<S, R, N>() && C::TURN > 1
}

/// Whether a tile is the largest of few registers: with its factors it fills them.
#[inline(always)]
const fn fills_registers<S: Simd, const R: usize, const N: usize>() -> bool {
    !S::REGISTERS.are_many() && R * N >= 6
}

/// Two links of every chain.
#[inline(always)]
fn add_pair<S: Simd, const R: usize, const N: usize>(
    simd: S,
    rows: impl Rows<R>,
    pair_of_rows: usize,
    columns: impl Columns<N>,
    pair_of_columns: usize,
    sums: &mut [[S::Lanes; N]; R],
) {
    for which in 0..PAIR {
        add_products(
            simd,
            inlined!(|r| rows.of_pair(pair_of_rows, which, r)),
            inlined!(|n| columns.of_pair(pair_of_columns, which, n)),
            sums,
        );
    }
}

/// One link of every chain: the elements of the rows times a line of each panel.
#[inline(always)]
fn add_products<S: Simd, L: Line, const R: usize, const N: usize>(
    simd: S,
    element: impl Fn(usize) -> f32,
    line: impl Fn(usize) -> L,
    sums: &mut [[S::Lanes; N]; R],
) {
    if const { holds_elements::<S, R, N>() } {
        let mut elements = [simd.splat(0.0); R];
        for r in 0..R {
            elements[r] = simd.splat(element(r));
        }
        for n in 0..N {
            let mut of_panel = elements;
            for r in 0..R {
                of_panel[r] = sums[r][n];
            }
            let of_panel = line(n).add_multiples(simd, elements, of_panel);
            for r in 0..R {
                sums[r][n] = of_panel[r];
            }
        }
        return;
    }
    let mut lines = [simd.splat(0.0); N];
    for n in 0..N {
        lines[n] = line(n).load(simd);
    }
    for r in 0..R {
        let x = simd.splat(element(r));
        for n in 0..N {
            sums[r][n] = if const { fills_registers::<S, R, N>() } {
                x.mul_add_in_order(lines[n], sums[r][n])
            } else {
                x.mul_add(lines[n], sums[r][n])
            };
        }
    }
}

/// Whether a tile holds elements in registers while lines pass by, and not lines while elements do: then they take fewer.
#[inline(always)]
const fn holds_elements<S: Simd, const R: usize, const N: usize>() -> bool {
    S::TAKES_TWO_PANELS && N == 2 && R == 3
}
