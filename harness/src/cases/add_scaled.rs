use lfm2_kernels::Isa;
use proptest::strategy::BoxedStrategy;

use super::{Case, Dimension, Op, Output, Shape, between, one_of, shapes};
use crate::buffer::Input;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_add_scaled};
use crate::plan::Check;

pub const OP: Op = Op {
    name: "add_scaled",
    format: None,
    checks: &[Check::Bounds, Check::Integers],
    dimensions: &[Dimension::any("length")],
    fit_together: Shape::is_affordable,
    fixed_shapes,
    drawn_shapes,
    make,
};

/// Elements that are shared by threads.
const SHARED: usize = 33_001;

fn fixed_shapes() -> Vec<Shape> {
    (0..=65).chain([SHARED]).map(|length| Shape::from([length])).collect()
}

/// The longest are shared by threads.
fn drawn_shapes() -> BoxedStrategy<Shape> {
    one_of([(5, shapes([between(0, 5000)])), (1, shapes([between(16_000, 70_000)]))])
}

struct AddScaled {
    x: Input,
    y: Input,
    scale: f32,
}

fn make(shape: &Shape, data: Data) -> Box<dyn Case> {
    let [length] = shape.sizes();
    let x = data.values("x", length);
    let y = data.against("y", &x);
    let scale = data.fill.value(data.stream("scale"), 0);
    Box::new(AddScaled { x, y, scale })
}

impl Case for AddScaled {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut x = self.x.writable();
        (kernels.add_scaled)(isa, &mut x, &self.y, self.scale);
        vec![Output::new("x", x)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        vec![expected_add_scaled(&self.x, &self.y, self.scale)]
    }
}
