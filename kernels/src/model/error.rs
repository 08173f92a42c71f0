use std::io;
use std::path::{Path, PathBuf};

/// Why a model could not be loaded or run. Each message says what is wrong, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A configuration is incomplete, contradicts itself or cannot be run.
    #[error("{0}")]
    Config(String),
    /// A weight is not in the checkpoint.
    #[error("the checkpoint has no tensor {name}")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A weight has another shape than the configuration says.
    #[error("tensor {name} has shape {found:?}: expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A weight is stored in a type that cannot be loaded.
    #[error("tensor {name} is stored as {found}: expected {expected}")]
    TensorType {
        /// The tensor.
        name: String,
        /// The type in the file.
        found: String,
        /// The types that the file's format has and that can be loaded.
        expected: String,
    },
    /// A call has nothing to do.
    #[error("sequence {sequence} has no tokens: expected at least one")]
    NoTokens {
        /// Which sequence of the call.
        sequence: usize,
    },
    /// A token is not in the vocabulary.
    #[error(
        "token {token} at position {position}: expected less than the vocabulary, {vocabulary}"
    )]
    Token {
        /// The token.
        token: u32,
        /// Its position in its sequence.
        position: usize,
        /// Tokens that there are.
        vocabulary: usize,
    },
    /// A sequence outgrows its state.
    #[error("{positions} positions do not fit a state made for {capacity}")]
    Capacity {
        /// Positions after the call.
        positions: usize,
        /// Positions that the state has room for.
        capacity: usize,
    },
    /// A state has layers of other kinds than the model.
    #[error("the state was made for a model with other kinds of layers")]
    ForeignState,
    /// A state or buffer was made for another model or call.
    #[error("{what} has length {found}: expected {expected}")]
    Length {
        /// Which one.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The right length.
        expected: usize,
    },
}

impl Error {
    /// The same error, naming the file where there was none.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Config(reason) => Self::Format { path: path.to_path_buf(), reason },
            other => other,
        }
    }
}
