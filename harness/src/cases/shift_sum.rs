use lfm2_kernels::Isa;
use lfm2_kernels::ops::{ShiftAxis, ShiftSumState, ShortConv};

use super::{Case, Op, Output, Shape, exactly, short_conv};
use crate::buffer::{Buffer, Input};
use crate::data::Data;
use crate::kernels::Kernels;
use crate::oracle;
use crate::oracle::expected::{Expected, expected_add_shifted_chunks, expected_shift_sum};

const fn op(name: &'static str, make: fn(&Shape, Data) -> Box<dyn Case>) -> Op {
    // The shapes of the other convolution: calls shorter than it are shorter than the shifts, too.
    Op { name, make, ..short_conv::OP }
}

pub const TIME: Op = op("shift_sum_time", |shape, data| make(ShiftAxis::Time, shape, data));
pub const FEATURE: Op =
    op("shift_sum_feature", |shape, data| make(ShiftAxis::Feature, shape, data));

struct ShiftSum {
    axis: ShiftAxis,
    projected: Input,
    /// The first call's; a second one goes on from its state.
    rows: usize,
    width: usize,
    weight: Input,
    bias: Option<Input>,
    conv: ShortConv,
    data: Data,
}

fn make(axis: ShiftAxis, shape: &Shape, data: Data) -> Box<dyn Case> {
    let [rows, later_rows, width, length, bias] = shape.sizes();
    let weight = data.factors("weight", width * length);
    let bias = (bias == 1).then(|| data.values("bias", width));
    Box::new(ShiftSum {
        axis,
        projected: data.values("projected", (rows + later_rows) * 3 * width),
        rows,
        width,
        conv: ShortConv::new(width, &weight, bias.as_ref().map(|bias| bias.to_vec())),
        weight,
        bias,
        data,
    })
}

impl ShiftSum {
    fn outputs(&self, out: Buffer, projected: Buffer, state: &ShiftSumState) -> Vec<Output> {
        let mut outputs = vec![
            Output::new("out", out),
            Output::new("projected", projected),
            Output::returned("sums", &state.sums),
        ];
        if self.axis == ShiftAxis::Time {
            let names = ["second_chunk", "older_third_chunk", "third_chunk"];
            outputs.extend(names.iter().zip(&state.chunks).map(|(n, c)| Output::returned(n, c)));
        }
        outputs
    }

    /// Chunk `i` of the row that is `back` rows before the end, or zeros before the start.
    fn past_chunk(&self, i: usize, back: usize) -> Vec<Expected> {
        let rows = self.projected.len() / (3 * self.width);
        match rows.checked_sub(back) {
            Some(row) => exactly(&self.projected[(3 * row + i) * self.width..][..self.width]),
            None => exactly(&vec![0.0; self.width]),
        }
    }
}

impl Case for ShiftSum {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.projected.len() / 3);
        let mut projected = self.projected.writable();
        let mut state = ShiftSumState::new(self.width, self.conv.length());
        let (now, later) = projected.split_at_mut(self.rows * 3 * self.width);
        let (out_now, out_later) = out.split_at_mut(self.rows * self.width);
        (kernels.shift_sum)(isa, now, self.axis, &self.conv, &mut state, out_now);
        (kernels.shift_sum)(isa, later, self.axis, &self.conv, &mut state, out_later);
        self.outputs(out, projected, &state)
    }

    fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.projected.len() / 3);
        let mut projected = self.projected.writable();
        let mut state = ShiftSumState::new(self.width, self.conv.length());
        let rows = projected.chunks_exact_mut(3 * self.width);
        for (projected, out) in rows.zip(out.chunks_exact_mut(self.width)) {
            (kernels.shift_sum)(isa, projected, self.axis, &self.conv, &mut state, out);
        }
        self.outputs(out, projected, &state)
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        let (width, bias) = (self.width, self.bias.as_deref());
        let axis = match self.axis {
            ShiftAxis::Time => oracle::ops::ShiftAxis::Time,
            ShiftAxis::Feature => oracle::ops::ShiftAxis::Feature,
        };
        let sums = expected_add_shifted_chunks(&self.projected, width, axis);

        let mut projected = exactly(&self.projected);
        for (row, sums) in projected.chunks_exact_mut(3 * width).zip(sums.chunks_exact(width)) {
            row[..width].copy_from_slice(sums);
        }
        let before = exactly(&vec![0.0; (self.conv.length() - 1) * width]);
        let history = [before, sums].concat();
        let mut expected = vec![
            expected_shift_sum(&self.projected, width, axis, &self.weight, bias),
            projected,
            history[self.projected.len() / 3..].to_vec(),
        ];
        if self.axis == ShiftAxis::Time {
            expected.extend([(1, 1), (2, 2), (2, 1)].map(|(i, back)| self.past_chunk(i, back)));
        }
        expected
    }
}
