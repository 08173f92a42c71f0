//! Memory between two pages that nobody may touch: a single byte read or written beside it ends the process.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::slice;

use memmap2::{MmapOptions, MmapRaw};
use rustix::mm::{MprotectFlags, mprotect};
use rustix::param::page_size;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
}

/// What a region holds: numbers for which every pattern of bits is a value.
pub trait Number: Copy + sealed::Sealed {
    /// A number that no kernel makes.
    const UNTOUCHED: Self;

    /// Its bits.
    fn bits(self) -> u32;
}

impl Number for f32 {
    const UNTOUCHED: Self = f32::from_bits(0x7FC5_A5A5);

    fn bits(self) -> u32 {
        self.to_bits()
    }
}

impl Number for u32 {
    const UNTOUCHED: Self = 0x7FC5_A5A5;

    fn bits(self) -> u32 {
        self
    }
}

/// Whole pages of numbers, between two guard pages.
pub struct Region<N: Number> {
    /// A guard page, the numbers, a guard page.
    map: MmapRaw,
    length: usize,
    is_sealed: bool,
    numbers: PhantomData<N>,
}

impl<N: Number> Region<N> {
    /// The fewest pages, but at least one, that hold `least` numbers; all of them [`Number::UNTOUCHED`].
    ///
    /// # Panics
    ///
    /// If the system has no memory, or cannot protect it.
    pub fn new(least: usize) -> Self {
        let page = page_size();
        let bytes = (least * size_of::<N>()).next_multiple_of(page).max(page);
        let map = MmapOptions::new().len(bytes + 2 * page).map_anon().expect("memory for a case");
        let (map, length) = (MmapRaw::from(map), bytes / size_of::<N>());
        let mut region = Self { map, length, is_sealed: false, numbers: PhantomData };
        region.protect(0, page, MprotectFlags::empty());
        region.protect(page + bytes, page, MprotectFlags::empty());
        region.fill(N::UNTOUCHED);
        region
    }

    /// Makes it read-only: a write ends the process.
    ///
    /// # Panics
    ///
    /// If the system cannot protect it.
    pub fn seal(&mut self) {
        self.protect(page_size(), self.length * size_of::<N>(), MprotectFlags::READ);
        self.is_sealed = true;
    }

    fn protect(&mut self, from: usize, bytes: usize, flags: MprotectFlags) {
        assert!(from + bytes <= self.map.len(), "pages of this map");
        // SAFETY: the pages are this map's, as asserted, so no other object lies there. No reference to the numbers is held, since
        // `self` is borrowed exclusively, and what comes after agrees with the flags: guard pages are never referred to, and once
        // numbers are read-only, `deref_mut` refuses.
        unsafe { mprotect(self.map.as_mut_ptr().add(from).cast(), bytes, flags) }
            .expect("pages can be protected");
    }

    /// Reads number `index`, counted from the first, on the guard pages as well, which ends the process: to prove that it does.
    ///
    /// # Panics
    ///
    /// If it lies beyond the guard pages.
    pub fn read_at(&self, index: isize) -> N {
        let number = self.within_map(index);
        // SAFETY: it is aligned and lies within this map, so no other object's memory is read; nobody writes to it meanwhile, since
        // `self` is borrowed; every pattern of bits is a number. On a guard page the access, which as a volatile one must take place,
        // ends the process.
        unsafe { number.read_volatile() }
    }

    /// Writes number `index`, as [`read_at`](Self::read_at) reads it, on read-only pages as well.
    ///
    /// # Panics
    ///
    /// If it lies beyond the guard pages.
    pub fn write_at(&mut self, index: isize, number: N) {
        let place = self.within_map(index);
        // SAFETY: it is aligned and lies within this map, so no other object's memory is written; nobody refers to it, since `self` is
        // borrowed exclusively. On a guard page or a read-only one the access, which as a volatile one must take place, ends the
        // process.
        unsafe { place.write_volatile(number) }
    }

    fn within_map(&self, index: isize) -> *mut N {
        let beside = (page_size() / size_of::<N>()) as isize;
        assert!((-beside..self.length as isize + beside).contains(&index), "within the map");
        self.map.as_mut_ptr().cast::<N>().wrapping_offset(beside + index)
    }
}

impl<N: Number> Deref for Region<N> {
    type Target = [N];

    fn deref(&self) -> &[N] {
        // SAFETY: the numbers begin one page into the map, so aligned, and end one page before its end; they are readable, begun as
        // zeros, and every pattern of bits is a number. They live as long as the map, and are written only through `&mut self`.
        unsafe { slice::from_raw_parts(self.within_map(0), self.length) }
    }
}

impl<N: Number> DerefMut for Region<N> {
    fn deref_mut(&mut self) -> &mut [N] {
        assert!(!self.is_sealed, "a sealed region is read-only");
        // SAFETY: as in `deref`; the pages are writable, since it is not sealed, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.within_map(0), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_whole_pages_and_holds_what_was_written() {
        let page = page_size() / size_of::<f32>();
        for (least, length) in [(0, page), (1, page), (page, page), (page + 1, 2 * page)] {
            let mut region = Region::<f32>::new(least);
            assert_eq!(region.len(), length);
            assert!(region.as_ptr().addr().is_multiple_of(page_size()));
            assert!(region.iter().all(|number| number.bits() == f32::UNTOUCHED.bits()));
            region[length - 1] = 1.0;
            region.write_at(0, 2.0);
            region.seal();
            assert_eq!((region[0], region.read_at(length as isize - 1)), (2.0, 1.0));
        }
    }

    #[test]
    #[should_panic = "read-only"]
    fn a_sealed_region_is_not_written() {
        let mut region = Region::<u32>::new(1);
        region.seal();
        region[0] = 0;
    }

    #[test]
    #[should_panic = "within the map"]
    fn nothing_beyond_the_guards_is_reached() {
        let region = Region::<u32>::new(1);
        region.read_at((2 * page_size() / size_of::<u32>()) as isize);
    }
}
