use std::borrow::Cow;
use std::collections::{HashMap, hash_map};
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::{MappedFile, read_text, reason};
use crate::linear::WeightFormat;
use crate::model::{Error, Tensor, Tensors};

/// The weights of a Hugging Face folder, in one `model.safetensors` or in the shards that `model.safetensors.index.json` names.
pub struct Checkpoint {
    files: Vec<MappedFile>,
    tensors: HashMap<String, Entry>,
}

/// How a tensor is stored.
pub struct StoredTensor<'a> {
    /// The name of its type, as in the file.
    pub kind: String,
    /// The same, if weights of that type can be loaded.
    pub format: Option<WeightFormat>,
    /// Row-major.
    pub shape: &'a [usize],
    /// How long it is.
    pub bytes: usize,
}

/// Where a tensor lies.
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    length: usize,
}

/// Most bytes of a header, as in the safetensors crate, and of an index, which says less of each tensor.
const MOST_HEADER_BYTES: usize = 100_000_000;

#[derive(serde::Deserialize)]
struct Index {
    weight_map: Entries<PathBuf>,
}

/// The tensors that the header of a safetensors file lists, in its order.
struct Header(Vec<(String, TensorInfo)>);

/// The entries of a JSON object, in its order: a map would keep the last of two with one name in silence.
struct Entries<T>(Vec<(String, T)>);

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
        let text = read_text(&index_path, MOST_HEADER_BYTES as u64)?;
        let Index { weight_map: Entries(mut entries) } =
            serde_json::from_str(&text).map_err(|error| format(reason(&error)))?;
        drop(text);
        if let Some(name) = sort_by_name(&mut entries) {
            return Err(format(format!("weight_map has tensor {name} twice")));
        }
        let mut shards: Vec<_> = entries.iter().map(|(_, shard)| shard).collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            // A name with folders in it would read files that are not the checkpoint's.
            if shard.file_name() != Some(shard.as_os_str()) {
                return Err(format(format!("{} is not a file name", shard.display())));
            }
            checkpoint.add(&folder.join(shard))?;
        }
        let missing = entries.iter().find(|(name, _)| !checkpoint.tensors.contains_key(name));
        if let Some((name, _)) = missing {
            return Err(format(format!("no shard has tensor {name}")));
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let file = MappedFile::open(path)?;
        let damaged = |reason: String| Error::Format { path: path.to_path_buf(), reason };
        let (data, tensors) = read_header(&file).map_err(|reason| {
            damaged(format!("not a whole safetensors file of {} bytes: {reason}", file.len()))
        })?;
        for (name, TensorInfo { dtype, shape, data_offsets: (start, end) }) in tensors {
            let entry = Entry {
                file: self.files.len(),
                dtype,
                shape,
                start: data + start,
                length: end - start,
            };
            match self.tensors.entry(name) {
                hash_map::Entry::Vacant(vacant) => vacant.insert(entry),
                hash_map::Entry::Occupied(occupied) => {
                    let name = occupied.key();
                    return Err(damaged(format!("tensor {name} is in another shard too")));
                }
            };
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

    /// How the tensor of that name is stored, if it is there.
    pub fn info(&self, name: &str) -> Option<StoredTensor<'_>> {
        let Entry { dtype, shape, length, .. } = self.tensors.get(name)?;
        let (kind, format) = (format!("{dtype:?}"), weight_format(name, *dtype).ok());
        Some(StoredTensor { kind, format, shape, bytes: *length })
    }
}

/// The format of weights that a safetensors file stores as `dtype`.
///
/// # Errors
///
/// If none can be loaded from it, naming the tensor.
pub fn weight_format(name: &str, dtype: Dtype) -> Result<WeightFormat, Error> {
    match dtype {
        Dtype::F32 => Ok(WeightFormat::F32),
        Dtype::F16 => Ok(WeightFormat::F16),
        Dtype::BF16 => Ok(WeightFormat::Bf16),
        _ => Err(Error::TensorType {
            name: name.into(),
            found: format!("{dtype:?}"),
            expected: "F32, F16 or BF16".into(),
        }),
    }
}

impl Tensors for Checkpoint {
    fn tensor(&self, name: &str, _shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        let Some(entry) = self.tensors.get(name) else {
            return Ok(None);
        };
        let format = weight_format(name, entry.dtype)?;
        let bytes = &self.files[entry.file][entry.start..][..entry.length];
        Ok(Some(Tensor { format, shape: entry.shape.clone(), bytes: Cow::Borrowed(bytes) }))
    }

    fn release(&self, tensor: &Tensor) {
        for file in &self.files {
            file.release(&tensor.bytes);
        }
    }
}

/// Where the data of a safetensors file begin, and its tensors. The crate's own reader would hold the header as a tree of values, keep one of
/// two tensors with one name, and overflow where the offsets end at 2^64.
fn read_header(file: &[u8]) -> Result<(usize, Vec<(String, TensorInfo)>), String> {
    let (length, rest) = file.split_first_chunk().ok_or("it ends within the header's length")?;
    let length = u64::from_le_bytes(*length);
    if length > MOST_HEADER_BYTES as u64 {
        return Err(format!(
            "its header would have {length} bytes: expected at most {MOST_HEADER_BYTES}"
        ));
    }
    let length = length as usize;
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| {
        format!("its header would have {length} bytes: {} follow its length", rest.len())
    })?;
    let Header(mut tensors) = serde_json::from_slice(header)
        .map_err(|error| format!("in its header: {}", reason(&error)))?;
    if let Some(name) = sort_by_name(&mut tensors) {
        return Err(format!("its header has tensor {name} twice"));
    }
    // Stable, so that empty tensors at one place stay in order.
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let metadata = Metadata::new(None, tensors.clone()).map_err(|error| error.to_string())?;
    if metadata.data_len() != data.len() {
        return Err(format!(
            "its tensors end at byte {} of the data: there are {}",
            metadata.data_len(),
            data.len()
        ));
    }
    Ok((file.len() - data.len(), tensors))
}

/// Sorts; a name that is there twice.
fn sort_by_name<T>(entries: &mut [(String, T)]) -> Option<&str> {
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let twice = entries.windows(2).find(|pair| pair[0].0 == pair[1].0)?;
    Some(&twice[0].0)
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<Option<HashMap<String, String>>>()?;
                        continue;
                    }
                    let info = map.next_value()?;
                    tensors.push((name, info));
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Entries<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}
