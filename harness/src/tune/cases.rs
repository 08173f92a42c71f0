//! What is timed to tune a knob, and at the end: linear layers of a model in the usual formats, attention, small operations, and a pass through two layers.

use std::path::Path;

use lfm2_kernels::Isa;
use lfm2_kernels::format::Gguf;
use lfm2_kernels::model::{Config, Error, LayerKind};
use lfm2_kernels::tuning::Knob;

use crate::ceiling::beyond_cache;
use crate::machine::Machine;
use crate::workload::operations::{
    self, AttentionCase, BF16, BF16_BF16, F16, F32, Q4_0, Q8_0, attention_case, linear_case,
};
use crate::workload::{Case, Stored, Weights, forward_case};
use lfm2_kernels::linear::Activations;
use lfm2_kernels::ops::CacheElement;

mod ready;

pub use ready::{Ready, SLOT};

/// Of which model cases are.
pub struct Shapes {
    config: Config,
    is_tiny: bool,
}

/// How many rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rows {
    /// A decoded token.
    One,
    /// Of a few sequences.
    Few,
    /// Of more of them.
    Several,
    /// Of a short prompt.
    More,
    /// Of a pass.
    Many,
}
use Rows::{Few, Many, More, One, Several};

/// What a case is, as far as knobs care.
#[derive(Clone, Copy)]
enum Kind {
    Linear { stored: Stored, rows: Rows, is_smallest: bool },
    Attention(Rows),
    Small,
    Forward,
}

/// A case and what it is.
pub struct Tuned<'a> {
    /// What is timed.
    pub case: Case<'a>,
    kind: Kind,
}

impl Shapes {
    /// A shape for trying things out, which does not say anything about a model.
    pub const TINY: &'static str = "tiny";

    /// Those of a preset, or of the model in a GGUF file, a Hugging Face folder or a `config.json`.
    ///
    /// # Errors
    ///
    /// If there is no such preset, or the file cannot be read or is of another kind of model.
    pub fn of(name: &str) -> Result<Self, Error> {
        let path = Path::new(name);
        let is_tiny = name == Self::TINY;
        let config = if is_tiny {
            let layers = vec![LayerKind::Conv, LayerKind::Attention];
            let preset = Config::preset("350m")?;
            Config {
                hidden_size: 64,
                heads: 4,
                key_value_heads: 2,
                head_dim: 16,
                feed_forward_width: 96,
                layers,
                ..preset
            }
        } else if Config::preset_names().any(|preset| preset == name) {
            Config::preset(name)?
        } else if !path.exists() {
            let presets: Vec<_> = Config::preset_names().collect();
            return Err(Error::Config(format!(
                "is no file: expected {}, one of {}, or a GGUF file, a Hugging Face folder or a config.json",
                Self::TINY,
                presets.join(", ")
            )));
        } else if path.is_dir() {
            Config::read(&path.join("config.json"))?
        } else if path.extension().is_some_and(|extension| extension == "json") {
            Config::read(path)?
        } else {
            Gguf::open(path)?.config()?
        };
        Ok(Self { config, is_tiny })
    }

    /// Bytes that the copies of a matrix or a cache take together at least: beyond any cache, as far as memory has room for all of them twice.
    pub fn weight_bytes(&self) -> usize {
        /// Matrices in six formats and two shapes, and caches; with small pages and with huge ones.
        const COPIES: u64 = 2 * (6 * 2 + 3);
        if self.is_tiny {
            return 1;
        }
        let memory = Machine::detect().memory_bytes.unwrap_or(u64::MAX);
        beyond_cache().min((memory / 2 / COPIES) as usize)
    }

    fn rows(&self, rows: Rows) -> usize {
        match (rows, self.is_tiny) {
            (One, _) => 1,
            (Few, _) => 4,
            (Several, _) => 16,
            (More, _) => 64,
            (Many, true) => 96,
            (Many, false) => 256,
        }
    }

    /// All that a profile is held against the defaults with.
    pub fn cases<'a>(&self, isa: Isa, weights: &'a Weights) -> Vec<Tuned<'a>> {
        let Config { hidden_size: width, feed_forward_width, .. } = self.config;
        let mut cases = Vec::new();
        let formats = [F32, F16, BF16, BF16_BF16, Q8_0, Q4_0];
        // Those of the same weights follow each other.
        for stored in formats {
            if !width.is_multiple_of(stored.format.block()) {
                continue;
            }
            let smallest = self.config.key_value_width();
            for (outputs, is_smallest) in [(feed_forward_width, false), (smallest, true)] {
                let all: &[_] = match is_smallest {
                    // Few and single rows are as those of brain floats.
                    _ if stored == F16 => &[Many],
                    true => &[One, Several, Many],
                    false => &[One, Few, Several, More, Many],
                };
                for &rows in all {
                    let kind = Kind::Linear { stored, rows, is_smallest };
                    let case = linear_case(isa, stored, [outputs, width], self.rows(rows), weights);
                    cases.push(Tuned { case, kind });
                }
            }
        }
        for (rows, context) in [(One, 512), (One, 2048), (Many, 0), (Many, 2048)] {
            let count = self.rows(rows);
            let attention = AttentionCase {
                element: CacheElement::F32,
                rows: count,
                // So many keys with those of the rows.
                context: if rows == One { context } else { usize::max(context, count) - count },
                least_bytes: self.weight_bytes(),
                ..AttentionCase::of(&self.config)
            };
            cases.push(Tuned { case: attention_case(isa, attention), kind: Kind::Attention(rows) });
        }
        for rows in [Several, Many] {
            let small = operations::small_cases(isa, self.rows(rows)).into_iter();
            cases.extend(small.map(|case| Tuned { case, kind: Kind::Small }));
        }
        if width.is_multiple_of(Q8_0.format.block()) {
            let rows = 2 * self.rows(Many);
            let case = forward_case(isa, Q8_0, self.two_layers(), rows);
            cases.push(Tuned { case, kind: Kind::Forward });
        }
        cases.retain(|tuned| !tuned.case.is_too_slow());
        cases
    }

    /// A layer of each kind, and little besides.
    fn two_layers(&self) -> Config {
        Config {
            layers: vec![LayerKind::Conv, LayerKind::Attention],
            experts: None,
            vocabulary: 512,
            tied_embedding: true,
            ..self.config.clone()
        }
    }
}

impl Tuned<'_> {
    /// Whether a knob can make a difference to it.
    pub fn depends_on(&self, knob: Knob) -> bool {
        let isa = self.case.isa;
        let is_forward = matches!(self.kind, Kind::Forward);
        let linear = |is_it: &dyn Fn(Stored, Rows) -> bool| match self.kind {
            Kind::Linear { stored, rows, .. } => is_it(stored, rows),
            _ => false,
        };
        let attends = |is_it: &dyn Fn(Rows) -> bool| match self.kind {
            Kind::Attention(rows) => is_it(rows),
            _ => false,
        };
        // Where there is no instruction for rounded activations, they are multiplied as others.
        let is_paired = |stored| stored == BF16_BF16 && isa.has_brain_dots();
        let is_int8 = |stored: Stored| stored.activations == Activations::Int8;
        let is_narrow = |stored: Stored| [F16, BF16, BF16_BF16].contains(&stored);
        match knob {
            Knob::BlockRows => linear(&|_, rows| rows == Many) || is_forward,
            Knob::TasksPerThread => linear(&|_, rows| rows > One) || is_forward,
            Knob::SharedBytes => linear(&|_, _| true) || is_forward,
            Knob::RowRunBytes | Knob::RowThreads => linear(&|_, rows| rows == One),
            Knob::ManyRows => linear(&|_, rows| rows >= Several) || is_forward,
            Knob::WidenedRows => {
                let is_it = |stored, rows| is_narrow(stored) && !is_paired(stored) && rows > One;
                isa.has_few_registers() && linear(&is_it)
            }
            Knob::WidenedHalves => {
                !isa.has_few_registers() && linear(&|stored, rows| stored == F16 && rows == Many)
            }
            Knob::ChainCuts => {
                linear(&|stored, rows| !is_int8(stored) && !is_paired(stored) && rows > One)
            }
            Knob::BrainCuts => linear(&|stored, rows| is_paired(stored) && rows > One),
            Knob::IntegerGroups => {
                linear(&|stored, rows| is_int8(stored) && rows > One) || is_forward
            }
            Knob::WideAhead => linear(&|stored, rows| stored == F32 && rows == One),
            Knob::NarrowAhead => {
                linear(&|stored, rows| is_narrow(stored) && !is_paired(stored) && rows == One)
            }
            Knob::BrainAhead => linear(&|stored, rows| is_paired(stored) && rows == One),
            Knob::EightBitAhead => linear(&|stored, rows| stored == Q8_0 && rows == One),
            Knob::QuantisedAhead => {
                linear(&|stored, rows| is_int8(stored) && stored != Q8_0 && rows == One)
            }
            Knob::SharedKeys => attends(&|rows| rows == One),
            Knob::AttentionTasks | Knob::AttentionBands => {
                attends(&|rows| rows > One) || is_forward
            }
            Knob::PassRows => is_forward,
            Knob::PrefetchLevel => {
                let is_asked = cfg!(target_arch = "x86_64") && isa.name() != "scalar";
                is_asked && !matches!(self.kind, Kind::Small | Kind::Attention(_))
            }
            Knob::SharedElements => {
                let is_prepared =
                    |stored, rows| rows > One && (is_int8(stored) || stored == BF16_BF16);
                matches!(self.kind, Kind::Small) || linear(&is_prepared) || is_forward
            }
            Knob::HugePages => !matches!(self.kind, Kind::Small),
        }
    }

    /// Whether a knob is judged by it: where the knob matters most, as a round must not take long. The others show when the whole profile is compared.
    pub fn judges(&self, knob: Knob) -> bool {
        let matters = match (knob, self.kind) {
            (Knob::PassRows, _) => true,
            (_, Kind::Forward) => false,
            (Knob::SharedBytes, Kind::Linear { rows, is_smallest, .. }) => {
                is_smallest || rows == One
            }
            (Knob::SharedElements, Kind::Linear { is_smallest, .. }) => is_smallest,
            _ => true,
        };
        matters && self.depends_on(knob)
    }
}

/// The values of a knob that are worth trying and make a difference on so many threads.
pub fn values(knob: Knob, threads: usize) -> Vec<usize> {
    let tried = knob.tried().iter().copied();
    match knob {
        Knob::RowThreads => tried.filter(|value| *value < threads).collect(),
        // What is shared or cut for other threads.
        Knob::SharedBytes | Knob::SharedKeys | Knob::SharedElements if threads == 1 => Vec::new(),
        _ => tried.collect(),
    }
}
