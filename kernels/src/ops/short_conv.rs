use arrayvec::ArrayVec;

use crate::fault;
use crate::simd::slices::{read, write};
use crate::simd::{Isa, LANES, Lanes, Simd, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// The weights of a causal depthwise convolution.
pub struct ShortConv {
    width: usize,
    /// `[length][width]`, oldest tap first.
    taps: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl ShortConv {
    /// The longest supported convolution; every published model has 3.
    pub const MAX_LENGTH: usize = 8;

    /// Takes weights as checkpoints store them, `[width, length]` with the oldest tap first, and an optional bias `[width]`.
    ///
    /// # Panics
    ///
    /// If `weight` is not `width` rows of one to [`MAX_LENGTH`](Self::MAX_LENGTH) taps, or `bias` is not `width` long.
    pub fn new(width: usize, weight: &[f32], bias: Option<Vec<f32>>) -> Self {
        let length = weight.len() / width;
        assert!(
            weight.len() == length * width && (1..=Self::MAX_LENGTH).contains(&length),
            "short_conv: {} weights are not {width} rows of 1 to {} taps",
            weight.len(),
            Self::MAX_LENGTH
        );
        assert!(bias.as_ref().is_none_or(|bias| bias.len() == width), "short_conv: bias length");
        let mut taps = vec![0.0; weight.len()];
        for (channel, weight) in weight.chunks_exact(length).enumerate() {
            for (k, weight) in weight.iter().enumerate() {
                taps[k * width + channel] = *weight;
            }
        }
        Self { width, taps, bias }
    }

    /// Channels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Taps: `conv_L_cache`.
    pub fn length(&self) -> usize {
        self.taps.len() / self.width
    }

    /// The taps as they were given, `[width, L]`, oldest first.
    pub fn weight(&self) -> Vec<f32> {
        let (width, length) = (self.width, self.length());
        (0..width * length).map(|i| self.taps[i % length * width + i / length]).collect()
    }

    /// The bias, `[width]`, if there is one.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        4 * (self.taps.len() + self.bias.as_ref().map_or(0, Vec::len))
    }
}

/// The gated short convolution between the two projections of a conv block:
/// `u = B * x`, `y[t] = sum over k of taps[k] * u[t - L + 1 + k] (+ bias)`, `out = C * y`.
///
/// `bcx` is `[rows, 3 * width]`, the input projection's B, C and x side by side; `out` is `[rows, width]`. `state` is
/// `[L - 1, width]`, the last `u` of the sequence so far, oldest first, zeros before its start; it is advanced.
/// Source: `Lfm2ShortConv` of Hugging Face transformers, whose cache holds one (unneeded) older column.
///
/// # Panics
///
/// If a slice has another shape.
pub fn short_conv(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    let width = conv.width();
    let rows = out.len() / width;
    assert_eq!(out.len(), rows * width, "short_conv: out is not whole rows of {width}");
    assert_eq!(bcx.len(), 3 * out.len(), "short_conv: bcx is not rows of B, C and x");
    assert_eq!(state.len(), (conv.length() - 1) * width, "short_conv: state length");
    let gates = |row: usize| {
        let (b, rest) = bcx[3 * width * row..][..3 * width].split_at(width);
        let (c, x) = rest.split_at(width);
        (b, c, x)
    };
    let input = |row: usize| {
        let (b, _, x) = gates(row);
        Input::Product(b, x)
    };
    {
        let history = Inputs { conv, state, input };
        split_rows(out, width, rows_worth_sharing(4 * width), &|first, out| {
            dispatch!(isa, simd => {
                for (t, out) in out.chunks_exact_mut(width).enumerate() {
                    convolve(simd, conv, &history.ending_at(first + t), Some(gates(first + t).1), out);
                }
            });
        });
    }
    advance(isa, conv, state, rows, input);
}

/// One row of the convolution's input.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// The row itself.
    Row(&'a [f32]),
    /// The product of two rows.
    Product(&'a [f32], &'a [f32]),
}

impl Input<'_> {
    #[inline(always)]
    fn read<S: Simd>(self, simd: S, at: usize) -> S::Lanes {
        match self {
            Self::Row(row) => read(simd, &row[at..]),
            Self::Product(a, b) => read(simd, &a[at..]) * read(simd, &b[at..]),
        }
    }
}

/// The inputs of a call, preceded by the state.
pub(super) struct Inputs<'a, F> {
    pub conv: &'a ShortConv,
    pub state: &'a [f32],
    pub input: F,
}

impl<'a, 'i: 'a, F: Fn(usize) -> Input<'i>> Inputs<'a, F> {
    /// The inputs under the taps when the newest is `row`, oldest first.
    pub fn ending_at(&self, row: usize) -> ArrayVec<Input<'a>, { ShortConv::MAX_LENGTH }> {
        let (width, length) = (self.conv.width(), self.conv.length());
        let mut inputs = ArrayVec::new();
        for k in 0..length {
            // Counted from the oldest row of the state.
            let from_state = row + k;
            inputs.push(if from_state < length - 1 {
                Input::Row(&self.state[from_state * width..][..width])
            } else {
                (self.input)(from_state - (length - 1))
            });
        }
        inputs
    }
}

/// Convolves one row: chains over the taps, oldest first, then the bias, then the gate.
#[inline(always)]
pub(super) fn convolve<S: Simd>(
    simd: S,
    conv: &ShortConv,
    inputs: &[Input],
    gate: Option<&[f32]>,
    out: &mut [f32],
) {
    let width = conv.width();
    for at in (0..width).step_by(LANES) {
        let mut y = read(simd, &conv.taps[at..width]) * inputs[0].read(simd, at);
        for k in 1..inputs.len() {
            let tap = read(simd, &conv.taps[k * width..][at..width]);
            y = tap.mul_add(inputs[k].read(simd, at), y);
        }
        if let Some(bias) = &conv.bias {
            y = y + read(simd, &bias[at..]);
        }
        if let Some(gate) = gate {
            y = read(simd, &gate[at..]) * y;
        }
        write(y, &mut out[at..]);
    }
}

/// Makes `state` the last inputs of (`state`, then `rows` inputs).
pub(super) fn advance<'a>(
    isa: Isa,
    conv: &ShortConv,
    state: &mut [f32],
    rows: usize,
    input: impl Fn(usize) -> Input<'a>,
) {
    let (width, kept) = (conv.width(), conv.length() - 1);
    let old = kept.saturating_sub(rows);
    state.copy_within((kept - old) * width.., 0);
    dispatch!(isa, simd => {
        for k in old..kept {
            let newest = rows + k - kept;
            let input = input(fault!(StateShifted: newest.saturating_sub(1), else newest));
            let row = &mut state[k * width..][..width];
            for at in (0..width).step_by(LANES) {
                write(input.read(simd, at), &mut row[at..]);
            }
        }
    });
}
