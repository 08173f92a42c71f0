//! Equal bits of logits and of all state, however a prompt is split, for any number of threads, beside any other sequences, and in
//! whatever state: on random tiny models and prompts.

use std::sync::Arc;

use lfm2_harness::coverage::Coverage;
use lfm2_kernels::Isa;
use lfm2_kernels::linear::ElementType;
use lfm2_kernels::model::{
    Config, ConvState, Description, LayerKind, LayerState, Logits, Model, Scratch, Sequence, State,
    Synthetic,
};
use lfm2_kernels::ops::{CacheElement, ShiftAxis};
use libtest_mimic::{Failed, Trial};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The suite's name in the table of coverage.
const SUITE: &str = "invariance";

/// Random models of a run that does not say; each runs on every instruction set in six ways.
const MODELS: u32 = 24;

/// One trial.
pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    coverage.announce(SUITE);
    let coverage = Arc::clone(coverage);
    vec![Trial::test("invariance::random_models", move || holds(&coverage))]
}

/// A random model, prompt and way of running it.
#[derive(Clone, Debug)]
struct Plan {
    config: Config,
    weights: ElementType,
    cache: CacheElement,
    seed: u64,
    tokens: Vec<u32>,
    /// Where the prompt is split.
    cuts: Vec<usize>,
    neighbours: [Vec<u32>; 2],
}

fn plans() -> impl Strategy<Value = Plan> {
    let shape = (
        select(vec![32_usize, 48, 72, 100]),
        (1_usize..=2, 1_usize..=4, select(vec![16_usize, 32, 64])),
        prop::collection::vec(select(vec![LayerKind::Conv, LayerKind::Attention]), 1..4),
        1_usize..=4,
        any::<bool>(),
        select(vec![
            Description::Lfm2,
            Description::Lfm2,
            Description::Issue22287 { shift_axis: ShiftAxis::Time },
            Description::Issue22287 { shift_axis: ShiftAxis::Feature },
        ]),
    );
    let config =
        shape.prop_map(|(hidden_size, heads, layers, conv_length, conv_bias, description)| {
            let (key_value_heads, group, head_dim) = heads;
            Config {
                description,
                vocabulary: 37,
                hidden_size,
                layers,
                heads: key_value_heads * group,
                key_value_heads,
                head_dim,
                feed_forward_width: hidden_size + 13,
                conv_length,
                conv_bias,
                norm_epsilon: 1e-5,
                rope_theta: 1e6,
                tied_embedding: true,
            }
        });
    let tokens = |most| prop::collection::vec(0_u32..37, 1..most);
    let prompt = prop_oneof![3 => tokens(24), 1 => tokens(150)];
    (
        config,
        select(vec![ElementType::F32, ElementType::Bf16, ElementType::F16]),
        select(vec![CacheElement::F32, CacheElement::F16]),
        any::<u32>().no_shrink(),
        prompt,
        prop::collection::vec(1_usize..150, 0..5),
        [tokens(9), tokens(9)],
    )
        .prop_map(|(config, weights, cache, seed, tokens, cuts, neighbours)| Plan {
            config,
            weights,
            cache,
            seed: seed.into(),
            tokens,
            cuts,
            neighbours,
        })
}

fn holds(coverage: &Coverage) -> Result<(), Failed> {
    let cases = match std::env::var("LFM2_CASES") {
        Ok(count) => count.parse::<u32>()?.min(MODELS),
        Err(_) => MODELS,
    };
    let config = RunnerConfig { cases, failure_persistence: None, ..RunnerConfig::default() };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[22; 32]);
    let mut runner = TestRunner::new_with_rng(config, random);
    let pools = [1, 2].map(|threads| {
        ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
    });
    runner
        .run(&plans(), |plan| plan.check(&pools, coverage).map_err(TestCaseError::fail))
        .map_err(|error| error.to_string().into())
}

/// All that a run leaves: the bits of its logits, then of its state.
type Bits = Vec<u32>;

fn bits_of(values: &[f32]) -> impl Iterator<Item = u32> + '_ {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() })
}

fn all_bits(logits: &[f32], state: &State) -> Bits {
    let mut bits: Bits = bits_of(logits).collect();
    bits.push(state.position() as u32);
    for layer in state.layers() {
        match layer {
            LayerState::Conv(ConvState::Gated(inputs)) => bits.extend(bits_of(inputs)),
            LayerState::Conv(ConvState::ShiftSum(state)) => {
                state.chunks.iter().for_each(|chunk| bits.extend(bits_of(chunk)));
                bits.extend(bits_of(&state.sums));
            }
            LayerState::Attention(cache) => {
                bits.extend(bits_of(&cache.keys()));
                bits.extend(bits_of(&cache.values()));
            }
        }
    }
    bits
}

impl Plan {
    fn check(&self, pools: &[ThreadPool; 2], coverage: &Coverage) -> Result<(), String> {
        let model = Model::new(self.config.clone(), &Synthetic::new(self.seed, self.weights))
            .map_err(|error| error.to_string())?;
        let count = self.tokens.len();
        let mut splits = self.cuts.iter().map(|cut| cut % count).collect::<Vec<_>>();
        splits.sort_unstable();
        splits.dedup();
        splits.retain(|&cut| cut > 0);
        let single: Vec<usize> = (1..count).collect();

        let scalar = Isa::available()[0];
        let fresh = || model.new_state(count, self.cache);
        let reference = pools[0].install(|| self.run(&model, scalar, &mut fresh(), &[]));
        let same = |what: &str, isa: Isa, bits: Bits| match bits == reference {
            true => Ok(()),
            false => Err(format!("{what} on {isa} differs from the whole prompt on scalar")),
        };
        for isa in Isa::available() {
            let [one, two] = pools;
            same("whole", isa, one.install(|| self.run(&model, isa, &mut fresh(), &[])))?;
            same("two threads", isa, two.install(|| self.run(&model, isa, &mut fresh(), &[])))?;
            same("chunks", isa, two.install(|| self.run(&model, isa, &mut fresh(), &splits)))?;
            same(
                "token by token",
                isa,
                one.install(|| self.run(&model, isa, &mut fresh(), &single)),
            )?;

            let mut used = fresh();
            self.run(&model, isa, &mut used, &[]);
            used.reset();
            same("a state used before", isa, self.run(&model, isa, &mut used, &splits))?;

            same("beside others", isa, two.install(|| self.beside_others(&model, isa, &splits)))?;
            same("from a snapshot", isa, self.on_a_snapshot(&model, isa))?;
            coverage.record(SUITE, isa, 1);
        }
        Ok(())
    }

    /// The prompt in the pieces between `cuts`.
    fn run(&self, model: &Model, isa: Isa, state: &mut State, cuts: &[usize]) -> Bits {
        let vocabulary = model.config().vocabulary;
        let mut logits = vec![f32::NAN; self.tokens.len() * vocabulary];
        let mut scratch = Scratch::default();
        for (start, end) in pieces(cuts, self.tokens.len()) {
            let out = &mut logits[start * vocabulary..end * vocabulary];
            let sequence = Sequence { tokens: &self.tokens[start..end], state };
            model
                .forward(isa, &mut [sequence], &mut scratch, Logits::All(out))
                .expect("a valid call");
        }
        all_bits(&logits, state)
    }

    /// In pieces, each between pieces of two other sequences, which stand elsewhere and change from call to call.
    fn beside_others(&self, model: &Model, isa: Isa, cuts: &[usize]) -> Bits {
        let vocabulary = model.config().vocabulary;
        let mut logits = Vec::new();
        let mut scratch = Scratch::default();
        let mut state = model.new_state(self.tokens.len(), self.cache);
        let [first, second] = &self.neighbours;
        let room = 8 * (first.len() + second.len()) + 64;
        let mut others = [(); 2].map(|()| model.new_state(room, self.cache));
        for (i, (start, end)) in pieces(cuts, self.tokens.len()).enumerate() {
            let (before, after) = if i % 2 == 0 { (first, second) } else { (second, first) };
            let [left, right] = &mut others;
            let mut sequences = [
                Sequence { tokens: before, state: left },
                Sequence { tokens: &self.tokens[start..end], state: &mut state },
                Sequence { tokens: after, state: right },
            ];
            let rows = before.len() + end - start + after.len();
            let mut out = vec![f32::NAN; rows * vocabulary];
            model
                .forward(isa, &mut sequences, &mut scratch, Logits::All(&mut out))
                .expect("a valid call");
            logits
                .extend_from_slice(&out[before.len() * vocabulary..][..(end - start) * vocabulary]);
        }
        all_bits(&logits, &state)
    }

    /// Half the prompt, a snapshot, another ending on the original, then the right one on the snapshot.
    fn on_a_snapshot(&self, model: &Model, isa: Isa) -> Bits {
        let vocabulary = model.config().vocabulary;
        let (count, half) = (self.tokens.len(), self.tokens.len() / 2);
        let mut logits = vec![f32::NAN; count * vocabulary];
        let mut scratch = Scratch::default();
        let mut state = model.new_state(count, self.cache);
        let (left, right) = logits.split_at_mut(half * vocabulary);
        let mut forward = |tokens: &[u32], state: &mut State, out: &mut [f32]| {
            let sequence = Sequence { tokens, state };
            model
                .forward(isa, &mut [sequence], &mut scratch, Logits::All(out))
                .expect("a valid call");
        };
        if half > 0 {
            forward(&self.tokens[..half], &mut state, left);
        }
        let mut snapshot = state.clone();
        let other: Vec<u32> = self.tokens[half..].iter().map(|token| (token + 1) % 37).collect();
        forward(&other, &mut state, &mut vec![0.0; right.len()]);
        forward(&self.tokens[half..], &mut snapshot, right);
        all_bits(&logits, &snapshot)
    }
}

fn pieces(cuts: &[usize], end: usize) -> impl Iterator<Item = (usize, usize)> {
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([end]);
    starts.zip(ends).collect::<Vec<_>>().into_iter()
}
