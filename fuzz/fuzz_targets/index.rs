//! A file is read as the index of a checkpoint of two good shards.
#![no_main]

use std::sync::LazyLock;

use lfm2_fuzz::mutate::{Mutator, store};
use lfm2_fuzz::{limited, model, replace};
use lfm2_kernels::format::Checkpoint;
use lfm2_kernels::model::Model;
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target, fuzzer_mutate};
use tempfile::TempDir;

const WORDS: &[&str] = &[
    "weight_map",
    "metadata",
    "total_size",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model-00003-of-00002.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "a device",
    "a folder",
    "..",
    ".",
    "",
    "/dev/zero",
    "a/b",
    "model.embed_tokens.weight",
    "model.embedding_norm.weight",
    "no.such.weight",
];

struct Fixed {
    folder: TempDir,
    bytes: usize,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("a folder")).expect("a folder");
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("a device")).expect("a link");
    let shards = model::files(&model::weights(), 2);
    for (name, shard) in WORDS[3..].iter().zip(&shards) {
        replace(&folder.path().join(name), shard);
    }
    Fixed { folder, bytes: shards.iter().map(Vec::len).sum() }
});

static GOOD: LazyLock<[Vec<u8>; 1]> =
    LazyLock::new(|| [model::index_json(&model::weights()).to_string().into_bytes()]);

fuzz_target!(|data: &[u8]| {
    let Fixed { folder, bytes } = &*FIXED;
    replace(&folder.path().join("model.safetensors.index.json"), data);
    let checkpoint = match limited(data.len() + bytes, || Checkpoint::open(folder.path())) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            let folder = folder.path().display().to_string();
            assert!(error.to_string().starts_with(&folder), "no file in: {error}");
            return;
        }
    };
    let names = checkpoint.names();
    assert!(names.is_sorted() && names.len() < 64, "{} tensors", names.len());
    let _ = limited(data.len() + bytes, || Model::new(model::config(), &checkpoint));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut mutator = Mutator::new(seed, WORDS);
    if mutator.below(16) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let text = mutator.edited(&GOOD[..], &data[..size], max_size);
    store(data, &text, max_size)
});

fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| {
    let text = Mutator::new(seed, WORDS).cross(one, other);
    store(out, &text, out.len())
});
