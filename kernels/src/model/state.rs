use super::Error;
use super::config::{Config, Description, LayerKind};
use crate::fault;
use crate::ops::{CacheElement, KeyValueCache, ShiftSumState};

/// What a model remembers of one sequence: keys and values of its attention layers, the last inputs of its convolutions, and how many
/// tokens it has seen.
///
/// Cloning takes a snapshot. Convolutions cannot forget their newest tokens, so a snapshot is the one way back.
#[derive(Clone)]
pub struct State {
    position: usize,
    capacity: usize,
    layers: Vec<LayerState>,
}

/// What one layer remembers.
#[derive(Clone)]
pub enum LayerState {
    /// A conv layer: constant in size.
    Conv(ConvState),
    /// An attention layer: grows with every token.
    Attention(KeyValueCache),
}

/// What a conv layer remembers.
#[derive(Clone)]
pub enum ConvState {
    /// The published model: the last `u = B * x`, `[L - 1, hidden_size]`, oldest first, zeros before the start.
    Gated(Vec<f32>),
    /// Issue #22287.
    ShiftSum(ShiftSumState),
}

impl State {
    pub(super) fn new(config: &Config, capacity: usize, element: CacheElement) -> Self {
        let width = config.hidden_size;
        let layer = |kind: &LayerKind| match (kind, config.description) {
            (LayerKind::Attention, _) => LayerState::Attention(KeyValueCache::new(
                config.key_value_heads,
                config.head_dim,
                capacity,
                element,
            )),
            (LayerKind::Conv, Description::Lfm2) => {
                LayerState::Conv(ConvState::Gated(vec![0.0; (config.conv_length - 1) * width]))
            }
            (LayerKind::Conv, Description::Issue22287 { .. }) => {
                LayerState::Conv(ConvState::ShiftSum(ShiftSumState::new(width, config.conv_length)))
            }
        };
        Self { position: 0, capacity, layers: config.layers.iter().map(layer).collect() }
    }

    /// Tokens that the sequence has.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// What each layer remembers.
    pub fn layers(&self) -> &[LayerState] {
        &self.layers
    }

    /// Forgets the sequence; nothing of it can reach the next one.
    pub fn reset(&mut self) {
        self.position = 0;
        for layer in &mut self.layers {
            fault!(StaleConvolutionState => if matches!(layer, LayerState::Conv(_)) { continue; });
            match layer {
                LayerState::Conv(ConvState::Gated(inputs)) => inputs.fill(0.0),
                LayerState::Conv(ConvState::ShiftSum(state)) => state.reset(),
                LayerState::Attention(cache) => cache.truncate(0),
            }
        }
    }

    /// Bytes reserved: `2 * capacity * key_value_heads * head_dim` elements per attention layer (capacity rounded up to 64), and
    /// `4 * (L - 1) * hidden_size` bytes per conv layer.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &LayerState| match layer {
            LayerState::Conv(ConvState::Gated(inputs)) => size_of_val(&inputs[..]),
            LayerState::Conv(ConvState::ShiftSum(state)) => {
                let chunks = state.chunks.iter().map(|chunk| size_of_val(&chunk[..]));
                chunks.sum::<usize>() + size_of_val(&state.sums[..])
            }
            LayerState::Attention(cache) => cache.bytes(),
        };
        self.layers.iter().map(layer).sum()
    }

    /// Whether the state was made for such a model.
    pub(super) fn check(&self, config: &Config) -> Result<(), Error> {
        let length = |what, found, expected| match found == expected {
            true => Ok(()),
            false => Err(Error::Length { what, found, expected }),
        };
        length("the state's list of layers", self.layers.len(), config.layers.len())?;
        for (layer, kind) in self.layers.iter().zip(&config.layers) {
            match (layer, kind, config.description) {
                (
                    LayerState::Conv(ConvState::Gated(inputs)),
                    LayerKind::Conv,
                    Description::Lfm2,
                ) => {
                    let expected = (config.conv_length - 1) * config.hidden_size;
                    length("a conv layer's state", inputs.len(), expected)?;
                }
                (
                    LayerState::Conv(ConvState::ShiftSum(state)),
                    LayerKind::Conv,
                    Description::Issue22287 { .. },
                ) => {
                    let expected = (config.conv_length - 1) * config.hidden_size;
                    length("a conv layer's state", state.sums.len(), expected)?;
                    length("a conv layer's chunks", state.chunks[0].len(), config.hidden_size)?;
                }
                (LayerState::Attention(cache), LayerKind::Attention, _) => {
                    length("the state's list of key heads", cache.heads(), config.key_value_heads)?;
                    length("a key head of the state", cache.head_dim(), config.head_dim)?;
                }
                _ => return Err(Error::ForeignState),
            }
        }
        Ok(())
    }

    pub(super) fn layer_mut(&mut self, layer: usize) -> &mut LayerState {
        &mut self.layers[layer]
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.position += tokens;
    }
}
