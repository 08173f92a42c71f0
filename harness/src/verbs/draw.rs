//! Operands: numbers at the edges of what verbs do, and random ones.

use half::bf16;
use lfm2_kernels::simd::LANES;
use lfm2_kernels::simd::verbs::{Operands, Takes};

use crate::data::Stream;
use crate::fill;

/// Where rounding, signs and ranges change: zeros, the ends of the subnormal and of the normal range, halves and neighbours of one, what is not
/// finite.
const EDGES: [f32; 20] = [
    0.0,
    -0.0,
    f32::from_bits(1),
    -f32::from_bits(1),
    f32::from_bits(0x007F_FFFF),
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    0.5,
    1.0,
    -1.0,
    1.0 + f32::EPSILON,
    1.0 - f32::EPSILON / 2.0,
    2.5,
    16_777_215.0,
    -16_777_217.0,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

/// Integers at the ends of their range and around 24 bits, where floats begin to round.
const INTEGER_EDGES: [i32; 12] = [
    0,
    1,
    -1,
    i32::MAX,
    i32::MIN,
    0x00FF_FFFF,
    0x0100_0001,
    0x0100_0003,
    -0x0100_0001,
    0x7FFF_FFBF,
    0x7FFF_FFC0,
    0x0080_7C01,
];

/// Bytes at the ends of their range, as weights and as activations.
const BYTE_EDGES: [u8; 8] = [0, 1, 0x3F, 0x7F, 0x81, 0xFF, 0x80, 0xC0];

/// The operands of one trial.
pub fn operands(takes: Takes, stream: Stream) -> Operands {
    let draws = move |what: u64, lane: usize| {
        move |draw: u64| stream.bits(draw + 16 * (lane as u64 + LANES as u64 * what))
    };
    let lanes = |what| std::array::from_fn(|lane| number(draws(what, lane)));
    let words = |what| std::array::from_fn(|lane| integer(draws(what, lane)));
    let mut operands = Operands {
        lanes: [lanes(0), lanes(1), lanes(2)],
        words: [words(3), words(4), words(5)],
        count: stream.below(u64::MAX, 32),
    };
    let Operands { lanes: [first, second, third], words, .. } = &mut operands;
    for lane in 0..LANES {
        let draw = draws(6, lane);
        match takes {
            Takes::Lanes(3) => {
                let [a, b, c] = factors_and_term(draw, [first[lane], second[lane], third[lane]]);
                (first[lane], second[lane], third[lane]) = (a, b, c);
            }
            Takes::Scaled => {
                first[lane] = f32::from_bits(draw(0) as u32 & 0x80FF_FFFF | 0x3F00_0000);
                second[lane] = (draw(1) % 321) as f32 - 160.0;
            }
            Takes::Integers => first[lane] = f32::from(draw(0) as i8),
            Takes::Bytes => {
                words[0][lane] = draw(0) as i32 >> 8;
                words[1][lane] = bytes(draw(1), draw(2), false);
                words[2][lane] = bytes(draw(3), draw(4), true);
            }
            Takes::Groups => {
                words[0][lane] = bytes(draw(1), draw(2), true);
                words[1][lane] = bytes(draw(3), draw(4), false);
                words[2][lane] = bytes(draw(5), draw(6), false);
            }
            Takes::BrainFloats => {
                let pair = |draw: [u64; 2]| brain_float(draw[0]) | brain_float(draw[1]) << 16;
                first[lane] = flushed(first[lane]);
                words[1][lane] = pair([draw(0), draw(1)]).cast_signed();
                words[2][lane] = pair([draw(2), draw(3)]).cast_signed();
            }
            Takes::Lanes(_) | Takes::AllLanes | Takes::Words(_) => {}
        }
    }
    operands
}

/// Of either sign.
fn signed(bits: u64, magnitude: f32) -> f32 {
    if bits >> 63 == 0 { magnitude } else { -magnitude }
}

fn number(draw: impl Fn(u64) -> u64) -> f32 {
    let bits = draw(1);
    match draw(0) % 8 {
        0 => EDGES[(bits % EDGES.len() as u64) as usize],
        1 => f32::from_bits(bits as u32),
        2 => signed(bits, power_of_two((bits % 276) as i32 - 149)),
        3 => (bits % 33) as f32 - 16.0,
        _ => {
            let power = power_of_two((draw(2) % 9) as i32 - 4);
            signed(bits, f32::from_bits(bits as u32 & 0x007F_FFFF | 0x3F80_0000) * power)
        }
    }
}

/// Numbers whose product and sum tell how often it was rounded.
fn factors_and_term(draw: impl Fn(u64) -> u64, [a, b, c]: [f32; 3]) -> [f32; 3] {
    let odd = |draw: u64, bits: u32| (draw % (1 << (bits - 1)) * 2 + 1) as f32;
    let power = |draw: u64, lowest: i32, highest: i32| {
        power_of_two(lowest + (draw % (highest - lowest + 1) as u64) as i32)
    };
    match draw(0) % 10 {
        // A sum that cancels, up to what rounding left of the product.
        0 => {
            let product = -(a * b);
            let neighbours = [product.next_down(), product, product.next_up()];
            [a, b, neighbours[(draw(1) % 3) as usize]]
        }
        // A product of 25 bits, halfway between two floats, and a term that is far too small for anything but to break the tie.
        1 => {
            let [a, b] = [odd(draw(1), 13), odd(draw(2), 12)];
            [signed(draw(3), a), b, signed(draw(4), power(draw(5), -149, -30))]
        }
        // A product that is nearer to half of the term's last bit than 53 bits can tell.
        2 => {
            let term = f32::from_bits(draw(1) as u32 & 0x007F_FFFF | 0x3F80_0000);
            let scale = power(draw(2), -60, 60);
            let near = [1.0 + f32::EPSILON, 1.0 - f32::EPSILON];
            let half = signed(draw(3), power_of_two(-24) * scale);
            [half * near[0], near[1], signed(draw(4), term * scale)]
        }
        // Results that are subnormal or not quite, also halfway between two.
        3 => {
            let [a, b] = [odd(draw(1), 12), odd(draw(2), 12)];
            let scale = power(draw(3), -100, -60);
            let smallest = (draw(4) % 1024) as f32 * f32::from_bits(1);
            [signed(draw(5), a * scale), b * power(draw(6), -90, -60), signed(draw(7), smallest)]
        }
        // The same with a term below what the product leaves.
        4 => {
            let a = odd(draw(1), 24) * power_of_two(-90);
            let b = odd(draw(2), 24) * power(draw(3), -110, -80);
            [a, b, signed(draw(4), power(draw(5), -149, -120))]
        }
        // At the end of the range.
        5 => {
            let a = (1.0 + odd(draw(1), 20) / 1_048_576.0) * power_of_two(64);
            let b = (1.0 + odd(draw(2), 20) / 1_048_576.0) * power_of_two(62);
            [signed(draw(3), a), b, signed(draw(4), power(draw(5), 100, 127))]
        }
        _ => [a, b, c],
    }
}

fn integer(draw: impl Fn(u64) -> u64) -> i32 {
    let bits = draw(1);
    match draw(0) % 4 {
        0 => INTEGER_EDGES[(bits % INTEGER_EDGES.len() as u64) as usize],
        1 => bits as i32 >> (bits >> 32 & 31),
        // Halves that are subnormal, infinite or NaN.
        2 => (bits & 0x8000 | [0, 0x7C00][(bits >> 32 & 1) as usize] | bits & 0x3FF) as i32,
        _ => bits as i32,
    }
}

/// Random bytes, or all at an edge, where sums are largest.
fn bytes(kind: u64, bits: u64, are_activations: bool) -> i32 {
    let byte = |i: u32| {
        let bits = (bits >> (8 * i)) as u8;
        let edge = BYTE_EDGES[usize::from(bits & 7)];
        let byte = match kind % 4 {
            0 => 0xFF,
            1 => 0x81,
            2 => edge,
            _ => bits,
        };
        // No activation is -128.
        if are_activations && byte == 0x80 { 0x7F } else { byte }
    };
    i32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

/// The bits of a brain float that is 0 or at least 2^-55, and not so large that products are infinite.
fn brain_float(bits: u64) -> u32 {
    let exponent = 127 - 55 + (bits >> 32) % 100;
    let value = bf16::from_bits((bits as u16 & 0x807F) | (exponent << 7) as u16);
    if bits >> 48 & 7 == 0 { 0 } else { value.to_bits().into() }
}

/// The same number, or 0 if its last bit is below 2^-124, which no product's is.
fn flushed(value: f32) -> f32 {
    if value.abs() < power_of_two(-101) { 0.0 } else { value }
}

/// 2 to a power from -149 to 127.
fn power_of_two(exponent: i32) -> f32 {
    if exponent < -126 {
        f32::from_bits(1 << (exponent + 149))
    } else {
        fill::power_of_two(exponent)
    }
}
