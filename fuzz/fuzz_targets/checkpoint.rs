//! A file is read as `model.safetensors`, and the small model is asked of it.
#![no_main]

use std::sync::LazyLock;

use lfm2_fuzz::mutate::{Mutator, store};
use lfm2_fuzz::{limited, model, replace};
use lfm2_kernels::format::Checkpoint;
use lfm2_kernels::model::{Model, Tensors};
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target, fuzzer_mutate};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const WORDS: &[&str] = &[
    "__metadata__",
    "dtype",
    "shape",
    "data_offsets",
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "F4",
    "F6_E2M3",
    "I64",
    "U8",
    "BOOL",
    "format",
    "pt",
    "a",
    "model.embed_tokens.weight",
    "model.embedding_norm.weight",
    "lm_head.weight",
    "model.layers.0.conv.conv.weight",
];

/// Lengths of a header that it does not have.
const LENGTHS: &[u64] =
    &[0, 1, 7, 8, 100_000_000, 100_000_001, 1 << 32, 1 << 63, u64::MAX - 8, u64::MAX];

static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| model::files(&model::weights(), 1).concat());

fuzz_target!(|data: &[u8]| {
    let folder = FOLDER.path();
    replace(&folder.join("model.safetensors"), data);
    let checkpoint = match limited(data.len(), || Checkpoint::open(folder)) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert!(error.to_string().contains("model.safetensors: "), "no file in: {error}");
            return;
        }
    };
    let mut total = 0;
    for name in checkpoint.names() {
        if let Ok(Some(tensor)) = checkpoint.tensor(name, &[]) {
            let elements: usize = tensor.shape.iter().product();
            assert_eq!(tensor.bytes.len(), tensor.format.bytes(elements), "{name}");
            total += tensor.bytes.len();
        }
    }
    assert!(total <= data.len(), "tensors of {total} bytes share those of {}", data.len());
    let _ = limited(data.len(), || Model::new(model::config(), &checkpoint));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut mutator = Mutator::new(seed, WORDS);
    if mutator.below(16) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    // Most of what was kept is wrong in some way; a good file with an edit or two gets further.
    let file = if mutator.below(2) == 0 { &GOOD[..] } else { &data[..size] };
    let (header, body) = split(file);
    let (mut header, mut body) = (header.to_vec(), body.to_vec());
    mutator.json(&mut header, max_size.saturating_sub(8));
    match mutator.below(8) {
        // Offsets and length that fit the edited shapes: without them hardly an edit gets past the first check.
        0..4 => {
            if let Some((fitted, length)) = fit(&header, max_size) {
                header = fitted;
                body.resize(length, 0);
            }
        }
        4 => body.resize(mutator.below(body.len() + 17), 0),
        _ => {}
    }
    let length = match mutator.below(16) {
        0 => LENGTHS[mutator.below(LENGTHS.len())],
        _ => header.len() as u64,
    };
    store(data, &join(length, &header, &body), max_size)
});

fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| {
    let ((header, body), (other, _)) = (split(one), split(other));
    let header = Mutator::new(seed, WORDS).cross(header, other);
    let (header, length) = fit(&header, out.len()).unwrap_or((header, body.len()));
    let mut body = body.to_vec();
    body.resize(length, 0);
    store(out, &join(header.len() as u64, &header, &body), out.len())
});

fn split(file: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = file.split_first_chunk() else {
        return (file, &[]);
    };
    let length = u64::from_le_bytes(*length).min(rest.len() as u64) as usize;
    rest.split_at(length)
}

fn join(length: u64, header: &[u8], body: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), header, body].concat()
}

/// The header with offsets that fit its shapes and types, one tensor after the other, and the length of the data, if they are short enough.
fn fit(header: &[u8], most: usize) -> Option<(Vec<u8>, usize)> {
    let mut header: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let mut end = 0_u64;
    for (name, tensor) in &mut header {
        if name == "__metadata__" {
            continue;
        }
        let bits = match tensor.get("dtype")?.as_str()? {
            "F64" | "I64" | "U64" => 64,
            "F32" | "I32" | "U32" => 32,
            "F16" | "BF16" | "I16" | "U16" => 16,
            "F4" => 4,
            "F6_E2M3" | "F6_E3M2" => 6,
            _ => 8,
        };
        let shape = tensor.get("shape")?.as_array()?;
        let bits = shape.iter().try_fold(bits, |size: u64, n| size.checked_mul(n.as_u64()?))?;
        let start = end;
        end = end.checked_add(bits / 8).filter(|end| *end <= most as u64)?;
        *tensor.get_mut("data_offsets")? = json!([start, end]);
    }
    let header = serde_json::to_vec(&header).ok()?;
    Some((header, end as usize))
}
