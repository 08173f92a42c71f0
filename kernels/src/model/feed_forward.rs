use super::config::{Config, ExpertsConfig};
use super::scratch::BlockBuffers;
use super::tensors::{Tensors, Weights};
use super::{Error, Experts, SwiGlu};
use crate::Isa;
use crate::linear::Matrix;

/// What follows the mixer in a layer.
pub enum FeedForward {
    /// One network for every row.
    Dense(SwiGlu),
    /// A few of many networks for each row.
    Experts(Experts),
}

impl FeedForward {
    /// Takes the weights under the prefix `layer`, such as `model.layers.0`: those of `experts`, or of one network if there are none
    /// (see [`Config::experts_of`]).
    ///
    /// # Errors
    ///
    /// If a weight is missing or has another shape than `config` says.
    pub fn load(
        experts: Option<&ExpertsConfig>,
        config: &Config,
        source: &(impl Tensors + ?Sized),
        layer: &str,
    ) -> Result<Self, Error> {
        let weights = Weights { source };
        let prefix = format!("{layer}.feed_forward");
        let (width, hidden_size) = (config.feed_forward_width, config.hidden_size);
        Ok(match experts {
            None => Self::Dense(SwiGlu::load(&weights, &prefix, width, hidden_size)?),
            Some(experts) => Self::Experts(Experts::load(experts, &weights, &prefix, hidden_size)?),
        })
    }

    /// Feeds rows `x`, as the layer's norm leaves them, forward to `output`, both `[rows, hidden_size]`; no residual.
    ///
    /// # Panics
    ///
    /// If `buffers` has fewer rows.
    pub fn forward(&self, isa: Isa, x: &[f32], buffers: &mut BlockBuffers, output: &mut [f32]) {
        match self {
            Self::Dense(network) => network.forward(isa, x, &mut buffers.wide, output),
            Self::Experts(experts) => experts.forward(isa, x, buffers, output),
        }
    }

    /// The weights, for a reader of sizes.
    pub fn matrices(&self) -> Vec<&Matrix> {
        match self {
            Self::Dense(network) => network.matrices().to_vec(),
            Self::Experts(experts) => experts.matrices(),
        }
    }

    pub(super) fn matrices_mut(&mut self) -> Vec<&mut Matrix> {
        match self {
            Self::Dense(network) => network.matrices_mut().into(),
            Self::Experts(experts) => experts.matrices_mut(),
        }
    }

    /// Bytes of what is no matrix.
    pub(super) fn small_bytes(&self) -> usize {
        match self {
            Self::Dense(_) => 0,
            Self::Experts(experts) => experts.small_bytes(),
        }
    }
}
