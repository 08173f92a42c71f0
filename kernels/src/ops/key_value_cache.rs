use std::ops::Range;

use half::f16;

use super::attention::BLOCK;
use crate::aligned::Aligned;
use crate::fault;
use crate::simd::{Element, LANES};
use crate::threads::{rows_worth_sharing, split_rows};

/// Positions whose keys and values lie together, of all heads. Memory is touched a section at a time, whatever the capacity, so that it may lie in
/// huge pages. Shorter sections are slower to read: with 512 positions a token's attention over 4096 takes a seventh more time on Zen 4.
const SECTION: usize = 2048;

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
/// Positions are stored in sections of 2048, in these head after head, and of each head in blocks of 64. A block's keys come first,
/// `[64 / 16][head_dim][16]`: a score is a chain over `head_dim` with a lane per key. Then its values, `[head_dim / 16][64][16]`: an output is
/// a chain over keys with a lane per feature. Both are panels of the same tile as a linear layer's weights, and a decoded token reads a
/// head's part of a section in one straight line.
pub struct KeyValueCache {
    layout: Layout,
    length: usize,
    storage: Storage,
}

/// Which elements of a cache are where.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub heads: usize,
    pub head_dim: usize,
    /// In blocks.
    capacity: usize,
}

impl Layout {
    /// Of a whole section.
    const BLOCKS: usize = SECTION / BLOCK;

    /// Elements of a block.
    fn block(self) -> usize {
        2 * BLOCK * self.head_dim
    }

    /// The elements of a section: fewer in the last one, if the capacity ends within.
    fn section(self, section: usize) -> Range<usize> {
        let first = section * Self::BLOCKS;
        let end = self.capacity.min(first + Self::BLOCKS);
        first * self.heads * self.block()..end * self.heads * self.block()
    }

    /// Those of a head in a section.
    #[inline(always)]
    fn part(self, section: usize, head: usize) -> Range<usize> {
        let Range { start, end } = self.section(section);
        let part = (end - start) / self.heads;
        start + head * part..start + (head + 1) * part
    }

    /// Those of block `block` of a head.
    #[inline(always)]
    pub(super) fn block_of(self, head: usize, block: usize) -> Range<usize> {
        let start =
            self.part(block / Self::BLOCKS, head).start + block % Self::BLOCKS * self.block();
        start..start + self.block()
    }
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
    /// Makes room for `capacity` positions (rounded up to whole blocks of 64). Memory is touched as positions are written, in huge pages if it fills one.
    ///
    /// # Panics
    ///
    /// If `head_dim` is not a multiple of 16.
    pub fn new(heads: usize, head_dim: usize, capacity: usize, element: CacheElement) -> Self {
        assert!(head_dim.is_multiple_of(LANES), "head_dim {head_dim} is not a multiple of {LANES}");
        let layout = Layout { heads, head_dim, capacity: capacity.div_ceil(BLOCK) };
        let elements = heads * layout.capacity * layout.block();
        let storage = match element {
            CacheElement::F32 => Storage::F32(Aligned::zeroed_to_fill(elements)),
            CacheElement::F16 => Storage::F16(Aligned::zeroed_to_fill(elements)),
        };
        Self { layout, length: 0, storage }
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
        self.layout.capacity * BLOCK
    }

    /// Key and value heads.
    pub fn heads(&self) -> usize {
        self.layout.heads
    }

    /// Elements of one head.
    pub fn head_dim(&self) -> usize {
        self.layout.head_dim
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

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Appends rows of keys and values, each `[rows, heads, head_dim]`.
    ///
    /// # Panics
    ///
    /// If the slices are not whole rows of equal number, or there is no room.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) {
        let Layout { heads, head_dim, .. } = self.layout;
        let row = heads * head_dim;
        let rows = keys.len() / row;
        assert_eq!(keys.len(), rows * row, "cache: keys are not whole rows of {row}");
        assert_eq!(keys.len(), values.len(), "cache: keys and values differ in length");
        assert!(self.length + rows <= self.capacity(), "cache: no room for {rows} more positions");
        let (first, end) = (self.length, self.length + rows);
        for section in first / SECTION..end.div_ceil(SECTION) {
            let begin = section * SECTION;
            let positions = first.max(begin)..end.min(begin + SECTION);
            let length = self.layout.part(section, 0).len();
            let most = rows_worth_sharing(2 * positions.len() * head_dim);
            with_elements!(&mut self.storage, elements => {
                split_rows(&mut elements[self.layout.section(section)], length, most, &|head, parts| {
                    for (head, part) in (head..).zip(parts.chunks_exact_mut(length)) {
                        for position in positions.clone() {
                            let from = (position - first) * row + head * head_dim;
                            let (key, value) = (&keys[from..][..head_dim], &values[from..][..head_dim]);
                            write(part, head_dim, position - begin, key, value);
                        }
                    }
                });
            });
        }
        self.length = end;
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
        let Layout { heads, head_dim, .. } = self.layout;
        let row = heads * head_dim;
        let mut rows = vec![0.0; self.length * row];
        with_elements!(&self.storage, elements => {
            split_rows(&mut rows, row, BLOCK, &|first, rows| {
                for (t, row) in rows.chunks_exact_mut(row).enumerate() {
                    let position = first + t;
                    for (head, out) in row.chunks_exact_mut(head_dim).enumerate() {
                        let block = &elements[self.layout.block_of(head, position / BLOCK)];
                        for (i, out) in out.iter_mut().enumerate() {
                            *out = block[offset(position, i, head_dim)].to_f32();
                        }
                    }
                }
            });
        });
        rows
    }
}

/// Writes one position of a head's part of a section.
fn write<E: Element>(part: &mut [E], head_dim: usize, position: usize, key: &[f32], value: &[f32]) {
    let block = &mut part[position / BLOCK * 2 * BLOCK * head_dim..][..2 * BLOCK * head_dim];
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
        let Layout { heads, head_dim, .. } = self.layout;
        let mut copy = Self::new(heads, head_dim, self.capacity(), self.element());
        let blocks =
            fault!(SnapshotForgetsTail: self.length / BLOCK, else self.length.div_ceil(BLOCK));
        copy.length = self.length;
        match (&mut copy.storage, &self.storage) {
            (Storage::F32(copy), Storage::F32(original)) => {
                copy_blocks(copy, original, self.layout, blocks)
            }
            (Storage::F16(copy), Storage::F16(original)) => {
                copy_blocks(copy, original, self.layout, blocks)
            }
            _ => unreachable!("the copy was made with the original's element"),
        }
        copy
    }
}

/// The first `blocks` of each head.
fn copy_blocks<E: Element>(to: &mut [E], from: &[E], layout: Layout, blocks: usize) {
    for block in 0..blocks {
        for head in 0..layout.heads {
            let block = layout.block_of(head, block);
            to[block.clone()].copy_from_slice(&from[block]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of numbers that are all different.
    fn rows(count: usize, row: usize, first: usize) -> Vec<f32> {
        (0..count * row).map(|i| (first + i) as f32).collect()
    }

    #[test]
    fn what_is_appended_is_kept_across_sections() {
        const HEADS: usize = 3;
        const ROW: usize = HEADS * LANES;
        // The last section has two blocks.
        let capacity = 2 * SECTION + BLOCK + 1;
        let mut cache = KeyValueCache::new(HEADS, LANES, capacity, CacheElement::F32);
        let (keys, values) = (rows(capacity, ROW, 0), rows(capacity, ROW, 1 << 20));
        let mut first = 0;
        for count in [1, BLOCK, SECTION - BLOCK - 2, 3, SECTION + BLOCK - 1] {
            let rows = first * ROW..(first + count) * ROW;
            cache.append(&keys[rows.clone()], &values[rows]);
            first += count;
        }
        assert_eq!(first, capacity);
        for cache in [cache.clone(), cache] {
            assert_eq!(cache.len(), capacity);
            assert!(cache.keys() == keys);
            assert!(cache.values() == values);
        }
    }
}
