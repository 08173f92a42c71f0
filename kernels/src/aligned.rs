//! Buffers whose first element begins a cache line, so that no vector straddles two.

use std::ops::{Deref, DerefMut};

use crate::huge_pages;
use crate::simd::Storable;
use crate::tuning::Knob;

/// Bytes of a line, which is also what one prefetch brings.
pub const CACHE_LINE: usize = 64;

/// A fixed-length buffer that begins at a cache line.
pub struct Aligned<E: Storable> {
    storage: Vec<E::Stored>,
    start: usize,
    length: usize,
}

impl<E: Storable> Aligned<E> {
    /// `length` zeros. The system's pages are touched only when they are written.
    pub fn zeroed(length: usize) -> Self {
        Self::beginning_at(CACHE_LINE, length)
    }

    /// As [`zeroed`](Self::zeroed), for what is written from end to end and then kept: in huge pages if it fills one.
    pub fn zeroed_to_fill(length: usize) -> Self {
        if length * E::BYTES < huge_pages::BYTES || Knob::HugePages.get() == 0 {
            return Self::zeroed(length);
        }
        let mut buffer = Self::beginning_at(huge_pages::BYTES, length);
        huge_pages::prefer(&mut buffer.storage[buffer.start..][..length]);
        buffer
    }

    /// `length` zeros that begin at a multiple of so many bytes.
    fn beginning_at(bytes: usize, length: usize) -> Self {
        // Not one more than it may take, so that whole lines can end where the memory does.
        let storage = E::zeros(length + bytes / E::BYTES - 1);
        let start = storage.as_ptr().align_offset(bytes);
        Self { storage, start, length }
    }
}

impl<E: Storable> Deref for Aligned<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        E::view(&self.storage[self.start..][..self.length])
    }
}

impl<E: Storable> DerefMut for Aligned<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        E::view_mut(&mut self.storage[self.start..][..self.length])
    }
}
