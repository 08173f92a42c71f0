//! Operations of two slices, the first of which is replaced.

use lfm2_kernels::Isa;
use proptest::strategy::BoxedStrategy;

use super::{Case, Op, Output, Shape, between, one_of, shapes};
use crate::buffer::Buffer;
use crate::data::Data;
use crate::fill::{Fill, power_of_two};
use crate::kernels::{InPlace, Kernels};
use crate::oracle::expected::{Expected, expected_add, expected_multiply, expected_silu_multiply};

const fn op(name: &'static str, make: fn(&Shape, Data) -> Box<dyn Case>) -> Op {
    Op { name, dimensions: &["length"], fixed_shapes, drawn_shapes, make }
}

pub const ADD: Op = op("add", |shape, data| {
    let [length] = shape.sizes();
    let x = data.values("x", length);
    let y = data.against("y", &x);
    Box::new(ElementWise {
        run: |kernels| kernels.add,
        expected: expected_add,
        is_exact: true,
        x,
        y,
    })
});

pub const MULTIPLY: Op = op("multiply", |shape, data| {
    let [length] = shape.sizes();
    let (x, y) = (data.values("x", length), data.values("y", length));
    Box::new(ElementWise {
        run: |kernels| kernels.multiply,
        expected: expected_multiply,
        is_exact: true,
        x,
        y,
    })
});

pub const SILU_MULTIPLY: Op = op("silu_multiply", |shape, data| {
    let [length] = shape.sizes();
    let (x, y) = (data.values("gate", length), data.values("up", length));
    Box::new(ElementWise {
        run: |kernels| kernels.silu_multiply,
        expected: expected_silu_multiply,
        is_exact: false,
        x,
        y,
    })
});

/// SiLU alone, over all that it does not round to 0 or to its argument.
pub const SILU: Op = op("silu", |shape, data| {
    let [length] = shape.sizes();
    let mut x = data.values("gate", length);
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
        is_exact: false,
        x,
        y,
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
    /// Whether integers give integers.
    is_exact: bool,
    x: Buffer,
    y: Buffer,
}

impl Case for ElementWise {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut x = self.x.clone();
        (self.run)(kernels)(isa, &mut x, &self.y);
        vec![Output::new("x", x)]
    }

    fn is_exact_on_integers(&self) -> bool {
        self.is_exact
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        vec![(self.expected)(&self.x, &self.y)]
    }
}
