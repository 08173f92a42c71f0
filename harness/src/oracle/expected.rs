//! What an `f32` kernel must return: the oracle's value and how far from it a right kernel can be.
//!
//! Shapes, formulas, sources and panics are those of the functions of the same name in
//! [`super::ops`]; the bounds are derived in [`super::bound`].

use super::blocks::Run;
use super::bound;
use super::ops::{self, ShiftAxis};

/// The true value of one element, and a bound on the error of a kernel that follows the numeric
/// contract.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// The oracle's value.
    pub value: f64,
    /// The largest error of a right kernel; infinite where it may leave the range of `f32`, or the
    /// data are not finite.
    pub bound: f64,
}

impl Expected {
    /// Joins a value and its bound. The bound grows by a part of `2^-12`, far more than the `f64`
    /// roundings in either.
    pub fn new(value: f64, bound: f64) -> Expected {
        let bound = bound * (1.0 + 1.0 / 4096.0);
        let in_range = value.abs() + bound <= f64::from(f32::MAX);
        Expected { value, bound: if in_range { bound } else { f64::INFINITY } }
    }

    /// Whether there is a bound. If not, kernels can only be compared with each other.
    pub fn is_bounded(&self) -> bool {
        self.bound.is_finite()
    }

    /// The error of `actual` as a fraction of the bound: at most 1 for a right kernel.
    ///
    /// It is 0 without a bound, and infinite if `actual` is not finite although there is one.
    pub fn fraction(&self, actual: f32) -> f64 {
        let error = (f64::from(actual) - self.value).abs();
        if !self.is_bounded() || error == 0.0 {
            0.0
        } else if error.is_finite() {
            error / self.bound
        } else {
            f64::INFINITY
        }
    }

    /// Whether `actual` is within the bound, or there is none.
    pub fn allows(&self, actual: f32) -> bool {
        self.fraction(actual) <= 1.0
    }
}

/// Expects [`ops::embedding`], exactly.
pub fn expected_embedding(tokens: &[u32], table: &[f32], width: usize) -> Vec<Expected> {
    ops::embedding(tokens, &widen(table), width)
        .into_iter()
        .map(|value| Expected::new(value, 0.0))
        .collect()
}

/// Expects [`ops::rms_norm`].
pub fn expected_rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<Expected> {
    let (x, weight, epsilon) = (widen(x), widen(weight), f64::from(epsilon));
    join(ops::rms_norm(&x, &weight, epsilon), bound::rms_norm(&x, &weight, epsilon))
}

/// Expects [`ops::linear`].
pub fn expected_linear(
    x: &[f32],
    rows: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<Expected> {
    let (x, weight, bias) = (widen(x), widen(weight), bias.map(widen));
    join(
        ops::linear(&x, rows, &weight, bias.as_deref()),
        bound::linear(&x, rows, &weight, bias.as_deref()),
    )
}

/// Expects [`ops::linear`] of [`ops::brain_float`]s.
pub fn expected_brain_linear(
    x: &[f32],
    rows: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<Expected> {
    let brain_floats = |values: &[f32]| widen(values).into_iter().map(ops::brain_float).collect();
    let (x, weight): (Vec<f64>, Vec<f64>) = (brain_floats(x), brain_floats(weight));
    let bias = bias.map(widen);
    join(
        ops::linear(&x, rows, &weight, bias.as_deref()),
        bound::linear(&x, rows, &weight, bias.as_deref()),
    )
}

/// Expects a linear layer of quantised weights and [`ops::quantised_activations`]: `weight` has the runs of each output.
pub fn expected_quantised_linear(
    x: &[f32],
    rows: usize,
    weight: &[Vec<Run>],
    bias: Option<&[f32]>,
) -> Vec<Expected> {
    let mut expected = Vec::with_capacity(rows * weight.len());
    for row in x.chunks_exact(x.len() / rows) {
        let activations = ops::quantised_activations(row);
        for (n, runs) in weight.iter().enumerate() {
            let terms = ops::quantised_terms(runs, &activations);
            let bias = bias.map(|bias| f64::from(bias[n]));
            let sum: f64 = terms.iter().map(|(rounded, exact)| rounded * exact).sum();
            let value = sum + bias.unwrap_or(0.0);
            expected.push(Expected::new(value, bound::quantised_sum(&terms, bias)));
        }
    }
    expected
}

/// Expects [`ops::rope`].
pub fn expected_rope(
    x: &[f32],
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    theta: f64,
) -> Vec<Expected> {
    let x = widen(x);
    join(
        ops::rope(&x, heads, head_dim, positions, theta),
        bound::rope(&x, heads, head_dim, positions, theta),
    )
}

/// Expects [`ops::softmax`].
///
/// A row with a NaN or +infinity, or with nothing above -infinity, has no softmax: all of it is NaN.
pub fn expected_softmax(x: &[f32]) -> Vec<Expected> {
    let has_none = x.iter().any(|x| x.is_nan() || *x == f32::INFINITY)
        || x.iter().all(|x| *x == f32::NEG_INFINITY);
    if has_none {
        return vec![Expected { value: f64::NAN, bound: 0.0 }; x.len()];
    }
    let x = widen(x);
    join(ops::softmax(&x), bound::softmax(&x))
}

/// Expects [`ops::attention`].
pub fn expected_attention(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
) -> Vec<Expected> {
    let (query, key, value) = (widen(query), widen(key), widen(value));
    join(
        ops::attention(&query, &key, &value, heads, key_value_heads, head_dim),
        bound::attention(&query, &key, &value, heads, key_value_heads, head_dim),
    )
}

/// Expects [`ops::causal_convolution`]; the next state is a copy, so only the result is returned.
pub fn expected_causal_convolution(
    u: &[f32],
    width: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    state: &[f32],
) -> Vec<Expected> {
    let (u, weight, bias, state) = (widen(u), widen(weight), bias.map(widen), widen(state));
    join(
        ops::causal_convolution(&u, width, &weight, bias.as_deref(), &state).0,
        bound::causal_convolution(&u, width, &weight, bias.as_deref(), &state),
    )
}

/// Expects [`ops::short_conv`]: the result and the next state.
pub fn expected_short_conv(
    bcx: &[f32],
    width: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    state: &[f32],
) -> (Vec<Expected>, Vec<Expected>) {
    let (bcx, weight, bias, state) = (widen(bcx), widen(weight), bias.map(widen), widen(state));
    let (out, next) = ops::short_conv(&bcx, width, &weight, bias.as_deref(), &state);
    let (out_bound, next_bound) = bound::short_conv(&bcx, width, &weight, bias.as_deref(), &state);
    (join(out, out_bound), join(next, next_bound))
}

/// Expects [`ops::add_shifted_chunks`].
pub fn expected_add_shifted_chunks(chunks: &[f32], width: usize, axis: ShiftAxis) -> Vec<Expected> {
    let chunks = widen(chunks);
    join(
        ops::add_shifted_chunks(&chunks, width, axis),
        bound::add_shifted_chunks(&chunks, width, axis),
    )
}

/// Expects [`ops::shift_sum`].
pub fn expected_shift_sum(
    chunks: &[f32],
    width: usize,
    axis: ShiftAxis,
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<Expected> {
    let (chunks, weight, bias) = (widen(chunks), widen(weight), bias.map(widen));
    join(
        ops::shift_sum(&chunks, width, axis, &weight, bias.as_deref()),
        bound::shift_sum(&chunks, width, axis, &weight, bias.as_deref()),
    )
}

/// Expects [`ops::silu_multiply`].
pub fn expected_silu_multiply(gate: &[f32], up: &[f32]) -> Vec<Expected> {
    let (gate, up) = (widen(gate), widen(up));
    join(ops::silu_multiply(&gate, &up), bound::silu_multiply(&gate, &up))
}

/// Expects [`ops::add`].
pub fn expected_add(a: &[f32], b: &[f32]) -> Vec<Expected> {
    let (a, b) = (widen(a), widen(b));
    join(ops::add(&a, &b), bound::add(&a, &b))
}

/// Expects [`ops::multiply`].
pub fn expected_multiply(a: &[f32], b: &[f32]) -> Vec<Expected> {
    let (a, b) = (widen(a), widen(b));
    join(ops::multiply(&a, &b), bound::multiply(&a, &b))
}

/// Expects [`ops::add_scaled`].
pub fn expected_add_scaled(x: &[f32], y: &[f32], scale: f32) -> Vec<Expected> {
    let (x, y, scale) = (widen(x), widen(y), f64::from(scale));
    join(ops::add_scaled(&x, &y, scale), bound::add_scaled(&x, &y, scale))
}

/// Expects the choice of one row, exactly: [`ops::largest`] of `score + bias`, which are rounded to
/// `f32`, because rule 14 says so: it makes equals of numbers that are not.
pub fn expected_choice(scores: &[f32], bias: &[f32], used: usize) -> Vec<usize> {
    let ranks: Vec<f32> = scores.iter().zip(bias).map(|(score, bias)| score + bias).collect();
    ops::largest(&widen(&ranks), used)
}

/// Expects [`ops::expert_weights`] of one row.
///
/// Where a chosen score is not finite, no rounding is left in what it reaches: its weight and, if
/// weights are normalised, all of them are infinite, NaN or 0.
pub fn expected_expert_weights(
    scores: &[f32],
    chosen: &[usize],
    normalise: bool,
    scale: f32,
) -> Vec<Expected> {
    let (scores, scale) = (widen(scores), f64::from(scale));
    let values = ops::expert_weights(&scores, chosen, normalise, scale);
    let is_finite = |expert: &usize| scores[*expert].is_finite();
    let exact = |value| Expected { value, bound: 0.0 };
    if normalise && !chosen.iter().all(is_finite) {
        return values.into_iter().map(exact).collect();
    }
    let bounds = bound::expert_weights(&scores, chosen, normalise, scale);
    let each = chosen.iter().zip(join(values, bounds));
    each.map(|(expert, expected)| if is_finite(expert) { expected } else { exact(expected.value) })
        .collect()
}

/// Expects [`ops::argmax`], exactly.
pub fn expected_argmax(x: &[f32]) -> usize {
    ops::argmax(&widen(x))
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

fn join(values: Vec<f64>, bounds: Vec<f64>) -> Vec<Expected> {
    assert_eq!(values.len(), bounds.len(), "every value has a bound");
    values.into_iter().zip(bounds).map(|(value, bound)| Expected::new(value, bound)).collect()
}

#[cfg(test)]
mod tests;
