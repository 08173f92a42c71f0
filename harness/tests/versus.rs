//! `lfm2 versus`, against a program that only says how long it took.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use approx::assert_relative_eq;
use lfm2_harness::emulator;
use serde_json::Value;
use tempfile::TempDir;

const SAYS_FIVE_SECONDS: &str = r#"
while [ $# -gt 0 ]; do
    case $1 in -t) t=$2;; -p) p=$2;; -n) n=$2;; -d) d=$2;; --twice) twice=1;; esac
    shift
done
test="{\"build_commit\":\"f00\",\"n_threads\":$t,\"n_prompt\":$p,\"n_gen\":$n,\"n_depth\":$d,\"samples_ns\":[5e9]}"
echo "[$test${twice:+,$test}]"
"#;

fn lfm2(arguments: &[&str]) -> Output {
    let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
    command.args(arguments).output().expect("the command can be started")
}

struct Setting {
    folder: TempDir,
    model: PathBuf,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/models/tied-gqa2");
        let model = folder.path().join("model.gguf");
        let [from, to] = [&from, &model].map(|path| path.to_str().expect("UTF-8"));
        let made = lfm2(&["quantize", "--model", from, "--format", "Q8_0", "--out", to]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { folder, model }
    }

    fn versus(&self, script: &str, arguments: &[&str]) -> Output {
        let program = self.folder.path().join("bench");
        fs::write(&program, format!("#!/bin/sh\n{script}")).expect("the script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("the script");
        let [program, model] = [&program, &self.model].map(|path| path.to_str().expect("UTF-8"));
        lfm2(
            &[&["versus", "--llama-bench", program, "--model", model, "--threads", "1"], arguments]
                .concat(),
        )
    }
}

#[test]
fn both_are_compared_task_by_task() {
    let setting = Setting::new();
    let arguments = ["--prompt", "12", "--generate", "3", "--depth", "0,5", "--json"];
    let output = setting.versus(SAYS_FIVE_SECONDS, &arguments);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["schema_version"], &report["llama_build"]), (&1.into(), &"f00".into()));
    let tasks = report["tasks"].as_array().expect("tasks");
    let of = |name: &str| tasks.iter().map(|task| task[name].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("prompt"), [12, 0, 12, 0]);
    assert_eq!(of("generate"), [0, 3, 0, 3]);
    assert_eq!(of("depth"), [0, 0, 5, 5]);
    let mut concludes = true;
    for task in tasks {
        let seconds = |side: &str| -> Vec<f64> {
            task[side]["seconds"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect()
        };
        assert_eq!(seconds("theirs"), [5.0; 12]);
        let tokens = (task["prompt"].as_f64().unwrap() + task["generate"].as_f64().unwrap()) / 5.0;
        assert_eq!(task["theirs"]["tokens_per_second"], tokens);
        let ours = seconds("ours");
        let mut ratios: Vec<_> = ours.chunks(2).map(|round| 10.0 / (round[0] + round[1])).collect();
        ratios.sort_by(f64::total_cmp);
        // JSON is read to the last place but one.
        for (found, expected) in [("low", ratios[0]), ("high", ratios[5])] {
            let found = task["ratio"][found].as_f64().unwrap();
            assert_relative_eq!(found, expected, max_relative = 1e-14);
        }
        assert_eq!(task["theirs"]["control"]["median"], 1.0);
        let percent = |side: &str| task[side]["percent_of_limit"].as_f64().unwrap();
        assert!(percent("ours") > percent("theirs") && percent("theirs") > 0.0);
        match task["verdict"].as_str().unwrap() {
            "faster" => assert!(ratios[0] > 1.0),
            // The machine was that busy.
            "no_conclusion" => concludes = false,
            other => panic!("{other}"),
        }
    }
    assert_eq!(output.status.code(), Some(i32::from(!concludes)));
}

#[test]
fn another_program_is_refused() {
    let setting = Setting::new();
    let refused = |script: &str, arguments: &[&str], expected: &[&str]| {
        let output = setting.versus(script, arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        for expected in expected {
            assert!(message.contains(expected), "{expected}: {message}");
        }
    };
    refused("echo 'no such model' >&2; exit 3", &[], &["bench failed", "3", "no such model"]);
    refused("echo pp512", &[], &["bench did not print the JSON of a llama-bench"]);
    refused(SAYS_FIVE_SECONDS, &["--", "--twice"], &["did 2 tests: expected one"]);
    refused(SAYS_FIVE_SECONDS, &["--", "-t", "7"], &["[7, 1, 0, 0]", "expected [1, 1, 0, 0]"]);
    refused(&SAYS_FIVE_SECONDS.replace("5e9", "0"), &[], &["gave times of [0.0]"]);
    let nothing = ["--prompt", "0", "--generate", "0"];
    refused(SAYS_FIVE_SECONDS, &nothing, &["--prompt or --generate must be more than 0"]);
    refused(SAYS_FIVE_SECONDS, &["--rounds", "5"], &["5 is not in 6..=1000"]);
    let absent = setting.folder.path().join("absent");
    let [model, absent] = [&setting.model, &absent].map(|path| path.to_str().expect("UTF-8"));
    let output = lfm2(&["versus", "--llama-bench", absent, "--model", model]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent is no file"));
}
