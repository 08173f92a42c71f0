//! A file as memory.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

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

    /// Gives back the memory that the pages of `bytes` take, as far as they are the file's: they are read from it again if they are touched
    /// again. Without effect where the system cannot do so.
    pub fn release(&self, bytes: &[u8]) {
        #[cfg(unix)]
        {
            let (map, bytes) = (self.0.as_ptr_range(), bytes.as_ptr_range());
            if bytes.start < map.start || bytes.end > map.end {
                return;
            }
            let start = bytes.start.addr() - map.start.addr();
            let length = bytes.end.addr() - bytes.start.addr();
            // SAFETY: the range lies in the map, as seen above. The map is of a file and read-only, so no page of it
            // has contents of its own that could be lost: after MADV_DONTNEED a page is read from the file again at the next access, with
            // the bytes that it had, whether it belongs to this range or to a neighbour that shares it. So slices that are borrowed
            // from the map stay valid and unchanged.
            let advised =
                unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, start, length) };
            // Memory that is kept is no error.
            let _ = advised;
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
