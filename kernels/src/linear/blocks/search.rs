//! Scales and minimums for blocks of 256: for several widths of a step, the nearest quants and then the least squares for these; the best
//! of them is rounded.

use half::f16;

use super::{SuperBlock, extreme, largest_magnitude, reciprocal};

/// By how many steps more or fewer than there are the range of a group's weights is divided, to find quants: in tenths.
const TENTHS: std::ops::RangeInclusive<i8> = -10..=10;

/// The largest scale or minimum of six bits.
const LARGEST: f32 = 63.0;

/// A block of Q4_K or Q5_K, whose quants end at `largest`.
pub(super) fn with_minimums(weights: &[f32], largest: f32) -> SuperBlock {
    let mut fits = [(0.0, 0.0); 8];
    for (fit, weights) in fits.iter_mut().zip(weights.as_chunks().0) {
        *fit = fit_with_minimum(weights, largest);
    }
    let (scales, minimums) = (fits.map(|fit| fit.0), fits.map(|fit| fit.1));
    let scale = f16::from_f32(largest_magnitude(&scales) / LARGEST);
    let minimum = f16::from_f32(largest_magnitude(&minimums) / LARGEST);
    let rounded = |value: f32, unit: f16| nearest(value * reciprocal(unit.to_f32()), 0.0, LARGEST);

    let mut block = SuperBlock {
        scale,
        minimum,
        scales: [0; 16],
        minimums: Some(minimums.map(|value| rounded(value, minimum) as u8)),
        quants: [0; SuperBlock::WEIGHTS],
    };
    let groups = weights.chunks_exact(32).zip(block.quants.chunks_exact_mut(32));
    for (i, (weights, quants)) in groups.enumerate() {
        let group_scale = rounded(scales[i], scale);
        block.scales[i] = group_scale as i8;
        let inverse = reciprocal(scale.to_f32() * group_scale);
        let minimum = minimum.to_f32() * rounded(minimums[i], minimum);
        for (quant, weight) in quants.iter_mut().zip(weights) {
            *quant = nearest((weight + minimum) * inverse, 0.0, largest) as i8;
        }
    }
    block
}

/// A block of Q6_K.
pub(super) fn without_minimums(weights: &[f32]) -> SuperBlock {
    let mut scales = [0.0; 16];
    for (scale, weights) in scales.iter_mut().zip(weights.as_chunks().0) {
        *scale = fit_scale(weights);
    }
    let scale = f16::from_f32(largest_magnitude(&scales) / -128.0);
    let unit = reciprocal(scale.to_f32());
    let scales = scales.map(|value| nearest(value * unit, -128.0, 127.0));
    let mut quants = [0; SuperBlock::WEIGHTS];
    let groups = weights.chunks_exact(16).zip(quants.chunks_exact_mut(16));
    for ((weights, quants), group_scale) in groups.zip(scales) {
        let inverse = reciprocal(scale.to_f32() * group_scale);
        for (quant, weight) in quants.iter_mut().zip(weights) {
            *quant = nearest(weight * inverse, -32.0, 31.0) as i8;
        }
    }
    let scales = scales.map(|value| value as i8);
    SuperBlock { scale, minimum: f16::ZERO, scales, minimums: None, quants }
}

/// `scale` and `minimum`, neither below 0, for which `scale * q - minimum` is near the weights, with q from 0 to `largest`.
fn fit_with_minimum(weights: &[f32; 32], largest: f32) -> (f32, f32) {
    let low = extreme(weights, |a, b| a < b).min(0.0);
    let range = extreme(weights, |a, b| a > b) - low;
    let mut best = (range / largest, -low);
    let mut least = f64::INFINITY;
    let count = weights.len() as f64;
    let sum: f64 = weights.iter().copied().map(f64::from).sum();
    for tenths in TENTHS {
        let inverse = (largest + f32::from(tenths) / 10.0) * reciprocal(range);
        let quants = weights.map(|weight| nearest((weight - low) * inverse, 0.0, largest));
        let Moments { quants, squares, products } = Moments::of(&quants, weights);
        let determinant = count * squares - quants * quants;
        let mut scale = (count * products - quants * sum) / determinant;
        let mut offset = (squares * sum - quants * products) / determinant;
        if offset > 0.0 {
            (scale, offset) = (products / squares, 0.0);
        }
        // The sum of squared errors, less that of squared weights, which is the same for all.
        let error =
            scale * scale * squares + 2.0 * scale * offset * quants + count * offset * offset
                - 2.0 * (scale * products + offset * sum);
        if scale > 0.0 && error < least {
            (best, least) = ((scale as f32, -offset as f32), error);
        }
    }
    best
}

/// `scale` for which `scale * q` is near the weights, with q from -32 to 31.
fn fit_scale(weights: &[f32; 16]) -> f32 {
    // Takes the quant that has no opposite.
    let extreme = largest_magnitude(weights);
    let mut best = extreme / -32.0;
    let mut most = 0.0;
    for tenths in TENTHS {
        let inverse = (-32.0 + f32::from(tenths) / 10.0) * reciprocal(extreme);
        let quants = weights.map(|weight| nearest(weight * inverse, -32.0, 31.0));
        let Moments { squares, products, .. } = Moments::of(&quants, weights);
        // By how much the sum of squared errors is less than that of squared weights.
        let explained = products * products / squares;
        if explained > most {
            (best, most) = ((products / squares) as f32, explained);
        }
    }
    best
}

/// Sums over a group.
struct Moments {
    quants: f64,
    squares: f64,
    products: f64,
}

impl Moments {
    fn of(quants: &[f32], weights: &[f32]) -> Self {
        let (mut sum, mut squares, mut products) = (0.0, 0.0, 0.0);
        for (quant, weight) in quants.iter().zip(weights) {
            sum += quant;
            squares += quant * quant;
            products += f64::from(*quant) * f64::from(*weight);
        }
        Self { quants: f64::from(sum), squares: f64::from(squares), products }
    }
}

/// The nearest integer from `low` to `high`, ties to even.
fn nearest(value: f32, low: f32, high: f32) -> f32 {
    // Singles of this size are the integers. Unlike `round_ties_even`, it is no call on a CPU without that instruction.
    const INTEGERS: f32 = 12_582_912.0;
    value.clamp(low, high) + INTEGERS - INTEGERS
}
