use lfm2_kernels::Isa;
use proptest::strategy::BoxedStrategy;

use super::{Case, Dimension, Op, Output, Shape, between, one_of, shapes};
use crate::buffer::Input;
use crate::fill::{Fill, power_of_two};
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_softmax};
use crate::plan::Check;

pub const OP: Op = Op {
    name: "softmax",
    format: None,
    checks: &[Check::Bounds, Check::NonFinite],
    dimensions: &[Dimension::any("rows"), Dimension::positive("length")],
    fit_together: Shape::is_affordable,
    fixed_shapes,
    drawn_shapes,
    make: |shape, data| {
        let [rows, length] = shape.sizes();
        Box::new(Softmax { x: data.values("x", rows * length), length })
    },
};

/// `exp` alone: rows of 0 and a negative number.
pub const EXP: Op = Op {
    name: "exp",
    format: None,
    checks: &[Check::Bounds, Check::NonFinite],
    dimensions: &[Dimension::any("samples")],
    fit_together: Shape::is_affordable,
    fixed_shapes: || (0..=33).map(|samples| Shape::from([samples])).collect(),
    drawn_shapes: || one_of([(3, shapes([between(0, 500)])), (1, shapes([between(9000, 20_000)]))]),
    make: |shape, data| {
        let [samples] = shape.sizes();
        let mut x = data.unsealed("x", 2 * samples);
        let stream = data.stream("scale");
        for (i, pair) in x.chunks_exact_mut(2).enumerate() {
            pair[0] = 0.0;
            pair[1] = -pair[1].abs();
            if data.fill == Fill::Uniform {
                pair[1] *= 110.0;
            } else if data.fill == Fill::Normal {
                pair[1] *= power_of_two(stream.below(i as u64, 20) as i32 - 12);
            }
        }
        Box::new(Softmax { x: x.seal(), length: 2 })
    },
};

fn fixed_shapes() -> Vec<Shape> {
    let no_rows = Shape::from([0, 7]);
    let shared_by_threads = Shape::from([301, 128]);
    let tails = (1..=65).map(|length| Shape::from([1 + length % 3, length]));
    [no_rows].into_iter().chain(tails).chain([shared_by_threads]).collect()
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    one_of([
        (4, shapes([between(0, 9), between(1, 99)])),
        (1, shapes([between(200, 400), between(64, 128)])),
        (2, shapes([between(1, 9), between(500, 3000)])),
    ])
}

struct Softmax {
    x: Input,
    length: usize,
}

impl Case for Softmax {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut x = self.x.writable();
        (kernels.softmax)(isa, &mut x, self.length);
        vec![Output::new("x", x)]
    }

    fn saturated_rows(&self, outputs: &[Output]) -> [usize; 2] {
        let rows = outputs[0].values.chunks_exact(self.length);
        let is_saturated = |row: &&[f32]| row.len() > 1 && row.contains(&1.0);
        [rows.clone().filter(is_saturated).count(), rows.len()]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        vec![self.x.chunks_exact(self.length).flat_map(expected_softmax).collect()]
    }
}
