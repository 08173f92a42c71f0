use std::iter::repeat_n;

use lfm2_kernels::Isa;
use lfm2_kernels::simd::LANES;
use proptest::strategy::BoxedStrategy;

use super::{Case, Dimension, Op, Output, Shape, between, exactly, one_of, shapes};
use crate::buffer::Input;
use crate::data::Data;
use crate::fill::Fill;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_argmax};
use crate::plan::Check;

pub const OP: Op = Op {
    name: "argmax",
    format: None,
    checks: &[Check::Bounds, Check::Integers, Check::NonFinite],
    dimensions: &[Dimension::positive("length")],
    fit_together: Shape::is_affordable,
    fixed_shapes,
    drawn_shapes,
    make,
};

/// Several times each, since the largest element may be anywhere.
fn fixed_shapes() -> Vec<Shape> {
    (1..=65).flat_map(|length| repeat_n(Shape::from([length]), 3)).collect()
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    one_of([(3, shapes([between(1, 99)])), (1, shapes([between(100, 70_000)]))])
}

struct Argmax {
    x: Input,
}

/// Half of the cases have many equal elements. With NaN about, others have a single largest one, which NaN follows at a distance of
/// two vectors, and so in its lane.
fn make(shape: &Shape, data: Data) -> Box<dyn Case> {
    let [length] = shape.sizes();
    let mut x = data.unsealed("x", length);
    if data.stream("ties").below(0, 2) == 0 {
        x.iter_mut().for_each(|x| *x = (*x * 2.0).round());
    } else if data.fill == Fill::NonFinite && length > 2 * LANES {
        x.iter_mut().for_each(|x| *x = x.min(1.0));
        let largest = data.stream("largest").below(0, length - 2 * LANES);
        x[largest] = 2.0;
        x[largest + 2 * LANES] = f32::NAN;
    }
    Box::new(Argmax { x: x.seal() })
}

impl Case for Argmax {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        vec![Output::returned("index", &[(kernels.argmax)(isa, &self.x) as f32])]
    }

    /// NaN is never the largest.
    fn expected(&self) -> Vec<Vec<Expected>> {
        let number = |&x: &f32| if x.is_nan() { f32::NEG_INFINITY } else { x };
        let numbers: Vec<f32> = self.x.iter().map(number).collect();
        vec![exactly(&[expected_argmax(&numbers) as f32])]
    }
}
