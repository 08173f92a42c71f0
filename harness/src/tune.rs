//! Which values of the kernels' knobs are fastest on this machine.
//!
//! Knob by knob, each from the [`cases`] that it is judged by: all values that are worth trying take turns with the best one so far, in one process,
//! in rounds that mirror each other in time, such as `A B C C B A`. A round gives one paired ratio for each value; of `n` rounds, the calmer half counts
//! (as in [`regression`](crate::regression)), and gives an [`Estimate`] with its interval. There are as many rounds as there is time for.
//!
//! - [Stage one](search) stops a value as soon as its interval lies above 1: it cannot be faster.
//! - Stage two measures the best of those whose interval lies below 1 once more, and forgets what stage one found: it was chosen because it looked
//!   fast. It is taken if the new interval lies below 1, too, and no case is shown to be slower by more than [`TOLERATED`](search::TOLERATED).
//! - At the end [all cases are compared](settle) under the whole profile with where the search began. What makes a case slower is undone, and so is what
//!   there was no time to compare.
//!
//! What was not worth a change keeps its default.

use lfm2_kernels::tuning::Profile;
use serde::{Deserialize, Serialize};

use crate::ceiling::Bound;
use crate::regression::Estimate;
use crate::report::Id;

pub mod cases;
mod rounds;
pub mod search;
pub mod settle;
#[cfg(test)]
mod simulation;

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// Where the search began.
    pub from: Start,
    /// Of each knob.
    pub knobs: Vec<KnobFinding>,
    /// How long cases take with the defaults, and with the profile: measured after all knobs were found.
    pub cases: Vec<CaseFinding>,
}

/// With which defaults a search begins, and is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// What this CPU has without a profile
    #[default]
    BuiltIn,
    /// What it would have if it had never been measured
    UnknownCpu,
}

impl Start {
    /// Those values.
    pub fn profile(self) -> Profile {
        match self {
            Self::BuiltIn => Profile::default(),
            Self::UnknownCpu => Profile::of_unknown_cpu(),
        }
    }
}

/// What was found of a knob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnobFinding {
    /// Its name.
    pub knob: String,
    /// The value that it had.
    pub default: usize,
    /// The value that it has now.
    pub tuned: usize,
    /// Why.
    pub verdict: Verdict,
    /// How many times as long the best other value takes, by the last stage that measured it.
    pub ratio: Option<Estimate>,
    /// Rounds of each stage.
    pub rounds: [usize; 2],
    /// Values that were not measured to the end.
    pub stopped_early: Vec<usize>,
    /// The case for which it was undone, with all that was taken by then.
    pub slower: Option<CaseFinding>,
}

/// What was found of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFinding {
    /// Its name.
    pub id: Id,
    /// What was measured.
    pub compared: Compared,
}

/// How long a case takes with the defaults and with the profile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// How long one run takes with the defaults, in seconds.
    pub default_seconds: f64,
    /// How long it takes with the profile.
    pub tuned_seconds: f64,
    /// How many times as long the profile takes.
    pub ratio: Estimate,
    /// Rounds of which the calmer half counts.
    pub rounds: usize,
    /// How long it takes at least, by what this machine could do at most just then; `None` if there is no such limit.
    pub limit: Option<Limit>,
}

/// How long a case takes at least.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// So many seconds.
    pub seconds: f64,
    /// Because of that.
    pub bound: Bound,
}

/// Whether a knob was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Another value is faster.
    Faster,
    /// No other value was shown to be.
    NotFaster,
    /// Another value is faster for some cases, and slower for others.
    SlowerElsewhere,
    /// Another value was faster, and undone, since with the whole profile a case was slower.
    Undone,
    /// Another value was faster, and undone, since there was no time to show that no case is slower.
    NotShown,
    /// There was no time to say.
    NoTime,
    /// Nothing depends on it here.
    Unused,
}

/// Times cases under profiles.
pub trait Stopwatch {
    /// How long one run of a case takes under a profile, in seconds.
    fn time(&mut self, profile: &Profile, case: usize) -> f64;

    /// What part of the time that there is has passed: 1 or more if it is up, or nobody wants to wait.
    fn now(&self) -> f64;

    /// Whether nobody wants to wait.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// How long a case takes at least, by what the machine can do just now.
    fn limit(&mut self, _case: usize) -> Option<Limit> {
        None
    }
}
