//! Checkpoint files, memory-mapped.
//!
//! Files are not trusted. Loading one ends in a model or in an error that names it, in time linear in its size (but for sorting), and never
//! holds more than 64 times its size and a MiB, whatever it promises.

mod checkpoint;
mod gguf_names;
mod gguf_writer;
mod mapped;
mod text;

pub use checkpoint::Checkpoint;
pub use gguf_names::{GgufName, gguf_name};
pub use gguf_writer::{GgufTensor, GgufValue, GgufWriter};
pub use mapped::MappedFile;
pub(crate) use text::{read_text, reason};
