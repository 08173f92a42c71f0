//! How far an `f32` kernel under the numeric contract may stray from the exact result, element by
//! element.
//!
//! Every bound is a running error analysis (Higham, *Accuracy and Stability of Numerical
//! Algorithms*, §3.3): the contract's operations are followed in order, and each one carries the
//! errors of its operands over and adds its own rounding. With `u = 2^-24`, an operation whose
//! exact result on the computed operands is `y` returns `y (1 + d)`, `|d| <= u`, or, if `y` is
//! subnormal, something within `2^-150` of it. If `x` is the true value and `e` bounds the error of
//! the operands' part, then `|y| <= |x| + e`, and the error after rounding is at most
//!
//! ```text
//! e + u (|x| + e) + 2^-150
//! ```
//!
//! This holds for any finite data. It is tighter than a bound by `n u sum |x| |w|`, since it uses
//! the partial sums that occur. A bound is infinite as soon as an intermediate result could leave
//! the range of `f32`.
//!
//! All functions take `f32` data widened to `f64`, and shapes as in [`super::ops`]; they panic
//! where those do.

use std::f64::consts::{LN_2, LOG2_E};

use super::ops::{self, AttentionShape, ShiftAxis};
use super::unary;

/// Half the distance between 1 and the next `f32`: the relative error of one rounding.
pub const UNIT_ROUNDOFF: f64 = 1.0 / (1_u64 << 24) as f64;

/// The relative error of the kernels' `exp`.
const EXP_RELATIVE: f64 = unary::EXP_RELATIVE * UNIT_ROUNDOFF;

/// What the kernels' `exp` may add to that where its result is subnormal: the spacing of subnormal
/// numbers, `2^-149`.
const EXP_ABSOLUTE: f64 = f32::from_bits(1) as f64;

/// As both, of the kernels' `exp2`, which returns 0 for less than `2^-126.5`.
const EXP2_RELATIVE: f64 = unary::EXP2_RELATIVE * UNIT_ROUNDOFF;
const EXP2_ABSOLUTE: f64 = f32::MIN_POSITIVE as f64;

/// Below this, `exp` is less than a quarter of the smallest `f32`, and a kernel must return 0.
const EXP_IS_ZERO: f64 = -105.0;

/// The error of one rounding of a subnormal result: half their spacing, `2^-150`.
const SUBNORMAL_ROUNDOFF: f64 = EXP_ABSOLUTE / 2.0;

/// The relative error of one `f64` operation of the oracle itself.
const ORACLE_ROUNDOFF: f64 = f64::EPSILON / 2.0;

/// Rule 3 of the contract: where a chain is cut.
const CHAIN_CUT: usize = 256;

/// Rule 9 of the contract: how many keys make a block, after which the running sums may be
/// rescaled, and a segment.
const KEY_BLOCK: usize = 64;
const KEY_SEGMENT: usize = 512;

/// A true value, and how far from it the kernel's value can be.
#[derive(Clone, Copy)]
struct Computed {
    value: f64,
    error: f64,
}

impl Computed {
    fn exact(value: f64) -> Computed {
        Computed { value, error: 0.0 }
    }

    /// The step in the module's text. A comparison with NaN is false, so NaN becomes infinite as
    /// well.
    fn round(self) -> Computed {
        let magnitude = self.value.abs() + self.error;
        let in_range = magnitude <= f64::from(f32::MAX);
        let error = self.error + UNIT_ROUNDOFF * magnitude + SUBNORMAL_ROUNDOFF;
        Computed { value: self.value, error: if in_range { error } else { f64::INFINITY } }
    }

    fn negate(self) -> Computed {
        Computed { value: -self.value, error: self.error }
    }

    fn add(self, other: Computed) -> Computed {
        Computed { value: self.value + other.value, error: self.error + other.error }.round()
    }

    /// `|x^ y^ - x y| = |x (y^ - y) + y (x^ - x) + (x^ - x)(y^ - y)|`, not yet rounded.
    fn product(self, other: Computed) -> Computed {
        let carried = self.value.abs() * other.error + other.value.abs() * self.error;
        Computed { value: self.value * other.value, error: carried + self.error * other.error }
    }

    fn multiply(self, other: Computed) -> Computed {
        self.product(other).round()
    }

    /// A fused multiply-add: one rounding.
    fn add_product(self, x: Computed, weight: Computed) -> Computed {
        let product = x.product(weight);
        Computed { value: self.value + product.value, error: self.error + product.error }.round()
    }

    /// `x^ / y^ - x / y = ((x^ - x) - (x / y)(y^ - y)) / y^`.
    fn divide(self, other: Computed) -> Computed {
        let value = self.value / other.value;
        let smallest = other.value.abs() - other.error;
        let carried = (self.error + value.abs() * other.error) / smallest;
        Computed { value, error: if smallest > 0.0 { carried } else { f64::INFINITY } }.round()
    }

    /// `sqrt(x) - sqrt(x - e) = e / (sqrt(x) + sqrt(x - e))`, the larger of the two sides.
    fn square_root(self) -> Computed {
        let value = self.value.sqrt();
        let smallest = (self.value - self.error).max(0.0).sqrt();
        let carried = if self.error == 0.0 { 0.0 } else { self.error / (value + smallest) };
        Computed { value, error: carried }.round()
    }

    /// `exp(x + e) - exp(x)`, the larger of the two sides, then the error of `exp` itself.
    fn exponential(self) -> Computed {
        let value = self.value.exp();
        let highest = self.value + self.error;
        if highest < EXP_IS_ZERO {
            return Computed { value, error: value };
        }
        let carried = grown_weight(self.value, self.error);
        Computed { value, error: carried + EXP_RELATIVE * (value + carried) + EXP_ABSOLUTE }
    }
}

/// `exp(exponent + error) - exp(exponent)`, also where `exp(error)` overflows or is close to one.
fn grown_weight(exponent: f64, error: f64) -> f64 {
    if error < 1.0 {
        exponent.exp() * error.exp_m1()
    } else {
        (exponent + error).exp() - exponent.exp()
    }
}

/// The relative error of `n` roundings after one another, `n u / (1 - n u)`.
fn roundings(n: usize) -> f64 {
    let product = n as f64 * UNIT_ROUNDOFF;
    product / (1.0 - product)
}

/// How many roundings one term of a row reduction (rule 5) of `n` terms goes through: its lane of
/// 32 adds `n / 32` terms, then two sets and four halvings are added. There are never more
/// additions than terms before the last; adding an identity is exact.
fn reduction_additions(n: usize) -> usize {
    (n.div_ceil(32) + 4).min(n.saturating_sub(1))
}

/// Rule 3: one fused multiply-add per term, pieces of 256 added in order; each step as in the
/// module's text.
///
/// The oracle's own error for a sum of `n` products is at most `n 2^-53 sum |x| |w|`.
fn chain(terms: impl Iterator<Item = (Computed, f64)>) -> Computed {
    let mut total = Computed::exact(0.0);
    let mut piece = Computed::exact(0.0);
    let (mut length, mut magnitude) = (0, 0.0);
    for (x, weight) in terms {
        if length > 0 && length % CHAIN_CUT == 0 {
            total = if length == CHAIN_CUT { piece } else { total.add(piece) };
            piece = Computed::exact(0.0);
        }
        piece = piece.add_product(x, Computed::exact(weight));
        magnitude += (x.value * weight).abs();
        length += 1;
    }
    let sum = if length <= CHAIN_CUT { piece } else { total.add(piece) };
    Computed { value: sum.value, error: sum.error + length as f64 * ORACLE_ROUNDOFF * magnitude }
}

/// Bounds for [`ops::linear`] (rule 4): a chain over the inputs, then the bias.
pub fn linear(x: &[f64], rows: usize, weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let (inputs, outputs) = ops::linear_shape(x, rows, weight, bias);
    let mut bounds = Vec::with_capacity(rows * outputs);
    for row in x.chunks_exact(inputs) {
        for (n, weights) in weight.chunks_exact(inputs).enumerate() {
            let sum =
                chain(row.iter().zip(weights).map(|(&x, &weight)| (Computed::exact(x), weight)));
            bounds.push(bias.map_or(sum, |bias| sum.add(Computed::exact(bias[n]))).error);
        }
    }
    bounds
}

/// The bound for an output that is the sum of [`ops::quantised_terms`] (rule 15), then the bias.
///
/// A term's first factor is a product of two numbers that are exact in singles, and is rounded once; its second one is exact. Then a fused
/// multiply-add rounds the sum.
pub fn quantised_sum(terms: &[(f64, f64)], bias: Option<f64>) -> f64 {
    let mut sum = Computed::exact(0.0);
    let mut magnitude = 0.0;
    for &(rounded, exact) in terms {
        sum = sum.add_product(Computed::exact(rounded).round(), Computed::exact(exact));
        magnitude += (rounded * exact).abs();
    }
    sum.error += terms.len() as f64 * ORACLE_ROUNDOFF * magnitude;
    bias.map_or(sum, |bias| sum.add(Computed::exact(bias))).error
}

/// Bounds for [`ops::rms_norm`] (rule 6).
///
/// All squares are positive, so their sum has a relative error of at most
/// `gamma = k u / (1 - k u)`, where `k` counts the roundings that one square goes through: its own,
/// shared with the first addition, and the additions of rule 5; squares that are subnormal add
/// `2^-150` each. Then the quotient by `n`, the sum with epsilon, root, reciprocal and two products
/// follow step by step.
pub fn rms_norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    let width = weight.len();
    ops::row_count(x, width);
    let mut bounds = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let squares: f64 = row.iter().map(|value| value * value).sum();
        let underflow = width as f64 * SUBNORMAL_ROUNDOFF;
        let error = roundings(reduction_additions(width) + 1) * (squares + underflow) + underflow;
        let in_range = squares + error <= f64::from(f32::MAX);
        let sum = Computed { value: squares, error: if in_range { error } else { f64::INFINITY } };
        let mean = sum.divide(Computed::exact(width as f64));
        let root = mean.add(Computed::exact(epsilon)).square_root();
        let scale = Computed::exact(1.0).divide(root);
        for (&value, &weight) in row.iter().zip(weight) {
            bounds.push(
                Computed::exact(value).multiply(scale).multiply(Computed::exact(weight)).error,
            );
        }
    }
    bounds
}

/// Bounds for [`ops::rope`] (rule 8).
///
/// The angle is the same `f32` on both sides. Sine and cosine are rounded once; `a sin` is rounded,
/// and a fused multiply-add adds the other product: `u (|a sin| + |a sin| + |b cos| + |out|)` to
/// first order.
pub fn rope(x: &[f64], heads: usize, head_dim: usize, positions: &[u32], theta: f64) -> Vec<f64> {
    assert_eq!(x.len(), positions.len() * heads * head_dim, "x is [T, heads, head_dim]");
    let angles = ops::rope_angles(positions, head_dim, theta);
    let half = head_dim / 2;
    let mut bounds = vec![0.0; x.len()];
    for t in 0..positions.len() {
        for head in 0..heads {
            let first = (t * heads + head) * head_dim;
            for pair in 0..half {
                let (sine, cosine) = angles[t * half + pair].sin_cos();
                let (sine, cosine) =
                    (Computed::exact(sine).round(), Computed::exact(cosine).round());
                let (a, b) =
                    (Computed::exact(x[first + pair]), Computed::exact(x[first + half + pair]));
                bounds[first + pair] = b.multiply(sine).negate().add_product(a, cosine).error;
                bounds[first + half + pair] = a.multiply(sine).add_product(b, cosine).error;
            }
        }
    }
    bounds
}

/// Bounds for [`ops::softmax`] (rule 11).
///
/// The maximum is exact; the difference from it is rounded, which `exp` turns into a relative
/// error; the sum of positive terms has the errors of its terms and a relative `k u / (1 - k u)`
/// with `k` as in rule 5; then one quotient.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let maximum = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<Computed> = x
        .iter()
        .map(|value| Computed::exact(below(*value, maximum)).round().exponential())
        .collect();
    let sum: f64 = exponentials.iter().map(|exponential| exponential.value).sum();
    let carried: f64 = exponentials.iter().map(|exponential| exponential.error).sum();
    let error = carried + roundings(reduction_additions(x.len())) * (sum + carried);
    exponentials
        .iter()
        .map(|exponential| exponential.divide(Computed { value: sum, error }).error)
        .collect()
}

/// `value - maximum`, not further down than where both exponentials are zero, so that the
/// difference cannot overflow.
fn below(value: f64, maximum: f64) -> f64 {
    (value - maximum).max(2.0 * EXP_IS_ZERO)
}

/// Bounds for [`ops::attention`] (rule 9).
///
/// Let `s[j]` be the scores of the visible keys, `w[j]` their softmax and `o = sum_j w[j] v[j]` the
/// result.
///
/// 1. *Scores.* The query is scaled by a rounded factor and rounded, and the chain over `head_dim`
///    follows: together an error of at most `d[j]`. The kernel's scores are powers of 2: `log2(e)`
///    times these, with an error of `log2(e) d[j]`.
/// 2. *Weights.* The kernel's weight is `exp(s[j] - M) exp(t)` with its own maximum `M`, which
///    cancels in the quotient, and `|t| <= d[j] + u |s[j] - M| + c EXP2_RELATIVE`: the differences
///    of all exponents on the way to `M` have one sign, so their roundings add up to
///    `u |s[j] - M|`, and `c` counts the exponentials multiplied: its own, one for each later block
///    of the segment, and one for each segment merged. So `w[j]` is off by at most
///    `r[j] = w[j] (exp(|t|) - 1)` before normalisation, and with `R = sum_j r[j]` the quotient by
///
///    ```text
///    |sum_j w'[j] v[j] / sum_j w'[j] - o| = |sum_j (w'[j] - w[j]) (v[j] - o)| / sum_j w'[j]
///                                        <= sum_j r[j] |v[j] - o| / (1 - R)
///    ```
///
///    If `R` is not small, the scores say nothing about the weights; but the quotient is still a
///    mean of values, so `max_j |v[j] - o|` bounds it.
/// 3. *Sum of values.* A running bound over the keys as in the module's text, with one more
///    rounding for each block but the first (the rescaling) and two for each segment merged.
/// 4. *Sum of weights.* Positive terms: relative `k u / (1 - k u)`, where `k` counts the additions
///    in one of sixteen lanes, rescalings, merges and the four halvings. Then one quotient.
/// 5. *Subnormals.* Each of the `c` exponentials may be off by `2^-126` besides, times factors of
///    at most one, while the sum of weights is about one or more.
pub fn attention(
    query: &[f64],
    key: &[f64],
    value: &[f64],
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
) -> Vec<f64> {
    let shape = AttentionShape::new(query, key, value, heads, key_value_heads, head_dim);
    let mut bounds = Vec::with_capacity(query.len());
    for t in 0..shape.queries {
        let visible = shape.visible(t);
        for head in 0..heads {
            let first = (t * heads + head) * head_dim;
            let query = scaled_query(&query[first..first + head_dim]);
            let keys = (0..visible).map(|s| shape.row(key, s, head));
            let score = |key: &[f64]| {
                let power = chain(query.iter().copied().zip(key.iter().copied()));
                Computed { value: power.value * LN_2, error: power.error * LN_2 }
            };
            let scores: Vec<Computed> = keys.map(score).collect();
            let values: Vec<&[f64]> = (0..visible).map(|s| shape.row(value, s, head)).collect();
            bounds.extend(weighted_mean(&scores, &values));
        }
    }
    bounds
}

/// A query times `log2(e) / sqrt(head_dim)`, which is rounded once from `f64`.
fn scaled_query(query: &[f64]) -> Vec<Computed> {
    let scale = LOG2_E / (query.len() as f64).sqrt();
    // Relative errors of `f64` are within what `n u / (1 - n u)` is more than `n u`.
    let scale = Computed { value: scale, error: roundings(1) * scale };
    query.iter().map(|&value| Computed::exact(value).multiply(scale)).collect()
}

/// Steps 2 to 5 of [`attention`] for one query and head.
fn weighted_mean(scores: &[Computed], values: &[&[f64]]) -> Vec<f64> {
    let keys = scores.len();
    let head_dim = values[0].len();
    let maximum = scores.iter().map(|score| score.value).fold(f64::NEG_INFINITY, f64::max);
    let score_error = scores.iter().map(|score| score.error).fold(0.0, f64::max);
    if !score_error.is_finite() {
        return vec![f64::INFINITY; head_dim];
    }
    let later_blocks = keys.min(KEY_SEGMENT).div_ceil(KEY_BLOCK) - 1;
    let merges = keys.div_ceil(KEY_SEGMENT) - 1;
    let exponentials = 1 + later_blocks + merges;

    let log_sum = scores.iter().map(|score| (score.value - maximum).exp()).sum::<f64>().ln();
    let mut weights = Vec::with_capacity(keys);
    let mut weight_errors = Vec::with_capacity(keys);
    for score in scores {
        let difference = -below(score.value - score.error - score_error, maximum);
        let exponent_error =
            score.error + UNIT_ROUNDOFF * difference + exponentials as f64 * EXP2_RELATIVE;
        let exponent = score.value - maximum - log_sum;
        weights.push(exponent.exp());
        weight_errors.push(grown_weight(exponent, exponent_error));
    }

    let mut mean = vec![0.0; head_dim];
    let mut magnitude = vec![0.0; head_dim];
    let mut displaced = vec![0.0; head_dim];
    for ((weight, weight_error), value) in weights.iter().zip(&weight_errors).zip(values) {
        for channel in 0..head_dim {
            mean[channel] += weight * value[channel];
            magnitude[channel] += value[channel].abs();
            displaced[channel] += weight_error * value[channel].abs();
        }
    }
    let sum_errors = value_sum_errors(&weights, values, &displaced);

    let lane_additions = keys.min(KEY_SEGMENT).div_ceil(16);
    let denominator = roundings(
        (lane_additions + later_blocks + 2 * merges + 4).min(keys + later_blocks + 2 * merges - 1),
    );
    let weights_error: f64 = weight_errors.iter().sum();
    let mut bounds = Vec::with_capacity(head_dim);
    for channel in 0..head_dim {
        let distances = values.iter().map(|value| (value[channel] - mean[channel]).abs());
        let farthest = distances.clone().fold(0.0, f64::max);
        let shifted: f64 =
            distances.zip(&weight_errors).map(|(distance, error)| distance * error).sum();
        let trusted = weights_error < 0.5;
        let (spread, sum_error) = if trusted {
            let left = 1.0 - weights_error;
            ((shifted / left).min(farthest), sum_errors[channel] / left)
        } else {
            let largest = values.iter().map(|value| value[channel].abs()).fold(0.0, f64::max);
            (farthest, roundings(keys + later_blocks + 2 * merges) * largest)
        };
        let carried = spread
            + (sum_error + denominator * (mean[channel].abs() + spread + sum_error))
                / (1.0 - denominator);
        let subnormal = exponentials as f64
            * EXP2_ABSOLUTE
            * (magnitude[channel] + keys as f64 * (1.0 + mean[channel].abs()));
        let in_range = magnitude[channel] < f64::from(f32::MAX) / 2.0;
        let quotient = Computed { value: mean[channel], error: carried + subnormal }.round();
        bounds.push(if in_range { quotient.error } else { f64::INFINITY });
    }
    bounds
}

/// Step 3 of [`attention`]. The sums are scaled to final weights, which changes no relative error;
/// `displaced` bounds how far the kernel's weights move any partial sum.
fn value_sum_errors(weights: &[f64], values: &[&[f64]], displaced: &[f64]) -> Vec<f64> {
    let head_dim = displaced.len();
    let round = |sum: f64, error: f64, displaced: f64| {
        error + UNIT_ROUNDOFF * (sum.abs() + error + displaced) + SUBNORMAL_ROUNDOFF
    };
    let mut totals = vec![Computed::exact(0.0); head_dim];
    for (segment, (weights, values)) in
        weights.chunks(KEY_SEGMENT).zip(values.chunks(KEY_SEGMENT)).enumerate()
    {
        let mut sums = vec![0.0; head_dim];
        let mut errors = vec![0.0; head_dim];
        for (j, (weight, value)) in weights.iter().zip(values).enumerate() {
            let rescaled = j > 0 && j % KEY_BLOCK == 0;
            for channel in 0..head_dim {
                if rescaled {
                    errors[channel] = round(sums[channel], errors[channel], displaced[channel]);
                }
                sums[channel] += weight * value[channel];
                errors[channel] = round(sums[channel], errors[channel], displaced[channel]);
            }
        }
        for channel in 0..head_dim {
            let total = totals[channel];
            let value = total.value + sums[channel];
            let error = if segment == 0 {
                errors[channel]
            } else {
                let scaled = round(total.value, total.error, displaced[channel]);
                round(value, scaled + errors[channel], displaced[channel])
            };
            totals[channel] = Computed { value, error };
        }
    }
    totals.iter().map(|total| total.error).collect()
}

/// Bounds for [`ops::causal_convolution`] (rule 10): a product, `L - 1` fused multiply-adds, the
/// bias. Those of the state are zero.
pub fn causal_convolution(
    u: &[f64],
    width: usize,
    weight: &[f64],
    bias: Option<&[f64]>,
    state: &[f64],
) -> Vec<f64> {
    let history: Vec<Computed> = [state, u].concat().into_iter().map(Computed::exact).collect();
    errors(&convolve(&history, width, weight, bias))
}

/// Bounds for [`ops::short_conv`] (rule 10) and for the state it leaves: `u = B x` is rounded, then
/// the convolution as in [`causal_convolution`], then the product with `C`.
pub fn short_conv(
    bcx: &[f64],
    width: usize,
    weight: &[f64],
    bias: Option<&[f64]>,
    state: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let [b, c, x] = ops::split_in_three(bcx, width);
    let gated = b.iter().zip(&x).map(|(&b, &x)| Computed::exact(b).multiply(Computed::exact(x)));
    let history: Vec<Computed> = state.iter().copied().map(Computed::exact).chain(gated).collect();
    let convolved = convolve(&history, width, weight, bias);
    let out: Vec<Computed> =
        c.iter().zip(&convolved).map(|(&c, &y)| Computed::exact(c).multiply(y)).collect();
    (errors(&out), errors(&history[history.len() - state.len()..]))
}

/// Bounds for [`ops::add_shifted_chunks`] (rule 10): two additions.
pub fn add_shifted_chunks(chunks: &[f64], width: usize, axis: ShiftAxis) -> Vec<f64> {
    errors(&added_chunks(chunks, width, axis))
}

/// Bounds for [`ops::shift_sum`] (rule 10): those of the sums carried through the convolution.
pub fn shift_sum(
    chunks: &[f64],
    width: usize,
    axis: ShiftAxis,
    weight: &[f64],
    bias: Option<&[f64]>,
) -> Vec<f64> {
    let mut history = vec![Computed::exact(0.0); weight.len() - width];
    history.extend(added_chunks(chunks, width, axis));
    errors(&convolve(&history, width, weight, bias))
}

/// The steps of [`ops::causal_convolution`] on a history of state and input.
fn convolve(
    history: &[Computed],
    width: usize,
    weight: &[f64],
    bias: Option<&[f64]>,
) -> Vec<Computed> {
    let taps = ops::tap_count(width, weight, bias);
    let rows = history.len() / width + 1 - taps;
    let mut out = Vec::with_capacity(rows * width);
    for t in 0..rows {
        for channel in 0..width {
            let mut sum = Computed::exact(0.0);
            for k in 0..taps {
                let tap = Computed::exact(weight[channel * taps + k]);
                sum = sum.add_product(history[(t + k) * width + channel], tap);
            }
            out.push(bias.map_or(sum, |bias| sum.add(Computed::exact(bias[channel]))));
        }
    }
    out
}

/// The steps of [`ops::add_shifted_chunks`]: each chunk alone is shifted exactly, then the three
/// are added.
fn added_chunks(chunks: &[f64], width: usize, axis: ShiftAxis) -> Vec<Computed> {
    let shifted = [0, 1, 2].map(|kept| {
        let mut alone = chunks.to_vec();
        for (index, element) in alone.iter_mut().enumerate() {
            if index % (3 * width) / width != kept {
                *element = 0.0;
            }
        }
        ops::add_shifted_chunks(&alone, width, axis)
    });
    let [first, second, third] =
        shifted.map(|chunk| chunk.into_iter().map(Computed::exact).collect::<Vec<_>>());
    (0..first.len()).map(|index| first[index].add(second[index]).add(third[index])).collect()
}

/// Bounds for [`ops::silu_multiply`] (rule 7), step by step: `e = exp(-|x|)`, `1 + e`, the
/// quotient, and two products.
pub fn silu_multiply(gate: &[f64], up: &[f64]) -> Vec<f64> {
    assert_eq!(gate.len(), up.len(), "both operands have one length");
    let bound = |(&gate, &up): (&f64, &f64)| {
        let one = Computed::exact(1.0);
        let exponential = Computed::exact(-gate.abs()).exponential();
        let numerator = if gate < 0.0 { exponential } else { one };
        let sigmoid = numerator.divide(one.add(exponential));
        Computed::exact(gate).multiply(sigmoid).multiply(Computed::exact(up)).error
    };
    gate.iter().zip(up).map(bound).collect()
}

/// Bounds for [`ops::add`]: one rounding.
pub fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "both operands have one length");
    a.iter().zip(b).map(|(&a, &b)| Computed::exact(a).add(Computed::exact(b)).error).collect()
}

/// Bounds for [`ops::add_scaled`]: one rounding.
pub fn add_scaled(x: &[f64], y: &[f64], scale: f64) -> Vec<f64> {
    assert_eq!(x.len(), y.len(), "both operands have one length");
    let scale = Computed::exact(scale);
    let bound = |(&x, &y)| Computed::exact(x).add_product(Computed::exact(y), scale).error;
    x.iter().zip(y).map(bound).collect()
}

/// Bounds for [`ops::expert_weights`] (rule 14), step by step: the sum of the chosen scores in order,
/// the millionth, itself rounded, the quotient and the product.
pub fn expert_weights(scores: &[f64], chosen: &[usize], normalise: bool, scale: f64) -> Vec<f64> {
    let scores = chosen.iter().map(|&expert| Computed::exact(scores[expert]));
    let sum = scores.clone().reduce(Computed::add).expect("a row has experts");
    let millionth = Computed { value: 1e-6, error: UNIT_ROUNDOFF * 1e-6 };
    let divisor = sum.add(millionth);
    let weight = |score: Computed| if normalise { score.divide(divisor) } else { score };
    scores.map(|score| weight(score).multiply(Computed::exact(scale)).error).collect()
}

/// Bounds for [`ops::multiply`]: one rounding.
pub fn multiply(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "both operands have one length");
    a.iter().zip(b).map(|(&a, &b)| Computed::exact(a).multiply(Computed::exact(b)).error).collect()
}

fn errors(computed: &[Computed]) -> Vec<f64> {
    computed.iter().map(|computed| computed.error).collect()
}
