//! Buffers whose first element begins a cache line, so that no vector straddles two.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::{Buf, BytesMut};
use zerocopy::FromBytes;

use crate::huge_pages;
use crate::simd::Storable;
use crate::tuning::Knob;

/// Bytes of a line, which is also what one prefetch brings.
pub const CACHE_LINE: usize = 64;

/// A fixed-length buffer that begins at a cache line.
pub struct Aligned<E> {
    bytes: BytesMut,
    element: PhantomData<E>,
}

impl<E: Storable> Aligned<E> {
    /// `length` zeros. The system's pages are touched only when they are written.
    pub fn zeroed(length: usize) -> Self {
        Self::of(beginning_at(CACHE_LINE, length * size_of::<E>()))
    }

    /// As [`zeroed`](Self::zeroed), for what is written from end to end and then kept: in huge pages if it fills one.
    pub fn zeroed_to_fill(length: usize) -> Self {
        let bytes = length * size_of::<E>();
        if bytes < huge_pages::BYTES || Knob::HugePages.get() == 0 {
            return Self::zeroed(length);
        }
        Self::of(in_huge_pages(bytes))
    }

    /// As [`zeroed_to_fill`](Self::zeroed_to_fill), for one of many that are kept together: beside the others, in huge pages that few of
    /// them would fill.
    pub fn zeroed_in_arena(length: usize) -> Self {
        /// Less is not worth it, and tests make many.
        const LEAST: usize = 4 * 1024;
        let bytes = length * size_of::<E>();
        if !(LEAST..ARENA).contains(&bytes) || Knob::HugePages.get() == 0 {
            return Self::zeroed_to_fill(length);
        }
        let mut own = take(bytes.next_multiple_of(CACHE_LINE));
        own.truncate(bytes);
        Self::of(own)
    }

    fn of(bytes: BytesMut) -> Self {
        Self { bytes, element: PhantomData }
    }
}

/// `length` zeros that begin at a multiple of so many bytes.
fn beginning_at(multiple: usize, length: usize) -> BytesMut {
    // Not one more than it may take, so that whole lines can end where the memory does.
    let mut bytes = BytesMut::zeroed(length + multiple - 1);
    bytes.advance(bytes.as_ptr().align_offset(multiple));
    bytes.truncate(length);
    bytes
}

fn in_huge_pages(length: usize) -> BytesMut {
    let mut bytes = beginning_at(huge_pages::BYTES, length);
    huge_pages::prefer(&mut bytes);
    bytes
}

/// Bytes that are asked of the system at once: it gives them out page by page when they are written.
const ARENA: usize = 64 << 20;

/// The next `length` zeros of the arena; of a new one, if it has fewer. An arena ends with the last of its buffers, the newest not before there is
/// another.
fn take(length: usize) -> BytesMut {
    static REST: LazyLock<Mutex<BytesMut>> = LazyLock::new(Mutex::default);
    let mut rest = REST.lock().unwrap_or_else(PoisonError::into_inner);
    if rest.len() < length {
        *rest = in_huge_pages(ARENA);
    }
    rest.split_to(length)
}

impl<E: Storable> Deref for Aligned<E> {
    type Target = [E];

    #[inline(always)]
    fn deref(&self) -> &[E] {
        <[E]>::ref_from_bytes(&self.bytes).expect("whole elements that begin a cache line")
    }
}

impl<E: Storable> DerefMut for Aligned<E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [E] {
        <[E]>::mut_from_bytes(&mut self.bytes).expect("whole elements that begin a cache line")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_an_arena_begin_lines_and_are_apart() {
        let lengths = [5000, 4097, 1, 70_000];
        let mut buffers = lengths.map(Aligned::<f32>::zeroed_in_arena);
        for (i, (buffer, length)) in buffers.iter_mut().zip(lengths).enumerate() {
            assert_eq!(buffer.len(), length);
            assert!(buffer.as_ptr().addr().is_multiple_of(CACHE_LINE));
            assert!(buffer.iter().all(|element| *element == 0.0));
            buffer.fill(i as f32 + 1.0);
        }
        for (i, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|element| *element == i as f32 + 1.0));
        }
    }
}
