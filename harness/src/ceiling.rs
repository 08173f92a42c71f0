//! What this machine can do at most, measured by the run that compares itself with it, on all threads of the current pool.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lfm2_kernels::linear::Activations;
use lfm2_kernels::{Aligned, Isa, peak};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// What one run of something does: all that its rates are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Rows: tokens, for most.
    pub rows: usize,
    /// Operations, a multiply-add being two; 0 where they are not what takes the time.
    pub operations: u64,
    /// Those of them that are products of bytes, added to integers.
    pub dots: u64,
    /// Those of them that are products of brain floats.
    pub brain_dots: u64,
    /// Bytes of the operands, each counted once.
    pub bytes: u64,
    /// Bytes that one run after another goes through, which caches hold as far as they can; `None` if no cache holds any of them when a
    /// run begins.
    pub working_set: Option<u64>,
}

impl Work {
    /// With `operations` of linear layers that read their input so.
    pub fn with_linear(self, activations: Activations, operations: u64) -> Self {
        let all = Self { operations: self.operations + operations, ..self };
        match activations {
            Activations::F32 => all,
            Activations::Int8 => Self { dots: self.dots + operations, ..all },
            Activations::Bf16 => Self { brain_dots: self.brain_dots + operations, ..all },
        }
    }
}

/// What a machine can do at most, per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Floating-point operations: [`multiply_add`].
    pub multiply_add: f64,
    /// Operations on bytes: [`dot`].
    pub dot: f64,
    /// Operations on brain floats: [`brain_dot`].
    pub brain_dot: f64,
    /// Bytes read: [`read`], or [`read_again`].
    pub read: f64,
}

/// What keeps something from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Computing.
    Compute,
    /// Reading its operands.
    Memory,
}

impl Ceilings {
    /// Now, with a working set that is `memory`.
    pub fn measure(isa: Isa, memory: &[f32]) -> Self {
        Self {
            multiply_add: multiply_add(isa),
            dot: dot(isa),
            brain_dot: brain_dot(isa),
            read: read_again(isa, memory),
        }
    }

    /// The higher of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            multiply_add: self.multiply_add.max(other.multiply_add),
            dot: self.dot.max(other.dot),
            brain_dot: self.brain_dot.max(other.brain_dot),
            read: self.read.max(other.read),
        }
    }

    /// Seconds that `work` takes at least, and why: it computes, and meanwhile reads what it needs.
    pub fn seconds(&self, work: &Work) -> (f64, Bound) {
        let floats = work.operations - work.dots - work.brain_dots;
        let computing = floats as f64 / self.multiply_add
            + work.dots as f64 / self.dot
            + work.brain_dots as f64 / self.brain_dot;
        let reading = work.bytes as f64 / self.read;
        if computing > reading { (computing, Bound::Compute) } else { (reading, Bound::Memory) }
    }
}

/// What is read to find how fast reading is.
pub struct Memory(Aligned<f32>);

impl Memory {
    /// As much as no cache holds, in huge pages, as weights lie: small ones are read more slowly.
    pub fn new() -> Self {
        let mut memory = Aligned::zeroed_to_fill(beyond_cache() / size_of::<f32>());
        memory.fill(1.0);
        Self(memory)
    }

    /// All of it.
    pub fn all(&self) -> &[f32] {
        &self.0
    }

    /// The first `bytes`, as far as there are so many; but no less than threads can share.
    pub fn first(&self, bytes: u64) -> &[f32] {
        const LEAST: usize = 16 << 10;
        let least = LEAST * rayon::current_num_threads() / size_of::<f32>();
        let count = bytes as usize / size_of::<f32>();
        &self.0[..count.max(least).min(self.0.len())]
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// What the machine can do at most for the case with that `work`, just now.
pub fn ceilings(isa: Isa, work: &Work, memory: &Memory) -> Ceilings {
    let memory = work.working_set.map_or(memory.all(), |bytes| memory.first(bytes));
    let once = || Ceilings::measure(isa, memory);
    once().max(once())
}

/// Bytes that no cache of this machine holds a worthwhile part of.
pub fn beyond_cache() -> usize {
    const TIMES_THE_LAST_CACHE: u64 = 4;
    const LEAST: u64 = 256 << 20;
    let largest = Machine::detect().caches.iter().map(|cache| cache.bytes).max().unwrap_or(0);
    (TIMES_THE_LAST_CACHE * largest).max(LEAST) as usize
}

/// Floating-point operations per second of multiply-adds that never leave the registers.
pub fn multiply_add(isa: Isa) -> f64 {
    operations(|| peak::multiply_add(isa, 200_000))
}

/// Operations per second of products of bytes that never leave the registers: a product and its addition are two.
pub fn dot(isa: Isa) -> f64 {
    operations(|| peak::dot(isa, 100_000))
}

/// Operations per second of products of brain floats that never leave the registers; as [`multiply_add`] without an instruction for them.
pub fn brain_dot(isa: Isa) -> f64 {
    operations(|| peak::brain_dot(isa, 200_000))
}

/// Operations per second of what says how many it does, on every thread.
fn operations<R>(peak: impl Fn() -> (u64, R) + Sync) -> f64 {
    let (operations, seconds) = on_every_thread(|_| {
        let (operations, result) = peak();
        black_box(result);
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
    read_often(isa, x, order, 1)
}

fn read_often(isa: Isa, x: &[f32], order: peak::Order, times: usize) -> f64 {
    let stretch = x.len().div_ceil(rayon::current_num_threads());
    let (bytes, seconds) = on_every_thread(|thread| {
        let part = x.chunks(stretch).nth(thread).unwrap_or(&[]);
        for _ in 0..times {
            black_box(peak::read(isa, black_box(part), order));
        }
        (times * size_of_val(part)) as u64
    });
    bytes as f64 / seconds
}

/// Bytes per second of reading `x` again and again, each thread its own stretch, in the way that is fastest here: what caches hold of it
/// comes from there.
pub fn read_again(isa: Isa, x: &[f32]) -> f64 {
    const BYTES: usize = 16 << 20;
    let times = BYTES.div_ceil(size_of_val(x).max(1));
    peak::Order::ALL.map(|order| read_often(isa, x, order, times)).into_iter().fold(0.0, f64::max)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_is_the_limit() {
        let ceilings = Ceilings { multiply_add: 10.0, dot: 80.0, brain_dot: 40.0, read: 5.0 };
        let work = Work { operations: 15, bytes: 14, ..Work::default() }
            .with_linear(Activations::F32, 5)
            .with_linear(Activations::Int8, 40)
            .with_linear(Activations::Bf16, 20);
        assert_eq!(ceilings.seconds(&work), (3.0, Bound::Compute));
        assert_eq!(ceilings.seconds(&Work { bytes: 20, ..work }), (4.0, Bound::Memory));
    }
}
