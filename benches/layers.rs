//! What a conv layer of LFM2-350M costs against an attention layer as the sequence grows.
//!
//! Benchmark ids are `part/isa/phase/length`: the part is `conv_layer`, `attention_layer` (norm, projections, mixer, output projection,
//! residual) or `conv_mixer`, `attention_mixer` (without projections); the phase is `prefill` (of `length` tokens) or `decode` (of one token
//! after `length` others).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use lfm2_benches::{chosen_isas, criterion, in_pool};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::ElementType;
use lfm2_kernels::model::{
    BlockBuffers, Config, ConvState, LayerKind, LayerState, Mixer, Scratch, Synthetic,
};
use lfm2_kernels::ops::{
    CacheElement, KeyValueCache, ShortConv, add, attention, rms_norm, short_conv,
};

const PREFILL: [usize; 10] = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];
const DECODE: [usize; 5] = [128, 512, 2048, 8192, 32768];

/// One layer of either kind, with what it needs to run.
struct Layer {
    config: Config,
    kind: LayerKind,
    mixer: Mixer,
    norm: Vec<f32>,
    conv: ShortConv,
    buffers: BlockBuffers,
}

impl Layer {
    fn new(kind: LayerKind) -> Self {
        let config = Config::preset("350m").expect("a preset");
        let weights = Synthetic::new(1, ElementType::F32);
        let width = config.hidden_size;
        let mixer =
            Mixer::load(kind, &config, &weights, "model.layers.0").expect("synthetic weights");
        let norm = weights.values("model.layers.0.operator_norm.weight", &[width]);
        let taps = weights.values("conv", &[width, 1, 3]);
        let conv = ShortConv::new(width, &taps, None);
        let buffers = BlockBuffers::new(&config, Scratch::MAX_ROWS);
        Self { config, kind, mixer, norm, conv, buffers }
    }

    /// A state after `seen` tokens, with room for `more`.
    fn state(&self, seen: usize, more: usize) -> LayerState {
        match self.kind {
            LayerKind::Conv => {
                LayerState::Conv(ConvState::Gated(values("state", 2 * self.config.hidden_size)))
            }
            LayerKind::Attention => {
                let (heads, head_dim) = (self.config.key_value_heads, self.config.head_dim);
                let mut cache = KeyValueCache::new(heads, head_dim, seen + more, CacheElement::F32);
                for first in (0..seen).step_by(Scratch::MAX_ROWS) {
                    let rows = Scratch::MAX_ROWS.min(seen - first);
                    let elements = rows * heads * head_dim;
                    cache.append(&values("keys", elements), &values("values", elements));
                }
                LayerState::Attention(cache)
            }
        }
    }

    /// Norm, projections, mixer, output projection and residual, in the pieces that the model takes.
    fn whole(&mut self, isa: Isa, hidden: &mut [f32], state: &mut LayerState) {
        let piece = Scratch::MAX_ROWS * self.config.hidden_size;
        let mut normed = vec![0.0; piece.min(hidden.len())];
        let mut output = normed.clone();
        for hidden in hidden.chunks_mut(piece) {
            let (normed, output) = (&mut normed[..hidden.len()], &mut output[..hidden.len()]);
            rms_norm(isa, hidden, &self.norm, self.config.norm_epsilon, normed);
            self.mixer.forward(isa, normed, state, &mut self.buffers, output);
            add(isa, hidden, output);
        }
    }

    /// The convolution with its gates, or the cache and attention: what is between the projections.
    fn mixer_alone(&self, isa: Isa, input: &[f32], out: &mut [f32], state: &mut LayerState) {
        let width = self.config.hidden_size;
        for (i, out) in out.chunks_mut(Scratch::MAX_ROWS * width).enumerate() {
            let rows = out.len() / width;
            let input = &input[i * Scratch::MAX_ROWS * 3 * width..][..rows * 3 * width];
            match state {
                LayerState::Conv(ConvState::Gated(state)) => {
                    short_conv(isa, input, &self.conv, state, out);
                }
                LayerState::Attention(cache) => {
                    let key_value_width = self.config.key_value_width();
                    let (queries, rest) = input.split_at(rows * width);
                    let (keys, values) = rest.split_at(rows * width);
                    let position = cache.len();
                    cache
                        .append(&keys[..rows * key_value_width], &values[..rows * key_value_width]);
                    attention(isa, queries, self.config.heads, cache, position, out);
                }
                LayerState::Conv(ConvState::ShiftSum(_)) => unreachable!("the published model"),
            }
        }
    }
}

fn values(name: &str, length: usize) -> Vec<f32> {
    Synthetic::new(2, ElementType::F32).values(name, &[length, 3])[..length].to_vec()
}

/// A thing to time, of either layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Layer,
    Mixer,
}

type Times = BTreeMap<(&'static str, Part, &'static str, usize), [f64; 2]>;

fn main() {
    in_pool(run);
}

fn run() {
    let mut criterion = criterion(Duration::from_millis(800));
    let mut layers = [Layer::new(LayerKind::Conv), Layer::new(LayerKind::Attention)];
    let mut times = Times::new();
    for isa in chosen_isas(vec![Isa::best()]) {
        for layer in 0..2 {
            check_bits(isa, &mut layers[layer]);
            for part in [Part::Layer, Part::Mixer] {
                for length in PREFILL {
                    time(
                        &mut criterion,
                        isa,
                        &mut layers,
                        layer,
                        part,
                        "prefill",
                        length,
                        &mut times,
                    );
                }
                for length in DECODE {
                    time(
                        &mut criterion,
                        isa,
                        &mut layers,
                        layer,
                        part,
                        "decode",
                        length,
                        &mut times,
                    );
                }
            }
        }
    }
    criterion.final_summary();
    print_tables(&times);
}

/// No wrong kernel is timed: a few rows must have the bits of the scalar reference.
fn check_bits(isa: Isa, layer: &mut Layer) {
    let input = values("hidden", 3 * layer.config.hidden_size);
    let mut run = |isa| {
        let (mut hidden, mut state) = (input.clone(), layer.state(70, 3));
        layer.whole(isa, &mut hidden, &mut state);
        hidden.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    assert!(run(isa) == run(Isa::available()[0]), "{isa} differs from scalar: not timed");
}

#[allow(clippy::too_many_arguments)]
fn time(
    criterion: &mut Criterion,
    isa: Isa,
    layers: &mut [Layer; 2],
    which: usize,
    part: Part,
    phase: &'static str,
    length: usize,
    times: &mut Times,
) {
    let layer = &mut layers[which];
    let (seen, rows) = if phase == "prefill" { (0, length) } else { (length, 1) };
    let width = layer.config.hidden_size;
    let input = values("input", rows * 3 * width);
    let mut out = vec![0.0; rows * width];
    let mut state = layer.state(seen, rows);
    let kind = if which == 0 { "conv" } else { "attention" };
    let part_name = if part == Part::Layer { "layer" } else { "mixer" };
    let mut seconds = Vec::new();
    let mut group = criterion.benchmark_group(format!("{kind}_{part_name}/{isa}/{phase}"));
    group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                if let LayerState::Attention(cache) = &mut state {
                    cache.truncate(seen);
                }
                out.copy_from_slice(&input[..rows * width]);
                let start = Instant::now();
                match part {
                    Part::Layer => layer.whole(isa, &mut out, &mut state),
                    Part::Mixer => layer.mixer_alone(isa, &input, &mut out, &mut state),
                }
                total += start.elapsed();
            }
            seconds.push(total.as_secs_f64() / iterations as f64);
            total
        });
    });
    group.finish();
    seconds.sort_by(f64::total_cmp);
    if let Some(median) = seconds.get(seconds.len() / 2) {
        times.entry((isa.name(), part, phase, length)).or_default()[which] = *median;
    }
}

/// Both kinds side by side, and where they cost the same.
fn print_tables(times: &Times) {
    let mut previous: Option<(_, usize, f64)> = None;
    for (&(isa, part, phase, length), &[conv, attention]) in times {
        if conv == 0.0 || attention == 0.0 {
            continue;
        }
        let table = (isa, part, phase);
        if previous.is_none_or(|(before, ..)| before != table) {
            let what = if part == Part::Layer { "one layer" } else { "the mixer alone" };
            println!(
                "\n{what}, {phase}, {isa}, f32 weights, {} threads",
                rayon::current_num_threads()
            );
            println!(
                "{:>8}{:>14}{:>14}{:>14}{:>14}{:>9}",
                "tokens", "conv", "per token", "attention", "per token", "ratio"
            );
        }
        let ratio = attention / conv;
        let tokens = if phase == "prefill" { length as f64 } else { 1.0 };
        println!(
            "{length:>8}{:>11.3} ms{:>11.2} us{:>11.3} ms{:>11.2} us{ratio:>9.2}",
            conv * 1e3,
            conv / tokens * 1e6,
            attention * 1e3,
            attention / tokens * 1e6
        );
        if let Some((before, shorter, last)) = previous
            && before == table
            && (last < 1.0) != (ratio < 1.0)
        {
            // On a straight line between the two lengths, in logarithms of both.
            let part = last.ln() / (last.ln() - ratio.ln());
            let crossing = shorter as f64 * (length as f64 / shorter as f64).powf(part);
            println!("         they cost the same at about {crossing:.0} tokens");
        }
        previous = Some((table, length, ratio));
    }
}
