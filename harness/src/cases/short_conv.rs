use lfm2_kernels::Isa;
use lfm2_kernels::ops::ShortConv;
use proptest::strategy::BoxedStrategy;

use super::{Case, Dimension, Op, Output, Shape, between, one_of, shapes};
use crate::buffer::Input;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_short_conv};
use crate::plan::Check;

pub const OP: Op = Op {
    name: "short_conv",
    format: None,
    checks: &[Check::OtherWay, Check::Bounds, Check::Integers],
    dimensions: &[
        Dimension::any("rows"),
        Dimension::any("later_rows"),
        Dimension::positive("width"),
        Dimension::between("length", 1, ShortConv::MAX_LENGTH),
        Dimension::flag("bias"),
    ],
    fit_together: Shape::is_affordable,
    fixed_shapes,
    drawn_shapes,
    make,
};

fn fixed_shapes() -> Vec<Shape> {
    let mut shapes = vec![Shape::from([0, 0, 7, 3, 0])];
    for width in 1..=33 {
        shapes.push([2, 3, width, 1 + width % 4, width % 2].into());
    }
    // Calls shorter than the convolution.
    for length in 1..=8 {
        for rows in 0..=4 {
            shapes.push([rows, 1, 5, length, 1].into());
        }
    }
    // Rows that threads share.
    shapes.push([40, 1, 301, 3, 1].into());
    // Weights, biases and states that end anywhere within a vector.
    for width in 1..=16 {
        for length in [2, 3] {
            shapes.push([1, 1, width, length, 1].into());
        }
    }
    // Channels that do not pass at once, in more rows than a task takes.
    shapes.push([35, 2, 1061, 3, 1].into());
    shapes
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    let length = || between(1, 4);
    let bias = || between(0, 1);
    one_of([
        (4, shapes([between(0, 12), between(0, 3), between(1, 99), length(), bias()])),
        (1, shapes([between(20, 60), between(0, 3), between(300, 1100), length(), bias()])),
    ])
}

struct Convolution {
    bcx: Input,
    /// The first call's; a second one goes on from its state.
    rows: usize,
    width: usize,
    weight: Input,
    bias: Option<Input>,
    conv: ShortConv,
    state: Input,
    data: Data,
}

fn make(shape: &Shape, data: Data) -> Box<dyn Case> {
    let [rows, later_rows, width, length, bias] = shape.sizes();
    let weight = data.factors("weight", width * length);
    let bias = (bias == 1).then(|| data.values("bias", width));
    Box::new(Convolution {
        bcx: data.values("bcx", (rows + later_rows) * 3 * width),
        rows,
        width,
        conv: ShortConv::new(width, &weight, bias.as_ref().map(|bias| bias.to_vec())),
        weight,
        bias,
        state: data.values("state", (length - 1) * width),
        data,
    })
}

impl Case for Convolution {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.bcx.len() / 3);
        let mut state = self.state.writable();
        let (now, later) = self.bcx.split_at(self.rows * 3 * self.width);
        let (out_now, out_later) = out.split_at_mut(self.rows * self.width);
        (kernels.short_conv)(isa, now, &self.conv, &mut state, out_now);
        (kernels.short_conv)(isa, later, &self.conv, &mut state, out_later);
        vec![Output::new("out", out), Output::new("state", state)]
    }

    fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.bcx.len() / 3);
        let mut state = self.state.writable();
        let rows = self.bcx.chunks_exact(3 * self.width).zip(out.chunks_exact_mut(self.width));
        for (bcx, out) in rows {
            (kernels.short_conv)(isa, bcx, &self.conv, &mut state, out);
        }
        vec![Output::new("out", out), Output::new("state", state)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        let bias = self.bias.as_deref();
        let (out, state) =
            expected_short_conv(&self.bcx, self.width, &self.weight, bias, &self.state);
        vec![out, state]
    }
}
