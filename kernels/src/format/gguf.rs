//! GGUF, the file format of llama.cpp. Source: the GGUF specification in ggml's documentation, version 3.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::MappedFile;
use crate::linear::WeightFormat;
use crate::model::{Error, Tensor, Tensors};

mod config;
mod names;
mod reader;
mod tensor_type;

use names::Place;
use reader::Reader;
pub use reader::{Array, Entry, TensorInfo, Value, ValueType};
pub use tensor_type::{ForeignType, TensorType};

/// A GGUF file, memory-mapped.
///
/// As [`Tensors`] it goes by Hugging Face's names, whatever its own are; experts that it stacks and projections that it fuses are
/// taken apart.
pub struct Gguf {
    path: PathBuf,
    file: MappedFile,
    /// Where the entries of the metadata lie, in order of their keys.
    entries: Vec<u32>,
    /// Where what is said of the tensors lies, in order of their names.
    infos: Vec<u32>,
    /// Where the data of all tensors begin.
    data: usize,
}

const MAGIC: &[u8] = b"GGUF";
const VERSION: u32 = 3;
const DEFAULT_ALIGNMENT: u64 = 32;

impl Gguf {
    /// Maps the file and reads its header. What it says of its tensors is checked, so that each lies where it says it does.
    ///
    /// Of the header no more is kept than where its entries are: long arrays, such as a vocabulary, stay in the file.
    ///
    /// # Errors
    ///
    /// If it is no GGUF file of version 3 in little-endian, or is damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = MappedFile::open(path)?;
        let gguf = Self {
            path: path.to_path_buf(),
            file,
            entries: Vec::new(),
            infos: Vec::new(),
            data: 0,
        };
        gguf.read_header().map_err(|reason| Error::Format { path: path.to_path_buf(), reason })
    }

    fn read_header(mut self) -> Result<Self, String> {
        let mut reader = Reader::new(&self.file, 0);
        let magic = reader.take(MAGIC.len() as u64)?;
        if magic != MAGIC {
            return Err(format!("begins with \"{}\": expected \"GGUF\"", magic.escape_ascii()));
        }
        let version = reader.u32()?;
        if version.swap_bytes() == VERSION {
            return Err("is big-endian: expected little-endian".into());
        }
        if version != VERSION {
            return Err(format!("is of version {version}: expected {VERSION}"));
        }
        let (infos, entries) = (reader.u64()?, reader.u64()?);
        let positions = locate(&mut reader, entries, "entry", |reader| reader.entry().map(drop))?;
        let info_positions =
            locate(&mut reader, infos, "tensor", |reader| reader.tensor_info().map(drop))?;
        let header_end = reader.at();
        (self.entries, self.infos) = (positions, info_positions);

        let mut positions = std::mem::take(&mut self.entries);
        positions.sort_unstable_by_key(|position| self.key_at(*position));
        let key = |pair: &[u32]| [pair[0], pair[1]].map(|position| self.key_at(position));
        if let Some([key, _]) = positions.windows(2).map(key).find(|[a, b]| a == b) {
            return Err(format!("has the key {} twice", shown(key)));
        }
        self.entries = positions;

        let alignment = self.alignment()?;
        let data = (header_end as u64)
            .checked_next_multiple_of(alignment)
            .and_then(|data| usize::try_from(data).ok())
            .ok_or_else(|| format!("general.alignment is {alignment}: too large"))?;
        self.data = data;
        self.check_places(alignment)?;

        let mut positions = std::mem::take(&mut self.infos);
        positions.sort_unstable_by_key(|position| self.info_at(*position).name);
        let name = |pair: &[u32]| [pair[0], pair[1]].map(|position| self.info_at(position).name);
        if let Some([name, _]) = positions.windows(2).map(name).find(|[a, b]| a == b) {
            return Err(format!("has tensor {name} twice"));
        }
        self.infos = positions;
        Ok(self)
    }

    fn alignment(&self) -> Result<u64, String> {
        match self.value("general.alignment") {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() => Ok(alignment),
            Some(other) => Err(format!("general.alignment is {other}: expected a power of two")),
        }
    }

    /// Checks that tensors lie in the file, aligned, one after the other.
    fn check_places(&mut self, alignment: u64) -> Result<(), String> {
        let mut positions = std::mem::take(&mut self.infos);
        positions.sort_unstable_by_key(|position| self.info_at(*position).offset);
        let length = self.file.len().saturating_sub(self.data) as u64;
        let mut end = 0;
        for position in &positions {
            let TensorInfo { name, offset, bytes, .. } = self.info_at(*position);
            if !offset.is_multiple_of(alignment) {
                return Err(format!(
                    "tensor {name} begins at byte {offset} of the data: expected a multiple of general.alignment, {alignment}"
                ));
            }
            if offset < end {
                return Err(format!(
                    "tensor {name} begins at byte {offset} of the data, within another one: expected {end} or more"
                ));
            }
            end = offset.checked_add(bytes as u64).filter(|end| *end <= length).ok_or_else(|| {
                format!(
                    "tensor {name} has {bytes} bytes from byte {offset} of the data on: there are {length}"
                )
            })?;
        }
        self.infos = positions;
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All entries of the metadata, in order of their keys.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.entries.iter().map(|position| self.entry_at(*position))
    }

    /// The value of a key, if it is there.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        let found = self.entries.binary_search_by_key(&key, |position| self.key_at(*position));
        found.ok().map(|index| self.entry_at(self.entries[index]).value)
    }

    /// What is said of all tensors, in order of their names.
    pub fn infos(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.infos.iter().map(|position| self.info_at(*position))
    }

    /// What is said of the tensor of that name in this file, if it is there.
    pub fn info(&self, name: &str) -> Option<TensorInfo<'_>> {
        let found = self.infos.binary_search_by_key(&name, |position| self.info_at(*position).name);
        found.ok().map(|index| self.info_at(self.infos[index]))
    }

    /// The key alone: an array may be long.
    fn key_at(&self, position: u32) -> &str {
        Reader::new(&self.file, position as usize).key().expect("read when the file was opened")
    }

    fn entry_at(&self, position: u32) -> Entry<'_> {
        Reader::new(&self.file, position as usize).entry().expect("read when the file was opened")
    }

    fn info_at(&self, position: u32) -> TensorInfo<'_> {
        let mut reader = Reader::new(&self.file, position as usize);
        reader.tensor_info().expect("read when the file was opened")
    }

    fn wrong(&self, reason: String) -> Error {
        Error::Format { path: self.path.clone(), reason }
    }
}

impl Tensors for Gguf {
    fn tensor(&self, name: &str, _shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        let Some(Place { kind, shape, start, bytes }) = self.place(name)? else {
            return Ok(None);
        };
        let TensorType::Weights(format) = kind else {
            let expected = WeightFormat::ALL.map(WeightFormat::name).join(", ");
            return Err(Error::TensorType { name: name.into(), found: kind.to_string(), expected });
        };
        let bytes = Cow::Borrowed(&self.file[start..][..bytes]);
        Ok(Some(Tensor { format, shape, bytes }))
    }

    fn release(&self, tensor: &Tensor) {
        self.file.release(&tensor.bytes);
    }
}

/// Where `count` entries begin, each of which `read` reads.
fn locate(
    reader: &mut Reader,
    count: u64,
    what: &str,
    mut read: impl FnMut(&mut Reader) -> Result<(), String>,
) -> Result<Vec<u32>, String> {
    // Without reserving: that there are so many is a promise until they are found.
    let mut positions = Vec::new();
    for i in 0..count {
        let position = u32::try_from(reader.at()).map_err(|_| {
            format!("has a header of {} bytes: expected less than 2^32", reader.at())
        })?;
        positions.push(position);
        read(reader).map_err(|reason| format!("{what} {i} of {count}: {reason}"))?;
    }
    Ok(positions)
}

/// A text of the file as messages show it: quoted, and no longer than a line.
fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

impl std::fmt::Display for Value<'_> {
    /// Long texts and arrays are abbreviated.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MOST_SHOWN: usize = 8;
        match self {
            Self::Unsigned(number) => number.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::String(text) => f.write_str(&shown(text)),
            Self::Array(array) => {
                f.write_str("[")?;
                for (i, value) in array.values().take(MOST_SHOWN).enumerate() {
                    write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
                }
                match array.length().saturating_sub(MOST_SHOWN) {
                    0 => f.write_str("]"),
                    more => write!(f, ", and {more} more]"),
                }
            }
        }
    }
}
