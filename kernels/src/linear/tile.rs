//! The tile: `R` rows times `N` panels of sixteen outputs, all in registers. Linear layers, attention scores and attention
//! outputs are made of it.

use crate::simd::{Element, LANES, Lanes, Simd};

/// The left side of a tile: `R` rows, of which element `k` is multiplied by row `k` of each panel.
pub trait Rows<const R: usize>: Copy {
    /// How many elements there are at most.
    fn most(self) -> usize;

    /// Element `k` of row `r`.
    fn element(self, k: usize, r: usize) -> f32;
}

/// Rows packed side by side, `[depth][R]`.
#[derive(Clone, Copy)]
pub struct SideBySide<'a, const R: usize>(pub &'a [[f32; R]]);

impl<const R: usize> Rows<R> for SideBySide<'_, R> {
    #[inline(always)]
    fn most(self) -> usize {
        self.0.len()
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
    fn most(self) -> usize {
        L
    }

    #[inline(always)]
    fn element(self, k: usize, r: usize) -> f32 {
        self.0[r][k]
    }
}

/// Continues the chains in `sums` over `depth` elements: `sums[r][n] = fma(rows[k][r], panels[n][k], sums[r][n])` for each `k` in order.
#[inline(always)]
pub fn chain<S: Simd, E: Element, const R: usize, const N: usize>(
    simd: S,
    depth: usize,
    rows: impl Rows<R>,
    panels: [&[[E; LANES]]; N],
    sums: &mut [[S::Lanes; N]; R],
) {
    assert!(rows.most() >= depth);
    for panel in panels {
        assert!(panel.len() >= depth);
    }
    let mut local = *sums;
    for k in 0..depth {
        let mut weights = [simd.splat(0.0); N];
        for n in 0..N {
            weights[n] = E::load(simd, &panels[n][k]);
        }
        for r in 0..R {
            let x = simd.splat(rows.element(k, r));
            for n in 0..N {
                local[r][n] = x.mul_add(weights[n], local[r][n]);
            }
        }
    }
    *sums = local;
}
