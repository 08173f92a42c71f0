//! `lfm2 time`, and `lfm2 ab` with programs that only say how long they took.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use lfm2_harness::emulator;
use lfm2_harness::report::Id;
use lfm2_kernels::Isa;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

fn lfm2(arguments: &[&str]) -> Output {
    let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
    command.args(arguments).output().expect("the command can be started")
}

fn printed(arguments: &[&str]) -> Value {
    let output = lfm2(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.is_empty(), "{arguments:?}: {message}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn refused(output: &Output, expected: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty(), "{message}");
    for expected in expected {
        assert!(message.contains(expected), "`{expected}` is not in: {message}");
    }
}

#[test]
fn every_case_has_a_name_of_the_grammar() {
    let list = printed(&["time", "--list", "--json", "--threads", "1"]);
    assert_eq!(list["schema_version"], 1);
    assert!(list["machine"]["threads"].as_u64() > Some(0));
    let cases = list["cases"].as_array().expect("cases");
    assert!(cases.len() > 50, "{}", cases.len());
    for case in cases {
        let id: Id = case["id"].as_str().expect("an id").parse().expect("of the grammar");
        assert_eq!((id.isa.as_str(), id.threads), (Isa::best().name(), 1));
        assert!(case["work"]["rows"].as_u64() > Some(0) && case.get("seconds").is_none(), "{case}");
    }
    let full = printed(&["time", "--list", "--json", "--threads", "1", "--full"]);
    let full = full["cases"].as_array().expect("cases");
    assert!(cases.iter().all(|case| full.contains(case)) && full.len() > 5 * cases.len());
}

#[test]
fn what_matches_is_timed() {
    let arguments = ["--filter", "^add/.*/1x1024/", "--isa", "scalar", "--threads", "1"];
    let times = printed(&[&["time", "--json", "--each", "1ms"], &arguments[..]].concat());
    let [case] = &times["cases"].as_array().expect("cases")[..] else { panic!("{times}") };
    assert_eq!(case["id"], "add/scalar/f32/1x1024/1");
    assert!(case["seconds"].as_f64() > Some(0.0) && case["runs"].as_u64() > Some(2), "{case}");
    let list = lfm2(&[&["time", "--list"], &arguments[..]].concat());
    assert_eq!(list.stdout, b"add/scalar/f32/1x1024/1\n");
    let times = printed(&[&["time", "--json", "--runs", "5"], &arguments[..]].concat());
    assert_eq!(times["cases"][0]["runs"], 5);
    refused(&lfm2(&["time", "--filter", "none"]), &["no case matches `none`", "--list", "--full"]);
    refused(&lfm2(&["time", "--each", "0ms"]), &["at least 1ms"]);
    refused(&lfm2(&["time", "--filter", "("]), &["unclosed group"]);
}

/// Two programs, made of what the real one says of itself.
struct Programs {
    folder: TempDir,
    /// Two cases.
    list: Value,
}

const FAST: &str = "add/scalar/f32/1x1024/1";
const SLOW: &str = "rms_norm/scalar/f32/1x1024/1";

impl Programs {
    fn new() -> Self {
        let filter = format!("^({FAST}|{SLOW})$");
        let chosen = ["--isa", "scalar", "--threads", "1", "--filter", &filter];
        let list = printed(&[&["time", "--list", "--json"], &chosen[..]].concat());
        assert_eq!(list["cases"].as_array().map(Vec::len), Some(2));
        Self { folder: tempfile::tempdir().expect("a temporary folder"), list }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that does this.
    fn script(&self, name: &str, script: &str) {
        let program = self.path(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("the script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("the script");
    }

    /// A program that has these cases and says how many seconds each takes.
    fn program(&self, name: &str, list: &Value, seconds: &[(&str, f64)]) {
        let mut times = list.clone();
        for case in times["cases"].as_array_mut().expect("cases") {
            let value = seconds.iter().find(|(id, _)| case["id"] == *id);
            if let Some((_, seconds)) = value {
                case["seconds"] = json!(seconds);
                case["runs"] = json!(7);
            }
        }
        let write = |what: &str, content: &Value| {
            let path = self.path(&format!("{name}.{what}"));
            fs::write(&path, content.to_string()).expect("the file");
            path.display().to_string()
        };
        let (list, times) = (write("list", list), write("times", &times));
        let script = format!("case \"$*\" in *--list*) cat '{list}';; *) cat '{times}';; esac");
        self.script(name, &script);
    }

    fn ab(&self, arguments: &[&str]) -> Output {
        let [base, head] = ["base", "head"].map(|name| self.path(name).display().to_string());
        lfm2(&[&["ab", "--base", &base, "--head", &head], arguments].concat())
    }
}

#[test]
fn what_is_slower_is_red_and_the_rest_is_not() {
    let programs = Programs::new();
    programs.program("base", &programs.list, &[(FAST, 1e-6), (SLOW, 2e-6)]);
    programs.program("head", &programs.list, &[(FAST, 1e-6), (SLOW, 2.2e-6)]);
    let file = programs.path("summary.md");
    let markdown = ["--markdown", file.to_str().expect("UTF-8"), "--seed", "5", "--blocks", "6"];
    let output = programs.ab(&[&markdown[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "not quiet in a pipe");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["schema_version"], &report["outcome"]), (&json!(1), &json!("regression")));
    assert_eq!(report["plan"], json!({ "blocks": [6, 18], "seed": 5 }));
    let case = |id: &str| {
        let cases = report["cases"].as_array().expect("cases");
        cases.iter().find(|case| case["id"] == id).expect("the case")
    };
    let (fast, slow) = (case(FAST), case(SLOW));
    assert_eq!((&fast["verdict"], &fast["stage"]), (&json!("no_regression"), &json!(1)));
    assert_eq!((&slow["verdict"], &slow["stage"]), (&json!("regression"), &json!(2)));
    let mean = slow["ratio"]["mean"].as_f64().expect("a ratio");
    assert!((mean - 1.1).abs() < 1e-9, "{mean}");
    let block = json!({ "base": [2e-6, 2e-6], "head": [2.2e-6, 2.2e-6], "control": [2e-6, 2e-6] });
    assert_eq!(slow["blocks"], json!(vec![block; 18]));
    let written = fs::read_to_string(&file).expect("the file");
    let conclusion = "regression: the head is slower in 1 of 2 cases";
    assert!(written.starts_with(&format!("**{conclusion}**")), "{written}");
    assert!(written.contains(&format!("| `{SLOW}` | 2.00 µs | 2.20 µs | 1.100 (")), "{written}");
    let text = String::from_utf8(programs.ab(&markdown).stdout).expect("UTF-8");
    assert!(text.ends_with(&format!("{conclusion}\n")) && text.contains("SLOWER"), "{text}");

    // The other way round, it is faster.
    fs::rename(programs.path("base"), programs.path("new")).expect("the program");
    fs::rename(programs.path("head"), programs.path("base")).expect("the program");
    fs::rename(programs.path("new"), programs.path("head")).expect("the program");
    let output = programs.ab(&["--blocks", "6"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("faster") && text.ends_with("no regression in 2 cases\n"), "{text}");
}

/// A user's profile must not apply to one of them alone.
#[test]
fn neither_program_takes_the_users_profile() {
    let programs = Programs::new();
    programs.program("real", &programs.list, &[(FAST, 1e-6), (SLOW, 1e-6)]);
    let [real, asked] = ["real", "asked"].map(|name| programs.path(name));
    let (real, asked) = (real.display(), asked.display());
    let tell = format!("echo \"$0 $*\" >> '{asked}'; exec '{real}' \"$@\"");
    // A build from before there were profiles.
    let refuse = "case \"$*\" in *--profile*) echo \"error: unexpected argument '--profile' found\" >&2; exit 2;; esac";
    programs.script("base", &format!("{refuse}; {tell}"));
    programs.script("head", &tell);
    let output = programs.ab(&["--blocks", "6"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = fs::read_to_string(programs.path("asked")).expect("the file");
    let of = |name: &str| asked.lines().filter(|line| line.contains(name)).collect::<Vec<_>>();
    let (base, head) = (of("/base "), of("/head "));
    assert!(base.len() > 20 && base.iter().all(|line| !line.contains("--profile")), "{asked}");
    assert!(head.len() > 10 && head.iter().all(|line| line.ends_with("--profile none")), "{asked}");
}

#[test]
fn a_machine_that_jumps_is_inconclusive() {
    let programs = Programs::new();
    for (name, seconds) in [("one", 1e-6), ("two", 3e-6)] {
        programs.program(name, &programs.list, &[(FAST, seconds), (SLOW, seconds)]);
    }
    // Every third process finds another machine.
    let [count, one, two] = ["count", "one", "two"].map(|name| programs.path(name));
    let [count, one, two] = [count.display(), one.display(), two.display()];
    let script = format!(
        "echo >> '{count}'; if [ $(( $(wc -l < '{count}') % 3 )) = 0 ]; then exec '{two}' \"$@\"; else exec '{one}' \"$@\"; fi"
    );
    programs.script("base", &script);
    programs.script("head", &script);
    let output = programs.ab(&["--blocks", "6", "--seed", "1", "--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["outcome"], "inconclusive");
    for case in report["cases"].as_array().expect("cases") {
        assert!(["too_noisy", "control_disagrees"].contains(&case["verdict"].as_str().unwrap()));
    }
    let output = programs.ab(&["--blocks", "6", "--seed", "1"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("inconclusive: "));
}

#[test]
fn what_only_one_has_is_named() {
    let programs = Programs::new();
    let (mut base, mut head) = (programs.list.clone(), programs.list.clone());
    base["cases"][0]["id"] = json!("gone/scalar/f32/1/1");
    head["cases"][0]["id"] = json!("new/scalar/f32/1/1");
    programs.program("base", &base, &[(FAST, 1.0), (SLOW, 1.0)]);
    programs.program("head", &head, &[(FAST, 1.0), (SLOW, 1.0)]);
    let output = programs.ab(&["--blocks", "6"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in
        ["gone/scalar/f32/1/1 is only in the base", "new/scalar/f32/1/1 is only in the head"]
    {
        assert!(text.contains(&format!("not compared: {line}\n")), "{text}");
    }
    assert!(text.ends_with("no regression in 1 case\n"), "{text}");
    // Of the other one, too, nothing is left to compare.
    head["cases"][1]["work"]["rows"] = json!(9);
    programs.program("head", &head, &[(FAST, 1.0), (SLOW, 1.0)]);
    let message = "does other work in the head";
    refused(&programs.ab(&[]), &["no case can be compared", message, "is only in the base"]);
    base["cases"] = json!([]);
    programs.program("base", &base, &[]);
    programs.program("head", &base, &[]);
    refused(&programs.ab(&[]), &["no case can be compared"]);
}

#[test]
fn programs_that_fail_are_named() {
    let programs = Programs::new();
    let seconds = [(FAST, 1e-6), (SLOW, 2e-6)];
    programs.program("base", &programs.list, &seconds);
    let file = programs.path("summary.md");
    fs::write(&file, "old").expect("the file");
    let refuses = |arguments: &[&str], expected: &[&str]| {
        let markdown = ["--markdown", file.to_str().expect("UTF-8"), "--blocks", "6"];
        refused(
            &programs.ab(&[&markdown[..], arguments].concat()),
            &[expected, &["/head"]].concat(),
        );
        assert_eq!(fs::read_to_string(&file).expect("the file"), "old");
    };
    let script = |script: &str, expected: &[&str]| {
        programs.script("head", script);
        refuses(&["--limit", "2s"], expected);
    };
    script("echo 'no memory' >&2; exit 7", &["failed: exit status: 7", "no memory"]);
    script("kill -SEGV $$", &["signal: 11"]);
    script("exec sleep 60", &["was stopped, as it ran for more than 2s", "--limit"]);
    script("echo hello", &["printed no such JSON", "lfm2 time --json"]);
    script("echo '{}'", &["without schema_version"]);
    script("echo '{\"schema_version\":99}'", &["schema version 99", "schema version 1"]);
    script("echo '{\"schema_version\":1}'", &["without what is needed"]);

    let program = |seconds: &[(&str, f64)], expected: &[&str]| {
        programs.program("head", &programs.list, seconds);
        refuses(&[], expected);
    };
    program(&[(FAST, 1.0)], &["named rms_norm/", "but did not time it"]);
    program(&[(FAST, 1.0), (SLOW, 0.0)], &["took 0 seconds for rms_norm/"]);

    let mut other = programs.list.clone();
    other["machine"]["governor"] = json!("other");
    programs.program("head", &other, &seconds);
    refused(&programs.ab(&[]), &["not run on the same machine", "governor", "other"]);
    // Under an emulator, starting it is no error, but a child that fails.
    if !emulator::is_at_work() {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(programs.path("head"), mode).expect("the script");
        refuses(&[], &["cannot be started: Permission denied"]);
    }
    fs::remove_file(programs.path("head")).expect("the program");
    refuses(&[], &["is no file: expected a build of lfm2"]);
    refused(&programs.ab(&["--markdown", "/absent/summary.md"]), &["/absent: no such folder"]);
    refused(&programs.ab(&["--blocks", "5"]), &["5 is not in 6..=1000"]);
}

/// With a valgrind that says what it is told.
#[test]
fn instructions_are_those_that_more_runs_take_more() {
    let programs = Programs::new();
    let seconds = [(FAST, 1e-6), (SLOW, 2e-6)];
    programs.program("base", &programs.list, &seconds);
    programs.program("head", &programs.list, &seconds);
    let counted = |script: &str| {
        programs.script("valgrind", script);
        let [base, head] = ["base", "head"].map(|name| programs.path(name).display().to_string());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
        command.env("PATH", format!("{}:{path}", programs.folder.path().display()));
        command.args(["ab", "--base", &base, "--head", &head, "--counts", "--blocks", "6"]);
        let json = command.arg("--json").output().expect("the command can be started");
        let report: Value = serde_json::from_slice(&json.stdout).expect("JSON");
        let counts = report["cases"][0]["instructions"].clone();
        command.args(["--markdown", "/dev/stderr"]);
        let output = command.output().expect("the command can be started");
        (counts, String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let script = r#"
for runs; do :; done
case "$*" in *'/base '*) each=1000;; *) each=1100;; esac
echo "noise from elsewhere" >&2
echo "==7== I   refs:      2,$((100000000 + each * runs))" >&2"#;
    let (counts, markdown) = counted(script);
    assert_eq!((&counts["base"], &counts["head"]), (&json!(1000), &json!(1100)));
    assert!(markdown.contains("| instructions |") && markdown.contains("| 1.1000 |"), "{markdown}");
    let (counts, markdown) =
        counted("echo 'error: no such lanes' >&2; echo '==7== bye' >&2; exit 2");
    let none = counts["none"].as_str().expect("a reason");
    assert!(none.contains("exit status: 2: error: no such lanes"), "{none}");
    assert!(markdown.contains("| no counts |") && markdown.contains(none), "{markdown}");
    let (counts, _) = counted("echo '==7== nothing' >&2");
    assert_eq!(counts["none"], "valgrind counted nothing: ==7== nothing");
}

#[test]
fn an_interrupted_run_leaves_no_file() {
    let programs = Programs::new();
    programs
        .script("base", &format!("touch '{}'; exec sleep 60", programs.path("began").display()));
    programs.script("head", "exit 1");
    let [base, head, file] =
        ["base", "head", "summary.md"].map(|name| programs.path(name).display().to_string());
    let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
    command.args(["ab", "--base", &base, "--head", &head, "--markdown", &file]);
    let mut child = command.stdout(Stdio::null()).spawn().expect("the command can be started");
    while !programs.path("began").exists() {
        assert_eq!(child.try_wait().expect("a child"), None, "it ended too early");
        thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the command runs");
    assert!(!child.wait().expect("the command ends").success());
    let mut names: Vec<_> = fs::read_dir(programs.folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["base", "began", "head"]);
}

/// The real program against itself: whatever the machine does meanwhile, the exit status is that of the outcome.
#[test]
fn the_real_program_is_compared_with_itself() {
    // Every process would take long to start.
    if emulator::is_at_work() {
        return;
    }
    let lfm2_path = env!("CARGO_BIN_EXE_lfm2");
    assert!(Path::new(lfm2_path).is_file());
    let programs = ["ab", "--base", lfm2_path, "--head", lfm2_path, "--json"];
    let measured = ["--blocks", "6", "--each", "1ms"];
    let chosen = ["--isa", "scalar", "--threads", "1", "--filter", "^add/.*/1x1024/"];
    let output = lfm2(&[&programs[..], &measured, &chosen].concat());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let status = match report["outcome"].as_str().expect("an outcome") {
        "no_regression" => 0,
        "regression" => 1,
        "inconclusive" => 3,
        other => panic!("{other}"),
    };
    assert_eq!(output.status.code(), Some(status));
    let [case] = &report["cases"].as_array().expect("cases")[..] else { panic!("{report}") };
    assert_eq!(case["id"], FAST);
    for block in case["blocks"].as_array().expect("blocks") {
        for arm in ["base", "head", "control"] {
            let seconds = block[arm].as_array().expect("seconds");
            assert!(seconds.len() == 2 && seconds.iter().all(|s| s.as_f64() > Some(0.0)));
        }
    }
}
