use std::sync::{Mutex, PoisonError};

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

/// Memory that calls leave to later ones, so that a call neither asks the system for it nor clears it: as many buffers as were ever in
/// use at once, each as long as it ever was.
pub struct Buffers<T>(Mutex<Vec<Vec<T>>>);

impl<T: Clone> Buffers<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Calls `work` with `length` elements, in which anything may be: `filler`, where nothing was before.
    pub fn with<R>(&self, length: usize, filler: T, work: impl FnOnce(&mut [T]) -> R) -> R {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = free().pop().unwrap_or_default();
        if buffer.len() < length {
            buffer.resize(length, filler);
        }
        let result = work(&mut buffer[..length]);
        free().push(buffer);
        result
    }

    /// Frees what is not in use.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_used_again_and_not_by_two_at_once() {
        static BUFFERS: Buffers<u8> = Buffers::new();
        let (outer, inner) = BUFFERS.with(3, 7, |outer| {
            assert_eq!(outer, [7; 3]);
            outer.fill(1);
            let inner = BUFFERS.with(2, 9, |inner| {
                assert_eq!(inner, [9; 2]);
                inner.as_ptr()
            });
            (outer.as_ptr(), inner)
        });
        assert_ne!(outer, inner);
        BUFFERS.with(3, 5, |first| {
            assert_eq!((first.as_ptr(), &*first), (outer, &[1; 3][..]));
            BUFFERS
                .with(2, 5, |second| assert_eq!((second.as_ptr(), &*second), (inner, &[9; 2][..])));
        });
        BUFFERS.clear();
        BUFFERS.with(3, 5, |fresh| assert_eq!(fresh, [5; 3]));
    }
}
