use std::path::PathBuf;
use std::process::ExitCode;

use lfm2_harness::golden::{GoldenReport, ModelGolden, NMSE_BOUND};
use lfm2_kernels::Isa;
use serde::Serialize;

use super::output::{counted, print, print_json, table};
use super::settings::{ActivationsName, Threads, chosen_isas};
use super::{FAILED, Failure, progress};

const EXAMPLES: &str = "\
Examples:
  lfm2 golden fixtures/models/* fixtures/gguf/*.gguf
  lfm2 golden DIR --isa scalar --json
  lfm2 golden F.gguf --golden G.safetensors --activations f32

Columns:
  activations  f32 as they are, int8 quantised in blocks of 32, bf16 rounded to brain floats
  nmse f64     sum((ours - golden)^2) / sum(golden^2) for PyTorch's 64-bit logits: at most the bound
  bound        1e-11; with int8 activations 1.1 times what llama.cpp reaches on that file; with bf16 activations 1e-3
  nmse f32     the same for its 32-bit logits, which have errors of their own
  max          the largest absolute difference
  argmax       positions whose most likely token is that of the 64-bit logits: with f32 activations all must be
  bits         whether every logit equals that of the first instruction set, to the bit";

/// Compares whole models with what PyTorch computed, on every instruction set
///
/// Each folder holds a model (config.json, model.safetensors) and a golden.safetensors; beside a GGUF file F.gguf lies
/// F.golden.safetensors. A golden file has `input_ids`, `logits` from 32-bit and `logits_f64` from 64-bit arithmetic. Fails, with exit
/// status 1, if an instruction set is not accurate or not equal to the others.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct GoldenArguments {
    /// GGUF files or model folders that have a golden file
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The golden file of the one PATH, wherever it is
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// What llama.cpp reaches on the files, which bounds the errors of int8 activations [default: yardstick.json beside the golden file]
    #[arg(long, value_name = "FILE")]
    yardstick: Option<PathBuf>,
    /// How weights meet activations [default: f32, and int8 where a yardstick bounds its errors]
    #[arg(long, value_name = "TYPE")]
    activations: Option<ActivationsName>,
    /// Instruction sets to run, with commas between them [default: all that this CPU has]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    isa: Vec<Isa>,
    #[command(flatten)]
    threads: Threads,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// With activations as they are.
    nmse_bound: f64,
    passed: bool,
    results: Vec<GoldenReport>,
}

pub fn run(arguments: GoldenArguments) -> Result<ExitCode, Failure> {
    let isas = chosen_isas(&arguments.isa);
    let report = arguments.threads.pool()?.install(|| compare(&arguments, &isas))?;
    match arguments.json {
        true => print_json(&report)?,
        false => print(&text(&report, &isas))?,
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn compare(arguments: &GoldenArguments, isas: &[Isa]) -> Result<Report, Failure> {
    // All of them first, so that a wrong path is told at once.
    let mut goldens = Vec::new();
    match (&arguments.golden, &arguments.paths[..]) {
        (Some(golden), [path]) => goldens.push(ModelGolden::at(path, golden)?),
        (Some(_), paths) => {
            return Err(format!("--golden is for one PATH: there are {}", paths.len()).into());
        }
        (None, paths) => {
            for path in paths {
                goldens.extend(ModelGolden::of(path)?);
            }
        }
    }
    if let Some(yardstick) = &arguments.yardstick {
        for golden in &mut goldens {
            golden.set_yardstick(yardstick)?;
        }
    }
    let modes = |golden: &ModelGolden| match arguments.activations {
        Some(chosen) => vec![chosen.into()],
        None => golden.modes(),
    };
    let runs = goldens.iter().map(|golden| modes(golden).len() * isas.len()).sum();
    let bar = progress::bar("golden", "runs", runs);
    let mut results = Vec::new();
    for golden in &goldens {
        results.extend(golden.compare(isas, &modes(golden), || bar.inc(1))?);
    }
    drop(bar);
    let passed = results.iter().all(|result| result.passed);
    Ok(Report { nmse_bound: NMSE_BOUND, passed, results })
}

fn text(report: &Report, isas: &[Isa]) -> String {
    let header = [
        "golden",
        "isa",
        "activations",
        "nmse f32",
        "nmse f64",
        "bound",
        "max f32",
        "max f64",
        "argmax",
        "bits",
        "",
    ];
    let mut rows = vec![header.map(String::from)];
    for result in &report.results {
        rows.push([
            result.golden.clone(),
            result.isa.to_string(),
            result.activations.to_string(),
            format!("{:.1e}", result.f32.nmse),
            format!("{:.1e}", result.f64.nmse),
            format!("{:.1e}", result.nmse_bound),
            format!("{:.1e}", result.f32.max_absolute_error),
            format!("{:.1e}", result.f64.max_absolute_error),
            format!("{}/{}", result.argmax_agreements, result.tokens),
            match result.equal_bits {
                None => "first",
                Some(true) => "equal",
                Some(false) => "DIFFER",
            }
            .to_string(),
            if result.passed { "ok" } else { "FAILED" }.to_string(),
        ]);
    }
    let failed = report.results.iter().filter(|result| !result.passed).count();
    let runs = counted(report.results.len(), "run");
    let verdict = match failed {
        0 if isas.len() > 1 => format!("{runs}, all accurate and equal to the bit"),
        0 => format!("{runs}, all accurate; one instruction set, so no bits to compare"),
        _ => format!("{failed} of {runs} failed"),
    };
    format!("{}{verdict}\n", table(&rows))
}
