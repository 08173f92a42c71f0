use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use lfm2_kernels::model::{
    Config, ConvState, Description, LayerState, Logits, Scratch, Sequence, State,
};
use lfm2_kernels::ops::ShiftAxis;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::checkpoint::{Checkpoint, check_memory};
use super::output::{OutputFile, print};
use super::settings::Settings;
use super::tokens::Tokens;
use super::{Failure, progress};

const EXAMPLES: &str = "\
Examples:
  lfm2 logits --model DIR --tokens 1,2,3 --out logits.safetensors
  lfm2 logits --model DIR --tokens @prompt.txt --state --kv f16 --out logits.safetensors
  lfm2 logits --model F.gguf --activations int8 --tokens 1,2,3 --out logits.safetensors
  lfm2 logits --preset 230m --tokens 1,2,3 --isa scalar --threads 1 --out logits.safetensors

In Python:
  from safetensors.numpy import load_file
  logits = load_file('logits.safetensors')['logits']     # [tokens, vocabulary], float32";

/// Writes the logits of every token to a safetensors file
///
/// The file holds the tensor `logits`, [tokens, vocabulary]. The same model, tokens, --kv and --activations give the same bytes, whatever the
/// instruction set, the number of threads and the chunks. Prints the SHA-256 of the tensor's bytes, to compare machines by.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct LogitsArguments {
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Token ids with commas between them, or @FILE for a file with commas or white space between them
    #[arg(long, value_name = "IDS|@FILE")]
    tokens: Tokens,
    #[command(flatten)]
    settings: Settings,
    /// Also write what the model remembers after the last token
    ///
    /// Per attention layer `key.{layer}` and `value.{layer}`, [tokens, key and value heads * head_dim], keys after norm and RoPE;
    /// per conv layer `conv_state.{layer}`, [taps - 1, hidden_size], the last inputs of the convolution, oldest first. Layers count from 0.
    /// A model after llama.cpp issue #22287 that shifts along time also has `shifted_1.{layer}`, [1, hidden_size], and
    /// `shifted_2.{layer}`, [2, hidden_size]: the last values of the chunks that it shifts by one and by two, oldest first.
    #[arg(long)]
    state: bool,
    /// The file to write; one that is there is replaced once the new one is whole
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(arguments: LogitsArguments) -> Result<ExitCode, Failure> {
    arguments.settings.pool()?.install(|| write(&arguments))?;
    Ok(ExitCode::SUCCESS)
}

fn write(arguments: &LogitsArguments) -> Result<(), Failure> {
    // First, so that a place that cannot be written to is told at once.
    let mut file = OutputFile::create(&arguments.out)?;
    let settings = &arguments.settings;
    let model = arguments.checkpoint.load(settings.activations())?;
    let config = model.config();
    let vocabulary = config.vocabulary;
    let tokens = arguments.tokens.within(vocabulary)?;
    let mut state = settings.state(&model, tokens.len())?;
    let call = settings.calls(tokens).map(<[u32]>::len).max().unwrap_or(0);
    check_memory(&format!("the logits of {call} tokens"), (call * vocabulary * 4) as u64)?;

    let mut tensors = vec![("logits".to_string(), [tokens.len(), vocabulary])];
    if arguments.state {
        let remembered = state_tensors(config, &state, tokens.len());
        tensors.extend(remembered.into_iter().map(|tensor| (tensor.name, tensor.shape)));
    }
    file.write_all(&safetensors_header(&tensors))?;

    let (isa, mut scratch) = (settings.isa(), Scratch::default());
    let (mut hash, mut logits) = (Sha256::new(), Vec::new());
    let bar = progress::bar("logits", "tokens", tokens.len());
    for tokens in settings.calls(tokens) {
        logits.resize(tokens.len() * vocabulary, 0.0);
        let sequence = Sequence { tokens, state: &mut state };
        model.forward(isa, &mut [sequence], &mut scratch, Logits::All(&mut logits))?;
        for row in logits.chunks(vocabulary) {
            let bytes = to_bytes(row);
            hash.update(&bytes);
            file.write_all(&bytes)?;
        }
        bar.inc(tokens.len() as u64);
    }
    if arguments.state {
        for tensor in state_tensors(config, &state, tokens.len()) {
            file.write_all(&to_bytes(&tensor.values))?;
        }
    }
    drop(bar);
    file.finish()?;
    print(&format!(
        "logits  [{}, {vocabulary}] f32, sha256 {:x}\nrun     activations in {}\nfile    {}\n",
        tokens.len(),
        hash.finalize(),
        settings.activations().name(),
        arguments.out.display()
    ))
}

/// Part of what a model remembers.
struct StateTensor {
    name: String,
    /// Once all tokens are seen.
    shape: [usize; 2],
    values: Vec<f32>,
}

/// All that a model remembers, in order of layers.
fn state_tensors(config: &Config, state: &State, tokens: usize) -> Vec<StateTensor> {
    let width = config.hidden_size;
    let shifts_time = config.description == Description::Issue22287 { shift_axis: ShiftAxis::Time };
    let mut tensors = Vec::new();
    for (index, layer) in state.layers().iter().enumerate() {
        let mut add = |name, shape, values| {
            tensors.push(StateTensor { name: format!("{name}.{index}"), shape, values });
        };
        let conv_shape = [config.conv_length - 1, width];
        match layer {
            LayerState::Attention(cache) => {
                let shape = [tokens, config.key_value_width()];
                add("key", shape, cache.keys());
                add("value", shape, cache.values());
            }
            LayerState::Conv(ConvState::Gated(inputs)) => {
                add("conv_state", conv_shape, inputs.clone());
            }
            LayerState::Conv(ConvState::ShiftSum(state)) => {
                add("conv_state", conv_shape, state.sums.clone());
                if shifts_time {
                    let [second, third_older, third] = &state.chunks;
                    add("shifted_1", [1, width], second.clone());
                    add("shifted_2", [2, width], [&third_older[..], third].concat());
                }
            }
        }
    }
    tensors
}

/// The start of a safetensors file that holds `f32` tensors in that order.
fn safetensors_header(tensors: &[(String, [usize; 2])]) -> Vec<u8> {
    let mut entries = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += shape[0] * shape[1] * size_of::<f32>();
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        entries.insert(name.clone(), entry);
    }
    let mut text = serde_json::Value::Object(entries).to_string();
    // The format asks for data that starts at a multiple of eight.
    text += &" ".repeat(text.len().next_multiple_of(8) - text.len());
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
