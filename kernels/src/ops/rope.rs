use crate::aligned::Aligned;
use crate::fault;
use crate::simd::slices::{read, write};
use crate::simd::{Isa, LANES, Lanes, Simd, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// The sines and cosines of a run of positions.
///
/// `angle[p][i] = p * (1 / theta^(2i / head_dim))`, every step in `f32` as in `Lfm2RotaryEmbedding` of Hugging Face
/// transformers: more exact angles would differ from the published model at long positions. The power and the functions come
/// from the `libm` crate, since a platform's own would differ between platforms.
///
/// Each entry is the nearest `f32` but for 2^-26 units in the last place. Its angle is off by three roundings, a relative error of
/// 3 * 2^-24, and more where `2i / head_dim` is no `f32`: at position 131072 that can be 0.02 radians.
pub struct RopeTable {
    inverse_frequencies: Vec<f32>,
    cosines: Aligned<f32>,
    sines: Aligned<f32>,
    /// Of each row that is filled.
    positions: Vec<Option<usize>>,
}

impl RopeTable {
    /// Makes room for `capacity` positions of heads of `head_dim`, with base `theta`.
    ///
    /// # Panics
    ///
    /// If `head_dim` is odd.
    pub fn new(theta: f64, head_dim: usize, capacity: usize) -> Self {
        assert!(head_dim.is_multiple_of(2), "rope: head_dim {head_dim} is odd");
        let half = head_dim / 2;
        let inverse_frequency = |i: usize| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / libm::pow(theta, f64::from(exponent)) as f32
        };
        Self {
            inverse_frequencies: (0..half).map(inverse_frequency).collect(),
            cosines: Aligned::zeroed(capacity * half),
            sines: Aligned::zeroed(capacity * half),
            positions: vec![None; capacity],
        }
    }

    /// Fills row `t` for position `positions[t]`, unless it is: layers of one pass share a table.
    ///
    /// # Panics
    ///
    /// If there are more positions than the capacity.
    pub fn fill(&mut self, positions: impl Iterator<Item = usize>) {
        let half = self.inverse_frequencies.len();
        for (row, position) in positions.enumerate() {
            let held = self.positions[row].replace(position);
            if fault!(StaleAngles: held.is_some(), else held == Some(position)) {
                continue;
            }
            let cosines = &mut self.cosines[row * half..][..half];
            let sines = &mut self.sines[row * half..][..half];
            for i in 0..half {
                let angle = f64::from(position as f32 * self.inverse_frequencies[i]);
                cosines[i] = libm::cos(angle) as f32;
                sines[i] = libm::sin(angle) as f32;
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let numbers = [&self.cosines[..], &self.sines, &self.inverse_frequencies];
        numbers.map(size_of_val).iter().sum::<usize>() + size_of_val(&self.positions[..])
    }

    /// The cosines of row `t`, `[head_dim / 2]`.
    pub fn cosines(&self, row: usize) -> &[f32] {
        let half = self.inverse_frequencies.len();
        &self.cosines[row * half..][..half]
    }

    /// The sines of row `t`, `[head_dim / 2]`.
    pub fn sines(&self, row: usize) -> &[f32] {
        let half = self.inverse_frequencies.len();
        &self.sines[row * half..][..half]
    }
}

/// Rotates every head of every row of `x` by the angles of that row in `table`.
///
/// `x` is `[rows, heads, head_dim]`; element `i` is paired with `i + head_dim / 2` (half-split, NeoX):
/// `out[i] = a cos - b sin`, `out[i + head_dim / 2] = b cos + a sin`.
/// Source: `apply_rotary_pos_emb` of Hugging Face transformers.
///
/// # Panics
///
/// If `x` is not whole rows of `heads` heads, or `table` has fewer rows.
pub fn rope(isa: Isa, x: &mut [f32], heads: usize, table: &RopeTable) {
    if x.is_empty() {
        return;
    }
    let row = heads * 2 * table.inverse_frequencies.len();
    assert!(
        row > 0 && x.len().is_multiple_of(row),
        "rope: {} elements are not rows of {row}",
        x.len()
    );
    split_rows(x, row, rows_worth_sharing(row), &|first, x| {
        dispatch!(isa, simd => kernel(simd, x, row, first, table));
    });
}

#[inline(always)]
fn kernel<S: Simd>(simd: S, x: &mut [f32], row: usize, first: usize, table: &RopeTable) {
    let half = table.inverse_frequencies.len();
    for (t, x) in x.chunks_exact_mut(row).enumerate() {
        let (cosines, sines) = (table.cosines(first + t), table.sines(first + t));
        for head in x.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for at in (0..half).step_by(LANES) {
                let (a, b) = (read(simd, &low[at..]), read(simd, &high[at..]));
                let (cosine, sine) = (read(simd, &cosines[at..]), read(simd, &sines[at..]));
                write(a.mul_add(cosine, simd.splat(0.0) - b * sine), &mut low[at..]);
                write(b.mul_add(cosine, a * sine), &mut high[at..]);
            }
        }
    }
}
