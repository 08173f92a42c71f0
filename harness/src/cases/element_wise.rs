//! Operations of two slices, the first of which is replaced.

use lfm2_kernels::Isa;
use proptest::strategy::BoxedStrategy;

use super::{Case, Dimension, Op, Output, Shape, between, one_of, shapes};
use crate::buffer::Input;
use crate::data::Data;
use crate::fill::{Fill, power_of_two};
use crate::kernels::{InPlace, Kernels};
use crate::oracle::expected::{Expected, expected_add, expected_multiply, expected_silu_multiply};
use crate::plan::Check;

const EXACT: &[Check] = &[Check::Bounds, Check::Integers];

const DIMENSIONS: &[Dimension] = &[Dimension::any("length")];

const fn op(
    name: &'static str,
    checks: &'static [Check],
    make: fn(&Shape, Data) -> Box<dyn Case>,
) -> Op {
    let (format, dimensions) = (None, DIMENSIONS);
    let fit_together = Shape::is_affordable;
    Op { name, format, checks, dimensions, fit_together, fixed_shapes, drawn_shapes, make }
}

pub const ADD: Op = op("add", EXACT, |shape, data| {
    let [length] = shape.sizes();
    let x = data.values("x", length);
    let y = data.against("y", &x);
    Box::new(ElementWise { run: |kernels| kernels.add, expected: expected_add, x, y })
});

pub const MULTIPLY: Op = op("multiply", EXACT, |shape, data| {
    let [length] = shape.sizes();
    let (x, y) = (data.values("x", length), data.values("y", length));
    Box::new(ElementWise { run: |kernels| kernels.multiply, expected: expected_multiply, x, y })
});

pub const SILU_MULTIPLY: Op = op("silu_multiply", &[Check::Bounds], |shape, data| {
    let [length] = shape.sizes();
    let (x, y) = (data.values("gate", length), data.values("up", length));
    Box::new(ElementWise {
        run: |kernels| kernels.silu_multiply,
        expected: expected_silu_multiply,
        x,
        y,
    })
});

/// SiLU alone, over all that it does not round to 0 or to its argument.
pub const SILU: Op = op("silu", &[Check::Bounds], |shape, data| {
    let [length] = shape.sizes();
    let mut x = data.unsealed("gate", length);
    let stream = data.stream("scale");
    for (i, gate) in x.iter_mut().enumerate() {
        if data.fill == Fill::Uniform {
            *gate *= 110.0;
        } else if data.fill == Fill::Normal {
            *gate *= power_of_two(stream.below(i as u64, 20) as i32 - 12);
        }
    }
    let mut y = data.poisoned("up", length);
    y.fill(1.0);
    Box::new(ElementWise {
        run: |kernels| kernels.silu_multiply,
        expected: expected_silu_multiply,
        x: x.seal(),
        y: y.seal(),
    })
});

/// Elements that are shared by threads.
const SHARED: usize = 33_001;

fn fixed_shapes() -> Vec<Shape> {
    (0..=65).chain([SHARED]).map(|length| Shape::from([length])).collect()
}

/// The longest are shared by threads.
fn drawn_shapes() -> BoxedStrategy<Shape> {
    one_of([
        (3, shapes([between(0, 99)])),
        (2, shapes([between(100, 5000)])),
        (1, shapes([between(16_000, 70_000)])),
    ])
}

struct ElementWise {
    run: fn(&Kernels) -> InPlace,
    expected: fn(&[f32], &[f32]) -> Vec<Expected>,
    x: Input,
    y: Input,
}

impl Case for ElementWise {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut x = self.x.writable();
        (self.run)(kernels)(isa, &mut x, &self.y);
        vec![Output::new("x", x)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        vec![(self.expected)(&self.x, &self.y)]
    }
}
