//! Checkpoint files, memory-mapped.

mod checkpoint;
mod mapped;

pub use checkpoint::Checkpoint;
pub use mapped::MappedFile;
