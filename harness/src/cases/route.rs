use lfm2_kernels::Isa;
use lfm2_kernels::ops::Routing;
use proptest::strategy::BoxedStrategy;

use super::{
    Case, Dimension, Op, Output, Shape, affordable, among, at_most, between, exactly, one_of,
    shapes,
};
use crate::buffer::Input;
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_choice, expected_expert_weights};
use crate::plan::Check;

pub const OP: Op = Op {
    name: "route",
    format: None,
    checks: &[Check::OtherWay, Check::Bounds, Check::NonFinite],
    dimensions: &[
        Dimension::any("rows"),
        Dimension::positive("experts"),
        Dimension::positive("used"),
        Dimension::flag("normalise"),
    ],
    fit_together,
    fixed_shapes,
    drawn_shapes,
    make,
};

fn fit_together(shape: &Shape) -> Result<(), String> {
    let [rows, experts, used, _] = shape.sizes();
    at_most(experts, "used", used)?;
    affordable(&[rows, experts])
}

fn fixed_shapes() -> Vec<Shape> {
    let mut shapes = vec![Shape::from([0, 8, 2, 1])];
    for experts in 1..=65 {
        let used = 1 + experts % 6;
        shapes.push([1 + experts % 3, experts, used.min(experts), experts / 2 % 2].into());
    }
    // Several times, since ties and biases may be anywhere; all experts; as published.
    shapes.extend((1..=16).map(|rows| Shape::from([rows, 3, 1, 0])));
    for rows in [1, 5, 9, 16] {
        shapes.push([rows, 5, 2, 1].into());
        shapes.push([rows, 7, 7, 1].into());
        shapes.push([rows, 32, 4, 1].into());
        shapes.push([rows, 64, 4, 1].into());
    }
    shapes
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    let of = |rows, experts| shapes([rows, experts, among(&[1, 2, 3, 4, 8]), between(0, 1)]);
    one_of([
        (4, of(between(0, 9), between(8, 40))),
        (1, of(between(10, 300), between(8, 80))),
        (1, of(between(1, 4), between(80, 300))),
    ])
}

struct Route {
    scores: Input,
    bias: Input,
    routing: Routing,
    data: Data,
}

/// Scores are what a sigmoid may give, from 0 to 1. In a third of the cases there is no bias, and in a third both are multiples of a
/// quarter, so that there are many ties.
fn make(shape: &Shape, data: Data) -> Box<dyn Case> {
    let [rows, experts, used, normalise] = shape.sizes();
    let mut scores = data.unsealed("scores", rows * experts);
    let mut bias = data.unsealed("bias", experts);
    for score in scores.iter_mut().filter(|score| score.is_finite()) {
        *score = if score.abs() > 1.0 { 1.0 / score.abs() } else { score.abs() };
    }
    match data.stream("ties").below(0, 3) {
        0 => bias.fill(0.0),
        1 => {
            scores.iter_mut().for_each(|score| *score = (*score * 4.0).round() / 4.0);
            bias.iter_mut().for_each(|bias| *bias = (*bias * 2.0).round() / 4.0);
        }
        _ => bias.iter_mut().for_each(|bias| *bias /= 4.0),
    }
    let scale = [1.0, 2.5, 0.3][data.stream("scale").below(0, 3)];
    let routing = Routing { used, normalise: normalise == 1, scale };
    Box::new(Route { scores: scores.seal(), bias: bias.seal(), routing, data })
}

impl Route {
    /// Routes rows in calls of so many.
    fn in_calls(&self, kernels: &Kernels, isa: Isa, rows: usize) -> Vec<Output> {
        let Self { scores, bias, routing, data } = self;
        let length = scores.len() / bias.len() * routing.used;
        let mut choice = data.indices("choice", length, bias.len()).writable();
        let mut weights = data.poisoned("weights", length);
        let each = rows * routing.used;
        for (scores, (choice, weights)) in scores
            .chunks(rows * bias.len())
            .zip(choice.chunks_mut(each).zip(weights.chunks_mut(each)))
        {
            (kernels.route)(isa, scores, bias, *routing, choice, weights);
        }
        assert!(choice.margins_are_intact(), "choice: written outside");
        let choice: Vec<f32> = choice.iter().map(|&expert| expert as f32).collect();
        vec![Output::new("weights", weights), Output::returned("choice", &choice)]
    }
}

impl Case for Route {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        self.in_calls(kernels, isa, (self.scores.len() / self.bias.len()).max(1))
    }

    fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        self.in_calls(kernels, isa, 1)
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        let Routing { used, normalise, scale } = self.routing;
        let (mut weights, mut choice) = (Vec::new(), Vec::new());
        for scores in self.scores.chunks_exact(self.bias.len()) {
            let chosen = expected_choice(scores, &self.bias, used);
            weights.extend(expected_expert_weights(scores, &chosen, normalise, scale));
            choice.extend(chosen.into_iter().map(|expert| expert as f32));
        }
        vec![weights, exactly(&choice)]
    }
}
