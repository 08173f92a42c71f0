//! Wrong twins of the operations: ours, called with arguments or results altered as a real bug would alter them.

use half::{bf16, f16};
use lfm2_kernels::Isa;
use lfm2_kernels::faults::reach;
use lfm2_kernels::linear::{Matrix, WeightFormat};
use lfm2_kernels::model::Logits;
use lfm2_kernels::ops::{self, RopeTable, Routing, ShiftAxis, ShortConv};
use lfm2_kernels::simd::LANES;

use super::{Class, Fault, Kind};
use crate::kernels::{Attention, Forward, Kernels, Route, ShiftSum};

const OURS: Kernels = Kernels::OURS;

const fn fault(
    name: &'static str,
    class: Class,
    ops: &'static [&'static str],
    kernels: Kernels,
) -> Fault {
    Fault { name, class, ops, kind: Kind::Kernels(kernels), equivalent: None }
}

const Q8_0: &[&str] = &["linear_q8_0", "embedding_q8_0"];
const Q4_0: &[&str] = &["linear_q4_0_int8", "embedding_q4_0"];
const Q5_0: &[&str] = &["linear_q5_0", "embedding_q5_0"];
const WITH_MINIMUM: &[&str] = &["linear_q4_1_int8", "linear_q5_1"];
const Q4_K: &[&str] = &["linear_q4_k_int8", "embedding_q4_k"];
const Q5_K: &[&str] = &["linear_q5_k", "embedding_q5_k"];
const Q6_K: &[&str] = &["linear_q6_k_int8", "embedding_q6_k"];

pub const BRAIN: &[&str] = &["linear_bf16_bf16"];

const EMBEDDING: &[&str] = &["embedding_f32", "embedding_f16", "embedding_bf16"];
const NORM: &[&str] = &["rms_norm"];
const SOFTMAX: &[&str] = &["softmax", "exp"];
const LINEAR: &[&str] = &["linear_f32", "linear_f16", "linear_bf16"];
const ROPE: &[&str] = &["rope"];
const ATTENTION: &[&str] = &["attention_f32", "attention_f16"];
const CONVOLUTION: &[&str] = &["short_conv"];
const SHIFT_SUM: &[&str] = &["shift_sum_time", "shift_sum_feature"];
const SILU: &[&str] = &["silu_multiply", "silu"];
const MODEL: &[&str] = &["model"];
const ROUTE: &[&str] = &["route"];

/// Every one.
#[rustfmt::skip]
pub const FAULTS: &[Fault] = &[
    fault("embedding row off by one", Class::Indexing, EMBEDDING, Kernels { embedding: next_row, ..OURS }),
    fault("embedding of all tokens is the first's", Class::Indexing, EMBEDDING, Kernels { embedding: first_row, ..OURS }),

    fault("norm epsilon outside the root", Class::Formula, NORM, Kernels { rms_norm: epsilon_outside, ..OURS }),
    fault("norm without epsilon", Class::Formula, NORM, Kernels { rms_norm: no_epsilon, ..OURS }),
    fault("norm weight plus one", Class::Formula, NORM, Kernels { rms_norm: weight_plus_one, ..OURS }),
    fault("norm sum not reset between rows", Class::Accumulator, NORM, Kernels { rms_norm: sum_not_reset, ..OURS }),
    fault("norm row stride wrong", Class::Indexing, NORM, Kernels { rms_norm: first_row_alone, ..OURS }),

    fault("softmax without its maximum", Class::Formula, SOFTMAX, Kernels { softmax: no_maximum, ..OURS }),
    fault("softmax drops its tail", Class::Tail, SOFTMAX, Kernels { softmax: softmax_without_tail, ..OURS }),
    fault("softmax over all rows", Class::Indexing, SOFTMAX, Kernels { softmax: one_row, ..OURS }),
    fault("softmax does nothing", Class::Trivial, SOFTMAX, Kernels { softmax: |_, _, _| reach(), ..OURS }),

    fault("linear drops its last outputs", Class::Tail, LINEAR, Kernels { linear: linear_without_tail, ..OURS }),
    fault("linear sum not reset between rows", Class::Accumulator, LINEAR, Kernels { linear: rows_add_up, ..OURS }),
    fault("linear adds the bias twice", Class::Accumulator, LINEAR, Kernels { linear: bias_twice, ..OURS }),
    fault("linear without bias", Class::Formula, LINEAR, Kernels { linear: no_bias, ..OURS }),
    fault("linear cuts its chains elsewhere", Class::Order, LINEAR, Kernels { linear: cut_in_halves, ..OURS }),
    fault("linear rounds its weights", Class::Precision, LINEAR, Kernels { linear: rounded_weights, ..OURS }),
    fault("linear transposes square matrices", Class::Indexing, LINEAR, Kernels { linear: transposed_square, ..OURS }),
    fault("linear row nine is row eight", Class::Indexing, LINEAR, Kernels { linear: ninth_row, ..OURS }),
    fault("linear threads leave a seam", Class::Threads, LINEAR, Kernels { linear: seam, ..OURS }),
    fault("linear returns what was there", Class::Trivial, LINEAR, Kernels { linear: |_, _, _, _, _| reach(), ..OURS }),

    fault("brain floats are cut", Class::Precision, BRAIN, Kernels { linear: |isa, x, weight, bias, out| changed(isa, x, weight, bias, out, |bits| bits & 0xFFFF_0000), ..OURS }),
    fault("brain floats round ties up", Class::Precision, BRAIN, Kernels { linear: |isa, x, weight, bias, out| changed(isa, x, weight, bias, out, |bits| (bits + 0x8000) & 0xFFFF_0000), ..OURS }),
    fault("pairs of activations change places", Class::Indexing, BRAIN, Kernels { linear: swapped_pairs, ..OURS }),
    fault("activations of the neighbouring pair", Class::Indexing, BRAIN, Kernels { linear: next_pair, ..OURS }),

    fault("nibbles change places", Class::Indexing, Q4_0, Kernels { pack: swapped_nibbles, ..OURS }),
    fault("a block has its neighbour's scale", Class::Indexing, Q8_0, Kernels { pack: neighbours_scale, ..OURS }),
    fault("scales are read as brain floats", Class::Precision, Q8_0, Kernels { pack: brain_scales, ..OURS }),
    fault("bytes are read unsigned", Class::Formula, Q8_0, Kernels { pack: unsigned_bytes, ..OURS }),
    fault("fifth bits are left out", Class::Formula, Q5_0, Kernels { pack: no_fifth_bits, ..OURS }),
    fault("fifth bits are one weight late", Class::Indexing, Q5_0, Kernels { pack: late_fifth_bits, ..OURS }),
    fault("minimums have the other sign", Class::Formula, WITH_MINIMUM, Kernels { pack: negative_minimums, ..OURS }),
    fault("scale and minimum change places", Class::Indexing, WITH_MINIMUM, Kernels { pack: swapped_halves, ..OURS }),
    fault("minimums of large blocks are added", Class::Formula, Q4_K, Kernels { pack: negative_minimums, ..OURS }),
    fault("finer scales are one run late", Class::Indexing, Q4_K, Kernels { pack: late_fine_scales, ..OURS }),
    fault("upper bits of finer scales are left out", Class::Formula, Q4_K, Kernels { pack: no_upper_scale_bits, ..OURS }),
    fault("fifth bits of large blocks are left out", Class::Formula, Q5_K, Kernels { pack: no_fifth_bits_of_large, ..OURS }),
    fault("high bits are left out", Class::Formula, Q6_K, Kernels { pack: no_high_bits, ..OURS }),
    fault("high bits are of the next quarter", Class::Indexing, Q6_K, Kernels { pack: late_high_bits, ..OURS }),
    fault("finer scales lose their sign", Class::Formula, Q6_K, Kernels { pack: unsigned_fine_scales, ..OURS }),
    fault("every block of a row is the first", Class::Indexing, Q6_K, Kernels { pack: first_block, ..OURS }),

    fault("rope pairs neighbours", Class::Formula, ROPE, Kernels { rope: interleaved, ..OURS }),
    fault("rope turns the other way", Class::Formula, ROPE, Kernels { rope: backwards, ..OURS }),
    fault("rope position off by one", Class::Indexing, ROPE, Kernels { rope: next_position, ..OURS }),
    fault("rope of the first head alone", Class::Indexing, ROPE, Kernels { rope: first_head, ..OURS }),

    fault("attention sees the future", Class::Mask, ATTENTION, Kernels { attention: ONE_KEY_MORE, ..OURS }),
    fault("attention misses the newest key", Class::Mask, ATTENTION, Kernels { attention: ONE_KEY_LESS, ..OURS }),
    fault("attention prefill without a mask", Class::Mask, ATTENTION, Kernels { attention: NO_MASK, ..OURS }),
    fault("attention heads mapped by remainder", Class::Indexing, ATTENTION, Kernels { attention: HEADS_BY_REMAINDER, ..OURS }),
    fault("attention without scale", Class::Formula, ATTENTION, Kernels { attention: NO_SCALE, ..OURS }),
    fault("attention threads forget a head", Class::Threads, ATTENTION, Kernels { attention: LAST_HEAD_MISSING, ..OURS }),

    fault("conv taps reversed", Class::Formula, CONVOLUTION, Kernels { short_conv: reversed_taps, ..OURS }),
    fault("conv gates swapped", Class::Formula, CONVOLUTION, Kernels { short_conv: swapped_gates, ..OURS }),
    fault("conv without bias", Class::Formula, CONVOLUTION, Kernels { short_conv: conv_without_bias, ..OURS }),
    fault("conv state not written", Class::State, CONVOLUTION, Kernels { short_conv: state_not_written, ..OURS }),
    fault("conv state not written on a short prefill", Class::State, CONVOLUTION, Kernels { short_conv: short_prefill, ..OURS }),
    fault("conv state shifted by one", Class::State, CONVOLUTION, Kernels { short_conv: shifted_state, ..OURS }),
    fault("conv stores padding in its state", Class::State, CONVOLUTION, Kernels { short_conv: padding_in_state, ..OURS }),
    fault("conv begins with zeros", Class::State, CONVOLUTION, Kernels { short_conv: state_not_read, ..OURS }),

    fault("shift-and-sum shifts swapped", Class::Formula, SHIFT_SUM, Kernels { shift_sum: SWAPPED_SHIFTS, ..OURS }),
    fault("shift-and-sum along the other axis", Class::Formula, SHIFT_SUM, Kernels { shift_sum: OTHER_AXIS, ..OURS }),
    fault("shift-and-sum state not written", Class::State, SHIFT_SUM, Kernels { shift_sum: SUMS_NOT_WRITTEN, ..OURS }),

    fault("silu_multiply swaps gate and up", Class::Formula, &["silu_multiply"], Kernels { silu_multiply: up_and_gate, ..OURS }),
    fault("silu_multiply counts its tail twice", Class::Tail, SILU, Kernels { silu_multiply: tail_twice, ..OURS }),
    fault("add drops its last element", Class::Tail, &["add"], Kernels { add: add_short, ..OURS }),
    fault("multiply does nothing", Class::Trivial, &["multiply"], Kernels { multiply: |_, _, _| reach(), ..OURS }),
    fault("argmax takes the last of equals", Class::Formula, &["argmax"], Kernels { argmax: last_of_equals, ..OURS }),
    fault("argmax stops at NaN", Class::Formula, &["argmax"], Kernels { argmax: stops_at_nan, ..OURS }),

    fault("add_scaled without scale", Class::Formula, &["add_scaled"], Kernels { add_scaled: |isa, x, y, _| { reach(); ops::add(isa, x, y) }, ..OURS }),
    fault("expert bias leaks into the weights", Class::Formula, ROUTE, Kernels { route: BIAS_IN_WEIGHTS, ..OURS }),
    fault("expert weights are never normalised", Class::Formula, ROUTE, Kernels { route: NOT_NORMALISED, ..OURS }),
    fault("expert weights without scale", Class::Formula, ROUTE, Kernels { route: NOT_SCALED, ..OURS }),
    fault("experts are chosen without bias", Class::Formula, ROUTE, Kernels { route: UNBIASED, ..OURS }),
    fault("expert bias of the neighbour", Class::Indexing, ROUTE, Kernels { route: BIAS_OF_NEIGHBOUR, ..OURS }),
    fault("tied experts: the highest index wins", Class::Formula, ROUTE, Kernels { route: LAST_OF_TIES, ..OURS }),
    fault("the last expert is never chosen", Class::Tail, ROUTE, Kernels { route: LAST_NEVER_CHOSEN, ..OURS }),
    fault("experts of the first row alone", Class::Indexing, ROUTE, Kernels { route: FIRST_ROW_ROUTES, ..OURS }),

    fault("state of another slot", Class::State, MODEL, Kernels { forward: OTHER_SLOT, ..OURS }),
    fault("logits of another slot", Class::Indexing, MODEL, Kernels { forward: OTHER_LOGITS, ..OURS }),
    fault("thread count changes a bit", Class::Threads, MODEL, Kernels { forward: BIT_WITH_THREADS, ..OURS }),
];

/// Packs blocks that `change` altered.
fn pack_changed(
    format: WeightFormat,
    outputs: usize,
    inputs: usize,
    bytes: &[u8],
    change: impl Fn(&mut [u8]),
) -> Matrix {
    let mut changed = bytes.to_vec();
    changed.chunks_exact_mut(format.block_bytes()).for_each(change);
    if changed != bytes {
        reach();
    }
    Matrix::from_le_bytes(format, outputs, inputs, &changed)
}

/// Wrong ways to pack, each a change of every block.
macro_rules! wrong_packing {
    ($($name:ident: $block:ident => $change:expr;)*) => {
        $(
            fn $name(format: WeightFormat, outputs: usize, inputs: usize, bytes: &[u8]) -> Matrix {
                pack_changed(format, outputs, inputs, bytes, |$block| $change)
            }
        )*
    };
}

wrong_packing! {
    swapped_nibbles: block => block[2..].iter_mut().for_each(|byte| *byte = byte.rotate_left(4));
    brain_scales: block => {
        let brain = bf16::from_le_bytes([block[0], block[1]]);
        block[..2].copy_from_slice(&f16::from_f32(brain.to_f32()).to_le_bytes());
    };
    unsigned_bytes: block => block[2..].iter_mut().for_each(|byte| *byte &= 0x7F);
    no_fifth_bits: block => block[2..6].fill(0);
    late_fifth_bits: block => {
        let bits = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        block[2..6].copy_from_slice(&(bits << 1).to_le_bytes());
    };
    negative_minimums: block => block[3] ^= 0x80;
    swapped_halves: block => block[..4].rotate_left(2);
    late_fine_scales: block => block[4..8].rotate_right(1);
    no_upper_scale_bits: block => block[4..12].iter_mut().for_each(|byte| *byte &= 0x3F);
    no_fifth_bits_of_large: block => block[16..48].fill(0);
    no_high_bits: block => block[128..192].fill(0);
    late_high_bits: block => block[128..192].iter_mut().for_each(|byte| *byte = byte.rotate_left(2));
    unsigned_fine_scales: block => block[192..208].iter_mut().for_each(|byte| *byte &= 0x7F);
}

fn neighbours_scale(format: WeightFormat, outputs: usize, inputs: usize, bytes: &[u8]) -> Matrix {
    reach();
    let size = format.block_bytes();
    let mut changed = bytes.to_vec();
    for block in 1..bytes.len() / size {
        changed.copy_within(block * size..block * size + 2, (block - 1) * size);
    }
    Matrix::from_le_bytes(format, outputs, inputs, &changed)
}

fn first_block(format: WeightFormat, outputs: usize, inputs: usize, bytes: &[u8]) -> Matrix {
    reach();
    let (row, size) = (format.bytes(inputs), format.block_bytes());
    let mut changed = bytes.to_vec();
    for row in changed.chunks_exact_mut(row) {
        for block in 1..row.len() / size {
            row.copy_within(..size, block * size);
        }
    }
    Matrix::from_le_bytes(format, outputs, inputs, &changed)
}

fn next_row(table: &Matrix, tokens: &[u32], out: &mut [f32]) {
    reach();
    let rows = table.outputs() as u32;
    let next: Vec<u32> = tokens.iter().map(|token| (token + 1) % rows).collect();
    ops::embedding(table, &next, out);
}

fn first_row(table: &Matrix, tokens: &[u32], out: &mut [f32]) {
    if tokens.len() > 1 {
        reach();
    }
    let first = vec![tokens.first().copied().unwrap_or(0); tokens.len()];
    ops::embedding(table, &first, out);
}

/// Calls the norm row by row, with what `epsilon` makes of a row's mean square, the one before and epsilon.
fn norm_with(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    out: &mut [f32],
    epsilon: impl Fn(f64, f64) -> f64,
) {
    let width = weight.len();
    let mut before = 0.0;
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        reach();
        let mean = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / width as f64;
        ops::rms_norm(isa, x, weight, epsilon(mean, before) as f32, out);
        before = mean;
    }
}

fn epsilon_outside(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let epsilon = f64::from(epsilon);
    norm_with(isa, x, weight, out, |mean, _| (mean.sqrt() + epsilon).powi(2) - mean);
}

fn no_epsilon(isa: Isa, x: &[f32], weight: &[f32], _: f32, out: &mut [f32]) {
    norm_with(isa, x, weight, out, |_, _| 0.0);
}

fn sum_not_reset(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    norm_with(isa, x, weight, out, |_, before| f64::from(epsilon) + before);
}

fn weight_plus_one(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    reach();
    let weight: Vec<f32> = weight.iter().map(|weight| weight + 1.0).collect();
    ops::rms_norm(isa, x, &weight, epsilon, out);
}

fn first_row_alone(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let rows = x.len() / weight.len();
    if rows > 1 {
        reach();
    }
    let x = x[..weight.len().min(x.len())].repeat(rows);
    ops::rms_norm(isa, &x, weight, epsilon, out);
}

/// What exponentials that are not brought near zero give: infinity over infinity.
fn no_maximum(isa: Isa, x: &mut [f32], length: usize) {
    for row in x.chunks_exact_mut(length) {
        if row.iter().any(|&x| x > 88.8) {
            reach();
            row.fill(f32::NAN);
        } else {
            ops::softmax(isa, row, length);
        }
    }
}

fn softmax_without_tail(isa: Isa, x: &mut [f32], length: usize) {
    let whole = length / LANES * LANES;
    for row in x.chunks_exact_mut(length) {
        if whole < length {
            reach();
        }
        ops::softmax(isa, &mut row[..whole], whole.max(1));
    }
}

fn one_row(isa: Isa, x: &mut [f32], length: usize) {
    if x.len() > length {
        reach();
    }
    let all = x.len().max(1);
    ops::softmax(isa, x, all);
}

fn linear_without_tail(
    isa: Isa,
    x: &[f32],
    weight: &Matrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let outputs = weight.outputs();
    let mut whole = vec![0.0; out.len()];
    ops::linear(isa, x, weight, bias, &mut whole);
    let kept = outputs / LANES * LANES;
    for (out, whole) in out.chunks_exact_mut(outputs).zip(whole.chunks_exact(outputs)) {
        if kept < outputs {
            reach();
        }
        out[..kept].copy_from_slice(&whole[..kept]);
    }
}

fn rows_add_up(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    ops::linear(isa, x, weight, bias, out);
    let outputs = weight.outputs();
    for i in outputs..out.len() {
        reach();
        out[i] += out[i - outputs];
    }
}

/// Takes other bits for those of a finite activation.
fn changed(
    isa: Isa,
    x: &[f32],
    weight: &Matrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
    change: impl Fn(u32) -> u32,
) {
    let change = |x: &f32| if x.is_finite() { f32::from_bits(change(x.to_bits())) } else { *x };
    let changed: Vec<f32> = x.iter().map(change).collect();
    if changed != x {
        reach();
    }
    ops::linear(isa, &changed, weight, bias, out);
}

fn swapped_pairs(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    let mut x = x.to_vec();
    for row in x.chunks_exact_mut(weight.inputs()) {
        for pair in row.as_chunks_mut::<2>().0 {
            reach();
            pair.swap(0, 1);
        }
    }
    ops::linear(isa, &x, weight, bias, out);
}

fn next_pair(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    let mut x = x.to_vec();
    for row in x.chunks_exact_mut(weight.inputs()) {
        if row.len() > 2 {
            reach();
            row.rotate_left(2);
        }
    }
    ops::linear(isa, &x, weight, bias, out);
}

fn bias_twice(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    ops::linear(isa, x, weight, bias, out);
    let Some(bias) = bias else { return };
    for (out, bias) in out.iter_mut().zip(bias.iter().cycle()) {
        reach();
        *out += bias;
    }
}

fn no_bias(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    if bias.is_some() {
        reach();
    }
    ops::linear(isa, x, weight, None, out);
}

/// As if two threads shared a chain.
fn cut_in_halves(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    let (inputs, outputs) = (weight.inputs(), weight.outputs());
    let half = inputs / 2;
    if half < LANES || out.is_empty() {
        return ops::linear(isa, x, weight, bias, out);
    }
    reach();
    let rows = weight.to_rows();
    let part = |from: usize, to: usize, out: &mut [f32], bias| {
        let cut = |all: &[f32]| -> Vec<f32> {
            all.chunks_exact(inputs).flat_map(|row| row[from..to].to_vec()).collect()
        };
        let weight = Matrix::from_f32(outputs, to - from, &cut(&rows));
        ops::linear(isa, &cut(x), &weight, bias, out);
    };
    let mut second = vec![0.0; out.len()];
    part(0, half, out, bias);
    part(half, inputs, &mut second, None);
    for (out, second) in out.iter_mut().zip(second) {
        *out += second;
    }
}

fn rounded_weights(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    reach();
    let bytes: Vec<u8> = weight
        .to_rows()
        .iter()
        .flat_map(|&weight| half::bf16::from_f32(weight).to_le_bytes())
        .collect();
    let rounded =
        Matrix::from_le_bytes(WeightFormat::Bf16, weight.outputs(), weight.inputs(), &bytes);
    ops::linear(isa, x, &rounded, bias, out);
}

fn transposed_square(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    let width = weight.inputs();
    if width != weight.outputs() || width == 1 {
        return ops::linear(isa, x, weight, bias, out);
    }
    reach();
    let rows = weight.to_rows();
    let transposed: Vec<f32> =
        (0..width * width).map(|i| rows[i % width * width + i / width]).collect();
    ops::linear(isa, x, &Matrix::from_f32(width, width, &transposed), bias, out);
}

fn ninth_row(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    let (inputs, outputs) = (weight.inputs(), weight.outputs());
    let mut x = x.to_vec();
    if out.len() > 8 * outputs {
        reach();
        x.copy_within(7 * inputs..8 * inputs, 8 * inputs);
    }
    ops::linear(isa, &x, weight, bias, out);
}

/// The element at the border of two threads is written before its sum is complete.
fn seam(isa: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    ops::linear(isa, x, weight, bias, out);
    if rayon::current_num_threads() > 1 && out.len() > 1 {
        reach();
        out[out.len() / 2] = 0.0;
    }
}

/// Rotates what `there` brings to the places that ours takes, and `back`.
fn rope_moved(
    isa: Isa,
    x: &mut [f32],
    heads: usize,
    table: &RopeTable,
    there: impl Fn(usize, usize) -> usize,
) {
    if x.is_empty() {
        return;
    }
    let head_dim = 2 * table.cosines(0).len();
    let place = |i: usize| i / head_dim * head_dim + there(i % head_dim, head_dim);
    let mut moved: Vec<f32> = (0..x.len()).map(|i| x[place(i)]).collect();
    if (0..x.len()).any(|i| place(i) != i) {
        reach();
    }
    ops::rope(isa, &mut moved, heads, table);
    for (i, moved) in moved.into_iter().enumerate() {
        x[place(i)] = moved;
    }
}

fn interleaved(isa: Isa, x: &mut [f32], heads: usize, table: &RopeTable) {
    rope_moved(isa, x, heads, table, |i, head_dim| 2 * i % head_dim + 2 * i / head_dim);
}

fn backwards(isa: Isa, x: &mut [f32], heads: usize, table: &RopeTable) {
    rope_moved(isa, x, heads, table, |i, head_dim| (i + head_dim / 2) % head_dim);
}

fn next_position(isa: Isa, x: &mut [f32], heads: usize, table: &RopeTable) {
    if x.is_empty() {
        return;
    }
    let row = heads * 2 * table.cosines(0).len();
    if x.len() > row {
        reach();
    }
    x.rotate_left(row);
    ops::rope(isa, x, heads, table);
    x.rotate_right(row);
}

fn first_head(isa: Isa, x: &mut [f32], heads: usize, table: &RopeTable) {
    if x.is_empty() {
        return;
    }
    let head_dim = 2 * table.cosines(0).len();
    let before = x.to_vec();
    ops::rope(isa, x, heads, table);
    for (i, x) in x.iter_mut().enumerate() {
        if !(i / head_dim).is_multiple_of(heads) {
            reach();
            *x = before[i];
        }
    }
}

const ONE_KEY_MORE: Attention = |isa, query, query_heads, cache, first_position, out| {
    let rows = out.len() / (query_heads * cache.head_dim());
    let later = usize::from(first_position + rows < cache.len());
    if later > 0 && rows > 0 {
        reach();
    }
    ops::attention(isa, query, query_heads, cache, first_position + later, out);
};

const ONE_KEY_LESS: Attention = |isa, query, query_heads, cache, first_position, out| {
    if first_position > 0 {
        reach();
    }
    ops::attention(isa, query, query_heads, cache, first_position.saturating_sub(1), out);
};

const NO_MASK: Attention = |isa, query, query_heads, cache, first_position, out| {
    let row = query_heads * cache.head_dim();
    let last = first_position + (out.len() / row).saturating_sub(1);
    for (query, out) in query.chunks_exact(row).zip(out.chunks_exact_mut(row)) {
        if last > first_position {
            reach();
        }
        ops::attention(isa, query, query_heads, cache, last, out);
    }
};

/// Query head `h` reads key head `h mod heads` instead of `h / group`.
const HEADS_BY_REMAINDER: Attention = |isa, query, query_heads, cache, first_position, out| {
    let (head_dim, heads) = (cache.head_dim(), cache.heads());
    let group = query_heads / heads;
    // The place among ours that reads the key head which head `h` should not.
    let place = |i: usize| {
        let (row, h, at) = (i / head_dim / query_heads, i / head_dim % query_heads, i % head_dim);
        (row * query_heads + h % heads * group + h / heads) * head_dim + at
    };
    if group > 1 && heads > 1 && !out.is_empty() {
        reach();
    }
    let mut moved = vec![0.0; query.len()];
    let mut results = vec![0.0; out.len()];
    for (i, query) in query.iter().enumerate() {
        moved[place(i)] = *query;
    }
    ops::attention(isa, &moved, query_heads, cache, first_position, &mut results);
    for (i, out) in out.iter_mut().enumerate() {
        *out = results[place(i)];
    }
};

const NO_SCALE: Attention = |isa, query, query_heads, cache, first_position, out| {
    reach();
    let root = (cache.head_dim() as f32).sqrt();
    let query: Vec<f32> = query.iter().map(|query| query * root).collect();
    ops::attention(isa, &query, query_heads, cache, first_position, out);
};

const LAST_HEAD_MISSING: Attention = |isa, query, query_heads, cache, first_position, out| {
    ops::attention(isa, query, query_heads, cache, first_position, out);
    if rayon::current_num_threads() > 1 && !out.is_empty() {
        reach();
        let head = out.len() - cache.head_dim();
        out[head..].fill(0.0);
    }
};

fn reversed_taps(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    if conv.length() > 1 {
        reach();
    }
    let mut weight = conv.weight();
    weight.chunks_exact_mut(conv.length()).for_each(<[f32]>::reverse);
    let conv = ShortConv::new(conv.width(), &weight, conv.bias().map(<[f32]>::to_vec));
    ops::short_conv(isa, bcx, &conv, state, out);
}

/// Rows of three chunks in another order.
fn chunks_swapped(rows: &[f32], width: usize, one: usize, other: usize) -> Vec<f32> {
    let mut rows = rows.to_vec();
    for row in rows.chunks_exact_mut(3 * width) {
        reach();
        for i in 0..width {
            row.swap(one * width + i, other * width + i);
        }
    }
    rows
}

fn swapped_gates(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    ops::short_conv(isa, &chunks_swapped(bcx, conv.width(), 0, 1), conv, state, out);
}

fn conv_without_bias(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    if conv.bias().is_some() {
        reach();
    }
    let conv = ShortConv::new(conv.width(), &conv.weight(), None);
    ops::short_conv(isa, bcx, &conv, state, out);
}

fn state_not_written(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    reach();
    ops::short_conv(isa, bcx, conv, &mut state.to_vec(), out);
}

fn short_prefill(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    if out.len() >= state.len() {
        return ops::short_conv(isa, bcx, conv, state, out);
    }
    reach();
    ops::short_conv(isa, bcx, conv, &mut state.to_vec(), out);
}

fn shifted_state(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    ops::short_conv(isa, bcx, conv, state, out);
    if conv.length() > 2 {
        reach();
        state.rotate_left(conv.width());
    }
}

/// As if a short prompt had been padded on the right.
fn padding_in_state(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    let is_short = !out.is_empty() && out.len() < state.len();
    ops::short_conv(isa, bcx, conv, state, out);
    if is_short {
        reach();
        state.copy_within(conv.width().., 0);
        let last = state.len() - conv.width();
        state[last..].fill(0.0);
    }
}

fn state_not_read(isa: Isa, bcx: &[f32], conv: &ShortConv, state: &mut [f32], out: &mut [f32]) {
    reach();
    state.fill(0.0);
    ops::short_conv(isa, bcx, conv, state, out);
}

const SWAPPED_SHIFTS: ShiftSum = |isa, projected, axis, conv, state, out| {
    let mut swapped = chunks_swapped(projected, conv.width(), 1, 2);
    ops::shift_sum(isa, &mut swapped, axis, conv, state, out);
    projected.copy_from_slice(&chunks_swapped(&swapped, conv.width(), 1, 2));
};

const OTHER_AXIS: ShiftSum = |isa, projected, axis, conv, state, out| {
    reach();
    let other = match axis {
        ShiftAxis::Time => ShiftAxis::Feature,
        ShiftAxis::Feature => ShiftAxis::Time,
    };
    ops::shift_sum(isa, projected, other, conv, state, out);
};

const SUMS_NOT_WRITTEN: ShiftSum = |isa, projected, axis, conv, state, out| {
    reach();
    let sums = state.sums.clone();
    ops::shift_sum(isa, projected, axis, conv, state, out);
    state.sums = sums;
};

fn up_and_gate(isa: Isa, gate: &mut [f32], up: &[f32]) {
    reach();
    let old = gate.to_vec();
    gate.copy_from_slice(up);
    ops::silu_multiply(isa, gate, &old);
}

fn tail_twice(isa: Isa, gate: &mut [f32], up: &[f32]) {
    ops::silu_multiply(isa, gate, up);
    let tail = gate.len() / LANES * LANES;
    if tail < gate.len() {
        reach();
        ops::silu_multiply(isa, &mut gate[tail..], &up[tail..]);
    }
}

fn add_short(isa: Isa, x: &mut [f32], y: &[f32]) {
    let length = x.len().saturating_sub(1);
    reach();
    ops::add(isa, &mut x[..length], &y[..length]);
}

fn last_of_equals(isa: Isa, x: &[f32]) -> usize {
    let first = ops::argmax(isa, x);
    let last = x.iter().rposition(|value| *value == x[first]).unwrap_or(first);
    if last != first {
        reach();
    }
    last
}

fn stops_at_nan(isa: Isa, x: &[f32]) -> usize {
    match x.iter().position(|x| x.is_nan()) {
        Some(at) => {
            reach();
            at
        }
        None => ops::argmax(isa, x),
    }
}

const BIAS_IN_WEIGHTS: Route = |isa, scores, bias, routing, choice, weights| {
    let biased: Vec<f32> =
        scores.iter().zip(bias.iter().cycle()).map(|(score, bias)| score + bias).collect();
    if bias.iter().any(|&bias| bias != 0.0) {
        reach();
    }
    ops::route(isa, &biased, &vec![0.0; bias.len()], routing, choice, weights);
};

const NOT_NORMALISED: Route = |isa, scores, bias, routing, choice, weights| {
    if routing.normalise {
        reach();
    }
    let routing = Routing { normalise: false, ..routing };
    ops::route(isa, scores, bias, routing, choice, weights);
};

const NOT_SCALED: Route = |isa, scores, bias, routing, choice, weights| {
    if routing.scale != 1.0 {
        reach();
    }
    ops::route(isa, scores, bias, Routing { scale: 1.0, ..routing }, choice, weights);
};

const UNBIASED: Route = |isa, scores, bias, routing, choice, weights| {
    if bias.iter().any(|&bias| bias != 0.0) {
        reach();
    }
    ops::route(isa, scores, &vec![0.0; bias.len()], routing, choice, weights);
};

const BIAS_OF_NEIGHBOUR: Route = |isa, scores, bias, routing, choice, weights| {
    if bias.len() > 1 {
        reach();
    }
    let mut bias = bias.to_vec();
    bias.rotate_left(1);
    ops::route(isa, scores, &bias, routing, choice, weights);
};

/// Routes from the last expert to the first.
const LAST_OF_TIES: Route = |isa, scores, bias, routing, choice, weights| {
    let (count, used) = (bias.len(), routing.used);
    if count > used {
        reach();
    }
    let reversed = |values: &[f32], length: usize| -> Vec<f32> {
        values.chunks_exact(length).flat_map(|row| row.iter().rev().copied()).collect()
    };
    ops::route(isa, &reversed(scores, count), &reversed(bias, count), routing, choice, weights);
    weights.copy_from_slice(&reversed(weights, used));
    for choice in choice.chunks_exact_mut(used) {
        choice.reverse();
        choice.iter_mut().for_each(|expert| *expert = count as u32 - 1 - *expert);
    }
};

const LAST_NEVER_CHOSEN: Route = |isa, scores, bias, routing, choice, weights| {
    let mut bias = bias.to_vec();
    if let [.., last] = &mut bias[..] {
        reach();
        *last = f32::NEG_INFINITY;
    }
    ops::route(isa, scores, &bias, routing, choice, weights);
};

const FIRST_ROW_ROUTES: Route = |isa, scores, bias, routing, choice, weights| {
    let rows = scores.len() / bias.len();
    if rows > 1 {
        reach();
    }
    let first = scores[..bias.len().min(scores.len())].repeat(rows);
    ops::route(isa, &first, bias, routing, choice, weights);
};

/// A batched kernel that takes the first two sequences' states for each other's.
const OTHER_SLOT: Forward = |model, isa, sequences, scratch, logits| {
    if let [first, second, ..] = sequences {
        reach();
        std::mem::swap(first.state, second.state);
    }
    let result = model.forward(isa, sequences, scratch, logits);
    if let [first, second, ..] = sequences {
        std::mem::swap(first.state, second.state);
    }
    result
};

const OTHER_LOGITS: Forward = |model, isa, sequences, scratch, logits| {
    let vocabulary = model.config().vocabulary;
    match logits {
        Logits::Last(logits) if sequences.len() > 1 => {
            reach();
            model.forward(isa, sequences, scratch, Logits::Last(logits))?;
            logits.rotate_left(vocabulary);
            Ok(())
        }
        logits => model.forward(isa, sequences, scratch, logits),
    }
};

const BIT_WITH_THREADS: Forward = |model, isa, sequences, scratch, mut logits| {
    let lent = match &mut logits {
        Logits::All(logits) => Logits::All(logits),
        Logits::Last(logits) => Logits::Last(logits),
    };
    model.forward(isa, sequences, scratch, lent)?;
    let (Logits::All(written) | Logits::Last(written)) = logits;
    if let (3.., Some(last)) = (rayon::current_num_threads(), written.last_mut()) {
        reach();
        *last = last.next_up();
    }
    Ok(())
};
