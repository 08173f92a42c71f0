use super::Error;
use super::config::{Config, Description};
use super::scratch::BlockBuffers;
use super::state::{ConvState, LayerState};
use super::tensors::{Tensors, Weights};
use crate::Isa;
use crate::linear::Matrix;
use crate::ops::{ShortConv, linear, shift_sum, short_conv};

/// The mixer of a conv layer: input projection, convolution, output projection. Sources: `Lfm2ShortConv` of Hugging Face transformers;
/// `ConvModule` of llama.cpp issue #22287.
pub struct ConvBlock {
    in_proj: Matrix,
    in_bias: Option<Vec<f32>>,
    conv: ShortConv,
    out_proj: Matrix,
    out_bias: Option<Vec<f32>>,
    description: Description,
}

impl ConvBlock {
    pub(super) fn load(
        config: &Config,
        weights: &Weights<impl Tensors + ?Sized>,
        layer: &str,
    ) -> Result<Self, Error> {
        let (width, length) = (config.hidden_size, config.conv_length);
        let name = |part: &str| format!("{layer}.conv.{part}");
        let bias = |part: &str, length| weights.bias(config.conv_bias, &name(part), length);
        let taps = weights.values(&name("conv.weight"), &[width, 1, length])?;
        Ok(Self {
            in_proj: weights.matrix(&name("in_proj.weight"), 3 * width, width)?,
            in_bias: bias("in_proj.bias", 3 * width)?,
            conv: ShortConv::new(width, &taps, bias("conv.bias", width)?),
            out_proj: weights.matrix(&name("out_proj.weight"), width, width)?,
            out_bias: bias("out_proj.bias", width)?,
            description: config.description,
        })
    }

    /// B, C and x of every row (or the three chunks), into `buffers.wide`.
    pub(super) fn project_in(&self, isa: Isa, normed: &[f32], buffers: &mut BlockBuffers) {
        let rows = normed.len() / self.in_proj.inputs();
        let wide = &mut buffers.wide[..rows * self.in_proj.outputs()];
        linear(isa, normed, &self.in_proj, self.in_bias.as_deref(), wide);
    }

    /// Convolves `rows` of one sequence, from `first` on.
    pub(super) fn mix(
        &self,
        isa: Isa,
        state: &mut LayerState,
        first: usize,
        rows: usize,
        buffers: &mut BlockBuffers,
    ) {
        let width = self.conv.width();
        let projected = &mut buffers.wide[first * 3 * width..][..rows * 3 * width];
        let mixed = &mut buffers.mixed[first * width..][..rows * width];
        match (self.description, state) {
            (Description::Lfm2, LayerState::Conv(ConvState::Gated(state))) => {
                short_conv(isa, projected, &self.conv, state, mixed);
            }
            (
                Description::Issue22287 { shift_axis },
                LayerState::Conv(ConvState::ShiftSum(state)),
            ) => shift_sum(isa, projected, shift_axis, &self.conv, state, mixed),
            _ => unreachable!("a state has the layers of its model"),
        }
    }

    pub(super) fn project_out(&self, isa: Isa, buffers: &BlockBuffers, output: &mut [f32]) {
        let mixed = &buffers.mixed[..output.len()];
        linear(isa, mixed, &self.out_proj, self.out_bias.as_deref(), output);
    }

    /// The weights, for a reader of sizes.
    pub fn matrices(&self) -> [&Matrix; 2] {
        [&self.in_proj, &self.out_proj]
    }

    pub(super) fn matrices_mut(&mut self) -> [&mut Matrix; 2] {
        [&mut self.in_proj, &mut self.out_proj]
    }

    /// Bytes of the convolution itself and of the biases.
    pub(super) fn small_bytes(&self) -> usize {
        let biases = [&self.in_bias, &self.out_bias].into_iter().flatten();
        self.conv.bytes() + biases.map(|bias| size_of_val(&bias[..])).sum::<usize>()
    }
}
