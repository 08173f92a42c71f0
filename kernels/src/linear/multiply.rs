use std::ops::Range;

use arrayvec::ArrayVec;

use super::matrix::{Panels, with_panels};
use super::{Activations, Matrix, brain_floats, chains, integers};
use crate::simd::slices::{inlined, zip_in_place};
use crate::simd::{Isa, LANES, dispatch};
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
    let (inputs, outputs) = (weight.inputs(), weight.outputs());
    if out.is_empty() {
        return;
    }
    let rows = out.len() / outputs;
    assert_eq!(out.len(), rows * outputs, "linear: out is not whole rows of {outputs}");
    assert_eq!(x.len(), rows * inputs, "linear: x is not {rows} rows of {inputs}");
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "linear: bias length");
    assert!(inputs > 0, "linear: the weight has no inputs");
    let call = Call { isa, inputs, outputs, bias };
    match (weight.panels(), weight.activations()) {
        (Panels::Bf16(elements), Activations::Bf16) => {
            brain_floats::multiply(&call, elements, x, out);
        }
        (panels, activations) => with_panels!(panels,
            elements => chains::multiply_elements(&call, elements, x, out),
            quantised => match activations {
                Activations::Int8 if rows == 1 => integers::one_row(&call, quantised, x, out),
                Activations::Int8 => integers::many_rows(&call, quantised, x, out),
                _ => chains::multiply(&call, quantised, x, out),
            }
        ),
    }
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

/// One call of [`linear`].
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub isa: Isa,
    pub inputs: usize,
    pub outputs: usize,
    pub bias: Option<&'a [f32]>,
}

/// The part of each row of an output that one task writes.
type OutputRows<'a> = ArrayVec<&'a mut [f32], BLOCK_ROWS>;

/// How rows are cut into blocks.
pub struct Tiling {
    /// The height of all tiles but those of a remainder.
    pub rows: usize,
    /// Bytes of a panel.
    pub panel_bytes: usize,
}

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

impl Call<'_> {
    /// Shares rows `x` among the threads, block by block: `work` has the rows of a block and where their outputs go, and makes them ready
    /// on the thread that most likely reads them next.
    pub fn split<W>(&self, tiling: Tiling, x: &[f32], out: &mut [f32], work: &W)
    where
        W: Fn(&[f32], Block) + Sync,
    {
        let rows = out.len() / self.outputs;
        let most_panels = self.panels_worth_sharing(rows, tiling.panel_bytes);
        self.halve_rows(tiling.rows, x, Block { out, most_panels }, work);
    }

    /// Shares the outputs of a block among the threads.
    pub fn multiply(&self, kernel: &impl Kernel, Block { out, most_panels }: Block) {
        if out.len() == self.outputs {
            let threads = rayon::current_num_threads().min(Knob::RowThreads.get());
            let run = self.row_run(kernel, threads) * LANES;
            let work = |first, out: &mut _| self.task(kernel, first / LANES, &mut [out]);
            share_runs(out, run, threads, &work);
        } else {
            let rows = out.chunks_exact_mut(self.outputs).collect();
            self.split_outputs(kernel, rows, 0..self.panels(), most_panels);
        }
    }

    fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// How many panels one row takes at a time, such that threads have as many runs each.
    fn row_run(&self, kernel: &impl Kernel, threads: usize) -> usize {
        let bytes = self.panels() * kernel.panel_bytes();
        let runs = bytes.div_ceil(Knob::RowRunBytes.get()).next_multiple_of(threads);
        let most = bytes.div_ceil(Knob::SharedBytes.get());
        self.panels().div_ceil(runs.min(most)).next_multiple_of(kernel.row_panels())
    }

    /// How many panels a task takes.
    fn panels_worth_sharing(&self, rows: usize, panel_bytes: usize) -> usize {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return self.panels();
        }
        let blocks = rows.div_ceil(Knob::BlockRows.get());
        let tasks = (threads * Knob::TasksPerThread.get()).div_ceil(blocks);
        let least = (Knob::SharedBytes.get() / panel_bytes.max(1)).max(1);
        self.panels().div_ceil(tasks).max(least)
    }

    /// Halves the rows until they are a block.
    fn halve_rows<W>(&self, tile_rows: usize, x: &[f32], block: Block, work: &W)
    where
        W: Fn(&[f32], Block) + Sync,
    {
        let Block { out, most_panels } = block;
        let rows = out.len() / self.outputs;
        if rows <= Knob::BlockRows.get() {
            return work(x, Block { out, most_panels });
        }
        let half = (rows + tile_rows) / (2 * tile_rows) * tile_rows;
        let (x_left, x_right) = x.split_at(half * self.inputs);
        let (left, right) = out.split_at_mut(half * self.outputs);
        join(
            || self.halve_rows(tile_rows, x_left, Block { out: left, most_panels }, work),
            || self.halve_rows(tile_rows, x_right, Block { out: right, most_panels }, work),
        );
    }

    /// Halves the outputs until they are few enough for a task.
    fn split_outputs(
        &self,
        kernel: &impl Kernel,
        mut out: OutputRows,
        panels: Range<usize>,
        most_panels: usize,
    ) {
        if panels.len() > most_panels {
            // Whole strips, where there are some.
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
                || self.split_outputs(kernel, left, panels.start..middle, most_panels),
                || self.split_outputs(kernel, right, middle..panels.end, most_panels),
            );
            return;
        }
        self.task(kernel, panels.start, &mut out);
    }

    /// One task. Not inlined, so that a kernel's buffers are on the stack while it runs, and not in the frame of every task that waits.
    #[inline(never)]
    fn task(&self, kernel: &impl Kernel, first_panel: usize, out: &mut [&mut [f32]]) {
        kernel.run(self.isa, first_panel, out);
        if let Some(bias) = self.bias {
            let bias = &bias[first_panel * LANES..];
            dispatch!(self.isa, simd => for row in out {
                zip_in_place(simd, row, &bias[..row.len()], inlined!(|y, bias| y + bias));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::linear::{WeightFormat, blocks};

    fn random(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// A kernel's buffers fit a stack once. Tasks wait for each other many levels deep.
    #[test]
    fn many_threads_need_no_more_stack_than_one() {
        let (outputs, inputs) = (4096, 256);
        for format in [WeightFormat::F32, WeightFormat::Q8_0] {
            let bytes = blocks::encode(format, &random(outputs * inputs, 1));
            let mut matrix = Matrix::from_le_bytes(format, outputs, inputs, &bytes);
            matrix.set_activations(Activations::Int8);
            for rows in [1, 16, 145] {
                let x = random(rows * inputs, 2);
                let with_threads = |threads| {
                    let pool = ThreadPoolBuilder::new().num_threads(threads).stack_size(1 << 20);
                    let mut out = vec![f32::NAN; rows * outputs];
                    let pool = pool.build().expect("threads can be started");
                    pool.install(|| linear(Isa::best(), &x, &matrix, None, &mut out));
                    out
                };
                assert_eq!(with_threads(32), with_threads(1), "{format} {rows}");
            }
        }
    }

    #[test]
    fn quantised_weights_multiply_as_their_rows_do() {
        let (outputs, inputs) = (70, 512);
        for format in WeightFormat::ALL {
            let bytes = blocks::encode(format, &random(outputs * inputs, 1));
            let mut matrix = Matrix::from_le_bytes(format, outputs, inputs, &bytes);
            let rows = blocks::decode(format, &bytes);
            assert_eq!(matrix.to_rows(), rows, "{format}");
            let widened = Matrix::from_f32(outputs, inputs, &rows);
            for count in [1, 2, 15, 31] {
                let x = random(count * inputs, 2);
                let of = |isa, matrix: &Matrix| {
                    let mut out = vec![f32::NAN; count * outputs];
                    linear(isa, &x, matrix, None, &mut out);
                    out
                };
                let expected = of(Isa::best(), &widened);
                for isa in Isa::available() {
                    assert_eq!(of(isa, &matrix), expected, "{format} {isa} {count}");
                }
                matrix.set_activations(Activations::Int8);
                let integers = of(Isa::available()[0], &matrix);
                for isa in Isa::available_for_integers() {
                    assert_eq!(of(isa, &matrix), integers, "{format} {isa} {count} int8");
                }
                let error: f32 = expected.iter().zip(&integers).map(|(a, b)| (a - b).powi(2)).sum();
                let size: f32 = expected.iter().map(|a| a * a).sum();
                assert!(error <= size * 1e-4, "{format}: {}", error / size);
                matrix.set_activations(Activations::F32);
            }
        }
    }
}
