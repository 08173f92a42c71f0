use super::Config;
use super::config::ExpertsConfig;
use crate::Aligned;
use crate::ops::RopeTable;
use crate::tuning::Knob;

/// The working memory of [`forward`](super::Model::forward): made by the first call and reused by those after it.
///
/// It grows to the rows of the largest call, [`MAX_ROWS`](Self::MAX_ROWS) at most unless a profile says otherwise: longer prompts are taken in pieces.
#[derive(Default)]
pub struct Scratch {
    pub(super) buffers: Option<Buffers>,
    pub(super) pieces: Vec<Piece>,
}

/// One sequence's rows within a pass.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub sequence: usize,
    /// Of the call's tokens of that sequence.
    pub first_token: usize,
    /// Rows of the pass.
    pub rows: usize,
    /// Whether these are the last of the call's tokens of that sequence.
    pub ends: bool,
}

/// Row-major buffers with room for a number of rows.
pub(super) struct Buffers {
    shape: Shape,
    /// The residual stream, `[rows, hidden_size]`.
    pub hidden: Aligned<f32>,
    /// What a norm writes, `[rows, hidden_size]`.
    pub normed: Aligned<f32>,
    /// What a mixer or feed-forward adds to the residual stream, `[rows, hidden_size]`.
    pub output: Aligned<f32>,
    pub block: BlockBuffers,
}

/// What blocks use inside.
pub struct BlockBuffers {
    /// B, C and x, or a gate, or the queries: whatever is widest, `[rows, ...]`.
    pub(super) wide: Aligned<f32>,
    /// Keys before their norm, keys, and values, each `[rows, key_value_heads * head_dim]`.
    pub(super) unnormed_keys: Aligned<f32>,
    pub(super) keys: Aligned<f32>,
    pub(super) values: Aligned<f32>,
    /// The mixer's result before the output projection, queries before their norm, or what an expert makes of its rows.
    pub(super) mixed: Aligned<f32>,
    /// The router's scores, `[rows, experts]`.
    pub(super) scores: Aligned<f32>,
    /// The experts of each row, and how much they weigh, `[rows, experts used]`.
    pub(super) choice: Vec<u32>,
    pub(super) weights: Aligned<f32>,
    /// Where in `choice` an expert is: once for each row that chose it.
    pub(super) chosen_by: Vec<usize>,
    /// The rows that chose an expert, `[rows, hidden_size]`.
    pub(super) gathered: Aligned<f32>,
    /// The angles of each row's position.
    pub(super) rope: RopeTable,
}

impl BlockBuffers {
    /// Buffers for blocks of that shape and `rows` rows.
    pub fn new(config: &Config, rows: usize) -> Self {
        let query_width = config.query_width();
        let feed_forward_width = config.widest_feed_forward();
        let experts = config.experts_in_use();
        let (count, used) = experts.map_or((0, 0), |experts| (experts.count, experts.used));
        let zeroed = |width: usize| Aligned::zeroed(rows * width);
        Self {
            wide: zeroed((3 * config.hidden_size).max(query_width).max(feed_forward_width)),
            unnormed_keys: zeroed(config.key_value_width()),
            keys: zeroed(config.key_value_width()),
            values: zeroed(config.key_value_width()),
            mixed: zeroed(config.hidden_size.max(query_width)),
            scores: zeroed(count),
            choice: vec![0; rows * used],
            weights: zeroed(used),
            chosen_by: Vec::with_capacity(experts.map_or(0, |_| rows)),
            gathered: zeroed(experts.map_or(0, |_| config.hidden_size)),
            rope: RopeTable::new(config.rope_theta, config.head_dim, rows),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Shape {
    rows: usize,
    hidden_size: usize,
    query_width: usize,
    key_value_width: usize,
    head_dim: usize,
    feed_forward_width: usize,
    experts: Option<ExpertsConfig>,
    rope_theta: f64,
}

impl Scratch {
    /// The default of [`Knob::PassRows`].
    pub(crate) const ENOUGH_ROWS: usize = 256;

    /// Rows that one pass takes at most where no profile says otherwise. Chunks of a prompt give the same bits as the whole.
    pub const MAX_ROWS: usize = Self::ENOUGH_ROWS + Self::ENOUGH_ROWS / 2;

    /// Rows of each pass but the last of a call with `rows` rows.
    pub fn pass_rows(rows: usize) -> usize {
        let enough = Knob::PassRows.get();
        let passes = (rows + enough / 2) / enough;
        rows.div_ceil(passes.max(1))
    }

    /// The buffers for a pass of `rows` rows.
    pub(super) fn reserve(&mut self, config: &Config, rows: usize) -> &mut Buffers {
        let shape = Shape {
            rows,
            hidden_size: config.hidden_size,
            query_width: config.query_width(),
            key_value_width: config.key_value_width(),
            head_dim: config.head_dim,
            feed_forward_width: config.widest_feed_forward(),
            experts: config.experts_in_use().copied(),
            rope_theta: config.rope_theta,
        };
        let fits = |buffers: &Buffers| {
            buffers.shape.rows >= rows && Shape { rows, ..buffers.shape } == shape
        };
        if !self.buffers.as_ref().is_some_and(fits) {
            let zeroed = || Aligned::zeroed(rows * config.hidden_size);
            self.buffers = Some(Buffers {
                shape,
                hidden: zeroed(),
                normed: zeroed(),
                output: zeroed(),
                block: BlockBuffers::new(config, rows),
            });
        }
        self.buffers.as_mut().expect("made above")
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let Some(Buffers { hidden, normed, output, block, .. }) = &self.buffers else {
            return 0;
        };
        let BlockBuffers { wide, unnormed_keys, keys, values, mixed, rope, .. } = block;
        let BlockBuffers { scores, choice, weights, chosen_by, gathered, .. } = block;
        let buffers = [
            hidden,
            normed,
            output,
            wide,
            unnormed_keys,
            keys,
            values,
            mixed,
            scores,
            weights,
            gathered,
        ];
        buffers.iter().map(|buffer| size_of_val(&buffer[..])).sum::<usize>()
            + size_of_val(&choice[..])
            + chosen_by.capacity() * size_of::<usize>()
            + rope.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_alike_and_not_too_long() {
        let of = [1, 256, 383, 384, 512, 639, 640, 1024].map(Scratch::pass_rows);
        assert_eq!(of, [1, 256, 383, 192, 256, 320, 214, 256]);
        assert!((1..5000).all(|rows| (1..=Scratch::MAX_ROWS).contains(&Scratch::pass_rows(rows))));
    }

    /// Models may differ in nothing but the number of their layers, and so in whether any has experts.
    #[test]
    fn buffers_without_experts_do_not_serve_a_model_with_them() {
        let mixed = Config::preset("lfm2-8b-a1b").unwrap();
        let dense = Config { layers: mixed.layers[..2].to_vec(), ..mixed.clone() };
        let experts = mixed.experts.map(|experts| ExpertsConfig { dense_layers: 0, ..experts });
        let sparse = Config { experts, ..mixed.clone() };
        let mut scratch = Scratch::default();
        let mut lengths = |config| {
            let BlockBuffers { wide, choice, gathered, .. } = &scratch.reserve(config, 3).block;
            [wide.len(), choice.len(), gathered.len()]
        };
        assert_eq!(lengths(&dense), [3 * 7168, 0, 0]);
        assert_eq!(lengths(&mixed), [3 * 7168, 3 * 4, 3 * 2048]);
        assert_eq!(lengths(&sparse), [3 * 3 * 2048, 3 * 4, 3 * 2048]);
    }
}
