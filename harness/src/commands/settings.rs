//! How a command runs a model. None of this changes the result, but for the cache's type and the activations'.

use std::num::NonZeroUsize;
use std::slice::Chunks;
use std::str::FromStr;

use lfm2_kernels::Isa;
use lfm2_kernels::linear::Activations;
use lfm2_kernels::model::{Config, LayerKind, Model, State};
use lfm2_kernels::ops::CacheElement;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::profile::ProfileArguments;
use super::{Failure, checkpoint};

#[derive(clap::Args)]
pub struct Settings {
    /// The instruction set, as `lfm2 isas` names it [default: this CPU's best]
    ///
    /// One that this CPU lacks is an error. The result is the same on each.
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    profile: ProfileArguments,
    /// How many tokens of the prompt a call takes, or `whole` for all in one call
    ///
    /// The result is the same for each.
    #[arg(long, value_name = "N|whole", default_value = "512")]
    chunk: Chunk,
    /// In what keys and values are kept
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    kv: KeyValue,
    /// How weights meet activations: f32 as they are, int8 quantised in blocks of 32, bf16 rounded to brain floats, which are faster
    ///
    /// int8 is for quantised weights, bf16 for weights that are brain floats; others meet activations as they are.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    activations: ActivationsName,
}

/// Those that were asked for, or all but what gives dot products up: each instruction set once, in the order in which the machine lists them.
pub fn chosen_isas(asked: &[Isa]) -> Vec<Isa> {
    if asked.is_empty() {
        return Isa::available();
    }
    Isa::available_for_integers().into_iter().filter(|isa| asked.contains(isa)).collect()
}

#[derive(clap::Args)]
pub struct Threads {
    /// How many threads to use [default: all that this CPU has]
    ///
    /// The result is the same for every number.
    // No CPU has more than the bound, and each costs memory.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
}

#[derive(Clone, Copy)]
enum Chunk {
    Tokens(NonZeroUsize),
    Whole,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum KeyValue {
    F32,
    F16,
}

impl KeyValue {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

impl From<KeyValue> for CacheElement {
    fn from(name: KeyValue) -> Self {
        match name {
            KeyValue::F32 => Self::F32,
            KeyValue::F16 => Self::F16,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum ActivationsName {
    F32,
    Int8,
    Bf16,
}

impl From<ActivationsName> for Activations {
    fn from(name: ActivationsName) -> Self {
        match name {
            ActivationsName::F32 => Self::F32,
            ActivationsName::Int8 => Self::Int8,
            ActivationsName::Bf16 => Self::Bf16,
        }
    }
}

impl FromStr for Chunk {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "whole" {
            return Ok(Self::Whole);
        }
        text.parse()
            .map(Self::Tokens)
            .map_err(|_| "expected a positive number of tokens, or `whole`")
    }
}

impl Threads {
    /// How many were asked for.
    pub fn count(&self) -> Option<u32> {
        self.threads
    }

    /// The pool in which to run everything.
    pub fn pool(&self) -> Result<ThreadPool, Failure> {
        // Rayon takes 0 as its default: all that the CPU has.
        let threads = self.threads.unwrap_or(0) as usize;
        ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| format!("the threads cannot be started: {error}").into())
    }
}

impl Settings {
    /// The instruction set to use.
    pub fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::best)
    }

    /// The pool in which to run everything, after the profile is put in force.
    pub fn pool(&self) -> Result<ThreadPool, Failure> {
        self.profile.install()?;
        self.threads.pool()
    }

    /// The name of the type in which keys and values are kept.
    pub fn key_value_name(&self) -> &'static str {
        self.kv.name()
    }

    /// How weights meet activations.
    pub fn activations(&self) -> Activations {
        self.activations.into()
    }

    /// The tokens of each call.
    pub fn calls<'a>(&self, tokens: &'a [u32]) -> Chunks<'a, u32> {
        match self.chunk {
            Chunk::Tokens(count) => tokens.chunks(count.get()),
            Chunk::Whole => tokens.chunks(tokens.len()),
        }
    }

    /// A state for `capacity` tokens, if this machine has room for it beside the model.
    pub fn state(&self, model: &Model, capacity: usize) -> Result<State, Failure> {
        let element = self.kv.into();
        let Config { key_value_heads, head_dim, .. } = model.config();
        let layers = model.config().count(LayerKind::Attention);
        let needed = [2, layers, *key_value_heads, *head_dim, bytes_of(element)]
            .into_iter()
            .fold(capacity as u64, |product, factor| product.saturating_mul(factor as u64));
        let needed = needed.saturating_add(model.bytes() as u64);
        checkpoint::check_memory(&format!("the model with a state of {capacity} tokens"), needed)?;
        Ok(model.new_state(capacity, element))
    }
}

/// Bytes of a key's or value's element.
pub fn bytes_of(element: CacheElement) -> usize {
    match element {
        CacheElement::F32 => 4,
        CacheElement::F16 => 2,
    }
}
