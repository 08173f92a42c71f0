use lfm2_kernels::Isa;
use lfm2_kernels::linear::ElementType;
use lfm2_kernels::model::{Description, Logits, Model, Scratch, Sequence};
use lfm2_kernels::ops::{CacheElement, ShiftAxis};
use proptest::strategy::BoxedStrategy;

use super::{Case, Op, Output, Shape, between, shapes};
use crate::buffer::Buffer;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::Expected;
use crate::random_model::{RandomModel, VOCABULARY, state_values};

/// A whole small model, from tokens to logits and state; what it costs to be wrong here is told by hashes and equal bits, since no
/// derived bound survives several layers.
pub const OP: Op = Op {
    name: "model",
    dimensions: &["description", "format", "cache", "conv_bias", "prompt"],
    fixed_shapes,
    drawn_shapes,
    make,
};

const DESCRIPTIONS: [Description; 3] = [
    Description::Lfm2,
    Description::Issue22287 { shift_axis: ShiftAxis::Time },
    Description::Issue22287 { shift_axis: ShiftAxis::Feature },
];

const FORMATS: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Bf16];

const CACHES: [CacheElement; 2] = [CacheElement::F32, CacheElement::F16];

fn fixed_shapes() -> Vec<Shape> {
    let shape = |prompt| [prompt % 3, prompt / 3 % 3, prompt / 2 % 2, prompt % 2, prompt];
    (1..=36).chain([70]).map(|prompt| Shape::from(shape(prompt))).collect()
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    shapes([between(0, 2), between(0, 2), between(0, 1), between(0, 1), between(1, 80)])
}

struct WholeModel {
    model: Model,
    cache: CacheElement,
    prompt: Vec<u32>,
    data: Data,
}

/// The numbers come from the seed alone: weights that a model could have.
fn make(shape: &Shape, data: Data) -> Box<dyn Case> {
    let [description, format, cache, conv_bias, prompt] = shape.sizes();
    let mut random = RandomModel::small(DESCRIPTIONS[description]);
    random.config.conv_bias = conv_bias == 1;
    let tokens = data.stream("tokens");
    Box::new(WholeModel {
        model: RandomModel { element: FORMATS[format], seed: data.seed, ..random }.model(),
        cache: CACHES[cache],
        prompt: (0..prompt).map(|t| tokens.below(t as u64, VOCABULARY) as u32).collect(),
        data,
    })
}

impl WholeModel {
    /// The prompt in calls of so many tokens.
    fn in_chunks(&self, kernels: &Kernels, isa: Isa, tokens: usize) -> Vec<Output> {
        let mut state = self.model.new_state(self.prompt.len(), self.cache);
        let mut scratch = Scratch::default();
        let mut logits = self.data.poisoned("logits", self.prompt.len() * VOCABULARY);
        let chunks = self.prompt.chunks(tokens).zip(logits.chunks_mut(tokens * VOCABULARY));
        for (tokens, logits) in chunks {
            let sequence = Sequence { tokens, state: &mut state };
            let logits = Logits::All(logits);
            (kernels.forward)(&self.model, isa, &mut [sequence], &mut scratch, logits)
                .expect("a valid call");
        }
        let state: Vec<f32> = state_values(&state).concat();
        vec![Output::new("logits", logits), Output::new("state", Buffer::from(&state[..]))]
    }
}

impl Case for WholeModel {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        self.in_chunks(kernels, isa, self.prompt.len())
    }

    fn run_by_rows(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        self.in_chunks(kernels, isa, 1)
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        let unbounded = |output: Output| {
            vec![Expected { value: 0.0, bound: f64::INFINITY }; output.values.len()]
        };
        self.run(&Kernels::OURS, Isa::best()).into_iter().map(unbounded).collect()
    }
}
