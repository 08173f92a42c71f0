//! A case: its time, its rates, and how near it comes to what the machine can do.

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::id::Id;
use super::manifest::Entry;
use crate::ceiling::{Bound, Ceilings, Work};

/// What was measured of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// Its name.
    pub id: Id,
    /// What one run does.
    pub work: Work,
    /// How long one run takes.
    pub time: Estimate,
    /// Whether its samples were taken in turn with those of the other lengths.
    #[serde(default)]
    pub took_turns: bool,
    /// What the machine could do at most, just before and just after.
    pub ceilings: Ceilings,
    /// Seconds that it takes at least with these ceilings.
    pub limit: f64,
    /// What sets that limit.
    pub bound: Bound,
    /// The limit as a percentage of the time; `None` of what no peak is known of.
    pub percent_of_peak: Option<f64>,
}

impl Measurement {
    /// All that follows from a time.
    pub fn new(id: &Id, entry: &Entry, time: Estimate) -> Self {
        let &Entry { work, ceilings, took_turns, .. } = entry;
        let (limit, bound) = ceilings.seconds(&work);
        let percent_of_peak = (limit > 0.0).then(|| 100.0 * limit / time.seconds);
        Self { id: id.clone(), work, time, took_turns, ceilings, limit, bound, percent_of_peak }
    }

    /// Whether it is faster than can be: then a ceiling is none, or the work is counted wrong.
    pub fn is_harness_error(&self) -> bool {
        self.percent_of_peak.is_some_and(|percent| percent > 100.0)
    }

    /// Operations per second.
    pub fn operations_per_second(&self) -> f64 {
        self.work.operations as f64 / self.time.seconds
    }

    /// Bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.work.bytes as f64 / self.time.seconds
    }
}

/// The measurement of that name.
pub(super) fn find<'a>(measurements: &'a [Measurement], id: &Id) -> Option<&'a Measurement> {
    measurements.iter().find(|measurement| measurement.id == *id)
}
