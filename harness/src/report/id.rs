//! The grammar of names of cases, which benches, manifests, Criterion's folders and reports share.
//!
//! ```text
//! id      = op "/" isa "/" format "/" shape "/" threads
//! op      = word            an operation by its function's name; conv_layer, attention_layer, conv_mixer, attention_mixer; model
//! isa     = word            an instruction set's name, such as avx2-nodot
//! format  = word            of weights, of cached keys and values, or of elements: f32, bf16, q4_0_int8
//! shape   = lengths         outermost first, joined by x; of linear: rows x outputs x inputs
//!         | "prefill-" T    T tokens at the start of a sequence
//!         | "decode-" T     one token after T others
//!         | "decode-" T "x" B        the same of B sequences in one call
//! threads = number          of the pool that ran it
//! word    = letters, digits, "_" and "-"
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id {
    /// What runs.
    pub op: String,
    /// On which instruction set.
    pub isa: String,
    /// Of weights, cache or elements.
    pub format: String,
    /// How much.
    pub shape: Shape,
    /// Of the pool.
    pub threads: usize,
}

/// How much a case does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Outermost first.
    Lengths(Vec<usize>),
    /// So many tokens at the start of a sequence.
    Prefill(usize),
    /// One token of each of `sequences`.
    Decode {
        /// The tokens before.
        context: usize,
        /// Those in one call.
        sequences: usize,
    },
}

impl Id {
    /// The folder of its results in Criterion's, which puts `_` for what no file's name may hold.
    pub fn folder(&self) -> String {
        let Self { op, isa, format, shape, threads } = self;
        format!("{op}/{isa}_{format}/{shape}_{threads}")
    }

    /// The command that measures it again.
    pub fn command(&self) -> String {
        let bench = match self.op.as_str() {
            "model" => "forward",
            "conv_layer" | "attention_layer" | "conv_mixer" | "attention_mixer" => "layers",
            _ => "ops",
        };
        let Self { isa, threads, .. } = self;
        format!(
            "cargo bench --bench {bench} -- --full --isa {isa} --threads {threads} --exact '{self}'"
        )
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { op, isa, format, shape, threads } = self;
        write!(f, "{op}/{isa}/{format}/{shape}/{threads}")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Lengths(lengths) => {
                let lengths: Vec<_> = lengths.iter().map(usize::to_string).collect();
                f.write_str(&lengths.join("x"))
            }
            Self::Prefill(tokens) => write!(f, "prefill-{tokens}"),
            Self::Decode { context, sequences: 1 } => write!(f, "decode-{context}"),
            Self::Decode { context, sequences } => write!(f, "decode-{context}x{sequences}"),
        }
    }
}

/// A name that does not follow the grammar.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{id}` is no id: expected op/isa/format/shape/threads, such as linear/avx2/f32/1x1024x1024/2"
)]
pub struct NoId {
    id: String,
}

impl FromStr for Id {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        parse(text).ok_or_else(|| NoId { id: text.to_string() })
    }
}

fn parse(text: &str) -> Option<Id> {
    let parts: [&str; 5] = text.split('/').collect::<Vec<_>>().try_into().ok()?;
    let [op, isa, format, shape, threads] = parts;
    Some(Id {
        op: word(op)?,
        isa: word(isa)?,
        format: word(format)?,
        shape: parse_shape(shape)?,
        threads: number(threads)?,
    })
}

fn word(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!text.is_empty() && text.chars().all(is_part)).then(|| text.to_string())
}

/// One that is written as it would be: no sign, no zeros before it.
fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number: &usize| number.to_string() == text)
}

fn parse_shape(text: &str) -> Option<Shape> {
    if let Some(tokens) = text.strip_prefix("prefill-") {
        return number(tokens).map(Shape::Prefill);
    }
    if let Some(rest) = text.strip_prefix("decode-") {
        return match rest.split_once('x') {
            None => Some(Shape::Decode { context: number(rest)?, sequences: 1 }),
            Some((context, sequences)) => {
                let sequences = number(sequences).filter(|&sequences| sequences > 1)?;
                Some(Shape::Decode { context: number(context)?, sequences })
            }
        };
    }
    text.split('x').map(number).collect::<Option<_>>().map(Shape::Lengths)
}

impl TryFrom<String> for Id {
    type Error = NoId;

    fn try_from(text: String) -> Result<Self, NoId> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_they_print() {
        for id in [
            "linear/avx512-nodot/q4_0_int8/512x3072x1024/2",
            "argmax/scalar/f32/65536/1",
            "conv_layer/neon/f32/prefill-16/8",
            "model/avx2/bf16/decode-128/2",
            "model/avx2/bf16/decode-128x16/2",
        ] {
            assert_eq!(id.parse::<Id>().unwrap().to_string(), id);
        }
        let id: Id = "linear/avx2/bf16/1x2x3/4".parse().unwrap();
        assert_eq!(id.shape, Shape::Lengths(vec![1, 2, 3]));
        assert_eq!(id.folder(), "linear/avx2_bf16/1x2x3_4");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "linear/avx2/f32/1x2x3",
            "linear/avx2/f32/1x2x3/2/2",
            "/avx2/f32/1/2",
            "linear/avx 2/f32/1/2",
            "linear/avx2/f32/1x/2",
            "linear/avx2/f32/01/2",
            "model/avx2/f32/decode-/2",
            "model/avx2/f32/decode-8x1/2",
            "model/avx2/f32/1/two",
        ] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
