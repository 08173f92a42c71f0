use std::ops::Range;

use arrayvec::ArrayVec;
use rayon::join;

use super::Matrix;
use super::matrix::with_panels;
use super::tile::{SideBySide, chain};
use crate::simd::slices::{inlined, read, write, zip_in_place};
use crate::simd::{Element, Isa, LANES, Registers, Simd, dispatch};

/// Where a chain is cut: part of the numeric contract.
const CUT: usize = 256;

/// Rows that share one pass over the weights. Packed between two cuts, they fill a part of the second-level cache.
const BLOCK_ROWS: usize = 96;

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
        const TASKS_PER_THREAD: usize = 4;
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return self.panels();
        }
        let tasks = (threads * TASKS_PER_THREAD).div_ceil(rows.div_ceil(BLOCK_ROWS));
        let least = (WORTH_SHARING / (self.inputs * LANES * E::BYTES)).max(1);
        self.panels().div_ceil(tasks).max(least)
    }

    /// Halves the rows until they fit a block.
    fn split_rows(&self, x: &[f32], out: &mut [f32], most_panels: usize) {
        let rows = out.len() / self.outputs;
        if rows > BLOCK_ROWS {
            let half = (rows / 2).next_multiple_of(12);
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
            12 => with_height!(@ 12, $rows => $body),
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
        (Registers::Many, 12..) => 12,
        (Registers::Many, 8..) => 8,
        (Registers::Few, 6..) => 6,
        (_, 4..) => 4,
        (_, 2..) => 2,
        _ => 1,
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

    /// Between two cuts, rows are packed tile by tile, and each panel passes over all of them.
    #[inline(always)]
    fn many_rows<S: Simd>(&self, simd: S, x: &[f32], out: &mut [&mut [f32]]) {
        /// Panels of a tile.
        const WIDTH: usize = 2;
        let panels = out[0].len().div_ceil(LANES);
        let mut packed = [0.0; BLOCK_ROWS * CUT];
        for start in (0..self.inputs).step_by(CUT) {
            let cut = Cut { start, depth: CUT.min(self.inputs - start) };
            self.pack::<S>(x, out.len(), &cut, &mut packed);
            let mut panel = 0;
            if S::REGISTERS == Registers::Many {
                while panel + WIDTH <= panels {
                    self.panel_tiles::<S, WIDTH>(simd, &packed, &cut, panel, out);
                    panel += WIDTH;
                }
            }
            while panel < panels {
                self.panel_tiles::<S, 1>(simd, &packed, &cut, panel, out);
                panel += 1;
            }
        }
    }

    /// Packs each tile's rows side by side.
    #[inline(always)]
    fn pack<S: Simd>(&self, x: &[f32], rows: usize, cut: &Cut, packed: &mut [f32]) {
        let mut first = 0;
        while first < rows {
            let height = tile_height::<S>(rows - first);
            let packed = &mut packed[first * cut.depth..][..height * cut.depth];
            for r in 0..height {
                let row = &x[(first + r) * self.inputs + cut.start..][..cut.depth];
                for (to, x) in packed[r..].iter_mut().step_by(height).zip(row) {
                    *to = *x;
                }
            }
            first += height;
        }
    }

    /// All rows times `N` panels between two cuts.
    #[inline(always)]
    fn panel_tiles<S: Simd, const N: usize>(
        &self,
        simd: S,
        packed: &[f32],
        cut: &Cut,
        first_panel: usize,
        out: &mut [&mut [f32]],
    ) {
        let mut panels: [&[[E; LANES]]; N] = [&[]; N];
        for n in 0..N {
            panels[n] = &self.panel(first_panel + n)[cut.start..][..cut.depth];
        }
        let rows = out.len();
        let mut first = 0;
        while first < rows {
            let height = tile_height::<S>(rows - first);
            let packed = &packed[first * cut.depth..][..height * cut.depth];
            let out = &mut out[first..][..height];
            with_height!(height, R => {
                let (rows, _) = packed.as_chunks::<R>();
                let mut sums = [[simd.splat(0.0); N]; R];
                chain(simd, cut.depth, SideBySide(rows), panels, &mut sums);
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
