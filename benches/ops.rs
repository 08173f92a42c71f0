//! Each operation at the 350M's shapes, and linear layers as a share of what the same run measures the CPU to do at most.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use lfm2_benches::{chosen_isas, criterion, in_pool, quartiles};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::{ElementType, Matrix};
use lfm2_kernels::model::Synthetic;
use lfm2_kernels::ops::{
    CacheElement, KeyValueCache, RopeTable, ShortConv, add, argmax, attention, embedding, linear,
    multiply, rms_norm, rope, short_conv, silu_multiply, softmax,
};
use lfm2_kernels::peak;
use rayon::prelude::*;

/// The projections of the 350M, `[outputs, inputs]`.
const SHAPES: [[usize; 2]; 5] =
    [[3072, 1024], [1024, 1024], [512, 1024], [4608, 1024], [1024, 4608]];

/// Weights of this many bytes do not fit any cache.
const BEYOND_CACHE: usize = 400 << 20;

fn main() {
    in_pool(run);
}

fn run() {
    let mut criterion = criterion(Duration::from_millis(500));
    let isas =
        chosen_isas(Isa::available().into_iter().filter(|isa| isa.name() != "scalar").collect());
    let widest = *isas.last().expect("at least one instruction set");
    operations(&mut criterion, widest);
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    println!(
        "\nshare of what the same run measured the CPU to do at most: median (middle half), {} threads",
        threads()
    );
    for isa in isas {
        share_of_multiply_add(isa);
        share_of_bandwidth(isa);
    }
}

fn threads() -> usize {
    rayon::current_num_threads()
}

fn values(name: &str, length: usize) -> Vec<f32> {
    Synthetic::new(3, ElementType::F32).values(name, &[length, 3])[..length].to_vec()
}

fn matrix(element: ElementType, outputs: usize, inputs: usize) -> Matrix {
    use lfm2_kernels::model::Tensors;
    let weights = Synthetic::new(4, element);
    let tensor = weights.tensor("weight", &[outputs, inputs]);
    let tensor = tensor.expect("synthetic").expect("synthetic");
    Matrix::from_le_bytes(element, outputs, inputs, &tensor.bytes)
}

fn operations(criterion: &mut Criterion, isa: Isa) {
    let (rows, width) = (512, 1024);
    let input = values("x", rows * 3 * width);
    let other = values("y", rows * width);
    let weight = values("weight", 3 * width);
    let mut out = input[..rows * width].to_vec();
    let conv = ShortConv::new(width, &weight, None);
    let mut state = vec![0.0; 2 * width];
    let mut table = RopeTable::new(1e6, 64, rows);
    table.fill(0..rows);
    let mut cache = KeyValueCache::new(8, 64, rows, CacheElement::F32);
    cache.append(&input[..rows * 512], &other[..rows * 512]);
    let embedding_table = matrix(ElementType::F32, 4096, width);
    let tokens: Vec<u32> = (0..rows as u32).map(|i| i * 37 % 4096).collect();

    let id = |op: &str| format!("{op}/{isa}/f32/{rows}x{width}/{}", threads());
    let mut bench = |op: &str, work: &mut dyn FnMut(&mut [f32])| {
        let mut group = criterion.benchmark_group(id(op));
        group.throughput(Throughput::Elements((rows * width) as u64));
        group.bench_function("time", |bencher| bencher.iter(|| work(black_box(&mut out))));
        group.finish();
    };
    bench("embedding", &mut |out| embedding(&embedding_table, &tokens, out));
    bench("rms_norm", &mut |out| rms_norm(isa, &input[..out.len()], &weight[..width], 1e-5, out));
    bench("rope", &mut |out| rope(isa, out, 16, &table));
    bench("short_conv", &mut |out| short_conv(isa, &input, &conv, &mut state, out));
    bench("attention", &mut |out| attention(isa, &other, 16, &cache, 0, out));
    bench("silu_multiply", &mut |out| {
        out.copy_from_slice(&other);
        silu_multiply(isa, out, &other);
    });
    bench("add", &mut |out| add(isa, out, &other));
    bench("multiply", &mut |out| {
        out.copy_from_slice(&other);
        multiply(isa, out, &other);
    });
    bench("softmax", &mut |out| softmax(isa, out, width));
    bench("argmax", &mut |out| {
        black_box(argmax(isa, out));
    });
    for element in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
        for [outputs, inputs] in SHAPES {
            let weight = matrix(element, outputs, inputs);
            for rows in [1, 4, 16, 128, 512] {
                let (x, mut out) = (values("x", rows * inputs), vec![0.0; rows * outputs]);
                let id = format!(
                    "linear/{isa}/{}/{rows}x{outputs}x{inputs}/{}",
                    element.name(),
                    threads()
                );
                let mut group = criterion.benchmark_group(id);
                group.throughput(Throughput::Elements((2 * rows * outputs * inputs) as u64));
                group.bench_function("time", |bencher| {
                    bencher.iter(|| linear(isa, black_box(&x), &weight, None, &mut out));
                });
                group.finish();
            }
        }
    }
}

/// Floating-point operations per second of multiply-adds in registers, on all threads.
fn multiply_add_peak(isa: Isa) -> f64 {
    const ITERATIONS: usize = 100_000;
    let start = Instant::now();
    let done: u64 = (0..threads())
        .into_par_iter()
        .map(|_| {
            let (done, sum) = peak::multiply_add(isa, ITERATIONS);
            black_box(sum);
            done
        })
        .sum();
    done as f64 / start.elapsed().as_secs_f64()
}

/// f32 linear layers of 512 rows, each call between two measurements of the peak.
fn share_of_multiply_add(isa: Isa) {
    const ROWS: usize = 512;
    for [outputs, inputs] in SHAPES {
        let copies: Vec<_> = (0..4).map(|_| matrix(ElementType::F32, outputs, inputs)).collect();
        let (x, mut out) = (values("x", ROWS * inputs), vec![0.0; ROWS * outputs]);
        let mut shares = Vec::new();
        let mut before = multiply_add_peak(isa);
        for i in 0..24 {
            let start = Instant::now();
            linear(isa, black_box(&x), &copies[i % copies.len()], None, &mut out);
            let speed = (2 * ROWS * outputs * inputs) as f64 / start.elapsed().as_secs_f64();
            let after = multiply_add_peak(isa);
            shares.push(100.0 * speed / (0.5 * (before + after)));
            before = after;
        }
        print_share(
            isa,
            &format!("f32 {ROWS}x{outputs}x{inputs} of the multiply-add peak"),
            shares,
        );
    }
}

/// One-row linear layers over weights that no cache holds, each pass between two plain reads of as many bytes.
fn share_of_bandwidth(isa: Isa) {
    for element in [ElementType::F32, ElementType::Bf16] {
        for [outputs, inputs] in SHAPES {
            let bytes = outputs * inputs * element.bytes();
            let count = BEYOND_CACHE.div_ceil(bytes);
            let first = matrix(element, outputs, inputs);
            let copies: Vec<_> = std::iter::once(first)
                .chain((1..count).map(|_| matrix(element, outputs, inputs)))
                .collect();
            let plain = values("plain", count * bytes / 4);
            let read = || {
                let start = Instant::now();
                let sum: f32 = plain
                    .par_chunks(plain.len().div_ceil(threads()))
                    .map(|part| peak::read(isa, part))
                    .sum();
                black_box(sum);
                (4 * plain.len()) as f64 / start.elapsed().as_secs_f64()
            };
            let (x, mut out) = (values("x", inputs), vec![0.0; outputs]);
            let mut shares = Vec::new();
            let mut before = read();
            for _ in 0..8 {
                let start = Instant::now();
                for weight in &copies {
                    linear(isa, black_box(&x), weight, None, &mut out);
                }
                let speed = (count * bytes) as f64 / start.elapsed().as_secs_f64();
                let after = read();
                shares.push(100.0 * speed / (0.5 * (before + after)));
                before = after;
            }
            print_share(
                isa,
                &format!("{} 1x{outputs}x{inputs} of the read bandwidth", element.name()),
                shares,
            );
        }
    }
}

fn print_share(isa: Isa, what: &str, shares: Vec<f64>) {
    let [low, median, high] = quartiles(shares);
    let note = if median > 100.0 { "  above its ceiling: the ceiling is not one" } else { "" };
    println!("{isa:8}{what:48}{median:5.0} % ({low:.0}-{high:.0}){note}");
}
