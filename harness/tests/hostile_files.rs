//! Files that are cut, damaged or lie: loading them ends in a model or in an error that names the file and says why, never in a panic, and never
//! takes more memory than [`memory::bound`] allows, whatever they promise. What the fuzzers found is here, too.

#[path = "hostile_files/gguf.rs"]
mod gguf;
#[path = "../../fuzz/src/memory.rs"]
mod memory;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lfm2_harness::random_model::{RandomModel, VOCABULARY};
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::{Config, Description, Error, LayerKind, Model, Tensor};
use libtest_mimic::{Arguments, Failed, Trial};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";
const GGUF: &str = "model.gguf";
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

type Checked = Result<(), Failed>;

type Test = fn() -> Checked;

/// One thread, as the counter of bytes counts what all do.
fn main() -> ExitCode {
    // A panic is reported with the damage that caused it, not where it happens.
    std::panic::set_hook(Box::new(|_| ()));
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let tests: [(&str, Test); 18] = [
        ("bytes_are_counted", bytes_are_counted),
        ("undamaged_files_load", undamaged_files_load),
        ("truncated_at_every_length", truncated_at_every_length),
        ("flipped_bits", flipped_bits),
        ("bytes_that_are_no_text", bytes_that_are_no_text),
        ("nested_deeply", nested_deeply),
        ("keys_that_are_there_twice", keys_that_are_there_twice),
        ("both_names_of_the_rope_type", both_names_of_the_rope_type),
        ("unknown_keys_and_unknown_layers", unknown_keys_and_unknown_layers),
        ("promised_header_lengths", promised_header_lengths),
        ("promised_shapes_and_offsets", promised_shapes_and_offsets),
        ("promised_layers", promised_layers),
        ("promised_layers_reserve_nothing", promised_layers_reserve_nothing),
        ("long_texts_of_small_values", long_texts_of_small_values),
        ("texts_that_are_too_long", texts_that_are_too_long),
        ("long_lists_of_layers_end_soon", long_lists_of_layers_end_soon),
        ("long_values_are_not_repeated_whole", long_values_are_not_repeated_whole),
        ("what_is_no_file", what_is_no_file),
    ];
    let tests = tests.into_iter().chain(gguf::TESTS);
    let trials = tests.map(|(name, test)| Trial::test(format!("hostile_files::{name}"), test));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// A folder whose files load, until a test changes one.
struct Folder(TempDir);

impl Folder {
    /// With one file of weights.
    fn whole() -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        folder.write(CONFIG, config().to_string());
        folder.write(WEIGHTS, serialize(|_| true));
        folder
    }

    /// With an index and two shards.
    fn sharded() -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        folder.write(CONFIG, config().to_string());
        folder.write(INDEX, index().to_string());
        for (number, name) in SHARDS.iter().enumerate() {
            folder.write(name, serialize(|i| i % 2 == number));
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file anew: one that is mapped must not change.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        let _ = fs::remove_file(&path);
        fs::write(path, bytes).expect("a file can be written");
    }

    /// What is loaded: the GGUF file if there is one, else the folder.
    fn model(&self) -> PathBuf {
        let gguf = self.path().join(GGUF);
        if gguf.symlink_metadata().is_ok() { gguf } else { self.path().into() }
    }

    fn bytes(&self) -> usize {
        let files = fs::read_dir(self.path()).expect("a folder");
        files.map(|file| file.expect("a file").metadata().expect("a file").len() as usize).sum()
    }

    /// Loads the model. Fails if that panics or takes too much memory.
    fn load(&self) -> Result<Result<Model, Error>, Failed> {
        let bytes = self.bytes();
        let (loaded, held) =
            memory::measured(|| catch_unwind(AssertUnwindSafe(|| Model::load(&self.model()))));
        let loaded = loaded.map_err(|payload| {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
            format!("panicked: {}", text.unwrap_or_default())
        })?;
        if held > memory::bound(bytes) {
            return Err(format!("held {held} bytes for {bytes} of files").into());
        }
        Ok(loaded)
    }

    /// Fails unless loading is refused with an error that names `file` and has every one of `parts`.
    fn refused(&self, damage: &str, file: &str, parts: &[&str]) -> Checked {
        let damage: String = damage.chars().take(100).collect();
        let loaded = self.load().map_err(|failed| within(&damage, failed))?;
        let Err(error) = loaded else {
            return Err(format!("{damage}: is not refused").into());
        };
        let message = error.to_string();
        for part in [file].iter().chain(parts) {
            if !message.contains(part) {
                return Err(format!("{damage}: no {part:?} in: {message}").into());
            }
        }
        Ok(())
    }

    /// Fails unless it loads, or is refused with an error that names a file of this folder or a tensor; whether it was refused.
    fn survives(&self, damage: &str) -> Result<bool, Failed> {
        let loaded = self.load().map_err(|failed| within(damage, failed))?;
        let Err(error) = loaded else {
            return Ok(false);
        };
        let message = error.to_string();
        let named = match &error {
            Error::File { path, .. } | Error::Format { path, .. } => {
                path.parent() == Some(self.path()) && message.contains(&path.display().to_string())
            }
            Error::MissingTensor { name }
            | Error::Shape { name, .. }
            | Error::TensorType { name, .. } => message.contains(name),
            _ => false,
        };
        match named {
            true => Ok(true),
            false => Err(format!("{damage}: neither a file nor a tensor in: {message}").into()),
        }
    }

    /// Fails unless it loads.
    fn loads(&self, what: &str) -> Result<Model, Failed> {
        let loaded = self.load().map_err(|failed| within(what, failed))?;
        loaded.map_err(|error| format!("{what}: {error}").into())
    }
}

fn within(damage: &str, failed: Failed) -> Failed {
    format!("{damage}: {}", failed.message().unwrap_or_default()).into()
}

/// A layer of each kind, as small as can be.
fn model() -> RandomModel {
    let config = Config {
        hidden_size: 16,
        layers: vec![LayerKind::Conv, LayerKind::Attention],
        heads: 2,
        key_value_heads: 1,
        feed_forward_width: 16,
        ..RandomModel::small(Description::Lfm2).config
    };
    RandomModel { config, format: WeightFormat::Bf16, ..RandomModel::small(Description::Lfm2) }
}

/// The configuration of [`model`].
fn config() -> Value {
    json!({
        "model_type": "lfm2",
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "layer_types": ["conv", "full_attention"],
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 16,
        "conv_bias": true
    })
}

/// With the keys of issue #22287.
fn issue_config() -> Value {
    json!({
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "head_dim": 16,
        "conv_layers": [0],
        "attention_layers": [1],
        "conv_kernel": 3,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6
    })
}

/// The tensors of [`model`], by name.
fn tensors() -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let (_, weights) = model().recorded();
    let tensors = weights.tensors.into_iter();
    let mut tensors: Vec<_> =
        tensors.map(|(name, Tensor { shape, bytes, .. })| (name, shape, bytes.to_vec())).collect();
    tensors.sort();
    tensors
}

/// A safetensors file of those of the tensors whose number is `wanted`.
fn serialize(wanted: impl Fn(usize) -> bool) -> Vec<u8> {
    let tensors = tensors();
    let part = tensors.iter().enumerate().filter(|(i, _)| wanted(*i));
    let views = part.map(|(_, (name, shape, bytes))| {
        (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).expect("bytes fit the shape"))
    });
    safetensors::serialize(views, None).expect("tensors can be serialized")
}

fn index() -> Value {
    let names = tensors().into_iter().map(|(name, ..)| name).enumerate();
    let map: serde_json::Map<_, _> = names.map(|(i, name)| (name, SHARDS[i % 2].into())).collect();
    json!({"metadata": {"total_size": 1}, "weight_map": map})
}

/// A file of that header and data.
fn safetensors_file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The end of the header of a safetensors file.
fn header_end(file: &[u8]) -> usize {
    8 + u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize
}

/// Texts, and folders in which they may be damaged.
fn files() -> [(Folder, &'static str, Vec<u8>); 4] {
    [
        (Folder::whole(), CONFIG, config().to_string().into()),
        (Folder::whole(), CONFIG, issue_config().to_string().into()),
        (Folder::sharded(), INDEX, index().to_string().into()),
        (Folder::whole(), WEIGHTS, serialize(|_| true)),
    ]
}

fn bytes_are_counted() -> Checked {
    let (block, held) = memory::measured(|| {
        drop(std::hint::black_box(vec![1_u8; 3_000_000]));
        std::hint::black_box(vec![1_u8; 1_000_000])
    });
    drop(block);
    match held {
        3_000_000..3_001_000 => Ok(()),
        _ => Err(format!("{held} bytes were counted: 3000000 were held").into()),
    }
}

fn undamaged_files_load() -> Checked {
    for folder in [Folder::whole(), Folder::sharded()] {
        let model_config = folder.loads("no damage")?.config().clone();
        if model_config != model().config {
            return Err(format!("another model: {model_config:?}").into());
        }
    }
    Ok(())
}

fn truncated_at_every_length() -> Checked {
    for (folder, name, bytes) in files() {
        // A file of weights is cut at every length of its header, and at some of its data.
        let header = if name == WEIGHTS { header_end(&bytes) } else { bytes.len() };
        for length in (0..header).chain((header..bytes.len()).step_by(61)) {
            folder.write(name, &bytes[..length]);
            let reason = match name {
                WEIGHTS => format!(" {length} bytes"),
                _ => "at line 1 column".into(),
            };
            folder.refused(&format!("{name} cut to {length} bytes"), name, &[&reason])?;
        }
    }
    Ok(())
}

/// Every bit of the configurations, and one of each byte of what is longer.
fn flipped_bits() -> Checked {
    for (folder, name, bytes) in files() {
        let (mut refused, mut cases) = (0, 0);
        let end = if name == WEIGHTS { header_end(&bytes) } else { bytes.len() };
        for at in 0..end {
            let bits = if name == CONFIG { 0..8 } else { at % 8..at % 8 + 1 };
            for bit in bits {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                folder.write(name, damaged);
                let damage = format!("{name} with bit {bit} of byte {at} flipped");
                refused += usize::from(folder.survives(&damage)?);
                cases += 1;
            }
        }
        if 2 * refused < cases {
            return Err(format!("{name}: only {refused} of {cases} damages were refused").into());
        }
    }
    Ok(())
}

fn bytes_that_are_no_text() -> Checked {
    for (folder, name, bytes) in files() {
        // An overlong sequence, a surrogate, a lone byte of a longer sequence, one that never occurs.
        for wrong in [&b"\xc0\xaf"[..], b"\xed\xa0\x80", b"\x80", b"\xff"] {
            let (mut damaged, quote) = (bytes.clone(), bytes.iter().position(|b| *b == b'"'));
            let at = quote.expect("a string") + 1;
            damaged.splice(at..at, wrong.iter().copied());
            if name == WEIGHTS {
                let length = (header_end(&bytes) - 8 + wrong.len()) as u64;
                damaged[..8].copy_from_slice(&length.to_le_bytes());
            }
            folder.write(name, &damaged);
            let reason = match name {
                WEIGHTS => "invalid unicode code point at line 1".to_string(),
                _ => format!("is not UTF-8 at byte {at}"),
            };
            folder.refused(&format!("{name} with {wrong:?}"), name, &[&reason])?;
        }
    }
    Ok(())
}

fn nested_deeply() -> Checked {
    let mut deep = Vec::new();
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"shape\":[", "]}")] {
        deep.extend([open.repeat(100_000), open.repeat(100_000) + "0" + &close.repeat(100_000)]);
    }
    for deep in deep {
        let closed = deep.ends_with(['}', ']']);
        for (folder, name) in
            [(Folder::whole(), CONFIG), (Folder::sharded(), INDEX), (Folder::whole(), WEIGHTS)]
        {
            let keys: &[&str] = match name {
                CONFIG => &["num_hidden_layers", "layer_types", "rope_scaling", "conv_layers"],
                INDEX => &["weight_map"],
                _ => &["a", "__metadata__"],
            };
            let texts = keys.iter().map(|key| format!("{{\"{key}\":{deep}}}"));
            for text in texts.chain([deep.clone()]) {
                match name {
                    WEIGHTS => folder.write(name, safetensors_file(&text, &[])),
                    _ => folder.write(name, &text),
                }
                folder.refused(&text, name, &["line 1"])?;
            }
        }
        // What nobody reads may be as deep as it likes.
        let folder = Folder::whole();
        let text = config().to_string();
        folder.write(CONFIG, format!("{},\"unknown\":{deep}}}", &text[..text.len() - 1]));
        match closed {
            true => drop(folder.loads("a deep unknown key")?),
            false => folder.refused("a deep unknown key", CONFIG, &["line 1"])?,
        }
    }
    Ok(())
}

fn keys_that_are_there_twice() -> Checked {
    let twice = |text: &str, member: &str| format!("{},{member}}}", &text[..text.len() - 1]);
    let folder = Folder::whole();
    for (key, value) in [("hidden_size", "16"), ("num_hidden_layers", "3"), ("head_dim", "null")] {
        folder.write(CONFIG, twice(&config().to_string(), &format!("\"{key}\":{value}")));
        folder.refused(key, CONFIG, &[&format!("duplicate field `{key}`"), "line 1"])?;
    }
    folder.write(CONFIG, twice(&issue_config().to_string(), "\"conv_layers\":[0]"));
    folder.refused("conv_layers", CONFIG, &["duplicate field `conv_layers`"])?;

    // Empty, so that both could be where they say they are.
    let folder = Folder::whole();
    let tensor = r#""a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    folder.write(WEIGHTS, safetensors_file(&format!("{{{tensor},{tensor}}}"), &[]));
    folder.refused("a tensor twice", WEIGHTS, &["tensor a twice"])?;

    let folder = Folder::sharded();
    let name = "model.embedding_norm.weight";
    let map = format!("{{\"weight_map\":{{\"{name}\":\"{0}\",\"{name}\":\"{0}\"}}}}", SHARDS[0]);
    folder.write(INDEX, map);
    folder.refused("a name twice", INDEX, &[&format!("tensor {name} twice")])
}

/// Configurations for old and new versions of transformers have both.
fn both_names_of_the_rope_type() -> Checked {
    let folder = Folder::whole();
    for key in ["rope_scaling", "rope_parameters"] {
        let with = |rope: Value| {
            let mut config = config();
            config[key] = rope;
            folder.write(CONFIG, config.to_string());
        };
        for rope in [
            json!({"type": "default", "rope_type": "default", "rope_theta": 1e6}),
            json!({"type": "default"}),
            json!({"rope_type": "default"}),
            json!({"rope_type": null, "type": null}),
            json!({"rope_type": "default", "factor": 1.0, "original_max_position_embeddings": 4096}),
        ] {
            let what = rope.to_string();
            with(rope);
            folder.loads(&what)?;
        }
        for (rope, name) in [
            (json!({"type": "yarn", "rope_type": "default"}), "type is \"yarn\""),
            (json!({"type": "default", "rope_type": "yarn"}), "rope_type is \"yarn\""),
        ] {
            let what = rope.to_string();
            with(rope);
            folder.refused(&what, CONFIG, &[name, "expected \"default\""])?;
        }
    }
    Ok(())
}

fn unknown_keys_and_unknown_layers() -> Checked {
    let folder = Folder::whole();
    let mut known = config();
    for (key, value) in [
        ("architectures", json!(["Lfm2ForCausalLM"])),
        ("use_cache", json!(true)),
        ("quantization_config", json!(null)),
        ("id2label", json!({"0": "LABEL_0"})),
        ("dtype", json!("bfloat16")),
    ] {
        known[key] = value;
    }
    folder.write(CONFIG, known.to_string());
    folder.loads("keys that change nothing")?;
    // Whether it is convolution or attention cannot be guessed.
    known["layer_types"] = json!(["conv", "sliding_attention"]);
    folder.write(CONFIG, known.to_string());
    folder.refused("an unknown layer", CONFIG, &["unknown variant `sliding_attention`", "conv"])
}

fn promised_header_lengths() -> Checked {
    let (folder, whole) = (Folder::whole(), serialize(|_| true));
    let rest = whole.len() as u64 - 8;
    let lengths =
        [rest + 1, 100_000_000, 100_000_001, 1 << 32, i64::MAX as u64, u64::MAX - 8, u64::MAX];
    for length in lengths {
        for file in [&whole[..], &whole[..8]] {
            let file = [&length.to_le_bytes(), &file[8..]].concat();
            folder.write(WEIGHTS, &file);
            let reason = format!("header would have {length} bytes");
            folder.refused(&format!("a header of {length} bytes"), WEIGHTS, &[&reason])?;
        }
    }
    Ok(())
}

fn promised_shapes_and_offsets() -> Checked {
    let folder = Folder::whole();
    let tensor = |name: &str, dtype: &str, shape: &str, start: &str, end: &str| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let huge = 1_u64 << 61;
    // Each as long as a tensor may be: the end of the last and the length of the header go beyond 2^64.
    let last = (0..8_u64).map(|i| {
        let (start, end) = (i * (huge - 1), (i + 1) * (huge - 1));
        tensor(
            &format!("t{i}"),
            "U8",
            &format!("[{}]", huge - 1),
            &start.to_string(),
            &end.to_string(),
        )
    });
    let overlapping =
        tensor("a", "U8", "[4]", "0", "4") + "," + &tensor("b", "U8", "[4]", "2", "6");
    let same = tensor("a", "U8", "[8]", "0", "8") + "," + &tensor("b", "U8", "[8]", "0", "8");
    let gap = tensor("a", "U8", "[2]", "0", "2") + "," + &tensor("b", "U8", "[4]", "4", "8");
    let max = u64::MAX.to_string();
    let cases = [
        (tensor("a", "U8", "[4]", "0", "4"), "end at byte 4 of the data: there are 8"),
        (tensor("a", "U8", "[16]", "0", "16"), "end at byte 16 of the data: there are 8"),
        (tensor("a", "U8", "[1099511627776]", "0", "1099511627776"), "there are 8"),
        (tensor("a", "U8", "[8]", "8", "0"), "invalid offset for tensor `a`"),
        (tensor("a", "U8", "[8]", "8", "16"), "invalid offset for tensor `a`"),
        (tensor("a", "U8", "[8]", &max, &max), "invalid offset for tensor `a`"),
        (tensor("a", "F32", "[8]", "0", "8"), "invalid shape, data type, or offset"),
        (tensor("a", "F32", "[4294967296,4294967296]", "0", "8"), "overflow"),
        (tensor("a", "F32", &format!("[{max}]"), "0", "8"), "overflow"),
        (tensor("a", "F32", "[0,4294967296,4294967296]", "0", "8"), "tensor"),
        (tensor("a", "F4", "[3]", "0", "8"), "slic"),
        (tensor("a", "F32", "[18446744073709551616]", "0", "8"), "invalid type"),
        (tensor("a", "F32", "[-1]", "0", "8"), "invalid value"),
        (tensor("a", "F32", "[2]", "0", "18446744073709551616"), "invalid type"),
        (tensor("a", "F32", "[2]", "0", "8.0"), "invalid type"),
        (tensor("a", "F33", "[2]", "0", "8"), "unknown variant `F33`"),
        (overlapping, "invalid offset for tensor `b`"),
        (same, "invalid offset for tensor"),
        (gap, "invalid offset for tensor `b`"),
        (last.collect::<Vec<_>>().join(","), "end at byte 18446744073709551608"),
        (r#""a":{"dtype":"F32","shape":[2]}"#.into(), "missing field `data_offsets`"),
        (r#""__metadata__":{"a":1}"#.into(), "invalid type"),
        (String::new(), "end at byte 0 of the data: there are 8"),
    ];
    for (header, reason) in cases {
        let header = format!("{{{header}}}");
        folder.write(WEIGHTS, safetensors_file(&header, &[0; 8]));
        folder.refused(&header, WEIGHTS, &[" bytes: ", reason])?;
    }
    Ok(())
}

fn promised_layers() -> Checked {
    let folder = Folder::whole();
    let most = Config::MAX_LAYERS as u64;
    for count in [0, most + 1, 1 << 24, 1 << 32, 1 << 40, u64::MAX] {
        let reason = format!("num_hidden_layers is {count}: expected 1 to {most}");
        for (mut config, lists) in [
            (config(), [("layer_types", Value::Null), ("full_attn_idxs", Value::Null)]),
            (config(), [("layer_types", Value::Null), ("full_attn_idxs", json!([0]))]),
            (config(), [("layer_types", json!(["conv"])), ("full_attn_idxs", Value::Null)]),
            (issue_config(), [("conv_layers", json!([0])), ("attention_layers", json!([1]))]),
        ] {
            config["num_hidden_layers"] = json!(count);
            for (key, value) in lists {
                config[key] = value;
            }
            folder.write(CONFIG, config.to_string());
            folder.refused(&config.to_string(), CONFIG, &[&reason])?;
        }
    }
    let cases = [
        (json!({"conv_layers": [0], "attention_layers": [0, 1]}), "layer 0 is in both"),
        (json!({"conv_layers": [], "attention_layers": [1]}), "layer 0 is in neither"),
        (json!({"conv_layers": [0], "attention_layers": []}), "layer 1 is in neither"),
        (json!({"conv_layers": [0, 2], "attention_layers": [1]}), "conv_layers names layer 2"),
        (json!({"conv_layers": [0], "attention_layers": [1, u64::MAX]}), "attention_layers names"),
    ];
    for (lists, reason) in cases {
        let mut config = issue_config();
        for (key, value) in lists.as_object().expect("an object") {
            config[key] = value.clone();
        }
        folder.write(CONFIG, config.to_string());
        folder.refused(&lists.to_string(), CONFIG, &[reason])?;
    }
    Ok(())
}

/// Layers that the configuration may have and the checkpoint has not.
fn promised_layers_reserve_nothing() -> Checked {
    let folder = Folder::whole();
    for indices in [json!([1]), Value::Null] {
        let mut config = config();
        config["num_hidden_layers"] = json!(Config::MAX_LAYERS);
        config["layer_types"] = Value::Null;
        config["full_attn_idxs"] = indices;
        folder.write(CONFIG, config.to_string());
        let missing = if config["full_attn_idxs"].is_null() { "layers.0" } else { "layers.2" };
        folder.refused("promised layers", "no tensor", &[missing])?;
    }
    Ok(())
}

/// As a tree of values, each of these takes many times its text.
fn long_texts_of_small_values() -> Checked {
    let list = |item: &str| format!("[{}{item}]", format!("{item},").repeat(30_000));
    let small = ["0", "[]", "{}", "{\"\":0}", "\"\"", "[{\"\":[]}]", "1e5"];
    for item in small {
        let list = list(item);
        let folder = Folder::whole();
        let text = config().to_string();
        folder.write(CONFIG, format!("{},\"unknown\":{list}}}", &text[..text.len() - 1]));
        folder.loads("an unknown key")?;
        for key in ["model_type", "num_hidden_layers", "full_attn_idxs", "rope_scaling"] {
            let mut config = config();
            config.as_object_mut().expect("an object").remove(key);
            config.as_object_mut().expect("an object").remove("layer_types");
            let text = config.to_string();
            folder.write(CONFIG, format!("{},\"{key}\":{list}}}", &text[..text.len() - 1]));
            // A list of zeros is one of layers.
            match (key, item) {
                ("full_attn_idxs", "0") => {
                    folder.refused("layer 0, often", "layers.0.self_attn", &["no tensor"])?;
                }
                _ => folder.refused(&format!("{key} of {item}"), CONFIG, &["line 1"])?,
            }
        }

        let folder = Folder::sharded();
        let text = index().to_string();
        folder.write(INDEX, format!("{},\"unknown\":{list}}}", &text[..text.len() - 1]));
        folder.loads("an unknown key of the index")?;
        folder.write(INDEX, format!("{{\"weight_map\":{list}}}"));
        folder.refused(&format!("weight_map of {item}"), INDEX, &["line 1"])?;

        let folder = Folder::whole();
        for key in ["shape", "data_offsets", "dtype", "unknown"] {
            let header = format!("{{\"a\":{{\"{key}\":{list}}}}}");
            folder.write(WEIGHTS, safetensors_file(&header, &[]));
            folder.refused(&format!("{key} of {item}"), WEIGHTS, &["line 1"])?;
        }
        let header = format!("{{\"__metadata__\":{list}}}");
        folder.write(WEIGHTS, safetensors_file(&header, &[]));
        folder.refused(&format!("metadata of {item}"), WEIGHTS, &["line 1"])?;
    }

    // Many entries that are as short as they may be.
    let entries = |entry: fn(usize) -> String| (0..20_000).map(entry).collect::<Vec<_>>().join(",");
    let folder = Folder::sharded();
    folder
        .write(INDEX, format!("{{\"weight_map\":{{{}}}}}", entries(|i| format!("\"{i:x}\":\"\""))));
    folder.refused("many names", INDEX, &["is not a file name"])?;
    let folder = Folder::whole();
    let empty = |i| format!(r#""{i:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    folder.write(WEIGHTS, safetensors_file(&format!("{{{}}}", entries(empty)), &[]));
    folder.refused("many tensors", "no tensor", &["embed_tokens"])?;
    let member = |i| format!("\"{i:x}\":\"\"");
    let header = format!("{{\"__metadata__\":{{{}}}}}", entries(member));
    folder.write(WEIGHTS, safetensors_file(&header, &[]));
    folder.refused("much metadata", "no tensor", &["embed_tokens"])?;
    let ones = format!("[{}1]", "1,".repeat(30_000));
    let header = format!(
        r#"{{"model.embed_tokens.weight":{{"dtype":"U8","shape":{ones},"data_offsets":[0,1]}}}}"#
    );
    folder.write(WEIGHTS, safetensors_file(&header, &[0]));
    folder.refused("many dimensions", "model.embed_tokens.weight", &[])
}

/// Files without data, whose size alone is hostile.
fn texts_that_are_too_long() -> Checked {
    for (folder, name) in [(Folder::whole(), CONFIG), (Folder::sharded(), INDEX)] {
        let file = fs::File::create(folder.path().join(name)).expect("a file can be made");
        file.set_len(1 << 32).expect("a file can be long");
        folder.refused("4 GiB", name, &["has 4294967296 bytes: expected at most"])?;
    }
    Ok(())
}

/// Two million entries for 65536 layers: to look each layer up in the list would take minutes. A fast machine needs 10 ms.
fn long_lists_of_layers_end_soon() -> Checked {
    let folder = Folder::whole();
    let last: Vec<_> = (0..Config::MAX_LAYERS).map(|i| i.to_string()).collect();
    let list = format!("[{}{}]", "0,".repeat(1_800_000), last.join(","));
    let mut config = issue_config();
    config["num_hidden_layers"] = json!(Config::MAX_LAYERS);
    config["attention_layers"] = json!([]);
    config.as_object_mut().expect("an object").remove("conv_layers");
    let text = config.to_string();
    folder.write(CONFIG, format!("{},\"conv_layers\":{list}}}", &text[..text.len() - 1]));
    let start = Instant::now();
    folder.refused("a long list of layers", "model.layers.1.conv", &["no tensor"])?;
    let took = start.elapsed();
    match took < Duration::from_secs(10) {
        true => Ok(()),
        false => Err(format!("took {took:?}").into()),
    }
}

fn long_values_are_not_repeated_whole() -> Checked {
    let long = "\u{7f}".repeat(1 << 20);
    let files = [
        (Folder::whole(), CONFIG, format!("{{\"hidden_size\":\"{long}\"}}").into_bytes()),
        (Folder::sharded(), INDEX, format!("{{\"weight_map\":\"{long}\"}}").into_bytes()),
        (Folder::whole(), WEIGHTS, safetensors_file(&format!("{{\"a\":\"{long}\"}}"), &[])),
    ];
    for (folder, name, bytes) in files {
        folder.write(name, bytes);
        folder.refused("a long string", name, &["invalid type: string", "... at line 1 column"])?;
        let Err(error) = folder.load()? else {
            unreachable!("refused above");
        };
        let length = error.to_string().len();
        if length > 1000 {
            return Err(format!("{name}: a message of {length} bytes").into());
        }
    }
    Ok(())
}

/// A folder; and on Unix a device that has no end, and a pipe that nobody writes to, which must not be waited for.
fn what_is_no_file() -> Checked {
    for (folder, name) in
        [(Folder::whole(), CONFIG), (Folder::sharded(), INDEX), (Folder::sharded(), SHARDS[1])]
    {
        let path = folder.path().join(name);
        let remove = || fs::remove_file(&path).expect("a file can be removed");
        remove();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/dev/zero", &path).expect("a link can be made");
            folder.refused("a device", name, &["not a regular file"])?;
            remove();
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            if !made.is_ok_and(|status| status.success()) {
                return Err("no pipe can be made: is there a mkfifo?".into());
            }
            folder.refused("a pipe", name, &["not a regular file"])?;
            remove();
        }
        fs::create_dir(&path).expect("a folder can be made");
        folder.refused("a folder", name, &["not a regular file"])?;
    }
    Ok(())
}
