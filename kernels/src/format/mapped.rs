//! A file as memory.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use super::text;
use crate::model::Error;

/// A file, mapped read-only: pages are read as they are touched, and shared with every other process that maps it.
///
/// The file must not be changed while it is mapped, as with every program that maps its weights.
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    ///
    /// If it is no regular file or cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let error = |source| Error::File { path: path.to_path_buf(), source };
        let file = text::open(path)?;
        // SAFETY: the map is private to this value and never written through. That nobody shortens or rewrites the file
        // meanwhile is the one thing that no process can enforce; it is stated in the type's documentation. The bytes are
        // read as plain bytes, for which every value is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(error)?;
        Ok(Self(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
