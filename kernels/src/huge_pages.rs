//! Memory in huge pages, where the system has them: it is given out, and found again, five hundred pages at a time.
#![allow(unsafe_code)]

/// The usual size of one.
pub const BYTES: usize = 2 << 20;

/// Asks for huge pages for `memory`, which begins at a multiple of [`BYTES`], where it was not touched yet: a hint.
pub fn prefer<T>(memory: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{Advice, madvise};
        // SAFETY: the memory is borrowed exclusively, and the system changes neither what it holds nor who may touch it, only the size of
        // the pages that it lies in. The last page of these, of which it may have a part, is advised as a whole, with the same effect.
        let advised = unsafe {
            madvise(memory.as_mut_ptr().cast(), size_of_val(memory), Advice::LinuxHugepage)
        };
        // Small pages are no error.
        let _ = advised;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}
