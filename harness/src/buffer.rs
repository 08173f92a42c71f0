//! Where the numbers of a case lie.

use std::ops::{Deref, DerefMut};

/// Numbers in memory, begun anywhere within a vector, between margins that must stay as they are.
#[derive(Clone)]
pub struct Buffer {
    storage: Vec<f32>,
    start: usize,
    length: usize,
}

impl Buffer {
    const MARGIN: usize = 64;

    /// A NaN that no kernel makes.
    const UNTOUCHED: f32 = f32::from_bits(0x7FC5_A5A5);

    pub(crate) fn new(offset: usize, length: usize, value: impl Fn(usize) -> f32) -> Self {
        let start = Self::MARGIN + offset;
        let mut storage = vec![Self::UNTOUCHED; start + length + Self::MARGIN];
        for (i, element) in storage[start..][..length].iter_mut().enumerate() {
            *element = value(i);
        }
        Self { storage, start, length }
    }

    /// Whether nothing was written outside.
    pub fn margins_are_intact(&self) -> bool {
        let (before, rest) = self.storage.split_at(self.start);
        let margins = before.iter().chain(&rest[self.length..]);
        margins.into_iter().all(|value| value.to_bits() == Self::UNTOUCHED.to_bits())
    }
}

impl Buffer {
    /// Writes outside, to see that it is noticed.
    pub(crate) fn spoil_margin(&mut self) {
        self.storage[self.start + self.length] = 0.0;
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Self {
        Self::new(0, values.len(), |i| values[i])
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.storage[self.start..][..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.storage[self.start..][..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_outside_is_seen() {
        for offset in [0, 15] {
            let buffer = Buffer::new(offset, 5, |_| 0.0);
            assert!(buffer.margins_are_intact());
            for outside in [buffer.start - 1, buffer.start + 5] {
                let mut buffer = buffer.clone();
                buffer.storage[outside] = f32::NAN;
                assert!(!buffer.margins_are_intact());
            }
        }
    }
}
