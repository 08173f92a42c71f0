//! The command `lfm2`, run as a user runs it: what it writes, and how it refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The command, through the emulator where the tests themselves run in one.
fn lfm2(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_lfm2");
    let runner = std::env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER");
    let mut command = match runner {
        Ok(runner) if cfg!(target_arch = "aarch64") => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
        _ => Command::new(program),
    };
    command.args(arguments).output().expect("the command can be started")
}

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/models").join(name)
}

/// A copy of a model's files, to be damaged.
fn copy_of(name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(model(name)).expect("the fixture") {
        let entry = entry.expect("the fixture");
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The command must refuse with status 1 or 2, say each of `expected`, and leave no file.
fn refused(arguments: &[&str], expected: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out.safetensors");
    let mut all = arguments.to_vec();
    if arguments[0] == "logits" {
        all.extend(["--out", text(&out)]);
    }
    let output = lfm2(&all);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{all:?}: {:?}: {message}", output.status);
    for expected in expected {
        assert!(message.contains(expected), "{all:?}: no {expected:?} in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 0, "{all:?} left a file");
}

#[test]
fn bad_input_is_refused_with_its_reason() {
    let folder = model("tied-gqa2");
    let good = text(&folder);
    let absent = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    refused(&["logits", "--model", good, "--tokens", "1", "--isa", absent], &[absent, "scalar"]);
    refused(&["logits", "--model", good, "--tokens", "1", "--isa", "axv2"], &["axv2"]);
    refused(&["logits", "--model", good, "--tokens", ""], &["tokens"]);
    refused(&["logits", "--model", good, "--tokens", "1,160"], &["160", "vocabulary"]);
    refused(&["logits", "--model", good, "--tokens", "1,x"], &["x"]);
    refused(&["logits", "--model", "/no/such/folder", "--tokens", "1"], &["/no/such/folder"]);
    refused(&["golden", "/no/such/folder"], &["/no/such/folder"]);
    refused(&["generate", "--preset", "13b", "--tokens", "1"], &["13b", "350m"]);
    refused(&["check", "--op", "no such operation"], &["no such operation"]);
}

#[test]
fn a_truncated_file_is_refused() {
    for length in [0, 7, 200, 100_000] {
        let folder = copy_of("tied-gqa2");
        let weights = folder.path().join("model.safetensors");
        let bytes = fs::read(&weights).expect("the copy");
        fs::write(&weights, &bytes[..length]).expect("a truncated copy");
        refused(
            &["logits", "--model", text(folder.path()), "--tokens", "1"],
            &["model.safetensors"],
        );
    }
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    for (key, value, expected) in [
        ("model_type", serde_json::json!("llama"), "llama"),
        ("hidden_size", serde_json::json!(80), "shape"),
        ("conv_bias", serde_json::json!(true), "no tensor"),
        ("num_hidden_layers", serde_json::json!(6), "layer_types"),
        ("intermediate_size", serde_json::json!(999), "feed_forward"),
        ("num_attention_heads", serde_json::json!(3), "num_attention_heads"),
    ] {
        let folder = copy_of("tied-gqa2");
        let path = folder.path().join("config.json");
        let text_of = fs::read_to_string(&path).expect("the copy");
        let mut config: serde_json::Value = serde_json::from_str(&text_of).expect("JSON");
        config[key] = value;
        fs::write(&path, config.to_string()).expect("a changed copy");
        refused(&["logits", "--model", text(folder.path()), "--tokens", "1"], &[expected]);
    }
}

#[test]
fn a_missing_shard_is_refused() {
    let folder = copy_of("sharded");
    let shard = fs::read_dir(&folder)
        .expect("the copy")
        .map(|entry| entry.expect("the copy").path())
        .find(|path| text(path).contains("-of-"))
        .expect("a shard");
    fs::remove_file(&shard).expect("a file");
    refused(&["logits", "--model", text(folder.path()), "--tokens", "1"], &[text(&shard)]);
}

#[test]
fn logits_are_the_same_bytes_however_they_are_made() {
    let folder = model("bias-gqa3");
    let out = tempfile::tempdir().expect("a temporary folder");
    let file = out.path().join("logits.safetensors");
    let mut first = None;
    for isa in lfm2_kernels::Isa::available() {
        for (threads, chunk) in [("1", "whole"), ("2", "7"), ("2", "1")] {
            let output = lfm2(&[
                "logits",
                "--model",
                text(&folder),
                "--tokens",
                "1,5,9,200,330,7,7,3,2,11",
                "--isa",
                isa.name(),
                "--threads",
                threads,
                "--chunk",
                chunk,
                "--state",
                "--out",
                text(&file),
            ]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let bytes = fs::read(&file).expect("the file");
            assert!(
                *first.get_or_insert_with(|| bytes.clone()) == bytes,
                "{isa} {threads} {chunk}"
            );
        }
    }
}

#[test]
fn json_has_a_schema_version() {
    for arguments in [
        &["isas", "--json"][..],
        &["check", "--op", "^add$", "--json"],
        &["golden", text(&model("sharded")), "--json"],
    ] {
        let output = lfm2(arguments);
        assert!(output.status.success(), "{arguments:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(json["schema_version"].is_u64(), "{arguments:?}");
    }
}

#[test]
fn generating_goes_on_greedily() {
    let folder = model("tied-gqa2");
    let generate = |count: &str| {
        let output = lfm2(&[
            "generate",
            "--model",
            text(&folder),
            "--tokens",
            "1,2,3",
            "--max-new",
            count,
            "--json",
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json["tokens"].as_array().expect("tokens").clone()
    };
    let (short, long) = (generate("3"), generate("6"));
    assert_eq!((short.len(), long.len()), (3, 6));
    assert_eq!(short, long[..3]);
}
