//! What a bench ran: of each case, by its id, all that rates are made of besides the time, which Criterion keeps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::{Error, parse, write};
use super::id::Id;
use crate::ceiling::{Ceilings, Work};
use crate::machine::Machine;

/// Of manifests: it grows when a reader of the old form could misread the new one.
pub const SCHEMA_VERSION: u32 = 2;

/// One run of one bench.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Who ran, where and when.
    pub run: Run,
    /// The machine.
    pub machine: Machine,
    /// What the machine can do at most, measured when the run began and, unless it was interrupted, when it ended.
    pub peaks: Vec<Peak>,
    /// What was measured to the end.
    pub cases: BTreeMap<Id, Entry>,
    /// What the bench itself makes of it.
    #[serde(default)]
    pub summary: Value,
}

/// Who ran, how long, and beside what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The bench's name.
    pub bench: String,
    /// `quick`, `usual` or `full`.
    pub extent: String,
    /// Whether the command line left cases out.
    pub is_filtered: bool,
    /// Whether it came to its end.
    pub is_complete: bool,
    /// Of the pool.
    pub threads: usize,
    /// Seconds since 1970 when it began.
    pub began: u64,
    /// How long it took.
    pub seconds: f64,
    /// The share of the processors that other programs had meanwhile, if known.
    pub others: Option<f64>,
    /// The commit that was built.
    pub commit: String,
    /// Whether there were changes since.
    pub is_dirty: bool,
    /// The compiler.
    pub compiler: String,
}

impl Run {
    /// One that begins now, of what this program was built from.
    pub fn begin(bench: &str, extent: &str, is_filtered: bool, threads: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            bench: bench.to_string(),
            extent: extent.to_string(),
            is_filtered,
            is_complete: false,
            threads,
            began: now.map_or(0, |now| now.as_secs()),
            seconds: 0.0,
            others: None,
            commit: env!("LFM2_COMMIT").to_string(),
            is_dirty: env!("LFM2_IS_DIRTY") == "true",
            compiler: env!("LFM2_COMPILER").to_string(),
        }
    }
}

/// What the machine can do at most with one instruction set and one number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The instruction set.
    pub isa: String,
    /// Of the pool.
    pub threads: usize,
    /// Of what.
    pub of: PeakOf,
    /// Per second, when the run began.
    pub before: f64,
    /// Per second, when the run ended.
    pub after: Option<f64>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeakOf {
    /// Floating-point operations.
    MultiplyAdd,
    /// Operations on bytes.
    Dot,
    /// Operations on brain floats.
    BrainDot,
    /// Bytes read again and again of a working set of so many bytes, all threads together.
    Read {
        /// Its size.
        working_set: u64,
    },
}

impl PeakOf {
    /// Of what is read, its size.
    pub fn working_set(self) -> Option<u64> {
        match self {
            Self::Read { working_set } => Some(working_set),
            _ => None,
        }
    }
}

impl Peak {
    /// How many percent one may drift on a quiet machine.
    pub const DRIFT: f64 = 10.0;

    /// By how many percent it was higher at the end.
    pub fn drift(&self) -> Option<f64> {
        self.after.map(|after| 100.0 * (after / self.before - 1.0))
    }
}

/// Of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What one run does.
    pub work: Work,
    /// What the machine could do at most, measured just before and just after, and between turns: the highest.
    pub ceilings: Ceilings,
    /// Whether its samples were taken in turn with those of the other lengths.
    #[serde(default)]
    pub took_turns: bool,
    /// The instruction set that gave the same bits.
    pub same_bits_as: String,
    /// Over how many rows it did.
    pub same_bits_rows: usize,
}

/// The folder of manifests in Cargo's target folder.
pub fn folder(target: &Path) -> PathBuf {
    target.join("lfm2-bench")
}

impl Manifest {
    /// Writes it where [`read_all`] finds it; a run of the same bench on as many threads takes its place.
    ///
    /// # Errors
    ///
    /// If that cannot be.
    pub fn save(&self, target: &Path) -> Result<PathBuf, Error> {
        let Run { bench, threads, .. } = &self.run;
        let path = folder(target).join(format!("{bench}-{threads}.json"));
        let json = serde_json::to_string_pretty(self).expect("JSON can hold it") + "\n";
        write(&path, &json)?;
        Ok(path)
    }
}

/// What is found of benches.
pub struct Found {
    /// Those that have measured anything, by name.
    pub manifests: Vec<Manifest>,
    /// Files of another version, whose benches must run again.
    pub of_other_versions: Vec<PathBuf>,
}

/// The manifests of all benches.
///
/// # Errors
///
/// If none has measured anything, or a file cannot be read.
pub fn read_all(target: &Path) -> Result<Found, Error> {
    let folder = folder(target);
    let nothing = || Error::NothingMeasured { folder: folder.clone() };
    let mut paths = Vec::new();
    for file in fs::read_dir(&folder).map_err(|_| nothing())? {
        let path = file.map_err(|error: io::Error| Error::at(&folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut found = Found { manifests: Vec::new(), of_other_versions: Vec::new() };
    for path in paths {
        match parse::<Manifest>(&path, SCHEMA_VERSION) {
            Ok(manifest) if manifest.cases.is_empty() => {}
            Ok(manifest) => found.manifests.push(manifest),
            Err(Error::Version { .. }) => found.of_other_versions.push(path),
            Err(error) => return Err(error),
        }
    }
    if found.manifests.is_empty() { Err(nothing()) } else { Ok(found) }
}
