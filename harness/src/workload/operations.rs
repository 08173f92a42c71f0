//! Each operation at the 350M's shapes.

use lfm2_kernels::Isa;
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::ops::{CacheElement, embedding, linear};

use super::function::workload;
use super::{Case, Extent, Stored, Weights, values};
use crate::ceiling::Work;

mod attention;
mod small;

pub use attention::{AttentionCase, attention_case};
pub use small::small_cases;

/// Of a token's row.
pub const WIDTH: usize = 1024;
/// Of a row within the feed-forward.
pub const FEED_FORWARD_WIDTH: usize = 4608;
const HEADS: usize = 16;
/// Heads of keys and values.
pub const KEY_VALUE_HEADS: usize = 8;
/// Elements of a head.
pub const HEAD_DIM: usize = 64;
const CONV_LENGTH: usize = 3;
const VOCABULARY: usize = 65536;
const THETA: f64 = 1e6;

/// The rows of a prompt, and of a decoded token.
pub const ROWS: [usize; 2] = [512, 1];

/// The projections, `[outputs, inputs]`: into and out of the mixers, into and out of the feed-forward.
pub const SHAPES: [[usize; 2]; 5] = [
    [3 * WIDTH, WIDTH],
    [WIDTH, WIDTH],
    [KEY_VALUE_HEADS * HEAD_DIM, WIDTH],
    [FEED_FORWARD_WIDTH, WIDTH],
    [WIDTH, FEED_FORWARD_WIDTH],
];

/// The head, `[outputs, inputs]`.
pub const HEAD: [usize; 2] = [VOCABULARY, WIDTH];

/// Those that an extent has, on each of `isas`; those of the same weights follow each other.
pub fn cases<'a>(isas: &[Isa], extent: Extent, weights: &'a Weights) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for &isa in isas {
        for rows in ROWS {
            cases.extend(small_cases(isa, rows));
        }
        for element in [CacheElement::F32, CacheElement::F16] {
            for (context, rows) in [(0, 512), (4096, 1)] {
                let case = AttentionCase { element, context, rows, ..AttentionCase::default() };
                cases.push(attention_case(isa, case));
            }
        }
    }
    for stored in formats(extent) {
        for shape in SHAPES.into_iter().chain([HEAD]) {
            for &isa in isas {
                if shape == HEAD && EMBEDDINGS.contains(&stored) {
                    cases.push(embedding_case(isa, stored, weights));
                }
                for &rows in rows_of_linear(extent, shape) {
                    cases.push(linear_case(isa, stored, shape, rows, weights));
                }
            }
        }
    }
    cases
}

/// Weights in `f32`.
pub const F32: Stored = Stored::plain(WeightFormat::F32);
/// Weights in half precision.
pub const F16: Stored = Stored::plain(WeightFormat::F16);
/// Brain floats that meet activations as they are.
pub const BF16: Stored = Stored::plain(WeightFormat::Bf16);
/// Brain floats that meet such.
pub const BF16_BF16: Stored = Stored::brain();
/// Weights of eight bits that meet quantised activations.
pub const Q8_0: Stored = Stored::int8(WeightFormat::Q8_0);
/// Weights of four bits that meet quantised activations.
pub const Q4_0: Stored = Stored::int8(WeightFormat::Q4_0);

/// Formats in which the embedding is gathered.
const EMBEDDINGS: [Stored; 2] = [F32, BF16];

fn formats(extent: Extent) -> Vec<Stored> {
    let more = match extent {
        Extent::Quick => Vec::new(),
        Extent::Usual => vec![F16],
        Extent::Full => {
            let others = WeightFormat::ALL.into_iter().filter(|format| format.is_quantised());
            let others = others.flat_map(|format| [Stored::plain(format), Stored::int8(format)]);
            let others = others.filter(|stored| ![Q8_0, Q4_0].contains(stored));
            [F16].into_iter().chain(others).collect()
        }
    };
    [F32, BF16, BF16_BF16, Q8_0, Q4_0].into_iter().chain(more).collect()
}

fn rows_of_linear(extent: Extent, shape: [usize; 2]) -> &'static [usize] {
    match (extent, shape) {
        (Extent::Quick, HEAD) => &[1],
        (Extent::Quick, _) => &[1, 512],
        // Prompts need the logits of their last token only.
        (Extent::Usual, HEAD) => &[1, 4, 16],
        _ => &[1, 4, 16, 128, 512],
    }
}

/// Scattered rows of the embedding, which is not in a cache.
fn embedding_case(isa: Isa, stored: Stored, weights: &Weights) -> Case<'_> {
    let rows = ROWS[0];
    Case {
        op: "embedding",
        isa,
        format: stored.name(),
        shape: format!("{rows}x{WIDTH}"),
        work: Work {
            rows,
            bytes: (rows * (stored.format.bytes(WIDTH) + 4 * WIDTH)) as u64,
            ..Work::default()
        },
        prepare: Box::new(move || {
            let table = weights.get(stored, HEAD);
            workload(vec![0.0; rows * WIDTH], move |_, rows, turn, out| {
                let mut tokens = [0; ROWS[0]];
                for (i, token) in tokens.iter_mut().enumerate() {
                    *token = ((turn * rows + i) * 7919 % VOCABULARY) as u32;
                }
                embedding(&table[0], &tokens[..rows], &mut out[..rows * WIDTH]);
            })
        }),
    }
}

/// A linear layer of `[outputs, inputs]`.
pub fn linear_case(
    isa: Isa,
    stored: Stored,
    [outputs, inputs]: [usize; 2],
    rows: usize,
    weights: &Weights,
) -> Case<'_> {
    Case {
        op: "linear",
        isa,
        format: stored.name(),
        shape: format!("{rows}x{outputs}x{inputs}"),
        work: linear_work(stored, [outputs, inputs], rows),
        prepare: Box::new(move || {
            let weights = weights.get(stored, [outputs, inputs]);
            let x = values("x", rows * inputs);
            workload(vec![0.0; rows * outputs], move |isa, rows, turn, out| {
                let weight = &weights[turn % weights.len()];
                let (x, out) = (&x[..rows * inputs], &mut out[..rows * outputs]);
                linear(isa, x, weight, None, out);
            })
        }),
    }
}

fn linear_work(stored: Stored, [outputs, inputs]: [usize; 2], rows: usize) -> Work {
    let bytes = stored.format.bytes(outputs * inputs) + 4 * rows * (inputs + outputs);
    Work { rows, bytes: bytes as u64, ..Work::default() }
        .with_linear(stored.activations, (2 * rows * outputs * inputs) as u64)
}
