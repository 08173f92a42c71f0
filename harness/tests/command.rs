//! The command `lfm2`, run as a user runs it: what it writes, and how it refuses.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::Duration;

use lfm2_harness::emulator;
use lfm2_kernels::Isa;
use lfm2_kernels::simd::ISA_NAMES;
use rustix::process::{Pid, Signal};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// The command, through the emulator where the tests themselves run in one.
fn lfm2(arguments: &[&str]) -> Output {
    let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
    command.args(arguments).output().expect("the command can be started")
}

/// The command's standard output, when it succeeds.
fn printed(arguments: &[&str]) -> String {
    let output = lfm2(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {:?}: {message}", output.status);
    assert!(message.is_empty(), "{arguments:?} is not quiet in a pipe: {message}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(arguments: &[&str]) -> Value {
    let json: Value = serde_json::from_str(&printed(arguments)).expect("JSON");
    assert_eq!(json["schema_version"], 1, "{arguments:?}");
    json
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

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    entries.map(|entry| name(entry).into_string().expect("a name in UTF-8")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The command must refuse with status 2, say each of `expected`, and leave no file.
fn refused(arguments: &[&str], expected: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out.safetensors");
    let mut all = arguments.to_vec();
    if ["logits", "quantize"].contains(&arguments[0]) {
        all.extend(["--out", text(&out)]);
    }
    let output = lfm2(&all);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{all:?}: {message}");
    for expected in expected {
        assert!(message.contains(expected), "{all:?}: no {expected:?} in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert!(output.stdout.is_empty(), "{all:?}: printed a result");
    assert_eq!(names_in(folder.path()), [""; 0], "{all:?} left a file");
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
    refused(&["logits", "--model", good, "--tokens", "@/no/such/file"], &["/no/such/file"]);
    refused(&["logits", "--model", good, "--tokens", "1", "--threads", "0"], &["--threads"]);
    refused(&["logits", "--model", good, "--tokens", "1", "--chunk", "0"], &["--chunk", "whole"]);
    refused(&["logits", "--model", good, "--tokens", "1", "--kv", "f8"], &["f8", "f16"]);
    refused(&["logits", "--model", good, "--tokens", "1", "--seed", "2"], &["--seed", "--model"]);
    refused(&["logits", "--tokens", "1"], &["--model", "--preset"]);
    refused(&["golden", "/no/such/folder"], &["/no/such/folder"]);
    refused(&["golden", text(&model(".."))], &["golden.safetensors"]);
    refused(&["golden", good, "--isa", absent], &[absent, "scalar"]);
    refused(&["generate", "--model", good, "--tokens", "1,160"], &["160", "vocabulary"]);
    refused(
        &["generate", "--model", good, "--tokens", "1", "--max-new", "9999999"],
        &["--max-new"],
    );
    refused(&["check", "--isa", absent], &[absent, "scalar"]);
    refused(&["generate", "--preset", "13b", "--tokens", "1"], &["13b", "350m"]);
    refused(&["scaling", "--cores", "64", "--sockets", "3"], &["--cores 64 --sockets 3"]);
    refused(&["scaling", "--cores", "8", "--operations", "9"], &["--operations 9", "8"]);
    refused(&["scaling", "--call", "decode"], &["decode-128x16"]);
    refused(&["scaling", "--preset", "lfm2-8b-a1b"], &["lfm2-8b-a1b", "350m"]);
    refused(&["scaling", "--format", "q4_0", "--activations", "bf16"], &["q4_0", "bf16"]);
    refused(&["scaling", "--socket-gb", "0"], &["above 0"]);
    refused(&["check", "--op", "no such operation"], &["no such operation"]);
    refused(&["quantize", "--model", good, "--format", "Q3_K"], &["Q3_K", "Q4_K_M"]);
    refused(&["quantize", "--model", good, "--preset", "230m", "--format", "F16"], &["--preset"]);
    refused(&["quantize", "--model", "/no/such/folder", "--format", "F16"], &["/no/such/folder"]);
    let biased = model("bias-gqa3");
    refused(
        &["quantize", "--model", text(&biased), "--format", "F16"],
        &["bias-gqa3", "conv_bias"],
    );
    let issue = model("issue-22287");
    refused(&["quantize", "--model", text(&issue), "--format", "F16"], &["issue #22287"]);
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
    for name in ["bias-gqa3", "issue-22287"] {
        for kv in ["f32", "f16"] {
            let mut first = None;
            for isa in Isa::available() {
                for (threads, chunk) in [("1", "whole"), ("1", "7"), ("2", "7"), ("2", "1")] {
                    let words = format!(
                        "--state --kv {kv} --isa {isa} --threads {threads} --chunk {chunk}"
                    );
                    let options: Vec<_> = words.split(' ').collect();
                    let bytes = logits_file(&model(name), "1,5,9,100,130,7,7,3,2,11", &options);
                    let first = first.get_or_insert_with(|| bytes.clone());
                    assert!(*first == bytes, "{name} with {words} gives other bytes");
                }
            }
        }
    }
}

/// The file that `lfm2 logits` writes.
fn logits_file(model: &Path, tokens: &str, options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("logits.safetensors");
    let mut arguments = vec!["logits", "--model", text(model), "--tokens", tokens];
    arguments.extend(["--out", text(&file)]);
    arguments.extend(options);
    printed(&arguments);
    assert_eq!(names_in(folder.path()), ["logits.safetensors"]);
    fs::read(&file).expect("the file")
}

#[test]
fn logits_and_state_are_those_of_the_golden_file() {
    for name in ["tied-gqa2", "bias-gqa3"] {
        let golden = fs::read(model(name).join("prompt_37.safetensors")).expect("the fixture");
        let golden = SafeTensors::deserialize(&golden).expect("the fixture");
        let tokens = token_ids(&golden).map(|token| token.to_string());
        let list = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(&list, tokens.collect::<Vec<_>>().join("\n")).expect("a file of tokens");
        let file = format!("@{}", text(list.path()));
        let bytes = logits_file(&model(name), &file, &["--state"]);
        let ours = SafeTensors::deserialize(&bytes).expect("a safetensors file");

        let state = |name: &str| name.starts_with("decode.") && !name.ends_with("_f64");
        let expected = golden.names().into_iter().filter(|name| state(name)).count() + 1;
        assert_eq!(ours.len(), expected, "{:?}", ours.names());
        for (name, tensor) in ours.tensors() {
            let twin = match name.as_str() {
                "logits" => "logits_f64".to_string(),
                _ => format!("decode.{name}_f64"),
            };
            let golden = golden.tensor(&twin).expect("a tensor of the same name");
            assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, golden.shape()), "{name}");
            let worst = f32s(tensor.data())
                .zip(f64s(golden.data()))
                .fold(0.0_f64, |worst, (a, b)| worst.max((f64::from(a) - b).abs()));
            // Values are of a size up to 10, and float32 of that graph is off by as much.
            assert!(worst < 1e-4, "{name} is off by {worst}");
        }
    }
}

fn token_ids(golden: &SafeTensors) -> impl Iterator<Item = i64> {
    let ids = golden.tensor("input_ids").expect("the fixture").data();
    ids.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes))
}

fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn f64s(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes))
}

#[test]
fn a_file_is_replaced_by_a_whole_one_only() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("logits.safetensors");
    fs::write(&file, "what was there").expect("a file");
    let model = model("sharded");
    let run = |tokens| {
        lfm2(&["logits", "--model", text(&model), "--tokens", tokens, "--out", text(&file)])
    };
    // The last token is past the vocabulary.
    assert_eq!(run("1,2,100000").status.code(), Some(2));
    assert_eq!(fs::read(&file).expect("the file"), b"what was there");
    assert!(run("1,2,3").status.success());
    SafeTensors::deserialize(&fs::read(&file).expect("the file")).expect("a whole file");
    assert_eq!(names_in(folder.path()), ["logits.safetensors"]);

    let inside = folder.path().join("none/logits.safetensors");
    for (out, expected) in [(folder.path(), "folder"), (&inside, "no such folder")] {
        refused_out(&model, out, expected);
    }
}

#[test]
fn a_file_of_the_same_weights_gives_the_same_logits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.gguf");
    for (name, format) in [
        ("tied-gqa2", "F32"),
        ("bf16-theta1e7", "BF16"),
        ("f16-untied", "F16"),
        ("bf16-experts", "BF16"),
    ] {
        let model = model(name);
        printed(&["quantize", "--model", text(&model), "--format", format, "--out", text(&file)]);
        let logits = |path: &Path| logits_file(path, "1,5,9,100,7,7", &["--state"]);
        assert!(logits(&model) == logits(&file), "{name} in {format}");
    }
}

#[test]
fn a_quantised_file_is_the_same_bytes_for_every_number_of_threads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.gguf");
    for (name, format) in [("tied-gqa2", "q4_0"), ("f16-untied", "Q4_K_M"), ("sharded", "F32")] {
        let model = model(name);
        let quantised = |threads| {
            let options = ["--format", format, "--out", text(&file), "--threads", threads];
            let arguments = [&["quantize", "--model", text(&model)], &options[..]].concat();
            assert!(printed(&arguments).contains(text(&file)));
            assert_eq!(names_in(folder.path()), ["model.gguf"]);
            fs::read(&file).expect("the file")
        };
        let one = quantised("1");
        assert!(one.starts_with(b"GGUF\x03\0\0\0"));
        assert!(one == quantised("3"), "{name} in {format}");
    }

    refused(&["quantize", "--model", text(&file), "--format", "F16"], &["folder", text(&file)]);

    // A file that is there stays if the new one fails.
    let before = fs::read(&file).expect("the file");
    let damaged = copy_of("tied-gqa2");
    let weights = damaged.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("the copy");
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).expect("the copy");
    let damaged = text(damaged.path());
    let output = lfm2(&["quantize", "--model", damaged, "--format", "Q8_0", "--out", text(&file)]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains(damaged) && message.contains("NaN"), "{message}");
    assert_eq!(names_in(folder.path()), ["model.gguf"]);
    assert!(fs::read(&file).expect("the file") == before);

    let inside = folder.path().join("none/model.gguf");
    for (out, expected) in [(folder.path(), "folder"), (&inside, "no such folder")] {
        let arguments = ["quantize", "--preset", "230m", "--format", "F16", "--out", text(out)];
        let output = lfm2(&arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

fn refused_out(model: &Path, out: &Path, expected: &str) {
    let output = lfm2(&["logits", "--model", text(model), "--tokens", "1", "--out", text(out)]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains(expected) && message.contains(text(out.parent().expect("a folder"))));
}

#[test]
fn golden_turns_red_when_a_logit_is_off() {
    let folder = copy_of("sharded");
    let report = json(&["golden", text(folder.path()), "--json"]);
    assert_eq!(report["passed"], true);
    let isas: Vec<_> = report["results"].as_array().expect("results").iter().collect();
    assert_eq!(isas.len(), Isa::available().len());
    assert!(isas.iter().all(|result| result["f64"]["nmse"].as_f64().expect("a number") < 1e-11));
    let compared: Vec<_> =
        isas.iter().map(|result| [&result["compared_with"], &result["equal_bits"]]).collect();
    assert_eq!(compared[0], [&Value::Null; 2], "the first has nothing to compare with");
    let with_first = [&isas[0]["isa"], &true.into()];
    assert!(compared[1..].iter().all(|compared| *compared == with_first), "{compared:?}");

    let path = folder.path().join("golden.safetensors");
    let bytes = fs::read(&path).expect("the copy");
    let logits = SafeTensors::deserialize(&bytes)
        .expect("the copy")
        .tensor("logits_f64")
        .expect("logits")
        .data();
    let at = logits.as_ptr().addr() - bytes.as_ptr().addr() + 8 * 77;
    let mut changed = bytes.clone();
    let value = f64::from_le_bytes(bytes[at..][..8].try_into().expect("eight bytes"));
    changed[at..][..8].copy_from_slice(&(value + 0.01).to_le_bytes());
    fs::write(&path, &changed).expect("the copy");
    let output = lfm2(&["golden", text(folder.path())]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("FAILED"), "{table}");

    fs::write(&path, &bytes[..bytes.len() - 1]).expect("the copy");
    refused(&["golden", text(folder.path())], &["golden.safetensors"]);
}

/// The command as a process group of its own, quiet, with `folder` for what it writes beside its result.
fn start(arguments: &[&str], folder: &Path) -> Child {
    let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
    command.args(arguments).env("TMPDIR", folder).process_group(0);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command can be started")
}

/// Waits until `is_there`, then sends `signal` to the whole group, which must end it.
fn interrupt(mut child: Child, is_there: impl Fn() -> bool, signal: Signal) {
    while !is_there() {
        let status = child.try_wait().expect("a child");
        assert!(status.is_none(), "it ended before it was interrupted: {status:?}");
        thread::sleep(Duration::from_millis(1));
    }
    rustix::process::kill_process_group(Pid::from_child(&child), signal).expect("a process");
    let status = child.wait().expect("a child");
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
}

#[test]
fn what_is_interrupted_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out");
    fs::write(&out, "what was there").expect("a file");
    let source = ["--preset", "350m", "--out", text(&out)];
    for arguments in [["logits", "--tokens", "1,2,3"], ["quantize", "--format", "Q4_K_M"]] {
        for signal in [Signal::INT, Signal::TERM] {
            let child = start(&[&arguments[..], &source].concat(), folder.path());
            interrupt(child, || names_in(folder.path()).len() == 2, signal);
            assert_eq!(names_in(folder.path()), ["out"], "{arguments:?}, {signal:?}");
            assert_eq!(fs::read(&out).expect("the file"), b"what was there");
        }
    }
}

/// Not even where it noted which case was under way.
#[test]
fn a_check_that_is_interrupted_leaves_its_report_alone() {
    let [temporary, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let report = folder.path().join("junit.xml");
    let arguments = ["check", "--op", "^model$", "--junit", text(&report)];
    interrupt(start(&arguments, temporary.path()), || report.exists(), Signal::INT);
    assert_eq!(names_in(temporary.path()), [""; 0]);
    assert_eq!(names_in(folder.path()), ["junit.xml"]);
    assert!(fs::read_to_string(&report).expect("a report").contains("did not end"));
}

/// The process that waits may learn that the other one, which does the work, was ended before the same signal reaches it.
#[test]
#[cfg(target_os = "linux")]
fn a_check_whose_work_is_ended_ends_by_the_same_signal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = start(&["check", "--op", "^model$"], folder.path());
    let id = child.id();
    let works = loop {
        assert!(child.try_wait().expect("a child").is_none(), "it ended by itself");
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        if let Some(works) = children.expect("the system's list").split_whitespace().next() {
            break works.parse().ok().and_then(Pid::from_raw).expect("a process");
        }
        thread::sleep(Duration::from_millis(1));
    };
    // Not an interrupt, which a script's programs in the background ignore.
    rustix::process::kill_process(works, Signal::TERM).expect("a process");
    let status = child.wait().expect("a child");
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status}");
}

/// One of llama.cpp's files.
fn gguf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/gguf").join(name)
}

#[test]
fn a_gguf_file_has_its_golden_beside_it_and_two_modes() {
    let path = gguf("tiny-q8_0.gguf");
    let best = Isa::best().name();
    let report = json(&["golden", text(&path), "--isa", best, "--json"]);
    let results = report["results"].as_array().expect("a list");
    let modes: Vec<_> = results.iter().map(|result| result["activations"].as_str()).collect();
    assert_eq!(modes, [Some("f32"), Some("int8")]);
    assert_eq!(results[0]["nmse_bound"], 1e-11);
    assert!(results[1]["nmse_bound"].as_f64() > Some(1e-4), "{report}");

    let golden = gguf("tiny-q8_0.golden.safetensors");
    let arguments = ["golden", text(&path), "--golden", text(&golden), "--isa", best, "--json"];
    let of_one = |mode: &str| json(&[&arguments[..], &["--activations", mode]].concat());
    assert_eq!(of_one("int8")["results"][0], results[1]);
    // A yardstick is known by the name of the file.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("copy.gguf");
    fs::copy(&path, &copy).expect("a copy");
    refused(&["golden", text(&copy)], &["copy.gguf", "copy.golden.safetensors"]);
    let arguments = ["golden", text(&copy), "--golden", text(&golden), "--activations", "int8"];
    refused(&arguments, &["yardstick.json"]);
    refused(&["golden", text(&path), text(&path), "--golden", text(&golden)], &["one PATH"]);
}

#[test]
fn activations_change_quantised_weights_alone_and_are_named() {
    let q8_0 = gguf("tiny-q8_0.gguf");
    let plain = model("tied-gqa2");
    let tokens = |path: &Path, mode: &str| {
        let arguments = ["--tokens", "1,2,3", "--max-new", "4", "--activations", mode, "--json"];
        let report = json(&[&["generate", "--model", text(path)], &arguments[..]].concat());
        assert_eq!(report["activations"], mode);
        report["tokens"].clone()
    };
    assert_eq!(tokens(&plain, "f32"), tokens(&plain, "int8"));
    assert_eq!(tokens(&q8_0, "f32").as_array().map(Vec::len), Some(4));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = |mode: &str| {
        let out = folder.path().join(mode);
        let arguments = ["--tokens", "1,2,3", "--activations", mode, "--out", text(&out)];
        let said = printed(&[&["logits", "--model", text(&q8_0)], &arguments[..]].concat());
        assert!(said.contains(&format!("activations in {mode}")), "{said}");
        fs::read(&out).expect("the file")
    };
    assert_ne!(written("f32"), written("int8"));
    refused(
        &["logits", "--model", text(&q8_0), "--tokens", "1", "--activations", "int4"],
        &["int4", "int8"],
    );
}

#[test]
fn golden_rounds_activations_where_weights_are_bf16() {
    let (rounded, plain) = (model("bf16-theta1e7"), model("tied-gqa2"));
    let mode = ["--activations", "bf16", "--isa", "scalar", "--json"];
    let report = json(&[&["golden", text(&rounded)][..], &mode].concat());
    assert_eq!(report["results"][0]["activations"], "bf16");
    assert_eq!(report["passed"], true);
    let arguments = [&["golden", text(&plain)][..], &mode].concat();
    refused(&arguments, &["f32 weights", "bf16 activations"]);
}

#[test]
fn inspect_shows_what_a_file_holds() {
    let path = gguf("tiny-q4_k_m.gguf");
    let report = json(&["inspect", text(&path), "--activations", "int8", "--json"]);
    assert_eq!((&report["format"], &report["activations"]), (&"gguf".into(), &"int8".into()));
    assert_eq!(report["model"]["layers"], 4);
    assert_eq!(report["refused"], Value::Null);
    let find = |list: &str, key: &str, name: &str| {
        let all = report[list].as_array().expect("a list");
        all.iter().find(|entry| entry[key] == name).expect(name).clone()
    };
    assert_eq!(find("metadata", "key", "lfm2.rope.freq_base")["value"], 1e6);
    assert_eq!(find("metadata", "key", "lfm2.attention.layer_norm_rms_epsilon")["value"], 1e-5);
    let heads = find("metadata", "key", "lfm2.attention.head_count_kv");
    assert_eq!(heads["value"], serde_json::json!([0, 2, 0, 2]));
    let embedding = find("tensors", "name", "token_embd.weight");
    assert_eq!(embedding["type"], "q6_k");
    assert_eq!(embedding["shape"], serde_json::json!([320, 256]));
    assert_eq!(embedding["bytes"], 320 * 210);
    assert_eq!(embedding["kernel"], "linear, int8 activations");
    let norm = find("tensors", "name", "blk.0.attn_norm.weight");
    assert_eq!(norm["kernel"], "widened to f32");
    assert!(printed(&["inspect", text(&path)]).contains("linear, f32 activations"));
    assert!(printed(&["inspect", text(&model("tied-gqa2"))]).contains("conv_L_cache"));
    let with_bf16 = |name| printed(&["inspect", text(&model(name)), "--activations", "bf16"]);
    assert!(with_bf16("bf16-theta1e7").contains("linear, bf16 activations"));
    assert!(!with_bf16("tied-gqa2").contains("linear, bf16 activations"));
    refused(&["inspect", "/no/such/file"], &["/no/such/file"]);
    refused(&["inspect", text(&gguf("yardstick.json"))], &["yardstick.json", "expected \"GGUF\""]);
}

#[test]
fn help_names_every_command_and_has_examples() {
    let help = printed(&["--help"]);
    for command in
        ["isas", "check", "golden", "inspect", "logits", "generate", "quantize", "report", "merge"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in {help}");
        let of_command = printed(&[command, "--help"]);
        assert!(of_command.contains("Usage: lfm2"), "{of_command}");
    }
    assert!(help.contains("Examples:") && help.contains("Exit status"), "{help}");
}

#[test]
fn isas_names_what_the_kernels_find() {
    let report = json(&["isas", "--json"]);
    let isas = report["isas"].as_array().expect("a list");
    let available = isas.iter().filter(|isa| isa["available"] == true);
    let available: Vec<_> = available.map(|isa| isa["name"].as_str().expect("a name")).collect();
    assert_eq!(available, Isa::available().into_iter().map(Isa::name).collect::<Vec<_>>());
    assert_eq!(report["best"], Isa::best().name());
    for name in available {
        assert!(printed(&["isas"]).contains(name));
    }
}

#[test]
fn json_has_a_schema_version() {
    json(&["check", "--op", "^add$", "--cases", "4", "--json"]);
}

#[test]
fn generating_takes_the_most_likely_token_each_time() {
    let folder = model("tied-gqa2");
    let golden = fs::read(folder.join("golden.safetensors")).expect("the fixture");
    let golden = SafeTensors::deserialize(&golden).expect("the fixture");
    let ids: Vec<_> = token_ids(&golden).map(|token| token.to_string()).collect();
    let logits: Vec<_> = f64s(golden.tensor("logits_f64").expect("logits").data()).collect();
    let generate = |prompt: &str, options: &[&str]| {
        let mut arguments =
            vec!["generate", "--model", text(&folder), "--tokens", prompt, "--json"];
        arguments.extend(options);
        json(&arguments)
    };
    let tokens = |report: &Value| -> Vec<u64> {
        let tokens = report["tokens"].as_array().expect("tokens").iter();
        tokens.map(|token| token.as_u64().expect("a token")).collect()
    };
    for length in [1, 2, 37, 320] {
        let row = &logits[(length - 1) * 160..][..160];
        let best = (1..160).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        let report = generate(&ids[..length].join(","), &["--max-new", "1", "--chunk", "16"]);
        assert_eq!(tokens(&report), [best as u64], "after {length} tokens");
        assert_eq!(report["prefill"]["tokens"], length);
    }

    // What was decoded is what a prompt that holds it would lead to.
    let all = tokens(&generate("1,2,3", &["--max-new", "6"]));
    assert_eq!(all.len(), 6);
    let mut prompt = "1,2,3".to_string();
    for token in &all {
        assert_eq!(tokens(&generate(&prompt, &["--max-new", "1"])), [*token], "after {prompt}");
        prompt += &format!(",{token}");
    }

    let stop = all[2].to_string();
    let stopped = generate("1,2,3", &["--max-new", "6", "--stop", &stop]);
    let end = all.iter().position(|token| *token == all[2]).expect("it is there");
    assert_eq!(tokens(&stopped), all[..=end]);
    assert_eq!(stopped["stopped"], true);

    let nothing = generate("1,2,3", &["--max-new", "0"]);
    assert!(tokens(&nothing).is_empty() && nothing["decode"]["tokens_per_second"].is_null());
    let memory = &generate("1", &["--kv", "f16"])["memory"];
    for part in ["weights_bytes", "state_bytes", "scratch_bytes"] {
        assert!(memory[part].as_u64().is_some_and(|bytes| bytes > 0), "{part}");
    }
}

#[test]
fn a_case_is_run_again_from_its_line() {
    let line = "add:length=3:scalar:7:uniform:threads=2";
    let text = printed(&["check", "--repro", line]);
    assert!(text.starts_with(&format!("ok     {line}\n")), "{text}");
    refused(&["check", "--repro", "add:width=3:scalar:7:uniform"], &["length=N"]);
    let sizes = "rows=1,first_position=1,newer=0,key_value_heads=1,group=1,head_dim=0,room=0";
    let line = format!("attention_f32:{sizes}:scalar:7:uniform");
    refused(&["check", "--repro", &line], &["head_dim=0", "a multiple of 16 up to 128"]);
    refused(&["check", "--repro", "add:length=3:scalar:7:uniform", "--op", "add"], &["--op"]);
    let list = printed(&["check", "--list", "--op", "^rope$"]);
    assert!(list.contains("rope") && list.contains("theta") && list.contains("scalar"), "{list}");
}

#[test]
fn the_list_is_what_runs() {
    let chosen = ["--op", "^(add|linear_(f32|bf16|q4_0_int8))$", "--cases", "4", "--json"];
    let list = json(&[&["check", "--list"], &chosen[..]].concat());
    let run = json(&[&["check"], &chosen[..]].concat());
    let array = |value: &Value| value.as_array().expect("a list").clone();
    let rows = array(&list["operations"]);
    let formats: Vec<_> = rows.iter().map(|row| (&row["operation"], &row["format"])).collect();
    assert_eq!(formats.len(), 4);
    for format in ["bf16", "q4_0_int8"] {
        assert!(formats.contains(&(&"linear".into(), &format.into())), "{formats:?}");
    }
    for name in ISA_NAMES {
        let is_checked = array(&run["isas"]).contains(&name.into());
        let place = if is_checked { "checked" } else { "not-on-this-cpu" };
        assert_eq!(list["isas"][name], place, "{name}");
    }
    let results = array(&run["results"]);
    assert_eq!(results.len(), rows.len() * Isa::available().len());
    for result in &results {
        let row = rows.iter().find(|row| row["op"] == result["op"]).expect("it is listed");
        assert_eq!(row["cases"], result["cases"]);
        let floor = row["floor"].as_object().expect("an object");
        let planned = result["planned_cases"].as_object().expect("an object");
        assert!(floor.keys().eq(planned.keys()));
        for (check, least) in floor {
            let judged = result["judged_cases"][check].as_u64();
            assert!(judged >= least.as_u64(), "{check}: {judged:?} of {least}");
            assert_eq!(judged, planned[check].as_u64(), "{check}");
        }
    }
}

#[test]
fn a_full_check_has_the_hashes_of_a_quick_one() {
    let check = |depth| json(&["check", depth, "--op", "^add$", "--cases", "0", "--json"]);
    let (quick, full) = (check("--quick"), check("--full"));
    assert_eq!((&quick["depth"], &full["depth"]), (&"quick".into(), &"full".into()));
    assert_eq!(quick["hashes"], full["hashes"]);
    let cases = |report: &Value| report["results"][0]["cases"].as_u64().expect("a number");
    // Two ordinary cases and four guarded ones of each shape; then twelve fills on one to four threads, and the same four.
    assert_eq!(6 * cases(&full), 52 * cases(&quick));
    refused(&["check", "--quick", "--full"], &["--quick", "--full"]);
}

#[test]
fn the_options_in_the_readme_are_those_that_there_are() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let mut options = 0;
    for line in readme.lines() {
        let Some((_, command)) = line.split_once("lfm2 -- ") else { continue };
        let mut words = command.split_whitespace().take_while(|word| *word != "#");
        let help = printed(&[words.next().expect("a command"), "--help"]);
        for option in words.filter(|word| word.starts_with("--")) {
            assert!(help.split_whitespace().any(|word| word == option), "{option} in {line}");
            options += 1;
        }
    }
    assert!(options > 10, "{options} options in the README");
}

#[test]
fn junit_has_a_suite_for_each_instruction_set_and_a_test_for_each_operation() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("junit.xml");
    printed(&["check", "--op", "^(add|argmax)$", "--cases", "4", "--junit", text(&file)]);
    assert_eq!(names_in(folder.path()), ["junit.xml"]);
    let xml = fs::read_to_string(&file).expect("the file");
    let report = quick_junit::Report::deserialize_from_str(&xml).expect("JUnit XML");
    let isas = Isa::available();
    assert_eq!((report.tests, report.failures, report.errors), (2 * isas.len(), 0, 0));
    for (suite, isa) in report.test_suites.iter().zip(isas) {
        assert_eq!(suite.name.as_str(), isa.name());
        let tests: Vec<&str> = suite.test_cases.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(tests, ["add", "argmax"]);
    }
    refused(
        &["check", "--op", "^add$", "--junit", "/no/such/folder/junit.xml"],
        &["no such folder"],
    );
}

#[test]
fn every_input_is_checked_or_every_nth() {
    let report = json(&["check", "--exhaustive", "--stride", "65535", "--json"]);
    assert_eq!((&report["is_right"], &report["inputs"]), (&true.into(), &65538.into()));
    let functions = report["functions"].as_array().expect("functions");
    let names: Vec<_> = functions.iter().map(|function| &function["name"]).collect();
    assert_eq!(names, ["exp", "sigmoid", "silu"]);
    for range in functions.iter().flat_map(|f| f["ranges"].as_array().expect("ranges")) {
        let number = |name: &str| range[name].as_f64().expect("a number");
        assert!(number("measured") > 0.0 && number("largest_error") <= number("limit"), "{range}");
    }
    refused(&["check", "--exhaustive", "--stride", "2"], &["--stride", "odd"]);
    refused(&["check", "--exhaustive", "--stride", "65537"], &["--stride", "65535"]);
    refused(&["check", "--exhaustive", "--op", "exp"], &["--exhaustive", "--op"]);
    refused(&["check", "--stride", "3"], &["--exhaustive"]);
}

#[test]
fn results_of_machines_are_merged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name| folder.path().join(name).display().to_string();
    let (one, two, three) = (path("one"), path("two"), path("three"));
    let result = printed(&["check", "--op", "^(add|argmax)$", "--cases", "4", "--json"]);
    fs::write(&one, &result).expect("a file");
    fs::write(&two, &result).expect("a file");
    let mut changed: Value = serde_json::from_str(&result).expect("JSON");
    changed["hashes"]["add"] = "0".into();
    fs::write(&three, changed.to_string()).expect("a file");

    let merged = json(&["merge", &one, &two, "--json"]);
    assert_eq!(merged["is_right"], true);
    let output = lfm2(&["merge", &one, &two, &three]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.lines().any(|line| line.starts_with("add") && line.ends_with("DIFFERS")),
        "{text}"
    );
    assert!(text.lines().any(|line| line.starts_with("argmax") && line.ends_with("ok")), "{text}");

    fs::write(&three, "{}").expect("a file");
    refused(&["merge", &one, &three], &["three", "not a result"]);
    refused(&["merge", &one, &path("absent")], &["absent"]);
    refused(&["merge", &one], &["FILE"]);
}

/// What a simulation says does not depend on the machine's mood.
#[test]
fn scaling_is_simulated() {
    let question = ["scaling", "--cores", "6", "--call", "decode-0", "--operations", "6"];
    let text = printed(&question);
    assert_eq!(text, printed(&question));
    assert!(text.contains("6 cores on 2 sockets") && text.contains("out_proj"), "{text}");

    let question = [&question[..], &["--json"]].concat();
    let rows = json(&question)["calls"][0]["threads"].clone();
    let numbers = |name: &str| {
        let rows = rows.as_array().expect("rows").iter();
        rows.map(|row| row[name].as_f64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(numbers("threads"), [1.0, 2.0, 4.0, 6.0]);
    assert_eq!(numbers("speedup")[0], 1.0);
    assert!(
        numbers("speedup").is_sorted() && numbers("efficiency").iter().all(|&share| share <= 1.0)
    );
}

#[test]
fn an_instruction_set_is_checked_without_its_dot_products() {
    let Some(without) = Isa::best().without_dots() else { return };
    let list = format!("scalar,{without}");
    let report = json(&["check", "--op", "^add$", "--isa", &list, "--cases", "1", "--json"]);
    assert_eq!(report["isas"], serde_json::json!(["scalar", without.name()]));
}

#[test]
fn an_instruction_set_begins_with_a_template() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sse9.rs");
    let template = printed(&["bring-up", "--template", "sse9"]);
    assert!(template.contains("pub struct Sse9(());"), "{template}");
    assert_eq!(printed(&["bring-up", "--template", "sse9", "--out", text(&file)]), "");
    assert_eq!(fs::read_to_string(&file).expect("the file"), template);
    refused(&["bring-up", "--template", "sse8", "--out", text(&file)], &["sse9.rs exists"]);
    assert_eq!(fs::read_to_string(&file).expect("the file"), template);
    assert_eq!(names_in(folder.path()), ["sse9.rs"]);
    refused(&["bring-up", "--template", "sse9", "--out", "/no/such/folder/f"], &["no such folder"]);
    refused(&["bring-up", "--template", "avx2"], &["there is an instruction set avx2"]);
    refused(&["bring-up", "--template", "../sse9"], &["../sse9", "lower-case letters"]);
    refused(&["bring-up", "--template", "sse9", "--until", "lanes"], &["--template", "--until"]);
}

#[test]
fn an_instruction_set_is_looked_at_stage_by_stage() {
    let absent = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    refused(&["bring-up"], &["--isa", "--template"]);
    refused(&["bring-up", "--isa", absent], &[absent, "scalar"]);
    refused(&["bring-up", "--isa", "axv2"], &["axv2", "--template"]);
    refused(&["bring-up", "--isa", "scalar"], &["lfm2 check --isa scalar"]);
    let Some(isa) = Isa::available().get(1).copied() else { return };
    let until = ["--until", "unary", "--cases", "2"];
    let text = printed(&[&["bring-up", "--isa", isa.name()], &until[..]].concat());
    let stages: Vec<&str> =
        text.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    assert_eq!(stages[..2], ["lanes", "unary"], "{text}");
    assert!(text.contains(" verbs ") && text.contains("\nsilu_multiply "), "{text}");
    assert!(!text.contains("reductions") && !text.contains("FAILED"), "{text}");
    assert!(text.ends_with(&format!("lfm2 bring-up --isa {isa}\n")), "{text}");
}
