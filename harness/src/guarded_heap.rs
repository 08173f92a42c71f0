//! A heap that can put what is allocated beside a page that nobody may touch, so that a byte read or written outside packed weights,
//! caches or working buffers ends the process, and any access to what was freed as well.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::param::page_size;

/// Where an allocation touches a page that nobody may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Behind its last byte, as far as its alignment allows.
    End,
    /// Before its first byte.
    Start,
}

impl Side {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::End, Self::Start];
}

/// The global allocator of a test: the system's, but [while it guards](Self::guarding).
///
/// Guarded allocations lie in a stretch of addresses of their own, one after another with a page between them, and no address is used
/// twice.
pub struct GuardedHeap {
    /// 0, or which of [`Side::ALL`] is guarded, counted from 1.
    side: AtomicUsize,
    /// Where the stretch begins; 0 before it is there.
    arena: AtomicUsize,
    /// Bytes of it that were given out.
    used: AtomicUsize,
    /// Allocations that were guarded.
    count: AtomicUsize,
    /// The place of the newest of them.
    newest: [AtomicUsize; 2],
}

/// Addresses that are set aside: the cases of all operations on four instruction sets need a little more than a quarter of them. They take no memory
/// before they are used.
const ARENA: usize = 16 << 30;

/// Allocations of fewer bytes are left to the system: none holds a line of weights.
const LEAST: usize = 64;

impl GuardedHeap {
    /// A heap that guards nothing yet.
    #[expect(clippy::new_without_default, reason = "a static's value must be constant")]
    pub const fn new() -> Self {
        Self {
            side: AtomicUsize::new(0),
            arena: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            newest: [const { AtomicUsize::new(0) }; 2],
        }
    }

    /// Guards what all threads allocate while `work` runs.
    ///
    /// # Panics
    ///
    /// If the system has no addresses left.
    pub fn guarding<R>(&self, side: Side, work: impl FnOnce() -> R) -> R {
        if self.arena.load(Ordering::Acquire) == 0 {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: the system chooses where, so nothing that exists is replaced.
            let arena =
                unsafe { mmap_anonymous(ptr::null_mut(), ARENA, ProtFlags::empty(), flags) };
            self.arena.store(arena.expect("addresses for a heap").addr(), Ordering::Release);
        }
        // Kept from now on: to find it out may take the heap, which asks for it.
        page_size();
        let number = Side::ALL.iter().position(|one| *one == side).map_or(0, |index| index + 1);
        let outer = self.side.swap(number, Ordering::Release);
        let result = work();
        self.side.store(outer, Ordering::Release);
        result
    }

    /// How many allocations it has guarded.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Where the newest of them lies.
    pub fn newest(&self) -> Range<usize> {
        let [start, end] = [0, 1].map(|i| self.newest[i].load(Ordering::Acquire));
        start..end
    }

    /// Reads a byte that lies in the newest allocation or beside it, where this ends the process: to prove that it does.
    ///
    /// # Panics
    ///
    /// If it lies beyond the guard pages.
    pub fn read_at(&self, address: usize) -> u8 {
        self.assert_is_near(address);
        // SAFETY: the address is of the arena, so on pages of the newest allocation, where every pattern of bits is a number and nobody
        // else writes, or on pages without access. There the access, which as a volatile one must take place, ends the process.
        unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() }
    }

    /// Writes back a byte as [`read_at`](Self::read_at) reads it.
    pub fn rewrite_at(&self, address: usize, byte: u8) {
        self.assert_is_near(address);
        // SAFETY: as in `read_at`; the caller owns the newest allocation, and nobody reads it meanwhile.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(byte) }
    }

    fn assert_is_near(&self, address: usize) {
        let Range { start, end } = self.newest();
        let page = page_size();
        assert!((start - page..end + page).contains(&address), "within the guard pages");
    }

    fn guarded_side(&self) -> Option<Side> {
        Side::ALL.get(self.side.load(Ordering::Acquire).wrapping_sub(1)).copied()
    }

    /// Gives out whole pages, and leaves one before them.
    fn allocate(&self, side: Side, layout: Layout) -> *mut u8 {
        let (page, length) = (page_size(), layout.size().next_multiple_of(page_size()));
        let from = self.used.fetch_add(length + page, Ordering::Relaxed) + page;
        // The last page of all guards the last allocation.
        if from + length + page > ARENA {
            return ptr::null_mut();
        }
        let start = self.arena.load(Ordering::Acquire) + from;
        if !map(start, length, ProtFlags::READ | ProtFlags::WRITE) {
            return ptr::null_mut();
        }
        let address = match side {
            Side::Start => start,
            // A multiple of the alignment, since pages are.
            Side::End => (start + length - layout.size()) & !(layout.align() - 1),
        };
        self.newest[0].store(address, Ordering::Release);
        self.newest[1].store(address + layout.size(), Ordering::Release);
        self.count.fetch_add(1, Ordering::AcqRel);
        ptr::with_exposed_provenance_mut(address)
    }

    fn is_guarded(&self, allocation: *mut u8) -> bool {
        let arena = self.arena.load(Ordering::Acquire);
        arena != 0 && (arena..arena + ARENA).contains(&allocation.addr())
    }
}

/// Replaces pages of the arena by fresh ones of zeros; whether the system did so.
fn map(start: usize, length: usize, access: ProtFlags) -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: these are whole pages of the arena that no allocation has yet, or that the one has that is being freed: nothing else is there.
    unsafe { mmap_anonymous(ptr::with_exposed_provenance_mut(start), length, access, flags) }
        .is_ok()
}

// SAFETY: what the system's allocator gives goes back to it unchanged. The rest lies on pages that nothing else has, since addresses are
// given out once, holds the layout's size, begins at a multiple of its alignment, and stays until it is freed. Nothing here panics or
// allocates: sums cannot overflow, as the arena is small and a layout's size at most `isize::MAX`.
unsafe impl GlobalAlloc for GuardedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.guarded_side() {
            Some(side) if layout.size() >= LEAST && layout.align() <= page_size() => {
                self.allocate(side, layout)
            }
            // SAFETY: the caller's promises are those that are asked for.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, allocation: *mut u8, layout: Layout) {
        if !self.is_guarded(allocation) {
            // SAFETY: as in `alloc`; it came from there.
            return unsafe { System.dealloc(allocation, layout) };
        }
        let page = page_size();
        let start = allocation.addr() & !(page - 1);
        let end = (allocation.addr() + layout.size()).next_multiple_of(page);
        map(start, end - start, ProtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_touch_their_guards_and_are_gone_when_freed() {
        let heap = GuardedHeap::new();
        let layout = |size, align| Layout::from_size_align(size, align).expect("a layout");
        for side in Side::ALL {
            assert_eq!(heap.guarding(side, || heap.guarded_side()), Some(side));
            assert_eq!(heap.guarded_side(), None);
        }
        let page = page_size();
        for (side, size, align, start, end) in [
            (Side::Start, 100, 4, 0, 100),
            (Side::End, 100, 4, page - 100, page),
            (Side::End, 102, 4, page - 104, page - 2),
            (Side::End, page, 64, 0, page),
            (Side::Start, page + 1, 1, 0, page + 1),
        ] {
            let before = heap.count();
            let allocation = heap.allocate(side, layout(size, align));
            let range = heap.newest();
            assert_eq!((range.start, range.len()), (allocation.addr(), size));
            assert_eq!((range.start % page, range.end), (start, range.start - start + end));
            assert!(heap.is_guarded(allocation) && heap.count() == before + 1);
            heap.rewrite_at(range.start, 7);
            heap.rewrite_at(range.end - 1, 9);
            assert_eq!((heap.read_at(range.start), heap.read_at(range.end - 1)), (7, 9));
            // SAFETY: it was allocated so above.
            unsafe { heap.dealloc(allocation, layout(size, align)) };
        }
        assert!(heap.allocate(Side::End, layout(ARENA, 1)).is_null());
    }
}
