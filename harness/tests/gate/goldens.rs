//! Whole tiny models against PyTorch and against the oracle: logits, and the state after prefill and after decode.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use approx::assert_relative_eq;
use lfm2_harness::coverage::Coverage;
use lfm2_harness::oracle::model::Oracle;
use lfm2_kernels::Isa;
use lfm2_kernels::format::Checkpoint;
use lfm2_kernels::model::{
    Config, ConvState, Description, LayerState, Logits, Model, Scratch, Sequence,
};
use lfm2_kernels::ops::{CacheElement, ShiftAxis, argmax};
use libtest_mimic::{Failed, Trial};
use safetensors::SafeTensors;

/// The suite's name in the table of coverage.
const SUITE: &str = "golden models";

/// The largest normalised mean squared error of logits. PyTorch's own `f32` result lies at 1e-12 to 4e-12 (`fixtures/manifest.json`);
/// errors of two roundings as independent as ours and PyTorch's have variances of the same order, and this leaves a factor of 2.5.
const WORST_NMSE: f64 = 1e-11;

/// One trial for each model folder.
pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    coverage.announce(SUITE);
    let models = fixtures().join("models");
    let mut folders: Vec<_> = fs::read_dir(&models)
        .unwrap_or_else(|error| panic!("{}: {error}", models.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .collect();
    folders.sort();
    folders
        .into_iter()
        .map(|folder| {
            let name =
                folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
            let coverage = Arc::clone(coverage);
            Trial::test(format!("goldens::{name}"), move || model(&folder, &coverage))
        })
        .collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// A golden file's tensors.
struct Golden(Vec<u8>);

impl Golden {
    fn open(path: &Path) -> Self {
        Self(fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn bytes<R>(&self, name: &str, read: impl Fn(&[u8]) -> R, size: usize) -> Vec<R> {
        let tensors = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        tensor.data().chunks_exact(size).map(read).collect()
    }

    fn tokens(&self) -> Vec<u32> {
        self.integers("input_ids").into_iter().map(|token| token as u32).collect()
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        self.bytes(name, |bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")), 8)
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        self.bytes(name, |bytes| f64::from_le_bytes(bytes.try_into().expect("eight bytes")), 8)
    }
}

fn model(folder: &Path, coverage: &Coverage) -> Result<(), Failed> {
    let mut found = 0;
    let mut files: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    for file in files {
        let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let axis = match name.as_str() {
            "golden.time.safetensors" => Some(ShiftAxis::Time),
            "golden.feature.safetensors" => Some(ShiftAxis::Feature),
            _ => None,
        };
        if name.starts_with("golden") {
            whole(folder, &Golden::open(&file), axis, coverage)?;
            found += 1;
        } else if name.starts_with("prompt_") {
            in_steps(folder, &Golden::open(&file), coverage)?;
            found += 1;
        }
    }
    if found == 0 { Err(format!("{}: no golden file", folder.display()).into()) } else { Ok(()) }
}

fn load(folder: &Path, axis: Option<ShiftAxis>) -> Result<Model, Failed> {
    let mut config = Config::read(&folder.join("config.json"))?;
    if let Some(shift_axis) = axis {
        config.description = Description::Issue22287 { shift_axis };
    }
    Ok(Model::new(config, &Checkpoint::open(folder)?)?)
}

/// The logits of every position, in one call.
fn whole(
    folder: &Path,
    golden: &Golden,
    axis: Option<ShiftAxis>,
    coverage: &Coverage,
) -> Result<(), Failed> {
    let model = load(folder, axis)?;
    let (tokens, expected) = (golden.tokens(), golden.doubles("logits_f64"));

    // The second opinion on the fixture itself: two f64 implementations differ by the last bits of f32 sines and cosines alone.
    let mut oracle = Oracle::load(folder)?;
    if let Some(axis) = axis {
        let axis = match axis {
            ShiftAxis::Time => lfm2_harness::oracle::ops::ShiftAxis::Time,
            ShiftAxis::Feature => lfm2_harness::oracle::ops::ShiftAxis::Feature,
        };
        oracle =
            oracle.with_description(lfm2_harness::oracle::model::Description::Issue22287(axis));
    }
    let second = oracle.forward(&tokens).logits;
    let error = normalised_error(second.iter().copied(), &expected);
    assert!(error < 1e-13, "the oracle differs from the fixture: NMSE {error:e}");

    let mut first: Option<Vec<u32>> = None;
    for isa in Isa::available() {
        let mut state = model.new_state(tokens.len(), CacheElement::F32);
        let mut logits = vec![f32::NAN; expected.len()];
        let sequence = Sequence { tokens: &tokens, state: &mut state };
        model.forward(isa, &mut [sequence], &mut Scratch::default(), Logits::All(&mut logits))?;
        let error = normalised_error(logits.iter().map(|&x| f64::from(x)), &expected);
        assert!(error < WORST_NMSE, "{isa}: NMSE {error:e}");
        let vocabulary = model.config().vocabulary;
        for (t, (found, expected)) in
            logits.chunks(vocabulary).zip(expected.chunks(vocabulary)).enumerate()
        {
            let best = (0..vocabulary).reduce(|a, b| if expected[b] > expected[a] { b } else { a });
            assert_eq!(Some(argmax(isa, found)), best, "{isa}: argmax of position {t}");
        }
        let bits: Vec<u32> = logits.iter().map(|x| x.to_bits()).collect();
        assert!(
            *first.get_or_insert_with(|| bits.clone()) == bits,
            "{isa}: bits differ from scalar"
        );
        coverage.record(SUITE, isa, 1);
    }
    Ok(())
}

/// A prompt in one call, then tokens one by one; the state after both.
fn in_steps(folder: &Path, golden: &Golden, coverage: &Coverage) -> Result<(), Failed> {
    let model = load(folder, None)?;
    let tokens = golden.tokens();
    let prompt = golden.integers("prompt_length")[0] as usize;
    let expected = golden.doubles("logits_f64");
    let vocabulary = model.config().vocabulary;
    for isa in Isa::available() {
        let mut scratch = Scratch::default();
        let mut state = model.new_state(tokens.len(), CacheElement::F32);
        let mut logits = vec![f32::NAN; expected.len()];
        let decoded = (prompt..tokens.len()).map(|t| t..t + 1);
        for step in std::iter::once(0..prompt).chain(decoded) {
            let out = &mut logits[step.start * vocabulary..step.end * vocabulary];
            let sequence = Sequence { tokens: &tokens[step.clone()], state: &mut state };
            model.forward(isa, &mut [sequence], &mut scratch, Logits::All(out))?;
            if step.end == prompt {
                same_state(state.layers(), golden, "prefill");
            }
        }
        same_state(state.layers(), golden, "decode");
        let error = normalised_error(logits.iter().map(|&x| f64::from(x)), &expected);
        assert!(error < WORST_NMSE, "{isa}: prompt of {prompt}: NMSE {error:e}");
        coverage.record(SUITE, isa, 1);
    }
    Ok(())
}

fn same_state(layers: &[LayerState], golden: &Golden, after: &str) {
    let near = |found: &[f32], name: String| {
        let expected = golden.doubles(&name);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(expected) {
            // A state entry is a product of a few layers' results of size 1 to 10; PyTorch's own f32 entries lie up to 1.1e-5 from
            // these (fixtures/README.md). A wrong row, tap or head is off by 0.1 and more.
            assert_relative_eq!(f64::from(*found), expected, epsilon = 2e-5, max_relative = 2e-5);
        }
    };
    for (i, layer) in layers.iter().enumerate() {
        match layer {
            LayerState::Conv(ConvState::Gated(inputs)) => {
                near(inputs, format!("{after}.conv_state.{i}_f64"));
            }
            LayerState::Conv(ConvState::ShiftSum(_)) => {
                unreachable!("a model of the published kind")
            }
            LayerState::Attention(cache) => {
                near(&cache.keys(), format!("{after}.key.{i}_f64"));
                near(&cache.values(), format!("{after}.value.{i}_f64"));
            }
        }
    }
}

fn normalised_error(found: impl Iterator<Item = f64>, expected: &[f64]) -> f64 {
    let squares: f64 =
        found.zip(expected).map(|(found, expected)| (found - expected).powi(2)).sum();
    squares / expected.iter().map(|x| x * x).sum::<f64>()
}
