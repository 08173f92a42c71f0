use std::array;
use std::f64::consts::LOG2_E;
use std::ops::Range;

use super::key_value_cache::{KeyValueCache, Layout, with_elements};
use crate::aligned::CACHE_LINE;
use crate::buffers::Buffers;
use crate::fault;
use crate::linear::tile::{Columns, InLines, Line as _, Lines, OneByOne, chain};
use crate::simd::math::exp2;
use crate::simd::slices::inlined;
use crate::simd::{Isa, LANES, Lanes, Simd, dispatch};
use crate::threads::{join, split_rows};
use crate::tuning::Knob;

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

/// Query rows that go through a block of keys together: first their scores, then the softmax, then their values.
const BAND: usize = 4 * TILE;

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

    with_elements!(cache.storage(), elements => {
        let layer = Layer { isa, group, first_position, elements, layout: cache.layout() };
        layer.split(query, out, rows);
    });
}

/// How the work of [`attention`] becomes tasks.
#[derive(Clone, Copy, Debug)]
pub struct AttentionCut {
    /// Key and value heads.
    pub heads: usize,
    /// Elements of each.
    pub head_dim: usize,
    /// Query heads that share one.
    pub group: usize,
    /// Where the first row stands.
    pub first_position: usize,
}

impl AttentionCut {
    /// How many heads of a single row a task takes at most.
    pub fn heads_of_task(&self) -> usize {
        let visited = (self.first_position + 1) * 2 * self.head_dim;
        Knob::SharedKeys.get().div_ceil(visited).min(self.heads)
    }

    /// How many of several rows a task takes at most, with all their heads.
    pub fn rows_of_task(&self, rows: usize, threads: usize) -> usize {
        let (tasks, most) = (Knob::AttentionTasks.get() * threads, Knob::AttentionBands.get());
        let bands = rows * self.group / (tasks * BAND);
        bands.clamp(most.min(2), most) * BAND / self.group
    }

    /// Where `rows` rows from `first` on are cut, which become `parts` parts at least, in tasks of at most `most` rows; `None` if they are one task.
    pub fn half_of_rows(
        &self,
        first: usize,
        rows: usize,
        parts: usize,
        most: usize,
    ) -> Option<usize> {
        if rows <= most && parts <= 1 || rows <= 1 {
            return None;
        }
        // At whole tasks, where there are many.
        let step = if rows > 4 * most { most } else { TILE.div_ceil(self.group) };
        Some(self.half_of_time(first, rows).next_multiple_of(step).clamp(1, rows - 1))
    }

    /// How many of `rows` rows from `first` on take half of their time: later ones see more keys.
    fn half_of_time(&self, first: usize, rows: usize) -> usize {
        /// What a row costs besides its keys, in keys.
        const BESIDES: usize = 32;
        let begin = self.first_position + first + BESIDES;
        // The sum of `begin + row` over half of the rows is half of that over all.
        (begin * begin + rows * begin + rows * rows / 2).isqrt() - begin
    }
}

struct Layer<'a, E> {
    isa: Isa,
    /// Query heads that share a head of keys and values.
    group: usize,
    first_position: usize,
    elements: &'a [E],
    layout: Layout,
}

impl<E: InLines> Layer<'_, E> {
    fn split(&self, query: &[f32], out: &mut [f32], rows: usize) {
        let per_head = self.group * self.layout.head_dim;
        if rows == 1 {
            let most = self.cut().heads_of_task();
            split_rows(out, per_head, most, &|first, out| {
                let task_heads = first..first + out.len() / per_head;
                let query = &query[first * per_head..][..out.len()];
                self.task(query, self.first_position, task_heads, out);
            });
        } else {
            let threads = rayon::current_num_threads();
            let most = self.cut().rows_of_task(rows, threads);
            self.share(query, 0, out, threads, most);
        }
    }

    /// Rows from `first` on, in tasks of at most `most`; in `parts` parts at least, which take equally long.
    fn share(&self, query: &[f32], first: usize, out: &mut [f32], parts: usize, most: usize) {
        let Layout { heads, head_dim, .. } = self.layout;
        let row = heads * self.group * head_dim;
        let rows = out.len() / row;
        let Some(half) = self.cut().half_of_rows(first, rows, parts, most) else {
            let query = &query[first * row..][..out.len()];
            return self.task(query, self.first_position + first, 0..heads, out);
        };
        if rayon::current_num_threads() == 1 {
            for (i, out) in out.chunks_mut(most * row).enumerate() {
                self.share(query, first + i * most, out, 1, most);
            }
            return;
        }
        let (left, right) = out.split_at_mut(half * row);
        join(
            || self.share(query, first, left, parts.div_ceil(2), most),
            || self.share(query, first + half, right, parts / 2, most),
        );
    }

    fn cut(&self) -> AttentionCut {
        let Self { group, first_position, layout: Layout { heads, head_dim, .. }, .. } = *self;
        AttentionCut { heads, head_dim, group, first_position }
    }

    /// Some rows of some heads; `query` and `out` are `[rows, heads, group, head_dim]`.
    fn task(&self, query: &[f32], position: usize, heads: Range<usize>, out: &mut [f32]) {
        let (group, head_dim) = (self.group, self.layout.head_dim);
        let row = heads.len() * group * head_dim;
        let count = query.len() / row * group;
        BUFFERS.with(count.div_ceil(BAND), Band::EMPTY, |bands| {
            dispatch!(self.isa, simd => {
                for (i, head) in heads.enumerate() {
                    let head = Head { elements: self.elements, layout: self.layout, head };
                    let offset = i * group * head_dim;
                    let rows = HeadRows { row, offset, group, head_dim, position, first: 0, count };
                    rows.run(simd, query, head, bands, out);
                }
            });
        });
    }
}

/// The keys and values of one head.
#[derive(Clone, Copy)]
struct Head<'a, E> {
    elements: &'a [E],
    layout: Layout,
    head: usize,
}

impl<'a, E> Head<'a, E> {
    /// The block that begins at position `key`.
    #[inline(always)]
    fn block(self, key: usize) -> &'a [[E; LANES]] {
        self.elements[self.layout.block_of(self.head, key / BLOCK)].as_chunks().0
    }
}

/// A number of each row of a band.
type OfRows = [[f32; LANES]; BAND.div_ceil(LANES)];

/// What the online softmax keeps of a band: over a segment, or over all segments so far.
#[derive(Clone, Copy)]
struct Partials {
    /// The largest score of each row.
    maxima: OfRows,
    /// Each row's sum of `2^(score - maximum)`, key `j` in lane `j mod 16`.
    sums: [[f32; LANES]; BAND],
    /// Each row's sum of `2^(score - maximum) * value`, `[rows][head_dim]`.
    values: [[f32; LANES]; BAND * MAX_HEAD_DIM / LANES],
}

impl Partials {
    const EMPTY: Self = Self {
        maxima: [[f32::NEG_INFINITY; LANES]; BAND.div_ceil(LANES)],
        sums: [[0.0; LANES]; BAND],
        values: [[0.0; LANES]; BAND * MAX_HEAD_DIM / LANES],
    };

    /// Empties those of `rows` rows of `panels` times sixteen features.
    #[inline(always)]
    fn reset(&mut self, rows: usize, panels: usize) {
        self.maxima = Self::EMPTY.maxima;
        self.sums[..rows].fill([0.0; LANES]);
        self.values[..rows * panels].fill([0.0; LANES]);
    }
}

/// A row, of which the first `head_dim` elements count.
type Query = [f32; MAX_HEAD_DIM];

/// What is kept of a band of rows from block to block.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct Band {
    /// Scaled queries: at places that are known when this is compiled, so that a tile needs one register to find its rows.
    queries: [Query; BAND],
    total: Partials,
    segment: Partials,
}

impl Band {
    const EMPTY: Self = Self {
        queries: [[0.0; MAX_HEAD_DIM]; BAND],
        total: Partials::EMPTY,
        segment: Partials::EMPTY,
    };
}

/// The bands of tasks.
pub(crate) static BUFFERS: Buffers<Band> = Buffers::new();

/// Evaluates `$body` with the constant `$rows` equal to `$size`, which is 1 to [`TILE`]. The largest tiles are functions of their own, since all
/// in one take the compiler twice as long; the few rows of decoding would notice the call.
macro_rules! with_tile {
    ($simd:ident, $size:expr, $rows:ident => $body:expr) => {
        match $size {
            6 => $simd.apart(inlined!(|| with_tile!(@ 6, $rows => $body))),
            5 => $simd.apart(inlined!(|| with_tile!(@ 5, $rows => $body))),
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

/// Query rows of one key and value head within a task: position by position, the heads of the group side by side.
#[derive(Clone, Copy)]
struct HeadRows {
    /// Elements from one position to the next.
    row: usize,
    /// Elements before this head's group.
    offset: usize,
    group: usize,
    head_dim: usize,
    /// Of the task's first row.
    position: usize,
    /// The first of these rows within the task.
    first: usize,
    /// How many rows these are.
    count: usize,
}

impl HeadRows {
    /// Those of band `i`.
    #[inline(always)]
    fn band(self, i: usize) -> Self {
        Self { first: i * BAND, count: BAND.min(self.count - i * BAND), ..self }
    }

    /// Where query row `r` begins.
    #[inline(always)]
    fn start(self, r: usize) -> usize {
        let r = self.first + r;
        r / self.group * self.row + self.offset + r % self.group * self.head_dim
    }

    /// How many keys of the block that begins at `key` row `r` may see.
    #[inline(always)]
    fn visible(self, r: usize, key: usize) -> usize {
        (self.position + (self.first + r) / self.group + 1).saturating_sub(key).min(BLOCK)
    }

    /// As [`visible`](Self::visible) for each row of a tile.
    #[inline(always)]
    fn visible_to_tile<const R: usize>(self, first: usize, key: usize) -> [usize; R] {
        let mut visible = [BLOCK; R];
        if self.visible(first, key) < BLOCK {
            for r in 0..R {
                visible[r] = self.visible(first + r, key);
            }
        }
        visible
    }

    /// The first row that may see `key`.
    #[inline(always)]
    fn first_to_see(self, key: usize) -> usize {
        (key.saturating_sub(self.position) * self.group).saturating_sub(self.first)
    }

    /// Of sixteen features.
    #[inline(always)]
    fn panels(self) -> usize {
        self.head_dim / LANES
    }

    #[inline(always)]
    fn run<S: Simd, E: InLines>(
        self,
        simd: S,
        query: &[f32],
        head: Head<E>,
        bands: &mut [Band],
        out: &mut [f32],
    ) {
        let mut scores = [[[0.0; LANES]; WHOLE]; BAND];
        for (i, band) in bands.iter_mut().enumerate() {
            self.band(i).scale(simd, query, &mut band.queries);
        }
        let keys = self.position + self.count.div_ceil(self.group);
        for segment in (0..keys).step_by(SEGMENT) {
            for (i, band) in bands.iter_mut().enumerate() {
                let partials = if segment == 0 { &mut band.total } else { &mut band.segment };
                fault!(SegmentNotReset: (), else partials.reset(self.band(i).count, self.panels()));
            }
            for key in (segment..keys.min(segment + SEGMENT)).step_by(BLOCK) {
                let (keys_of_block, values) = head.block(key).split_at(BLOCK * self.panels());
                // One band waits for memory anyway, which the hardware asks ahead of it.
                let is_worth_asking = bands.len() > 1 && key + BLOCK < keys;
                let next = if is_worth_asking {
                    Next::shared(head.block(key + BLOCK), self.count)
                } else {
                    Next::NOTHING
                };
                for (i, band) in bands.iter_mut().enumerate() {
                    let rows = self.band(i);
                    let block = Block { rows, key, keys: keys_of_block, values, next };
                    let partials = if segment == 0 { &mut band.total } else { &mut band.segment };
                    block.add_to(simd, &band.queries, &mut scores, partials);
                }
            }
            if segment > 0 {
                for (i, band) in bands.iter_mut().enumerate() {
                    self.band(i).merge(simd, segment, band);
                }
            }
        }
        for (i, band) in bands.iter().enumerate() {
            self.band(i).finish(simd, &band.total, out);
        }
    }

    /// Multiplies the queries by `log2(e) / sqrt(head_dim)`, so that scores are powers of 2, not of e.
    #[inline(always)]
    fn scale<S: Simd>(self, simd: S, query: &[f32], scaled: &mut [Query; BAND]) {
        let scale = simd.splat((LOG2_E / (self.head_dim as f64).sqrt()) as f32);
        for r in 0..self.count {
            let (query, _) = query[self.start(r)..][..self.head_dim].as_chunks();
            let (scaled, _) = scaled[r].as_chunks_mut();
            for (query, scaled) in query.iter().zip(scaled) {
                (simd.load(query) * scale).store(scaled);
            }
        }
    }

    /// Adds the sums of the segment that begins at key `segment` to the total, for those rows that see it.
    #[inline(always)]
    fn merge<S: Simd>(self, simd: S, segment: usize, band: &mut Band) {
        let first = self.first_to_see(segment);
        let (segment, total) = (&band.segment, &mut band.total);
        let mut factors = [Partials::EMPTY.maxima; 2];
        for i in first / LANES..self.count.div_ceil(LANES) {
            let of_segment = simd.load(&segment.maxima[i]);
            let of_total = simd.load(&total.maxima[i]);
            let maximum = of_segment.max(of_total);
            let [of_segment, of_total] = exp2(simd, [of_segment - maximum, of_total - maximum]);
            of_segment.store(&mut factors[0][i]);
            of_total.store(&mut factors[1][i]);
            maximum.store(&mut total.maxima[i]);
        }
        for r in first..self.count {
            let [of_segment, of_total] = [&factors[0], &factors[1]];
            let factors = [of_segment.as_flattened()[r], of_total.as_flattened()[r]];
            add_scaled(simd, factors, &segment.sums[r], &mut total.sums[r]);
            for i in r * self.panels()..(r + 1) * self.panels() {
                add_scaled(simd, factors, &segment.values[i], &mut total.values[i]);
            }
        }
    }

    /// Divides the sums of values by those of probabilities.
    #[inline(always)]
    fn finish<S: Simd>(self, simd: S, total: &Partials, out: &mut [f32]) {
        for r in 0..self.count {
            let sum = simd.splat(simd.load(&total.sums[r]).sum());
            let (out, _) = out[self.start(r)..][..self.head_dim].as_chunks_mut();
            let values = &total.values[r * self.panels()..][..self.panels()];
            for (values, out) in values.iter().zip(out) {
                (simd.load(values) / sum).store(out);
            }
        }
    }
}

/// `total = segment * factors[0] + total * factors[1]`.
#[inline(always)]
fn add_scaled<S: Simd>(
    simd: S,
    factors: [f32; 2],
    segment: &[f32; LANES],
    total: &mut [f32; LANES],
) {
    let [of_segment, of_total] = [simd.splat(factors[0]), simd.splat(factors[1])];
    simd.load(segment).mul_add(of_segment, simd.load(total) * of_total).store(total);
}

/// A block of keys, their values, and a band of rows.
#[derive(Clone, Copy)]
struct Block<'a, E> {
    rows: HeadRows,
    /// Position of the first key.
    key: usize,
    keys: &'a [[E; LANES]],
    values: &'a [[E; LANES]],
    next: Next<'a, E>,
}

/// The block that comes next, which all rows of a task ask for together: each a little, since many questions at once would stop the core.
#[derive(Clone, Copy)]
struct Next<'a, E> {
    memory: &'a [[E; LANES]],
    /// How much of it each row asks for.
    share: usize,
}

impl<'a, E> Next<'a, E> {
    const NOTHING: Self = Self { memory: &[], share: 0 };

    /// Lines that arrive together.
    const TOGETHER: usize = CACHE_LINE / size_of::<[E; LANES]>();

    /// Among so many rows.
    #[inline(always)]
    fn shared(memory: &'a [[E; LANES]], rows: usize) -> Self {
        Self { memory, share: memory.len().div_ceil(rows).next_multiple_of(Self::TOGETHER) }
    }

    /// Asks for the part of the task's row `row`.
    #[inline(always)]
    fn ask<S: Simd>(self, simd: S, row: usize) {
        let begin = row * self.share;
        let end = self.memory.len().min(begin + self.share);
        for line in (begin..end).step_by(Self::TOGETHER) {
            simd.prefetch_for_later(&self.memory[line..], 0);
        }
    }
}

impl<E: InLines> Block<'_, E> {
    /// Whether the rows from `first` on see all its keys.
    #[inline(always)]
    fn is_whole(self, first: usize) -> bool {
        self.rows.visible(first, self.key) == BLOCK
    }

    /// Adds the block to the sums of those rows that see it.
    #[inline(always)]
    fn add_to<S: Simd>(
        self,
        simd: S,
        queries: &[Query; BAND],
        scores: &mut [Scores; BAND],
        partials: &mut Partials,
    ) {
        let first = self.rows.first_to_see(self.key) / TILE * TILE;
        if first >= self.rows.count {
            return;
        }
        let largest = self.score(simd, first, queries, scores);
        let factors = self.soften(simd, first, scores, &largest, partials);
        self.add_values(simd, first, scores, factors.as_flattened(), &mut partials.values);
    }

    /// Writes `query[r] . key[j]` to `scores[r]`; the largest score of each row.
    #[inline(always)]
    fn score<S: Simd>(
        self,
        simd: S,
        first: usize,
        queries: &[Query; BAND],
        scores: &mut [Scores; BAND],
    ) -> OfRows {
        let head_dim = self.rows.head_dim;
        let mut largest = Partials::EMPTY.maxima;
        let is_whole = self.is_whole(first);
        for first in (first..self.rows.count).step_by(TILE) {
            let height = TILE.min(self.rows.count - first);
            let queries = &queries[first..][..height];
            let scores = &mut scores[first..][..height];
            let panels = self.rows.visible(first + height - 1, self.key).div_ceil(LANES);
            with_tile!(simd, height, R => {
                let scores = scores.first_chunk_mut::<R>().expect("the tile's rows");
                let queries = OneByOne(queries.first_chunk::<R>().expect("the tile's rows"));
                score_tile(simd, head_dim, queries, self.keys, panels, scores);
            });
            for (r, scores) in (first..).zip(scores) {
                let visible = if is_whole { BLOCK } else { self.rows.visible(r, self.key) };
                largest.as_flattened_mut()[r] = mask(simd, scores, visible);
            }
        }
        largest
    }

    /// Turns scores into `2^(score - maximum)` and brings the sums of these to the new maximum; by what the sums of values are to be
    /// multiplied.
    #[inline(always)]
    fn soften<S: Simd>(
        self,
        simd: S,
        first: usize,
        scores: &mut [Scores; BAND],
        largest: &OfRows,
        partials: &mut Partials,
    ) -> OfRows {
        let mut factors = Partials::EMPTY.maxima;
        // Where the maximum stays, the factor is exactly 1.
        for i in first / LANES..self.rows.count.div_ceil(LANES) {
            let old = simd.load(&partials.maxima[i]);
            let new = simd.load(&largest[i]).max(old);
            exp2(simd, [old - new])[0].store(&mut factors[i]);
            new.store(&mut partials.maxima[i]);
        }
        let is_whole = self.is_whole(first);
        for r in first..self.rows.count {
            self.next.ask(simd, self.rows.first + r);
            let maximum = simd.splat(partials.maxima.as_flattened()[r]);
            let sum = simd.load(&partials.sums[r]) * simd.splat(factors.as_flattened()[r]);
            let scores = &mut scores[r];
            let sum = if is_whole {
                soften(simd, scores, maximum, sum)
            } else {
                let panels = self.rows.visible(r, self.key).div_ceil(LANES);
                let mut sum = sum;
                for scores in &mut scores[..panels] {
                    sum = soften(simd, array::from_mut(scores), maximum, sum);
                }
                sum
            };
            sum.store(&mut partials.sums[r]);
        }
        factors
    }

    /// Multiplies the sums of values by `factors` and adds `probability[r][j] * value[j]` for the keys that row `r` may see.
    #[inline(always)]
    fn add_values<S: Simd>(
        self,
        simd: S,
        first: usize,
        probabilities: &[Scores; BAND],
        factors: &[f32],
        sums: &mut [[f32; LANES]],
    ) {
        let panels = self.rows.panels();
        for first in (first..self.rows.count).step_by(TILE) {
            let height = TILE.min(self.rows.count - first);
            let probabilities = &probabilities[first..][..height];
            let factors = &factors[first..][..height];
            let sums = &mut sums[first * panels..][..height * panels];
            with_tile!(simd, height, R => {
                let mut tile: [&[f32]; R] = [&[]; R];
                for r in 0..R {
                    tile[r] = probabilities[r].as_flattened();
                }
                let tile = ValueTile {
                    probabilities: tile,
                    visible: self.rows.visible_to_tile(first, self.key),
                    factors: factors.first_chunk::<R>().expect("the tile's rows"),
                };
                tile.add_to(simd, self.values, sums);
            });
        }
    }
}

/// Of one row and a block of keys.
type Scores = [[f32; LANES]; WHOLE];

/// The panels of a block of keys.
const WHOLE: usize = BLOCK / LANES;

/// Writes -infinity for the keys of a panel that are not visible; the largest score.
#[inline(always)]
fn mask<S: Simd>(simd: S, scores: &mut Scores, visible: usize) -> f32 {
    let panels = visible.div_ceil(LANES);
    if visible < BLOCK {
        scores.as_flattened_mut()[visible..panels * LANES].fill(f32::NEG_INFINITY);
    }
    if panels == WHOLE { largest(simd, scores) } else { largest(simd, &scores[..panels]) }
}

#[inline(always)]
fn largest<S: Simd>(simd: S, scores: &[[f32; LANES]]) -> f32 {
    let mut largest = simd.splat(f32::NEG_INFINITY);
    for scores in scores {
        largest = simd.load(scores).max(largest);
    }
    largest.largest()
}

/// Turns scores into `2^(score - maximum)`; `sum` with these added.
#[inline(always)]
fn soften<S: Simd, const N: usize>(
    simd: S,
    scores: &mut [[f32; LANES]; N],
    maximum: S::Lanes,
    mut sum: S::Lanes,
) -> S::Lanes {
    let mut differences = [maximum; N];
    for n in 0..N {
        differences[n] = simd.load(&scores[n]) - maximum;
    }
    let probabilities = exp2(simd, differences);
    for n in 0..N {
        probabilities[n].store(&mut scores[n]);
        sum = sum + probabilities[n];
    }
    sum
}

/// Whether a tile takes four panels at once: its registers hold all their sums. Fewer rows wait for memory, and read a straight line, which the hardware
/// asks for ahead of them.
const fn takes_panels_side_by_side<S: Simd, const R: usize>() -> bool {
    S::REGISTERS.are_many() && R == TILE
}

/// The scores of the first `panels` panels of keys.
#[inline(always)]
fn score_tile<S: Simd, E: InLines, const R: usize>(
    simd: S,
    head_dim: usize,
    queries: OneByOne<R, MAX_HEAD_DIM>,
    keys: &[[E; LANES]],
    panels: usize,
    scores: &mut [Scores; R],
) {
    let mut panel = 0;
    if const { takes_panels_side_by_side::<S, R>() } {
        while panel + 4 <= panels {
            score_panels::<S, E, R, 4>(simd, head_dim, queries, keys, panel, scores);
            panel += 4;
        }
        while panel + 2 <= panels {
            score_panels::<S, E, R, 2>(simd, head_dim, queries, keys, panel, scores);
            panel += 2;
        }
    }
    while panel < panels {
        score_panels::<S, E, R, 1>(simd, head_dim, queries, keys, panel, scores);
        panel += 1;
    }
}

#[inline(always)]
fn score_panels<S: Simd, E: InLines, const R: usize, const N: usize>(
    simd: S,
    head_dim: usize,
    queries: OneByOne<R, MAX_HEAD_DIM>,
    keys: &[[E; LANES]],
    first: usize,
    scores: &mut [Scores; R],
) {
    let mut panels: [&[[E; LANES]]; N] = [&[]; N];
    for n in 0..N {
        panels[n] = &keys[(first + n) * head_dim..][..head_dim];
    }
    let zero = [[simd.splat(0.0); N]; R];
    let sums = chain(simd, 0..head_dim, queries, Lines(panels), zero);
    for r in 0..R {
        let scores = &mut scores[r][first..][..N];
        for n in 0..N {
            sums[r][n].store(&mut scores[n]);
        }
    }
}

/// What a tile of rows adds to its sums of values.
#[derive(Clone, Copy)]
struct ValueTile<'a, const R: usize> {
    probabilities: [&'a [f32]; R],
    /// How many keys each row may see.
    visible: [usize; R],
    factors: &'a [f32; R],
}

impl<const R: usize> ValueTile<'_, R> {
    #[inline(always)]
    fn add_to<S: Simd, E: InLines>(
        self,
        simd: S,
        values: &[[E; LANES]],
        sums: &mut [[f32; LANES]],
    ) {
        let panels = values.len() / BLOCK;
        let mut panel = 0;
        if const { takes_panels_side_by_side::<S, R>() } {
            while panel + 4 <= panels {
                self.add_panels::<S, E, 4>(simd, values, panel, sums);
                panel += 4;
            }
        }
        while panel < panels {
            self.add_panels::<S, E, 1>(simd, values, panel, sums);
            panel += 1;
        }
    }

    #[inline(always)]
    fn add_panels<S: Simd, E: InLines, const N: usize>(
        self,
        simd: S,
        values: &[[E; LANES]],
        first: usize,
        sums: &mut [[f32; LANES]],
    ) {
        let stride = values.len() / BLOCK;
        let mut panels: [&[[E; LANES]]; N] = [&[]; N];
        for n in 0..N {
            panels[n] = &values[(first + n) * BLOCK..][..BLOCK];
        }
        let mut tile = [[simd.splat(0.0); N]; R];
        for r in 0..R {
            let factor = simd.splat(self.factors[r]);
            let sums = &sums[r * stride + first..][..N];
            for n in 0..N {
                tile[r][n] = simd.load(&sums[n]) * factor;
            }
        }
        // Rows come in order of position, so the first sees the fewest.
        let (fewest, most) = (self.visible[0], self.visible[R - 1]);
        let lines = Lines(panels);
        tile = chain(simd, 0..fewest, self.probabilities, lines, tile);
        for k in fewest..most {
            let mut line = [simd.splat(0.0); N];
            for n in 0..N {
                line[n] = lines.line(k, n).load(simd);
            }
            for r in 0..R {
                if self.visible[r] > k {
                    let probability = simd.splat(self.probabilities[r][k]);
                    for n in 0..N {
                        tile[r][n] = probability.mul_add(line[n], tile[r][n]);
                    }
                }
            }
        }
        for r in 0..R {
            let sums = &mut sums[r * stride + first..][..N];
            for n in 0..N {
                tile[r][n].store(&mut sums[n]);
            }
        }
    }
}
