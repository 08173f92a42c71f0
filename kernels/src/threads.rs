//! Splits work over the threads of the current rayon pool, without allocating.
//!
//! Outputs are split, never a reduction, so the split cannot change a bit.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};

use scopeguard::defer;

use crate::fault;
use crate::simd::LANES;

/// Runs `work` on a thread of the current pool while the others stay awake: what it shares is then taken up in a microsecond. A thread of
/// rayon's sleeps after some tens of microseconds without work, and to be woken takes as long as a small matrix.
pub fn enter<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let Some(others) = rayon::current_num_threads().checked_sub(1).filter(|&others| others > 0)
    else {
        return work();
    };
    let ended = AtomicBool::new(false);
    let attended = || attended(others, &ended, work);
    match rayon::current_thread_index() {
        Some(_) => attended(),
        None => rayon::scope(|_| attended()),
    }
}

/// Runs `work` and offers the places of attendants, as many as there are `others`, to whom they find.
fn attended<R: Send>(others: usize, ended: &AtomicBool, work: impl FnOnce() -> R + Send) -> R {
    let Some(others) = others.checked_sub(1) else {
        defer!(ended.store(true, Ordering::Release));
        return work();
    };
    join(|| attended(others, ended, work), || attend(ended)).0
}

thread_local! {
    /// How many calls of [`join`] and [`attend`] this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Looks for work until `ended`.
///
/// A thread that waits in a [`join`] does not: it could wait for what waits for itself.
fn attend(ended: &AtomicBool) {
    /// Until the processor is offered to other threads of the machine, which takes a call of the system.
    const IN_VAIN: usize = 64;
    if DEPTH.get() > 0 {
        return;
    }
    deeper(|| {
        let mut in_vain = 0;
        while !ended.load(Ordering::Acquire) {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => in_vain = 0,
                _ if in_vain < IN_VAIN => {
                    in_vain += 1;
                    spin_loop();
                }
                _ => std::thread::yield_now(),
            }
        }
    });
}

/// [`rayon::join`].
pub(crate) fn join<A: Send, B: Send>(
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    deeper(|| rayon::join(a, b))
}

fn deeper<R>(work: impl FnOnce() -> R) -> R {
    DEPTH.set(DEPTH.get() + 1);
    defer!(DEPTH.set(DEPTH.get() - 1));
    work()
}

/// Calls `work` on runs of whole rows of `out`, in parallel, with the index of each run's first row.
///
/// A run has at most `most` rows where there are threads to share with.
pub(crate) fn split_rows<W>(out: &mut [f32], row_length: usize, most: usize, work: &W)
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
    join(
        || split(first, left, row_length, most, work),
        || split(middle, right, row_length, most, work),
    );
}

/// How many rows of `row_length` make a run worth handing to another thread in an op that does a few operations per element.
pub(crate) fn rows_worth_sharing(row_length: usize) -> usize {
    const ELEMENTS: usize = 16 * 1024;
    ELEMENTS.div_ceil(row_length.max(1))
}
