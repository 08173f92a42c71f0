//! Checkpoint files, memory-mapped.
//!
//! Files are not trusted. Loading one ends in a model or in an error that names it, in time linear in its size (but for sorting), and never
//! holds more than 64 times its size and a MiB, whatever it promises.

use std::path::Path;

use crate::model::{Config, Error, Tensors};

mod checkpoint;
mod gguf;
mod gguf_names;
mod gguf_writer;
mod mapped;
mod text;

pub use checkpoint::{Checkpoint, StoredTensor, weight_format};
pub use gguf::{Array, Entry, ForeignType, Gguf, TensorInfo, TensorType, Value, ValueType};
pub use gguf_names::{GgufName, gguf_name};
pub use gguf_writer::{GgufTensor, GgufValue, GgufWriter};
pub use mapped::MappedFile;
pub(crate) use text::{read_text, reason};

/// The shape and the weights of a model: of a Hugging Face folder, or of a GGUF file.
///
/// # Errors
///
/// If a file is missing, damaged or describes another kind of model.
pub fn open(path: &Path) -> Result<(Config, Box<dyn Tensors>), Error> {
    if path.is_dir() {
        return Ok((Config::read(&path.join("config.json"))?, Box::new(Checkpoint::open(path)?)));
    }
    let gguf = Gguf::open(path)?;
    Ok((gguf.config()?, Box::new(gguf)))
}
