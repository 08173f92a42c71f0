//! What the fuzz targets share: the limits that they hold the loaders to, models small enough to be fuzzed, and a mutator that knows JSON.

pub mod gguf;
mod memory;
pub mod model;
pub mod mutate;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cpu_time::ThreadTime;
use gguf::{BF16, BLOCKS, GgufFile, u32_value};

/// Does `work`, which loads files of `bytes` bytes.
///
/// # Panics
///
/// If it held more memory or took longer than files of that size can need.
pub fn limited<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let start = ThreadTime::now();
    let (result, held) = memory::measured(work);
    let took = start.elapsed();
    assert!(held <= memory::bound(bytes), "held {held} bytes for a file of {bytes}");
    // Some thirty times what the slowest file of that size takes in a build with the address sanitizer.
    let longest = Duration::from_millis(100) + Duration::from_micros(2) * bytes as u32;
    assert!(took <= longest, "took {took:?} for a file of {bytes} bytes");
    result
}

/// Writes a file anew: one that is mapped must not change.
///
/// # Panics
///
/// If it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).expect("a file can be written");
}

/// GGUF files that load, each of which reaches other code by its types or its tensors.
pub fn good_ggufs() -> Vec<GgufFile> {
    let quantised = BLOCKS.map(|(kind, _)| GgufFile::model_of(32, 32, kind));
    let mut fused = GgufFile::model();
    let parts = ["blk.1.attn_q.weight", "blk.1.attn_k.weight", "blk.1.attn_v.weight"];
    fused.tensors.retain(|tensor| !parts.contains(&&*tensor.name));
    fused.add("blk.1.attn_qkv.weight", &[16, 64], BF16);
    fused.set("lfm2.attention.head_count_kv", u32_value(1));
    [GgufFile::model(), fused].into_iter().chain(quantised).collect()
}
