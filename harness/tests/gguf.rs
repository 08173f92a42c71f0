//! GGUF files as different writers make them: each gives the same logits as the plain one, or is refused for what it asks.

#[path = "../../fuzz/src/gguf.rs"]
mod gguf;

use std::fs;
use std::path::PathBuf;

use gguf::{
    BF16, F32, GgufFile, array_value, f32_value, i32_array, string_value, u32_value, value,
    value_type,
};
use lfm2_kernels::Isa;
use lfm2_kernels::format::Gguf;
use lfm2_kernels::model::{Error, ExpertsConfig, Logits, Model, Scratch, Sequence, Tensors};
use lfm2_kernels::ops::CacheElement;
use tempfile::TempDir;

fn write(file: &GgufFile) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    fs::write(&path, file.bytes()).expect("a file can be written");
    (folder, path)
}

fn logits(file: &GgufFile) -> Vec<f32> {
    let (_folder, path) = write(file);
    let model = Model::load(&path).unwrap_or_else(|error| panic!("{error}"));
    let mut state = model.new_state(5, CacheElement::F32);
    let mut logits = vec![f32::NAN; 5 * model.config().vocabulary];
    let sequence = Sequence { tokens: &[1, 3, 0, 2, 2], state: &mut state };
    model
        .forward(Isa::best(), &mut [sequence], &mut Scratch::default(), Logits::All(&mut logits))
        .expect("the tokens are in the vocabulary");
    logits
}

/// The same logits as those of the plain file, if `change` makes no difference.
fn same(what: &str, change: impl FnOnce(&mut GgufFile)) {
    let plain = GgufFile::model();
    let mut changed = plain.clone();
    change(&mut changed);
    assert_ne!(plain.bytes(), changed.bytes(), "{what}: nothing is changed");
    assert_eq!(logits(&plain), logits(&changed), "{what}");
}

fn refusal(change: impl FnOnce(&mut GgufFile)) -> String {
    let mut file = GgufFile::model();
    change(&mut file);
    let (_folder, path) = write(&file);
    match Model::load(&path) {
        Ok(_) => panic!("is not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn variants_give_the_same_logits() {
    same("the other name of the last norm", |file| {
        file.tensor("token_embd_norm.weight").name = "output_norm.weight".into();
    });
    same("heads in numbers without signs", |file| {
        let elements: Vec<u8> = [0_u32, 1].iter().flat_map(|heads| heads.to_le_bytes()).collect();
        file.set("lfm2.attention.head_count_kv", array_value(value_type::U32, 2, &elements));
    });
    same("one number of heads for all layers", |file| {
        file.set("lfm2.attention.head_count_kv", u32_value(1));
    });
    same("a convolution of three dimensions", |file| {
        file.tensor("blk.0.shortconv.conv.weight").sizes = vec![3, 1, 16];
    });
    same("a wrong width of the feed-forward", |file| {
        file.set("lfm2.feed_forward_length", u32_value(12288));
    });
    same("a wrong vocabulary", |file| file.set("lfm2.vocab_size", u32_value(65536)));
    same("no vocabulary", |file| file.unset("lfm2.vocab_size"));
    same("another alignment", |file| {
        file.set("general.alignment", u32_value(256));
        file.alignment = 256;
    });
    same("tensors in another order", |file| file.tensors.reverse());
    same("what asks for nothing", |file| {
        file.set("lfm2.attention.causal", value(value_type::BOOL, &[1]));
        file.set("lfm2.attention.sliding_window", u32_value(0));
        file.set("lfm2.rope.scaling.type", string_value("none"));
        file.set("lfm2.rope.dimension_count", u32_value(16));
        file.set("split.count", u32_value(1));
    });
    same("arrays within arrays", |file| {
        let inner = i32_array(&[1, 2]);
        file.set(
            "unknown",
            array_value(value_type::ARRAY, 2, &[&inner[4..], &inner[4..]].concat()),
        );
    });
    same("a key that nobody knows", |file| file.set("unknown", value(value_type::U8, &[7])));
    same("fused queries, keys and values", |file| {
        let parts = ["blk.1.attn_q.weight", "blk.1.attn_k.weight", "blk.1.attn_v.weight"];
        let data = parts.map(|name| file.tensor(name).data.clone()).concat();
        file.tensors.retain(|tensor| !parts.contains(&&*tensor.name));
        file.add("blk.1.attn_qkv.weight", &[16, 64], BF16);
        file.tensor("blk.1.attn_qkv.weight").data = data;
    });
    same("a head that is the embedding", |file| {
        let data = file.tensor("token_embd.weight").data.clone();
        file.add("output.weight", &[16, 4], BF16);
        file.tensor("output.weight").data = data;
    });
}

#[test]
fn a_head_of_its_own_is_used() {
    let plain = GgufFile::model();
    let mut untied = plain.clone();
    untied.add("output.weight", &[16, 4], BF16);
    assert_ne!(logits(&plain), logits(&untied));
}

#[test]
fn what_cannot_be_run_is_refused() {
    let refused = |key: &str, value: Vec<u8>, expected: &[&str]| {
        let message = refusal(|file| file.set(key, value));
        for part in ["model.gguf: ", key].iter().chain(expected) {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
    };
    refused("general.architecture", string_value("llama"), &["\"llama\"", "\"lfm2\""]);
    refused("general.architecture", u32_value(2), &["is 2", "\"lfm2\""]);
    refused("lfm2.attention.causal", value(value_type::BOOL, &[0]), &["is false: expected true"]);
    refused("lfm2.attention.sliding_window", u32_value(4096), &["is 4096: expected 0"]);
    refused("lfm2.rope.scaling.type", string_value("yarn"), &["is \"yarn\": expected \"none\""]);
    refused("lfm2.rope.dimension_count", u32_value(8), &["is 8", "16"]);
    refused("lfm2.attention.value_length", u32_value(8), &["is 8", "16"]);
    refused("split.count", u32_value(3), &["is 3", "not split"]);
    refused("lfm2.block_count", u32_value(0), &["is 0: expected 1"]);
    refused("lfm2.block_count", u32_value(1 << 20), &["is 1048576: expected at most"]);
    refused("lfm2.block_count", string_value("2"), &["is \"2\": expected 1"]);
    refused("lfm2.attention.head_count", u32_value(0), &["is 0: expected 1"]);
    refused("lfm2.rope.freq_base", u32_value(7), &["is 7: expected a number with a point"]);
    let heads = "lfm2.attention.head_count_kv";
    refused(heads, i32_array(&[0, 1, 0]), &["[0, 1, 0]", "each of 2 layers"]);
    refused(heads, i32_array(&[2, 1]), &["[2, 1]", "the same one"]);
    refused(heads, i32_array(&[0, -1]), &["[0, -1]"]);
    refused(heads, f32_value(1.0), &["is 1: expected 1 to 2^24"]);

    for (key, expected) in [
        ("general.architecture", "has no general.architecture: expected \"lfm2\""),
        (heads, "has no lfm2.attention.head_count_kv"),
        ("lfm2.embedding_length", "has no lfm2.embedding_length: expected 1 to 2^24"),
        ("lfm2.shortconv.l_cache", "has no lfm2.shortconv.l_cache"),
        ("lfm2.rope.freq_base", "has no lfm2.rope.freq_base"),
        ("lfm2.attention.layer_norm_rms_epsilon", "rms_epsilon: expected a number"),
    ] {
        let message = refusal(|file| file.unset(key));
        assert!(message.contains("model.gguf: ") && message.contains(expected), "{message}");
    }
    for (name, missing) in [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("token_embd_norm.weight", "model.embedding_norm.weight"),
        ("blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight"),
    ] {
        let message = refusal(|file| file.tensors.retain(|tensor| tensor.name != name));
        assert!(message.contains(missing), "{message}");
    }
}

/// The keys of a mixture of experts, but for those in `without`.
fn add_experts(file: &mut GgufFile, gating: u32, without: &[&str]) {
    for (key, _) in &mut file.entries {
        if let Some(rest) = key.strip_prefix(b"lfm2.") {
            *key = [b"lfm2moe.", rest].concat();
        }
    }
    file.set("general.architecture", string_value("lfm2moe"));
    for (key, value) in [
        ("expert_gating_func", gating),
        ("expert_count", 8),
        ("expert_used_count", 3),
        ("expert_feed_forward_length", 24),
        ("leading_dense_block_count", 0),
    ] {
        if !without.contains(&key) {
            file.set(&format!("lfm2moe.{key}"), u32_value(value));
        }
    }
}

#[test]
fn a_mixture_of_experts_is_read() {
    let config = |bias: &str| {
        let mut file = GgufFile::model();
        add_experts(&mut file, 2, &[]);
        file.add(bias, &[8], F32);
        let (_folder, path) = write(&file);
        let gguf = Gguf::open(&path).unwrap_or_else(|error| panic!("{error}"));
        gguf.config().unwrap_or_else(|error| panic!("{error}"))
    };
    let experts = ExpertsConfig {
        count: 8,
        used: 3,
        width: 24,
        dense_layers: 0,
        use_bias: true,
        normalise: true,
        scale: 1.0,
    };
    assert_eq!(config("blk.0.exp_probs_b.bias").experts, Some(experts));
    let without = ExpertsConfig { use_bias: false, ..experts };
    assert_eq!(config("something.else").experts, Some(without));
}

#[test]
fn an_unknown_mixture_of_experts_is_refused() {
    let message = refusal(|file| add_experts(file, 1, &[]));
    assert!(message.contains("expert_gating_func is 1: expected 2, the sigmoid"), "{message}");
    for key in ["expert_count", "expert_feed_forward_length", "leading_dense_block_count"] {
        let message = refusal(|file| add_experts(file, 2, &[key]));
        assert!(message.contains(&format!("has no lfm2moe.{key}: expected")), "{message}");
    }
}

#[test]
fn types_without_kernels_are_named() {
    const IQ4_NL: u32 = 20;
    let (name, hugging_face) = ("blk.0.ffn_gate.weight", "model.layers.0.feed_forward.w1.weight");
    let mut file = GgufFile::model();
    file.tensors.retain(|tensor| tensor.name != name);
    file.add(name, &[32, 24], BF16);
    let tensor = file.tensor(name);
    (tensor.kind, tensor.data) = (IQ4_NL, vec![0; 24 * 18]);
    let (_folder, path) = write(&file);
    let gguf = Gguf::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let Err(error) = gguf.tensor(hugging_face, &[]) else { panic!("is not refused") };
    assert!(matches!(error, Error::TensorType { .. }), "{error:?}");
    let message = error.to_string();
    for part in
        [hugging_face, "iq4_nl", "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k"]
    {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn experts_are_taken_apart() {
    const Q8_0: u32 = 8;
    let numbered =
        |bytes: usize, from: usize| (from..from + bytes).map(|i| i as u8).collect::<Vec<_>>();
    let mut file = GgufFile::model();
    file.add("blk.1.ffn_gate_inp.weight", &[16, 3], F32);
    file.add("blk.1.exp_probs_b.bias", &[3], F32);
    // Three experts of width 2 and hidden size 64, gate and up stacked apart or together.
    for (name, sizes, bytes) in [
        ("blk.1.ffn_gate_exps.weight", [64, 2, 3], 6 * 68),
        ("blk.1.ffn_up_exps.weight", [64, 2, 3], 6 * 68),
        ("blk.1.ffn_down_exps.weight", [32, 64, 3], 192 * 34),
        ("blk.0.ffn_gate_up_exps.weight", [64, 4, 3], 12 * 68),
    ] {
        file.add(name, &sizes, BF16);
        let tensor = file.tensor(name);
        (tensor.kind, tensor.data) = (Q8_0, numbered(bytes, name.len()));
    }
    let (_folder, path) = write(&file);
    let gguf = Gguf::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let get = |name: &str| {
        let name = format!("model.layers.{name}");
        gguf.tensor(&name, &[]).unwrap_or_else(|error| panic!("{error}"))
    };
    let is = |name: &str, shape: [usize; 2], bytes: Vec<u8>| {
        let tensor = get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(tensor.shape, shape, "{name}");
        assert_eq!(tensor.bytes[..], bytes[..], "{name}");
    };
    for expert in 0..3 {
        let name = |layer: usize, part: &str| {
            format!("{layer}.feed_forward.experts.{expert}.{part}.weight")
        };
        let rows = 2 * 68;
        is(
            &name(1, "w1"),
            [2, 64],
            numbered(rows, "blk.1.ffn_gate_exps.weight".len() + expert * rows),
        );
        is(
            &name(1, "w3"),
            [2, 64],
            numbered(rows, "blk.1.ffn_up_exps.weight".len() + expert * rows),
        );
        let down = "blk.1.ffn_down_exps.weight".len() + expert * 64 * 34;
        is(&name(1, "w2"), [64, 32], numbered(64 * 34, down));
        let fused = "blk.0.ffn_gate_up_exps.weight".len() + 2 * expert * rows;
        is(&name(0, "w1"), [2, 64], numbered(rows, fused));
        is(&name(0, "w3"), [2, 64], numbered(rows, fused + rows));
        assert!(get(&name(0, "w2")).is_none());
    }
    assert!(get("1.feed_forward.experts.3.w1.weight").is_none());
    assert!(get("1.feed_forward.experts.x.w1.weight").is_none());
    assert_eq!(get("1.feed_forward.gate.weight").expect("the router").shape, [3, 16]);
    assert_eq!(get("1.feed_forward.expert_bias").expect("the bias").shape, [3]);
}

/// Pages that are given back are read again.
#[test]
fn released_tensors_are_still_there() {
    let (_folder, path) = write(&GgufFile::model());
    let gguf = Gguf::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let name = "model.layers.0.feed_forward.w1.weight";
    let get = || gguf.tensor(name, &[]).expect("a good file").expect("the tensor");
    let before = get();
    let copy = before.bytes.to_vec();
    gguf.release(&before);
    assert_eq!(before.bytes[..], copy[..]);
    assert_eq!(get().bytes[..], copy[..]);
}
