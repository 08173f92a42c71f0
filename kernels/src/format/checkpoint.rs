use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::MappedFile;
use crate::linear::ElementType;
use crate::model::{Error, Tensor, Tensors};

/// The weights of a Hugging Face folder, in one `model.safetensors` or in the shards that `model.safetensors.index.json` names.
pub struct Checkpoint {
    files: Vec<MappedFile>,
    tensors: HashMap<String, Entry>,
}

/// Where a tensor lies.
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    length: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, PathBuf>,
}

impl Checkpoint {
    /// Maps the files and reads their headers.
    ///
    /// # Errors
    ///
    /// If a file is missing or damaged, or a shard lacks a tensor that the index promises.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let index_path = folder.join("model.safetensors.index.json");
        let mut checkpoint = Self { files: Vec::new(), tensors: HashMap::new() };
        if !index_path.exists() {
            checkpoint.add(&folder.join("model.safetensors"))?;
            return Ok(checkpoint);
        }
        let format = |reason: String| Error::Format { path: index_path.clone(), reason };
        let text = fs::read_to_string(&index_path)
            .map_err(|source| Error::File { path: index_path.clone(), source })?;
        let index: Index =
            serde_json::from_str(&text).map_err(|error| format(error.to_string()))?;
        let mut shards: Vec<_> = index.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            // A name with folders in it would read files that are not the checkpoint's.
            if shard.file_name() != Some(shard.as_os_str()) {
                return Err(format(format!("{} is not a file name", shard.display())));
            }
            checkpoint.add(&folder.join(shard))?;
        }
        let mut names: Vec<_> = index.weight_map.keys().collect();
        names.sort();
        if let Some(name) = names.into_iter().find(|name| !checkpoint.tensors.contains_key(*name)) {
            return Err(format(format!("no shard has tensor {name}")));
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let file = MappedFile::open(path)?;
        let damaged = |reason: String| Error::Format { path: path.to_path_buf(), reason };
        let tensors = SafeTensors::deserialize(&file).map_err(|error| {
            damaged(format!("not a whole safetensors file of {} bytes: {error}", file.len()))
        })?;
        let base = file.as_ptr().addr();
        for (name, view) in tensors.iter() {
            let entry = Entry {
                file: self.files.len(),
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                start: view.data().as_ptr().addr() - base,
                length: view.data().len(),
            };
            if self.tensors.insert(name.to_string(), entry).is_some() {
                return Err(damaged(format!("tensor {name} is in another shard too")));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

impl Tensors for Checkpoint {
    fn tensor(&self, name: &str, _shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        let Some(entry) = self.tensors.get(name) else {
            return Ok(None);
        };
        let element = match entry.dtype {
            Dtype::F32 => ElementType::F32,
            Dtype::F16 => ElementType::F16,
            Dtype::BF16 => ElementType::Bf16,
            other => {
                return Err(Error::ElementType { name: name.into(), found: format!("{other:?}") });
            }
        };
        let bytes = &self.files[entry.file][entry.start..][..entry.length];
        Ok(Some(Tensor { element, shape: entry.shape.clone(), bytes: Cow::Borrowed(bytes) }))
    }
}
