//! Puts another crate's matrix product under the gate: `cargo run --release --example third_party`. Within the bounds of the oracle it
//! must be; our bits it does not promise.

use std::process::ExitCode;

use lfm2_harness::cases::Op;
use lfm2_harness::check::{DEFAULT_CASES, DEFAULT_SEED, check};
use lfm2_harness::gate::{Demand, Gate};
use lfm2_harness::{kernels::Kernels, witness};
use lfm2_kernels::{Isa, linear::Matrix};
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

/// `x W^T (+ bias)` by ndarray.
fn theirs(_: Isa, x: &[f32], weight: &Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    let (inputs, outputs, weight) = (weight.inputs(), weight.outputs(), weight.to_rows());
    let x = ArrayView2::from_shape((out.len() / outputs, inputs), x).expect("rows of inputs");
    let weight = ArrayView2::from_shape((outputs, inputs), &weight).expect("rows of inputs");
    let mut out = ArrayViewMut2::from_shape((x.nrows(), outputs), out).expect("rows of outputs");
    general_mat_mul(1.0, &x, &weight.t(), 0.0, &mut out);
    if let Some(bias) = bias {
        out += &ArrayView1::from(bias);
    }
}

fn main() -> ExitCode {
    if let Some(status) = witness::supervise(1) {
        return status; // A crash named its case.
    }
    let gate = Gate::of(Kernels { linear: theirs, ..Kernels::OURS }, Demand::Bounds);
    let mut is_right = true;
    for name in ["linear_f32", "linear_f16", "linear_bf16"] {
        let op = Op::named(name).expect("one of the operations");
        let report = check(&gate, op, &[Isa::best()], DEFAULT_CASES, DEFAULT_SEED, &|| ());
        println!("{}", report.verdict());
        is_right &= report.is_right();
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
