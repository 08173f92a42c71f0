//! A case in one line, `OP:shape:isa:seed:fill`: what a failure prints, and what `lfm2 check --repro` runs again.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use lfm2_kernels::Isa;
use lfm2_kernels::simd::IsaError;

use crate::buffer::Place;
use crate::cases::{OPS, Op, Shape};
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
    /// The sizes are not those of the operation.
    #[error("shape {found:?}: {op} has {}=N", dimensions.join("=N,"))]
    Shape {
        /// What was given.
        found: String,
        /// Of which operation.
        op: &'static str,
        /// Its dimensions.
        dimensions: &'static [&'static str],
    },
    /// The sizes ask for more memory than any case.
    #[error("shape {0:?} is larger than any case")]
    TooLarge(String),
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
        let shape = parse_shape(shape, &op)?;
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

fn parse_shape(text: &str, op: &Op) -> Result<Shape, CaseLineError> {
    /// More elements than any slice of a case has.
    const TOO_MANY: u128 = 1 << 32;
    /// More than any size of a model, whose sizes are not multiplied all with all.
    const TOO_MUCH_FOR_A_MODEL: usize = 2048;
    let malformed =
        || CaseLineError::Shape { found: text.into(), op: op.name, dimensions: op.dimensions };
    let sizes: Vec<&str> = text.split(',').collect();
    if sizes.len() != op.dimensions.len() {
        return Err(malformed());
    }
    let size = |(name, size): (&&str, &&str)| {
        size.split_once('=').filter(|(found, _)| found == name)?.1.parse::<usize>().ok()
    };
    let sizes: Option<Vec<usize>> = op.dimensions.iter().zip(&sizes).map(size).collect();
    let sizes = sizes.ok_or_else(malformed)?;
    let (mut elements, mut cached) = (1_u128, 1_u128);
    for (&name, &size) in op.dimensions.iter().zip(&sizes) {
        let size = size as u128;
        match name {
            // These take no memory.
            "position" | "step" | "theta" => (),
            _ if op.name.starts_with("model") && size < TOO_MUCH_FOR_A_MODEL as u128 => (),
            "first_position" | "newer" | "room" => cached += size,
            _ => elements = elements.saturating_mul(size.max(1)),
        }
        if size > 1 << 24 || elements.saturating_mul(cached) > TOO_MANY {
            return Err(CaseLineError::TooLarge(text.into()));
        }
    }
    Ok(Shape::new(sizes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

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
            ("add:length=-1:scalar:1:normal", vec!["length=N"]),
            ("add:length=99999999999:scalar:1:normal", vec!["larger than any case"]),
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
