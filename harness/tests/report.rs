//! `lfm2 report` and `lfm2 merge` on files as Criterion writes them, with times that polynomials give: what must come out is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use approx::assert_relative_eq;
use lfm2_harness::ceiling::{Ceilings, Work};
use lfm2_harness::emulator;
use lfm2_harness::machine::Machine;
use lfm2_harness::report::{Entry, Id, Manifest, Peak, PeakOf, Run, manifest};
use serde_json::{Value, json};
use tempfile::TempDir;

const CEILINGS: Ceilings =
    Ceilings { multiply_add: 500e9, dot: 2000e9, brain_dot: 1000e9, read: 50e9 };

/// A target folder.
struct Target {
    folder: TempDir,
    manifest: Manifest,
}

fn lfm2(arguments: &[&str]) -> Output {
    let mut command = emulator::command(env!("CARGO_BIN_EXE_lfm2"));
    command.args(arguments).output().expect("the command can be started")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn assert_number(found: &Value, expected: f64) {
    assert_relative_eq!(number(found), expected, max_relative = 1e-6);
}

impl Target {
    fn new(cpu: &str) -> Self {
        let run = Run {
            is_complete: true,
            seconds: 60.0,
            others: Some(0.02),
            ..Run::begin("layers", "usual", false, 2)
        };
        let peak = |of, before, after| Peak {
            isa: "avx2".to_string(),
            threads: 2,
            of,
            before,
            after: Some(after),
        };
        let manifest = Manifest {
            schema_version: manifest::SCHEMA_VERSION,
            run,
            machine: Machine { cpu: Some(cpu.to_string()), ..Machine::detect() },
            peaks: vec![
                peak(PeakOf::MultiplyAdd, 500e9, 490e9),
                peak(PeakOf::Read { working_set: 1 << 15 }, 900e9, 880e9),
                peak(PeakOf::Read { working_set: 1 << 28 }, 50e9, 40e9),
            ],
            cases: Default::default(),
            summary: Value::Null,
        };
        Self { folder: tempfile::tempdir().expect("a temporary folder"), manifest }
    }

    /// With everything that a report is made of. Times are in microseconds.
    fn full(cpu: &str) -> Self {
        let mut target = Self::new(cpu);
        for length in [512, 1024, 2048, 4096, 8192] {
            let tokens = f64::from(length);
            let mut time = |op: &str, microseconds| {
                target.add(&format!("{op}/avx2/f32/prefill-{length}/2"), microseconds);
            };
            time("conv_layer", 100.0 + 20.0 * tokens);
            // Equal at 1024.
            time("attention_layer", 100.0 + 10.0 * tokens + tokens * tokens * 10.0 / 1024.0);
            time("conv_mixer", 0.5 * tokens);
            time("attention_mixer", 2.0 * tokens + tokens * tokens * 10.0 / 1024.0);
        }
        for length in [512, 2048, 8192, 32768] {
            let tokens = f64::from(length);
            let mut time = |op: &str, microseconds| {
                target.add(&format!("{op}/avx2/f32/decode-{length}/2"), microseconds);
            };
            time("conv_layer", 300.0);
            time("attention_layer", 200.0 + 0.1 * tokens);
            time("conv_mixer", 1.0);
            time("attention_mixer", 50.0 + 0.1 * tokens);
        }
        for (op, shape, microseconds) in [
            ("rms_norm", "512x1024", 100.0),
            ("rms_norm", "8192x64", 200.0),
            ("rope", "512x16x64", 200.0),
            ("rope_table", "512x64", 100.0),
            ("add", "512x1024", 100.0),
            ("silu_multiply", "512x4608", 500.0),
            ("rms_norm", "1x1024", 1.0),
            ("rms_norm", "16x64", 2.0),
            ("rope", "1x16x64", 2.0),
            ("rope_table", "1x64", 1.0),
            ("add", "1x1024", 1.0),
            ("silu_multiply", "1x4608", 4.0),
        ] {
            target.add(&format!("{op}/avx2/f32/{shape}/2"), microseconds);
        }
        for (rows, outputs, inputs, microseconds) in [
            (512, 3072, 1024, 7500.0),
            (512, 1024, 1024, 2500.0),
            (512, 512, 1024, 1250.0),
            (512, 4608, 1024, 11250.0),
            (512, 1024, 4608, 11250.0),
            (1, 3072, 1024, 300.0),
            (1, 1024, 1024, 100.0),
            (1, 512, 1024, 50.0),
            (1, 4608, 1024, 450.0),
            (1, 1024, 4608, 450.0),
            (1, 65536, 1024, 6400.0),
        ] {
            target.add_linear("f32", 4, [rows, outputs, inputs], microseconds);
        }
        // Of 2105344 bytes, which take 42.1 microseconds at least.
        target.add_linear("bf16", 2, [1, 1024, 1024], 40.0);
        target.add("model/avx2/f32/decode-512/2", 30_000.0);
        target.add("conv_layer/scalar/f32/decode-512/2", 6000.0);
        target.add("conv_layer/avx2/f32/decode-512/1", 450.0);
        target
    }

    fn add(&mut self, id: &str, microseconds: f64) {
        self.add_case(id, Work { rows: 1, bytes: 1000, ..Work::default() }, microseconds);
    }

    fn add_linear(&mut self, format: &str, size: u64, shape: [u64; 3], microseconds: f64) {
        let [rows, outputs, inputs] = shape;
        let work = Work {
            rows: rows as usize,
            operations: 2 * rows * outputs * inputs,
            bytes: size * outputs * inputs + 4 * rows * (outputs + inputs),
            ..Work::default()
        };
        let id = format!("linear/avx2/{format}/{rows}x{outputs}x{inputs}/2");
        self.add_case(&id, work, microseconds);
    }

    /// A case, and what Criterion keeps of it.
    fn add_case(&mut self, id: &str, work: Work, microseconds: f64) {
        let nanoseconds = 1e3 * microseconds;
        let statistic = |value: f64| {
            json!({
                "confidence_interval": {
                    "confidence_level": 0.95, "lower_bound": 0.98 * value, "upper_bound": 1.02 * value
                },
                "point_estimate": value,
                "standard_error": 0.01 * value
            })
        };
        let estimates = json!({
            // What must not be taken for the median.
            "mean": statistic(3.0 * nanoseconds),
            "median": statistic(nanoseconds),
            "median_abs_dev": statistic(0.1 * nanoseconds),
            "slope": null,
            "std_dev": statistic(0.1 * nanoseconds)
        });
        let parsed: Id = id.parse().expect("an id");
        let folder = self.path().join("criterion").join(parsed.folder()).join("new");
        fs::create_dir_all(&folder).expect("a folder");
        write(&folder.join("benchmark.json"), &json!({ "full_id": id }));
        write(&folder.join("estimates.json"), &estimates);
        let entry = Entry {
            work,
            ceilings: CEILINGS,
            took_turns: true,
            same_bits_as: "scalar".to_string(),
            same_bits_rows: work.rows,
        };
        self.manifest.cases.insert(parsed, entry);
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn report_path(&self) -> PathBuf {
        self.path().join("lfm2-report/report.json")
    }

    /// What `lfm2 report` makes of it.
    fn report(&self) -> Value {
        self.manifest.save(self.path()).expect("the manifest can be written");
        let output = lfm2(&["report", "--target", text(self.path())]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read(&self.report_path())
    }

    /// What `lfm2 report` says instead.
    fn refusal(&self) -> String {
        let output = lfm2(&["report", "--target", text(self.path())]);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).expect("JSON")
}

fn write(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).expect("the file can be written");
}

/// The one whose fields are these.
fn find<'a>(all: &'a Value, fields: &Value) -> &'a Value {
    let is_it = |value: &&Value| {
        fields.as_object().unwrap().iter().all(|(name, field)| value[name] == *field)
    };
    let mut found = all.as_array().expect("an array").iter().filter(is_it);
    let first = found.next().unwrap_or_else(|| panic!("none is {fields}"));
    assert!(found.next().is_none(), "several are {fields}");
    first
}

#[test]
fn growths_are_those_of_the_polynomials() {
    let report = Target::full("one").report();
    assert_eq!(
        (&report["document"], &report["schema_version"]),
        (&json!("report of benches"), &json!(1))
    );
    let growths = &report["results"][0]["growths"];
    assert_eq!(growths.as_array().unwrap().len(), 4);
    // The answer is of the first.
    assert_eq!((&growths[0]["part"], &growths[0]["phase"]), (&json!("layer"), &json!("prefill")));

    let growth = |part, phase| find(growths, &json!({ "part": part, "phase": phase }));
    for (part, phase, kind, constant, linear, quadratic) in [
        ("layer", "prefill", "conv", 100e-6, 20e-6, 0.0),
        ("layer", "prefill", "attention", 100e-6, 10e-6, 10e-6 / 1024.0),
        ("mixer", "prefill", "conv", 0.0, 0.5e-6, 0.0),
        ("mixer", "prefill", "attention", 0.0, 2e-6, 10e-6 / 1024.0),
        ("layer", "decode", "conv", 300e-6, 0.0, 0.0),
        ("layer", "decode", "attention", 200e-6, 0.1e-6, 0.0),
    ] {
        let curve = &growth(part, phase)[kind];
        let fit = &curve["fit"];
        // To a part in a million of the time at the longest length.
        for (term, expected, length) in [
            ("constant", constant, 1.0),
            ("linear", linear, 8192.0),
            ("quadratic", quadratic, 8192.0 * 8192.0),
        ] {
            let found = number(&fit[term]) * length;
            assert_relative_eq!(found, expected * length, epsilon = 1e-9, max_relative = 1e-6);
        }
        let held_out = &curve["held_out"];
        if phase == "prefill" {
            assert_eq!((&held_out["length"], &held_out["is_near"]), (&json!(4096), &json!(true)));
            assert!(number(&held_out["percent"]).abs() < 1e-4);
        } else {
            // Of four lengths, three are left: too few.
            assert_eq!(*held_out, Value::Null);
        }
    }

    // Slopes through the logarithms of the last three times, by a desk calculator: equally spaced in length, so those of the first and
    // the last.
    let exponent = |part, phase, kind: &str| &growth(part, phase)[kind]["exponent"];
    let slope = |first: f64, last: f64, times: f64| (last / first).ln() / times.ln();
    assert_number(exponent("layer", "prefill", "conv"), slope(41060.0, 163_940.0, 4.0));
    assert_number(exponent("layer", "prefill", "attention"), slope(61540.0, 737_380.0, 4.0));
    assert_number(exponent("mixer", "prefill", "conv"), 1.0);
    assert_number(exponent("layer", "decode", "attention"), slope(404.8, 3476.8, 16.0));
}

#[test]
fn fits_are_in_bands() {
    let report = Target::full("one").report();
    for growth in report["results"][0]["growths"].as_array().unwrap() {
        let lengths = growth["pairs"].as_array().unwrap();
        for kind in ["conv", "attention"] {
            let band = growth[kind]["band"].as_array().unwrap();
            assert_eq!(band.len(), 4 * (lengths.len() - 1) + 1);
            for (pair, at) in lengths.iter().zip(band.iter().step_by(4)) {
                assert_number(&at["length"], number(&pair["length"]));
                assert_number(&at["seconds"], number(&pair[kind]["seconds"]));
            }
            for at in band {
                let [low, seconds, high] = ["low", "seconds", "high"].map(|end| number(&at[end]));
                assert!(low < seconds && seconds < high, "{at}");
                // Of times that are off by 1 %: a fit is less far off than one of them, and farther than their mean.
                let half = 100.0 * (high / low).ln() / 2.0;
                let mean = 1.96 / (lengths.len() as f64).sqrt();
                assert!((0.9 * mean..1.1 * 1.96).contains(&half), "{half} % at {at}");
            }
        }
    }
}

#[test]
fn who_took_turns_is_told() {
    let explained = |target: &Target| {
        let growths = target.report()["results"][0]["growths"].clone();
        let page = fs::read_to_string(target.path().join("lfm2-report/index.html")).unwrap();
        let turns = page.matches("Both kinds at all lengths took turns").count();
        let one_by_one = page.matches("Lengths were measured one after the other").count();
        (growths[0]["took_turns"].clone(), turns, one_by_one)
    };
    let mut target = Target::full("one");
    assert_eq!(explained(&target), (json!(true), 2, 0));
    // One of prefill's is enough.
    let id = "attention_layer/avx2/f32/prefill-2048/2".parse::<Id>().unwrap();
    target.manifest.cases.get_mut(&id).unwrap().took_turns = false;
    assert_eq!(explained(&target), (json!(false), 1, 1));
}

#[test]
fn crossings_are_where_times_are_equal() {
    let report = Target::full("one").report();
    let growths = &report["results"][0]["growths"];
    let crossing =
        |part, phase| &find(growths, &json!({ "part": part, "phase": phase }))["crossing"];
    let found = crossing("layer", "prefill");
    assert_eq!(found["is"], "at");
    assert_number(&found["length"], 1024.0);
    assert!(number(&found["low"]) < 1024.0 && number(&found["high"]) > 1024.0);
    // Noise of 1 % in both, where the ratio's logarithm rises by ln 1.99 in the two doublings about it.
    assert!(number(&found["low"]) > 950.0 && number(&found["high"]) < 1100.0, "{found}");

    let fits_cross =
        |part, phase| &find(growths, &json!({ "part": part, "phase": phase }))["fits_cross"];
    assert_number(fits_cross("layer", "prefill"), 1024.0);
    assert_number(fits_cross("layer", "decode"), 1000.0);
    assert_eq!(*fits_cross("mixer", "prefill"), Value::Null);

    // From 251.2/300 at 512 to 404.8/300 at 2048: 512 * 4^(ln(300/251.2) / ln(404.8/251.2)).
    let expected = 512.0 * 4_f64.powf((300.0_f64 / 251.2).ln() / (404.8_f64 / 251.2).ln());
    assert_number(&crossing("layer", "decode")["length"], expected);
    assert!((857.0..858.0).contains(&expected));

    for phase in ["prefill", "decode"] {
        assert_eq!(*crossing("mixer", phase), json!({ "is": "attention_costs_more" }));
    }
}

#[test]
fn equal_times_have_no_single_crossing() {
    let mut target = Target::new("one");
    for op in ["conv_layer", "attention_layer"] {
        for length in [16, 32] {
            target.add(&format!("{op}/avx2/f32/prefill-{length}/2"), f64::from(length));
        }
    }
    let report = target.report();
    let growths = &report["results"][0]["growths"];
    assert_eq!(growths[0]["crossing"], json!({ "is": "equal" }));
    assert_eq!(growths[0]["conv"]["fit"], Value::Null);
    let page = fs::read_to_string(target.path().join("lfm2-report/index.html")).unwrap();
    assert!(page.contains("They cost exactly the same from 16 to 32 tokens."));
}

#[test]
fn percentages_are_of_the_longer_limit() {
    let report = Target::full("one").report();
    let results = &report["results"][0];
    let measurement = |id| find(&results["measurements"], &json!({ "id": id }));
    // 2^30 operations at 500e9 a second, of 2500 microseconds.
    let computing = measurement("linear/avx2/f32/512x1024x1024/2");
    assert_eq!(computing["bound"], "compute");
    assert_number(&computing["percent_of_peak"], 85.899_345_92);
    // 4202496 bytes at 50e9 a second, of 100 microseconds.
    let reading = measurement("linear/avx2/f32/1x1024x1024/2");
    assert_eq!(reading["bound"], "memory");
    assert_number(&reading["percent_of_peak"], 84.049_92);
    assert_number(&reading["time"]["seconds"], 100e-6);
    assert_number(&reading["time"]["low"], 98e-6);
    // 2105344 bytes take longer than the 40 microseconds that were measured.
    let too_fast = measurement("linear/avx2/bf16/1x1024x1024/2");
    assert_number(&too_fast["percent_of_peak"], 105.267_2);

    let warnings = results["warnings"].to_string();
    assert!(warnings.contains("1 of 63 cases are faster than the peak"), "{warnings}");
    assert!(warnings.contains("1 of 3 peaks changed by more than 10 %"), "{warnings}");
    assert!(warnings.contains("reading 256 MiB (avx2) by −20 %"), "{warnings}");
    assert!(!warnings.contains("memory was read"), "{warnings}");
}

#[test]
fn memory_that_changes_its_speed_is_named() {
    let mut target = Target::full("one");
    // Every third case was measured while memory gave half.
    for entry in target.manifest.cases.values_mut().step_by(3) {
        entry.ceilings.read /= 2.0;
    }
    let report = target.report();
    let warnings = report["results"][0]["warnings"].to_string();
    assert!(warnings.contains("memory was read at 25.0 GB/s to 50.0 GB/s"), "{warnings}");
}

#[test]
fn shares_are_of_the_sum_of_the_parts() {
    let report = Target::full("one").report();
    let breakdowns = &report["results"][0]["breakdowns"];
    let breakdown = |of, phase, length| {
        find(breakdowns, &json!({ "of": of, "phase": phase, "length": length }))
    };
    let percent = |breakdown: &Value, name| {
        number(&find(&breakdown["shares"], &json!({ "name": name }))["percent"])
    };
    // Two pieces: 2 * (100 + 7500 + 2500 + 100) microseconds, and a mixer of 512.
    let conv = breakdown("conv_layer", "prefill", 1024);
    assert_number(&conv["sum"], 20_912e-6);
    assert_number(&conv["measured"], 20_580e-6);
    assert_relative_eq!(
        percent(conv, "projection in"),
        100.0 * 15_000.0 / 20_912.0,
        max_relative = 1e-9
    );
    assert_relative_eq!(
        percent(conv, "convolution"),
        100.0 * 512.0 / 20_912.0,
        max_relative = 1e-9
    );
    // 1 and half as much again of 2 for norms; 100 and twice 50; 3 and 1 of rope; 50 + 51.2; 100; 1.
    let attention = breakdown("attention_layer", "decode", 512);
    assert_number(&attention["sum"], 410.2e-6);
    assert_relative_eq!(percent(attention, "norm"), 100.0 * 4.0 / 410.2, max_relative = 1e-9);
    assert_relative_eq!(
        percent(attention, "projection in"),
        100.0 * 200.0 / 410.2,
        max_relative = 1e-9
    );
    assert_relative_eq!(percent(attention, "rope"), 100.0 * 4.0 / 410.2, max_relative = 1e-9);
    // Ten conv layers of 403; six of attention of 410.2, with the angles once; sixteen times 1356; 6401.
    let model = breakdown("model", "decode", 512);
    let [conv, attention, feed_forward, head] = [4030.0, 6.0 * 410.2 - 5.0, 16.0 * 1356.0, 6401.0];
    let sum = conv + attention + feed_forward + head;
    assert_number(&model["sum"], 1e-6 * sum);
    assert_number(&model["measured"], 30_000e-6);
    for (name, seconds) in [
        ("conv layers", conv),
        ("attention layers", attention),
        ("feed-forward", feed_forward),
        ("head", head),
    ] {
        assert_relative_eq!(percent(model, name), 100.0 * seconds / sum, max_relative = 1e-9);
    }
}

#[test]
fn what_differs_in_one_thing_is_compared() {
    let report = Target::full("one").report();
    let comparisons = &report["results"][0]["comparisons"];
    let entries = |common| {
        let entries = &find(comparisons, &json!({ "common": common }))["entries"];
        let entry = |entry: &Value| {
            (entry["name"].as_str().unwrap().to_string(), number(&entry["times_as_fast"]))
        };
        entries.as_array().unwrap().iter().map(entry).collect::<Vec<_>>()
    };
    let expected = |pairs: [(&str, f64); 2]| pairs.map(|(name, times)| (name.to_string(), times));
    for (common, pairs) in [
        ("conv_layer/*/f32/decode-512/2", [("scalar", 1.0), ("avx2", 20.0)]),
        ("linear/avx2/*/1x1024x1024/2", [("f32", 1.0), ("bf16", 2.5)]),
        ("conv_layer/avx2/f32/decode-512/*", [("1", 1.0), ("2", 1.5)]),
    ] {
        for (found, expected) in entries(common).iter().zip(expected(pairs)) {
            assert_eq!(found.0, expected.0);
            assert_relative_eq!(found.1, expected.1, max_relative = 1e-9);
        }
    }
}

#[test]
fn pages_need_nothing_else() {
    let target = Target::full("A <CPU> & more");
    target.report();
    let folder = target.path().join("lfm2-report");
    let page = fs::read_to_string(folder.join("index.html")).unwrap();
    assert!(page.contains("A &lt;CPU&gt; &amp; more") && !page.contains("A <CPU>"));
    assert!(page.contains("At 4096 tokens an attention layer costs 2.50 times a conv layer."));
    assert!(page.contains("They cost the same at about 1000 tokens"));
    assert!(page.contains("105\u{a0}% harness error"));
    assert!(page.contains("within 15\u{a0}%") && !page.contains("off by more"));
    for absent in ["<script", "href=", "src=", "url(", "@import"] {
        assert!(!page.contains(absent), "{absent}");
    }
    // Four of curves, the roofline, and six of bars; each for desktops and for phones.
    assert_eq!(page.matches("<svg class=\"wide\"").count(), 11);
    assert_eq!(page.matches("<svg class=\"narrow\"").count(), 11);
    // A fit that is exact, as far from it as the band says.
    assert!(page.contains("<td data-head=\"by its fit\"><span>300 µs ("));
    let picture = fs::read_to_string(folder.join("picture.svg")).unwrap();
    assert!(picture.contains("<style>@media (prefers-color-scheme: dark)"));
    assert_eq!(picture.matches("<svg ").count(), 1);
    let summary = fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(summary.contains("| 4096 | 82.0 ms | 205 ms | 2.50 |"), "{summary}");
}

#[test]
fn reports_of_machines_are_side_by_side() {
    let (one, two) = (Target::full("CPU one"), Target::full("CPU two"));
    let [first, second] = [&one, &two].map(Target::report);
    let out = one.path().join("merged");
    let files = [one.report_path(), two.report_path()];
    let [a, b] = [&files[0], &files[1]].map(|path| text(path));
    let output = lfm2(&["merge", a, b, "--out", text(&out)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let merged = read(&out.join("report.json"));
    // Each machine's numbers are its own.
    assert_eq!(merged["results"], json!([first["results"][0], second["results"][0]]));
    let page = fs::read_to_string(out.join("index.html")).unwrap();
    for expected in ["Machines side by side", "1. CPU one", "2. CPU two"] {
        assert!(page.contains(expected), "{expected}");
    }
    // Of two working sets the larger: that is where weights are.
    let [first, second] = ["1. CPU one", "2. CPU two"]
        .map(|cpu| format!("<td data-head=\"{cpu}\"><span>50.0 GB/s (256 MiB)</span></td>"));
    assert!(page.contains(&format!("<th>reading memory</th>{first}{second}")));
}

#[test]
fn what_is_missing_is_named() {
    let mut target = Target::new("one");
    target.manifest.save(target.path()).unwrap();
    // A bench that has measured nothing that Criterion keeps.
    assert!(target.refusal().contains("nothing has been measured"));
    target.add("linear/avx2/f32/1x16x16/2", 1.0);
    target.manifest.run.is_complete = false;
    write(&target.path().join("lfm2-bench/ops.json"), &json!({ "schema_version": 1 }));
    let warnings = target.report()["results"][0]["warnings"].to_string();
    for expected in
        ["The bench layers (2 threads) was interrupted", "ops.json was written by another version"]
    {
        assert!(warnings.contains(expected), "{warnings}");
    }
    let page = fs::read_to_string(target.path().join("lfm2-report/index.html")).unwrap();
    assert!(page.contains("Conv and attention layers were not measured together."));
}

#[test]
fn what_is_no_report_is_refused() {
    let target = Target::full("one");
    assert!(target.refusal().contains("nothing has been measured: run `cargo bench` first"));
    let report = target.report();
    let path = target.report_path();
    let refused = |report: &Value, expected: &str| {
        let other = target.path().join("other.json");
        write(&other, report);
        let out = target.path().join("refused");
        let output = lfm2(&["merge", text(&path), text(&other), "--out", text(&out)]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(expected) && message.contains("other.json"), "{message}");
    };
    let mut newer = report.clone();
    newer["schema_version"] = json!(2);
    refused(&newer, "schema version 2, expected 1");
    let mut without = report.clone();
    without.as_object_mut().unwrap().remove("schema_version");
    refused(&without, "no schema_version: expected 1");
    let mut cut = report;
    cut["results"][0].as_object_mut().unwrap().remove("growths");
    refused(&cut, "growths");
    refused(&json!({ "schema_version": 1 }), "expected files of one kind");

    let id = "linear/avx2/f32/1x1024x1024/2";
    let folder =
        target.path().join("criterion").join(id.parse::<Id>().unwrap().folder()).join("new");
    write(&folder.join("benchmark.json"), &json!({ "full_id": "another" }));
    assert!(target.refusal().contains("is of another, expected linear/avx2/f32/1x1024x1024/2"));
    fs::remove_file(folder.join("benchmark.json")).unwrap();
    assert!(target.refusal().contains("benchmark.json"));
}

#[test]
fn criterion_s_own_files_are_read() {
    let mut target = Target::new("one");
    let id = "linear/avx2/bf16/512x512x1024/1";
    target.add(id, 1.0);
    let folder = Path::new("criterion").join(id.parse::<Id>().unwrap().folder()).join("new");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report").join(&folder);
    for name in ["benchmark.json", "estimates.json"] {
        fs::copy(kept.join(name), target.path().join(&folder).join(name)).expect("a copy");
    }
    let report = target.report();
    let time = &report["results"][0]["measurements"][0]["time"];
    assert_number(&time["seconds"], 4_300_484.8e-9);
    assert_number(&time["low"], 4_276_152.5e-9);
    assert_number(&time["high"], 4_331_046.4e-9);
    assert_number(&time["standard_error"], 14_406.042_226_619e-9);
}
