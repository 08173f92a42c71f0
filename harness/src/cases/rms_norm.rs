use lfm2_kernels::Isa;
use proptest::strategy::BoxedStrategy;

use super::{Case, Dimension, Op, Output, Shape, between, one_of, shapes};
use crate::buffer::Input;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_rms_norm};
use crate::plan::Check;

pub const OP: Op = Op {
    name: "rms_norm",
    format: None,
    checks: &[Check::Bounds],
    dimensions: &[Dimension::any("rows"), Dimension::positive("width")],
    fit_together: Shape::is_affordable,
    fixed_shapes,
    drawn_shapes,
    make,
};

fn fixed_shapes() -> Vec<Shape> {
    let no_rows = Shape::from([0, 7]);
    let shared_by_threads = Shape::from([301, 128]);
    let tails = (1..=65).map(|width| Shape::from([1 + width % 3, width]));
    [no_rows].into_iter().chain(tails).chain([shared_by_threads]).collect()
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    one_of([
        (4, shapes([between(0, 9), between(1, 99)])),
        // As for queries and keys: short rows, enough of them for several threads.
        (1, shapes([between(200, 700), between(64, 128)])),
        (2, shapes([between(1, 20), between(500, 3000)])),
    ])
}

struct RmsNorm {
    x: Input,
    weight: Input,
    epsilon: f32,
    data: Data,
}

fn make(shape: &Shape, data: Data) -> Box<dyn Case> {
    let [rows, width] = shape.sizes();
    Box::new(RmsNorm {
        x: data.values("x", rows * width),
        weight: data.values("weight", width),
        epsilon: [1e-5, 1e-6, 1e-12][data.stream("epsilon").below(0, 3)],
        data,
    })
}

impl Case for RmsNorm {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.x.len());
        (kernels.rms_norm)(isa, &self.x, &self.weight, self.epsilon, &mut out);
        vec![Output::new("out", out)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        vec![expected_rms_norm(&self.x, &self.weight, self.epsilon)]
    }
}
