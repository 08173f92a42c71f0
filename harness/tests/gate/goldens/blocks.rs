//! Every block, on the inputs and weights of `fixtures/blocks`, through the public doors of [`Mixer`] and [`FeedForward`].

use std::path::Path;
use std::sync::Arc;

use approx::abs_diff_eq;
use lfm2_harness::compare::equal_bits;
use lfm2_harness::coverage::Coverage;
use lfm2_harness::golden::{Difference, GoldenFile};
use lfm2_kernels::Isa;
use lfm2_kernels::model::{
    BlockBuffers, Config, ConvState, Description, Error, FeedForward, LayerKind, LayerState, Mixer,
    Tensor, Tensors,
};
use lfm2_kernels::ops::{CacheElement, KeyValueCache, ShiftAxis, ShiftSumState};
use libtest_mimic::{Failed, Trial};

use super::{Case, entries, stem};

/// The suite's name in the table of coverage.
const SUITE: &str = "golden blocks";

/// How much larger our largest error of a case may be than PyTorch's own: between its 32-bit and its 64-bit result. Both round the same
/// steps; but one chain of up to 256 products has up to four times the mean squared error of the several partial sums that PyTorch's
/// library keeps, which makes it twice as large, and the largest of as few as 64 elements is now and then twice that of 64 others.
const LARGER: f64 = 4.0;

type Run = fn(&Case, Isa) -> Result<Vec<f32>, Failed>;

const RUNS: &[(&str, Run)] = &[
    ("attention_block", attention_block),
    ("conv_block", conv_block),
    ("feed_forward", feed_forward),
    ("issue_22287_conv_block", issue_22287_conv_block),
];

/// One trial for each file; one that has no block fails.
pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    coverage.announce(SUITE);
    let found: Vec<_> = entries("blocks").iter().map(|path| stem(path)).collect();
    let known: Vec<_> = RUNS.iter().map(|(name, _)| name.to_string()).collect();
    let complete = move || match found == known {
        true => Ok(()),
        false => Err(format!("fixtures/blocks has {found:?}: expected {known:?}").into()),
    };
    let trial = |(name, run): &(&str, Run)| {
        let (run, coverage) = (*run, Arc::clone(coverage));
        let path = super::fixtures().join(format!("blocks/{name}.safetensors"));
        Trial::test(format!("goldens::blocks::{name}"), move || holds(&path, run, &coverage))
    };
    let mut trials = vec![Trial::test("goldens::blocks::every_file", complete)];
    trials.extend(RUNS.iter().map(trial));
    trials
}

fn holds(path: &Path, run: Run, coverage: &Coverage) -> Result<(), Failed> {
    let file = GoldenFile::open(path)?;
    let cases = Case::all(&file)?;
    for isa in Isa::available() {
        for case in &cases {
            judge(case, &run(case, isa)?)
                .map_err(|reason| format!("case {} on {isa}: {reason}", case.index))?;
        }
        coverage.record(SUITE, isa, cases.len());
    }
    Ok(())
}

fn judge(case: &Case, found: &[f32]) -> Result<(), String> {
    let read = |failed: Failed| failed.message().unwrap_or_default().to_string();
    let (single, double) = (case.f32("out").map_err(read)?, case.f64("out_f64").map_err(read)?);
    let own = Difference::between(&single, double.iter().copied()).max_absolute_error;
    for (i, &value) in found.iter().enumerate() {
        let near = |what: &str, golden: f64, epsilon: f64| match abs_diff_eq!(
            f64::from(value),
            golden,
            epsilon = epsilon
        ) {
            true => Ok(()),
            false => Err(format!(
                "element {i} is {value:e}: more than {epsilon:e} from PyTorch's {golden:e} in {what}"
            )),
        };
        near("f64", double[i], LARGER * own)?;
        // Its own error comes on top.
        near("f32", single[i].into(), (LARGER + 1.0) * own)?;
    }
    Ok(())
}

/// The parameters of a case's module, under the names that a model gives them in layer `layer`.
struct Weights<'a>(&'a Case<'a>);

const LAYER: &str = "layer";

impl Tensors for Weights<'_> {
    fn tensor(&self, name: &str, _shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        let parameter = name.splitn(3, '.').nth(2).expect("layer.block.parameter");
        self.0.file.weight(&self.0.name(&format!("weight.{parameter}")))
    }
}

/// A model of which the module could be a part.
fn config(case: &Case, description: Description) -> Result<Config, Failed> {
    let [_, hidden_size] = case.shape("x")?;
    Ok(Config {
        description,
        vocabulary: 1,
        hidden_size,
        layers: vec![LayerKind::Conv],
        heads: 1,
        key_value_heads: 1,
        head_dim: 16,
        feed_forward_width: 1,
        experts: None,
        conv_length: 3,
        conv_bias: case.contains("weight.conv.bias"),
        norm_epsilon: 1e-5,
        rope_theta: 1e6,
        tied_embedding: true,
    })
}

fn attention_block(case: &Case, isa: Isa) -> Result<Vec<f32>, Failed> {
    let positions = case.u32("positions")?;
    if !positions.iter().copied().eq(0..positions.len() as u32) {
        return Err("positions do not begin at 0".into());
    }
    let config = Config {
        heads: case.integer("heads")?,
        key_value_heads: case.integer("key_value_heads")?,
        head_dim: case.integer("head_dim")?,
        norm_epsilon: case.f32("epsilon")?[0],
        rope_theta: case.f64("theta")?[0],
        ..config(case, Description::Lfm2)?
    };
    mix(case, isa, LayerKind::Attention, &config, || {
        LayerState::Attention(KeyValueCache::new(
            config.key_value_heads,
            config.head_dim,
            positions.len(),
            CacheElement::F32,
        ))
    })
}

fn conv_block(case: &Case, isa: Isa) -> Result<Vec<f32>, Failed> {
    let config = config(case, Description::Lfm2)?;
    let kept = (config.conv_length - 1) * config.hidden_size;
    mix(case, isa, LayerKind::Conv, &config, || LayerState::Conv(ConvState::Gated(vec![0.0; kept])))
}

fn issue_22287_conv_block(case: &Case, isa: Isa) -> Result<Vec<f32>, Failed> {
    let shift_axis = match case.integer("axis")? {
        0 => ShiftAxis::Time,
        _ => ShiftAxis::Feature,
    };
    let config = config(case, Description::Issue22287 { shift_axis })?;
    mix(case, isa, LayerKind::Conv, &config, || {
        let state = ShiftSumState::new(config.hidden_size, config.conv_length);
        LayerState::Conv(ConvState::ShiftSum(state))
    })
}

/// Runs a mixer over all rows in one call, and in two: equal bits.
fn mix(
    case: &Case,
    isa: Isa,
    kind: LayerKind,
    config: &Config,
    new_state: impl Fn() -> LayerState,
) -> Result<Vec<f32>, Failed> {
    let mixer = Mixer::load(kind, config, &Weights(case), LAYER)?;
    let x = case.f32("x")?;
    let rows = x.len() / config.hidden_size;
    let in_calls = |calls: [usize; 2]| {
        let mut buffers = BlockBuffers::new(config, rows);
        let (mut state, mut output) = (new_state(), vec![f32::NAN; x.len()]);
        let mut first = 0;
        for rows in calls.into_iter().filter(|&rows| rows > 0) {
            let call = first * config.hidden_size..(first + rows) * config.hidden_size;
            mixer.forward(isa, &x[call.clone()], &mut state, &mut buffers, &mut output[call]);
            first += rows;
        }
        output
    };
    let whole = in_calls([rows, 0]);
    equal_bits(&whole, &in_calls([rows / 2, rows - rows / 2]))
        .map_err(|mismatch| format!("case {} on {isa} in two calls: {mismatch}", case.index))?;
    Ok(whole)
}

fn feed_forward(case: &Case, isa: Isa) -> Result<Vec<f32>, Failed> {
    let [feed_forward_width, _] = case.shape("weight.w1.weight")?;
    let config = Config { feed_forward_width, ..config(case, Description::Lfm2)? };
    let block = FeedForward::load(None, &config, &Weights(case), LAYER)?;
    let x = case.f32("x")?;
    let mut buffers = BlockBuffers::new(&config, x.len() / config.hidden_size);
    let mut output = vec![f32::NAN; x.len()];
    block.forward(isa, &x, &mut buffers, &mut output);
    Ok(output)
}
