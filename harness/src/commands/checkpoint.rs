//! Which model a command runs, and whether it fits the machine.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use lfm2_harness::machine::Machine;
use lfm2_kernels::linear::{Activations, WeightFormat};
use lfm2_kernels::model::{Config, Error, LayerKind, Model, Synthetic};

use super::output::bytes;
use super::{Failure, progress};

#[derive(clap::Args)]
pub struct Checkpoint {
    #[command(flatten)]
    source: Source,
    /// In what a preset's weights are stored [default: f32]
    #[arg(long, value_name = "TYPE", conflicts_with = "model")]
    weights: Option<Weights>,
    /// From what a preset's weights are made, the same on every machine [default: 1]
    #[arg(long, value_name = "S", conflicts_with = "model")]
    seed: Option<u64>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// A GGUF file, or a Hugging Face folder: config.json with model.safetensors or its shards
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// The shape of a published model with random weights: nothing to download
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Config::preset_names()))]
    pub preset: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Weights {
    F32,
    Bf16,
    F16,
}

impl Checkpoint {
    /// What the command line said: a file, a folder or a preset.
    pub fn name(&self) -> String {
        match &self.source {
            Source { model: Some(path), .. } => path.display().to_string(),
            Source { preset, .. } => preset.clone().unwrap_or_default(),
        }
    }

    /// Loads the model, or makes the preset's weights, for weights to meet activations that way.
    pub fn load(&self, activations: Activations) -> Result<Model, Failure> {
        let mut bar = None;
        let report = |done, all| {
            let bar = bar.get_or_insert_with(|| progress::bar("loading", "layers", all));
            bar.set_position(done as u64);
        };
        let mut model = match &self.source.model {
            Some(path) => {
                Model::load_reporting(path, report).map_err(|error| locate(error, path))?
            }
            None => self.make(report)?,
        };
        model.set_activations(activations);
        Ok(model)
    }

    fn make(&self, report: impl FnMut(usize, usize)) -> Result<Model, Failure> {
        let config = Config::preset(&self.name())?;
        let format = match self.weights.unwrap_or(Weights::F32) {
            Weights::F32 => WeightFormat::F32,
            Weights::Bf16 => WeightFormat::Bf16,
            Weights::F16 => WeightFormat::F16,
        };
        let needed = parameters(&config) * format.bytes(1);
        check_memory(&format!("{} in {}", self.name(), format.name()), needed as u64)?;
        let source = Synthetic::new(self.seed.unwrap_or(1), format);
        Ok(Model::new_reporting(config, &source, report)?)
    }
}

/// The same error, naming where the model is where it names no file.
pub fn locate(error: Error, path: &Path) -> Failure {
    match error {
        Error::File { .. } | Error::Format { .. } => error.into(),
        _ => format!("{}: {error}", path.display()).into(),
    }
}

/// About how many weights a model of that shape has: those of its matrices.
fn parameters(config: &Config) -> usize {
    let width = config.hidden_size;
    let conv = 4 * width * width;
    let attention = 2 * width * (config.query_width() + config.key_value_width());
    let feed_forward = |layer| match config.experts_of(layer) {
        None => 3 * width * config.feed_forward_width,
        Some(experts) => experts.count * width * (3 * experts.width + 1),
    };
    config.vocabulary * width
        + (0..config.layers.len()).map(feed_forward).sum::<usize>()
        + config.count(LayerKind::Conv) * conv
        + config.count(LayerKind::Attention) * attention
}

/// Fails if `what` needs more than this machine's memory: an error now is better than a process that the system kills later.
pub fn check_memory(what: &str, needed: u64) -> Result<(), Failure> {
    match Machine::detect().memory_bytes {
        Some(memory) if needed > memory => {
            let (needed, memory) = (bytes(needed), bytes(memory));
            Err(format!("{what} needs {needed} of memory: this machine has {memory}").into())
        }
        _ => Ok(()),
    }
}
