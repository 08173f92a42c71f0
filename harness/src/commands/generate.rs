use std::process::ExitCode;
use std::time::{Duration, Instant};

use lfm2_kernels::model::{Logits, Scratch, Sequence};
use lfm2_kernels::ops::argmax;
use lfm2_kernels::threads::enter;
use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::output::{bytes, counted, print, print_json, table};
use super::settings::Settings;
use super::tokens::Tokens;
use super::{Failure, progress};

const EXAMPLES: &str = "\
Examples:
  lfm2 generate --model DIR --tokens 1,2,3 --max-new 50 --stop 7
  lfm2 generate --model F.gguf --activations int8 --tokens 1,2,3
  lfm2 generate --preset 350m --weights bf16 --tokens 1,2,3 --max-new 50
  lfm2 generate --preset 350m --tokens @prompt.txt --max-new 0 --json";

/// Continues a prompt with the most likely token, again and again, and tells how fast
///
/// Works on token ids: the text's tokenizer is not part of this. Prints the new ids, tokens per second for the prompt (prefill) and
/// for what follows (decode), and the memory that weights, state and working buffers take.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArguments {
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Token ids with commas between them, or @FILE for a file with commas or white space between them
    #[arg(long, value_name = "IDS|@FILE")]
    tokens: Tokens,
    /// How many new tokens to make at most; 0 only reads the prompt
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    max_new: u32,
    /// Stop after making this token; several with commas between them
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    stop: Vec<u32>,
    #[command(flatten)]
    settings: Settings,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    isa: &'static str,
    threads: usize,
    kv: &'static str,
    activations: &'static str,
    tokens: Vec<u32>,
    /// Whether a stop token ended the run.
    stopped: bool,
    prefill: Speed,
    /// The first new token comes from the prompt's last logits, so this counts one token less than were made.
    decode: Speed,
    memory: Memory,
}

#[derive(Serialize)]
struct Speed {
    tokens: usize,
    seconds: f64,
    tokens_per_second: Option<f64>,
}

#[derive(Serialize)]
struct Memory {
    weights_bytes: usize,
    state_bytes: usize,
    scratch_bytes: usize,
}

pub fn run(arguments: GenerateArguments) -> Result<ExitCode, Failure> {
    let report = arguments.settings.pool()?.install(|| enter(|| generate(&arguments)))?;
    match arguments.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn generate(arguments: &GenerateArguments) -> Result<Report, Failure> {
    let (settings, most) = (&arguments.settings, arguments.max_new as usize);
    let model = arguments.checkpoint.load(settings.activations())?;
    let vocabulary = model.config().vocabulary;
    let prompt = arguments.tokens.within(vocabulary)?;
    let mut state = settings.state(&model, prompt.len() + most)?;
    let (isa, mut scratch) = (settings.isa(), Scratch::default());
    let mut logits = vec![0.0; vocabulary];
    let mut forward = |tokens: &[u32]| {
        let sequence = Sequence { tokens, state: &mut state };
        model.forward(isa, &mut [sequence], &mut scratch, Logits::Last(&mut logits))?;
        Ok::<u32, Failure>(argmax(isa, &logits) as u32)
    };

    let bar = progress::bar("prefill", "tokens", prompt.len());
    let began = Instant::now();
    let mut next = 0;
    for call in settings.calls(prompt) {
        next = forward(call)?;
        bar.inc(call.len() as u64);
    }
    let prefill = Speed::new(prompt.len(), began.elapsed());

    drop(bar);
    let bar = progress::bar("decode", "tokens", most);
    let began = Instant::now();
    let (mut tokens, mut stopped) = (Vec::new(), false);
    while tokens.len() < most && !stopped {
        if let Some(last) = tokens.last() {
            next = forward(&[*last])?;
        }
        tokens.push(next);
        stopped = arguments.stop.contains(&next);
        bar.inc(1);
    }
    let decode = Speed::new(tokens.len().saturating_sub(1), began.elapsed());
    drop(bar);

    Ok(Report {
        model: arguments.checkpoint.name(),
        isa: isa.name(),
        threads: rayon::current_num_threads(),
        kv: settings.key_value_name(),
        activations: settings.activations().name(),
        tokens,
        stopped,
        prefill,
        decode,
        memory: Memory {
            weights_bytes: model.bytes(),
            state_bytes: state.bytes(),
            scratch_bytes: scratch.bytes(),
        },
    })
}

impl Speed {
    fn new(tokens: usize, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        let measured = tokens > 0 && seconds > 0.0;
        Self { tokens, seconds, tokens_per_second: measured.then(|| tokens as f64 / seconds) }
    }

    fn text(&self) -> String {
        let tokens = counted(self.tokens, "token");
        match self.tokens_per_second {
            Some(rate) => format!("{tokens} in {:.3} s, {rate:.1} tokens per second", self.seconds),
            None => tokens,
        }
    }
}

fn text(report: &Report) -> String {
    let Memory { weights_bytes, state_bytes, scratch_bytes } = report.memory;
    let [weights, state, scratch] =
        [weights_bytes, state_bytes, scratch_bytes].map(|count| bytes(count as u64));
    let tokens: Vec<_> = report.tokens.iter().map(u32::to_string).collect();
    let threads = counted(report.threads, "thread");
    let rows = [
        ["tokens", &tokens.join(",")],
        ["prefill", &report.prefill.text()],
        ["decode", &report.decode.text()],
        ["memory", &format!("weights {weights}, state {state}, scratch {scratch}")],
        [
            "run",
            &format!(
                "{} on {}, {threads}, keys and values in {}, activations in {}",
                report.model, report.isa, report.kv, report.activations
            ),
        ],
    ];
    table(&rows.map(|row| row.map(String::from)))
}
