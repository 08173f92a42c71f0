//! What the fuzz targets share: the limits that they hold the loaders to, a model small enough to be fuzzed, and a mutator that knows JSON.

mod memory;
pub mod model;
pub mod mutate;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cpu_time::ThreadTime;

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
