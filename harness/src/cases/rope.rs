use lfm2_kernels::Isa;
use lfm2_kernels::ops::RopeTable;
use proptest::strategy::BoxedStrategy;

use super::shape::MOST;
use super::{
    Case, Dimension, Op, Output, Shape, affordable, among, at_most, between, one_of, shapes,
};
use crate::buffer::Input;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_rope};
use crate::plan::Check;

pub const OP: Op = Op {
    name: "rope",
    format: None,
    checks: &[Check::Bounds],
    dimensions: &[
        Dimension::any("rows"),
        Dimension::positive("heads"),
        Dimension::positive("half_head_dim"),
        Dimension::any("position"),
        Dimension::any("step"),
        Dimension::positive("theta"),
    ],
    fit_together,
    fixed_shapes,
    drawn_shapes,
    make,
};

fn fit_together(shape: &Shape) -> Result<(), String> {
    let [rows, heads, half_head_dim, first_position, step, _] = shape.sizes();
    affordable(&[rows, heads, half_head_dim])?;
    at_most(MOST, "the last position", first_position + rows * step)
}

fn fixed_shapes() -> Vec<Shape> {
    let shared_by_threads = Shape::from([150, 4, 32, 5, 1, 1_000_000]);
    let no_rows = Shape::from([0, 2, 8, 0, 1, 1_000_000]);
    let tails = (1..=33).map(|half| Shape::from([2, 1 + half % 3, half, half % 2, 1, 1_000_000]));
    // Rows that end wherever pairs can within a vector.
    let ends = (1..=8).map(|half| Shape::from([1, 1, half, 3, 1, 1_000_000]));
    [no_rows].into_iter().chain(tails).chain([shared_by_threads]).chain(ends).collect()
}

/// Beside runs of positions there are calls with several sequences, whose positions jump.
fn drawn_shapes() -> BoxedStrategy<Shape> {
    let of = |rows, heads, half_head_dim| {
        let first_position = among(&[0, 1, 77, 1000, 32_000, 128_000]);
        let (step, theta) = (among(&[1, 0, 7, 74]), among(&[1_000_000, 10_000, 10_000_000]));
        shapes([rows, heads, half_head_dim, first_position, step, theta])
    };
    one_of([
        (2, of(between(0, 40), between(1, 8), among(&[32]))),
        (2, of(between(0, 40), between(1, 8), between(1, 64))),
        (1, of(between(100, 300), between(4, 16), among(&[32]))),
    ])
}

struct Rope {
    x: Input,
    heads: usize,
    head_dim: usize,
    positions: Vec<u32>,
    theta: f64,
    table: RopeTable,
}

fn make(shape: &Shape, data: Data) -> Box<dyn Case> {
    let [rows, heads, half_head_dim, first_position, step, theta] = shape.sizes();
    let head_dim = 2 * half_head_dim;
    let theta = theta as f64;
    let positions: Vec<usize> = (0..rows).map(|t| first_position + t * step).collect();
    let mut table = RopeTable::new(theta, head_dim, rows);
    table.fill(positions.iter().copied());
    Box::new(Rope {
        x: data.values("x", rows * heads * head_dim),
        heads,
        head_dim,
        positions: positions.iter().map(|&position| position as u32).collect(),
        theta,
        table,
    })
}

impl Case for Rope {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut x = self.x.writable();
        (kernels.rope)(isa, &mut x, self.heads, &self.table);
        vec![Output::new("x", x)]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        vec![expected_rope(&self.x, self.heads, self.head_dim, &self.positions, self.theta)]
    }
}
