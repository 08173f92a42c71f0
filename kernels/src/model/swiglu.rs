use super::Error;
use super::tensors::{Tensors, Weights};
use crate::Isa;
use crate::fault;
use crate::linear::Matrix;
use crate::ops::{gated_linear, linear};

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

    /// Feeds rows `x` forward to `output`, both `[rows, hidden_size]`; `wide` has room for `[rows, width]`.
    pub(super) fn forward(&self, isa: Isa, x: &[f32], wide: &mut [f32], output: &mut [f32]) {
        let rows = x.len() / self.gate.inputs();
        let wide = &mut wide[..rows * self.gate.outputs()];
        let Self { gate, up, down } = self;
        let (gate, up) = fault!(GateAndUpSwapped: (up, gate), else (gate, up));
        gated_linear(isa, x, gate, up, wide);
        linear(isa, wide, down, None, output);
    }

    /// The weights, for a reader of sizes.
    pub fn matrices(&self) -> [&Matrix; 3] {
        [&self.gate, &self.up, &self.down]
    }

    pub(super) fn matrices_mut(&mut self) -> [&mut Matrix; 3] {
        [&mut self.gate, &mut self.up, &mut self.down]
    }
}
