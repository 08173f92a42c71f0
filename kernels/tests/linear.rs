//! Linear layers as callers see them: every instruction set, format and number of threads gives the same bits, and what is done in one pass
//! those of its parts.
//!
//! Not beside the kernels: a test program of the crate itself would hold all of them once more, which takes minutes to compile.

use half::bf16;
use lfm2_kernels::linear::{Activations, Matrix, WeightFormat, blocks, gated_linear, linear};
use lfm2_kernels::ops::silu_multiply;
use lfm2_kernels::simd::Isa;
use rayon::ThreadPoolBuilder;

/// Where the contract cuts a chain.
const CUT: usize = 256;

/// Numbers of 24 bits.
fn states(seed: u32) -> impl Iterator<Item = u32> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(seed), next).skip(1).map(|state| state >> 8)
}

/// From -1 to 1.
fn random(count: usize, seed: u32) -> Vec<f32> {
    states(seed).take(count).map(|bits| bits as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Of either sign, from 2^-71 to 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let number = |bits: u32| f32::from_bits(bits << 8 & 0x807F_FFFF | (56 + bits % 71) << 23);
    states(seed).take(count).map(number).collect()
}

/// As activations become brain floats: to nearest, and tiny ones to zero.
fn round(x: f32) -> f32 {
    let nearest = bf16::from_f32(x).to_f32();
    if nearest.abs() < 2.0_f32.powi(-55) { 0.0 } else { nearest }
}

/// A kernel's buffers fit a stack once. Tasks wait for each other many levels deep.
#[test]
fn many_threads_need_no_more_stack_than_one() {
    let (outputs, inputs) = (4096, 256);
    for format in [WeightFormat::F32, WeightFormat::Q8_0] {
        let bytes = blocks::encode(format, &random(outputs * inputs, 1));
        let mut matrix = Matrix::from_le_bytes(format, outputs, inputs, &bytes);
        matrix.set_activations(Activations::Int8);
        for rows in [1, 16, 145] {
            let x = random(rows * inputs, 2);
            let with_threads = |threads| {
                let pool = ThreadPoolBuilder::new().num_threads(threads).stack_size(1 << 20);
                let mut out = vec![f32::NAN; rows * outputs];
                let pool = pool.build().expect("threads can be started");
                pool.install(|| linear(Isa::best(), &x, &matrix, None, &mut out));
                out
            };
            assert_eq!(with_threads(32), with_threads(1), "{format} {rows}");
        }
    }
}

#[test]
fn a_gated_pair_gives_the_bits_of_its_parts() {
    let (outputs, inputs) = (70, 512);
    let matrix = |format, seed, activations| {
        let bytes = blocks::encode(format, &random(outputs * inputs, seed));
        let mut matrix = Matrix::from_le_bytes(format, outputs, inputs, &bytes);
        matrix.set_activations(activations);
        matrix
    };
    let check = |gate: &Matrix, up: &Matrix, rows: usize| {
        let x = random(rows * inputs, 3);
        for isa in Isa::available_for_integers() {
            let mut parts = [gate, up].map(|weight| {
                let mut out = vec![f32::NAN; rows * outputs];
                linear(isa, &x, weight, None, &mut out);
                out
            });
            let [expected, up_product] = &mut parts;
            silu_multiply(isa, expected, up_product);
            let mut out = vec![f32::NAN; rows * outputs];
            gated_linear(isa, &x, gate, up, &mut out);
            assert_eq!(&out, expected, "{} {} {isa} {rows}", gate.format(), up.format());
        }
    };
    for format in WeightFormat::ALL {
        for activations in [Activations::F32, Activations::Int8, Activations::Bf16] {
            let [gate, up] = [1, 2].map(|seed| matrix(format, seed, activations));
            for rows in [1, 2, 31] {
                check(&gate, &up, rows);
            }
        }
        check(&matrix(format, 1, Activations::F32), &matrix(format, 2, Activations::Int8), 2);
    }
    check(
        &matrix(WeightFormat::F32, 1, Activations::F32),
        &matrix(WeightFormat::Bf16, 2, Activations::F32),
        3,
    );
}

/// More than the sums of some panels, and rows in more than one block.
#[test]
fn wide_gated_pairs_give_the_bits_of_their_parts() {
    let (outputs, inputs, rows) = (1000, 64, 150);
    let x = random(rows * inputs, 3);
    for (format, activations) in [
        (WeightFormat::Bf16, Activations::Bf16),
        (WeightFormat::Q4_0, Activations::Int8),
        (WeightFormat::F32, Activations::F32),
    ] {
        let [gate, up] = [1, 2].map(|seed| {
            let bytes = blocks::encode(format, &random(outputs * inputs, seed));
            let mut matrix = Matrix::from_le_bytes(format, outputs, inputs, &bytes);
            matrix.set_activations(activations);
            matrix
        });
        let isa = Isa::best();
        let [mut expected, mut product, mut out] = [(); 3].map(|()| vec![f32::NAN; rows * outputs]);
        linear(isa, &x, &gate, None, &mut expected);
        linear(isa, &x, &up, None, &mut product);
        silu_multiply(isa, &mut expected, &product);
        let pool = ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
        pool.install(|| gated_linear(isa, &x, &gate, &up, &mut out));
        assert_eq!(out, expected, "{format}");
    }
}

#[test]
fn quantised_weights_multiply_as_their_rows_do() {
    let (outputs, inputs) = (70, 512);
    for format in WeightFormat::ALL {
        let bytes = blocks::encode(format, &random(outputs * inputs, 1));
        let mut matrix = Matrix::from_le_bytes(format, outputs, inputs, &bytes);
        let rows = blocks::decode(format, &bytes);
        assert_eq!(matrix.to_rows(), rows, "{format}");
        let widened = Matrix::from_f32(outputs, inputs, &rows);
        for count in [1, 2, 15, 31] {
            let x = random(count * inputs, 2);
            let of = |isa, matrix: &Matrix| {
                let mut out = vec![f32::NAN; count * outputs];
                linear(isa, &x, matrix, None, &mut out);
                out
            };
            let expected = of(Isa::best(), &widened);
            for isa in Isa::available() {
                assert_eq!(of(isa, &matrix), expected, "{format} {isa} {count}");
            }
            matrix.set_activations(Activations::Int8);
            let integers = of(Isa::available()[0], &matrix);
            for isa in Isa::available_for_integers() {
                assert_eq!(of(isa, &matrix), integers, "{format} {isa} {count} int8");
            }
            let error: f32 = expected.iter().zip(&integers).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f32 = expected.iter().map(|a| a * a).sum();
            assert!(error <= size * 1e-4, "{format}: {}", error / size);
            matrix.set_activations(Activations::F32);
        }
    }
}

#[test]
fn every_way_gives_the_chains_of_rounded_numbers() {
    let rounded = |values: &[f32]| values.iter().map(|&x| round(x)).collect::<Vec<_>>();
    for (outputs, inputs) in [(5, 3), (33, 7), (70, 513), (17, 6 * CUT + 2)] {
        let weights = blocks::encode(WeightFormat::Bf16, &numbers(outputs * inputs, 1));
        let mut matrix = Matrix::from_le_bytes(WeightFormat::Bf16, outputs, inputs, &weights);
        let plain = Matrix::from_f32(outputs, inputs, &rounded(&matrix.to_rows()));
        matrix.set_activations(Activations::Bf16);
        assert_eq!(matrix.to_rows(), plain.to_rows());
        for rows in [1, 2, 3, 13, 16, 39, 48, 145] {
            let x = numbers(rows * inputs, 2);
            let of = |isa, matrix: &Matrix, x: &[f32]| {
                let mut out = vec![f32::NAN; rows * outputs];
                linear(isa, x, matrix, None, &mut out);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let expected = of(Isa::best(), &plain, &rounded(&x));
            assert_ne!(expected, of(Isa::best(), &plain, &x));
            for isa in Isa::available_for_integers() {
                assert_eq!(of(isa, &matrix, &x), expected, "{isa} {rows} {outputs} {inputs}");
            }
        }
    }
}
