//! What this machine can do at most, measured by the run that compares itself with it, on all threads of the current pool.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lfm2_kernels::{Isa, peak};

use crate::machine::Machine;

/// Bytes that no cache of this machine holds a worthwhile part of.
pub fn beyond_cache() -> usize {
    const TIMES_THE_LAST_CACHE: u64 = 4;
    const LEAST: u64 = 256 << 20;
    let largest = Machine::detect().caches.iter().map(|cache| cache.bytes).max().unwrap_or(0);
    (TIMES_THE_LAST_CACHE * largest).max(LEAST) as usize
}

/// Floating-point operations per second of multiply-adds that never leave the registers.
pub fn multiply_add(isa: Isa) -> f64 {
    const ITERATIONS: usize = 200_000;
    let (operations, seconds) = on_every_thread(|_| {
        let (operations, sum) = peak::multiply_add(isa, ITERATIONS);
        black_box(sum);
        operations
    });
    operations as f64 / seconds
}

/// Operations per second of products of bytes that never leave the registers: a product and its addition are two.
pub fn dot(isa: Isa) -> f64 {
    const ITERATIONS: usize = 100_000;
    let (operations, seconds) = on_every_thread(|_| {
        let (operations, sum) = peak::dot(isa, ITERATIONS);
        black_box(sum);
        operations
    });
    operations as f64 / seconds
}

/// Operations per second of products of brain floats that never leave the registers; as [`multiply_add`] without an instruction for them.
pub fn brain_dot(isa: Isa) -> f64 {
    const ITERATIONS: usize = 200_000;
    let (operations, seconds) = on_every_thread(|_| {
        let (operations, sum) = peak::brain_dot(isa, ITERATIONS);
        black_box(sum);
        operations
    });
    operations as f64 / seconds
}

/// Bytes per second of reading `x`, each thread its own stretch, in the way that is fastest here.
pub fn read(isa: Isa, x: &[f32]) -> f64 {
    peak::Order::ALL.map(|order| read_in(isa, x, order)).into_iter().fold(0.0, f64::max)
}

/// Bytes per second of reading `x` in one way.
pub fn read_in(isa: Isa, x: &[f32], order: peak::Order) -> f64 {
    let stretch = x.len().div_ceil(rayon::current_num_threads());
    let (bytes, seconds) = on_every_thread(|thread| {
        let part = x.chunks(stretch).nth(thread).unwrap_or(&[]);
        black_box(peak::read(isa, part, order));
        size_of_val(part) as u64
    });
    bytes as f64 / seconds
}

/// Runs `work` on all threads at once; the sum of what it returned, and the seconds from the common start to the last end.
///
/// Handing out tasks would leave it to chance whether a thread gets two and another none.
fn on_every_thread(work: impl Fn(usize) -> u64 + Sync) -> (u64, f64) {
    let (threads, ready) = (rayon::current_num_threads(), AtomicUsize::new(0));
    let parts = rayon::broadcast(|context| {
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < threads {
            spin_loop();
        }
        let start = Instant::now();
        let done = work(context.index());
        (done, start.elapsed().as_secs_f64())
    });
    let slowest = parts.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    (parts.iter().map(|(done, _)| done).sum(), slowest)
}
