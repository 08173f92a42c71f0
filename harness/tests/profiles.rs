//! Profiles change no bit, are refused where they are wrong, and are what `lfm2 tune` writes.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lfm2_harness::check::cases_from_environment;
use lfm2_harness::emulator;
use lfm2_harness::machine::Machine;
use lfm2_harness::profile::{Choice, ProfileFile, SCHEMA_VERSION, any_profile, commit};
use lfm2_harness::random_model::{RandomModel, VOCABULARY};
use lfm2_harness::tune::{Measurements, Start, Verdict};
use lfm2_harness::workload::values;
use lfm2_kernels::Isa;
use lfm2_kernels::linear::{Activations, Matrix, WeightFormat, blocks, linear};
use lfm2_kernels::model::{Description, Logits, Model, Scratch, Sequence};
use lfm2_kernels::ops::{CacheElement, silu_multiply};
use lfm2_kernels::tuning::{Knob, Profile, measured_family};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rayon::ThreadPoolBuilder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn runner() -> TestRunner {
    let cases = cases_from_environment().expect("LFM2_CASES is a number").unwrap_or(12);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

/// All but the scalar reference, which takes long and reads few knobs; it, if there is nothing else. What they do without their dot products
/// differs where activations are rounded.
fn isas(activations: Activations) -> Vec<Isa> {
    let isas = match activations {
        Activations::F32 => Isa::available(),
        Activations::Bf16 | Activations::Int8 => Isa::available_for_integers(),
    };
    let fast: Vec<_> = isas.iter().copied().filter(|isa| !isa.name().contains("scalar")).collect();
    if fast.is_empty() { isas } else { fast }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

const OUTPUTS: usize = 200;

/// More cuts and groups than a knob may take at once.
const INPUTS: usize = 17 * 256;

/// A token, a few rows, and more than a block has.
const ROWS: [usize; 3] = [1, 17, 150];

/// Weights as a file stores them, and what they meet.
struct Stored {
    format: WeightFormat,
    activations: Activations,
    bytes: Vec<u8>,
}

impl Stored {
    /// The same weights in some formats.
    fn all() -> Vec<Self> {
        let formats = [
            (WeightFormat::F32, Activations::F32),
            (WeightFormat::F16, Activations::F32),
            (WeightFormat::Bf16, Activations::F32),
            (WeightFormat::Bf16, Activations::Bf16),
            (WeightFormat::Q8_0, Activations::Int8),
            (WeightFormat::Q4K, Activations::Int8),
            (WeightFormat::Q4_0, Activations::F32),
        ];
        let weights = values("weights", OUTPUTS * INPUTS);
        let stored = |(format, activations)| {
            let bytes = blocks::encode(format, &weights);
            Self { format, activations, bytes }
        };
        formats.map(stored).into()
    }
}

/// What linear layers and an operation without weights give, packed and run under the profile in force.
fn operations(stored: &[Stored]) -> Vec<Vec<u32>> {
    let x = values("x", ROWS[2] * INPUTS);
    let mut found = Vec::new();
    for &Stored { format, activations, ref bytes } in stored {
        let mut matrix = Matrix::from_le_bytes(format, OUTPUTS, INPUTS, bytes);
        matrix.set_activations(activations);
        for isa in isas(activations) {
            for rows in ROWS {
                let mut out = vec![f32::NAN; rows * OUTPUTS];
                linear(isa, &x[..rows * INPUTS], &matrix, None, &mut out);
                found.push(bits(&out));
            }
        }
    }
    for isa in isas(Activations::F32) {
        let mut gate = x.clone();
        silu_multiply(isa, &mut gate, &values("up", x.len()));
        found.push(bits(&gate));
    }
    found
}

fn small_models() -> Vec<Model> {
    let small = || RandomModel::small(Description::Lfm2);
    let brain =
        RandomModel { format: WeightFormat::Bf16, activations: Activations::Bf16, ..small() };
    [small(), brain, RandomModel::small_with_experts()].map(|model| model.model()).into()
}

/// The logits of a prompt, and of tokens after it.
fn logits(model: &Model, isa: Isa) -> Vec<u32> {
    let prompt: Vec<u32> = (0..70).map(|i| i * 5 % VOCABULARY as u32).collect();
    let mut state = model.new_state(prompt.len() + 2, CacheElement::F32);
    let mut scratch = Scratch::default();
    let mut found = Vec::new();
    for tokens in [&prompt[..], &[3], &[4]] {
        let mut logits = vec![f32::NAN; VOCABULARY];
        let sequence = Sequence { tokens, state: &mut state };
        model
            .forward(isa, &mut [sequence], &mut scratch, Logits::Last(&mut logits))
            .expect("a valid call");
        found.extend(bits(&logits));
    }
    found
}

#[test]
fn no_profile_changes_a_bit() {
    let pool = ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
    let stored = Stored::all();
    let run = |profile: &Profile| {
        profile.install();
        pool.install(|| {
            let models = small_models();
            let isas = isas(Activations::Bf16);
            let logits = models.iter().flat_map(|model| isas.iter().map(|isa| logits(model, *isa)));
            (operations(&stored), logits.collect::<Vec<_>>())
        })
    };
    let expected = run(&Profile::default());
    let result = runner().run(&any_profile(), |profile| {
        let found = run(&profile);
        prop_assert!(found == expected, "other bits under {profile:?}");
        Ok(())
    });
    Profile::default().install();
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn lfm2(arguments: &[&str], configurations: &Path) -> Output {
    let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
    command.env("XDG_CONFIG_HOME", configurations).env("HOME", configurations);
    command.args(arguments).output().expect("the command can be started")
}

fn stdout(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {message}", output.status);
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file(values: &[(Knob, usize)]) -> ProfileFile {
    let mut knobs = Profile::default();
    for (knob, value) in values {
        knobs.set(*knob, *value).expect("allowed");
    }
    ProfileFile {
        schema_version: SCHEMA_VERSION,
        program: "0".into(),
        commit: commit(),
        machine: Machine::detect(),
        isa: Isa::best().name().into(),
        threads: 1,
        shapes: "350m".into(),
        knobs,
        measurements: Measurements::default(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn the_gate_runs_under_a_profile() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p.json");
    let values = [(Knob::BlockRows, 24), (Knob::ChainCuts, 1), (Knob::SharedBytes, 4096)];
    fs::write(&path, file(&values).text()).expect("a file");
    let isa = Isa::best().name();
    let arguments = ["check", "--op", "^linear_f32$", "--isa", isa, "--cases", "2", "--profile"];
    let output = lfm2(&[&arguments[..], &[text(&path)]].concat(), folder.path());
    assert_eq!(stderr(&output), "");
    stdout(&output);
    let json = stdout(&lfm2(&["isas", "--json", "--profile", text(&path)], folder.path()));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["profile"], text(&path));
    assert_eq!(json["knobs"]["block_rows"], 24);
}

#[test]
fn a_wrong_profile_is_refused_by_every_command_that_takes_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p.json");
    let good = file(&[(Knob::BlockRows, 24)]).text();
    fs::write(&path, good.replace("\"block_rows\": 24", "\"block_rows\": 25")).expect("a file");
    let commands: [&[&str]; 5] = [
        &["isas"],
        &["time", "--list"],
        &["check", "--op", "^add$", "--cases", "1"],
        &["generate", "--preset", "350m", "--tokens", "1", "--max-new", "0"],
        &["logits", "--preset", "350m", "--tokens", "1", "--out", "/dev/null"],
    ];
    for command in commands {
        let output = lfm2(&[command, &["--profile", text(&path)]].concat(), folder.path());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {message}");
        for expected in [text(&path), "block_rows = 25", "from 24 to 144, a multiple of 12"] {
            assert!(message.contains(expected), "{command:?}: `{expected}` is not in: {message}");
        }
        assert_eq!(message.matches("error:").count(), 1, "{message}");
    }
    let absent = folder.path().join("absent.json");
    let message = stderr(&lfm2(&["isas", "--profile", text(&absent)], folder.path()));
    assert!(message.contains("absent.json: cannot be read"), "{message}");
}

/// On a system where the variable says where configurations are.
#[cfg(target_os = "linux")]
#[test]
fn the_users_profile_applies_on_its_own_cpu_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let isas = |arguments: &[&str]| lfm2(&[&["isas"], arguments].concat(), folder.path());
    let built_in = match measured_family() {
        Some(family) => format!("built in for {family}; lfm2 tune"),
        None => "derived from its caches: run lfm2 tune".to_string(),
    };
    assert!(stdout(&isas(&[])).contains(&built_in));
    let json: Value = serde_json::from_str(&stdout(&isas(&["--json"]))).expect("JSON");
    assert_eq!(json["defaults_of"].as_str(), measured_family());
    let path = folder.path().join("lfm2").join("profile.json");
    fs::create_dir(path.parent().expect("a folder")).expect("a folder");
    let own = file(&[(Knob::BlockRows, 24)]);
    fs::write(&path, own.text()).expect("a file");
    let output = isas(&[]);
    assert_eq!(stderr(&output), "");
    let printed = stdout(&output);
    assert!(printed.contains(text(&path)) && printed.contains("block_rows = 24"), "{printed}");
    assert!(stdout(&isas(&["--profile", "none"])).contains(&built_in));

    let mut other = own;
    other.machine.cpu = Some("Another CPU 9".into());
    fs::write(&path, other.text()).expect("a file");
    let output = isas(&[]);
    let message = stderr(&output);
    assert!(message.contains("Another CPU 9") && message.contains("not used"), "{message}");
    assert!(stdout(&output).contains(&built_in));
    let output = isas(&["--profile", text(&path)]);
    assert!(stderr(&output).contains("Another CPU 9") && stdout(&output).contains("= 24"));
}

#[test]
fn tune_writes_a_profile() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p.json");
    let arguments = ["--shapes", "tiny", "--budget", "2s", "--threads", "2", "--out", text(&path)];
    let output = lfm2(&[&["tune"], &arguments[..]].concat(), folder.path());
    let printed = stdout(&output);
    assert_eq!(stderr(&output), "");
    let written = ProfileFile::read(&path).expect("a profile");
    assert_eq!((written.isa.as_str(), written.threads), (Isa::best().name(), 2));
    assert_eq!((written.shapes.as_str(), written.commit.clone()), ("tiny", commit()));
    assert_eq!(written.measurements.knobs.len(), Knob::ALL.len());
    for (knob, finding) in Knob::ALL.into_iter().zip(&written.measurements.knobs) {
        assert_eq!(finding.knob, knob.name());
        assert_eq!(finding.default, knob.default_value());
        assert_eq!(finding.tuned, written.knobs.value(knob));
        assert!(printed.contains(knob.name()), "{printed}");
        assert_eq!(finding.tuned != finding.default, finding.verdict == Verdict::Faster);
    }
    for case in &written.measurements.cases {
        assert!(case.compared.ratio.low <= 1.01, "{case:?}");
        assert!(case.compared.limit.is_none_or(|limit| limit.seconds > 0.0), "{case:?}");
    }
    let applied = Choice::File(path.clone()).on(Machine::detect).expect("a profile");
    assert_eq!((applied.profile, applied.warning), (written.knobs, None));
    let names: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn tune_begins_where_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p.json");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/models/tied-gqa2");
    let arguments = ["--budget", "1ms", "--from", "unknown-cpu", "--threads", "1"];
    let files = ["--shapes", model, "--out", text(&path)];
    let printed = stdout(&lfm2(&[&["tune"], &arguments[..], &files].concat(), folder.path()));
    assert!(printed.contains("unknown CPU"), "{printed}");
    let written = ProfileFile::read(&path).expect("a profile");
    // There was no time to change anything: the file says what it began with.
    assert_eq!(written.measurements.from, Start::UnknownCpu);
    assert_eq!((written.knobs, written.shapes.as_str()), (Profile::of_unknown_cpu(), model));
}

#[test]
fn the_gate_gives_its_hashes_under_random_profiles() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["check", "--random-profiles", "3", "--op", "^(linear_q8_0|attention)$"];
    let isa = Isa::best().name();
    let printed = stdout(&lfm2(&[&arguments[..], &["--isa", isa]].concat(), folder.path()));
    assert!(printed.contains("3 random profiles: all as kept"), "{printed}");
    let count: usize = printed.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(count > 3 * 30, "{printed}");
}

#[test]
fn tune_refuses_what_makes_no_sense() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("no folder").join("p.json");
    let no_model = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let refused: [(&[&str], &str); 6] = [
        (&["--shapes", "tiny"], "--out"),
        (&["--shapes", "13b", "--out", "p.json"], "13b: is no file: expected tiny, one of "),
        (&["--shapes", no_model, "--out", "p.json"], "Cargo.toml: "),
        (&["--from", "the-moon", "--out", "p.json"], "unknown-cpu"),
        (&["--budget", "soon", "--out", "p.json"], "expected a time such as"),
        (&["--budget", "1h", "--out", text(&path)], "no such folder"),
    ];
    for (arguments, expected) in refused {
        let output = lfm2(&[&["tune"], arguments].concat(), folder.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn tune_writes_what_it_has_when_it_is_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p.json");
    let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
    command.args(["tune", "--shapes", "tiny", "--budget", "1h", "--threads", "1", "--out"]);
    let child = command.arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the command can be started");
    // It has begun when the file has, under another name; then signals are waited for.
    let began = Instant::now();
    while fs::read_dir(folder.path()).expect("the folder").next().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "no file");
        thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal can be sent");
    let output = child.wait_with_output().expect("it ends");
    assert!(stdout(&output).contains("no time"));
    let written = ProfileFile::read(&path).expect("a profile");
    assert_eq!(written.measurements.knobs.len(), Knob::ALL.len());
}
