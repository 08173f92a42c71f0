//! Kernels in plain `f32` as the numeric contract reads, held to their bounds, and wrong kernels,
//! which must leave them.

use super::super::random::Random;
use super::*;

/// The largest fraction of the bounds that a kernel uses up.
fn worst(expected: &[Expected], actual: &[f32]) -> f64 {
    assert_eq!(expected.len(), actual.len());
    expected
        .iter()
        .zip(actual)
        .map(|(expected, &actual)| expected.fraction(actual))
        .fold(0.0, f64::max)
}

/// Right kernels on friendly data stay inside and come near: a bound 100 times too large would not
/// be worth much.
fn assert_right_and_telling(expected: &[Expected], actual: &[f32]) {
    assert!(expected.iter().all(Expected::is_bounded));
    let fraction = worst(expected, actual);
    println!("worst fraction {fraction:.3}");
    assert!((0.01..=1.0).contains(&fraction), "worst fraction {fraction}");
}

/// Wrong kernels are seen in most elements that they get wrong.
fn assert_caught(expected: &[Expected], wrong: &[f32]) {
    let outside =
        expected.iter().zip(wrong).filter(|(expected, wrong)| !expected.allows(**wrong)).count();
    assert!(2 * outside > wrong.len(), "only {outside} of {} elements are outside", wrong.len());
}

/// Data that rounding and range treat badly: normal, then of all magnitudes, then subnormal and
/// small, then large.
fn data(random: &mut Random, kind: usize, length: usize) -> Vec<f32> {
    match kind {
        0 => random.normals(length),
        1 => random.wide(length, -40.0, 40.0),
        2 => random.wide(length, -149.0, -60.0),
        3 => random.wide(length, 40.0, 127.9),
        _ => random.wide(length, -149.0, 127.9),
    }
}

const KINDS: usize = 5;

fn transpose(x: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|column| x.iter().skip(column).step_by(width).copied()).collect()
}

mod kernel {
    pub fn chain(x: &[f32], weight: &[f32]) -> f32 {
        let mut total = 0.0;
        for (index, (x, weight)) in x.chunks(256).zip(weight.chunks(256)).enumerate() {
            let mut piece = 0.0;
            for (x, weight) in x.iter().zip(weight) {
                piece = x.mul_add(*weight, piece);
            }
            total = if index == 0 { piece } else { total + piece };
        }
        total
    }

    pub fn linear(x: &[f32], rows: usize, weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let inputs = x.len() / rows;
        let mut out = Vec::new();
        for row in x.chunks(inputs) {
            for (n, weight) in weight.chunks(inputs).enumerate() {
                let sum = chain(row, weight);
                out.push(bias.map_or(sum, |bias| sum + bias[n]));
            }
        }
        out
    }

    fn halve(mut lanes: [f32; 16]) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        lanes[0]
    }

    fn reduce(x: &[f32], step: impl Fn(f32, f32) -> f32) -> f32 {
        let mut sets = [[0.0; 16]; 2];
        for (i, &x) in x.iter().enumerate() {
            let lane = &mut sets[i / 16 % 2][i % 16];
            *lane = step(x, *lane);
        }
        let [mut lanes, second] = sets;
        for (lane, other) in lanes.iter_mut().zip(second) {
            *lane += other;
        }
        halve(lanes)
    }

    pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
        let mut out = Vec::new();
        for row in x.chunks(weight.len()) {
            let mean = reduce(row, |x, sum| x.mul_add(x, sum)) / weight.len() as f32;
            let scale = 1.0 / (mean + epsilon).sqrt();
            out.extend(row.iter().zip(weight).map(|(x, weight)| (x * scale) * weight));
        }
        out
    }

    pub fn rope(
        x: &[f32],
        heads: usize,
        head_dim: usize,
        positions: &[u32],
        theta: f64,
    ) -> Vec<f32> {
        let mut out = x.to_vec();
        for (t, &position) in positions.iter().enumerate() {
            for first in (0..heads).map(|head| (t * heads + head) * head_dim) {
                for i in 0..head_dim / 2 {
                    let inverse_frequency =
                        1.0 / theta.powf(2.0 * i as f64 / head_dim as f64) as f32;
                    let angle = f64::from(position as f32 * inverse_frequency);
                    let (sine, cosine) = (angle.sin() as f32, angle.cos() as f32);
                    let (a, b) = (x[first + i], x[first + head_dim / 2 + i]);
                    out[first + i] = a.mul_add(cosine, -(b * sine));
                    out[first + head_dim / 2 + i] = b.mul_add(cosine, a * sine);
                }
            }
        }
        out
    }

    pub fn softmax(x: &[f32]) -> Vec<f32> {
        let maximum = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponentials: Vec<f32> = x.iter().map(|x| (x - maximum).exp()).collect();
        let sum = reduce(&exponentials, |x, sum| sum + x);
        exponentials.iter().map(|exponential| exponential / sum).collect()
    }

    /// One head.
    pub fn attention(query: &[f32], key: &[f32], value: &[f32], head_dim: usize) -> Vec<f32> {
        let (queries, keys) = (query.len() / head_dim, key.len() / head_dim);
        let mut out = Vec::new();
        for (t, query) in query.chunks(head_dim).enumerate() {
            let visible = (keys - queries + t + 1) * head_dim;
            let scale = 1.0 / (head_dim as f32).sqrt();
            let query: Vec<f32> = query.iter().map(|query| query * scale).collect();
            let segments =
                key[..visible].chunks(512 * head_dim).zip(value[..visible].chunks(512 * head_dim));
            let parts = segments.map(|(key, value)| segment(&query, key, value));
            let merge = |(maximum, mut lanes, mut sums): Part,
                         (other, other_lanes, other_sums): Part| {
                let merged = if other > maximum { other } else { maximum };
                let (own, new) = ((maximum - merged).exp(), (other - merged).exp());
                for (total, part) in
                    lanes.iter_mut().zip(other_lanes).chain(sums.iter_mut().zip(other_sums))
                {
                    *total = part.mul_add(new, *total * own);
                }
                (merged, lanes, sums)
            };
            let (_, lanes, sums) = parts.reduce(merge).unwrap();
            let sum = halve(lanes);
            out.extend(sums.iter().map(|total| total / sum));
        }
        out
    }

    type Part = (f32, [f32; 16], Vec<f32>);

    fn segment(query: &[f32], key: &[f32], value: &[f32]) -> Part {
        let head_dim = query.len();
        let (mut maximum, mut lanes, mut sums) =
            (f32::NEG_INFINITY, [0.0; 16], vec![0.0; head_dim]);
        for (block, (key, value)) in
            key.chunks(64 * head_dim).zip(value.chunks(64 * head_dim)).enumerate()
        {
            let scores: Vec<f32> = key.chunks(head_dim).map(|key| chain(query, key)).collect();
            let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if highest > maximum {
                if block > 0 {
                    let factor = (maximum - highest).exp();
                    lanes.iter_mut().chain(&mut sums).for_each(|sum| *sum *= factor);
                }
                maximum = highest;
            }
            for (j, (score, value)) in scores.iter().zip(value.chunks(head_dim)).enumerate() {
                let p = (score - maximum).exp();
                lanes[j % 16] += p;
                for (sum, value) in sums.iter_mut().zip(value) {
                    *sum = p.mul_add(*value, *sum);
                }
            }
        }
        (maximum, lanes, sums)
    }

    pub fn causal_convolution(
        u: &[f32],
        width: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
        state: &[f32],
    ) -> Vec<f32> {
        let taps = weight.len() / width;
        let history = [state, u].concat();
        let mut out = Vec::new();
        for t in 0..u.len() / width {
            for channel in 0..width {
                let tap = |k: usize| weight[channel * taps + k];
                let mut y = tap(0) * history[t * width + channel];
                for k in 1..taps {
                    y = tap(k).mul_add(history[(t + k) * width + channel], y);
                }
                out.push(bias.map_or(y, |bias| y + bias[channel]));
            }
        }
        out
    }

    pub fn multiply(a: &[f32], b: &[f32]) -> Vec<f32> {
        a.iter().zip(b).map(|(a, b)| a * b).collect()
    }

    pub fn short_conv(
        bcx: &[f32],
        width: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
        state: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let part = |i: usize| -> Vec<f32> {
            bcx.chunks(3 * width)
                .flat_map(|row| &row[i * width..(i + 1) * width])
                .copied()
                .collect()
        };
        let u = multiply(&part(0), &part(2));
        let out = multiply(&part(1), &causal_convolution(&u, width, weight, bias, state));
        (out, [state, &u].concat()[u.len()..].to_vec())
    }

    /// Along features.
    pub fn add_shifted_chunks(chunks: &[f32], width: usize) -> Vec<f32> {
        let shifted = |row: &[f32], i: usize, channel: usize| {
            if channel < i { 0.0 } else { row[i * width + channel - i] }
        };
        let sum = |row, channel| {
            (shifted(row, 0, channel) + shifted(row, 1, channel)) + shifted(row, 2, channel)
        };
        chunks
            .chunks(3 * width)
            .flat_map(|row| (0..width).map(move |channel| sum(row, channel)))
            .collect()
    }

    pub fn silu_multiply(gate: &[f32], up: &[f32]) -> Vec<f32> {
        let silu = |gate: f32| {
            let e = (-gate.abs()).exp();
            gate * ((if gate < 0.0 { e } else { 1.0 }) / (1.0 + e))
        };
        gate.iter().zip(up).map(|(gate, up)| silu(*gate) * up).collect()
    }
}

#[test]
fn fractions() {
    let expected = Expected::new(1.0, 0.25);
    assert!(expected.fraction(1.25) < 1.0 && expected.fraction(1.25) > 0.999);
    assert!(expected.allows(0.75) && !expected.allows(0.7499));
    assert!(!expected.allows(f32::NAN) && !expected.allows(f32::INFINITY));
    let exact = Expected::new(1.0, 0.0);
    assert!(exact.allows(1.0) && !exact.allows(1.0 + f32::EPSILON) && !exact.allows(f32::NAN));
}

#[test]
fn beyond_the_range_of_f32_nothing_is_bounded() {
    for expected in
        [Expected::new(3.5e38, 0.0), Expected::new(1.0, 4e38), Expected::new(f64::NAN, 0.0)]
    {
        assert!(!expected.is_bounded());
        assert!(
            expected.allows(f32::INFINITY) && expected.allows(f32::NAN) && expected.allows(0.0)
        );
    }
    let large = [3e38_f32, 3e38, -3e38];
    assert!(
        !expected_linear(&large, 1, &[1.0, 1.0, 1.0], None)[0].is_bounded(),
        "the sum of the first two overflows"
    );
    assert!(expected_linear(&large, 1, &[1.0, 0.0, 1.0], None)[0].is_bounded());
    assert!(!expected_rms_norm(&large, &[1.0; 3], 1e-5)[0].is_bounded());
    assert!(!expected_rms_norm(&[0.0; 3], &[1.0; 3], 0.0)[0].is_bounded());
    assert!(!expected_multiply(&[1e20, f32::NAN], &[1e20, 1.0]).iter().any(Expected::is_bounded));
    assert!(!expected_attention(&large, &large, &[1.0; 3], 1, 1, 3)[0].is_bounded());
    assert!(expected_softmax(&large).iter().all(Expected::is_bounded));
}

#[test]
fn embedding_is_exact() {
    let expected = expected_embedding(&[1], &[1.0, 2.0, 3.0, 4.0], 2);
    assert_eq!(worst(&expected, &[3.0, 4.0]), 0.0);
    assert_eq!(worst(&expected, &[3.0, 4.0000005]), f64::INFINITY);
}

#[test]
fn linear() {
    let mut random = Random::new(10);
    for inputs in [1, 3, 64, 256, 257, 1000, 2304] {
        let (rows, outputs) = (3, 40);
        let (x, weight) = (random.normals(rows * inputs), random.normals(outputs * inputs));
        let bias = random.normals(outputs);
        let expected = expected_linear(&x, rows, &weight, Some(&bias));
        assert_right_and_telling(&expected, &kernel::linear(&x, rows, &weight, Some(&bias)));
        assert_caught(&expected, &kernel::linear(&x, rows, &weight, None));

        let mut shortened = x.clone();
        shortened.iter_mut().skip(inputs - 1).step_by(inputs).for_each(|last| *last = 0.0);
        assert_caught(&expected, &kernel::linear(&shortened, rows, &weight, Some(&bias)));
    }
    for kind in 0..KINDS {
        let (x, weight) = (data(&mut random, kind, 5 * 300), data(&mut random, 4 - kind, 20 * 300));
        assert!(
            worst(&expected_linear(&x, 5, &weight, None), &kernel::linear(&x, 5, &weight, None))
                <= 1.0
        );
    }
}

#[test]
fn rms_norm() {
    let mut random = Random::new(11);
    for width in [1, 16, 33, 64, 257, 1024] {
        let (x, weight) = (random.normals(9 * width), random.normals(width));
        let expected = expected_rms_norm(&x, &weight, 1e-5);
        assert_right_and_telling(&expected, &kernel::rms_norm(&x, &weight, 1e-5));
        assert_caught(&expected, &kernel::rms_norm(&x, &weight, 1.2e-4));
        assert_caught(
            &expected,
            &kernel::rms_norm(
                &x,
                &[weight[0]].repeat(width).iter().map(|w| w * 1.01).collect::<Vec<_>>(),
                1e-5,
            ),
        );
    }
    for kind in 0..KINDS {
        for magnitude in [0.0, -20.0, -45.0, -62.0, -70.0, -120.0] {
            let x = random.wide(900, magnitude - 20.0, magnitude);
            let weight = data(&mut random, kind, 100);
            for epsilon in [0.0, 1e-5] {
                let expected = expected_rms_norm(&x, &weight, epsilon);
                for (expected, actual) in
                    expected.iter().zip(kernel::rms_norm(&x, &weight, epsilon))
                {
                    assert!(expected.allows(actual), "{expected:?} {actual}");
                }
            }
        }
    }
}

#[test]
fn rope() {
    let mut random = Random::new(12);
    let positions = [0, 1, 2, 77, 4095, 127_999];
    let x = random.normals(positions.len() * 2 * 64);
    let expected = expected_rope(&x, 2, 64, &positions, 1e6);
    assert_right_and_telling(&expected, &kernel::rope(&x, 2, 64, &positions, 1e6));
    let late = positions.map(|position| position + 1);
    let wrong = kernel::rope(&x, 2, 64, &late, 1e6);
    assert!(worst(&expected, &wrong) > 1000.0);
    assert!(worst(&expected, &kernel::rope(&x, 4, 32, &positions, 1e6)) > 1000.0);
    for kind in 0..KINDS {
        let x = data(&mut random, kind, positions.len() * 2 * 64);
        let actual = kernel::rope(&x, 2, 64, &positions, 1e7);
        assert!(worst(&expected_rope(&x, 2, 64, &positions, 1e7), &actual) <= 1.0);
    }
}

#[test]
fn softmax() {
    let mut random = Random::new(13);
    for length in [1, 2, 31, 33, 64, 1000] {
        let x = random.normals(length);
        let expected = expected_softmax(&x);
        let actual = kernel::softmax(&x);
        if length == 1 {
            assert!(worst(&expected, &actual) <= 1.0);
            continue;
        }
        assert_right_and_telling(&expected, &actual);
        let mut dropped = kernel::softmax(&x[..length - 1]);
        dropped.push(0.0);
        assert_caught(&expected, &dropped);
    }
    for spread in [30.0, 90.0, 104.0, 200.0, 1e6, 3e38] {
        let x: Vec<f32> =
            (0..500).map(|_| (spread * (2.0 * random.uniform() - 1.0)) as f32).collect();
        assert!(worst(&expected_softmax(&x), &kernel::softmax(&x)) <= 1.0);
    }
}

#[test]
fn attention() {
    let mut random = Random::new(14);
    for (queries, keys, head_dim) in
        [(1, 1, 64), (5, 5, 64), (3, 64, 8), (2, 200, 64), (2, 700, 64), (2, 1200, 20)]
    {
        for sharpness in [0.2, 1.0, 4.0] {
            let query: Vec<f32> =
                random.normals(queries * head_dim).iter().map(|query| query * sharpness).collect();
            let (key, value) = (random.normals(keys * head_dim), random.normals(keys * head_dim));
            let expected = expected_attention(&query, &key, &value, 1, 1, head_dim);
            let actual = kernel::attention(&query, &key, &value, head_dim);
            if keys == 1 {
                assert!(worst(&expected, &actual) <= 1.0);
                continue;
            }
            assert_right_and_telling(&expected, &actual);
            // A sharper softmax may give the changed keys no weight.
            if sharpness > 1.0 {
                continue;
            }
            if queries > 1 {
                let early =
                    kernel::attention(&query[..query.len() - head_dim], &key, &value, head_dim);
                assert_caught(&expected[..early.len()], &early);
            }
            let doubled: Vec<f32> = query.iter().map(|query| query * 1.01).collect();
            assert_caught(
                &expected[head_dim..],
                &kernel::attention(&doubled, &key, &value, head_dim)[head_dim..],
            );
            let transposed = transpose(&value, head_dim);
            assert_caught(&expected, &kernel::attention(&query, &key, &transposed, head_dim));
        }
    }
}

#[test]
fn attention_shares_heads() {
    let mut random = Random::new(15);
    let (keys, head_dim) = (9, 16);
    let query = random.normals(4 * head_dim);
    let (key, value) = (random.normals(keys * 2 * head_dim), random.normals(keys * 2 * head_dim));
    let expected = expected_attention(&query, &key, &value, 4, 2, head_dim);
    let part = |x: &[f32], head: usize| -> Vec<f32> {
        x.chunks(2 * head_dim)
            .flat_map(|row| &row[head * head_dim..(head + 1) * head_dim])
            .copied()
            .collect()
    };
    let with_heads = |shared: [usize; 4]| -> Vec<f32> {
        let head = |(query, &shared): (&[f32], &usize)| {
            kernel::attention(query, &part(&key, shared), &part(&value, shared), head_dim)
        };
        query.chunks(head_dim).zip(&shared).flat_map(head).collect()
    };
    assert_right_and_telling(&expected, &with_heads([0, 0, 1, 1]));
    let interleaved = with_heads([0, 1, 0, 1]);
    assert_caught(&expected[head_dim..3 * head_dim], &interleaved[head_dim..3 * head_dim]);
}

#[test]
fn attention_of_all_magnitudes() {
    let mut random = Random::new(16);
    for keys in [3, 70, 600] {
        for exponent in [-140.0, -70.0, -10.0, 0.0, 3.0, 6.0, 10.0, 20.0, 40.0, 60.0, 63.0] {
            for kind in 0..KINDS {
                let query = random.wide(2 * 16, exponent - 6.0, exponent);
                let key = random.wide(keys * 16, exponent - 6.0, exponent);
                let value = data(&mut random, kind, keys * 16);
                let expected = expected_attention(&query, &key, &value, 1, 1, 16);
                for (expected, actual) in
                    expected.iter().zip(kernel::attention(&query, &key, &value, 16))
                {
                    assert!(
                        expected.allows(actual),
                        "{keys} keys, 2^{exponent}: {expected:?} {actual}"
                    );
                }
            }
        }
    }
}

#[test]
fn convolutions() {
    let mut random = Random::new(17);
    let (width, rows) = (50, 20);
    for taps in [1, 2, 3, 4] {
        let (weight, bias) = (random.normals(width * taps), random.normals(width));
        let (bcx, state) = (random.normals(rows * 3 * width), random.normals((taps - 1) * width));
        let (expected, expected_state) =
            expected_short_conv(&bcx, width, &weight, Some(&bias), &state);
        let (actual, actual_state) = kernel::short_conv(&bcx, width, &weight, Some(&bias), &state);
        assert_right_and_telling(&expected, &actual);
        if taps > 1 {
            assert_right_and_telling(&expected_state, &actual_state);
            let swapped: Vec<f32> =
                weight.chunks(taps).flat_map(|taps| taps.iter().rev()).copied().collect();
            assert_caught(
                &expected,
                &kernel::short_conv(&bcx, width, &swapped, Some(&bias), &state).0,
            );
            let (_, older) = kernel::short_conv(
                &bcx[..bcx.len() - 3 * width],
                width,
                &weight,
                Some(&bias),
                &state,
            );
            assert_caught(&expected_state, &older);
        }
        assert_caught(&expected, &kernel::short_conv(&bcx, width, &weight, None, &state).0);

        let u = &bcx[..rows * width];
        let expected = expected_causal_convolution(u, width, &weight, Some(&bias), &state);
        assert_right_and_telling(
            &expected,
            &kernel::causal_convolution(u, width, &weight, Some(&bias), &state),
        );

        for kind in 0..KINDS {
            let (bcx, weight) = (
                data(&mut random, kind, rows * 3 * width),
                data(&mut random, 4 - kind, width * taps),
            );
            let (expected, expected_state) =
                expected_short_conv(&bcx, width, &weight, None, &state);
            let (actual, actual_state) = kernel::short_conv(&bcx, width, &weight, None, &state);
            for (expected, actual) in
                expected.iter().zip(actual).chain(expected_state.iter().zip(actual_state))
            {
                assert!(expected.allows(actual), "{expected:?} {actual}");
            }
        }
    }
}

#[test]
fn shift_sum() {
    let mut random = Random::new(18);
    let (width, rows) = (40, 9);
    let chunks = random.normals(rows * 3 * width);
    let (weight, bias) = (random.normals(width * 3), random.normals(width));
    let expected = expected_add_shifted_chunks(&chunks, width, ShiftAxis::Feature);
    let sums = kernel::add_shifted_chunks(&chunks, width);
    assert_right_and_telling(&expected, &sums);
    assert_caught(&expected_add_shifted_chunks(&chunks, width, ShiftAxis::Time), &sums);

    let expected = expected_shift_sum(&chunks, width, ShiftAxis::Feature, &weight, Some(&bias));
    let start = vec![0.0; 2 * width];
    assert_right_and_telling(
        &expected,
        &kernel::causal_convolution(&sums, width, &weight, Some(&bias), &start),
    );
    assert_caught(&expected, &kernel::causal_convolution(&sums, width, &weight, None, &start));
}

#[test]
fn silu_multiply() {
    let mut random = Random::new(19);
    let (gate, up) = (random.normals(3000), random.normals(3000));
    let expected = expected_silu_multiply(&gate, &up);
    assert_right_and_telling(&expected, &kernel::silu_multiply(&gate, &up));
    assert_caught(&expected, &kernel::silu_multiply(&up, &gate));
    let gate: Vec<f32> = (0..40_000).map(|index| (index - 20_000) as f32 * 0.0075).collect();
    let up = random.wide(gate.len(), -30.0, 30.0);
    assert_right_and_telling(
        &expected_silu_multiply(&gate, &up),
        &kernel::silu_multiply(&gate, &up),
    );
    for kind in 0..KINDS {
        let (gate, up) = (data(&mut random, kind, 3000), data(&mut random, 4 - kind, 3000));
        for (expected, actual) in
            expected_silu_multiply(&gate, &up).iter().zip(kernel::silu_multiply(&gate, &up))
        {
            assert!(expected.allows(actual), "{expected:?} {actual}");
        }
    }
}

#[test]
fn add_and_multiply() {
    let mut random = Random::new(20);
    for kind in 0..KINDS {
        let (a, b) = (data(&mut random, kind, 3000), data(&mut random, 4 - kind, 3000));
        let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert!(worst(&expected_add(&a, &b), &sums) <= 1.0);
        assert!(worst(&expected_multiply(&a, &b), &kernel::multiply(&a, &b)) <= 1.0);
    }
    let (a, b) = (random.normals(3000), random.normals(3000));
    let products = kernel::multiply(&a, &b);
    assert_right_and_telling(&expected_multiply(&a, &b), &products);
    let off_by_two: Vec<f32> = products.iter().map(|product| product.next_up().next_up()).collect();
    assert_caught(&expected_multiply(&a, &b), &off_by_two);
}

#[test]
fn add_scaled() {
    let mut random = Random::new(21);
    for kind in 0..KINDS {
        let (x, y) = (data(&mut random, kind, 3000), data(&mut random, 4 - kind, 3000));
        let sums: Vec<f32> = x.iter().zip(&y).map(|(x, y)| y.mul_add(0.3, *x)).collect();
        assert!(worst(&expected_add_scaled(&x, &y, 0.3), &sums) <= 1.0);
    }
    let (x, y) = (random.normals(3000), random.normals(3000));
    let sums: Vec<f32> = x.iter().zip(&y).map(|(x, y)| y.mul_add(0.3, *x)).collect();
    assert_right_and_telling(&expected_add_scaled(&x, &y, 0.3), &sums);
    let swapped: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x.mul_add(0.3, *y)).collect();
    assert_caught(&expected_add_scaled(&x, &y, 0.3), &swapped);
}

#[test]
fn expert_weights() {
    let mut random = Random::new(22);
    let scores: Vec<f32> = random.normals(64).into_iter().map(|x| 1.0 / (1.0 + x.exp())).collect();
    let bias: Vec<f32> = random.normals(64).into_iter().map(|x| x / 8.0).collect();
    let chosen = expected_choice(&scores, &bias, 16);
    assert_ne!(chosen, expected_choice(&scores, &[0.0; 64], 16));
    let weights = |normalise: bool, scale: f32| -> Vec<f32> {
        let sum: f32 = chosen.iter().map(|&expert| scores[expert]).sum();
        let divisor = if normalise { sum + 1e-6 } else { 1.0 };
        chosen.iter().map(|&expert| scores[expert] / divisor * scale).collect()
    };
    let expected = expected_expert_weights(&scores, &chosen, true, 2.5);
    assert!(worst(&expected, &weights(true, 2.5)) <= 1.0);
    assert_caught(&expected, &weights(false, 2.5));
    assert_caught(&expected, &weights(true, 2.500_01));
    // Scores as small as the millionth.
    let scores = [1e-6, 3e-6];
    let expected = expected_expert_weights(&scores, &[0, 1], true, 1.0);
    assert!(worst(&expected, &[0.2, 0.6]) <= 1.0);
    assert_caught(&expected, &[0.25, 0.75]);
}

#[test]
fn weights_of_scores_that_are_not_finite() {
    let (infinity, nan) = (f32::INFINITY, f32::NAN);
    let of = |scores: &[f32], normalise| {
        let expected = expected_expert_weights(scores, &[0, 1], normalise, 2.0);
        assert!(expected.iter().all(Expected::is_bounded));
        [expected[0].value, expected[1].value]
    };
    assert_eq!(of(&[infinity, 0.5], false), [f64::INFINITY, 1.0]);
    assert!(of(&[nan, 0.5], false)[0].is_nan());
    assert!(of(&[nan, 0.5], true).iter().all(|weight| weight.is_nan()));
    let [first, second] = of(&[infinity, 0.5], true);
    assert!(first.is_nan() && second == 0.0);
}

/// A sum that is rounded makes equals of what is not equal.
#[test]
fn ranks_are_rounded() {
    let half = f32::EPSILON / 2.0;
    assert_eq!(expected_choice(&[0.0, half], &[1.0, 1.0], 1), [0]);
    assert_eq!(expected_choice(&[0.0, 2.0 * half], &[1.0, 1.0], 1), [1]);
}

#[test]
fn argmax_is_exact() {
    assert_eq!(expected_argmax(&[1.0, 2.0, 2.0]), 1);
}
