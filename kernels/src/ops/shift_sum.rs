use super::short_conv::{Inputs, Product, ShortConv, advance};
use crate::simd::slices::{read, write};
use crate::simd::{Isa, LANES, Simd, dispatch};

/// Along what the three chunks of issue #22287's module are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftAxis {
    /// Along time, as its prose says ("shift each part (0, 1, 2 positions)").
    Time,
    /// Along features, as its code does (it pads the last axis of `[batch, time, feature]`).
    Feature,
}

/// What the module of issue #22287 must remember of a sequence.
#[derive(Clone)]
pub struct ShiftSumState {
    /// The second chunk one step ago; the third chunk two steps ago and one step ago. Zeros before the start; used for
    /// [`ShiftAxis::Time`] alone.
    pub chunks: [Vec<f32>; 3],
    /// The last inputs of the convolution, `[L - 1, width]`, oldest first.
    pub sums: Vec<f32>,
}

impl ShiftSumState {
    /// The state before the first token.
    pub fn new(width: usize, length: usize) -> Self {
        Self { chunks: [(); 3].map(|()| vec![0.0; width]), sums: vec![0.0; (length - 1) * width] }
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.chunks.iter_mut().for_each(|chunk| chunk.fill(0.0));
        self.sums.fill(0.0);
    }
}

/// The shift-and-sum convolution of llama.cpp issue #22287 between its two projections:
/// `sum = chunk0 + shift(chunk1, 1) + shift(chunk2, 2)`, `out[t] = sum over k of taps[k] * sum[t - L + 1 + k] (+ bias)`.
///
/// `projected` is `[rows, 3 * width]`, the chunks side by side; its first chunk is replaced by the sum. `out` is `[rows, width]`: the
/// first T of the T + L - 1 steps that the padding gives. `state` is advanced.
///
/// # Panics
///
/// If a slice has another shape.
pub fn shift_sum(
    isa: Isa,
    projected: &mut [f32],
    axis: ShiftAxis,
    conv: &ShortConv,
    state: &mut ShiftSumState,
    out: &mut [f32],
) {
    let width = conv.width();
    let rows = out.len() / width;
    assert_eq!(out.len(), rows * width, "shift_sum: out is not whole rows of {width}");
    assert_eq!(projected.len(), 3 * out.len(), "shift_sum: projected is not rows of three chunks");
    assert_eq!(state.sums.len(), (conv.length() - 1) * width, "shift_sum: state length");

    match axis {
        ShiftAxis::Feature => dispatch!(isa, simd => {
            for row in projected.chunks_exact_mut(3 * width) {
                sum_shifted_features(simd, row, width);
            }
        }),
        ShiftAxis::Time => dispatch!(isa, simd => {
            for row in projected.chunks_exact_mut(3 * width) {
                sum_shifted_in_time(simd, row, &mut state.chunks);
            }
        }),
    }

    let projected = &*projected;
    let input = |row: usize| Product(&projected[3 * width * row..][..width], conv.ones());
    Inputs { conv, state: &state.sums, input }.convolve(isa, |_| None, out);
    advance(isa, conv, &mut state.sums, rows, input);
}

#[inline(always)]
fn sum_shifted_features<S: Simd>(simd: S, row: &mut [f32], width: usize) {
    let (sum, rest) = row.split_at_mut(width);
    let (second, third) = rest.split_at(width);
    for at in (0..width).step_by(LANES) {
        let first = read(simd, &sum[at..]);
        let total = (first + shifted(simd, second, at, 1)) + shifted(simd, third, at, 2);
        write(total, &mut sum[at..]);
    }
}

/// Sixteen elements of `chunk` from `at - shift`; those before its start are 0.
#[inline(always)]
fn shifted<S: Simd>(simd: S, chunk: &[f32], at: usize, shift: usize) -> S::Lanes {
    if at >= shift {
        return read(simd, &chunk[at - shift..]);
    }
    let mut padded = [0.0; LANES];
    let present = chunk.len().min(LANES - shift);
    padded[shift..][..present].copy_from_slice(&chunk[..present]);
    simd.load(&padded)
}

#[inline(always)]
fn sum_shifted_in_time<S: Simd>(simd: S, row: &mut [f32], past: &mut [Vec<f32>; 3]) {
    let width = row.len() / 3;
    let (sum, rest) = row.split_at_mut(width);
    let (second, third) = rest.split_at(width);
    let [second_past, third_older, third_past] = past;
    for at in (0..width).step_by(LANES) {
        let first = read(simd, &sum[at..]);
        let total = (first + read(simd, &second_past[at..])) + read(simd, &third_older[at..]);
        write(total, &mut sum[at..]);
    }
    second_past.copy_from_slice(second);
    std::mem::swap(third_older, third_past);
    third_past.copy_from_slice(third);
}
