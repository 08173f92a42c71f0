//! Every operation of LFM2 as its formula reads, in `f64`, on row-major slices.

use super::blocks::Run;

/// Copies the table's row of every token: `[T]` and `[V, width]` to `[T, width]`.
///
/// # Panics
/// If the table is not whole rows of `width`, or a token has no row.
pub fn embedding(tokens: &[u32], table: &[f64], width: usize) -> Vec<f64> {
    let vocabulary = row_count(table, width);
    let mut out = Vec::with_capacity(tokens.len() * width);
    for &token in tokens {
        let row = token as usize;
        assert!(row < vocabulary, "token {token} is outside a vocabulary of {vocabulary}");
        out.extend_from_slice(&table[row * width..(row + 1) * width]);
    }
    out
}

/// Divides every row by its root mean square: `x / sqrt(mean(x^2) + epsilon) * weight`.
///
/// `x` is `[T, D]` and `weight` `[D]`; the width of a row is the length of `weight`.
/// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).
///
/// # Panics
/// If `x` is not whole rows.
pub fn rms_norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    let width = weight.len();
    row_count(x, width);
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let mean = row.iter().map(|value| value * value).sum::<f64>() / width as f64;
        let root = (mean + epsilon).sqrt();
        out.extend(row.iter().zip(weight).map(|(value, weight)| value / root * weight));
    }
    out
}

/// Multiplies by a transposed matrix: `out[t][n] = sum_k x[t][k] * weight[n][k] + bias[n]`.
///
/// `x` is `[rows, K]`, `weight` `[N, K]`, `bias` `[N]`, the result `[rows, N]`.
///
/// # Panics
/// If there are no rows, or the lengths do not fit.
pub fn linear(x: &[f64], rows: usize, weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let (inputs, outputs) = linear_shape(x, rows, weight, bias);
    let mut out = Vec::with_capacity(rows * outputs);
    for row in x.chunks_exact(inputs) {
        for (n, weights) in weight.chunks_exact(inputs).enumerate() {
            out.push(dot(row, weights) + bias.map_or(0.0, |bias| bias[n]));
        }
    }
    out
}

/// A row's activations, quantised: in runs of 32, `quant = x * (127 / largest |x|)` to the nearest integer, ties to even, and
/// `scale = largest |x| / 127`; zeros where no `|x|` is above 1e-30.
///
/// Scale and reciprocal are rounded to `f32`, because they decide which integer is the nearest.
///
/// # Panics
/// If the row is not whole runs.
pub fn quantised_activations(row: &[f32]) -> Vec<(f64, Vec<i32>)> {
    assert!(row.len().is_multiple_of(32), "{} activations are no runs of 32", row.len());
    let quantise = |run: &[f32]| {
        let largest = run.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        if largest <= 1e-30 {
            return (0.0, vec![0; run.len()]);
        }
        let (scale, inverse) = (largest / 127.0, 127.0 / largest);
        // The product of two singles is exact in 64 bits.
        let nearest = |&x: &f32| (f64::from(x) * f64::from(inverse)).round_ties_even() as i32;
        (f64::from(scale), run.iter().map(nearest).collect())
    };
    row.chunks_exact(32).map(quantise).collect()
}

/// The terms that runs of quantised weights and activations add to one output, each a factor that kernels round and an exact one: for each
/// run of weights `scale * activation_scale` and the sum of `quant * activation`, and where it has a minimum `activation_scale` times the sum
/// of activations and `minimum`, in order.
pub fn quantised_terms(weights: &[Run], activations: &[(f64, Vec<i32>)]) -> Vec<(f64, f64)> {
    let mut terms = Vec::new();
    let mut first = 0;
    for run in weights {
        let (scale, quants) = &activations[first / 32];
        let quants = &quants[first % 32..][..run.quants.len()];
        let products: i32 = run.quants.iter().zip(quants).map(|(weight, x)| weight * x).sum();
        terms.push((run.scale * scale, f64::from(products)));
        if let Some(minimum) = run.minimum {
            terms.push((scale * f64::from(quants.iter().sum::<i32>()), minimum));
        }
        first += run.quants.len();
    }
    terms
}

/// The nearest number of eight significant bits, ties to even: 0 where its magnitude is below 2^-55, and infinity where it is 2^128 or more.
pub fn brain_float(x: f64) -> f64 {
    let power = |exponent| 2.0_f64.powi(exponent);
    if x.abs() < power(-56) {
        return 0.0;
    }
    let exponent = (x.to_bits() >> 52 & 0x7FF) as i32 - 1023;
    let spacing = power(exponent - 7);
    let nearest = (x / spacing).round_ties_even() * spacing;
    match nearest.abs() {
        magnitude if magnitude < power(-55) => 0.0,
        magnitude if magnitude >= power(128) => f64::INFINITY.copysign(nearest),
        _ => nearest,
    }
}

/// The angle of every pair at every position: `[T]` positions to `[T, head_dim / 2]` angles.
///
/// `inverse_frequency[i] = 1 / theta^(2i / head_dim)` and `position * inverse_frequency` are
/// rounded to `f32`, because the published model was trained with those roundings: at position
/// 100,000 they move a cosine by a thousandth.
///
/// # Panics
/// If `head_dim` is odd.
pub fn rope_angles(positions: &[u32], head_dim: usize, theta: f64) -> Vec<f64> {
    assert!(head_dim.is_multiple_of(2), "a head of {head_dim} has no pairs");
    let mut angles = Vec::with_capacity(positions.len() * head_dim / 2);
    for &position in positions {
        for pair in 0..head_dim / 2 {
            let exponent = (2 * pair) as f32 / head_dim as f32;
            let frequency = theta.powf(f64::from(exponent)) as f32;
            let inverse_frequency = 1.0 / frequency;
            angles.push(f64::from(position as f32 * inverse_frequency));
        }
    }
    angles
}

/// Rotates the pairs `(i, i + head_dim / 2)` of every head by their [`rope_angles`].
///
/// `out[i] = a cos - b sin` and `out[i + head_dim / 2] = b cos + a sin`; `x` is
/// `[T, heads, head_dim]`.
/// Source: Su et al., "RoFormer" (2021), with the halves paired as in GPT-NeoX.
///
/// # Panics
/// If `x` does not hold a row of `heads * head_dim` for every position, or `head_dim` is odd.
pub fn rope(x: &[f64], heads: usize, head_dim: usize, positions: &[u32], theta: f64) -> Vec<f64> {
    assert_eq!(x.len(), positions.len() * heads * head_dim, "x is [T, heads, head_dim]");
    let angles = rope_angles(positions, head_dim, theta);
    let half = head_dim / 2;
    let mut out = x.to_vec();
    for t in 0..positions.len() {
        for head in 0..heads {
            let first = (t * heads + head) * head_dim;
            for pair in 0..half {
                let (sine, cosine) = angles[t * half + pair].sin_cos();
                let (a, b) = (x[first + pair], x[first + half + pair]);
                out[first + pair] = a * cosine - b * sine;
                out[first + half + pair] = b * cosine + a * sine;
            }
        }
    }
    out
}

/// Exponentiates one row and scales it to sum to one: `exp(x - max) / sum(exp(x - max))`.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let maximum = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = x.iter().map(|value| (value - maximum).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|exponential| exponential / sum).collect()
}

/// Causal attention with grouped heads: `softmax(q k / sqrt(head_dim)) v`.
///
/// `query` is `[T, heads, head_dim]`, `key` and `value` are `[S, key_value_heads, head_dim]`, the
/// result is like `query`. The queries stand at the last `T` of the `S` positions and see the keys
/// up to their own. Head `j` reads key-value head `j / (heads / key_value_heads)`.
/// Source: Vaswani et al., "Attention Is All You Need" (2017); Ainslie et al., "GQA" (2023).
///
/// # Panics
/// If the lengths do not fit, `heads` is not a multiple of `key_value_heads`, or there are more
/// queries than keys.
pub fn attention(
    query: &[f64],
    key: &[f64],
    value: &[f64],
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
) -> Vec<f64> {
    let shape = AttentionShape::new(query, key, value, heads, key_value_heads, head_dim);
    let scale = 1.0 / (head_dim as f64).sqrt();
    let mut out = vec![0.0; query.len()];
    for t in 0..shape.queries {
        for head in 0..heads {
            let first = (t * heads + head) * head_dim;
            let query = &query[first..first + head_dim];
            let scores: Vec<f64> = (0..shape.visible(t))
                .map(|s| dot(query, shape.row(key, s, head)) * scale)
                .collect();
            let out = &mut out[first..first + head_dim];
            for (s, weight) in softmax(&scores).into_iter().enumerate() {
                for (out, value) in out.iter_mut().zip(shape.row(value, s, head)) {
                    *out += weight * value;
                }
            }
        }
    }
    out
}

/// Convolves every channel with its own taps, looking back only:
/// `out[t][c] = sum_k weight[c][k] * u[t - L + 1 + k][c] + bias[c]`.
///
/// `u` is `[T, width]`, `weight` `[width, L]` with the oldest tap first, `bias` `[width]`, and
/// `state` `[L - 1, width]` holds the rows before `u`, oldest first (zeros at the start of a
/// sequence). Returns the result `[T, width]` and the next state.
///
/// # Panics
/// If the lengths do not fit.
pub fn causal_convolution(
    u: &[f64],
    width: usize,
    weight: &[f64],
    bias: Option<&[f64]>,
    state: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let rows = row_count(u, width);
    let taps = tap_count(width, weight, bias);
    assert_eq!(state.len(), (taps - 1) * width, "the state has a row for all taps but the newest");
    let history = [state, u].concat();
    let mut out = Vec::with_capacity(u.len());
    for t in 0..rows {
        for channel in 0..width {
            let mut sum = 0.0;
            for k in 0..taps {
                sum += weight[channel * taps + k] * history[(t + k) * width + channel];
            }
            out.push(sum + bias.map_or(0.0, |bias| bias[channel]));
        }
    }
    (out, history[rows * width..].to_vec())
}

/// LFM2's gated short convolution: `C * causal_convolution(B * x)`.
///
/// A row of `bcx` `[T, 3 width]` is `B`, `C` and `x` side by side. The rest is as in
/// [`causal_convolution`], whose input, and so what the state holds, is `B * x`. Returns the result
/// `[T, width]` and the next state.
/// Source: Liquid AI, "LFM2 Technical Report" (2025).
///
/// # Panics
/// If the lengths do not fit.
pub fn short_conv(
    bcx: &[f64],
    width: usize,
    weight: &[f64],
    bias: Option<&[f64]>,
    state: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let [b, c, x] = split_in_three(bcx, width);
    let (convolved, state) = causal_convolution(&multiply(&b, &x), width, weight, bias, state);
    (multiply(&c, &convolved), state)
}

/// The axis along which issue #22287 shifts its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftAxis {
    /// As its prose says: chunk `i` is read `i` tokens back.
    Time,
    /// As its code does: chunk `i` is read `i` features back, within the chunk.
    Feature,
}

/// The sum of the three chunks of every row, chunk `i` shifted by `i` along `axis`, absent elements
/// being zero.
///
/// `chunks` is `[T, 3 width]`, the result `[T, width]`. The sequence begins at its first row.
/// Source: llama.cpp issue #22287.
///
/// # Panics
/// If `chunks` is not whole rows.
pub fn add_shifted_chunks(chunks: &[f64], width: usize, axis: ShiftAxis) -> Vec<f64> {
    let rows = row_count(chunks, 3 * width);
    let mut out = vec![0.0; rows * width];
    for t in 0..rows {
        for channel in 0..width {
            for i in 0..3 {
                let source = match axis {
                    ShiftAxis::Time => t.checked_sub(i).map(|t| (t, channel)),
                    ShiftAxis::Feature => channel.checked_sub(i).map(|channel| (t, channel)),
                };
                if let Some((from, feature)) = source {
                    out[t * width + channel] += chunks[from * 3 * width + i * width + feature];
                }
            }
        }
    }
    out
}

/// Issue #22287's mixer between its projections: [`add_shifted_chunks`], then
/// [`causal_convolution`], from the start of a sequence.
///
/// `chunks` is `[T, 3 width]`, `weight` `[width, L]` with the oldest tap first, the result
/// `[T, width]`. The issue pads by `L - 1` and keeps `T + L - 1` rows; here, as in the published
/// model, the first `T` are the result.
///
/// # Panics
/// If the lengths do not fit.
pub fn shift_sum(
    chunks: &[f64],
    width: usize,
    axis: ShiftAxis,
    weight: &[f64],
    bias: Option<&[f64]>,
) -> Vec<f64> {
    let start = vec![0.0; weight.len() - width];
    causal_convolution(&add_shifted_chunks(chunks, width, axis), width, weight, bias, &start).0
}

/// The gate of SwiGLU: `gate / (1 + exp(-gate)) * up`, element by element.
///
/// Source: Shazeer, "GLU Variants Improve Transformer" (2020).
///
/// # Panics
/// If the lengths differ.
pub fn silu_multiply(gate: &[f64], up: &[f64]) -> Vec<f64> {
    let silu: Vec<f64> = gate.iter().map(|gate| gate / (1.0 + (-gate).exp())).collect();
    multiply(&silu, up)
}

/// `a + b`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "both operands have one length");
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `a * b`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn multiply(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "both operands have one length");
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

/// The index of the largest element, the lowest one among equals.
///
/// # Panics
/// If `x` is empty.
pub fn argmax(x: &[f64]) -> usize {
    assert!(!x.is_empty(), "nothing has no maximum");
    let mut best = 0;
    for (index, value) in x.iter().enumerate() {
        if *value > x[best] {
            best = index;
        }
    }
    best
}

/// The logistic function, `1 / (1 + exp(-x))`, element by element.
pub fn sigmoid(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect()
}

/// The indices of the `used` largest of `ranks`, in ascending order; among equals the lowest, and NaN
/// is as small as -infinity.
///
/// # Panics
/// If there are fewer.
pub fn largest(ranks: &[f64], used: usize) -> Vec<usize> {
    let mut chosen = by_rank(ranks)[..used].to_vec();
    chosen.sort_unstable();
    chosen
}

/// All indices of `ranks`, that of the largest first.
pub(super) fn by_rank(ranks: &[f64]) -> Vec<usize> {
    let number =
        |index: usize| if ranks[index].is_nan() { f64::NEG_INFINITY } else { ranks[index] };
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    // A stable sort keeps equals in order. No number compares as unordered.
    order.sort_by(|&a, &b| number(b).partial_cmp(&number(a)).expect("no NaN"));
    order
}

/// How much each of the `chosen` experts of a row weighs: its score, divided by the sum of the chosen
/// scores and a millionth if weights are normalised, times `scale`.
///
/// Source: `Lfm2MoeSparseMoeBlock` of Hugging Face transformers.
pub fn expert_weights(scores: &[f64], chosen: &[usize], normalise: bool, scale: f64) -> Vec<f64> {
    let sum: f64 = chosen.iter().map(|&expert| scores[expert]).sum();
    let divisor = if normalise { sum + 1e-6 } else { 1.0 };
    chosen.iter().map(|&expert| scores[expert] / divisor * scale).collect()
}

/// `x + scale * y`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled(x: &[f64], y: &[f64], scale: f64) -> Vec<f64> {
    assert_eq!(x.len(), y.len(), "both operands have one length");
    x.iter().zip(y).map(|(x, y)| x + scale * y).collect()
}

/// The sizes of one call of [`attention`].
pub(super) struct AttentionShape {
    pub queries: usize,
    pub keys: usize,
    heads_per_key_value: usize,
    key_value_heads: usize,
    head_dim: usize,
}

impl AttentionShape {
    pub fn new(
        query: &[f64],
        key: &[f64],
        value: &[f64],
        heads: usize,
        key_value_heads: usize,
        head_dim: usize,
    ) -> AttentionShape {
        let queries = row_count(query, heads * head_dim);
        let keys = row_count(key, key_value_heads * head_dim);
        assert_eq!(key.len(), value.len(), "as many values as keys");
        assert!(
            heads.is_multiple_of(key_value_heads),
            "{heads} heads cannot share {key_value_heads} evenly"
        );
        assert!(queries <= keys, "{queries} queries at the last of {keys} positions");
        AttentionShape {
            queries,
            keys,
            heads_per_key_value: heads / key_value_heads,
            key_value_heads,
            head_dim,
        }
    }

    /// How many keys query `t` sees.
    pub fn visible(&self, t: usize) -> usize {
        self.keys - self.queries + t + 1
    }

    /// The part of position `s` that query head `head` reads.
    pub fn row<'a>(&self, key_or_value: &'a [f64], s: usize, head: usize) -> &'a [f64] {
        let first = (s * self.key_value_heads + head / self.heads_per_key_value) * self.head_dim;
        &key_or_value[first..first + self.head_dim]
    }
}

/// How many rows of `width` are in `x`.
pub(super) fn row_count(x: &[f64], width: usize) -> usize {
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "{} elements are not whole rows of {width}",
        x.len()
    );
    x.len() / width
}

/// The number of inputs and outputs of [`linear`].
pub(super) fn linear_shape(
    x: &[f64],
    rows: usize,
    weight: &[f64],
    bias: Option<&[f64]>,
) -> (usize, usize) {
    assert!(rows > 0 && x.len().is_multiple_of(rows), "{} elements are not {rows} rows", x.len());
    let inputs = x.len() / rows;
    let outputs = row_count(weight, inputs);
    if let Some(bias) = bias {
        assert_eq!(bias.len(), outputs, "a bias for every output");
    }
    (inputs, outputs)
}

/// How many taps a depthwise weight `[width, taps]` has.
pub(super) fn tap_count(width: usize, weight: &[f64], bias: Option<&[f64]>) -> usize {
    assert!(
        width > 0 && !weight.is_empty() && weight.len().is_multiple_of(width),
        "as many taps in every channel"
    );
    if let Some(bias) = bias {
        assert_eq!(bias.len(), width, "a bias for every channel");
    }
    weight.len() / width
}

/// Rows of three chunks as three arrays: `[T, 3 width]` to three of `[T, width]`.
pub(super) fn split_in_three(chunks: &[f64], width: usize) -> [Vec<f64>; 3] {
    row_count(chunks, 3 * width);
    [0, 1, 2].map(|i| {
        chunks
            .chunks_exact(3 * width)
            .flat_map(|row| &row[i * width..(i + 1) * width])
            .copied()
            .collect()
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    fn assert_close(actual: &[f64], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            let error = (actual - expected).abs();
            assert!(
                error <= 1e-13 * expected.abs().max(1.0),
                "element {index}: {actual} is not {expected}"
            );
        }
    }

    fn normal(random: &mut Random, length: usize) -> Vec<f64> {
        (0..length).map(|_| random.normal()).collect()
    }

    #[test]
    fn embedding_copies_rows() {
        assert_eq!(embedding(&[2, 0], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [5.0, 6.0, 1.0, 2.0]);
    }

    #[test]
    #[should_panic = "token 3 is outside a vocabulary of 3"]
    fn embedding_refuses_a_token_without_row() {
        embedding(&[3], &[0.0; 6], 2);
    }

    #[test]
    fn rms_norm_by_hand() {
        // The mean square of (3, 4) is 12.5, of (1, 1) it is 1; 3.5 and 15 more make 16 each.
        assert_close(&rms_norm(&[3.0, 4.0], &[2.0, -1.0], 3.5), &[1.5, -1.0]);
        assert_close(&rms_norm(&[1.0, 1.0, -1.0, 1.0], &[4.0, 8.0], 15.0), &[1.0, 2.0, -1.0, 2.0]);
    }

    #[test]
    fn linear_by_hand() {
        let weight = [1.0, 0.0, 2.0, -1.0, 1.0, 1.0];
        assert_eq!(
            linear(&[1.0, 2.0, 3.0, 0.0, 0.5, -1.0], 2, &weight, None),
            [7.0, 4.0, -2.0, -0.5]
        );
        assert_eq!(linear(&[1.0, 2.0, 3.0], 1, &weight, Some(&[10.0, 20.0])), [17.0, 24.0]);
    }

    #[test]
    fn brain_floats_by_hand() {
        // 2^-7 apart from 1 on, 2^-8 below.
        let steps = |count: f64| 1.0 + count / 128.0;
        let found = [0.5, 0.501, 1.499, 1.5, -0.25].map(|count| brain_float(steps(count)));
        assert_eq!(found, [steps(0.0), steps(1.0), steps(1.0), steps(2.0), steps(0.0)]);
        assert_eq!(brain_float(-3.0 - 1.0 / 128.0), -3.0);
        let least = 2.0_f64.powi(-55);
        assert_eq!([least, -least * 0.999, least * 0.998].map(brain_float), [least, -least, 0.0]);
        assert_eq!(brain_float(0.0), 0.0);
        assert_eq!(
            [3.3e38, 3.4e38, -3.4e38].map(brain_float),
            [brain_float(3.3e38), f64::INFINITY, f64::NEG_INFINITY]
        );
        assert!(brain_float(3.3e38) < 3.4e38 && brain_float(f64::NAN).is_nan());
    }

    #[test]
    fn rope_angles_are_rounded_twice() {
        // theta^(2/4) = 1000 exactly; 0.001 is not an f32, nor is 7 times the nearest one.
        let angles = rope_angles(&[0, 7], 4, 1e6);
        assert_eq!(angles, [0.0, 0.0, 7.0, f64::from(7.0_f32 * 0.001_f32)]);
        assert_ne!(angles[3], 0.007);
        assert_ne!(angles[3], 7.0 * f64::from(0.001_f32));
    }

    #[test]
    fn rope_rotates_halves() {
        let (sine, cosine) = 3.0_f64.sin_cos();
        let (slow_sine, slow_cosine) = f64::from(3.0_f32 * 0.001_f32).sin_cos();
        let expected = [
            cosine,
            2.0 * slow_cosine - 5.0 * slow_sine,
            sine,
            5.0 * slow_cosine + 2.0 * slow_sine,
        ];
        assert_close(&rope(&[1.0, 2.0, 0.0, 5.0], 1, 4, &[3], 1e6), &expected);
    }

    #[test]
    fn rope_preserves_norms_and_relative_positions() {
        let mut random = Random::new(1);
        let (query, key) = (normal(&mut random, 64), normal(&mut random, 64));
        let score = |query_position, key_position| {
            let query = rope(&query, 1, 64, &[query_position], 1e6);
            let key = rope(&key, 1, 64, &[key_position], 1e6);
            assert_close(
                &[dot(&query, &query)],
                &[dot(&normal(&mut Random::new(1), 64), &normal(&mut Random::new(1), 64))],
            );
            dot(&query, &key)
        };
        // Only close, because the angles are rounded to f32.
        assert!((score(9, 4) - score(105, 100)).abs() < 1e-3);
        assert!((score(9, 4) - score(4, 9)).abs() > 0.1);
    }

    #[test]
    fn softmax_by_hand() {
        assert_close(&softmax(&[0.0, 3.0_f64.ln()]), &[0.25, 0.75]);
        assert_close(&softmax(&[1000.0, 1000.0]), &[0.5, 0.5]);
        assert_eq!(softmax(&[]), [0.0; 0]);
        let row = softmax(&normal(&mut Random::new(2), 100));
        assert_close(&[row.iter().sum()], &[1.0]);
    }

    #[test]
    fn attention_with_one_key_returns_its_value() {
        let mut random = Random::new(3);
        let (query, key, value) =
            (normal(&mut random, 8), normal(&mut random, 2), normal(&mut random, 2));
        assert_close(&attention(&query, &key, &value, 4, 1, 2), &value.repeat(4));
    }

    #[test]
    fn attention_by_hand() {
        // Scores 0 and ln 3 after the scale of 1/2: weights 1/4 and 3/4 for the second query; the
        // first sees one key.
        let key = [0.0, 0.0, 0.0, 0.0, 2.0 * 3.0_f64.ln(), 0.0, 0.0, 0.0];
        let value = [4.0, 0.0, 8.0, 1.0, 8.0, 4.0, 0.0, 1.0];
        let query = [1.0, 0.0, 0.0, 0.0, 1.0, 7.0, 0.0, 0.0];
        let expected = [4.0, 0.0, 8.0, 1.0, 7.0, 3.0, 2.0, 1.0];
        assert_close(&attention(&query, &key, &value, 1, 1, 4), &expected);
        assert_close(&attention(&query[4..], &key, &value, 1, 1, 4), &expected[4..]);
    }

    #[test]
    fn attention_heads_share_key_value_heads_in_order() {
        assert_close(&attention(&[0.0; 4], &[0.0; 2], &[5.0, 6.0], 4, 2, 1), &[5.0, 5.0, 6.0, 6.0]);
    }

    #[test]
    fn convolution_by_hand() {
        let (out, state) =
            causal_convolution(&[1.0, 2.0, 3.0], 1, &[100.0, 10.0, 1.0], Some(&[0.5]), &[7.0, 8.0]);
        assert_eq!(out, [781.5, 812.5, 123.5]);
        assert_eq!(state, [2.0, 3.0]);
        let (_, state) = causal_convolution(&[1.0], 1, &[100.0, 10.0, 1.0], None, &[7.0, 8.0]);
        assert_eq!(state, [8.0, 1.0]);
    }

    #[test]
    fn convolution_with_only_the_newest_tap_is_identity() {
        let u = normal(&mut Random::new(4), 12);
        let (out, _) = causal_convolution(&u, 2, &[0.0, 0.0, 1.0, 0.0, 0.0, 1.0], None, &[9.0; 4]);
        assert_eq!(out, u);
    }

    #[test]
    fn short_conv_by_hand() {
        // Rows are B, C, x of two channels; only tap 2 of channel 0 and tap 1 of channel 1.
        let bcx = [2.0, 3.0, 10.0, 100.0, 5.0, 7.0, 1.0, 1.0, 1.0, 1.0, 4.0, 6.0];
        let (out, state) =
            short_conv(&bcx, 2, &[0.0, 0.0, 1.0, 0.0, 1.0, 0.0], None, &[0.0, 0.0, 0.0, 8.0]);
        assert_eq!(out, [100.0, 800.0, 4.0, 21.0]);
        assert_eq!(state, [10.0, 21.0, 4.0, 6.0]);
    }

    #[test]
    fn short_conv_in_chunks_is_short_conv() {
        let mut random = Random::new(5);
        let (width, rows) = (3, 7);
        let bcx = normal(&mut random, rows * 3 * width);
        let (weight, bias) = (normal(&mut random, width * 3), normal(&mut random, width));
        let start = vec![0.0; 2 * width];
        let whole = short_conv(&bcx, width, &weight, Some(&bias), &start);
        for cut in 0..=rows {
            let (first, second) = bcx.split_at(cut * 3 * width);
            let (mut out, state) = short_conv(first, width, &weight, Some(&bias), &start);
            let (rest, state) = short_conv(second, width, &weight, Some(&bias), &state);
            out.extend(rest);
            assert_eq!((out, state), whole);
        }
    }

    #[test]
    fn chunks_shift_along_either_axis() {
        let chunks = [
            1.0, 2.0, 10.0, 20.0, 100.0, 200.0, 3.0, 4.0, 30.0, 40.0, 300.0, 400.0, 5.0, 6.0, 50.0,
            60.0, 500.0, 600.0,
        ];
        assert_eq!(
            add_shifted_chunks(&chunks, 2, ShiftAxis::Time),
            [1.0, 2.0, 13.0, 24.0, 135.0, 246.0]
        );
        assert_eq!(
            add_shifted_chunks(&chunks, 2, ShiftAxis::Feature),
            [1.0, 12.0, 3.0, 34.0, 5.0, 56.0]
        );
    }

    #[test]
    fn shift_sum_by_hand() {
        let chunks = [1.0, 10.0, 100.0, 2.0, 20.0, 200.0, 3.0, 30.0, 300.0];
        // The sums are 1, 12, 123.
        let out = shift_sum(&chunks, 1, ShiftAxis::Time, &[1.0, 0.0, 2.0], Some(&[0.5]));
        assert_eq!(out, [2.5, 24.5, 247.5]);
    }

    #[test]
    fn silu_multiply_by_hand() {
        let out = silu_multiply(
            &[0.0, 3.0_f64.ln(), -(3.0_f64.ln()), -1e30, 1e30],
            &[5.0, 4.0, 4.0, 2.0, 2.0],
        );
        assert_close(&out, &[0.0, 3.0 * 3.0_f64.ln(), -(3.0_f64.ln()), 0.0, 2e30]);
    }

    #[test]
    fn add_and_multiply_by_hand() {
        assert_eq!(add(&[1.0, 2.0], &[3.0, -5.0]), [4.0, -3.0]);
        assert_eq!(multiply(&[1.0, 2.0], &[3.0, -5.0]), [3.0, -10.0]);
    }

    #[test]
    fn sigmoid_by_hand() {
        assert_close(
            &sigmoid(&[0.0, 3.0_f64.ln(), -(3.0_f64.ln()), -1e30]),
            &[0.5, 0.75, 0.25, 0.0],
        );
    }

    #[test]
    fn largest_takes_the_first_of_equals() {
        assert_eq!(largest(&[1.0, 3.0, 2.0, 3.0, 3.0], 2), [1, 3]);
        assert_eq!(largest(&[0.0, -0.0, 1.0], 2), [0, 2]);
        assert_eq!(largest(&[f64::NAN, 1.0, f64::NAN, -2.0], 3), [0, 1, 3]);
    }

    #[test]
    fn expert_weights_by_hand() {
        let scores = [0.25, 9.0, 0.75];
        assert_eq!(expert_weights(&scores, &[0, 2], false, 2.0), [0.5, 1.5]);
        let sum = 1.000_001;
        assert_close(&expert_weights(&scores, &[0, 2], true, 1.0), &[0.25 / sum, 0.75 / sum]);
    }

    #[test]
    fn add_scaled_by_hand() {
        assert_eq!(add_scaled(&[1.0, 2.0], &[3.0, -5.0], 2.0), [7.0, -8.0]);
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[-1.0]), 0);
        assert_eq!(argmax(&[0.0, -0.0]), 0);
    }
}
