use lfm2_kernels::Isa;
use lfm2_kernels::linear::{Activations, Matrix, WeightFormat};
use proptest::strategy::BoxedStrategy;

use super::{
    Case, Dimension, Op, Output, Shape, Weights, affordable, among, between, one_of, shapes,
};
use crate::buffer::Input;
use crate::data::Data;
use crate::fill::{Fill, power_of_two};
use crate::golden::block_format;
use crate::kernels::Kernels;
use crate::oracle::blocks::{self, Run};
use crate::oracle::expected::{
    Expected, expected_brain_linear, expected_linear, expected_quantised_linear,
};
use crate::plan::Check;

const DIMENSIONS: &[Dimension] = &[
    Dimension::any("rows"),
    Dimension::positive("inputs"),
    Dimension::positive("outputs"),
    Dimension::flag("bias"),
];

const fn op(
    name: &'static str,
    format: &'static str,
    make: fn(&Shape, Data) -> Box<dyn Case>,
) -> Op {
    let (format, dimensions) = (Some(format), DIMENSIONS);
    let fit_together = Shape::is_affordable;
    let checks = &[Check::OtherWay, Check::Bounds, Check::Integers];
    Op { name, format, checks, dimensions, fit_together, fixed_shapes, drawn_shapes, make }
}

pub const F32: Op = op("linear_f32", "f32", |shape, data| make(WeightFormat::F32, shape, data));
pub const F16: Op = op("linear_f16", "f16", |shape, data| make(WeightFormat::F16, shape, data));
pub const BF16: Op = op("linear_bf16", "bf16", |shape, data| make(WeightFormat::Bf16, shape, data));

/// Both factors of a product are brain floats.
pub const BF16_BF16: Op = Op {
    fixed_shapes: || {
        let mut shapes = common_shapes();
        // More cuts than rows take at once.
        shapes.extend([[1, 6 * 256 + 5, 34, 1], [13, 6 * 256 + 5, 34, 1]].map(Shape::from));
        shapes
    },
    ..op("linear_bf16_bf16", "bf16_bf16", make_brain)
};

/// Quantised weights, whose rows are whole blocks.
macro_rules! of_blocks {
    ($op:ident, $name:literal, $format:ident, $activations:ident) => {
        pub const $op: Op = Op {
            dimensions: &[
                Dimension::any("rows"),
                Dimension::positive("blocks"),
                Dimension::positive("outputs"),
                Dimension::flag("bias"),
            ],
            fit_together: |shape| {
                let [rows, blocks, outputs, _] = shape.sizes();
                affordable(&[rows, blocks, outputs, WeightFormat::$format.block()])
            },
            fixed_shapes: || fixed_shapes_of_blocks(WeightFormat::$format.block()),
            drawn_shapes: || drawn_shapes_of_blocks(WeightFormat::$format.block()),
            ..op(concat!("linear_", $name), $name, |shape, data| {
                make_of_blocks(WeightFormat::$format, Activations::$activations, shape, data)
            })
        };
    };
}
of_blocks!(Q8_0, "q8_0", Q8_0, F32);
of_blocks!(Q8_0_INT8, "q8_0_int8", Q8_0, Int8);
of_blocks!(Q4_0, "q4_0", Q4_0, F32);
of_blocks!(Q4_0_INT8, "q4_0_int8", Q4_0, Int8);
of_blocks!(Q4_1, "q4_1", Q4_1, F32);
of_blocks!(Q4_1_INT8, "q4_1_int8", Q4_1, Int8);
of_blocks!(Q5_0, "q5_0", Q5_0, F32);
of_blocks!(Q5_0_INT8, "q5_0_int8", Q5_0, Int8);
of_blocks!(Q5_1, "q5_1", Q5_1, F32);
of_blocks!(Q5_1_INT8, "q5_1_int8", Q5_1, Int8);
of_blocks!(Q4_K, "q4_k", Q4K, F32);
of_blocks!(Q4_K_INT8, "q4_k_int8", Q4K, Int8);
of_blocks!(Q5_K, "q5_k", Q5K, F32);
of_blocks!(Q5_K_INT8, "q5_k_int8", Q5K, Int8);
of_blocks!(Q6_K, "q6_k", Q6K, F32);
of_blocks!(Q6_K_INT8, "q6_k_int8", Q6K, Int8);

fn fixed_shapes() -> Vec<Shape> {
    let mut shapes = common_shapes();
    // From how many rows on tiles may take two panels: what is left of rows, of outputs, and of turns of four pairs.
    for (rows, outputs) in (48..).zip([16, 31, 32, 33, 47, 48, 64]) {
        shapes.push([rows, 23, outputs, 0].into());
    }
    shapes
}

/// Those for activations in f32 as well as in brain floats.
fn common_shapes() -> Vec<Shape> {
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
    // From how many rows on narrow weights are widened once, and what is next is asked for less often; more cuts than are copied at once.
    for rows in [16, 48] {
        shapes.push([rows, 4 * 256 + 3, 34, 1].into());
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

/// Runs of activations that are quantised at once: twice those of many rows, and those of one.
const RUNS: [usize; 2] = [64, 352];

fn fixed_shapes_of_blocks(block: usize) -> Vec<Shape> {
    let mut shapes = vec![Shape::from([0, 1, 7, 0])];
    // Every tail of the outputs, with every height of a tile.
    for outputs in 1..=33 {
        shapes.push([1 + outputs % 13, 1 + outputs % 2, outputs, 1].into());
    }
    for rows in 2..=15 {
        shapes.push([rows, 1, 17, 1].into());
    }
    // One row takes up to four panels at once.
    for outputs in [32, 48, 63, 65, 81] {
        shapes.push([1, 1, outputs, 1].into());
    }
    // Where chains are cut, and where the next runs are quantised.
    for inputs in [256, 288, 32 * RUNS[0], 32 * (RUNS[0] + 1)] {
        for rows in [1, 2, 13] {
            shapes.push([rows, inputs.div_ceil(block), 5, 1].into());
        }
    }
    shapes.push([1, (32 * RUNS[1]).div_ceil(block) + 1, 2, 0].into());
    // More rows than a decoded batch, and than a block has.
    for rows in [16, 17, 145] {
        shapes.push([rows, 1, 3, 1].into());
    }
    // Outputs that threads share.
    for rows in [1, 5] {
        shapes.push([rows, 1024 / block, 333, 1].into());
    }
    // From how many rows on tiles may take two panels: what is left of rows and of outputs.
    for (rows, outputs) in (48..).zip([16, 31, 32, 33, 47, 48]) {
        shapes.push([rows, 1, outputs, 0].into());
    }
    shapes
}

fn drawn_shapes_of_blocks(block: usize) -> BoxedStrategy<Shape> {
    let bias = || between(0, 1);
    let most = 1280 / block;
    one_of([
        (6, shapes([between(0, 30), between(1, 2), between(1, 70), bias()])),
        (3, shapes([between(1, 1), between(1, most), between(1, 150), bias()])),
        (3, shapes([between(1, 14), between(1, most), between(1, 40), bias()])),
        (1, shapes([between(90, 200), between(1, 1), between(1, 20), bias()])),
    ])
}

struct Linear {
    x: Input,
    rows: usize,
    outputs: usize,
    inputs: usize,
    format: WeightFormat,
    activations: Activations,
    weights: Weights,
    /// What an output is made of, where activations are quantised.
    runs: Option<Vec<Vec<Run>>>,
    bias: Option<Input>,
    data: Data,
}

fn make(format: WeightFormat, shape: &Shape, data: Data) -> Box<dyn Case> {
    Box::new(linear(format, shape, data, 1.0))
}

/// Where numbers are small, half are moved to both sides of 2^-55, below which they count as 0.
fn make_brain(shape: &Shape, data: Data) -> Box<dyn Case> {
    let factor = if data.fill == Fill::Subnormal { power_of_two(40) } else { 1.0 };
    let plain = linear(WeightFormat::Bf16, shape, data, factor);
    Box::new(Linear { activations: Activations::Bf16, ..plain })
}

/// Weights that are stored one by one, and rows; each number times `factor`.
fn linear(format: WeightFormat, shape: &Shape, data: Data, factor: f32) -> Linear {
    let [rows, inputs, outputs, bias] = shape.sizes();
    let weights = data.factors("weight", outputs * inputs);
    let weights: Vec<f32> = weights.iter().map(|weight| weight * factor).collect();
    let mut x = data.unsealed("x", rows * inputs);
    x.iter_mut().for_each(|x| *x *= factor);
    Linear {
        x: x.seal(),
        rows,
        outputs,
        inputs,
        format,
        activations: Activations::F32,
        weights: Weights::new(format, &weights),
        runs: None,
        bias: (bias == 1).then(|| data.values("bias", outputs)),
        data,
    }
}

fn make_of_blocks(
    format: WeightFormat,
    activations: Activations,
    shape: &Shape,
    data: Data,
) -> Box<dyn Case> {
    let [rows, blocks, outputs, bias] = shape.sizes();
    let inputs = blocks * format.block();
    let weights = Weights::blocks(format, data, "weight", outputs * blocks);
    let mut x = data.unsealed("x", rows * inputs);
    if data.fill == Fill::Integers {
        // Quantised, they are what they were.
        x.iter_mut().step_by(RUN).for_each(|x| *x = 127.0);
    }
    let runs = || {
        let format = block_format(format).expect("a format of blocks");
        let rows = weights.bytes.chunks_exact(weights.bytes.len() / outputs);
        rows.map(|row| blocks::runs(format, row)).collect()
    };
    Box::new(Linear {
        x: x.seal(),
        rows,
        runs: (activations == Activations::Int8).then(runs),
        outputs,
        inputs,
        format,
        activations,
        weights,
        bias: (bias == 1).then(|| data.values("bias", outputs)),
        data,
    })
}

/// Activations that share a scale.
const RUN: usize = 32;

impl Linear {
    fn weight(&self, kernels: &Kernels) -> Matrix {
        let mut weight =
            (kernels.pack)(self.format, self.outputs, self.inputs, &self.weights.bytes);
        weight.set_activations(self.activations);
        weight
    }
}

impl Case for Linear {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.rows * self.outputs);
        let weight = self.weight(kernels);
        (kernels.linear)(isa, &self.x, &weight, self.bias.as_deref(), &mut out);
        vec![Output::new("out", out)]
    }

    fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.rows * self.outputs);
        let weight = self.weight(kernels);
        for (x, out) in self.x.chunks_exact(self.inputs).zip(out.chunks_exact_mut(self.outputs)) {
            (kernels.linear)(isa, x, &weight, self.bias.as_deref(), out);
        }
        let mut outputs = vec![Output::new("out", out)];
        if self.activations != Activations::F32 {
            outputs.extend(isa.without_dots().into_iter().flat_map(|isa| self.run(kernels, isa)));
        }
        outputs
    }

    fn other_way(&self) -> &'static str {
        match self.activations {
            Activations::F32 => "one row at a time",
            Activations::Int8 | Activations::Bf16 => {
                "one row at a time, or without instructions for dot products"
            }
        }
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        if self.rows == 0 {
            return vec![Vec::new()];
        }
        let bias = self.bias.as_deref();
        let widened = &self.weights.widened;
        vec![match (&self.runs, self.activations) {
            (Some(runs), _) => expected_quantised_linear(&self.x, self.rows, runs, bias),
            (_, Activations::Bf16) => expected_brain_linear(&self.x, self.rows, widened, bias),
            _ => expected_linear(&self.x, self.rows, widened, bias),
        }]
    }
}
