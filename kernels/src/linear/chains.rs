//! The chains of the contract: `fma(x[k], w[k], sum)` over the inputs in order, a lane for each output, cut at every 256.

use std::ops::Range;

use super::buffers::Buffers;
use super::multiply::{Kernel, READ_AHEAD};
use super::quantised::{Blocks, Quantised, RUN};
use super::tile::{OneByOne, SideBySide, chain};
use crate::simd::slices::{read, write};
use crate::simd::{Element, Isa, LANES, Registers, Simd, dispatch};

/// Where a chain is cut: part of the numeric contract.
const CUT: usize = 256;

/// Cuts that are copied at once: with [`BLOCK_ROWS`](super::multiply::BLOCK_ROWS) rows they fill half of a second-level cache of 1 MiB. The sums of a tile go to
/// memory between two cuts, and stay near while the cuts of one group follow each other.
const CUTS: usize = 4;

/// From one copied row to the next: not a power of two, so that rows do not compete for the same lines of the first-level cache.
const STRIDE: usize = CUT + LANES;

/// Panels that one row takes at once: a single chain would wait for each multiply-add.
const ROW_PANELS: usize = 4;

/// Copies of rows.
static PACKED: Buffers<[f32; STRIDE]> = Buffers::new();

/// Inputs of a row for which a line is asked for at a time.
const STEP: usize = 16;

/// Panels of a tile at most, where there are several rows.
const TILE_PANELS: usize = 3;

/// Sixteen weights of one input.
type Line<E> = [E; LANES];

/// Weights that chains read.
pub trait Panels: Sync {
    /// What chains read: weights as stored, or widened.
    type Element: Element;

    /// Whether a cut of a panel is made ready in a buffer, not read where it is.
    const IS_BUFFERED: bool;

    /// Bytes of a panel.
    fn panel_bytes(&self) -> usize;

    /// The weights of `inputs` of a panel, in `buffer` if they have to be widened.
    fn read<'a>(
        &'a self,
        isa: Isa,
        panel: usize,
        inputs: Range<usize>,
        buffer: &'a mut [Line<Self::Element>],
    ) -> &'a [Line<Self::Element>];

    /// What follows the weights of `inputs` in memory, if that is worth bringing near.
    fn ahead(&self, _panel: usize, _inputs: &Range<usize>) -> &[Line<Self::Element>] {
        &[]
    }
}

/// Weights that are stored one by one, `[panels][inputs][16]`.
pub struct Elements<'a, E> {
    pub inputs: usize,
    pub weights: &'a [E],
}

impl<E: Element> Elements<'_, E> {
    fn lines(&self) -> &[Line<E>] {
        self.weights.as_chunks().0
    }
}

impl<E: Element> Panels for Elements<'_, E> {
    type Element = E;

    const IS_BUFFERED: bool = false;

    fn panel_bytes(&self) -> usize {
        self.inputs * LANES * E::BYTES
    }

    fn read<'a>(
        &'a self,
        _isa: Isa,
        panel: usize,
        inputs: Range<usize>,
        _buffer: &'a mut [Line<E>],
    ) -> &'a [Line<E>] {
        &self.lines()[panel * self.inputs..][..self.inputs][inputs]
    }

    fn ahead(&self, panel: usize, inputs: &Range<usize>) -> &[Line<E>] {
        self.lines().get(panel * self.inputs + inputs.end..).unwrap_or_default()
    }
}

impl<B: Blocks> Panels for Quantised<B> {
    type Element = f32;

    const IS_BUFFERED: bool = true;

    fn panel_bytes(&self) -> usize {
        Self::panel_bytes(self)
    }

    fn read<'a>(
        &'a self,
        isa: Isa,
        panel: usize,
        inputs: Range<usize>,
        buffer: &'a mut [Line<f32>],
    ) -> &'a [Line<f32>] {
        let buffer = &mut buffer[..inputs.len()];
        let (runs, _) = buffer.as_chunks_mut();
        let first = inputs.start / RUN;
        dispatch!(isa, simd => for (i, run) in runs.iter_mut().enumerate() {
            self.widen(simd, panel, first + i, run);
        });
        buffer
    }
}

/// Chains over weights.
pub struct Chains<'a, P> {
    pub x: &'a [f32],
    pub inputs: usize,
    pub weights: &'a P,
}

impl<P: Panels> Kernel for Chains<'_, P> {
    fn panel_bytes(&self) -> usize {
        self.weights.panel_bytes()
    }

    fn run(&self, isa: Isa, first_row: usize, first_panel: usize, out: &mut [&mut [f32]]) {
        let mut cleared;
        let buffer: &mut [_] = if P::IS_BUFFERED {
            cleared = [[P::Element::default(); LANES]; ROW_PANELS * CUT];
            &mut cleared
        } else {
            &mut []
        };
        let x = &self.x[first_row * self.inputs..][..out.len() * self.inputs];
        match out {
            [out] => self.one_row(isa, x, first_panel, out, buffer),
            out => PACKED.with(out.len() * CUTS, [0.0; STRIDE], |packed| {
                self.many_rows(isa, x, first_panel, out, packed, buffer);
            }),
        }
    }
}

impl<P: Panels> Chains<'_, P> {
    /// One row needs no packing, and its outputs stay in registers from cut to cut.
    fn one_row(
        &self,
        isa: Isa,
        x: &[f32],
        first_panel: usize,
        out: &mut [f32],
        buffer: &mut [Line<P::Element>],
    ) {
        let step = if P::IS_BUFFERED { CUT } else { self.inputs };
        for (tile, out) in out.chunks_mut(ROW_PANELS * LANES).enumerate() {
            for start in (0..self.inputs).step_by(step) {
                let end = self.inputs.min(start + step);
                let panels = out.len().div_ceil(LANES);
                let mut weights: [&[Line<P::Element>]; ROW_PANELS] = [&[]; ROW_PANELS];
                self.read(
                    isa,
                    first_panel + tile * ROW_PANELS,
                    start..end,
                    buffer,
                    &mut weights[..panels],
                );
                row_tile::<P>(isa, &x[start..end], &weights[..panels], start == 0, out);
            }
        }
    }

    /// Reads `inputs` of some panels.
    fn read<'a>(
        &'a self,
        isa: Isa,
        first_panel: usize,
        inputs: Range<usize>,
        buffer: &'a mut [Line<P::Element>],
        weights: &mut [&'a [Line<P::Element>]],
    ) {
        let mut rest = buffer;
        for (n, weights) in weights.iter_mut().enumerate() {
            let (own, others) = rest.split_at_mut(if P::IS_BUFFERED { CUT } else { 0 });
            *weights = self.weights.read(isa, first_panel + n, inputs.clone(), own);
            rest = others;
        }
    }

    /// Between two cuts each panel passes over all rows, which are copied to lie close.
    fn many_rows(
        &self,
        isa: Isa,
        x: &[f32],
        first_panel: usize,
        out: &mut [&mut [f32]],
        packed: &mut [[f32; STRIDE]],
        buffer: &mut [Line<P::Element>],
    ) {
        let (rows, panels) = (out.len(), out[0].len().div_ceil(LANES));
        let tile_panels = panels_per_tile(isa);
        for group in (0..self.inputs).step_by(CUTS * CUT) {
            let end = self.inputs.min(group + CUTS * CUT);
            let cuts = (group..end).step_by(CUT).map(|start| start..end.min(start + CUT));
            for (cut, packed) in cuts.clone().zip(packed.chunks_exact_mut(rows)) {
                for (packed, x) in packed.iter_mut().zip(x.chunks_exact(self.inputs)) {
                    packed[..cut.len()].copy_from_slice(&x[cut.clone()]);
                }
            }
            for panel in (0..panels).step_by(tile_panels) {
                let taken = tile_panels.min(panels - panel);
                for (cut, packed) in cuts.clone().zip(packed.chunks_exact(rows)) {
                    let mut weights: [&[Line<P::Element>]; TILE_PANELS] = [&[]; TILE_PANELS];
                    let weights = &mut weights[..taken];
                    self.read(isa, first_panel + panel, cut.clone(), buffer, weights);
                    let tiles = Tiles {
                        rows: packed,
                        weights,
                        ahead: self.weights.ahead(first_panel + panel, &cut),
                        inputs: self.inputs,
                        is_first: cut.start == 0,
                    };
                    tiles.run(isa, panel, out);
                }
            }
        }
    }
}

/// Multiplies a row by panels, one to [`ROW_PANELS`] of them, from a cut's beginning on: adds to `out`, unless it `is_first`.
fn row_tile<P: Panels>(
    isa: Isa,
    x: &[f32],
    weights: &[&[Line<P::Element>]],
    is_first: bool,
    out: &mut [f32],
) {
    dispatch!(isa, simd => match weights.first_chunk::<ROW_PANELS>() {
        Some(weights) => row_panels::<_, P, ROW_PANELS>(simd, x, *weights, is_first, out),
        None => for (weights, out) in weights.iter().zip(out.chunks_mut(LANES)) {
            row_panels::<_, P, 1>(simd, x, [weights], is_first, out);
        },
    });
}

#[inline(always)]
fn row_panels<S: Simd, P: Panels, const N: usize>(
    simd: S,
    x: &[f32],
    weights: [&[Line<P::Element>]; N],
    is_first: bool,
    out: &mut [f32],
) {
    let mut totals = [simd.splat(0.0); N];
    if !is_first {
        for n in 0..N {
            totals[n] = read(simd, &out[n * LANES..]);
        }
    }
    for start in (0..x.len()).step_by(CUT) {
        let end = x.len().min(start + CUT);
        let mut sums = [[simd.splat(0.0); N]; 1];
        for step in (start..end).step_by(STEP) {
            let depth = STEP.min(end - step);
            let (row, _) = x[step..][..depth].as_chunks::<1>();
            let mut panels: [&[Line<P::Element>]; N] = [&[]; N];
            for n in 0..N {
                panels[n] = &weights[n][step..][..depth];
                if !P::IS_BUFFERED {
                    prefetch(simd, weights[n], step, N);
                }
            }
            chain(simd, depth, SideBySide(row), panels, &mut sums);
        }
        for n in 0..N {
            totals[n] = if is_first && start == 0 { sums[0][n] } else { totals[n] + sums[0][n] };
        }
    }
    for n in 0..N {
        write(totals[n], &mut out[n * LANES..]);
    }
}

/// Asks for what a row will read some time after the [`STEP`] inputs from `step` on of a panel, one of `panels` side by side.
#[inline(always)]
fn prefetch<S: Simd, E: Element>(simd: S, panel: &[Line<E>], step: usize, panels: usize) {
    let mut ahead = step + READ_AHEAD / ROW_PANELS / size_of::<Line<E>>();
    if ahead >= panel.len() {
        // The panels after this one are read beside it.
        ahead += (panels - 1) * panel.len();
    }
    for i in (0..STEP).step_by(size_of::<Line<f32>>() / size_of::<Line<E>>()) {
        simd.prefetch_ahead(panel, ahead + i);
    }
}

/// Evaluates `$body` with the constant `$rows` equal to `$size`, one of the heights that [`tile_height`] gives.
macro_rules! with_height {
    ($size:expr, $rows:ident => $body:expr) => {
        match $size {
            8 => with_height!(@ 8, $rows => $body),
            6 => with_height!(@ 6, $rows => $body),
            4 => with_height!(@ 4, $rows => $body),
            2 => with_height!(@ 2, $rows => $body),
            _ => with_height!(@ 1, $rows => $body),
        }
    };
    (@ $size:literal, $rows:ident => $body:expr) => {{
        const $rows: usize = $size;
        $body
    }};
}

/// The height of the next tile when `left` rows are left: such that its sums stay in registers.
#[inline(always)]
fn tile_height<S: Simd>(left: usize) -> usize {
    match (S::REGISTERS, left) {
        (Registers::Many, 8..) => 8,
        (Registers::Few, 6..) => 6,
        (_, 4..) => 4,
        (_, 2..) => 2,
        _ => 1,
    }
}

/// Panels that a tile takes: as many as leave its sums in registers.
fn panels_per_tile(isa: Isa) -> usize {
    match isa.registers() {
        Registers::Few => 1,
        Registers::Many => TILE_PANELS,
    }
}

/// All rows times some panels between two cuts.
struct Tiles<'a, E> {
    rows: &'a [[f32; STRIDE]],
    weights: &'a [&'a [Line<E>]],
    ahead: &'a [Line<E>],
    inputs: usize,
    is_first: bool,
}

impl<E: Element> Tiles<'_, E> {
    fn run(&self, isa: Isa, panel: usize, out: &mut [&mut [f32]]) {
        dispatch!(isa, simd => match *self.weights {
            [a, b, c] => self.panels(simd, [a, b, c], panel, out),
            [a, b] => self.panels(simd, [a, b], panel, out),
            _ => self.panels(simd, [self.weights[0]], panel, out),
        });
    }

    #[inline(always)]
    fn panels<S: Simd, const N: usize>(
        &self,
        simd: S,
        weights: [&[Line<E>]; N],
        panel: usize,
        out: &mut [&mut [f32]],
    ) {
        let (rows, depth) = (out.len(), weights[0].len());
        let mut first = 0;
        while first < rows {
            let height = tile_height::<S>(rows - first);
            // While a panel passes over the rows, the weights after it are brought near, a part with each tile.
            for n in 0..N {
                let part = n * self.inputs + first * depth / rows
                    ..n * self.inputs + (first + height) * depth / rows;
                if let Some(part) = self.ahead.get(part) {
                    for line in part {
                        simd.prefetch(line);
                    }
                }
            }
            let packed = &self.rows[first..];
            let out = &mut out[first..][..height];
            with_height!(height, R => {
                let rows = packed.first_chunk::<R>().expect("the tile's rows were copied");
                let mut sums = [[simd.splat(0.0); N]; R];
                chain(simd, depth, OneByOne(rows), weights, &mut sums);
                for r in 0..R {
                    for n in 0..N {
                        let out = &mut out[r][(panel + n) * LANES..];
                        let sum = if self.is_first { sums[r][n] } else { read(simd, out) + sums[r][n] };
                        write(sum, out);
                    }
                }
            });
            first += height;
        }
    }
}
