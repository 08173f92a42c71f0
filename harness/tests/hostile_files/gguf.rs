//! The same for GGUF files. Their headers are bounded more tightly: nothing but where their entries are is kept.

#[path = "../../../fuzz/src/gguf.rs"]
mod file;

use std::fs;

use file::{
    BF16, F32, GgufFile, GgufTensor, array_value, i32_array, string, string_value, u32_value,
    value, value_type,
};
use lfm2_kernels::format::Gguf;

use super::{Checked, Folder, GGUF, memory, within};

/// The tests of this file.
pub const TESTS: [(&str, super::Test); 13] = [
    ("gguf::undamaged_files_load", undamaged_files_load),
    ("gguf::truncated_at_every_length", truncated_at_every_length),
    ("gguf::flipped_bits", flipped_bits),
    ("gguf::other_files", other_files),
    ("gguf::promised_counts", promised_counts),
    ("gguf::promised_lengths", promised_lengths),
    ("gguf::promised_shapes", promised_shapes),
    ("gguf::promised_offsets", promised_offsets),
    ("gguf::names_that_are_none", names_that_are_none),
    ("gguf::values_that_are_none", values_that_are_none),
    ("gguf::arrays_within_arrays", arrays_within_arrays),
    ("gguf::headers_of_small_entries", headers_of_small_entries),
    ("gguf::long_values_are_not_repeated_whole", long_values_are_not_repeated_whole),
];

fn folder(file: &GgufFile) -> Folder {
    let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
    folder.write(GGUF, file.bytes());
    folder
}

/// Fails unless the small model with that change is refused for that reason.
fn refused(what: &str, reason: &str, change: impl FnOnce(&mut GgufFile)) -> Checked {
    let mut file = GgufFile::model();
    change(&mut file);
    folder(&file).refused(what, GGUF, &[": ", reason])
}

fn undamaged_files_load() -> Checked {
    let model = folder(&GgufFile::model()).loads("no damage")?;
    match (model.config().vocabulary, model.config().feed_forward_width) {
        (4, 24) => Ok(()),
        other => Err(format!("another model: {other:?}").into()),
    }
}

fn truncated_at_every_length() -> Checked {
    let file = GgufFile::model();
    let (folder, bytes, header) = (folder(&file), file.bytes(), file.header().len());
    for length in (0..header).chain((header..bytes.len()).step_by(61)) {
        folder.write(GGUF, &bytes[..length]);
        let reason = match length < header {
            true => format!("ends at byte {length}: expected "),
            false => " bytes from byte ".to_string(),
        };
        folder.refused(&format!("cut to {length} bytes"), GGUF, &[&reason])?;
    }
    Ok(())
}

fn flipped_bits() -> Checked {
    let file = GgufFile::model();
    let (folder, bytes) = (folder(&file), file.bytes());
    let (mut refused, mut cases) = (0, 0);
    for at in 0..file.header().len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            folder.write(GGUF, damaged);
            refused += usize::from(folder.survives(&format!("bit {bit} of byte {at} flipped"))?);
            cases += 1;
        }
    }
    match 2 * refused < cases {
        true => Err(format!("only {refused} of {cases} damages were refused").into()),
        false => Ok(()),
    }
}

fn other_files() -> Checked {
    refused("magic", "begins with \"GGML\": expected \"GGUF\"", |file| file.magic = *b"GGML")?;
    refused("magic", "begins with \"\\x00\\xff\\\"\\n\"", |file| file.magic = *b"\0\xff\"\n")?;
    for version in [0, 1, 2, 4, u32::MAX] {
        let reason = format!("is of version {version}: expected 3");
        refused("version", &reason, |file| file.version = version)?;
    }
    refused("version", "is big-endian: expected little-endian", |file| {
        file.version = 3_u32.swap_bytes();
    })?;
    let folder = folder(&GgufFile::empty());
    folder.refused("an empty file", GGUF, &["has no general.architecture"])?;
    let path = folder.path().join(GGUF);
    #[cfg(unix)]
    {
        fs::remove_file(&path).expect("a file can be removed");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link can be made");
        folder.refused("a device", GGUF, &["not a regular file"])?;
    }
    fs::remove_file(&path).expect("a file can be removed");
    Ok(())
}

fn promised_counts() -> Checked {
    for count in [1 << 16, 1 << 32, 1 << 61, 1 << 63, u64::MAX] {
        let reason = format!("of {count}: ");
        refused("entries", &reason, |file| file.promised_entries = Some(count))?;
        refused("tensors", &reason, |file| file.promised_tensors = Some(count))?;
    }
    // Where nothing follows that could be taken for more.
    for count in [1, u64::MAX] {
        let mut file = GgufFile::empty();
        file.promised_entries = Some(count);
        let reason =
            format!("entry 0 of {count}: ends at byte 24: expected 8 bytes from byte 24 on");
        folder(&file).refused("no entries", GGUF, &[&reason])?;
        file.promised_entries = None;
        file.promised_tensors = Some(count);
        let reason = format!("tensor 0 of {count}: ends at byte 24");
        folder(&file).refused("no tensors", GGUF, &[&reason])?;
    }
    refused("fewer entries", "tensor 0 of 21: ", |file| file.promised_entries = Some(12))?;
    let mut file = GgufFile::model();
    file.promised_tensors = Some(20);
    folder(&file).refused("fewer tensors", "no tensor", &["layers.1.self_attn.k_layernorm"])
}

fn promised_lengths() -> Checked {
    for length in [1 << 20, 1 << 32, 1 << 63, u64::MAX - 8, u64::MAX] {
        let expected = format!("expected {length} bytes from byte ");
        refused("a text", &expected, |file| {
            file.set("unknown", value(value_type::STRING, &length.to_le_bytes()));
        })?;
        for (element, bytes) in [
            (value_type::U8, &[0; 8][..]),
            (value_type::F32, &[0; 8]),
            (value_type::STRING, &[0; 16]),
        ] {
            refused("an array", "entry 13 of 14: ", |file| {
                file.set("unknown", array_value(element, length, bytes));
            })?;
        }
        // Elements without end, of which each is there.
        let mut file = GgufFile::empty();
        file.set("unknown", array_value(value_type::STRING, length, &[0; 1 << 20]));
        folder(&file).refused("empty texts", GGUF, &["entry 0 of 1: ends at byte"])?;
        let mut file = GgufFile::empty();
        file.set("unknown", array_value(value_type::U8, length, &[0; 100]));
        folder(&file).refused("bytes", GGUF, &["entry 0 of 1: ends at byte"])?;
    }
    Ok(())
}

fn promised_shapes() -> Checked {
    let name = "blk.0.ffn_up.weight";
    let shape = |sizes: &[u64], kind: u32, reason: &str| {
        let mut file = GgufFile::model();
        let tensor = file.tensor(name);
        (tensor.sizes, tensor.kind) = (sizes.into(), kind);
        let named = format!("tensor {name} ");
        folder(&file).refused(&format!("{sizes:?}"), GGUF, &[&named, reason])
    };
    shape(&[], BF16, "has 0 dimensions: expected 1 to 4")?;
    shape(&[16, 24, 1, 1, 1], BF16, "has 5 dimensions: expected 1 to 4")?;
    shape(&[0], BF16, "has size [0]: expected no 0")?;
    shape(&[16, 0, 1 << 40], BF16, "has size [16, 0, 1099511627776]: expected no 0")?;
    shape(&[1 << 63], BF16, "has size [9223372036854775808]: expected less than 2^64 bytes")?;
    shape(&[1 << 32, 1 << 32], BF16, "expected less than 2^64 bytes")?;
    shape(&[1 << 16; 4], F32, "expected less than 2^64 bytes")?;
    shape(&[u64::MAX; 4], BF16, "expected less than 2^64 bytes")?;
    shape(&[u64::MAX], 24, "has 18446744073709551615 bytes from byte")?;
    shape(&[1 << 20, 1 << 20], BF16, "has 2199023255552 bytes from byte")?;
    shape(&[16, 24], 2, "has rows of 16: expected a multiple of 32, a block of q4_0")?;
    shape(&[288, 24], 12, "has rows of 288: expected a multiple of 256, a block of q4_k")?;
    for unknown in [4, 5, 31, 33, 36, 99, u32::MAX] {
        shape(&[16, 24], unknown, &format!("is of type {unknown}, which is unknown"))?;
    }
    Ok(())
}

fn promised_offsets() -> Checked {
    let name = "blk.0.ffn_up.weight";
    let offset = |offset: u64, reason: &str| {
        refused(&format!("offset {offset}"), reason, |file| file.tensor(name).offset = Some(offset))
    };
    for unaligned in [1, 16, 33, u64::MAX] {
        offset(
            unaligned,
            &format!(
                "tensor {name} begins at byte {unaligned} of the data: expected a multiple of general.alignment, 32"
            ),
        )?;
    }
    for far in [1 << 20, 1 << 32, 1 << 63, u64::MAX - 31] {
        offset(
            far,
            &format!("tensor {name} has 768 bytes from byte {far} of the data on: there are "),
        )?;
    }
    offset(0, "of the data, within another one: expected ")?;
    offset(32, "of the data, within another one: expected ")?;
    for alignment in [0, 3, 24, (1 << 31) + 1] {
        let reason = format!("general.alignment is {alignment}: expected a power of two");
        refused("alignment", &reason, |file| file.set("general.alignment", u32_value(alignment)))?;
    }
    refused("alignment", "general.alignment is \"32\"", |file| {
        file.set("general.alignment", string_value("32"));
    })?;
    refused("alignment", "of the data on: there are 0", |file| {
        file.set("general.alignment", u32_value(1 << 31));
        file.tensors.iter_mut().for_each(|tensor| tensor.offset = Some(0));
    })?;
    const U64: u32 = 10;
    refused("alignment", "of the data on: there are 0", |file| {
        file.set("general.alignment", value(U64, &(1_u64 << 63).to_le_bytes()));
        file.tensors.iter_mut().for_each(|tensor| tensor.offset = Some(0));
    })
}

fn names_that_are_none() -> Checked {
    refused("twice", "has the key \"lfm2.block_count\" twice", |file| {
        file.entries.push(("lfm2.block_count".into(), u32_value(2)));
    })?;
    refused("twice", "has tensor blk.0.ffn_up.weight twice", |file| {
        file.add("blk.0.ffn_up.weight", &[16, 24], BF16);
    })?;
    refused("empty", "its key has 0 bytes: expected 1 to 65535", |file| {
        file.entries.push((Vec::new(), u32_value(2)));
    })?;
    refused("long", "its key has 65536 bytes: expected 1 to 65535", |file| {
        file.entries.push((vec![b'k'; 1 << 16], u32_value(2)));
    })?;
    refused("empty", "tensor 21 of 22: its name has 0 bytes: expected 1 to 64", |file| {
        file.add("", &[16], F32);
    })?;
    refused("long", "its name has 65 bytes: expected 1 to 64", |file| {
        file.add(&"n".repeat(65), &[16], F32);
    })?;
    for wrong in [&b"\xc0\xaf"[..], b"\xed\xa0\x80", b"\x80", b"\xff"] {
        refused("a key", "entry 13 of 14: is not UTF-8 at byte", |file| {
            file.entries.push((wrong.into(), u32_value(2)));
        })?;
        refused("a text", "entry 13 of 14: is not UTF-8 at byte", |file| {
            file.set("unknown", value(value_type::STRING, &string(wrong)));
        })?;
        refused("a word", "entry 13 of 14: is not UTF-8 at byte", |file| {
            file.set("unknown", array_value(value_type::STRING, 1, &string(wrong)));
        })?;
    }
    Ok(())
}

fn values_that_are_none() -> Checked {
    for kind in [13, 255, u32::MAX] {
        let reason = format!("entry 13 of 14: has a value of type {kind}: expected 0 to 12");
        refused("type", &reason, |file| file.set("unknown", value(kind, &[0; 8])))?;
        refused("element", &reason, |file| file.set("unknown", array_value(kind, 0, &[])))?;
    }
    for wrong in [2, 255] {
        let reason = format!("has a bool of {wrong}: expected 0 or 1");
        refused("bool", &reason, |file| file.set("unknown", value(value_type::BOOL, &[wrong])))?;
        refused("bools", &reason, |file| {
            file.set("unknown", array_value(value_type::BOOL, 3, &[0, 1, wrong]));
        })?;
    }
    for count in [0, 1, 3, 1 << 16] {
        refused("heads", "a number for each of 2 layers", |file| {
            file.set("lfm2.attention.head_count_kv", i32_array(&vec![0; count]));
        })?;
    }
    // More layers than are there; and as many as a model may have, each of which a fuzzer's file had looked for.
    let mut file = GgufFile::model();
    file.set("lfm2.block_count", u32_value(3));
    file.set("lfm2.attention.head_count_kv", u32_value(1));
    folder(&file).refused("layers", "no tensor", &["model.layers.2."])?;
    refused("layers", "lfm2.block_count is 65536: expected at most", |file| {
        file.set("lfm2.block_count", u32_value(1 << 16));
        file.set("lfm2.attention.head_count_kv", u32_value(1));
    })?;
    refused("no layers", "has no lfm2.block_count: expected 1 to 2^24", |file| {
        file.unset("lfm2.block_count");
    })
}

fn arrays_within_arrays() -> Checked {
    let nested = |depth: usize| {
        let mut bytes = Vec::new();
        for _ in 1..depth {
            bytes.extend(&array_value(value_type::ARRAY, 1, &[])[4..]);
        }
        bytes.extend(&i32_array(&[7])[4..]);
        value(value_type::ARRAY, &bytes)
    };
    let mut file = GgufFile::model();
    file.set("unknown", nested(8));
    folder(&file).loads("eight arrays within one another")?;
    for depth in [9, 100, 100_000] {
        refused("deep", "has more than 8 arrays within one another", |file| {
            file.set("unknown", nested(depth));
        })?;
    }
    // Arrays without end, each empty.
    let empty = array_value(value_type::U8, 0, &[])[4..].repeat(100_000);
    let mut file = GgufFile::empty();
    file.set("unknown", array_value(value_type::ARRAY, u64::MAX, &empty));
    folder(&file).refused("empty arrays", GGUF, &["entry 0 of 1: ends at byte"])
}

/// As short as entries and tensors may be: what is kept of them is less than they are.
fn headers_of_small_entries() -> Checked {
    const COUNT: u32 = 50_000;
    let mut file = GgufFile::empty();
    for i in 0..COUNT {
        file.entries.push((format!("{i:x}").into(), value(value_type::U8, &[0])));
        file.tensors.push(GgufTensor {
            name: format!("{i:x}"),
            sizes: vec![1],
            kind: 24,
            offset: None,
            data: vec![0],
        });
    }
    file.set("general.alignment", u32_value(1));
    file.alignment = 1;
    let folder = folder(&file);
    let path = folder.path().join(GGUF);
    let (opened, held) = memory::measured(|| Gguf::open(&path));
    let opened = opened.map_err(|error| within("small entries", error.into()))?;
    if (opened.entries().len(), opened.infos().len()) != (COUNT as usize + 1, COUNT as usize) {
        return Err("entries are missing".into());
    }
    match held <= folder.bytes() {
        true => Ok(()),
        false => Err(format!("held {held} bytes for a file of {}", folder.bytes()).into()),
    }
}

fn long_values_are_not_repeated_whole() -> Checked {
    let long = "\u{e4}".repeat(1 << 20);
    let message = |file: &GgufFile| match folder(file).load()? {
        Ok(_) => Err("is not refused".into()),
        Err(error) => Ok::<_, libtest_mimic::Failed>(error.to_string()),
    };
    let mut texts = GgufFile::model();
    texts.set("general.architecture", string_value(&long));
    let mut keys = GgufFile::model();
    keys.entries.extend([(vec![b'k'; 65535], u32_value(0)), (vec![b'k'; 65535], u32_value(0))]);
    let mut arrays = GgufFile::model();
    let words = string(long.as_bytes()).repeat(20);
    arrays.set("lfm2.attention.causal", array_value(value_type::STRING, 20, &words));
    for file in [texts, keys, arrays] {
        let message = message(&file)?;
        if message.len() > 2500 {
            return Err(format!("a message of {} bytes", message.len()).into());
        }
    }
    Ok(())
}
