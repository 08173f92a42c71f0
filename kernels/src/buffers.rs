use std::iter::repeat_n;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::linear::{UPS, brain_floats, chains, integers, sums};
use crate::ops::attention;

/// Frees the working buffers that calls of [`linear`](crate::ops::linear()) and [`attention`](crate::ops::attention()) have left to
/// later ones, such as after a long prompt.
pub fn free_buffers() {
    chains::PACKED.clear();
    integers::QUANTISED.clear();
    brain_floats::ROUNDED.clear();
    brain_floats::SINGLES.clear();
    sums::KEPT.clear();
    UPS.clear();
    attention::BUFFERS.clear();
}

/// Memory that calls leave to later ones, so that a call neither asks the system for it nor clears it.
pub struct Buffers<T>(Mutex<Pool<T>>);

struct Pool<T> {
    free: Vec<Vec<T>>,
    /// How many buffers there are, with those in use.
    made: usize,
    /// What was asked for at most, among what is made for all threads.
    longest: usize,
}

/// Buffers of so many bytes are made for all threads when the first of them asks: how many are in use at once is for the threads' pace to
/// say, and a token may not find that out late. Longer ones, of long prompts, are made when they are needed.
const FOR_ALL: usize = 1 << 20;

impl<T: Clone> Buffers<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Pool { free: Vec::new(), made: 0, longest: 0 }))
    }

    /// Calls `work` with `length` elements, in which anything may be: `filler`, where nothing was before.
    pub fn with<R>(&self, length: usize, filler: T, work: impl FnOnce(&mut [T]) -> R) -> R {
        if length == 0 {
            return work(&mut []);
        }
        let mut buffer = self.take(length, &filler);
        let result = work(&mut buffer[..length]);
        let mut pool = self.lock();
        lengthen(&mut buffer, pool.longest, &filler);
        pool.free.push(buffer);
        result
    }

    fn take(&self, length: usize, filler: &T) -> Vec<T> {
        // A thread that waits for a part of one call may take up another call.
        let enough = rayon::current_num_threads() + 1;
        let mut pool = self.lock();
        let is_for_all = length * size_of::<T>() <= FOR_ALL;
        if is_for_all && (pool.longest < length || pool.made < enough) {
            pool.make(enough, length, filler);
        }
        let mut buffer = pool.free.pop().unwrap_or_else(|| {
            pool.made += 1;
            Vec::new()
        });
        drop(pool);
        lengthen(&mut buffer, length, filler);
        buffer
    }

    /// Frees what is not in use.
    pub fn clear(&self) {
        let mut pool = self.lock();
        pool.made -= pool.free.len();
        pool.longest = 0;
        pool.free = Vec::new();
    }

    fn lock(&self) -> MutexGuard<'_, Pool<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Pool<T> {
    /// Makes up for what is missing of `enough` buffers of `length` elements; those in use grow when they come back.
    fn make(&mut self, enough: usize, length: usize, filler: &T) {
        self.longest = self.longest.max(length);
        let missing = enough.saturating_sub(self.made);
        self.made += missing;
        self.free.reserve(self.made - self.free.len());
        self.free.extend(repeat_n(Vec::new(), missing));
        for buffer in &mut self.free {
            lengthen(buffer, self.longest, filler);
        }
    }
}

fn lengthen<T: Clone>(buffer: &mut Vec<T>, length: usize, filler: &T) {
    if buffer.len() < length {
        buffer.resize(length, filler.clone());
    }
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::*;

    #[test]
    fn are_used_again_and_not_by_two_at_once() {
        static BUFFERS: Buffers<u8> = Buffers::new();
        let (outer, inner) = BUFFERS.with(3, 7, |outer| {
            assert_eq!(outer, [7; 3]);
            outer.fill(1);
            let inner = BUFFERS.with(2, 9, |inner| {
                assert_eq!(inner, [7; 2], "made when the first was");
                inner.fill(2);
                inner.as_ptr()
            });
            (outer.as_ptr(), inner)
        });
        assert_ne!(outer, inner);
        BUFFERS.with(3, 5, |first| {
            assert_eq!((first.as_ptr(), &*first), (outer, &[1; 3][..]));
            BUFFERS
                .with(2, 5, |second| assert_eq!((second.as_ptr(), &*second), (inner, &[2; 2][..])));
        });
        BUFFERS.clear();
        BUFFERS.with(3, 5, |fresh| assert_eq!(fresh, [5; 3]));
    }

    /// How long those are that nobody uses.
    fn free<T>(buffers: &Buffers<T>) -> Vec<usize> {
        buffers.0.lock().unwrap().free.iter().map(Vec::len).collect()
    }

    #[test]
    fn are_made_for_all_threads_at_once() {
        static BUFFERS: Buffers<u8> = Buffers::new();
        let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let [one, two] = [1, 2].map(pool);
        let ask = |length| BUFFERS.with(length, 0, |_| free(&BUFFERS));
        assert_eq!(one.install(|| ask(3)), [3]);
        assert_eq!(two.install(|| ask(2)), [3, 3]);
        let others = two.install(|| BUFFERS.with(1, 0, |_| ask(5)));
        assert_eq!(others, [5]);
        assert_eq!(free(&BUFFERS), [5; 3]);
    }

    #[test]
    fn that_are_long_are_made_when_needed() {
        static BUFFERS: Buffers<u8> = Buffers::new();
        BUFFERS.with(FOR_ALL + 1, 0, |_| assert!(free(&BUFFERS).is_empty()));
        BUFFERS.with(0, 0, |none| assert!(none.is_empty()));
        assert_eq!(free(&BUFFERS), [FOR_ALL + 1]);
    }
}
