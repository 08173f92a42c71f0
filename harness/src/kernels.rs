//! The functions under test, as a table: whoever has a kernel of their own puts it in the place of ours.

use lfm2_kernels::linear::{Matrix, WeightFormat};
use lfm2_kernels::model::{Error, Logits, Model, Scratch, Sequence, State};
use lfm2_kernels::ops::{
    self, KeyValueCache, RopeTable, Routing, ShiftAxis, ShiftSumState, ShortConv,
};
use lfm2_kernels::{Isa, linear};

/// A function for each operation, with the arguments and the meaning of the function of that name in [`lfm2_kernels::ops`].
///
/// `Kernels { softmax: theirs, ..Kernels::OURS }` puts one under test. Functions that know no instruction sets ignore the argument.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// `(format, outputs, inputs, bytes)`: how a file's weights are packed, as [`Matrix::from_le_bytes`]
    pub pack: fn(WeightFormat, usize, usize, &[u8]) -> Matrix,
    /// `(table, tokens, out)`
    pub embedding: fn(&Matrix, &[u32], &mut [f32]),
    /// `(isa, x, weight, epsilon, out)`
    pub rms_norm: fn(Isa, &[f32], &[f32], f32, &mut [f32]),
    /// `(isa, x, weight, bias, out)`
    pub linear: Linear,
    /// `(isa, x, heads, table)`
    pub rope: fn(Isa, &mut [f32], usize, &RopeTable),
    /// `(isa, x, length)`
    pub softmax: fn(Isa, &mut [f32], usize),
    /// `(isa, query, query_heads, cache, first_position, out)`
    pub attention: Attention,
    /// `(isa, bcx, conv, state, out)`
    pub short_conv: fn(Isa, &[f32], &ShortConv, &mut [f32], &mut [f32]),
    /// `(isa, projected, axis, conv, state, out)`
    pub shift_sum: ShiftSum,
    /// `(isa, gate, up)`
    pub silu_multiply: InPlace,
    /// `(isa, x, y)`
    pub add: InPlace,
    /// `(isa, x, y)`
    pub multiply: InPlace,
    /// `(isa, x, y, scale)`
    pub add_scaled: fn(Isa, &mut [f32], &[f32], f32),
    /// `(isa, scores, bias, routing, choice, weights)`
    pub route: Route,
    /// `(isa, x)`
    pub argmax: fn(Isa, &[f32]) -> usize,
    /// `(model, isa, sequences, scratch, logits)`, as [`Model::forward`]
    pub forward: Forward,
    /// [`State::reset`]
    pub reset: fn(&mut State),
    /// [`State::clone`]
    pub snapshot: fn(&State) -> State,
}

/// `(isa, x, weight, bias, out)`
pub type Linear = fn(Isa, &[f32], &Matrix, Option<&[f32]>, &mut [f32]);

/// `(isa, query, query_heads, cache, first_position, out)`
pub type Attention = fn(Isa, &[f32], usize, &KeyValueCache, usize, &mut [f32]);

/// `(isa, projected, axis, conv, state, out)`
pub type ShiftSum = fn(Isa, &mut [f32], ShiftAxis, &ShortConv, &mut ShiftSumState, &mut [f32]);

/// `(isa, x, y)`: each element of `x` is replaced
pub type InPlace = fn(Isa, &mut [f32], &[f32]);

/// `(isa, scores, bias, routing, choice, weights)`
pub type Route = fn(Isa, &[f32], &[f32], Routing, &mut [u32], &mut [f32]);

/// `(model, isa, sequences, scratch, logits)`
pub type Forward = fn(&Model, Isa, &mut [Sequence], &mut Scratch, Logits) -> Result<(), Error>;

impl Kernels {
    /// The kernels of this project.
    pub const OURS: Self = Self {
        pack: Matrix::from_le_bytes,
        embedding: ops::embedding,
        rms_norm: ops::rms_norm,
        linear: linear::linear,
        rope: ops::rope,
        softmax: ops::softmax,
        attention: ops::attention,
        short_conv: ops::short_conv,
        shift_sum: ops::shift_sum,
        silu_multiply: ops::silu_multiply,
        add: ops::add,
        multiply: ops::multiply,
        add_scaled: ops::add_scaled,
        route: ops::route,
        argmax: ops::argmax,
        forward: Model::forward,
        reset: State::reset,
        snapshot: State::clone,
    };
}
