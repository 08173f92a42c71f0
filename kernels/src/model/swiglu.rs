use super::Error;
use super::tensors::{Tensors, Weights};
use crate::Isa;
use crate::fault;
use crate::linear::Matrix;
use crate::ops::{linear, linear_each, silu_multiply};

/// A SwiGLU network: `w2 (silu(w1 x) * w3 x)`. Source: `Lfm2MLP` of Hugging Face transformers.
pub struct SwiGlu {
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl SwiGlu {
    /// Takes `w1`, `w3` and `w2` under `prefix`.
    pub(super) fn load(
        weights: &Weights<impl Tensors + ?Sized>,
        prefix: &str,
        width: usize,
        hidden_size: usize,
    ) -> Result<Self, Error> {
        let name = |part: &str| format!("{prefix}.{part}.weight");
        Ok(Self {
            gate: weights.matrix(&name("w1"), width, hidden_size)?,
            up: weights.matrix(&name("w3"), width, hidden_size)?,
            down: weights.matrix(&name("w2"), hidden_size, width)?,
        })
    }

    /// Feeds rows `x` forward to `output`, both `[rows, hidden_size]`; `gate` and `up` have room for `[rows, width]`.
    pub(super) fn forward(
        &self,
        isa: Isa,
        x: &[f32],
        gate: &mut [f32],
        up: &mut [f32],
        output: &mut [f32],
    ) {
        let rows = x.len() / self.gate.inputs();
        let gate = &mut gate[..rows * self.gate.outputs()];
        let up = &mut up[..rows * self.up.outputs()];
        linear_each(isa, x, &mut [(&self.gate, gate), (&self.up, up)]);
        fault!(GateAndUpSwapped => gate.swap_with_slice(up));
        silu_multiply(isa, gate, up);
        linear(isa, gate, &self.down, None, output);
    }

    /// The weights, for a reader of sizes.
    pub fn matrices(&self) -> [&Matrix; 3] {
        [&self.gate, &self.up, &self.down]
    }

    pub(super) fn matrices_mut(&mut self) -> [&mut Matrix; 3] {
        [&mut self.gate, &mut self.up, &mut self.down]
    }
}
