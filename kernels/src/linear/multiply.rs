use std::ops::Range;

use arrayvec::ArrayVec;
use rayon::join;

use super::Matrix;
use super::matrix::with_panels;
use super::tile::{OneByOne, SideBySide, chain};
use crate::simd::slices::{inlined, read, write, zip_in_place};
use crate::simd::{Element, Isa, LANES, Registers, Simd, dispatch};

/// Where a chain is cut: part of the numeric contract.
const CUT: usize = 256;

/// Rows that share one pass over the weights.
const BLOCK_ROWS: usize = 144;

/// A multiple of every tile's height but those of a remainder.
const TILE_ROWS: usize = 24;

/// Cuts that are copied at once: with [`BLOCK_ROWS`] rows they fill half of a second-level cache of 1 MiB. The sums of a tile go to
/// memory between two cuts, and stay near while the cuts of one group follow each other.
const CUTS: usize = 4;

/// From one copied row to the next: not a power of two, so that rows do not compete for the same lines of the first-level cache.
const STRIDE: usize = CUT + LANES;

/// Weights that are worth handing to another thread, in bytes.
const WORTH_SHARING: usize = 64 * 1024;

/// Multiplies each row of `x` by a weight matrix: `out[t][n] = sum over k of x[t][k] * weight[n][k] (+ bias[n])`.
///
/// `x` is `[rows, inputs]`, `out` is `[rows, outputs]`, `bias` is `[outputs]`. Prefill and decode are this one function; threads of
/// the current rayon pool share rows, and where rows are few, outputs.
/// Source: `torch.nn.Linear`.
///
/// # Panics
///
/// If a slice has another shape.
pub fn linear(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    let (inputs, outputs) = (weight.inputs(), weight.outputs());
    if out.is_empty() {
        return;
    }
    let rows = out.len() / outputs;
    assert_eq!(out.len(), rows * outputs, "linear: out is not whole rows of {outputs}");
    assert_eq!(x.len(), rows * inputs, "linear: x is not {rows} rows of {inputs}");
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "linear: bias length");
    assert!(inputs > 0, "linear: the weight has no inputs");
    with_panels!(weight.panels(), elements => {
        let layer = Layer { isa, inputs, outputs, weights: elements, bias };
        layer.split_rows(x, out, layer.panels_worth_sharing(rows));
    });
}

struct Layer<'a, E> {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    weights: &'a [E],
    bias: Option<&'a [f32]>,
}

/// The part of each row of an output that one task writes.
type OutputRows<'a> = ArrayVec<&'a mut [f32], BLOCK_ROWS>;

impl<E: Element> Layer<'_, E> {
    fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// How many panels a task takes, so that all threads have some tasks.
    fn panels_worth_sharing(&self, rows: usize) -> usize {
        // One row is soon done: handing out more tasks would cost more than the evener end saves.
        let tasks_per_thread = if rows == 1 { 2 } else { 4 };
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return self.panels();
        }
        let tasks = (threads * tasks_per_thread).div_ceil(rows.div_ceil(BLOCK_ROWS));
        let least = (WORTH_SHARING / (self.inputs * LANES * E::BYTES)).max(1);
        self.panels().div_ceil(tasks).max(least)
    }

    /// Halves the rows until they fit a block.
    fn split_rows(&self, x: &[f32], out: &mut [f32], most_panels: usize) {
        let rows = out.len() / self.outputs;
        if rows > BLOCK_ROWS {
            let half = (rows / 2).next_multiple_of(TILE_ROWS);
            let (x_left, x_right) = x.split_at(half * self.inputs);
            let (left, right) = out.split_at_mut(half * self.outputs);
            join(
                || self.split_rows(x_left, left, most_panels),
                || self.split_rows(x_right, right, most_panels),
            );
            return;
        }
        let rows = out.chunks_exact_mut(self.outputs).collect();
        self.split_outputs(x, rows, 0..self.panels(), most_panels);
    }

    /// Halves the outputs until they are few enough for a task.
    fn split_outputs(&self, x: &[f32], out: OutputRows, panels: Range<usize>, most_panels: usize) {
        if panels.len() > most_panels {
            let half = (panels.len() / 2).next_multiple_of(4).min(panels.len() - 1);
            let mut left = OutputRows::new();
            let mut right = OutputRows::new();
            for row in out {
                let (row_left, row_right) = row.split_at_mut(half * LANES);
                left.push(row_left);
                right.push(row_right);
            }
            let middle = panels.start + half;
            join(
                || self.split_outputs(x, left, panels.start..middle, most_panels),
                || self.split_outputs(x, right, middle..panels.end, most_panels),
            );
            return;
        }
        self.task(x, out, panels);
    }

    fn task(&self, x: &[f32], mut out: OutputRows, panels: Range<usize>) {
        let (weights, _) = self.weights.as_chunks::<LANES>();
        let task = Task {
            inputs: self.inputs,
            weights: &weights[panels.start * self.inputs..panels.end * self.inputs],
            bias: self.bias.map(|bias| &bias[panels.start * LANES..]),
        };
        dispatch!(self.isa, simd => task.run(simd, x, &mut out));
    }
}

/// Some panels of a layer.
struct Task<'a, E> {
    inputs: usize,
    weights: &'a [[E; LANES]],
    bias: Option<&'a [f32]>,
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
#[inline(always)]
fn panels_per_tile<S: Simd>() -> usize {
    match S::REGISTERS {
        Registers::Few => 1,
        Registers::Many => 3,
    }
}

impl<E: Element> Task<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, x: &[f32], out: &mut [&mut [f32]]) {
        if let [out] = out {
            self.one_row(simd, x, out);
        } else {
            self.many_rows(simd, x, out);
        }
        if let Some(bias) = self.bias {
            for row in out {
                zip_in_place(simd, row, &bias[..row.len()], inlined!(|y, bias| y + bias));
            }
        }
    }

    #[inline(always)]
    fn panel(&self, index: usize) -> &[[E; LANES]] {
        &self.weights[index * self.inputs..][..self.inputs]
    }

    /// One row needs no packing, and its outputs stay in registers from cut to cut.
    #[inline(always)]
    fn one_row<S: Simd>(&self, simd: S, x: &[f32], out: &mut [f32]) {
        /// Panels at once: a single chain would wait for each multiply-add.
        const PANELS: usize = 4;
        let panels = out.len().div_ceil(LANES);
        let mut panel = 0;
        while panel + PANELS <= panels {
            self.one_row_tile::<S, PANELS>(simd, x, panel, out);
            panel += PANELS;
        }
        while panel < panels {
            self.one_row_tile::<S, 1>(simd, x, panel, out);
            panel += 1;
        }
    }

    #[inline(always)]
    fn one_row_tile<S: Simd, const N: usize>(
        &self,
        simd: S,
        x: &[f32],
        first_panel: usize,
        out: &mut [f32],
    ) {
        let mut totals = [simd.splat(0.0); N];
        for start in (0..self.inputs).step_by(CUT) {
            let depth = CUT.min(self.inputs - start);
            let (row, _) = x[start..][..depth].as_chunks::<1>();
            let mut panels: [&[[E; LANES]]; N] = [&[]; N];
            for n in 0..N {
                panels[n] = &self.panel(first_panel + n)[start..][..depth];
            }
            let mut sums = [[simd.splat(0.0); N]; 1];
            chain(simd, depth, SideBySide(row), panels, &mut sums);
            for n in 0..N {
                totals[n] = if start == 0 { sums[0][n] } else { totals[n] + sums[0][n] };
            }
        }
        for n in 0..N {
            write(totals[n], &mut out[(first_panel + n) * LANES..]);
        }
    }

    #[inline(always)]
    fn many_rows<S: Simd>(&self, simd: S, x: &[f32], out: &mut [&mut [f32]]) {
        /// Enough for a decoded batch; clearing the larger buffer would take longer than the batch.
        const FEW: usize = 16;
        if out.len() <= FEW {
            self.many_rows_packed(simd, x, out, &mut [[0.0; STRIDE]; FEW * CUTS]);
        } else {
            self.many_rows_packed(simd, x, out, &mut [[0.0; STRIDE]; BLOCK_ROWS * CUTS]);
        }
    }

    /// Between two cuts each panel passes over all rows, which were copied to lie close.
    #[inline(always)]
    fn many_rows_packed<S: Simd>(
        &self,
        simd: S,
        x: &[f32],
        out: &mut [&mut [f32]],
        packed: &mut [[f32; STRIDE]],
    ) {
        let (rows, panels) = (out.len(), out[0].len().div_ceil(LANES));
        for group in (0..self.inputs).step_by(CUTS * CUT) {
            let end = self.inputs.min(group + CUTS * CUT);
            let cuts =
                (group..end).step_by(CUT).map(|start| Cut { start, depth: CUT.min(end - start) });
            for (cut, packed) in cuts.clone().zip(packed.chunks_exact_mut(rows)) {
                for (packed, x) in packed.iter_mut().zip(x.chunks_exact(self.inputs)) {
                    packed[..cut.depth].copy_from_slice(&x[cut.start..][..cut.depth]);
                }
            }
            let mut panel = 0;
            while panel < panels {
                let taken = panels_per_tile::<S>().min(panels - panel);
                for (cut, packed) in cuts.clone().zip(packed.chunks_exact(rows)) {
                    match taken {
                        3 => self.panel_tiles::<S, 3>(simd, packed, &cut, panel, out),
                        2 => self.panel_tiles::<S, 2>(simd, packed, &cut, panel, out),
                        _ => self.panel_tiles::<S, 1>(simd, packed, &cut, panel, out),
                    }
                }
                panel += taken;
            }
        }
    }

    /// All rows times `N` panels between two cuts.
    #[inline(always)]
    fn panel_tiles<S: Simd, const N: usize>(
        &self,
        simd: S,
        packed: &[[f32; STRIDE]],
        cut: &Cut,
        first_panel: usize,
        out: &mut [&mut [f32]],
    ) {
        let mut panels: [&[[E; LANES]]; N] = [&[]; N];
        for n in 0..N {
            panels[n] = &self.panel(first_panel + n)[cut.start..][..cut.depth];
        }
        let rows = out.len();
        // While a panel passes over the rows, the weights after it are brought near, a part with each tile.
        let ahead = (first_panel * self.inputs + cut.start + cut.depth).min(self.weights.len());
        let ahead = &self.weights[ahead..];
        let mut first = 0;
        while first < rows {
            let height = tile_height::<S>(rows - first);
            for n in 0..N {
                let part = n * self.inputs + first * cut.depth / rows
                    ..n * self.inputs + (first + height) * cut.depth / rows;
                if let Some(part) = ahead.get(part) {
                    for line in part {
                        simd.prefetch(line);
                    }
                }
            }
            let packed = &packed[first..];
            let out = &mut out[first..][..height];
            with_height!(height, R => {
                let rows = packed.first_chunk::<R>().expect("the tile's rows were copied");
                let mut sums = [[simd.splat(0.0); N]; R];
                chain(simd, cut.depth, OneByOne(rows), panels, &mut sums);
                for r in 0..R {
                    for n in 0..N {
                        let out = &mut out[r][(first_panel + n) * LANES..];
                        let sum = if cut.start == 0 { sums[r][n] } else { read(simd, out) + sums[r][n] };
                        write(sum, out);
                    }
                }
            });
            first += height;
        }
    }
}

/// A piece of the chains: up to 256 inputs.
struct Cut {
    start: usize,
    depth: usize,
}
