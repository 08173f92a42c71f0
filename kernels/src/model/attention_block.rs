use super::Error;
use super::config::Config;
use super::scratch::BlockBuffers;
use super::state::LayerState;
use super::tensors::{Tensors, Weights};
use crate::Isa;
use crate::fault;
use crate::linear::Matrix;
use crate::ops::{attention, linear, linear_each, rms_norm, rope};

/// The mixer of an attention layer: projections, norm per head, rotary embedding, grouped-query attention, output projection.
/// Source: `Lfm2Attention` of Hugging Face transformers.
pub struct AttentionBlock {
    query: Matrix,
    key: Matrix,
    value: Matrix,
    output: Matrix,
    query_norm: Vec<f32>,
    key_norm: Vec<f32>,
    epsilon: f32,
    heads: usize,
    key_value_heads: usize,
}

impl AttentionBlock {
    pub(super) fn load(
        config: &Config,
        weights: &Weights<impl Tensors + ?Sized>,
        layer: &str,
    ) -> Result<Self, Error> {
        let (hidden_size, head_dim) = (config.hidden_size, config.head_dim);
        let (query_width, key_value_width) = (config.query_width(), config.key_value_width());
        let name = |part: &str| format!("{layer}.self_attn.{part}.weight");
        Ok(Self {
            query: weights.matrix(&name("q_proj"), query_width, hidden_size)?,
            key: weights.matrix(&name("k_proj"), key_value_width, hidden_size)?,
            value: weights.matrix(&name("v_proj"), key_value_width, hidden_size)?,
            output: weights.matrix(&name("out_proj"), hidden_size, query_width)?,
            query_norm: weights.values(&name("q_layernorm"), &[head_dim])?,
            key_norm: weights.values(&name("k_layernorm"), &[head_dim])?,
            epsilon: config.norm_epsilon,
            heads: config.heads,
            key_value_heads: config.key_value_heads,
        })
    }

    /// Queries (into `buffers.wide`), keys and values of every row, normed and rotated.
    pub(super) fn project_in(&self, isa: Isa, normed: &[f32], buffers: &mut BlockBuffers) {
        let rows = normed.len() / self.query.inputs();
        let BlockBuffers { wide, unnormed_keys, keys, values, mixed, rope: table, .. } = buffers;
        let queries = &mut wide[..rows * self.query.outputs()];
        let keys = &mut keys[..rows * self.key.outputs()];
        let values = &mut values[..rows * self.value.outputs()];

        let unnormed_queries = &mut mixed[..queries.len()];
        let unnormed_keys = &mut unnormed_keys[..keys.len()];
        linear_each(
            isa,
            normed,
            &mut [
                (&self.query, unnormed_queries),
                (&self.key, unnormed_keys),
                (&self.value, values),
            ],
        );
        rms_norm(isa, unnormed_queries, &self.query_norm, self.epsilon, queries);
        rope(isa, queries, self.heads, table);
        rms_norm(isa, unnormed_keys, &self.key_norm, self.epsilon, keys);
        fault!(KeyNormSkipped => keys.copy_from_slice(unnormed_keys));
        rope(isa, keys, self.key_value_heads, table);
    }

    /// Caches `rows` of one sequence, from `first` on, and attends from them.
    pub(super) fn mix(
        &self,
        isa: Isa,
        state: &mut LayerState,
        first: usize,
        rows: usize,
        buffers: &mut BlockBuffers,
    ) {
        let LayerState::Attention(cache) = state else {
            unreachable!("a state has the layers of its model");
        };
        let (row, key_value_row) = (self.query.outputs(), self.key.outputs());
        let run = first * key_value_row..(first + rows) * key_value_row;
        let position = cache.len();
        cache.append(&buffers.keys[run.clone()], &buffers.values[run]);
        let queries = &buffers.wide[first * row..][..rows * row];
        let mixed = &mut buffers.mixed[first * row..][..rows * row];
        attention(isa, queries, self.heads, cache, position, mixed);
    }

    pub(super) fn project_out(&self, isa: Isa, buffers: &BlockBuffers, output: &mut [f32]) {
        let rows = output.len() / self.output.outputs();
        linear(isa, &buffers.mixed[..rows * self.output.inputs()], &self.output, None, output);
    }

    /// The weights, for a reader of sizes.
    pub fn matrices(&self) -> [&Matrix; 4] {
        [&self.query, &self.key, &self.value, &self.output]
    }

    pub(super) fn matrices_mut(&mut self) -> [&mut Matrix; 4] {
        [&mut self.query, &mut self.key, &mut self.value, &mut self.output]
    }

    /// Bytes of the norms.
    pub(super) fn small_bytes(&self) -> usize {
        size_of_val(&self.query_norm[..]) + size_of_val(&self.key_norm[..])
    }
}
