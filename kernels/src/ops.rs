//! The operations of LFM2, each written once over the lanes.
//!
//! Every function takes the instruction set first, then its inputs, then its output; slices are row-major with the last
//! dimension contiguous. Shapes come from lengths and are asserted at the door. Large calls use the threads of the current
//! rayon pool.
#![forbid(unsafe_code)]

mod add;
mod add_scaled;
mod argmax;
pub(crate) mod attention;
mod embedding;
mod exp;
mod key_value_cache;
mod multiply;
mod rms_norm;
mod rope;
mod route;
mod shift_sum;
mod short_conv;
mod sigmoid;
mod silu;
mod silu_multiply;
mod softmax;

pub use add::add;
pub use add_scaled::add_scaled;
pub use argmax::argmax;
pub use attention::{AttentionCut, MAX_GROUP, MAX_HEAD_DIM, attention};
pub use embedding::embedding;
pub use exp::exp;
pub use key_value_cache::{CacheElement, KeyValueCache};
pub use multiply::multiply;
pub use rms_norm::{add_rms_norm, rms_norm};
pub use rope::{RopeTable, rope};
pub use route::{Routing, route};
pub use shift_sum::{ShiftAxis, ShiftSumState, shift_sum};
pub use short_conv::{ShortConv, short_conv};
pub use sigmoid::sigmoid;
pub use silu::silu;
pub use silu_multiply::silu_multiply;
pub use softmax::softmax;

pub use crate::linear::{gated_linear, linear, linear_each};
