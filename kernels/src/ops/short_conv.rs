use std::ops::Range;

use crate::fault;
use crate::simd::slices::{inlined, zip_map};
use crate::simd::{Isa, LANES, Lanes, Simd, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Channels that all rows of a task pass before the next ones: their taps, and the inputs that rows share, stay in the first-level cache.
const STRIP: usize = 1024;

/// The weights of a causal depthwise convolution.
pub struct ShortConv {
    width: usize,
    /// `[length][width]`, oldest tap first.
    taps: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// What makes a product of a row that is one already.
    ones: Vec<f32>,
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
        Self { width, taps, bias, ones: vec![1.0; width] }
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

    /// As many ones as channels.
    pub(super) fn ones(&self) -> &[f32] {
        &self.ones
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
        Product(b, x)
    };
    Inputs { conv, state, input }.convolve(isa, |row| Some(gates(row).1), out);
    advance(isa, conv, state, rows, input);
}

/// One row of the convolution's input: the product of two.
#[derive(Clone, Copy)]
pub(super) struct Product<'a>(pub &'a [f32], pub &'a [f32]);

impl Product<'_> {
    /// Of some channels.
    #[inline(always)]
    fn of(self, channels: Range<usize>) -> Self {
        let Self(a, b) = self;
        Self(&a[channels.clone()], &b[channels])
    }
}

/// The inputs of a call, preceded by the state.
pub(super) struct Inputs<'a, F> {
    pub conv: &'a ShortConv,
    pub state: &'a [f32],
    pub input: F,
}

impl<'a, 'i: 'a, F: Fn(usize) -> Product<'i> + Sync> Inputs<'a, F> {
    /// Convolves every row: chains over the taps, oldest first, then the bias, then the gate.
    pub fn convolve(
        &self,
        isa: Isa,
        gate: impl Fn(usize) -> Option<&'a [f32]> + Sync,
        out: &mut [f32],
    ) {
        match self.conv.length() {
            1 => self.convolve_taps::<1>(isa, gate, out),
            2 => self.convolve_taps::<2>(isa, gate, out),
            3 => self.convolve_taps::<3>(isa, gate, out),
            4 => self.convolve_taps::<4>(isa, gate, out),
            5 => self.convolve_taps::<5>(isa, gate, out),
            6 => self.convolve_taps::<6>(isa, gate, out),
            7 => self.convolve_taps::<7>(isa, gate, out),
            _ => self.convolve_taps::<{ ShortConv::MAX_LENGTH }>(isa, gate, out),
        }
    }

    fn convolve_taps<const L: usize>(
        &self,
        isa: Isa,
        gate: impl Fn(usize) -> Option<&'a [f32]> + Sync,
        out: &mut [f32],
    ) {
        let width = self.conv.width();
        split_rows(out, width, rows_worth_sharing(width), &|first, out| {
            dispatch!(isa, simd => for begin in (0..width).step_by(STRIP) {
                let channels = begin..width.min(begin + STRIP);
                self.convolve_strip::<_, L>(simd, channels, first, &gate, out);
            });
        });
    }

    /// Convolves the rows from `first` on in some channels.
    #[inline(always)]
    fn convolve_strip<S: Simd, const L: usize>(
        &self,
        simd: S,
        channels: Range<usize>,
        first: usize,
        gate: impl Fn(usize) -> Option<&'a [f32]>,
        out: &mut [f32],
    ) {
        let width = self.conv.width();
        let mut taps = [&self.conv.taps[..]; L];
        for k in 0..L {
            taps[k] = &self.conv.taps[k * width..][channels.clone()];
        }
        let bias = self.conv.bias().map(|bias| &bias[channels.clone()]);
        // The inputs before a row, oldest first, and one more, since `L - 1` is no length of an array.
        let mut strips: [Strip; L] = [[[0.0; LANES]; STRIP / LANES]; L];
        let mut before = strips.each_mut();
        for k in 0..L - 1 {
            let input = &mut before[k].as_flattened_mut()[..channels.len()];
            // Counted from the oldest row of the state.
            let row = first + k;
            if row < L - 1 {
                input.copy_from_slice(&self.state[row * width..][channels.clone()]);
            } else {
                let Product(a, b) = (self.input)(row - (L - 1)).of(channels.clone());
                zip_map(simd, a, b, input, inlined!(|a, b| a * b));
            }
        }
        for (row, out) in (first..).zip(out.chunks_exact_mut(width)) {
            let input = (self.input)(row).of(channels.clone());
            let gate = gate(row).map(|gate| &gate[channels.clone()]);
            let row = Row { taps, input, bias, gate };
            row.convolve(simd, &mut before, &mut out[channels.clone()]);
            if L > 1 {
                before[..L - 1].rotate_left(1);
            }
        }
    }
}

/// Some channels of a row.
struct Row<'a, const L: usize> {
    taps: [&'a [f32]; L],
    input: Product<'a>,
    bias: Option<&'a [f32]>,
    gate: Option<&'a [f32]>,
}

/// Channels of a row.
type Strip = [[f32; LANES]; STRIP / LANES];

impl<const L: usize> Row<'_, L> {
    /// Convolves them. Their input takes the place of the oldest before it.
    #[inline(always)]
    fn convolve<S: Simd>(&self, simd: S, before: &mut [&mut Strip; L], out: &mut [f32]) {
        // All slices are known to be as long, so that the loop over whole lanes checks no bounds.
        let whole = (out.len() / LANES).min(STRIP / LANES);
        for i in 0..whole {
            let y = self.output(
                simd,
                before,
                i,
                inlined!(|row: &[f32]| simd.load(&row.as_chunks().0[..whole][i])),
            );
            y.store(&mut out.as_chunks_mut().0[..whole][i]);
        }
        let rest = whole * LANES;
        if rest < out.len() {
            let y = self.output(
                simd,
                before,
                whole,
                inlined!(|row: &[f32]| simd.load_partial(&row[rest..], 0.0)),
            );
            y.store_partial(&mut out[rest..]);
        }
    }

    /// The `i`th sixteen channels, which `lanes` reads.
    #[inline(always)]
    fn output<S: Simd>(
        &self,
        simd: S,
        before: &mut [&mut Strip; L],
        i: usize,
        lanes: impl Fn(&[f32]) -> S::Lanes,
    ) -> S::Lanes {
        let Product(a, b) = self.input;
        // Those under the taps.
        let mut inputs = [lanes(a) * lanes(b); L];
        for k in 0..L - 1 {
            inputs[k] = simd.load(&before[k][i]);
        }
        if L > 1 {
            inputs[L - 1].store(&mut before[0][i]);
        }
        let mut y = lanes(self.taps[0]) * inputs[0];
        for k in 1..L {
            y = lanes(self.taps[k]).mul_add(inputs[k], y);
        }
        if let Some(bias) = self.bias {
            y = y + lanes(bias);
        }
        match self.gate {
            Some(gate) => lanes(gate) * y,
            None => y,
        }
    }
}

/// Makes `state` the last inputs of (`state`, then `rows` inputs).
pub(super) fn advance<'a>(
    isa: Isa,
    conv: &ShortConv,
    state: &mut [f32],
    rows: usize,
    input: impl Fn(usize) -> Product<'a>,
) {
    let (width, kept) = (conv.width(), conv.length() - 1);
    let old = kept.saturating_sub(rows);
    state.copy_within((kept - old) * width.., 0);
    dispatch!(isa, simd => {
        for k in old..kept {
            let newest = rows + k - kept;
            let Product(a, b) = input(fault!(StateShifted: newest.saturating_sub(1), else newest));
            let row = &mut state[k * width..][..width];
            zip_map(simd, a, b, row, inlined!(|a, b| a * b));
        }
    });
}
