use half::f16;

use super::attention::BLOCK;
use crate::aligned::Aligned;
use crate::fault;
use crate::simd::{Element, LANES};
use crate::threads::{rows_worth_sharing, split_rows};

/// In what a cache stores keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheElement {
    /// As computed.
    #[default]
    F32,
    /// Rounded to the nearest half, ties to even; beyond 65504 infinite.
    F16,
}

/// The keys and values of one attention layer and one sequence.
///
/// Per head, positions are stored in blocks of 64. A block's keys come first, `[64 / 16][head_dim][16]`: a score is a chain over
/// `head_dim` with a lane per key. Then its values, `[head_dim / 16][64][16]`: an output is a chain over keys with a lane per
/// feature. Both are panels of the same tile as a linear layer's weights, and a decoded token reads a head in one straight line.
pub struct KeyValueCache {
    heads: usize,
    head_dim: usize,
    /// In blocks.
    capacity: usize,
    length: usize,
    storage: Storage,
}

pub(super) enum Storage {
    F32(Aligned<f32>),
    F16(Aligned<f16>),
}

/// Evaluates `$body` with `$elements` bound to the cache's elements, of whatever type.
macro_rules! with_elements {
    ($storage:expr, $elements:ident => $body:expr) => {
        match $storage {
            $crate::ops::key_value_cache::Storage::F32($elements) => $body,
            $crate::ops::key_value_cache::Storage::F16($elements) => $body,
        }
    };
}
pub(super) use with_elements;

impl KeyValueCache {
    /// Makes room for `capacity` positions (rounded up to whole blocks of 64). Memory is touched as positions are written.
    ///
    /// # Panics
    ///
    /// If `head_dim` is not a multiple of 16.
    pub fn new(heads: usize, head_dim: usize, capacity: usize, element: CacheElement) -> Self {
        assert!(head_dim.is_multiple_of(LANES), "head_dim {head_dim} is not a multiple of {LANES}");
        let capacity = capacity.div_ceil(BLOCK);
        let elements = heads * capacity * 2 * BLOCK * head_dim;
        let storage = match element {
            CacheElement::F32 => Storage::F32(Aligned::zeroed(elements)),
            CacheElement::F16 => Storage::F16(Aligned::zeroed(elements)),
        };
        Self { heads, head_dim, capacity, length: 0, storage }
    }

    /// Positions that are stored.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity * BLOCK
    }

    /// Key and value heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Elements of one head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// In what keys and values are stored.
    pub fn element(&self) -> CacheElement {
        match self.storage {
            Storage::F32(_) => CacheElement::F32,
            Storage::F16(_) => CacheElement::F16,
        }
    }

    /// Bytes reserved: `2 * heads * capacity * head_dim` elements.
    pub fn bytes(&self) -> usize {
        with_elements!(&self.storage, elements => size_of_val(&elements[..]))
    }

    /// Forgets every position from `length` on; nothing if there are fewer.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    pub(super) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Elements from one head to the next.
    pub(super) fn head_stride(&self) -> usize {
        self.capacity * 2 * BLOCK * self.head_dim
    }

    /// Appends rows of keys and values, each `[rows, heads, head_dim]`.
    ///
    /// # Panics
    ///
    /// If the slices are not whole rows of equal number, or there is no room.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) {
        let row = self.heads * self.head_dim;
        let rows = keys.len() / row;
        assert_eq!(keys.len(), rows * row, "cache: keys are not whole rows of {row}");
        assert_eq!(keys.len(), values.len(), "cache: keys and values differ in length");
        assert!(self.length + rows <= self.capacity(), "cache: no room for {rows} more positions");
        let (first, head_dim, stride) = (self.length, self.head_dim, self.head_stride());
        with_elements!(&mut self.storage, elements => {
            split_rows(elements, stride, rows_worth_sharing(2 * rows * head_dim), &|head, elements| {
                for (head, elements) in (head..).zip(elements.chunks_exact_mut(stride)) {
                    for t in 0..rows {
                        let from = t * row + head * head_dim;
                        let (key, value) = (&keys[from..][..head_dim], &values[from..][..head_dim]);
                        write(elements, head_dim, first + t, key, value);
                    }
                }
            });
        });
        self.length += rows;
    }

    /// The stored keys as rows, `[len, heads, head_dim]`, widened exactly.
    pub fn keys(&self) -> Vec<f32> {
        self.rows(|position, i, head_dim| {
            let (panel, lane) = (position % BLOCK / LANES, position % LANES);
            (panel * head_dim + i) * LANES + lane
        })
    }

    /// The stored values as rows, `[len, heads, head_dim]`, widened exactly.
    pub fn values(&self) -> Vec<f32> {
        self.rows(|position, i, head_dim| {
            BLOCK * head_dim + (i / LANES * BLOCK + position % BLOCK) * LANES + i % LANES
        })
    }

    /// Rows of whatever lies at `offset` within a position's block.
    fn rows(&self, offset: impl Fn(usize, usize, usize) -> usize + Sync) -> Vec<f32> {
        let (head_dim, stride) = (self.head_dim, self.head_stride());
        let row = self.heads * head_dim;
        let mut rows = vec![0.0; self.length * row];
        with_elements!(&self.storage, elements => {
            split_rows(&mut rows, row, BLOCK, &|first, rows| {
                for (t, row) in rows.chunks_exact_mut(row).enumerate() {
                    let position = first + t;
                    let block = position / BLOCK * 2 * BLOCK * head_dim;
                    for (i, out) in row.iter_mut().enumerate() {
                        let (head, i) = (i / head_dim, i % head_dim);
                        *out = elements[head * stride + block + offset(position, i, head_dim)].to_f32();
                    }
                }
            });
        });
        rows
    }
}

/// Writes one position of one head.
fn write<E: Element>(head: &mut [E], head_dim: usize, position: usize, key: &[f32], value: &[f32]) {
    let block = &mut head[position / BLOCK * 2 * BLOCK * head_dim..][..2 * BLOCK * head_dim];
    let (keys, values) = block.split_at_mut(BLOCK * head_dim);
    let within = position % BLOCK;
    let panel = &mut keys[within / LANES * head_dim * LANES..][..head_dim * LANES];
    for (key, lanes) in key.iter().zip(panel.chunks_exact_mut(LANES)) {
        lanes[within % LANES] = E::from_f32(*key);
    }
    for (value, panel) in value.chunks_exact(LANES).zip(values.chunks_exact_mut(BLOCK * LANES)) {
        for (value, to) in value.iter().zip(&mut panel[within * LANES..][..LANES]) {
            *to = E::from_f32(*value);
        }
    }
}

impl Clone for KeyValueCache {
    /// A snapshot with the same capacity; only stored positions are copied.
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.heads, self.head_dim, self.capacity(), self.element());
        let blocks =
            fault!(SnapshotForgetsTail: self.length / BLOCK, else self.length.div_ceil(BLOCK));
        let (stride, used) = (self.head_stride(), blocks * 2 * BLOCK * self.head_dim);
        copy.length = self.length;
        match (&mut copy.storage, &self.storage) {
            (Storage::F32(copy), Storage::F32(original)) => {
                copy_heads(copy, original, stride, used)
            }
            (Storage::F16(copy), Storage::F16(original)) => {
                copy_heads(copy, original, stride, used)
            }
            _ => unreachable!("the copy was made with the original's element"),
        }
        copy
    }
}

fn copy_heads<E: Element>(to: &mut [E], from: &[E], stride: usize, used: usize) {
    for (to, from) in to.chunks_exact_mut(stride).zip(from.chunks_exact(stride)) {
        to[..used].copy_from_slice(&from[..used]);
    }
}
