use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lfm2_harness::quantize::{Error, GgufFile, Origin, Recipe};
use lfm2_kernels::format::Checkpoint;
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::{Config, Synthetic, Tensors};
use serde::Deserialize;

use super::checkpoint::{Source, locate};
use super::output::{OutputFile, bytes, print};
use super::settings::Threads;
use super::{Failure, progress};

const EXAMPLES: &str = "\
Examples:
  lfm2 quantize --model DIR --format Q4_0 --out model-Q4_0.gguf
  lfm2 quantize --preset 350m --format Q4_K_M --out 350m-Q4_K_M.gguf

Formats:
  F32, F16, BF16      each weight by itself
  Q8_0                blocks of 32 with a scale
  Q4_0, Q5_0          the same; the head in Q6_K
  Q4_1, Q5_1          blocks of 32 with a scale and a minimum; the head in Q6_K
  Q4_K, Q5_K, Q6_K    blocks of 256 that share the unit of their scales; the head in Q6_K
  Q4_K_M, Q5_K_M      as Q4_K and Q5_K, with half of the value and down projections in Q6_K

Norms and convolutions stay F32. A matrix whose rows are no whole blocks takes the next larger format: Q5_0 for Q4_K,
Q5_1 for Q5_K, Q8_0 for Q6_K, then F16.";

/// Writes a model as a GGUF file, its matrices quantised
///
/// Tensors are named, shaped and stored as llama.cpp's converter and quantiser have them; blocks of 32 have the bits that gguf-py gives
/// them. The same model and format give the same bytes, whatever the number of threads. The file has no vocabulary.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct QuantizeArguments {
    #[command(flatten)]
    source: Source,
    /// From what a preset's weights are made, the same on every machine [default: 1]
    #[arg(long, value_name = "S", conflicts_with = "model")]
    seed: Option<u64>,
    /// In what the matrices are stored; see below
    #[arg(long, value_name = "FORMAT")]
    format: Recipe,
    /// The file to write; one that is there is replaced once the new one is whole
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    threads: Threads,
}

/// What a `config.json` says that the shape of a model does not depend on.
#[derive(Deserialize)]
struct Positions {
    max_position_embeddings: Option<u32>,
}

/// As many as published models have.
const POSITIONS: u32 = 128_000;

pub fn run(arguments: QuantizeArguments) -> Result<ExitCode, Failure> {
    arguments.threads.pool()?.install(|| quantize(&arguments))?;
    Ok(ExitCode::SUCCESS)
}

fn quantize(arguments: &QuantizeArguments) -> Result<(), Failure> {
    // First, so that a place that cannot be written to is told at once.
    let out = OutputFile::create(&arguments.out)?;
    match &arguments.source {
        Source { model: Some(folder), .. } => {
            if folder.is_file() {
                let folder = folder.display();
                return Err(format!("{folder}: is a file: expected a Hugging Face folder").into());
            }
            let path = folder.join("config.json");
            let config = Config::read(&path)?;
            let positions: Positions = serde_json::from_str(&fs::read_to_string(&path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            // A folder such as `..` has its name elsewhere.
            let name = fs::canonicalize(folder)?;
            let name = name.file_name().unwrap_or_default().to_string_lossy();
            let context_length = positions.max_position_embeddings.unwrap_or(POSITIONS);
            let origin = Origin { name: &name, context_length };
            write(arguments, config, &Checkpoint::open(folder)?, origin, out).map_err(|error| {
                match error.downcast::<Error>() {
                    Ok(error) => in_folder(*error, folder),
                    Err(error) => error,
                }
            })
        }
        Source { preset, .. } => {
            let name = preset.as_deref().unwrap_or_default();
            let source = Synthetic::new(arguments.seed.unwrap_or(1), WeightFormat::F32);
            let origin = Origin { name, context_length: POSITIONS };
            write(arguments, Config::preset(name)?, &source, origin, out)
        }
    }
}

/// The same error, naming the folder where it is the model that is wrong.
fn in_folder(error: Error, folder: &Path) -> Failure {
    match error {
        Error::Write(_) => error.into(),
        Error::Model(error) => locate(error, folder),
        _ => format!("{}: {error}", folder.display()).into(),
    }
}

fn write(
    arguments: &QuantizeArguments,
    config: Config,
    source: &impl Tensors,
    origin: Origin,
    out: OutputFile,
) -> Result<(), Failure> {
    let file = GgufFile::new(config, source, arguments.format)?;
    let (mut weights, mut size) = (0, 0);
    let mut formats = BTreeMap::<_, usize>::new();
    for tensor in file.tensors() {
        weights += tensor.shape.iter().product::<usize>();
        size += tensor.bytes() as u64;
        *formats.entry(tensor.format.name()).or_default() += 1;
    }
    let bar = progress::bar("writing", "weights", weights);
    let out = file.write(out, origin, |weights| bar.inc(weights as u64))?;
    drop(bar);
    out.finish()?;
    let formats: Vec<_> =
        formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
    print(&format!(
        "tensors  {}: {}\nweights  {weights} in {}\nfile     {}\n",
        file.tensors().count(),
        formats.join(", "),
        bytes(size),
        arguments.out.display()
    ))
}
