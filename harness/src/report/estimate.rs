//! What Criterion measured.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{Error, parse_any};
use super::id::Id;

/// Seconds that a run takes: the median of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The median.
    pub seconds: f64,
    /// The lower end of its interval, 95 % by default.
    pub low: f64,
    /// The upper end of its interval.
    pub high: f64,
    /// How far such medians spread.
    pub standard_error: f64,
}

#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

/// In nanoseconds.
#[derive(Deserialize)]
struct Estimates {
    median: Statistic,
}

#[derive(Deserialize)]
struct Statistic {
    confidence_interval: ConfidenceInterval,
    point_estimate: f64,
    standard_error: f64,
}

#[derive(Deserialize)]
struct ConfidenceInterval {
    lower_bound: f64,
    upper_bound: f64,
}

/// The last measurement of `id` in Criterion's folder.
///
/// # Errors
///
/// If it is not there, is of another case, or is no time.
pub fn read(criterion: &Path, id: &Id) -> Result<Estimate, Error> {
    let folder = criterion.join(id.folder()).join("new");
    let path = folder.join("benchmark.json");
    let Benchmark { full_id } = parse_any(&path)?;
    if full_id != id.to_string() {
        return Err(Error::content(&path, format!("is of {full_id}, expected {id}")));
    }
    let path = folder.join("estimates.json");
    let Estimates { median } = parse_any(&path)?;
    let nanoseconds = [
        median.point_estimate,
        median.confidence_interval.lower_bound,
        median.confidence_interval.upper_bound,
        median.standard_error,
    ];
    let [seconds, low, high, standard_error] = nanoseconds.map(|nanoseconds| 1e-9 * nanoseconds);
    if !(low > 0.0 && low <= seconds && seconds <= high && standard_error >= 0.0) {
        let problem = format!("a median of {seconds} s between {low} s and {high} s is no time");
        return Err(Error::content(&path, problem));
    }
    Ok(Estimate { seconds, low, high, standard_error })
}
