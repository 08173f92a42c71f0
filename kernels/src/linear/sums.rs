//! Sums of a block's rows between two cuts of the inputs: they stay close together, where the rows of an output are far apart.

use super::multiply::BLOCK_ROWS;
use crate::simd::{LANES, Lanes, Simd};

/// Panels that have sums, at most.
pub const PANELS: usize = 2;

/// The sums of a row.
type RowSums = [[f32; LANES]; PANELS];

/// Those of all rows of a block.
pub type Sums = [RowSums; BLOCK_ROWS];

/// What there is before the first cut.
pub const CLEARED: Sums = [[[0.0; LANES]; PANELS]; BLOCK_ROWS];

/// Where the sums of a tile come from.
#[derive(Clone, Copy)]
pub enum Begin {
    AtZero,
    FromOut,
    FromSums,
}

/// Reads those of a tile.
#[inline(always)]
pub fn load_sums<S: Simd, const R: usize, const N: usize>(
    simd: S,
    kept: &[RowSums; R],
) -> [[S::Lanes; N]; R] {
    let mut sums = [[simd.splat(0.0); N]; R];
    for r in 0..R {
        for n in 0..N {
            sums[r][n] = simd.load(&kept[r][n]);
        }
    }
    sums
}

/// Keeps those of a tile.
#[inline(always)]
pub fn store_sums<L: Lanes, const R: usize, const N: usize>(
    sums: [[L; N]; R],
    kept: &mut [RowSums; R],
) {
    for r in 0..R {
        for n in 0..N {
            sums[r][n].store(&mut kept[r][n]);
        }
    }
}
