//! Attention over a cache.

use lfm2_kernels::Isa;
use lfm2_kernels::model::Config;
use lfm2_kernels::ops::{CacheElement, KeyValueCache, attention};

use super::{HEAD_DIM, HEADS, KEY_VALUE_HEADS};
use crate::ceiling::{Work, beyond_cache};
use crate::workload::function::workload;
use crate::workload::{Case, values};

/// Rows that attend.
#[derive(Clone, Copy)]
pub struct AttentionCase {
    /// Of what the cache is.
    pub element: CacheElement,
    /// Of queries.
    pub heads: usize,
    /// Of keys and values.
    pub key_value_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens before.
    pub context: usize,
    /// So many.
    pub rows: usize,
    /// Bytes that copies of the cache take together at least, if there are tokens before.
    pub least_bytes: usize,
}

impl Default for AttentionCase {
    fn default() -> Self {
        Self {
            element: CacheElement::F32,
            heads: HEADS,
            key_value_heads: KEY_VALUE_HEADS,
            head_dim: HEAD_DIM,
            context: 0,
            rows: 1,
            least_bytes: beyond_cache(),
        }
    }
}

impl AttentionCase {
    /// A row of a model of that shape.
    pub fn of(config: &Config) -> Self {
        let Config { heads, key_value_heads, head_dim, .. } = *config;
        Self { heads, key_value_heads, head_dim, ..Self::default() }
    }

    fn shape(&self) -> String {
        match (self.context, self.rows) {
            (0, rows) => format!("prefill-{rows}"),
            (context, 1) => format!("decode-{context}"),
            (context, rows) => format!("{rows}x{}", context + rows),
        }
    }
}

/// Such a case.
pub fn attention_case<'a>(isa: Isa, of: AttentionCase) -> Case<'a> {
    let AttentionCase { element, heads, key_value_heads, head_dim, context, rows, .. } = of;
    let (format, size) = match element {
        CacheElement::F32 => ("f32", 4),
        CacheElement::F16 => ("f16", 2),
    };
    let (width, row) = (heads * head_dim, key_value_heads * head_dim);
    let pairs = rows * context + rows * (rows + 1) / 2;
    let cached = (context + rows) * 2 * row * size;
    let bytes = (cached + 4 * 2 * rows * width) as u64;
    Case {
        op: "attention",
        isa,
        format,
        shape: of.shape(),
        work: Work {
            rows,
            operations: (4 * pairs * width) as u64,
            bytes,
            // A decoded token finds the cache of its layer gone; a prompt has just written it.
            working_set: (context == 0).then_some(bytes),
            ..Work::default()
        },
        prepare: Box::new(move || {
            let positions = context + rows;
            let (keys, values_) =
                (values("keys", positions * row), values("values", positions * row));
            let mut cache = KeyValueCache::new(key_value_heads, head_dim, positions, element);
            cache.append(&keys, &values_);
            let copies = if context == 0 { 1 } else { of.least_bytes.div_ceil(cached) };
            let caches: Vec<_> = (0..copies).map(|_| cache.clone()).collect();
            let query = values("query", rows * width);
            workload(vec![0.0; rows * width], move |isa, rows, turn, out| {
                let (query, out) = (&query[..rows * width], &mut out[..rows * width]);
                attention(isa, query, heads, &caches[turn % copies], context, out);
            })
        }),
    }
}
