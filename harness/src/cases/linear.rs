use lfm2_kernels::Isa;
use lfm2_kernels::linear::{Matrix, WeightFormat};
use proptest::strategy::BoxedStrategy;

use super::{Case, Op, Output, Shape, Weights, among, between, one_of, shapes};
use crate::buffer::Input;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_linear};
use crate::plan::Check;

const fn op(
    name: &'static str,
    format: &'static str,
    make: fn(&Shape, Data) -> Box<dyn Case>,
) -> Op {
    let dimensions = &["rows", "inputs", "outputs", "bias"];
    let format = Some(format);
    let checks = &[Check::OtherWay, Check::Bounds, Check::Integers];
    Op { name, format, checks, dimensions, fixed_shapes, drawn_shapes, make }
}

pub const F32: Op = op("linear_f32", "f32", |shape, data| make(WeightFormat::F32, shape, data));
pub const F16: Op = op("linear_f16", "f16", |shape, data| make(WeightFormat::F16, shape, data));
pub const BF16: Op = op("linear_bf16", "bf16", |shape, data| make(WeightFormat::Bf16, shape, data));

fn fixed_shapes() -> Vec<Shape> {
    let mut shapes = vec![Shape::from([0, 5, 7, 0])];
    // Every height of a tile and every tail of the outputs.
    for outputs in 1..=33 {
        for rows in 1..=14 {
            shapes.push([rows, 1 + (rows + outputs) % 4, outputs, rows % 2].into());
        }
    }
    // One row takes four panels at once.
    for outputs in [63, 64, 65, 79, 80, 81, 127, 129] {
        shapes.push([1, 3, outputs, 0].into());
    }
    // Where the chains are cut.
    for inputs in [255, 256, 257, 511, 512, 513] {
        for rows in [1, 2, 13] {
            shapes.push([rows, inputs, 17, 1].into());
        }
    }
    // More rows than a block has.
    for rows in [95, 96, 97, 193] {
        shapes.push([rows, 2, 18, 1].into());
    }
    // Outputs that threads share.
    for rows in [1, 5] {
        shapes.push([rows, 257, 200, 1].into());
    }
    shapes
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    let bias = || between(0, 1);
    one_of([
        (6, shapes([between(0, 30), between(1, 80), between(1, 70), bias()])),
        (3, shapes([between(1, 1), between(1, 1600), between(1, 150), bias()])),
        (3, shapes([between(1, 14), among(CUTS), between(1, 40), bias()])),
        (2, shapes([between(90, 200), between(1, 40), between(1, 40), bias()])),
        (1, shapes([between(97, 110), between(257, 300), between(1, 33), bias()])),
    ])
}

const CUTS: &[usize] = &[254, 255, 256, 257, 258, 300, 511, 512, 513, 700, 767, 768, 769, 1100];

struct Linear {
    x: Input,
    rows: usize,
    weight: Matrix,
    widened: Vec<f32>,
    bias: Option<Input>,
    data: Data,
}

fn make(format: WeightFormat, shape: &Shape, data: Data) -> Box<dyn Case> {
    let [rows, inputs, outputs, bias] = shape.sizes();
    let weights = Weights::new(format, &data.factors("weight", outputs * inputs));
    Box::new(Linear {
        x: data.values("x", rows * inputs),
        rows,
        weight: Matrix::from_le_bytes(format, outputs, inputs, &weights.bytes),
        widened: weights.widened,
        bias: (bias == 1).then(|| data.values("bias", outputs)),
        data,
    })
}

impl Case for Linear {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.rows * self.weight.outputs());
        (kernels.linear)(isa, &self.x, &self.weight, self.bias.as_deref(), &mut out);
        vec![Output::new("out", out)]
    }

    fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let (inputs, outputs) = (self.weight.inputs(), self.weight.outputs());
        let mut out = self.data.poisoned("out", self.rows * outputs);
        for (x, out) in self.x.chunks_exact(inputs).zip(out.chunks_exact_mut(outputs)) {
            (kernels.linear)(isa, x, &self.weight, self.bias.as_deref(), out);
        }
        vec![Output::new("out", out)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        if self.rows == 0 {
            return vec![Vec::new()];
        }
        vec![expected_linear(&self.x, self.rows, &self.widened, self.bias.as_deref())]
    }
}
