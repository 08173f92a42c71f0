//! One report that answers what a conv layer costs against an attention layer, and how near the kernels come to what the CPU can do.
//!
//! [`make`] reads the times that Criterion keeps (`target/criterion`) and what the benches say of them ([`Manifest`], in
//! `target/lfm2-bench`), and writes `target/lfm2-report`: `index.html`, which needs no other file, `report.json`, which is the data
//! ([`Report`]), `report.md`, and `picture.svg` for a page of one's own. [`merge`] lays reports of several machines side by side; no time of one is ever divided by
//! that of another.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub mod band;
pub mod breakdown;
pub mod charts;
pub mod comparison;
pub mod crossing;
mod estimate;
mod files;
pub mod fit;
pub mod growth;
pub mod id;
pub mod manifest;
pub mod measurement;
mod noise;
mod page;
mod summary;
pub mod text;
mod warnings;

pub use self::band::Band;
pub use self::breakdown::Breakdown;
pub use self::comparison::Comparison;
pub use self::crossing::Crossing;
pub use self::estimate::Estimate;
pub use self::files::Error;
pub use self::fit::Fit;
pub use self::growth::Growth;
pub use self::id::{Id, Shape};
pub use self::manifest::{Entry, Manifest, Peak, PeakOf, Run};
pub use self::measurement::Measurement;

use self::charts::Size;
use self::growth::Phase;
use self::manifest::Found;
use crate::machine::Machine;

/// Of `report.json`: it grows when a field changes its meaning or goes, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// What files say that hold a [`Report`].
pub const DOCUMENT: &str = "report of benches";

/// What `report.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`DOCUMENT`].
    pub document: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Of each machine.
    pub results: Vec<Results>,
}

/// What was measured on one machine, and what follows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The machine.
    pub machine: Machine,
    /// The runs that measured.
    pub runs: Vec<Run>,
    /// What the machine can do at most, by the run that measured it.
    pub peaks: Vec<RunPeak>,
    /// Why not to trust it.
    pub warnings: Vec<String>,
    /// Every case.
    pub measurements: Vec<Measurement>,
    /// Conv against attention as the length grows; the first is what is answered with.
    pub growths: Vec<Growth>,
    /// What a sequence's state takes.
    pub states: Vec<growth::StateBytes>,
    /// Where the time goes.
    pub breakdowns: Vec<Breakdown>,
    /// One instruction set, format or number of threads against another.
    pub comparisons: Vec<Comparison>,
}

/// A peak, and the bench whose run measured it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunPeak {
    /// The bench.
    pub bench: String,
    /// What it measured.
    #[serde(flatten)]
    pub peak: Peak,
}

impl Results {
    /// Reads what was measured below Cargo's target folder.
    ///
    /// # Errors
    ///
    /// If nothing was, a file cannot be read, or runs are of different machines.
    pub fn read(target: &Path) -> Result<Self, Error> {
        let Found { manifests, of_other_versions } = manifest::read_all(target)?;
        let machine = manifests[0].machine.clone();
        let name = |machine: &Machine| (machine.cpu.clone(), machine.architecture.clone());
        if let Some(other) = manifests.iter().find(|other| name(&other.machine) != name(&machine)) {
            let problem = format!(
                "{} and {} ran on different machines: run `cargo bench` again",
                manifests[0].run.bench, other.run.bench
            );
            return Err(Error::content(&manifest::folder(target), problem));
        }
        let mut measurements = Vec::new();
        for manifest in &manifests {
            for (id, entry) in &manifest.cases {
                let seconds = estimate::read(&target.join("criterion"), id)?;
                measurements.push(Measurement::new(id, entry, seconds));
            }
        }
        measurements.sort_by(|a, b| a.id.cmp(&b.id));
        let growths = growth::of(&measurements);
        let peaks = manifests.iter().flat_map(|Manifest { run, peaks, .. }| {
            let peak = |peak: &Peak| RunPeak { bench: run.bench.clone(), peak: peak.clone() };
            peaks.iter().map(peak)
        });
        let mut results = Self {
            machine,
            peaks: peaks.collect(),
            runs: manifests.iter().map(|manifest| manifest.run.clone()).collect(),
            warnings: Vec::new(),
            states: growth::states(&growths),
            breakdowns: breakdown::of(&measurements, &growths),
            comparisons: comparison::of(&measurements),
            growths,
            measurements,
        };
        results.warnings = results.find_warnings();
        for path in of_other_versions {
            results.warnings.push(format!(
                "{} was written by another version and is left out: run its bench again.",
                path.file_name().unwrap_or_default().display()
            ));
        }
        Ok(results)
    }

    /// Prefill of both kinds, as a file of its own.
    fn picture(&self) -> Result<Option<String>, Error> {
        let prefill = self.answered().filter(|growth| growth.phase == Phase::Prefill);
        let prefill: Vec<_> = prefill.collect();
        if prefill.is_empty() {
            return Ok(None);
        }
        charts::growth(&prefill, Size::WIDE).map(|svg| Some(charts::alone(&svg)))
    }
}

/// The folder of the report in Cargo's target folder.
pub fn folder(target: &Path) -> PathBuf {
    target.join("lfm2-report")
}

/// Makes the report of what was measured below Cargo's target folder; the path of its page.
///
/// # Errors
///
/// As [`Results::read`], or if the report cannot be written.
pub fn make(target: &Path) -> Result<PathBuf, Error> {
    Report::of(vec![Results::read(target)?]).write(&folder(target))
}

/// Lays what was measured on several machines side by side.
///
/// # Errors
///
/// If a file cannot be read, or is no report of this version.
pub fn merge(paths: &[PathBuf]) -> Result<Report, Error> {
    let mut results = Vec::new();
    for path in paths {
        let report: Report = files::parse(path, SCHEMA_VERSION)?;
        results.extend(report.results);
    }
    Ok(Report::of(results))
}

impl Report {
    /// Of these machines.
    pub fn of(results: Vec<Results>) -> Self {
        Self { document: DOCUMENT.to_string(), schema_version: SCHEMA_VERSION, results }
    }

    /// Writes the page, the data and the summary into `folder`; the path of the page.
    ///
    /// # Errors
    ///
    /// If that cannot be.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, Error> {
        let json = serde_json::to_string_pretty(self).expect("JSON can hold it") + "\n";
        let page = folder.join("index.html");
        files::write(&page, &page::of(self)?)?;
        files::write(&folder.join("report.json"), &json)?;
        files::write(&folder.join("report.md"), &summary::of(self))?;
        if let [results] = &self.results[..]
            && let Some(picture) = results.picture()?
        {
            files::write(&folder.join("picture.svg"), &picture)?;
        }
        Ok(page)
    }
}
