//! Checkpoint files, memory-mapped.
//!
//! Files are not trusted. Loading one ends in a model or in an error that names it, in time linear in its size (but for sorting), and never
//! holds more than 64 times its size and a MiB, whatever it promises.

mod checkpoint;
mod mapped;
mod text;

pub use checkpoint::Checkpoint;
pub use mapped::MappedFile;
pub(crate) use text::{read_text, reason};
