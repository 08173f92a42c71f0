//! Splits work over the threads of the current rayon pool, without allocating.
//!
//! Outputs are split, never a reduction, so the split cannot change a bit.

use crate::fault;
use crate::simd::LANES;

/// Runs `work` on a thread of the current pool. Work that is shared from there is taken up in about a microsecond; a thread from outside
/// sleeps and is woken for each share.
pub fn enter<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() || rayon::current_num_threads() == 1 {
        return work();
    }
    rayon::scope(|_| work())
}

/// Calls `work` on runs of whole rows of `out`, in parallel, with the index of each run's first row.
///
/// A run has at most `most` rows where there are threads to share with.
pub fn split_rows<W>(out: &mut [f32], row_length: usize, most: usize, work: &W)
where
    W: Fn(usize, &mut [f32]) + Sync,
{
    if out.is_empty() {
        return;
    }
    if rayon::current_num_threads() == 1 {
        return work(0, out);
    }
    split(0, out, row_length, most.max(1), work);
}

fn split<W>(first: usize, out: &mut [f32], row_length: usize, most: usize, work: &W)
where
    W: Fn(usize, &mut [f32]) + Sync,
{
    let rows = out.len() / row_length;
    if rows <= most {
        return work(first, out);
    }
    // Whole lanes where rows are single elements.
    let half = if rows < 64 { rows / 2 } else { (rows / 2).next_multiple_of(LANES) };
    let (left, right) = out.split_at_mut(half * row_length);
    let middle = first + fault!(ThreadsOverlap: half - 1, else half);
    rayon::join(
        || split(first, left, row_length, most, work),
        || split(middle, right, row_length, most, work),
    );
}

/// How many rows of `row_length` make a run worth handing to another thread in an op that does a few operations per element.
pub fn rows_worth_sharing(row_length: usize) -> usize {
    const ELEMENTS: usize = 16 * 1024;
    ELEMENTS.div_ceil(row_length.max(1))
}
