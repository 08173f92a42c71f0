use lfm2_kernels::Isa;
use lfm2_kernels::linear::WeightFormat;
use proptest::strategy::BoxedStrategy;

use super::{Case, Dimension, Op, Output, Shape, Weights, affordable, between, shapes};
use crate::buffer::Input;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_embedding};
use crate::plan::Check;

const DIMENSIONS: &[Dimension] =
    &[Dimension::any("tokens"), Dimension::positive("vocabulary"), Dimension::positive("width")];

const fn op(
    name: &'static str,
    format: &'static str,
    make: fn(&Shape, Data) -> Box<dyn Case>,
) -> Op {
    let format = Some(format);
    let checks = &[Check::Bounds, Check::Integers];
    Op {
        name,
        format,
        checks,
        dimensions: DIMENSIONS,
        fit_together: Shape::is_affordable,
        fixed_shapes,
        drawn_shapes,
        make,
    }
}

pub const F32: Op = op("embedding_f32", "f32", |shape, data| make(WeightFormat::F32, shape, data));
pub const F16: Op = op("embedding_f16", "f16", |shape, data| make(WeightFormat::F16, shape, data));
pub const BF16: Op =
    op("embedding_bf16", "bf16", |shape, data| make(WeightFormat::Bf16, shape, data));

/// Quantised tables, whose rows are whole blocks.
macro_rules! of_blocks {
    ($op:ident, $name:literal, $format:ident) => {
        pub const $op: Op = Op {
            dimensions: &[
                Dimension::any("tokens"),
                Dimension::positive("vocabulary"),
                Dimension::positive("blocks"),
            ],
            fit_together: |shape| {
                let [tokens, vocabulary, blocks] = shape.sizes();
                affordable(&[tokens, vocabulary, blocks, WeightFormat::$format.block()])
            },
            fixed_shapes: fixed_shapes_of_blocks,
            drawn_shapes: || shapes([between(0, 20), between(1, 50), between(1, 5)]),
            ..op(concat!("embedding_", $name), $name, |shape, data| {
                make_of_blocks(WeightFormat::$format, shape, data)
            })
        };
    };
}
of_blocks!(Q8_0, "q8_0", Q8_0);
of_blocks!(Q4_0, "q4_0", Q4_0);
of_blocks!(Q4_1, "q4_1", Q4_1);
of_blocks!(Q5_0, "q5_0", Q5_0);
of_blocks!(Q5_1, "q5_1", Q5_1);
of_blocks!(Q4_K, "q4_k", Q4K);
of_blocks!(Q5_K, "q5_k", Q5K);
of_blocks!(Q6_K, "q6_k", Q6K);

fn fixed_shapes_of_blocks() -> Vec<Shape> {
    let tails = (1..=33).map(|size| Shape::from([1 + size % 3, size, 1 + size % 2]));
    // A result that begins anywhere within a vector.
    let more = (1..=32).map(|tokens| Shape::from([tokens, 3, 1]));
    [Shape::from([0, 5, 1])].into_iter().chain(tails).chain(more).collect()
}

fn fixed_shapes() -> Vec<Shape> {
    let no_tokens = Shape::from([0, 5, 7]);
    let tails = (1..=33).map(|size| Shape::from([size, 34 - size, size]));
    // A table and a result that end anywhere within a vector.
    let ends = (1..=32).map(|width| Shape::from([1, 3, width]));
    [no_tokens].into_iter().chain(tails).chain(ends).collect()
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    shapes([between(0, 20), between(1, 100), between(1, 1100)])
}

struct Embedding {
    format: WeightFormat,
    vocabulary: usize,
    weights: Weights,
    tokens: Input<u32>,
    width: usize,
    data: Data,
}

fn make(format: WeightFormat, shape: &Shape, data: Data) -> Box<dyn Case> {
    let [tokens, vocabulary, width] = shape.sizes();
    let weights = Weights::new(format, &data.values("table", vocabulary * width));
    Box::new(Embedding {
        format,
        vocabulary,
        weights,
        tokens: data.indices("tokens", tokens, vocabulary),
        width,
        data,
    })
}

fn make_of_blocks(format: WeightFormat, shape: &Shape, data: Data) -> Box<dyn Case> {
    let [tokens, vocabulary, blocks] = shape.sizes();
    let width = blocks * format.block();
    let weights = Weights::blocks(format, data, "table", vocabulary * blocks);
    Box::new(Embedding {
        format,
        vocabulary,
        weights,
        tokens: data.indices("tokens", tokens, vocabulary),
        width,
        data,
    })
}

impl Case for Embedding {
    fn run(&self, kernels: &Kernels, _: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.tokens.len() * self.width);
        let table = (kernels.pack)(self.format, self.vocabulary, self.width, &self.weights.bytes);
        (kernels.embedding)(&table, &self.tokens, &mut out);
        vec![Output::new("out", out)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        vec![expected_embedding(&self.tokens, &self.weights.widened, self.width)]
    }
}
