use lfm2_kernels::Isa;
use lfm2_kernels::linear::{Matrix, WeightFormat};
use proptest::strategy::BoxedStrategy;

use super::{Case, Op, Output, Shape, Weights, between, shapes};
use crate::buffer::Input;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_embedding};
use crate::plan::Check;

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
        dimensions: &["tokens", "vocabulary", "width"],
        fixed_shapes,
        drawn_shapes,
        make,
    }
}

pub const F32: Op = op("embedding_f32", "f32", |shape, data| make(WeightFormat::F32, shape, data));
pub const F16: Op = op("embedding_f16", "f16", |shape, data| make(WeightFormat::F16, shape, data));
pub const BF16: Op =
    op("embedding_bf16", "bf16", |shape, data| make(WeightFormat::Bf16, shape, data));

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
    table: Matrix,
    tokens: Input<u32>,
    width: usize,
    widened: Vec<f32>,
    data: Data,
}

fn make(format: WeightFormat, shape: &Shape, data: Data) -> Box<dyn Case> {
    let [tokens, vocabulary, width] = shape.sizes();
    let weights = Weights::new(format, &data.values("table", vocabulary * width));
    Box::new(Embedding {
        table: Matrix::from_le_bytes(format, vocabulary, width, &weights.bytes),
        tokens: data.indices("tokens", tokens, vocabulary),
        width,
        widened: weights.widened,
        data,
    })
}

impl Case for Embedding {
    fn run(&self, kernels: &Kernels, _: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.tokens.len() * self.width);
        (kernels.embedding)(&self.table, &self.tokens, &mut out);
        vec![Output::new("out", out)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        vec![expected_embedding(&self.tokens, &self.widened, self.width)]
    }
}
