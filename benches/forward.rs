//! Tokens per second of the whole LFM2-350M with synthetic weights: prefill and decode, f32 and bf16.

use std::time::Duration;

use criterion::{BenchmarkId, Throughput};
use lfm2_benches::{chosen_isas, criterion, in_pool};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::ElementType;
use lfm2_kernels::model::{Config, Logits, Model, Scratch, Sequence, Synthetic};
use lfm2_kernels::ops::CacheElement;

fn main() {
    in_pool(run);
}

fn run() {
    let mut criterion = criterion(Duration::from_secs(2));
    for element in [ElementType::F32, ElementType::Bf16] {
        let config = Config::preset("350m").expect("a preset");
        let model = Model::new(config, &Synthetic::new(1, element)).expect("synthetic weights");
        for isa in chosen_isas(vec![Isa::best()]) {
            check_bits(isa, &model);
            for tokens in [128, 512] {
                bench(&mut criterion, isa, &model, element, 0, tokens);
            }
            for context in [128, 4096] {
                bench(&mut criterion, isa, &model, element, context, 1);
            }
        }
    }
    criterion.final_summary();
}

fn logits(isa: Isa, model: &Model, tokens: &[u32]) -> Vec<u32> {
    let mut state = model.new_state(tokens.len(), CacheElement::F32);
    let mut logits = vec![0.0; model.config().vocabulary];
    let sequence = Sequence { tokens, state: &mut state };
    model
        .forward(isa, &mut [sequence], &mut Scratch::default(), Logits::Last(&mut logits))
        .expect("a valid call");
    logits.into_iter().map(f32::to_bits).collect()
}

/// No wrong model is timed.
fn check_bits(isa: Isa, model: &Model) {
    let scalar = Isa::available()[0];
    assert!(logits(isa, model, &[1]) == logits(scalar, model, &[1]), "{isa} differs from scalar");
}

/// `rows` tokens after `context` others. Greedy choice is not part of it.
fn bench(
    criterion: &mut criterion::Criterion,
    isa: Isa,
    model: &Model,
    element: ElementType,
    context: usize,
    rows: usize,
) {
    let tokens: Vec<u32> = (0..rows.max(context) as u32).map(|i| i * 7919 % 65536).collect();
    let mut scratch = Scratch::default();
    let mut logits = vec![0.0; model.config().vocabulary];
    let mut start = model.new_state(context + rows, CacheElement::F32);
    if context > 0 {
        let sequence = Sequence { tokens: &tokens[..context], state: &mut start };
        model
            .forward(Isa::best(), &mut [sequence], &mut scratch, Logits::Last(&mut logits))
            .expect("a valid call");
    }
    let (phase, length) = if context == 0 { ("prefill", rows) } else { ("decode", context) };
    let mut group = criterion.benchmark_group(format!("forward/{isa}/{}/{phase}", element.name()));
    group.throughput(Throughput::Elements(rows as u64));
    group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
        bencher.iter_batched_ref(
            || start.clone(),
            |state| {
                let sequence = Sequence { tokens: &tokens[..rows], state };
                model
                    .forward(isa, &mut [sequence], &mut scratch, Logits::Last(&mut logits))
                    .expect("a valid call");
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}
