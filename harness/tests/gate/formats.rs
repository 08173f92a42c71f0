//! What gguf-py computed: the weights that blocks of bytes stand for, and the blocks for given weights, to the bit.

use lfm2_harness::compare::equal_bits;
use lfm2_harness::golden::GoldenFile;
use lfm2_kernels::linear::{WeightFormat, blocks};
use libtest_mimic::{Failed, Trial};

use crate::goldens::fixtures;

/// The formats that gguf-py does not encode.
const DECODED_ONLY: [WeightFormat; 3] = [WeightFormat::Q4K, WeightFormat::Q5K, WeightFormat::Q6K];

/// One trial for each format but f32, whose bytes are the weights.
pub fn trials() -> Vec<Trial> {
    let formats = WeightFormat::ALL.into_iter().filter(|format| *format != WeightFormat::F32);
    formats.map(|format| Trial::test(format!("formats::{format}"), move || check(format))).collect()
}

fn check(format: WeightFormat) -> Result<(), Failed> {
    let file = GoldenFile::open(&fixtures().join(format!("formats/{format}.safetensors")))?;
    let decoded = blocks::decode(format, file.bytes("decode.bytes")?);
    let expected = file.f32("decode.weights")?;
    equal_bits(&expected, &decoded).map_err(|error| format!("decode: {error}"))?;
    if DECODED_ONLY.contains(&format) {
        return Ok(());
    }
    let weights = file.f32("encode.weights")?;
    let (encoded, expected) = (blocks::encode(format, &weights), file.bytes("encode.bytes")?);
    if encoded.len() != expected.len() {
        return Err(format!("encode: {} bytes, not {}", encoded.len(), expected.len()).into());
    }
    let size = format.block_bytes();
    let pairs = encoded.chunks(size).zip(expected.chunks(size)).zip(weights.chunks(format.block()));
    for (block, ((ours, theirs), weights)) in pairs.enumerate() {
        if ours != theirs {
            return Err(format!(
                "encode: block {block}: {ours:02x?}, not {theirs:02x?}: {weights:?}"
            )
            .into());
        }
    }
    Ok(())
}
