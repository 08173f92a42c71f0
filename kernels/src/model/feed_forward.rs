use super::Error;
use super::config::Config;
use super::scratch::BlockBuffers;
use super::tensors::{Tensors, Weights};
use crate::Isa;
use crate::fault;
use crate::linear::Matrix;
use crate::ops::{linear, silu_multiply};

/// The SwiGLU feed-forward: `w2 (silu(w1 x) * w3 x)`. Source: `Lfm2MLP` of Hugging Face transformers.
pub struct FeedForward {
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl FeedForward {
    /// Takes the weights under the prefix `layer`, such as `model.layers.0`.
    ///
    /// # Errors
    ///
    /// If a weight is missing or has another shape than `config` says.
    pub fn load(
        config: &Config,
        source: &(impl Tensors + ?Sized),
        layer: &str,
    ) -> Result<Self, Error> {
        let weights = Weights { source };
        let (width, hidden_size) = (config.feed_forward_width, config.hidden_size);
        let name = |part: &str| format!("{layer}.feed_forward.{part}.weight");
        Ok(Self {
            gate: weights.matrix(&name("w1"), width, hidden_size)?,
            up: weights.matrix(&name("w3"), width, hidden_size)?,
            down: weights.matrix(&name("w2"), hidden_size, width)?,
        })
    }

    /// Feeds rows `x`, as the layer's norm leaves them, forward to `output`, both `[rows, hidden_size]`; no residual.
    ///
    /// # Panics
    ///
    /// If `buffers` has fewer rows.
    pub fn forward(&self, isa: Isa, x: &[f32], buffers: &mut BlockBuffers, output: &mut [f32]) {
        let rows = x.len() / self.gate.inputs();
        let gate = &mut buffers.wide[..rows * self.gate.outputs()];
        let up = &mut buffers.up[..rows * self.up.outputs()];
        linear(isa, x, &self.gate, None, gate);
        linear(isa, x, &self.up, None, up);
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
