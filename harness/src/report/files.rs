//! Files of reports: whole or not there, and read with a word on what is wrong with them.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder that the system does not give.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file that holds something else.
    #[error("{path}: {problem}", path = path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A file of another version of this program.
    #[error("{path}: schema version {found}, expected {expected}", path = path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// The version that it has.
        found: u64,
        /// The version that can be read.
        expected: u32,
    },
    /// A folder without manifests.
    #[error("{folder}: nothing has been measured: run `cargo bench` first", folder = folder.display())]
    NothingMeasured {
        /// Where manifests would be.
        folder: PathBuf,
    },
    /// A chart that cannot be drawn.
    #[error("chart {name}: {problem}")]
    Chart {
        /// Which.
        name: String,
        /// Why.
        problem: String,
    },
}

impl Error {
    pub(super) fn at(path: &Path, error: std::io::Error) -> Self {
        Self::File { path: path.to_path_buf(), error }
    }

    pub(super) fn content(path: &Path, problem: impl ToString) -> Self {
        Self::Content { path: path.to_path_buf(), problem: problem.to_string() }
    }
}

/// Reads JSON that has the field `schema_version`, which must be `version`.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, version: u32) -> Result<T, Error> {
    let value: Value = parse_any(path)?;
    match value.get("schema_version").and_then(Value::as_u64) {
        Some(found) if found == u64::from(version) => {}
        Some(found) => {
            let path = path.to_path_buf();
            return Err(Error::Version { path, found, expected: version });
        }
        None => {
            return Err(Error::content(path, format!("no schema_version: expected {version}")));
        }
    }
    serde_json::from_value(value).map_err(|error| Error::content(path, error))
}

/// Reads JSON.
pub(super) fn parse_any<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::at(path, error))?;
    serde_json::from_str(&text).map_err(|error| Error::content(path, error))
}

/// Writes a file, and its folder if need be; who reads it meanwhile finds the old one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().expect("a file is in a folder");
    fs::create_dir_all(folder).map_err(|error| Error::at(folder, error))?;
    let written = || {
        let mut builder = tempfile::Builder::new();
        // Like any new file's, less what the umask takes away; the default would be for the owner alone.
        builder.prefix(".lfm2-").permissions(Permissions::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|error| Error::at(path, error))
}
