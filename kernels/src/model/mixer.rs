use super::config::{Config, LayerKind};
use super::scratch::BlockBuffers;
use super::state::LayerState;
use super::tensors::{Tensors, Weights};
use super::{AttentionBlock, ConvBlock, Error};
use crate::Isa;
use crate::linear::Matrix;

/// What mixes the positions in a layer.
pub enum Mixer {
    /// A short convolution.
    Conv(ConvBlock),
    /// Grouped-query attention.
    Attention(AttentionBlock),
}

impl Mixer {
    /// Takes the weights under the prefix `layer`, such as `model.layers.0`.
    ///
    /// # Errors
    ///
    /// If a weight is missing or has another shape than `config` says.
    pub fn load(
        kind: LayerKind,
        config: &Config,
        source: &(impl Tensors + ?Sized),
        layer: &str,
    ) -> Result<Self, Error> {
        let weights = Weights { source };
        Ok(match kind {
            LayerKind::Conv => Self::Conv(ConvBlock::load(config, &weights, layer)?),
            LayerKind::Attention => Self::Attention(AttentionBlock::load(config, &weights, layer)?),
        })
    }

    /// Mixes the next rows of one sequence: `x`, as the layer's norm leaves them, to `output`, both `[rows, hidden_size]`; no residual.
    ///
    /// # Panics
    ///
    /// If `buffers` has fewer rows, `state` is another layer's, or its cache has no room.
    pub fn forward(
        &self,
        isa: Isa,
        x: &[f32],
        state: &mut LayerState,
        buffers: &mut BlockBuffers,
        output: &mut [f32],
    ) {
        let hidden_size = self.hidden_size();
        let rows = x.len() / hidden_size;
        if let LayerState::Attention(cache) = state {
            buffers.rope.fill(cache.len()..cache.len() + rows);
        }
        self.project_in(isa, x, buffers);
        self.mix(isa, state, 0, rows, buffers);
        self.project_out(isa, buffers, output);
    }

    fn hidden_size(&self) -> usize {
        match self {
            Self::Conv(block) => block.matrices()[0].inputs(),
            Self::Attention(block) => block.matrices()[0].inputs(),
        }
    }

    pub(super) fn project_in(&self, isa: Isa, normed: &[f32], buffers: &mut BlockBuffers) {
        match self {
            Self::Conv(block) => block.project_in(isa, normed, buffers),
            Self::Attention(block) => block.project_in(isa, normed, buffers),
        }
    }

    pub(super) fn mix(
        &self,
        isa: Isa,
        state: &mut LayerState,
        first: usize,
        rows: usize,
        buffers: &mut BlockBuffers,
    ) {
        match self {
            Self::Conv(block) => block.mix(isa, state, first, rows, buffers),
            Self::Attention(block) => block.mix(isa, state, first, rows, buffers),
        }
    }

    pub(super) fn project_out(&self, isa: Isa, buffers: &BlockBuffers, output: &mut [f32]) {
        match self {
            Self::Conv(block) => block.project_out(isa, buffers, output),
            Self::Attention(block) => block.project_out(isa, buffers, output),
        }
    }

    /// The projections, for a reader of sizes.
    pub fn matrices(&self) -> Vec<&Matrix> {
        match self {
            Self::Conv(block) => block.matrices().to_vec(),
            Self::Attention(block) => block.matrices().to_vec(),
        }
    }

    pub(super) fn matrices_mut(&mut self) -> Vec<&mut Matrix> {
        match self {
            Self::Conv(block) => block.matrices_mut().into(),
            Self::Attention(block) => block.matrices_mut().into(),
        }
    }

    pub(super) fn small_bytes(&self) -> usize {
        match self {
            Self::Conv(block) => block.small_bytes(),
            Self::Attention(block) => block.small_bytes(),
        }
    }
}
