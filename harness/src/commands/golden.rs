use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lfm2_kernels::Isa;
use lfm2_kernels::format::{Checkpoint, MappedFile};
use lfm2_kernels::model::{Config, Description, Logits, Model, Scratch, Sequence};
use lfm2_kernels::ops::{CacheElement, ShiftAxis};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use super::checkpoint::locate;
use super::output::{print, print_json, table};
use super::settings::Threads;
use super::{FAILED, Failure, progress};

const EXAMPLES: &str = "\
Examples:
  lfm2 golden fixtures/models/*
  lfm2 golden DIR --isa scalar --json

Columns:
  nmse f64  normalised mean squared error against PyTorch's 64-bit logits, sum((ours - golden)^2) / sum(golden^2): at most 1e-11
  nmse f32  the same against PyTorch's 32-bit logits, which have errors of their own
  max       the largest absolute difference
  argmax    at how many positions the most likely token is that of the 64-bit logits: at all of them
  bits      whether every logit is equal, to the bit, to that of the first instruction set";

/// Compares whole models with what PyTorch computed, on every instruction set
///
/// Each folder holds a model (config.json, model.safetensors) and a golden.safetensors with `input_ids`, `logits` from
/// 32-bit and `logits_f64` from 64-bit arithmetic. Fails, with exit status 1, if an instruction set is not accurate or not equal to the others.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct GoldenArguments {
    /// Model folders that have a golden.safetensors
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Instruction sets to run, with commas between them [default: all that this CPU has]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    isa: Vec<Isa>,
    #[command(flatten)]
    threads: Threads,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Largest normalised mean squared error against 64-bit arithmetic. PyTorch's own 32-bit logits are at about 1e-12.
const NMSE_BOUND: f64 = 1e-11;

#[derive(Serialize)]
struct Report {
    nmse_bound: f64,
    passed: bool,
    results: Vec<GoldenResult>,
}

/// One golden file on one instruction set.
#[derive(Serialize)]
struct GoldenResult {
    golden: String,
    isa: &'static str,
    tokens: usize,
    f32: Difference,
    f64: Difference,
    argmax_agreements: usize,
    equal_bits: bool,
    passed: bool,
}

#[derive(Serialize)]
struct Difference {
    nmse: f64,
    max_absolute_error: f64,
}

pub fn run(arguments: GoldenArguments) -> Result<ExitCode, Failure> {
    let isas = if arguments.isa.is_empty() { Isa::available() } else { arguments.isa.clone() };
    let report = arguments.threads.pool()?.install(|| compare(&arguments.paths, &isas))?;
    match arguments.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn compare(folders: &[PathBuf], isas: &[Isa]) -> Result<Report, Failure> {
    // All of them first, so that a wrong path is told at once.
    let mut goldens = Vec::new();
    for folder in folders {
        goldens.extend(Golden::in_folder(folder)?);
    }
    let bar = progress::bar("golden", "runs", goldens.len() * isas.len());
    let mut results = Vec::new();
    for golden in &goldens {
        let model = golden.load_model()?;
        let mut first = None;
        for isa in isas {
            let logits = golden.run(&model, *isa)?;
            let equal_bits = first.get_or_insert_with(|| logits.clone()).iter().zip(&logits).all(
                // A NaN's payload is the processor's choice.
                |(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            );
            results.push(golden.judge(isa.name(), &logits, equal_bits));
            bar.inc(1);
        }
    }
    drop(bar);
    let passed = results.iter().all(|result| result.passed);
    Ok(Report { nmse_bound: NMSE_BOUND, passed, results })
}

/// What a golden file says.
struct Golden {
    folder: PathBuf,
    path: PathBuf,
    /// For a model after issue #22287, which of its readings.
    shift_axis: Option<ShiftAxis>,
    input_ids: Vec<u32>,
    logits: Vec<f64>,
    logits_f64: Vec<f64>,
}

impl Golden {
    /// The golden files of a model folder: one, or one for each reading of issue #22287.
    fn in_folder(folder: &Path) -> Result<Vec<Self>, Failure> {
        if !folder.is_dir() {
            return Err(format!(
                "{}: no such folder: expected a model with a golden.safetensors",
                folder.display()
            )
            .into());
        }
        let files = [
            ("golden.safetensors", None),
            ("golden.time.safetensors", Some(ShiftAxis::Time)),
            ("golden.feature.safetensors", Some(ShiftAxis::Feature)),
        ];
        let mut goldens = Vec::new();
        for (name, shift_axis) in files {
            let path = folder.join(name);
            if path.exists() {
                goldens.push(Self::read(folder, path, shift_axis)?);
            }
        }
        if goldens.is_empty() {
            return Err(format!("{}: has no golden.safetensors", folder.display()).into());
        }
        Ok(goldens)
    }

    fn read(folder: &Path, path: PathBuf, shift_axis: Option<ShiftAxis>) -> Result<Self, Failure> {
        let wrong = |reason: String| format!("{}: {reason}", path.display());
        let file = MappedFile::open(&path)?;
        let tensors = SafeTensors::deserialize(&file)
            .map_err(|error| wrong(format!("not a whole safetensors file: {error}")))?;
        let tensor = |name, dtype, dimensions| {
            let tensor =
                tensors.tensor(name).map_err(|_| wrong(format!("has no tensor {name}")))?;
            if tensor.dtype() != dtype || tensor.shape().len() != dimensions {
                let found = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
                let reason = format!(
                    "tensor {name} is {found}: expected {dtype:?} with {dimensions} dimensions"
                );
                return Err(wrong(reason));
            }
            Ok(tensor)
        };
        let ids = tensor("input_ids", Dtype::I64, 1)?;
        let single = tensor("logits", Dtype::F32, 2)?;
        let double = tensor("logits_f64", Dtype::F64, 2)?;
        if single.shape() != double.shape()
            || single.shape()[0] != ids.shape()[0]
            || ids.shape()[0] == 0
        {
            let reason = format!(
                "input_ids is {:?}, logits {:?}, logits_f64 {:?}: expected [tokens], [tokens, vocabulary] and the same",
                ids.shape(),
                single.shape(),
                double.shape()
            );
            return Err(wrong(reason).into());
        }
        let input_ids = ids
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|bytes| u32::try_from(i64::from_le_bytes(*bytes)))
            .collect::<Result<_, _>>()
            .map_err(|_| wrong("input_ids has a number that is no token".into()))?;
        let logits = single.data().as_chunks().0;
        let logits_f64 = double.data().as_chunks().0;
        Ok(Self {
            folder: folder.to_path_buf(),
            shift_axis,
            input_ids,
            logits: logits.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect(),
            logits_f64: logits_f64.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
            path,
        })
    }

    fn load_model(&self) -> Result<Model, Failure> {
        let locate = |error| locate(error, &self.folder);
        let mut config = Config::read(&self.folder.join("config.json")).map_err(locate)?;
        match (&mut config.description, self.shift_axis) {
            (Description::Issue22287 { shift_axis }, Some(wanted)) => *shift_axis = wanted,
            (Description::Lfm2, Some(_)) => {
                let path = self.path.display();
                return Err(format!("{path}: is for a model after issue #22287 alone").into());
            }
            (_, None) => {}
        }
        let source = Checkpoint::open(&self.folder).map_err(locate)?;
        let model = Model::new(config, &source).map_err(locate)?;
        let (vocabulary, expected) = (self.vocabulary(), model.config().vocabulary);
        if vocabulary != expected {
            let path = self.path.display();
            let reason =
                format!("logits have {vocabulary} columns: expected the vocabulary, {expected}");
            return Err(format!("{path}: {reason}").into());
        }
        Ok(model)
    }

    fn vocabulary(&self) -> usize {
        self.logits.len() / self.input_ids.len()
    }

    fn run(&self, model: &Model, isa: Isa) -> Result<Vec<f32>, Failure> {
        let mut state = model.new_state(self.input_ids.len(), CacheElement::F32);
        let mut logits = vec![0.0; self.logits.len()];
        let sequence = Sequence { tokens: &self.input_ids, state: &mut state };
        model
            .forward(isa, &mut [sequence], &mut Scratch::default(), Logits::All(&mut logits))
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        Ok(logits)
    }

    fn judge(&self, isa: &'static str, logits: &[f32], equal_bits: bool) -> GoldenResult {
        let rows = logits.chunks(self.vocabulary()).zip(self.logits_f64.chunks(self.vocabulary()));
        let agreements = rows.filter(|(ours, golden)| largest(ours) == largest(golden)).count();
        let tokens = self.input_ids.len();
        let f64 = Difference::between(logits, &self.logits_f64);
        // Written so that a NaN fails.
        let accurate = f64.nmse <= NMSE_BOUND;
        GoldenResult {
            golden: self.path.display().to_string(),
            isa,
            tokens,
            f32: Difference::between(logits, &self.logits),
            f64,
            argmax_agreements: agreements,
            equal_bits,
            passed: accurate && agreements == tokens && equal_bits,
        }
    }
}

impl Difference {
    fn between(ours: &[f32], golden: &[f64]) -> Self {
        let (mut error, mut size, mut largest) = (0.0, 0.0, 0.0);
        for (ours, golden) in ours.iter().zip(golden) {
            let difference = f64::from(*ours) - golden;
            error += difference * difference;
            size += golden * golden;
            // `f64::max` would lose a NaN.
            if difference.is_nan() || difference.abs() > largest {
                largest = difference.abs();
            }
        }
        Self { nmse: error / size, max_absolute_error: largest }
    }
}

/// Where the largest value is, the first of equals.
fn largest<T: PartialOrd>(row: &[T]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

fn text(report: &Report) -> String {
    let header =
        ["golden", "isa", "nmse f32", "nmse f64", "max f32", "max f64", "argmax", "bits", ""];
    let mut rows = vec![header.map(String::from)];
    for result in &report.results {
        rows.push([
            result.golden.clone(),
            result.isa.to_string(),
            format!("{:.1e}", result.f32.nmse),
            format!("{:.1e}", result.f64.nmse),
            format!("{:.1e}", result.f32.max_absolute_error),
            format!("{:.1e}", result.f64.max_absolute_error),
            format!("{}/{}", result.argmax_agreements, result.tokens),
            if result.equal_bits { "equal" } else { "DIFFER" }.to_string(),
            if result.passed { "ok" } else { "FAILED" }.to_string(),
        ]);
    }
    let failed = report.results.iter().filter(|result| !result.passed).count();
    let verdict = match failed {
        0 => format!("{} runs, all accurate and equal to the bit", report.results.len()),
        _ => format!("{failed} of {} runs failed", report.results.len()),
    };
    format!("{}{verdict}\n", table(&rows))
}
