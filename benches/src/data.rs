use lfm2_harness::machine::Machine;
use lfm2_kernels::linear::{Matrix, WeightFormat};
use lfm2_kernels::model::{Synthetic, Tensors};

/// Seeded values with variance 1, of either sign.
pub fn values(name: &str, length: usize) -> Vec<f32> {
    Synthetic::new(1, WeightFormat::F32).values(name, &[length, 1])
}

/// Bytes that no cache of this machine holds a worthwhile part of.
pub fn beyond_cache() -> usize {
    const TIMES_THE_LAST_CACHE: u64 = 8;
    const LEAST: u64 = 256 << 20;
    let largest = Machine::detect().caches.iter().map(|cache| cache.bytes).max().unwrap_or(0);
    (TIMES_THE_LAST_CACHE * largest).max(LEAST) as usize
}

/// Copies of a random weight matrix, as many as are together beyond any cache.
pub fn matrices(format: WeightFormat, outputs: usize, inputs: usize) -> Vec<Matrix> {
    let source = Synthetic::new(1, format);
    let tensor = source.tensor("weight", &[outputs, inputs]).ok().flatten();
    let bytes = tensor.expect("synthetic weights have every tensor").bytes;
    let copies = beyond_cache().div_ceil(bytes.len());
    (0..copies).map(|_| Matrix::from_le_bytes(format, outputs, inputs, &bytes)).collect()
}
