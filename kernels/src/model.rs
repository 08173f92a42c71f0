//! Configuration, weights, state and the forward pass.
//!
//! ```
//! use lfm2_kernels::Isa;
//! use lfm2_kernels::model::{Config, Logits, Model, Scratch, Sequence, Synthetic};
//! use lfm2_kernels::linear::WeightFormat;
//! use lfm2_kernels::ops::{CacheElement, argmax};
//!
//! let config = Config { vocabulary: 32, hidden_size: 64, feed_forward_width: 96, ..Config::preset("350m")? };
//! let model = Model::new(config, &Synthetic::new(7, WeightFormat::F32))?;
//! let (isa, mut scratch) = (Isa::best(), Scratch::default());
//! let mut state = model.new_state(128, CacheElement::F32);
//! let mut logits = vec![0.0; 32];
//!
//! // Prefill three tokens, then decode greedily.
//! let mut tokens = vec![1, 5, 9];
//! for _ in 0..4 {
//!     let sequence = Sequence { tokens: &tokens[state.position()..], state: &mut state };
//!     model.forward(isa, &mut [sequence], &mut scratch, Logits::Last(&mut logits))?;
//!     tokens.push(argmax(isa, &logits) as u32);
//! }
//! assert_eq!(state.position(), 6);
//! # Ok::<(), lfm2_kernels::model::Error>(())
//! ```
#![forbid(unsafe_code)]

mod attention_block;
mod config;
mod conv_block;
mod error;
mod experts;
mod feed_forward;
mod forward;
mod mixer;
mod scratch;
mod state;
mod swiglu;
mod synthetic;
mod tensors;

pub use attention_block::AttentionBlock;
pub use config::{Config, Description, ExpertsConfig, LayerKind, Operations};
pub use conv_block::ConvBlock;
pub use error::Error;
pub use experts::Experts;
pub use feed_forward::FeedForward;
pub use forward::{Layer, Logits, Model, Sequence};
pub use mixer::Mixer;
pub use scratch::{BlockBuffers, Scratch};
pub use state::{ConvState, LayerState, State};
pub use swiglu::SwiGlu;
pub use synthetic::Synthetic;
pub use tensors::{Tensor, Tensors};
