//! A file is read as GGUF, everything in it is looked at, and it is loaded as a model.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use lfm2_fuzz::gguf::{
    BF16, BLOCKS, GgufFile, GgufTensor, array_value, string, string_value, u32_value, value,
};
use lfm2_fuzz::mutate::{Mutator, store};
use lfm2_fuzz::{good_ggufs, limited, replace};
use lfm2_kernels::format::Gguf;
use lfm2_kernels::model::Model;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tempfile::TempDir;

/// Keys and names that a loader gives a meaning, wherever they turn up.
const WORDS: &[&str] = &[
    "general.architecture",
    "general.alignment",
    "lfm2",
    "lfm2moe",
    "lfm2.block_count",
    "lfm2.embedding_length",
    "lfm2.attention.head_count",
    "lfm2.attention.head_count_kv",
    "lfm2.attention.key_length",
    "lfm2.attention.causal",
    "lfm2.attention.sliding_window",
    "lfm2.rope.scaling.type",
    "lfm2.rope.freq_base",
    "lfm2.shortconv.l_cache",
    "lfm2.expert_count",
    "split.count",
    "token_embd.weight",
    "output.weight",
    "output_norm.weight",
    "blk.0.shortconv.conv.weight",
    "blk.1.attn_qkv.weight",
    "blk.1.ffn_gate_exps.weight",
    "blk.1.ffn_gate_up_exps.weight",
    "a",
    "",
];

struct Fixed {
    _folder: TempDir,
    path: PathBuf,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    Fixed { _folder: folder, path }
});

static GOOD: LazyLock<Vec<GgufFile>> = LazyLock::new(good_ggufs);

fuzz_target!(|data: &[u8]| {
    let path = &FIXED.path;
    replace(path, data);
    let gguf = match limited(data.len(), || Gguf::open(path)) {
        Ok(gguf) => gguf,
        Err(error) => {
            assert!(error.to_string().contains("model.gguf: "), "no file in: {error}");
            return;
        }
    };
    limited(data.len(), || gguf.entries().for_each(|entry| drop(entry.value.to_string())));
    assert!(gguf.entries().map(|entry| entry.key).is_sorted_by(|one, other| one < other));
    assert!(gguf.infos().map(|info| info.name).is_sorted_by(|one, other| one < other));
    let total: usize = gguf.infos().map(|info| info.bytes).sum();
    assert!(total <= data.len(), "tensors of {total} bytes share those of {}", data.len());
    match limited(data.len(), || gguf.config()) {
        Ok(config) => config.validate().expect("what is read is valid"),
        Err(error) => {
            assert!(error.to_string().contains("model.gguf: "), "no file in: {error}");
        }
    }
    drop(gguf);
    let _ = limited(data.len(), || Model::load(path));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut mutator = Mutator::new(seed, WORDS);
    let new = match mutator.below(16) {
        0 => return fuzzer_mutate(data, size, max_size),
        1..6 => edit_bytes(&mut mutator, &data[..size]),
        _ => {
            let mut file = GOOD[mutator.below(GOOD.len())].clone();
            for _ in 0..=mutator.below(3) {
                edit(&mut mutator, &mut file);
            }
            let bytes = file.bytes();
            if mutator.below(4) == 0 { edit_bytes(&mut mutator, &bytes) } else { bytes }
        }
    };
    store(data, &new, max_size)
});

/// A number around which something may overflow, be cut or be reserved.
fn number(mutator: &mut Mutator, old: u64) -> u64 {
    match mutator.below(8) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_mul(2),
        3 => mutator.below(64) as u64,
        4 => old.wrapping_add(32),
        _ => (1_u64 << mutator.below(64)).wrapping_sub(mutator.below(2) as u64),
    }
}

/// Another number of four or eight bytes somewhere, or some bytes cut or repeated.
fn edit_bytes(mutator: &mut Mutator, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = mutator.below(bytes.len().min(4096));
    let length = [4, 8, 8, 1 + mutator.below(64)][mutator.below(4)].min(bytes.len() - at);
    match mutator.below(4) {
        0 => drop(bytes.drain(at..at + length)),
        1 => {
            let copy = bytes[at..at + length].to_vec();
            bytes.splice(at..at, copy);
        }
        _ => {
            let mut old = [0; 8];
            let length = length.min(8);
            old[..length].copy_from_slice(&bytes[at..at + length]);
            let new = number(mutator, u64::from_le_bytes(old)).to_le_bytes();
            bytes[at..at + length].copy_from_slice(&new[..length]);
        }
    }
    bytes
}

/// One part of the file is made another, whose effects on the rest are kept: places still fit, where no edit is about them.
fn edit(mutator: &mut Mutator, file: &mut GgufFile) {
    let entry = mutator.below(file.entries.len());
    let tensor = mutator.below(file.tensors.len());
    let word = WORDS[mutator.below(WORDS.len())];
    match mutator.below(16) {
        0 => file.promised_entries = Some(number(mutator, file.entries.len() as u64)),
        1 => file.promised_tensors = Some(number(mutator, file.tensors.len() as u64)),
        2 => drop(file.entries.remove(entry)),
        3 => drop(file.tensors.remove(tensor)),
        4 => file.entries.push(file.entries[entry].clone()),
        5 => file.tensors.push(file.tensors[tensor].clone()),
        6 => file.entries[entry].0 = word.into(),
        7 => file.tensors[tensor].name = word.into(),
        8 | 9 => file.entries[entry].1 = any_value(mutator, word),
        10 => file.set(word, any_value(mutator, word)),
        11 => {
            let kinds = [0, 1, 4, 10, 12, 14, 20, 24, BF16, u32::MAX];
            file.tensors[tensor].kind = match mutator.below(2) {
                0 => BLOCKS[mutator.below(BLOCKS.len())].0,
                _ => kinds[mutator.below(kinds.len())],
            };
        }
        12 | 13 => {
            let GgufTensor { sizes, .. } = &mut file.tensors[tensor];
            match mutator.below(4) {
                0 => sizes.push(number(mutator, 1)),
                1 => sizes.reverse(),
                _ if !sizes.is_empty() => {
                    let i = mutator.below(sizes.len());
                    sizes[i] = number(mutator, sizes[i]);
                }
                _ => {}
            }
        }
        14 => {
            let aligned = number(mutator, 0) & !31;
            file.tensors[tensor].offset = Some(aligned);
        }
        _ => {
            let alignment = 1 << mutator.below(12);
            file.alignment = alignment;
            file.set("general.alignment", u32_value(alignment as u32));
        }
    }
}

fn any_value(mutator: &mut Mutator, word: &str) -> Vec<u8> {
    let any = number(mutator, 1).to_le_bytes();
    match mutator.below(8) {
        0 => string_value(word),
        1 => value(mutator.below(14) as u32, &any),
        2 => value(7, &any[..1]),
        3 => array_value(mutator.below(13) as u32, number(mutator, 2), &any.repeat(2)),
        4 => array_value(8, 2, &string(word.as_bytes()).repeat(2)),
        5 => {
            let depth = 1 + mutator.below(12);
            let inner = array_value(9, 1, &[])[4..].repeat(depth);
            value(9, &[&inner[..], &array_value(0, 1, &[7])[4..]].concat())
        }
        6 => value(6, &any[..4]),
        _ => u32_value(number(mutator, 2) as u32),
    }
}
