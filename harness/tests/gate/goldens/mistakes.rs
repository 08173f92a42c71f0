//! Known mistakes, made on purpose: each must be far from what PyTorch computed, or the golden files would not find it.

use std::borrow::Cow;

use lfm2_harness::golden::{Difference, GoldenFile, ModelGolden, NMSE_BOUND};
use lfm2_kernels::Isa;
use lfm2_kernels::format::Checkpoint;
use lfm2_kernels::model::{Config, Description, Error, ExpertsConfig, Model, Tensor, Tensors};
use lfm2_kernels::ops::{
    CacheElement, KeyValueCache, RopeTable, ShortConv, attention, rope, short_conv,
};
use libtest_mimic::{Failed, Trial};

use super::{Case, fixtures};

/// A mistake moves the result by more than a twentieth: a normalised mean squared error eight orders above the bound of a right result.
const FAR: f64 = 0.05 * 0.05;

/// One trial for each mistake.
pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Result<(), Failed>| {
        Trial::test(format!("goldens::mistakes::{name}"), run)
    };
    let mut trials = vec![
        trial("convolution_with_b_and_c_swapped", || in_convolution(swap_b_and_c, |_| ())),
        trial("convolution_with_reversed_taps", || in_convolution(|_, _| (), reverse_taps)),
        trial("convolution_without_its_state", convolution_without_its_state),
        trial("interleaved_rope", interleaved_rope),
        trial("attention_with_wrong_key_heads", || in_attention(mistake_heads)),
        trial("attention_without_scale", || in_attention(forget_scale)),
        trial("model_of_the_other_shift_axis", model_of_the_other_shift_axis),
        trial("experts_without_bias", || in_experts(|experts| experts.use_bias = false)),
        trial("experts_not_normalised", || in_experts(|experts| experts.normalise = false)),
        trial("one_expert_less", || in_experts(|experts| experts.used -= 1)),
        trial("experts_scaled", || in_experts(|experts| experts.scale = 2.0)),
    ];
    for (name, change) in CHANGES {
        trials.push(Trial::test(format!("goldens::mistakes::model_with_{name}"), move || {
            in_model(change)
        }));
    }
    trials
}

/// Fails if `found` is near the case's `out`.
fn far(case: &Case, found: &[f32]) -> Result<(), Failed> {
    far_from(&case.f64("out_f64")?, found)
}

fn far_from(golden: &[f64], found: &[f32]) -> Result<(), Failed> {
    let nmse = Difference::between(found, golden.iter().copied()).nmse;
    if nmse > FAR {
        Ok(())
    } else {
        Err(format!("the mistake does not show: NMSE {nmse:e}").into())
    }
}

fn open(operation: &str) -> Result<GoldenFile, Failed> {
    Ok(GoldenFile::open(&fixtures().join(format!("ops/{operation}.safetensors")))?)
}

fn in_convolution(
    change_input: fn(&mut [f32], usize),
    change_taps: fn(&mut [f32]),
) -> Result<(), Failed> {
    let file = open("short_conv")?;
    for case in Case::all(&file)? {
        let [width, _, _] = case.shape("weight")?;
        let (mut bcx, mut weight) = (case.f32("bcx")?, case.f32("weight")?);
        let mut state = case.f32("initial_state")?;
        // The first token's result is a product of B, C and x.
        if bcx.len() == 3 * width && state.iter().all(|&u| u == 0.0) {
            continue;
        }
        change_input(&mut bcx, width);
        change_taps(&mut weight);
        let conv = ShortConv::new(width, &weight, case.optional("bias")?);
        let mut out = vec![f32::NAN; bcx.len() / 3];
        short_conv(Isa::best(), &bcx, &conv, &mut state, &mut out);
        far(&case, &out)?;
    }
    Ok(())
}

fn swap_b_and_c(bcx: &mut [f32], width: usize) {
    for row in bcx.chunks_exact_mut(3 * width) {
        let (b, rest) = row.split_at_mut(width);
        b.swap_with_slice(&mut rest[..width]);
    }
}

fn reverse_taps(weight: &mut [f32]) {
    weight.chunks_exact_mut(3).for_each(<[f32]>::reverse);
}

fn convolution_without_its_state() -> Result<(), Failed> {
    let file = open("short_conv")?;
    for case in Case::all(&file)? {
        let [rows, _] = case.shape("out")?;
        let mut state = case.f32("initial_state")?;
        // It shows in the first two rows.
        if state.iter().all(|&x| x == 0.0) || rows > 5 {
            continue;
        }
        let [width, _, _] = case.shape("weight")?;
        let conv = ShortConv::new(width, &case.f32("weight")?, case.optional("bias")?);
        let mut out = vec![f32::NAN; rows * width];
        state.fill(0.0);
        short_conv(Isa::best(), &case.f32("bcx")?, &conv, &mut state, &mut out);
        far(&case, &out)?;
    }
    Ok(())
}

/// Pairs `(2i, 2i + 1)` instead of `(i, i + head_dim / 2)`.
fn interleaved_rope() -> Result<(), Failed> {
    let file = open("rope")?;
    for case in Case::all(&file)? {
        let [rows, heads, head_dim] = case.shape("x")?;
        let positions = case.u32("positions")?;
        let mut table = RopeTable::new(case.f64("theta")?[0], head_dim, rows);
        table.fill(positions.iter().map(|&position| position as usize));
        let mut x = case.f32("x")?;
        x.chunks_exact_mut(head_dim).for_each(gather_pairs);
        rope(Isa::best(), &mut x, heads, &table);
        x.chunks_exact_mut(head_dim).for_each(scatter_pairs);
        far(&case, &x)?;
    }
    Ok(())
}

/// Even elements to the first half, odd ones to the second.
fn gather_pairs<T: Clone>(head: &mut [T]) {
    let old = head.to_vec();
    for (i, value) in old.iter().enumerate() {
        head[i / 2 + i % 2 * (old.len() / 2)] = value.clone();
    }
}

fn scatter_pairs(head: &mut [f32]) {
    let old = head.to_vec();
    for (i, value) in head.iter_mut().enumerate() {
        *value = old[i / 2 + i % 2 * (old.len() / 2)];
    }
}

/// The inputs of attention.
struct AttentionInputs {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    head_dim: usize,
    key_value_heads: usize,
}

fn in_attention(change: fn(&mut AttentionInputs)) -> Result<(), Failed> {
    let file = open("attention")?;
    for case in Case::all(&file)? {
        let [rows, heads, head_dim] = case.shape("query")?;
        let [positions, key_value_heads, _] = case.shape("key")?;
        // One key needs no scale, one head cannot be mistaken.
        if positions == 1 || key_value_heads == 1 {
            continue;
        }
        let (query, key, value) = (case.f32("query")?, case.f32("key")?, case.f32("value")?);
        let mut inputs = AttentionInputs { query, key, value, head_dim, key_value_heads };
        change(&mut inputs);
        let mut cache = KeyValueCache::new(key_value_heads, head_dim, positions, CacheElement::F32);
        cache.append(&inputs.key, &inputs.value);
        let mut out = vec![f32::NAN; inputs.query.len()];
        attention(Isa::best(), &inputs.query, heads, &cache, positions - rows, &mut out);
        far(&case, &out)?;
    }
    Ok(())
}

fn mistake_heads(inputs: &mut AttentionInputs) {
    let row = inputs.key_value_heads * inputs.head_dim;
    for row in inputs.key.chunks_exact_mut(row).chain(inputs.value.chunks_exact_mut(row)) {
        row.rotate_left(inputs.head_dim);
    }
}

fn forget_scale(inputs: &mut AttentionInputs) {
    let scale = (inputs.head_dim as f32).sqrt();
    inputs.query.iter_mut().for_each(|x| *x *= scale);
}

fn model_of_the_other_shift_axis() -> Result<(), Failed> {
    let goldens = ModelGolden::of(&fixtures().join("models/issue-22287"))?;
    let [time, feature] = &goldens[..] else {
        return Err("expected a golden file for each axis".into());
    };
    far_from(&feature.logits_f64, &feature.run(&time.load_model()?, Isa::best())?)?;
    far_from(&time.logits_f64, &time.run(&feature.load_model()?, Isa::best())?)
}

fn in_experts(change: fn(&mut ExpertsConfig)) -> Result<(), Failed> {
    let folder = fixtures().join("models/bf16-experts");
    let golden = ModelGolden::of(&folder)?.swap_remove(0);
    let mut config = golden.config()?;
    change(config.experts.as_mut().ok_or("a model with experts")?);
    let model = Model::new(config, &Checkpoint::open(&folder)?)?;
    far_from(&golden.logits_f64, &golden.run(&model, Isa::best())?)
}

/// Moves the elements of the tensor of that name, each as stored, `columns` of them to a row.
type Change = fn(config: &Config, name: &str, columns: usize, elements: &mut [&[u8]]);

const CHANGES: [(&str, Change); 4] = [
    ("b_and_c_swapped", |config, name, columns, elements| {
        if name.ends_with("conv.in_proj.weight") {
            let (b, rest) = elements.split_at_mut(config.hidden_size * columns);
            b.swap_with_slice(&mut rest[..config.hidden_size * columns]);
        }
    }),
    ("reversed_taps", |_, name, columns, elements| {
        if name.ends_with("conv.conv.weight") {
            elements.chunks_exact_mut(columns).for_each(<[&[u8]]>::reverse);
        }
    }),
    // Scores do not change when queries and keys are reordered alike, but the pairs do.
    ("interleaved_rope", |config, name, columns, elements| {
        let parts = ["q_proj", "k_proj", "q_layernorm", "k_layernorm"];
        if parts.iter().any(|part| name.ends_with(&format!("{part}.weight"))) {
            // A norm's weight is one row of a head's elements.
            let columns = if name.contains("layernorm") { 1 } else { columns };
            for head in elements.chunks_exact_mut(config.head_dim * columns) {
                let mut rows: Vec<_> = head.chunks_exact(columns).map(<[_]>::to_vec).collect();
                gather_pairs(&mut rows);
                head.copy_from_slice(&rows.concat());
            }
        }
    }),
    ("wrong_key_heads", |config, name, columns, elements| {
        if name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight") {
            elements.rotate_left(config.head_dim * columns);
        }
    }),
];

/// A checkpoint whose tensors are changed on the way.
struct Changed<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    change: Change,
}

impl Tensors for Changed<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        let Some(mut tensor) = self.checkpoint.tensor(name, shape)? else {
            return Ok(None);
        };
        let columns = tensor.shape.last().copied().unwrap_or(1);
        let mut elements: Vec<_> = tensor.bytes.chunks_exact(tensor.format.block_bytes()).collect();
        (self.change)(self.config, name, columns, &mut elements);
        tensor.bytes = Cow::Owned(elements.concat());
        Ok(Some(tensor))
    }
}

/// Every model of the published description with a mistake; with none it must be right.
fn in_model(change: Change) -> Result<(), Failed> {
    for folder in super::entries("models") {
        let golden = ModelGolden::of(&folder)?.swap_remove(0);
        let config = golden.config()?;
        // With one key and value head there is no wrong one.
        if config.description != Description::Lfm2 {
            continue;
        }
        let checkpoint = Checkpoint::open(&folder)?;
        let run = |change| {
            let source = Changed { checkpoint: &checkpoint, config: &config, change };
            let model = Model::new(config.clone(), &source)?;
            Ok::<_, Failed>(golden.run(&model, Isa::best())?)
        };
        let unchanged =
            Difference::between(&run(|_, _, _, _| ())?, golden.logits_f64.iter().copied());
        if !unchanged.is_within(NMSE_BOUND) {
            return Err(format!("{}: wrong without a mistake", folder.display()).into());
        }
        if config.key_value_heads > 1 {
            far_from(&golden.logits_f64, &run(change)?)?;
        }
    }
    Ok(())
}
