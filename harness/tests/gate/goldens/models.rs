//! Whole tiny models: logits, and the state after prefill and after decode. GGUF files in both modes of activations.

use std::path::Path;
use std::sync::Arc;

use approx::abs_diff_eq;
use lfm2_harness::coverage::Coverage;
use lfm2_harness::emulator;
use lfm2_harness::golden::{Difference, GoldenFile, ModelGolden, NMSE_BOUND};
use lfm2_harness::oracle::model::Oracle;
use lfm2_harness::random_model::oracle_description;
use lfm2_kernels::Isa;
use lfm2_kernels::linear::Activations;
use lfm2_kernels::model::{ConvState, LayerState, Logits, Model, Scratch, Sequence, State};
use lfm2_kernels::ops::CacheElement;
use libtest_mimic::{Failed, Trial};

use super::{entries, stem};

/// The suites' names in the table of coverage.
const SUITE: &str = "golden models";
const GGUF_SUITE: &str = "golden GGUF files";

/// The largest normalised mean squared error of the oracle's logits against PyTorch's in 64 bits. They differ where PyTorch rounds sines
/// and cosines to 32 bits: queries and keys by 2^-25 or so, 1e-15 squared, and scores, which are ten times as large, by ten times that.
const ORACLE_NMSE_BOUND: f64 = 1e-13;

/// The largest error of an element of the state. Elements are as large as 10 and come through up to four layers; PyTorch's own 32-bit
/// ones lie up to 1e-5 from its 64-bit ones, and ours do as many roundings. A wrong row, tap or head is wrong by 0.1 and more.
const STATE_BOUND: f64 = 2e-5;

/// One trial for each model's golden files, and one for each prompt.
pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    coverage.announce(SUITE);
    coverage.announce(GGUF_SUITE);
    let mut trials = Vec::new();
    for file in entries("gguf").into_iter().filter(|file| file.extension() == Some("gguf".as_ref()))
    {
        let coverage = Arc::clone(coverage);
        let name = stem(&file);
        // Two of the files have most formats, and both kinds of blocks.
        let is_repeated =
            emulator::is_at_work() && !name.contains("q4_0") && !name.contains("q4_k");
        let trial = Trial::test(format!("goldens::gguf::{name}"), move || {
            compare(&file, &[Activations::F32, Activations::Int8], GGUF_SUITE, &coverage)
        });
        trials.push(trial.with_ignored_flag(is_repeated));
    }
    for folder in entries("models") {
        let name = stem(&folder);
        for file in entries(&format!("models/{name}")) {
            if stem(&file).starts_with("prompt_") {
                let (folder, coverage) = (folder.clone(), Arc::clone(coverage));
                trials.push(Trial::test(
                    format!("goldens::models::{name}::{}", stem(&file)),
                    move || in_steps(&folder, &GoldenFile::open(&file)?, &coverage),
                ));
            }
        }
        let coverage = Arc::clone(coverage);
        trials.push(Trial::test(format!("goldens::models::{name}"), move || {
            whole(&folder, &coverage)
        }));
    }
    trials
}

/// The logits of every position, in one call.
fn whole(folder: &Path, coverage: &Coverage) -> Result<(), Failed> {
    let mut modes = vec![Activations::F32];
    for golden in ModelGolden::of(folder)? {
        if golden.load_model()?.head().format().meets(Activations::Bf16) {
            modes.push(Activations::Bf16);
        }
        // The second opinion on the fixture itself.
        let description = oracle_description(golden.config()?.description);
        let oracle = Oracle::load(folder)?.with_description(description);
        let second = oracle.forward(&golden.input_ids).logits;
        let squares: f64 =
            second.iter().zip(&golden.logits_f64).map(|(a, b)| (a - b).powi(2)).sum();
        let error = squares / golden.logits_f64.iter().map(|x| x * x).sum::<f64>();
        if !(second.len() == golden.logits_f64.len() && error <= ORACLE_NMSE_BOUND) {
            return Err(
                format!("{}: the oracle differs: NMSE {error:e}", golden.path().display()).into()
            );
        }
    }
    compare(folder, &modes, SUITE, coverage)
}

/// The logits of every position against the golden files, on every instruction set.
fn compare(
    model: &Path,
    modes: &[Activations],
    suite: &'static str,
    coverage: &Coverage,
) -> Result<(), Failed> {
    for golden in ModelGolden::of(model)? {
        let reports = golden.compare(&Isa::available(), modes, || ())?;
        if let Some(failed) = reports.iter().find(|report| !report.passed) {
            return Err(format!("{failed:?}").into());
        }
        for isa in Isa::available() {
            coverage.record(suite, isa, 1);
        }
    }
    Ok(())
}

/// A prompt in one call, then tokens one by one: logits, and the state after both.
fn in_steps(folder: &Path, golden: &GoldenFile, coverage: &Coverage) -> Result<(), Failed> {
    let model = Model::load(folder)?;
    let tokens = golden.u32("input_ids")?;
    let prompt = golden.u32("prompt_length")?[0] as usize;
    let expected = golden.f64("logits_f64")?;
    let vocabulary = model.config().vocabulary;
    for isa in Isa::available() {
        let fail = |reason| format!("{isa}: {reason}");
        let mut scratch = Scratch::default();
        let mut state = model.new_state(tokens.len(), CacheElement::F32);
        let mut logits = vec![f32::NAN; expected.len()];
        let decode = (prompt..tokens.len()).map(|t| t..t + 1);
        for step in std::iter::once(0..prompt).chain(decode) {
            let out = &mut logits[step.start * vocabulary..step.end * vocabulary];
            let sequence = Sequence { tokens: &tokens[step.clone()], state: &mut state };
            model.forward(isa, &mut [sequence], &mut scratch, Logits::All(out))?;
            if step.end == prompt {
                same_state(&state, golden, "prefill").map_err(fail)?;
            }
        }
        same_state(&state, golden, "decode").map_err(fail)?;
        let error = Difference::between(&logits, expected.iter().copied());
        if !error.is_within(NMSE_BOUND) {
            return Err(format!("{isa}: {error:?}").into());
        }
        coverage.record(SUITE, isa, 1);
    }
    Ok(())
}

fn same_state(state: &State, golden: &GoldenFile, after: &str) -> Result<(), String> {
    let near = |found: &[f32], name: String| {
        let expected = golden.f64(&format!("{name}_f64")).map_err(|error| error.to_string())?;
        if found.len() != expected.len() {
            return Err(format!("{name}: {} elements instead of {}", found.len(), expected.len()));
        }
        let far =
            |i: &usize| !abs_diff_eq!(f64::from(found[*i]), expected[*i], epsilon = STATE_BOUND);
        match (0..found.len()).find(far) {
            Some(i) => {
                Err(format!("{name}: element {i} is {:e} instead of {:e}", found[i], expected[i]))
            }
            None => Ok(()),
        }
    };
    for (i, layer) in state.layers().iter().enumerate() {
        match layer {
            LayerState::Conv(ConvState::Gated(inputs)) => {
                near(inputs, format!("{after}.conv_state.{i}"))?
            }
            LayerState::Conv(ConvState::ShiftSum(_)) => {
                return Err(format!("layer {i} is not of the published model"));
            }
            LayerState::Attention(cache) => {
                near(&cache.keys(), format!("{after}.key.{i}"))?;
                near(&cache.values(), format!("{after}.value.{i}"))?;
            }
        }
    }
    Ok(())
}
