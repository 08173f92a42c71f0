//! A case in one line, `OP:shape:isa:seed:fill`: what a failure prints, and what `lfm2 check --repro` runs again.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use lfm2_kernels::Isa;
use lfm2_kernels::simd::IsaError;

use crate::buffer::Place;
use crate::cases::{OPS, Op, Shape, ShapeError};
use crate::data::Data;
use crate::fill::{Fill, UnknownFill};

/// The most threads that a case runs on.
pub const MOST_THREADS: usize = 4;

/// All that makes a case of an operation, besides the instruction set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The sizes.
    pub shape: Shape,
    /// What its data depend on.
    pub seed: u32,
    /// What kind of data.
    pub fill: Fill,
    /// Threads of the pool that runs everything but the reference, 1 to [`MOST_THREADS`].
    pub threads: usize,
    /// Where its slices lie.
    pub place: Place,
}

impl Plan {
    /// Where the case's numbers come from.
    pub fn data(&self) -> Data {
        Data { seed: self.seed.into(), fill: self.fill, place: self.place }
    }
}

/// A case of an operation on one instruction set.
#[derive(Clone)]
pub struct CaseLine {
    /// The operation.
    pub op: Op,
    /// The instruction set.
    pub isa: Isa,
    /// The rest.
    pub plan: Plan,
}

impl fmt::Debug for CaseLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CaseLine {
    /// `linear_f32:rows=1,inputs=3,outputs=17,bias=0:avx2:5:normal`, and `:threads=2` unless it is one, and `:guard=end` in guarded memory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, isa, plan: Plan { shape, seed, fill, threads, place } } = self;
        write!(f, "{}:{}:{isa}:{seed}:{fill}", op.name, shape.display(op))?;
        if *threads != 1 {
            write!(f, ":threads={threads}")?;
        }
        place.guard().map_or(Ok(()), |side| write!(f, ":guard={side}"))
    }
}

/// Why a line is no case.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum CaseLineError {
    /// It has too few parts, or too many.
    #[error("{0:?} is not OP:SHAPE:ISA:SEED:FILL, or that with :threads=N, :guard=SIDE or both")]
    Parts(String),
    /// There is no such operation.
    #[error("no operation is named {name:?}: there are {}", known.join(", "))]
    Op {
        /// What was given.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The operation takes no such sizes.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Unknown, or not on this CPU.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// Not a number of 32 bits.
    #[error("seed {0:?}: {1}")]
    Seed(String, ParseIntError),
    /// Unknown.
    #[error(transparent)]
    Fill(#[from] UnknownFill),
    /// Not a number of threads that cases run on.
    #[error("threads {0:?}: expected 1 to {MOST_THREADS}")]
    Threads(String),
    /// Not a side of a slice.
    #[error("guard {0:?}: expected guard=end or guard=start")]
    Guard(String),
}

impl FromStr for CaseLine {
    type Err = CaseLineError;

    fn from_str(line: &str) -> Result<Self, CaseLineError> {
        let parts: Vec<&str> = line.trim().split(':').collect();
        let (first, threads, guard) = match parts.split_at_checked(5) {
            Some((first, [])) => (first, None, None),
            Some((first, [guard])) if guard.starts_with("guard") => (first, None, Some(*guard)),
            Some((first, [threads])) => (first, Some(*threads), None),
            Some((first, [threads, guard])) => (first, Some(*threads), Some(*guard)),
            _ => return Err(CaseLineError::Parts(line.into())),
        };
        let &[op, shape, isa, seed, fill] = first else { unreachable!("it was split at five") };
        let op = *Op::named(op)
            .ok_or_else(|| CaseLineError::Op { name: op.into(), known: op_names() })?;
        let shape = op.shape(shape)?;
        let isa = isa.parse()?;
        let seed = seed.parse().map_err(|error| CaseLineError::Seed(seed.into(), error))?;
        let fill = fill.parse()?;
        let threads = match threads {
            None => 1,
            Some(text) => text
                .strip_prefix("threads=")
                .and_then(|count| count.parse().ok())
                .filter(|count| (1..=MOST_THREADS).contains(count))
                .ok_or_else(|| CaseLineError::Threads(text.into()))?,
        };
        let place = match guard {
            None => Place::Ordinary,
            Some(text) => Place::GUARDED
                .into_iter()
                .find(|place| text.strip_prefix("guard=") == place.guard())
                .ok_or_else(|| CaseLineError::Guard(text.into()))?,
        };
        Ok(Self { op, isa, plan: Plan { shape, seed, fill, threads, place } })
    }
}

fn op_names() -> Vec<&'static str> {
    OPS.iter().map(|op| op.name).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;
    use crate::check::{Failure, cases_from_environment, replay};
    use crate::gate::Gate;

    fn lines() -> impl Strategy<Value = CaseLine> {
        let isas = select(Isa::available());
        let places = select(vec![Place::Ordinary, Place::GuardedEnd, Place::GuardedStart]);
        let rest = (any::<u32>(), select(Fill::ALL.to_vec()), 1..=MOST_THREADS, places);
        (0..OPS.len(), isas, rest).prop_flat_map(|(op, isa, (seed, fill, threads, place))| {
            let op = OPS[op];
            (op.drawn_shapes)().prop_map(move |shape| CaseLine {
                op,
                isa,
                plan: Plan { shape, seed, fill, threads, place },
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parse_and_print_are_inverse(line in lines()) {
            let text = line.to_string();
            let parsed: CaseLine = text.parse().expect("a printed line");
            prop_assert_eq!(parsed.to_string(), text);
            prop_assert_eq!(parsed.op.name, line.op.name);
            prop_assert_eq!(parsed.isa, line.isa);
            prop_assert_eq!(parsed.plan, line.plan);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = text.parse::<CaseLine>();
        }

        #[test]
        fn a_damaged_line_is_an_error_or_another_case(line in lines(), at in any::<prop::sample::Index>(), by in any::<char>()) {
            let mut text: Vec<char> = line.to_string().chars().collect();
            let at = at.index(text.len());
            text[at] = by;
            let text: String = text.into_iter().collect();
            if let Ok(parsed) = text.parse::<CaseLine>() {
                let printed = parsed.to_string();
                prop_assert_eq!(printed.parse::<CaseLine>().map(|again| again.plan).ok(), Some(parsed.plan));
            }
        }
    }

    /// A size that somebody made up.
    fn sizes() -> impl Strategy<Value = usize> {
        let beyond = [(1 << 24) + 1, 1 << 32, 1 << 63, usize::MAX];
        prop_oneof![
            6 => 0..40_usize,
            2 => select(vec![48, 64, 127, 257, 2000]),
            2 => select(beyond.to_vec()),
        ]
    }

    /// Cases of an operation some of whose sizes are replaced, as text.
    fn made_up_lines(op: Op) -> impl Strategy<Value = String> {
        let count = op.dimensions.len();
        let replaced = prop::collection::vec((0..count, sizes()), 0..=count.min(4));
        let rest = (any::<u32>(), select(Fill::ALL.to_vec()), 1..=MOST_THREADS);
        (select((op.fixed_shapes)()), replaced, rest).prop_map(move |(shape, replaced, rest)| {
            let text = shape.display(&op).to_string();
            let mut parts: Vec<String> = text.split(',').map(String::from).collect();
            for (i, size) in replaced {
                parts[i] = format!("{}={size}", op.dimensions[i].name);
            }
            let (seed, fill, threads) = rest;
            let isa = Isa::best();
            format!("{}:{}:{isa}:{seed}:{fill}:threads={threads}", op.name, parts.join(","))
        })
    }

    /// Whatever the sizes are: an operation refuses them, or its result is right.
    #[test]
    #[cfg_attr(
        target_arch = "aarch64",
        ignore = "the same everywhere, and slow where it is emulated"
    )]
    fn sizes_are_refused_or_run() {
        let cases = cases_from_environment().expect("LFM2_CASES is a number").unwrap_or(32);
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let (refused, ran) = (Cell::new(0), Cell::new(0));
        let count = |cell: &Cell<u32>| cell.set(cell.get() + 1);
        for op in OPS {
            let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
            let mut runner = TestRunner::new_with_rng(config.clone(), random);
            let result = runner.run(&made_up_lines(*op), |line| {
                let Ok(line) = line.parse::<CaseLine>() else {
                    count(&refused);
                    return Ok(());
                };
                count(&ran);
                let failed = |failure: Failure| TestCaseError::fail(failure.reason);
                replay(&Gate::OURS, &line).map(drop).map_err(failed)
            });
            result.unwrap_or_else(|error| panic!("{}: {error}", op.name));
        }
        let (refused, ran) = (refused.get(), ran.get());
        assert!(refused > ran / 4 && ran > refused / 4, "{refused} were refused, {ran} ran");
    }

    #[test]
    fn every_fixed_shape_can_be_written() {
        for op in OPS {
            for shape in (op.fixed_shapes)() {
                let (fill, place) = (Fill::Normal, Place::GuardedEnd);
                let plan = Plan { shape, seed: 1, fill, threads: 2, place };
                let line = CaseLine { op: *op, isa: Isa::best(), plan };
                let parsed: CaseLine = line.to_string().parse().expect("a printed line");
                assert_eq!(parsed.plan, line.plan);
            }
        }
    }

    #[test]
    fn errors_say_what_would_be_right() {
        for (line, parts) in [
            ("add", vec!["OP:SHAPE:ISA:SEED:FILL"]),
            ("ad:length=1:scalar:1:normal", vec!["\"ad\"", "add", "rms_norm"]),
            ("add:width=1:scalar:1:normal", vec!["width=1", "length=N"]),
            ("add:length=1,length=2:scalar:1:normal", vec!["length=N"]),
            ("add:length:scalar:1:normal", vec!["length=N"]),
            ("add:length=-1:scalar:1:normal", vec!["length=-1", "0 to 16777216"]),
            ("add:length=99999999999:scalar:1:normal", vec!["length=99999999999", "0 to 16777216"]),
            (
                "rms_norm:rows=9999,width=9999:scalar:1:normal",
                vec!["rms_norm", "products is 99980001", "at most 67108864"],
            ),
            (
                "attention_f32:rows=1,first_position=1,newer=0,key_value_heads=1,group=1,head_dim=0,room=0:scalar:1:normal",
                vec!["head_dim=0", "a multiple of 16 up to 128"],
            ),
            ("route:rows=1,experts=3,used=4,normalise=1:scalar:1:normal", vec!["used is 4", "3"]),
            (
                "rope:rows=9,heads=1,half_head_dim=4,position=5,step=2097152,theta=9:scalar:1:normal",
                vec!["last position is 18874373", "at most 16777216"],
            ),
            (
                "model_quantised:format=8,activations=0,layers=1,attention=0,blocks=1,feed_forward_blocks=1,experts=0,prompt=1,way=0:scalar:1:normal",
                vec!["format=8", "0 to 7"],
            ),
            (
                "model_quantised:format=7,activations=0,layers=1,attention=0,blocks=64,feed_forward_blocks=1,experts=0,prompt=1,way=0:scalar:1:normal",
                vec!["weights", "at most 16777216"],
            ),
            ("add:length=1:avx3:1:normal", vec!["avx3", "scalar"]),
            ("add:length=1:scalar:x:normal", vec!["seed", "\"x\""]),
            ("add:length=1:scalar:1:norml", vec!["norml", "normal", "uniform"]),
            ("add:length=1:scalar:1:normal:threads=9", vec!["threads=9", "1 to 4"]),
            ("add:length=1:scalar:1:normal:guard=left", vec!["guard=left", "end", "start"]),
            ("add:length=1:scalar:1:normal:guard=end:threads=2", vec!["threads", "guard=end"]),
            ("add:length=1:scalar:1:normal:threads=2:guard", vec!["\"guard\"", "start"]),
        ] {
            let error = line.parse::<CaseLine>().expect_err(line).to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
        }
    }
}
