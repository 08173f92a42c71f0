//! Splits work over the threads of the current rayon pool, without allocating.
//!
//! Outputs are split, never a reduction, so the split cannot change a bit. Where work is cut is for all to ask: a simulation of larger machines cuts it by the
//! same functions (`docs/scaling.md`).

use std::cell::Cell;
use std::hint::spin_loop;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use scopeguard::defer;

use crate::fault;
use crate::simd::LANES;
use crate::tuning::Knob;

/// Runs `work` on a thread of the current pool while the others stay awake: what it shares is then taken up in a microsecond. A thread of
/// rayon's sleeps after some tens of microseconds without work, and to be woken takes as long as a small matrix.
pub fn enter<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let others = rayon::current_num_threads() - 1;
    if others == 0 {
        return work();
    }
    let vigil = Vigil { others, joined: AtomicUsize::new(0), has_ended: AtomicBool::new(false) };
    match rayon::current_thread_index() {
        Some(_) => vigil.keep(others, work),
        None => rayon::scope(|_| vigil.keep(others, work)),
    }
}

/// The threads that stay awake while one works.
struct Vigil {
    /// How many there are besides that one.
    others: usize,
    /// How many of them have come, or cannot.
    joined: AtomicUsize,
    has_ended: AtomicBool,
}

impl Vigil {
    /// Runs `work` after it has called for `others`.
    ///
    /// Without allocating: hence not by a broadcast.
    fn keep<R: Send>(&self, others: usize, work: impl FnOnce() -> R + Send) -> R {
        if others == 0 {
            defer!(self.has_ended.store(true, Ordering::Release));
            return work();
        }
        join(|| self.keep(others - 1, work), || self.attend()).0
    }

    /// Looks for work until the end.
    ///
    /// A thread that waits in a [`join`] does not: it could wait for what waits for itself.
    fn attend(&self) {
        /// Searches in vain until the processor is offered to other programs, which takes a call of the system.
        const IN_VAIN: usize = 64;
        self.joined.fetch_add(1, Ordering::Relaxed);
        if DEPTH.get() > 0 {
            return;
        }
        deeper(|| {
            self.wait_for_others();
            let mut in_vain = 0;
            while !self.has_ended.load(Ordering::Acquire) {
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

    /// Takes no work before all others have come: it could be what was to call them.
    fn wait_for_others(&self) {
        /// Longer than it takes to be woken.
        const PATIENCE: Duration = Duration::from_micros(200);
        let begin = Instant::now();
        let is_waiting = || self.joined.load(Ordering::Relaxed) < self.others;
        while is_waiting() && !self.has_ended.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE
        {
            std::thread::yield_now();
        }
    }
}

thread_local! {
    /// How many calls of [`join`] and [`Vigil::attend`] this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
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
pub(crate) fn split_rows<T, W>(out: &mut [T], row_length: usize, most: usize, work: &W)
where
    T: Send,
    W: Fn(usize, &mut [T]) + Sync,
{
    split_rows_of_each([out], row_length, most, &|first, [out]: [&mut [T]; 1]| work(first, out));
}

/// As [`split_rows`], with the same rows of several outputs of one length.
pub(crate) fn split_rows_of_each<T, W, const N: usize>(
    outs: [&mut [T]; N],
    row_length: usize,
    most: usize,
    work: &W,
) where
    T: Send,
    W: Fn(usize, [&mut [T]; N]) + Sync,
{
    if outs[0].is_empty() {
        return;
    }
    if rayon::current_num_threads() == 1 {
        return work(0, outs);
    }
    split(0, outs, row_length, most.max(1), work);
}

fn split<T, W, const N: usize>(
    first: usize,
    outs: [&mut [T]; N],
    row_length: usize,
    most: usize,
    work: &W,
) where
    T: Send,
    W: Fn(usize, [&mut [T]; N]) + Sync,
{
    let rows = outs[0].len() / row_length;
    let Some(half) = half_of_rows(rows, most) else {
        return work(first, outs);
    };
    let mut halves = outs.map(|out| out.split_at_mut(half * row_length));
    let left = halves.each_mut().map(|(left, _)| mem::take(left));
    let right = halves.map(|(_, right)| right);
    let middle = first + fault!(ThreadsOverlap: half - 1, else half);
    join(
        || split(first, left, row_length, most, work),
        || split(middle, right, row_length, most, work),
    );
}

/// Where `split_rows` halves so many rows; `None` if they are few enough for a task of at most `most`.
pub fn half_of_rows(rows: usize, most: usize) -> Option<usize> {
    // Whole lanes where rows are single elements.
    let half = if rows < 64 { rows / 2 } else { (rows / 2).next_multiple_of(LANES) };
    (rows > most).then_some(half)
}

/// More threads do not [share runs](share_runs): of those, some come late to the parts of others.
pub(crate) const MOST_PARTS: usize = 64;

/// Calls `work` on whole runs of `run` elements of `out`, on `threads` threads at most, with the index of the first element.
///
/// Each thread has a part of `out`, which it takes from front to back; when it is done it takes over half of what is left of another's. So all
/// end together, though the runs are handed out but once.
pub(crate) fn share_runs<T, W>(out: &mut [T], run: usize, threads: usize, work: &W)
where
    T: Send,
    W: Fn(usize, &mut [T]) + Sync,
{
    let runs_of_parts = parts_of_runs(out.len().div_ceil(run), threads);
    let threads = runs_of_parts.len();
    if threads <= 1 {
        return work(0, out);
    }
    let mut parts = ArrayVec::<_, MOST_PARTS>::new();
    let (mut first, mut rest) = (0, out);
    for runs in runs_of_parts {
        let end = (runs.end * run).min(first + rest.len());
        let (part, others) = rest.split_at_mut(end - first);
        parts.push(Mutex::new(Part { first, rest: part }));
        (first, rest) = (end, others);
    }
    let parts = Parts { parts: &parts, run };
    parts.begin(0..threads, work);
}

/// The runs of each part that `share_runs` makes of so many.
pub fn parts_of_runs(runs: usize, threads: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let parts = threads.min(runs).min(MOST_PARTS);
    (0..parts).map(move |part| part * runs / parts..(part + 1) * runs / parts)
}

/// How many runs a thread takes of so many that are left of its part.
///
/// Taking some waits for all that is being read, about 0.1 us, so the first are many; the last are few, so that threads end together, and
/// none are more than a thread can be late for.
pub fn runs_taken(left: usize) -> usize {
    const MOST: usize = 16;
    (left / 2).clamp(1, MOST)
}

/// How many runs a part keeps of so many that are left, when another thread takes over the others.
pub fn runs_kept(left: usize) -> usize {
    left / 2
}

/// What nobody has taken yet of a thread's part.
struct Part<'a, T> {
    first: usize,
    rest: &'a mut [T],
}

impl<T> Part<'_, T> {
    /// Cuts off what is before element `at`, or all if there are fewer.
    fn take_before(&mut self, at: usize) -> Self {
        let rest = mem::take(&mut self.rest);
        let (front, back) = rest.split_at_mut(at.min(rest.len()));
        let taken = Part { first: self.first, rest: front };
        *self = Part { first: self.first + taken.rest.len(), rest: back };
        taken
    }
}

/// The parts of all threads.
struct Parts<'a, 'b, T> {
    parts: &'a [Mutex<Part<'b, T>>],
    run: usize,
}

impl<'b, T: Send> Parts<'_, 'b, T> {
    fn begin<W: Fn(usize, &mut [T]) + Sync>(&self, threads: Range<usize>, work: &W) {
        if threads.len() == 1 {
            return self.work_on(threads.start, work);
        }
        let middle = threads.start.midpoint(threads.end);
        join(|| self.begin(threads.start..middle, work), || self.begin(middle..threads.end, work));
    }

    fn work_on<W: Fn(usize, &mut [T]) + Sync>(&self, own: usize, work: &W) {
        let others = || (own + 1..self.parts.len()).chain(0..own);
        loop {
            let Part { first, rest } = self.take_some(own);
            if !rest.is_empty() {
                work(first, rest);
                continue;
            }
            let Some(taken_over) = others().find_map(|other| self.take_half(other)) else {
                return;
            };
            *self.lock(own) = taken_over;
        }
    }

    /// The next runs of a part, as many as are taken at once.
    fn take_some(&self, of: usize) -> Part<'b, T> {
        let mut part = self.lock(of);
        let taken = runs_taken(part.rest.len().div_ceil(self.run));
        part.take_before(taken * self.run)
    }

    /// The second half of what is left, or all if it is one run.
    fn take_half(&self, of: usize) -> Option<Part<'b, T>> {
        let mut part = self.lock(of);
        let kept = runs_kept(part.rest.len().div_ceil(self.run)) * self.run;
        let kept = part.take_before(kept);
        let taken = mem::replace(&mut *part, kept);
        (!taken.rest.is_empty()).then_some(taken)
    }

    fn lock(&self, part: usize) -> MutexGuard<'_, Part<'b, T>> {
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many rows of `row_length` make a run worth handing to another thread in an op that does a few operations per element.
pub fn rows_worth_sharing(row_length: usize) -> usize {
    Knob::SharedElements.get().div_ceil(row_length.max(1))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc::channel;

    use rayon::ThreadPoolBuilder;

    use super::*;

    fn sum(of: &[usize]) -> usize {
        if let [one] = of {
            return *one;
        }
        let (left, right) = of.split_at(of.len() / 2);
        let (left, right) = join(|| sum(left), || sum(right));
        left + right
    }

    #[test]
    fn entering_runs_the_work_and_passes_on_its_panic() {
        let numbers: Vec<_> = (0..1000).collect();
        for threads in [1, 2, 5] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let fails = || {
                enter(|| -> () {
                    std::thread::sleep(Duration::from_millis(1));
                    panic!("as it should")
                })
            };
            for _ in 0..20 {
                assert_eq!(pool.install(|| enter(|| sum(&numbers))), 499_500);
                assert!(catch_unwind(AssertUnwindSafe(|| pool.install(fails))).is_err());
            }
        }
        assert_eq!(enter(|| sum(&numbers)), 499_500);
    }

    /// A thread that attends is deep, and nothing else makes it so here. Where the machine is busy it may come too late.
    #[test]
    fn threads_are_awake_while_there_is_no_work_for_them() {
        const OTHERS: usize = 2;
        const TRIALS: usize = 1000;
        let pool = ThreadPoolBuilder::new().num_threads(1 + OTHERS).build().unwrap();
        let are_awake = || {
            let caller = rayon::current_thread_index();
            std::thread::sleep(Duration::from_millis(1));
            let is_awake = |index| DEPTH.get() > 0 && Some(index) != caller;
            let awake = rayon::broadcast(|context| is_awake(context.index()));
            awake.into_iter().filter(|&awake| awake).count() == OTHERS
        };
        assert!(!pool.install(are_awake));
        assert!((0..TRIALS).any(|_| pool.install(|| enter(are_awake))));
    }

    /// In a pool that takes the oldest of its own tasks first, that is one to attend.
    #[test]
    fn a_thread_that_waits_does_not_attend() {
        #[allow(deprecated)]
        let pool = ThreadPoolBuilder::new().num_threads(2).breadth_first().build().unwrap();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let is_busy = AtomicBool::new(true);
            pool.scope(|scope| {
                scope.spawn(|_| {
                    while is_busy.load(Ordering::Relaxed) {
                        spin_loop();
                    }
                });
                // The other thread takes what was spawned while this one waits.
                std::thread::sleep(Duration::from_millis(10));
                enter(|| join(|| (), || ()));
                is_busy.store(false, Ordering::Relaxed);
            });
            sender.send(()).unwrap();
        });
        receiver.recv_timeout(Duration::from_secs(60)).expect("it ends");
    }

    /// Each run once and with its index, whoever takes it.
    #[test]
    fn runs_are_shared_whole() {
        // A pool of so many, of which so many share.
        for [all, threads] in [[1, 1], [2, 2], [3, 3], [3, 2], [3, 1], [80, 80]] {
            let pool = ThreadPoolBuilder::new().num_threads(all).build().unwrap();
            for (length, run) in [(0, 4), (3, 4), (4, 4), (100, 7), (1000, 1), (1001, 10)] {
                let mut out = vec![usize::MAX; length];
                let write = |first: usize, out: &mut [usize]| {
                    let is_end = first + out.len() == length;
                    assert!(first.is_multiple_of(run) && (is_end || out.len().is_multiple_of(run)));
                    let most = runs_taken(length.div_ceil(run)) * run;
                    assert!(out.len() <= most || threads == 1);
                    if first.is_multiple_of(3) {
                        std::thread::yield_now();
                    }
                    for (i, out) in out.iter_mut().enumerate() {
                        assert_eq!(*out, usize::MAX);
                        *out = first + i;
                    }
                };
                pool.install(|| enter(|| share_runs(&mut out, run, threads, &write)));
                assert!(out.iter().copied().eq(0..length), "{threads} {length} {run}");
            }
        }
    }

    /// A thread whose first runs take as long as all others leaves those to the other.
    #[test]
    fn a_thread_that_is_done_takes_over() {
        const RUNS: usize = 16;
        const PATIENCE: Duration = Duration::from_secs(10);
        let begin = Instant::now();
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let taken = AtomicUsize::new(0);
        let mut out = [None; RUNS];
        let work = |first: usize, out: &mut [Option<usize>]| {
            out.fill(rayon::current_thread_index());
            taken.fetch_add(out.len(), Ordering::Relaxed);
            let are_left = || taken.load(Ordering::Relaxed) < RUNS;
            while first == 0 && are_left() && begin.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        };
        pool.install(|| enter(|| share_runs(&mut out, 1, 2, &work)));
        let (first, others) = out.split_at(runs_taken(RUNS / 2));
        assert!(first.iter().all(|&thread| thread.is_some() && thread == first[0]), "{out:?}");
        assert!(others.iter().all(|&thread| thread.is_some() && thread != first[0]), "{out:?}");
    }

    #[test]
    fn fewer_runs_are_taken_at_once_towards_the_end() {
        let mut left = 100;
        let mut taken = vec![];
        while left > 0 {
            taken.push(runs_taken(left));
            left -= taken[taken.len() - 1];
        }
        assert_eq!(taken, [16, 16, 16, 16, 16, 10, 5, 2, 1, 1, 1]);
    }

    /// Many callers in one pool wait for each other's parts; none for what waits for itself.
    #[test]
    fn many_calls_share_a_pool() {
        let numbers: Vec<_> = (0..300).collect();
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let ended = AtomicUsize::new(0);
        pool.scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|_| {
                    let outer = enter(|| sum(&numbers) + enter(|| sum(&numbers)));
                    assert_eq!(outer, 2 * 44_850);
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(ended.load(Ordering::Relaxed), 200);
    }
}
