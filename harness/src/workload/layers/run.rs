//! What runs: a whole layer, or its mixer alone.

use std::rc::Rc;

use lfm2_kernels::model::{BlockBuffers, Config, ConvState, LayerKind, LayerState, Scratch};
use lfm2_kernels::ops::{ShortConv, add, attention, rms_norm, short_conv};
use lfm2_kernels::{Aligned, Isa};

use super::{Layer, Layers};
use crate::workload::{Workload, buffer, values};

/// What every state of a workload has in common.
struct States {
    states: Vec<LayerState>,
    context: usize,
    turn: usize,
}

impl States {
    fn new(states: Vec<LayerState>) -> Self {
        let context = match &states[0] {
            LayerState::Conv(_) => 0,
            LayerState::Attention(cache) => cache.len(),
        };
        Self { states, context, turn: 0 }
    }

    fn restore(&mut self) {
        self.turn = 0;
        for state in &mut self.states {
            if let LayerState::Conv(ConvState::Gated(inputs)) = state {
                inputs.fill(0.0);
            }
        }
    }

    /// The turn's number and its state, after the context. A convolution goes on from where it is, since that costs the same.
    fn next(&mut self) -> (usize, &mut LayerState) {
        let turn = self.turn;
        self.turn += 1;
        let at = turn % self.states.len();
        let state = &mut self.states[at];
        if let LayerState::Attention(cache) = state {
            cache.truncate(self.context);
        }
        (turn, state)
    }
}

/// The rows of a run in the pieces that the model takes.
fn pieces(rows: usize) -> impl Iterator<Item = usize> {
    let most = Scratch::pass_rows(rows);
    (0..rows).step_by(most).map(move |first| most.min(rows - first))
}

/// A whole layer. As in the model, every piece of a prompt passes through the same buffers.
pub struct Whole {
    layers: Rc<[Layer]>,
    states: States,
    epsilon: f32,
    width: usize,
    start: Vec<f32>,
    hidden: Aligned<f32>,
    normed: Aligned<f32>,
    mixed: Aligned<f32>,
    buffers: BlockBuffers,
}

impl Whole {
    pub fn new(layers: &Layers, kind: LayerKind, states: Vec<LayerState>, rows: usize) -> Self {
        let (config, rows) = (&layers.config, Scratch::pass_rows(rows));
        let width = config.hidden_size;
        let hidden = buffer("hidden", rows * width);
        Self {
            layers: layers.of(kind),
            states: States::new(states),
            epsilon: config.norm_epsilon,
            width,
            start: hidden.to_vec(),
            hidden,
            normed: Aligned::zeroed(rows * width),
            mixed: Aligned::zeroed(rows * width),
            buffers: BlockBuffers::new(config, rows),
        }
    }
}

impl Workload for Whole {
    fn restore(&mut self) {
        self.states.restore();
        self.hidden.copy_from_slice(&self.start);
    }

    fn run(&mut self, isa: Isa, rows: usize) {
        let (turn, state) = self.states.next();
        let Layer { norm, mixer } = &self.layers[turn % self.layers.len()];
        for piece in pieces(rows) {
            let elements = piece * self.width;
            let hidden = &mut self.hidden[..elements];
            let normed = &mut self.normed[..elements];
            let mixed = &mut self.mixed[..elements];
            rms_norm(isa, hidden, norm, self.epsilon, normed);
            mixer.forward(isa, normed, state, &mut self.buffers, mixed);
            add(isa, hidden, mixed);
        }
    }

    fn output(&self) -> &[f32] {
        &self.hidden
    }
}

/// A mixer without its projections. As in the model, its input has just been written by them, piece by piece.
pub struct Alone {
    states: States,
    conv: ShortConv,
    heads: usize,
    width: usize,
    key_value_width: usize,
    /// B, C and x, or the queries.
    input: Aligned<f32>,
    keys: Aligned<f32>,
    values: Aligned<f32>,
    out: Aligned<f32>,
}

impl Alone {
    pub fn new(config: &Config, states: Vec<LayerState>, rows: usize) -> Self {
        let (width, key_value_width) = (config.hidden_size, config.key_value_width());
        let rows = Scratch::pass_rows(rows);
        Self {
            states: States::new(states),
            conv: ShortConv::new(width, &values("conv", width * config.conv_length), None),
            heads: config.heads,
            width,
            key_value_width,
            input: buffer("input", rows * 3 * width),
            keys: buffer("new keys", rows * key_value_width),
            values: buffer("new values", rows * key_value_width),
            out: Aligned::zeroed(rows * width),
        }
    }
}

impl Workload for Alone {
    fn restore(&mut self) {
        self.states.restore();
    }

    fn run(&mut self, isa: Isa, rows: usize) {
        let (_, state) = self.states.next();
        for piece in pieces(rows) {
            let out = &mut self.out[..piece * self.width];
            match state {
                LayerState::Conv(ConvState::Gated(state)) => {
                    short_conv(isa, &self.input[..3 * out.len()], &self.conv, state, out);
                }
                LayerState::Attention(cache) => {
                    let (position, elements) = (cache.len(), piece * self.key_value_width);
                    cache.append(&self.keys[..elements], &self.values[..elements]);
                    attention(isa, &self.input[..out.len()], self.heads, cache, position, out);
                }
                LayerState::Conv(ConvState::ShiftSum(_)) => unreachable!("the published model"),
            }
        }
    }

    fn output(&self) -> &[f32] {
        &self.out
    }
}
