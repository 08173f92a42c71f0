//! What loading may cost in memory. The tests of the harness include this file, so that they and the fuzzers hold one bound.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes that loading files of so many bytes may hold at once. A lone row of a matrix is packed into a panel of sixteen; a number of two
/// characters takes eight bytes, in a vector that may be twice as long as it needs to be, beside the half that it grew from.
pub const fn bound(bytes: usize) -> usize {
    64 * bytes + (1 << 20)
}

/// The result of `work`, and the bytes that it held at once.
///
/// What other threads hold counts, too: nothing else must run.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = work();
    (result, MEMORY.peak_usage().saturating_sub(before))
}
