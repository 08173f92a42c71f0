//! Where the numbers of a case lie.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::memory::{Number, Region};

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Begun anywhere within a vector, between margins that must stay as they are.
    #[default]
    Ordinary,
    /// Flush against a guard page at its end: a byte touched after it ends the process. Its alignment follows from its length.
    GuardedEnd,
    /// Flush against a guard page at its start, and so aligned to a page: a byte touched before it ends the process.
    GuardedStart,
}

impl Place {
    /// Those where a byte touched beside a buffer ends the process.
    pub const GUARDED: [Self; 2] = [Self::GuardedEnd, Self::GuardedStart];

    /// Where the guard page is, if there is one: as printed with a case.
    pub fn guard(self) -> Option<&'static str> {
        match self {
            Self::Ordinary => None,
            Self::GuardedEnd => Some("end"),
            Self::GuardedStart => Some("start"),
        }
    }
}

/// Numbers in memory, written by an operation or about to be.
pub struct Buffer<N: Number = f32> {
    storage: Storage<N>,
    place: Place,
    start: usize,
    length: usize,
}

enum Storage<N: Number> {
    Heap(Vec<N>),
    Guarded(Region<N>),
}

impl<N: Number> Deref for Storage<N> {
    type Target = [N];

    fn deref(&self) -> &[N] {
        match self {
            Self::Heap(numbers) => numbers,
            Self::Guarded(region) => region,
        }
    }
}

impl<N: Number> DerefMut for Storage<N> {
    fn deref_mut(&mut self) -> &mut [N] {
        match self {
            Self::Heap(numbers) => numbers,
            Self::Guarded(region) => region,
        }
    }
}

impl<N: Number> Buffer<N> {
    const MARGIN: usize = 64;

    /// The size of a vector of sixteen lanes.
    pub(crate) const ALIGNMENT: usize = 64;

    /// `offset` is how many numbers after the start of a vector an ordinary buffer begins.
    pub(crate) fn new(
        place: Place,
        offset: usize,
        length: usize,
        value: impl Fn(usize) -> N,
    ) -> Self {
        let (storage, start) = match place {
            Place::Ordinary => {
                let alignment = Self::ALIGNMENT / size_of::<N>();
                let room = alignment + Self::MARGIN + offset + length + Self::MARGIN;
                let numbers = vec![N::UNTOUCHED; room];
                let start = numbers.as_ptr().align_offset(Self::ALIGNMENT) + Self::MARGIN + offset;
                (Storage::Heap(numbers), start)
            }
            Place::GuardedEnd => {
                let region = Region::new(length);
                let start = region.len() - length;
                (Storage::Guarded(region), start)
            }
            Place::GuardedStart => (Storage::Guarded(Region::new(length)), 0),
        };
        let mut buffer = Self { storage, place, start, length };
        for (i, number) in buffer.iter_mut().enumerate() {
            *number = value(i);
        }
        buffer
    }

    /// Makes it an input: where pages are guarded, its own become read-only, so that a write ends the process.
    pub fn seal(mut self) -> Input<N> {
        if let Storage::Guarded(region) = &mut self.storage {
            region.seal();
        }
        Input(self)
    }

    /// Whether nothing was written outside.
    pub fn margins_are_intact(&self) -> bool {
        let (before, rest) = self.storage.split_at(self.start);
        let margins = before.iter().chain(&rest[self.length..]);
        margins.into_iter().all(|number| number.bits() == N::UNTOUCHED.bits())
    }

    /// Reads what lies `index` numbers after the first, within the buffer or not; on a guard page this ends the process.
    ///
    /// # Panics
    ///
    /// If it is beyond margins and guard pages.
    pub fn read_at(&self, index: isize) -> N {
        let index = self.start as isize + index;
        match &self.storage {
            Storage::Heap(numbers) => numbers[index as usize],
            Storage::Guarded(region) => region.read_at(index),
        }
    }

    /// Writes there, as a kernel would that does not know its bounds.
    ///
    /// # Panics
    ///
    /// If it is beyond margins and guard pages.
    pub fn write_at(&mut self, index: isize, number: N) {
        let index = self.start as isize + index;
        match &mut self.storage {
            Storage::Heap(numbers) => numbers[index as usize] = number,
            Storage::Guarded(region) => region.write_at(index, number),
        }
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Self {
        Self::new(Place::Ordinary, 0, values.len(), |i| values[i])
    }
}

impl<N: Number> Clone for Buffer<N> {
    /// The same numbers in the same kind of place, at the same alignment.
    fn clone(&self) -> Self {
        let offset = self.as_ptr().addr() % Self::ALIGNMENT / size_of::<N>();
        Self::new(self.place, offset, self.length, |i| self[i])
    }
}

impl<N: Number> Deref for Buffer<N> {
    type Target = [N];

    fn deref(&self) -> &[N] {
        &self.storage[self.start..][..self.length]
    }
}

impl<N: Number> DerefMut for Buffer<N> {
    fn deref_mut(&mut self) -> &mut [N] {
        &mut self.storage[self.start..][..self.length]
    }
}

impl<N: Number + fmt::Debug> fmt::Debug for Buffer<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Numbers that an operation only reads.
#[derive(Clone, Debug)]
pub struct Input<N: Number = f32>(Buffer<N>);

impl<N: Number> Input<N> {
    /// A copy, in the same kind of place, for an operation that replaces its input.
    pub fn writable(&self) -> Buffer<N> {
        self.0.clone()
    }

    /// As [`Buffer::read_at`].
    pub fn read_at(&self, index: isize) -> N {
        self.0.read_at(index)
    }

    /// As [`Buffer::write_at`]; where pages are guarded, it ends the process wherever it writes.
    pub fn write_at(&mut self, index: isize, number: N) {
        self.0.write_at(index, number);
    }
}

impl<N: Number> Deref for Input<N> {
    type Target = [N];

    fn deref(&self) -> &[N] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [Place; 3] = [Place::Ordinary, Place::GuardedEnd, Place::GuardedStart];

    #[test]
    fn a_write_outside_is_seen() {
        for place in PLACES {
            for (offset, length) in [(0, 5), (15, 5), (3, 0)] {
                let buffer = Buffer::new(place, offset, length, |_| 0.0);
                assert!(buffer.margins_are_intact());
                let outside = [-1, length as isize].into_iter().filter(|index| match place {
                    Place::Ordinary => true,
                    Place::GuardedEnd => *index < 0,
                    Place::GuardedStart => *index >= 0,
                });
                for index in outside {
                    let mut buffer = buffer.clone();
                    buffer.write_at(index, f32::NAN);
                    assert!(!buffer.margins_are_intact(), "{place:?} {index}");
                }
            }
        }
    }

    #[test]
    fn an_ordinary_buffer_begins_where_its_offset_says() {
        for offset in 0..16 {
            for length in [0, 1, 1000] {
                let buffer = Buffer::new(Place::Ordinary, offset, length, |i| i as f32);
                for buffer in [&buffer, &buffer.clone(), &buffer.clone().seal().writable()] {
                    assert_eq!(buffer.as_ptr().addr() % 64, 4 * offset);
                }
            }
        }
    }

    #[test]
    fn a_guarded_buffer_is_flush() {
        let page = rustix::param::page_size();
        for length in [0, 1, 15, 16, page / 4, page / 4 + 1, page] {
            let number = |i| i as u32;
            let end = Buffer::new(Place::GuardedEnd, 3, length, number).as_ptr_range().end;
            assert!(end.addr().is_multiple_of(page));
            let buffer = Buffer::new(Place::GuardedStart, 3, length, number);
            assert!(buffer.as_ptr().addr().is_multiple_of(page));
            let expected: Vec<u32> = (0..length as u32).collect();
            assert_eq!(buffer[..], expected[..]);
            assert_eq!(buffer.clone().seal()[..], expected[..]);
            assert_eq!(buffer.seal().writable()[..], expected[..]);
        }
    }
}
