//! Sums of a tile between two cuts of the inputs.
//!
//! Rows of an output are far apart. So sums of a block's rows are kept close together until the last cut.

use super::tile::{add_tile, each_of_tile, read_tile, write_tile};
use crate::buffers::Buffers;
use crate::simd::slices::straight;
use crate::simd::{LANES, Lanes, Simd};

/// The kept sums of a row: of `N` panels, those of the widest tile.
pub type RowSums<const N: usize> = [[f32; LANES]; N];

/// Those of tasks.
pub static KEPT: Buffers<[f32; LANES]> = Buffers::new();

/// Calls `work` with room for those of so many rows, in which anything may be.
pub fn keep<const N: usize>(rows: usize, work: impl FnOnce(&mut [RowSums<N>])) {
    KEPT.with(rows * N, [0.0; LANES], |kept| work(kept.as_chunks_mut().0));
}

/// Where the sums of a tile come from.
#[derive(Clone, Copy)]
enum Begin {
    Zero,
    Out,
    Kept,
}

/// Where the sums of some panels come from and go to.
#[derive(Clone, Copy)]
pub struct Route {
    begin: Begin,
    /// Whether they go to the output.
    ends: bool,
    /// Where the panels begin in the rows of the output.
    column: usize,
}

impl Route {
    /// Of the cut `cut`, when sums are kept from cut `first` on and `ends` tells whether this is the last for which they are.
    pub fn new(cut: usize, first: usize, ends: bool, column: usize) -> Self {
        let begin = match cut {
            0 => Begin::Zero,
            cut if cut == first => Begin::Out,
            _ => Begin::Kept,
        };
        Self { begin, ends, column }
    }

    /// The same from `columns` further on.
    pub fn from(self, columns: usize) -> Self {
        Self { column: self.column + columns, ..self }
    }

    /// Asks for what rows of the output hold before this cut, if the sums of `N` panels begin there: it was written long ago. Of a panel, for the
    /// line with its last column: where rows are not aligned, the panel before asked for the first.
    #[inline(always)]
    pub fn ask<S: Simd, const N: usize>(self, simd: S, out: &[&mut [f32]]) {
        if matches!(self.begin, Begin::Out) {
            for row in out {
                for n in 1..=N {
                    simd.prefetch(row, (self.column + n * LANES - 1) * size_of::<f32>());
                }
            }
        }
    }

    /// What there is before this cut, for chains that go on from it.
    #[inline(always)]
    pub fn before<S: Simd, const R: usize, const N: usize, const K: usize>(
        self,
        simd: S,
        kept: &[RowSums<K>; R],
        out: &[&mut [f32]; R],
    ) -> [[S::Lanes; N]; R] {
        let mut sums = [[simd.splat(0.0); N]; R];
        match self.begin {
            Begin::Zero => (),
            Begin::Out => sums = read_tile(simd, out, self.column),
            Begin::Kept => {
                each_of_tile!([r; R], [n; N] => sums[r][n] = simd.load(&kept[r][n]));
            }
        }
        sums
    }

    /// Adds `sums` of this cut to those before: `before + sums`, or `sums` if there are none.
    #[inline(always)]
    pub fn add<S: Simd, const R: usize, const N: usize, const K: usize>(
        self,
        simd: S,
        kept: &[RowSums<K>; R],
        out: &[&mut [f32]; R],
        mut sums: [[S::Lanes; N]; R],
    ) -> [[S::Lanes; N]; R] {
        match self.begin {
            Begin::Zero => (),
            Begin::Out => sums = add_tile(simd, out, self.column, sums),
            Begin::Kept => {
                each_of_tile!([r; R], [n; N] => sums[r][n] = simd.load(&kept[r][n]) + sums[r][n]);
            }
        }
        sums
    }

    /// Puts sums where they go.
    #[inline(always)]
    pub fn put<L: Lanes, const R: usize, const N: usize, const K: usize>(
        self,
        sums: &[[L; N]; R],
        kept: &mut [RowSums<K>; R],
        out: &mut [&mut [f32]; R],
    ) {
        if self.ends {
            write_tile(sums, out, self.column);
            return;
        }
        each_of_tile!([r; R], [n; N] => sums[r][n].store(&mut kept[r][n]));
    }
}
