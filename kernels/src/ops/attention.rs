use std::ops::Range;

use super::key_value_cache::{KeyValueCache, with_elements};
use crate::aligned::CACHE_LINE;
use crate::fault;
use crate::linear::tile::{InLines, Lines, OneByOne, SideBySide, chain};
use crate::simd::math::exp;
use crate::simd::{Isa, LANES, Lanes, Registers, Simd, dispatch};
use crate::threads::split_rows;

/// Keys that one step of the online softmax takes: part of the numeric contract.
pub(super) const BLOCK: usize = 64;

/// Keys whose sums are kept apart and merged in order: part of the numeric contract.
const SEGMENT: usize = 512;

/// The largest supported `head_dim`; every published model has 64.
pub const MAX_HEAD_DIM: usize = 128;

/// The most query heads that may share a key and value head.
pub const MAX_GROUP: usize = 16;

/// Query rows (positions times the heads that share keys) of a tile.
const TILE: usize = 6;

/// Query rows of a task: each block of keys is read once for all of them.
const TASK_ROWS: usize = 8 * TILE;

/// Causal grouped-query attention of the newest positions over everything that is cached:
/// `out[t][h] = sum over s of softmax(query[t][h] . key[s][h / group] / sqrt(head_dim)) value[s][h / group]`, for positions `s` up to
/// `first_position + t`.
///
/// `query` and `out` are `[rows, query_heads, head_dim]`; row `t` stands at `first_position + t`, whose key and value are cached
/// already. Prefill and decode are this one function. Source: `Lfm2Attention` of Hugging Face transformers (eager), and the online
/// softmax of FlashAttention (arXiv 2205.14135).
///
/// # Panics
///
/// If a slice has another shape, `query_heads` is not a multiple (up to [`MAX_GROUP`]) of the cache's heads, `head_dim` is beyond
/// [`MAX_HEAD_DIM`], or a position is not cached.
pub fn attention(
    isa: Isa,
    query: &[f32],
    query_heads: usize,
    cache: &KeyValueCache,
    first_position: usize,
    out: &mut [f32],
) {
    let (heads, head_dim) = (cache.heads(), cache.head_dim());
    let group = query_heads / heads;
    let row = query_heads * head_dim;
    let rows = out.len() / row;
    assert_eq!(query.len(), out.len(), "attention: query and out differ in length");
    assert_eq!(out.len(), rows * row, "attention: out is not whole rows of {row}");
    assert!(
        group * heads == query_heads && (1..=MAX_GROUP).contains(&group),
        "attention: {query_heads} query heads do not share {heads} key heads"
    );
    assert!(head_dim <= MAX_HEAD_DIM, "attention: head_dim {head_dim} is beyond {MAX_HEAD_DIM}");
    assert!(first_position + rows <= cache.len(), "attention: a position is not cached");

    let shape = Shape { heads, head_dim, group };
    with_elements!(cache.storage(), elements => {
        let layer = Layer { isa, shape, first_position, elements, head_stride: cache.head_stride() };
        layer.split(query, out, rows);
    });
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    head_dim: usize,
    group: usize,
}

struct Layer<'a, E> {
    isa: Isa,
    shape: Shape,
    first_position: usize,
    elements: &'a [E],
    head_stride: usize,
}

impl<E: InLines> Layer<'_, E> {
    fn split(&self, query: &[f32], out: &mut [f32], rows: usize) {
        /// Cached elements that are worth handing to another thread.
        const WORTH_SHARING: usize = 64 * 1024;
        let Shape { heads, head_dim, group } = self.shape;
        let per_head = group * head_dim;
        if rows == 1 {
            let visited = (self.first_position + 1) * 2 * head_dim;
            let most = WORTH_SHARING.div_ceil(visited).min(heads);
            split_rows(out, per_head, most, &|first, out| {
                let task_heads = first..first + out.len() / per_head;
                let query = &query[first * per_head..][..out.len()];
                self.task(query, self.first_position, task_heads, out);
            });
        } else {
            let row = heads * per_head;
            let threads = rayon::current_num_threads();
            let most = (TASK_ROWS / group).min(rows.div_ceil(threads));
            split_rows(out, row, most, &|first, out| {
                // Without threads to share with, all rows come at once.
                for (i, out) in out.chunks_mut(most * row).enumerate() {
                    let first = first + i * most;
                    let query = &query[first * row..][..out.len()];
                    self.task(query, self.first_position + first, 0..heads, out);
                }
            });
        }
    }

    /// Some rows of some heads; `query` and `out` are `[rows, heads, group, head_dim]`.
    fn task(&self, query: &[f32], position: usize, heads: Range<usize>, out: &mut [f32]) {
        let Shape { head_dim, group, .. } = self.shape;
        let row = heads.len() * group * head_dim;
        dispatch!(self.isa, simd => {
            let mut sums = Sums::new();
            for (i, head) in heads.enumerate() {
                let elements = &self.elements[head * self.head_stride..][..self.head_stride];
                let rows = HeadRows { row, offset: i * group * head_dim, group, head_dim, position };
                rows.run(simd, query, elements, &mut sums, out);
            }
        });
    }
}

/// What the online softmax keeps of one query row: over a segment, or over all segments so far.
#[derive(Clone, Copy)]
struct Partial {
    /// The largest score.
    maximum: f32,
    /// The sum of `exp(score - maximum)`, key `j` in lane `j mod 16`.
    sum: [f32; LANES],
    /// The sum of `exp(score - maximum) * value`.
    values: [f32; MAX_HEAD_DIM],
}

impl Partial {
    const EMPTY: Self =
        Self { maximum: f32::NEG_INFINITY, sum: [0.0; LANES], values: [0.0; MAX_HEAD_DIM] };
}

/// The working memory of a task.
struct Sums {
    segment: [Partial; TASK_ROWS],
    total: [Partial; TASK_ROWS],
    /// Scaled queries, tile by tile, `[head_dim][rows of the tile]`.
    queries: [f32; TASK_ROWS * MAX_HEAD_DIM],
}

impl Sums {
    fn new() -> Self {
        Self {
            segment: [Partial::EMPTY; TASK_ROWS],
            total: [Partial::EMPTY; TASK_ROWS],
            queries: [0.0; TASK_ROWS * MAX_HEAD_DIM],
        }
    }
}

/// Evaluates `$body` with the constant `$rows` equal to `$size`, which is 1 to [`TILE`].
macro_rules! with_tile {
    ($size:expr, $rows:ident => $body:expr) => {
        match $size {
            6 => with_tile!(@ 6, $rows => $body),
            5 => with_tile!(@ 5, $rows => $body),
            4 => with_tile!(@ 4, $rows => $body),
            3 => with_tile!(@ 3, $rows => $body),
            2 => with_tile!(@ 2, $rows => $body),
            _ => with_tile!(@ 1, $rows => $body),
        }
    };
    (@ $size:literal, $rows:ident => $body:expr) => {{
        const $rows: usize = $size;
        $body
    }};
}

/// The query rows of one key and value head within a task: position by position, the heads of the group side by side.
#[derive(Clone, Copy)]
struct HeadRows {
    /// Elements from one position to the next.
    row: usize,
    /// Elements before this head's group.
    offset: usize,
    group: usize,
    head_dim: usize,
    /// Of the first row.
    position: usize,
}

impl HeadRows {
    /// Where query row `r` begins.
    #[inline(always)]
    fn start(self, r: usize) -> usize {
        r / self.group * self.row + self.offset + r % self.group * self.head_dim
    }

    /// How many keys of the block that begins at `key` row `r` may see.
    #[inline(always)]
    fn visible(self, r: usize, key: usize) -> usize {
        (self.position + r / self.group + 1).saturating_sub(key).min(BLOCK)
    }

    #[inline(always)]
    fn run<S: Simd, E: InLines>(
        self,
        simd: S,
        query: &[f32],
        elements: &[E],
        sums: &mut Sums,
        out: &mut [f32],
    ) {
        let rows = query.len() / self.row * self.group;
        self.pack(query, rows, &mut sums.queries);
        let keys = self.position + rows.div_ceil(self.group);
        for segment in (0..keys).step_by(SEGMENT) {
            fault!(SegmentNotReset: (), else sums.segment[..rows].fill(Partial::EMPTY));
            for key in (segment..keys.min(segment + SEGMENT)).step_by(BLOCK) {
                let block = &elements[2 * key * self.head_dim..][..2 * BLOCK * self.head_dim];
                // A tile reads several panels side by side, which the hardware's own prefetching follows badly.
                let ahead = 2 * (key + BLOCK) * self.head_dim;
                if let Some(block) = elements.get(ahead..ahead + 2 * BLOCK * self.head_dim) {
                    for byte in (0..size_of_val(block)).step_by(CACHE_LINE) {
                        simd.prefetch(block, byte);
                    }
                }
                let (keys, values) = block.split_at(BLOCK * self.head_dim);
                self.block(simd, key, rows, keys.as_chunks().0, values.as_chunks().0, sums);
            }
            for r in 0..rows {
                if segment == 0 {
                    sums.total[r] = sums.segment[r];
                } else if self.position + r / self.group >= segment {
                    merge(simd, &sums.segment[r], &mut sums.total[r], self.head_dim);
                }
            }
        }
        for r in 0..rows {
            let total = &sums.total[r];
            let sum = simd.splat(simd.load(&total.sum).sum());
            let out = &mut out[self.start(r)..][..self.head_dim];
            for (values, out) in total.values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                (simd.load(values) / sum).store(out);
            }
        }
    }

    /// Scales the queries and packs each tile's rows side by side.
    #[inline(always)]
    fn pack(self, query: &[f32], rows: usize, packed: &mut [f32]) {
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        for first in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - first);
            let packed = &mut packed[first * self.head_dim..][..height * self.head_dim];
            for r in 0..height {
                let query = &query[self.start(first + r)..][..self.head_dim];
                for (to, query) in packed[r..].iter_mut().step_by(height).zip(query) {
                    *to = *query * scale;
                }
            }
        }
    }

    /// One block of keys for every tile of rows.
    #[inline(always)]
    fn block<S: Simd, E: InLines>(
        self,
        simd: S,
        key: usize,
        rows: usize,
        keys: &[[E; LANES]],
        values: &[[E; LANES]],
        sums: &mut Sums,
    ) {
        for first in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - first);
            let queries = &sums.queries[first * self.head_dim..][..height * self.head_dim];
            let partials = &mut sums.segment[first..][..height];
            with_tile!(height, R => {
                let mut visible = [0; R];
                for r in 0..R {
                    visible[r] = self.visible(first + r, key);
                }
                if visible[R - 1] > 0 {
                    let (queries, _) = queries.as_chunks::<R>();
                    let mut scores = [[0.0; BLOCK]; R];
                    score(simd, queries, keys, &mut scores);
                    for r in 0..R {
                        if visible[r] > 0 {
                            soften(simd, &mut scores[r], visible[r], self.head_dim, &mut partials[r]);
                        }
                    }
                    add_values(simd, &scores, &visible, values, partials);
                }
            });
        }
    }
}

/// Whether the registers hold the sums of a tile's rows times four panels.
#[inline(always)]
fn is_wide<S: Simd>() -> bool {
    S::REGISTERS == Registers::Many
}

/// `scores[r][j] = query[r] . key[j]` for a block of keys.
#[inline(always)]
fn score<S: Simd, E: InLines, const R: usize>(
    simd: S,
    queries: &[[f32; R]],
    keys: &[[E; LANES]],
    scores: &mut [[f32; BLOCK]; R],
) {
    if is_wide::<S>() {
        score_panels::<S, E, R, 4>(simd, queries, keys, scores);
    } else if R < 4 {
        score_panels::<S, E, R, 2>(simd, queries, keys, scores);
    } else {
        score_panels::<S, E, R, 1>(simd, queries, keys, scores);
    }
}

#[inline(always)]
fn score_panels<S: Simd, E: InLines, const R: usize, const N: usize>(
    simd: S,
    queries: &[[f32; R]],
    keys: &[[E; LANES]],
    scores: &mut [[f32; BLOCK]; R],
) {
    let head_dim = queries.len();
    for first in (0..BLOCK / LANES).step_by(N) {
        let mut panels: [&[[E; LANES]]; N] = [&[]; N];
        for n in 0..N {
            panels[n] = &keys[(first + n) * head_dim..][..head_dim];
        }
        let mut sums = [[simd.splat(0.0); N]; R];
        chain(simd, 0..head_dim, SideBySide(queries), Lines(panels), &mut sums);
        for r in 0..R {
            let (scores, _) = scores[r].as_chunks_mut::<LANES>();
            for n in 0..N {
                sums[r][n].store(&mut scores[first + n]);
            }
        }
    }
}

/// Turns a row's scores into `exp(score - maximum)`, those of keys it may not see into 0, and brings its sums to the new
/// maximum.
#[inline(always)]
fn soften<S: Simd>(
    simd: S,
    scores: &mut [f32; BLOCK],
    visible: usize,
    head_dim: usize,
    partial: &mut Partial,
) {
    scores[visible..].fill(f32::NEG_INFINITY);
    let (scores, _) = scores.as_chunks_mut::<LANES>();
    let (first, second) = (simd.load(&scores[0]), simd.load(&scores[1]));
    let (third, fourth) = (simd.load(&scores[2]), simd.load(&scores[3]));
    let largest = first.max(second).max(third.max(fourth)).largest();
    let mut sum = simd.load(&partial.sum);
    if largest > partial.maximum {
        let factor = exp(simd, simd.splat(partial.maximum) - simd.splat(largest));
        sum = sum * factor;
        for values in partial.values[..head_dim].as_chunks_mut().0 {
            (simd.load(values) * factor).store(values);
        }
        partial.maximum = largest;
    }
    let maximum = simd.splat(partial.maximum);
    for scores in scores {
        let probabilities = exp(simd, simd.load(scores) - maximum);
        probabilities.store(scores);
        sum = sum + probabilities;
    }
    sum.store(&mut partial.sum);
}

/// Adds `probability[r][j] * value[j]` over the keys that each row may see.
#[inline(always)]
fn add_values<S: Simd, E: InLines, const R: usize>(
    simd: S,
    probabilities: &[[f32; BLOCK]; R],
    visible: &[usize; R],
    values: &[[E; LANES]],
    partials: &mut [Partial],
) {
    let panels = values.len() / BLOCK;
    // Rows come in order of position, so the first sees the fewest.
    let common = visible[0];
    let mut panel = 0;
    if is_wide::<S>() {
        while panel + 4 <= panels {
            add_value_panels::<S, E, R, 4>(simd, common, probabilities, values, panel, partials);
            panel += 4;
        }
    } else if R < 4 {
        while panel + 2 <= panels {
            add_value_panels::<S, E, R, 2>(simd, common, probabilities, values, panel, partials);
            panel += 2;
        }
    }
    while panel < panels {
        add_value_panels::<S, E, R, 1>(simd, common, probabilities, values, panel, partials);
        panel += 1;
    }
    for r in 0..R {
        if visible[r] > common {
            let (row, _) = probabilities[r][common..visible[r]].as_chunks::<1>();
            for panel in 0..panels {
                let values = &values[panel * BLOCK + common..][..row.len()];
                let (sums, _) = partials[r].values.as_chunks_mut::<LANES>();
                let mut sum = [[simd.load(&sums[panel])]];
                chain(simd, 0..row.len(), SideBySide(row), Lines([values]), &mut sum);
                sum[0][0].store(&mut sums[panel]);
            }
        }
    }
}

#[inline(always)]
fn add_value_panels<S: Simd, E: InLines, const R: usize, const N: usize>(
    simd: S,
    depth: usize,
    probabilities: &[[f32; BLOCK]; R],
    values: &[[E; LANES]],
    first: usize,
    partials: &mut [Partial],
) {
    let mut panels: [&[[E; LANES]]; N] = [&[]; N];
    for n in 0..N {
        panels[n] = &values[(first + n) * BLOCK..][..BLOCK];
    }
    let mut sums = [[simd.splat(0.0); N]; R];
    for r in 0..R {
        let (values, _) = partials[r].values.as_chunks::<LANES>();
        for n in 0..N {
            sums[r][n] = simd.load(&values[first + n]);
        }
    }
    chain(simd, 0..depth, OneByOne(probabilities), Lines(panels), &mut sums);
    for r in 0..R {
        let (values, _) = partials[r].values.as_chunks_mut::<LANES>();
        for n in 0..N {
            sums[r][n].store(&mut values[first + n]);
        }
    }
}

/// Adds a segment's sums to the total.
#[inline(always)]
fn merge<S: Simd>(simd: S, segment: &Partial, total: &mut Partial, head_dim: usize) {
    let (of_segment, of_total) = (simd.splat(segment.maximum), simd.splat(total.maximum));
    let maximum = of_segment.max(of_total);
    let segment_factor = exp(simd, of_segment - maximum);
    let total_factor = exp(simd, of_total - maximum);
    let (values, _) = total.values[..head_dim].as_chunks_mut();
    for (value, segment) in values.iter_mut().zip(segment.values.as_chunks().0) {
        simd.load(segment).mul_add(segment_factor, simd.load(value) * total_factor).store(value);
    }
    simd.load(&segment.sum)
        .mul_add(segment_factor, simd.load(&total.sum) * total_factor)
        .store(&mut total.sum);
    total.maximum = maximum.to_array()[0];
}
