use std::ops::Range;

use arrayvec::ArrayVec;

use super::cut::{Cut, Tiling, half_of_panels};
use super::matrix::{Panels, with_panels_of_each};
use super::{Activations, Matrix, brain_floats, chains, integers};
use crate::buffers::Buffers;
use crate::ops::{add, silu_multiply};
use crate::simd::{Isa, LANES};
use crate::threads::{join, share_runs};
use crate::tuning::Knob;

/// Rows that share one pass over the weights, at most.
pub const BLOCK_ROWS: usize = 144;

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
    if out.is_empty() {
        return;
    }
    let call = Call::new("linear", isa, weight, bias, [x, out]);
    multiply(&call, [weight], x, out);
}

/// Multiplies rows by one matrix, or by both of a gated pair of one format.
fn multiply<const N: usize>(call: &Call, weights: [&Matrix; N], x: &[f32], out: &mut [f32]) {
    let activations = weights[0].activations();
    with_panels_of_each!(weights,
        elements => match activations {
            Activations::Bf16 => brain_floats::multiply(call, elements, x, out),
            _ => chains::multiply_elements(call, elements, x, out),
        },
        elements => chains::multiply_elements(call, elements, x, out),
        quantised => match activations {
            Activations::Int8 if N == 1 && x.len() == call.inputs => {
                integers::one_row(call, quantised[0], x, out);
            }
            Activations::Int8 => integers::many_rows(call, quantised, x, out),
            _ => chains::multiply(call, quantised, x, out),
        }
    );
}

/// Multiplies the same rows by several matrices, as a call of [`linear`] without bias for each does, and with no wait for all threads in between.
///
/// # Panics
///
/// As [`linear`].
pub fn linear_each(isa: Isa, x: &[f32], products: &mut [(&Matrix, &mut [f32])]) {
    match products {
        [] => (),
        [(weight, out)] => linear(isa, x, weight, None, out),
        [(weight, out), others @ ..] => {
            join(|| linear(isa, x, weight, None, out), || linear_each(isa, x, others));
        }
    }
}

/// Multiplies each row of `x` by two weight matrices, and one product by the SiLU of the other:
/// `out[t][n] = silu(sum over k of x[t][k] * gate[n][k]) * (sum over k of x[t][k] * up[n][k])`.
///
/// The bits are those of two calls of [`linear`] and one of [`silu_multiply`]. Source: `Lfm2MLP` of Hugging Face transformers
/// (`silu(w1 x) * w3 x`).
///
/// # Panics
///
/// If the matrices differ in shape, or as [`linear`].
pub fn gated_linear(isa: Isa, x: &[f32], gate: &Matrix, up: &Matrix, out: &mut [f32]) {
    let shape = |matrix: &Matrix| (matrix.outputs(), matrix.inputs());
    assert_eq!(shape(up), shape(gate), "gated_linear: up has another shape than gate");
    if out.is_empty() {
        return;
    }
    let call = Call::new("gated_linear", isa, gate, None, [x, out]);
    let kind = |matrix: &Matrix| (matrix.format(), matrix.activations());
    // One row reads either matrix in a straight line.
    if out.len() > call.outputs && kind(gate) == kind(up) {
        return multiply(&call, [gate, up], x, out);
    }
    UPS.with(out.len(), 0.0, |ups| {
        linear_each(isa, x, &mut [(gate, out), (up, ups)]);
        silu_multiply(isa, out, ups);
    });
}

/// What the matrix that is not the gate gives.
pub static UPS: Buffers<f32> = Buffers::new();

/// How [`linear`] cuts rows that it multiplies by `weight`.
pub fn tiling(isa: Isa, weight: &Matrix) -> Tiling {
    let activations = weight.activations();
    with_panels_of_each!([weight],
        elements => match activations {
            Activations::Bf16 => brain_floats::tiling(isa, elements[0]),
            _ => chains::tiling(isa, elements[0]),
        },
        elements => chains::tiling(isa, elements[0]),
        quantised => match activations {
            Activations::Int8 => integers::tiling(isa, quantised[0]),
            _ => chains::tiling(isa, quantised[0]),
        }
    )
}

/// How the rows of a block are multiplied by some panels.
pub trait Kernel: Sync {
    /// Bytes of a panel.
    fn panel_bytes(&self) -> usize;

    /// Panels that one row takes at once.
    fn row_panels(&self) -> usize {
        1
    }

    /// Multiplies all rows of a block by the panels from `first_panel` on, as many as the rows of `out` are long.
    fn run(&self, isa: Isa, first_panel: usize, out: &mut [&mut [f32]]);
}

/// One call of [`linear`] or [`gated_linear`].
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub isa: Isa,
    pub inputs: usize,
    pub outputs: usize,
    pub bias: Option<&'a [f32]>,
}

/// The part of each row of an output that one task writes.
type OutputRows<'a> = ArrayVec<&'a mut [f32], BLOCK_ROWS>;

/// The outputs of rows that share one pass over the weights.
pub struct Block<'a> {
    out: &'a mut [f32],
    /// How many panels a task takes, so that all threads have some tasks.
    most_panels: usize,
}

impl<'a> Block<'a> {
    /// One row.
    pub fn row(out: &'a mut [f32]) -> Self {
        Self { out, most_panels: usize::MAX }
    }
}

/// What is done with the rows of a block.
type OfBlock<'a> = dyn Fn(&[f32], Block) + Sync + 'a;

impl<'a> Call<'a> {
    /// A call of `operation`, after a look at its shapes: `x` and `out` are the rows that go in and come out.
    fn new(
        operation: &str,
        isa: Isa,
        weight: &Matrix,
        bias: Option<&'a [f32]>,
        [x, out]: [&[f32]; 2],
    ) -> Self {
        let (inputs, outputs) = (weight.inputs(), weight.outputs());
        let rows = out.len() / outputs;
        assert_eq!(out.len(), rows * outputs, "{operation}: out is not whole rows of {outputs}");
        assert_eq!(x.len(), rows * inputs, "{operation}: x is not {rows} rows of {inputs}");
        assert!(bias.is_none_or(|bias| bias.len() == outputs), "{operation}: bias length");
        assert!(inputs > 0, "{operation}: the weight has no inputs");
        Self { isa, inputs, outputs, bias }
    }

    /// Shares rows `x` among the threads, block by block: `work` has the rows of a block and where their outputs go, and makes them ready
    /// on the thread that most likely reads them next.
    pub fn split(&self, tiling: Tiling, x: &[f32], out: &mut [f32], work: &OfBlock) {
        let rows = out.len() / self.outputs;
        let most_panels = self.cut(tiling.panel_bytes).panels_of_task(rows);
        self.halve_rows(&tiling, x, Block { out, most_panels }, work);
    }

    /// Shares the outputs of a block among the threads: of one kernel, or of a gate and what it lets through.
    pub fn multiply<K: Kernel, const N: usize>(&self, kernels: [K; N], block: Block) {
        self.share_outputs(&kernels.each_ref().map(|kernel| kernel as &dyn Kernel), block);
    }

    /// As [`multiply`](Self::multiply), compiled once for all kernels.
    fn share_outputs(&self, kernels: &[&dyn Kernel], Block { out, most_panels }: Block) {
        if out.len() == self.outputs {
            let threads = rayon::current_num_threads().min(Knob::RowThreads.get());
            let panel_bytes = kernels.iter().map(|kernel| kernel.panel_bytes()).sum();
            let cut = Cut { threads, ..self.cut(panel_bytes) };
            let run = cut.panels_of_run(kernels[0].row_panels()) * LANES;
            let work = |first, out: &mut _| self.task(kernels, first / LANES, &mut [out]);
            share_runs(out, run, threads, &work);
        } else {
            let rows = out.chunks_exact_mut(self.outputs).collect();
            self.split_outputs(kernels, rows, 0..self.panels(), most_panels);
        }
    }

    fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    fn cut(&self, panel_bytes: usize) -> Cut {
        Cut { panels: self.panels(), panel_bytes, threads: rayon::current_num_threads() }
    }

    /// Halves the rows until they are a block.
    fn halve_rows(&self, tiling: &Tiling, x: &[f32], block: Block, work: &OfBlock) {
        let Block { out, most_panels } = block;
        let Some(half) = tiling.half_of_rows(out.len() / self.outputs) else {
            return work(x, Block { out, most_panels });
        };
        let (x_left, x_right) = x.split_at(half * self.inputs);
        let (left, right) = out.split_at_mut(half * self.outputs);
        join(
            || self.halve_rows(tiling, x_left, Block { out: left, most_panels }, work),
            || self.halve_rows(tiling, x_right, Block { out: right, most_panels }, work),
        );
    }

    /// Halves the outputs until they are few enough for a task.
    fn split_outputs(
        &self,
        kernels: &[&dyn Kernel],
        mut out: OutputRows,
        panels: Range<usize>,
        most_panels: usize,
    ) {
        if let Some(half) = half_of_panels(panels.len(), most_panels) {
            let mut left = OutputRows::new();
            let mut right = OutputRows::new();
            for row in out {
                let (row_left, row_right) = row.split_at_mut(half * LANES);
                left.push(row_left);
                right.push(row_right);
            }
            let middle = panels.start + half;
            join(
                || self.split_outputs(kernels, left, panels.start..middle, most_panels),
                || self.split_outputs(kernels, right, middle..panels.end, most_panels),
            );
            return;
        }
        self.task(kernels, panels.start, &mut out);
    }

    /// One task. Not inlined, so that a kernel's buffers are on the stack while it runs, and not in the frame of every task that waits.
    #[inline(never)]
    fn task(&self, kernels: &[&dyn Kernel], first_panel: usize, out: &mut [&mut [f32]]) {
        match kernels {
            [kernel] => kernel.run(self.isa, first_panel, out),
            [gate, up] => self.gated_task([*gate, *up], first_panel, out),
            _ => unreachable!("one kernel or two"),
        }
        if let Some(bias) = self.bias {
            for row in out {
                add(self.isa, row, &bias[first_panel * LANES..][..row.len()]);
            }
        }
    }

    /// Takes some panels of both kernels at a time, whose sums meet while they are in the second-level cache.
    fn gated_task(&self, [gate, up]: [&dyn Kernel; 2], first_panel: usize, out: &mut [&mut [f32]]) {
        /// Bytes of the sums of either kernel.
        const NEAR: usize = 128 * 1024;
        /// Panels that are whole tiles and strips of every kernel.
        const WHOLE_TILES: usize = 12;
        let panel_sums = size_of::<[f32; LANES]>() * out.len();
        let panels = (NEAR / panel_sums).next_multiple_of(WHOLE_TILES);
        let width = out[0].len();
        for start in (0..width).step_by(panels * LANES) {
            let columns = start..width.min(start + panels * LANES);
            let first_panel = first_panel + start / LANES;
            UPS.with(out.len() * columns.len(), 0.0, |ups| {
                let mut ups: OutputRows = ups.chunks_exact_mut(columns.len()).collect();
                let mut gates: OutputRows =
                    out.iter_mut().map(|row| &mut row[columns.clone()]).collect();
                gate.run(self.isa, first_panel, &mut gates);
                up.run(self.isa, first_panel, &mut ups);
                for (gate, up) in gates.iter_mut().zip(&ups) {
                    silu_multiply(self.isa, gate, up);
                }
            });
        }
    }
}
