use lfm2_kernels::Isa;
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::ops::{CacheElement, KeyValueCache, MAX_GROUP, MAX_HEAD_DIM};
use lfm2_kernels::simd::LANES;
use proptest::strategy::{BoxedStrategy, Strategy};

use super::{
    Case, Dimension, Op, Output, Shape, Sizes, Weights, affordable, among, between, exactly,
    one_of, shapes,
};
use crate::buffer::Input;
use crate::data::Data;
use crate::fill::power_of_two;
use crate::kernels::Kernels;
use crate::oracle::expected::{Expected, expected_attention};
use crate::plan::Check;

const DIMENSIONS: &[Dimension] = &[
    Dimension::any("rows"),
    Dimension::any("first_position"),
    Dimension::any("newer"),
    Dimension::positive("key_value_heads"),
    Dimension::between("group", 1, MAX_GROUP),
    Dimension::multiple("head_dim", LANES, MAX_HEAD_DIM),
    Dimension::any("room"),
];

const fn op(
    name: &'static str,
    format: &'static str,
    make: fn(&Shape, Data) -> Box<dyn Case>,
) -> Op {
    let (format, dimensions) = (Some(format), DIMENSIONS);
    let checks = &[Check::OtherWay, Check::Bounds];
    Op { name, format, checks, dimensions, fit_together, fixed_shapes, drawn_shapes, make }
}

pub const F32: Op = op("attention_f32", "f32", |shape, data| make(CacheElement::F32, shape, data));
pub const F16: Op = op("attention_f16", "f16", |shape, data| make(CacheElement::F16, shape, data));

fn fit_together(shape: &Shape) -> Result<(), String> {
    let [rows, first_position, newer, key_value_heads, group, head_dim, room] = shape.sizes();
    let positions = first_position + rows + newer + room;
    affordable(&[rows, positions, key_value_heads, group, head_dim])
}

fn fixed_shapes() -> Vec<Shape> {
    let mut shapes = vec![Shape::from([0, 5, 0, 1, 1, 16, 0])];
    for head_dim in (16..=128).step_by(16) {
        shapes.push([1, 2, 0, 2, 1, head_dim, 0].into());
    }
    // Each tail of the keys, and more rows than tiles and tasks have.
    for context in 1..=33 {
        shapes.push([1, context - 1, context % 3, 1, 1 + context % 4, 16, 0].into());
        shapes.push([context, context % 5, 0, 2, 1 + context % 4, 16, 70].into());
    }
    // The edges of blocks and segments.
    for context in [63, 64, 65, 127, 128, 129, 511, 512, 513, 576, 1025] {
        shapes.push([1, context - 1, 0, 1, 2, 16, 0].into());
        shapes.push([4, context - 2, 3, 1, 1, 32, 0].into());
    }
    // Heads that threads share.
    shapes.push([1, 700, 0, 3, 2, 64, 0].into());
    // The edge of the cache's sections.
    shapes.push([5, 2046, 0, 2, 2, 16, 70].into());
    shapes
}

fn drawn_shapes() -> BoxedStrategy<Shape> {
    let heads = || between(1, 3);
    let group = || between(1, 4);
    let newer = || among(&[0, 1, 20]);
    let room = || among(&[0, 100]);
    let head_dim = || (1..=8_usize).prop_map(|sixteens| 16 * sixteens).boxed();
    let of = |rows, first: Sizes, head_dim| {
        shapes([rows, first, newer(), heads(), group(), head_dim, room()])
    };
    one_of([
        (4, of(between(0, 20), between(0, 50), head_dim())),
        (3, of(between(20, 70), between(0, 130), head_dim())),
        (3, of(between(1, 1), between(50, 1200), head_dim())),
        (2, of(between(1, 5), between(500, 1100), among(&[16, 64, 48]))),
    ])
}

struct Attention {
    query: Input,
    query_heads: usize,
    /// As the cache rounds them.
    keys: Vec<f32>,
    values: Vec<f32>,
    key_value_heads: usize,
    head_dim: usize,
    first_position: usize,
    cache: KeyValueCache,
    data: Data,
}

/// The cache was used before, and holds NaN wherever the operation must not look: at positions newer than the last query's, and
/// beyond its length.
fn make(element: CacheElement, shape: &Shape, data: Data) -> Box<dyn Case> {
    let [rows, first_position, newer, key_value_heads, group, head_dim, room] = shape.sizes();
    let (context, query_heads) = (first_position + rows, key_value_heads * group);
    let row = key_value_heads * head_dim;
    let stored_as = match element {
        CacheElement::F32 => WeightFormat::F32,
        CacheElement::F16 => WeightFormat::F16,
    };
    let keys = data.factors("keys", context * row);
    let values = data.values("values", context * row);

    let mut cache = KeyValueCache::new(key_value_heads, head_dim, context + newer + room, element);
    let stale = vec![f32::NAN; cache.capacity() * row];
    cache.append(&stale, &stale);
    cache.truncate(0);
    // In two pieces, as after a chunk of prefill.
    let (keys_before, keys_now) = keys.split_at(first_position * row);
    let (values_before, values_now) = values.split_at(first_position * row);
    cache.append(keys_before, values_before);
    cache.append(keys_now, values_now);
    cache.append(&stale[..newer * row], &stale[..newer * row]);

    let mut query = data.unsealed("query", rows * query_heads * head_dim);
    // Some cases attend to few keys, others to all.
    let sharpness = power_of_two(data.stream("sharpness").below(0, 5) as i32 - 1);
    query.iter_mut().for_each(|query| *query *= sharpness);
    let stored = |values: &[f32]| Weights::new(stored_as, values).widened;
    Box::new(Attention {
        query: query.seal(),
        query_heads,
        keys: stored(&keys),
        values: stored(&values),
        key_value_heads,
        head_dim,
        first_position,
        cache,
        data,
    })
}

impl Case for Attention {
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.query.len());
        (kernels.attention)(
            isa,
            &self.query,
            self.query_heads,
            &self.cache,
            self.first_position,
            &mut out,
        );
        let read_back = |name, rows: Vec<f32>| Output::returned(name, &rows[..self.keys.len()]);
        vec![
            Output::new("out", out),
            read_back("keys", self.cache.keys()),
            read_back("values", self.cache.values()),
        ]
    }

    fn run_another_way(&self, kernels: &Kernels, isa: Isa) -> Vec<Output> {
        let mut out = self.data.poisoned("out", self.query.len());
        let row = self.query_heads * self.head_dim;
        let rows = self.query.chunks_exact(row).zip(out.chunks_exact_mut(row));
        for (position, (query, out)) in (self.first_position..).zip(rows) {
            (kernels.attention)(isa, query, self.query_heads, &self.cache, position, out);
        }
        vec![Output::new("out", out)]
    }

    /// Heads that attend to a single key.
    fn saturated_rows(&self, outputs: &[Output]) -> [usize; 2] {
        let heads = outputs[0].values.chunks_exact(self.head_dim);
        let is_value = |head: &[f32]| self.values.chunks_exact(self.head_dim).any(|v| v == head);
        let sees_several = self.values.len() > self.key_value_heads * self.head_dim;
        let saturated = heads.clone().filter(|head| sees_several && is_value(head)).count();
        [saturated, heads.len()]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        let out = expected_attention(
            &self.query,
            &self.keys,
            &self.values,
            self.query_heads,
            self.key_value_heads,
            self.head_dim,
        );
        vec![out, exactly(&self.keys), exactly(&self.values)]
    }
}
