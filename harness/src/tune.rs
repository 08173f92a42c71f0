//! Which values of the kernels' knobs are fastest on this machine.
//!
//! Knob by knob, each [from the cases that it concerns](cases): all values that are worth trying take turns with the best one so far, in one
//! process, in rounds that mirror each other in time, such as `A B C C B A`. A round gives one paired ratio for each value; of `n` rounds, the calmer
//! half counts (as in [`regression`](crate::regression)), and gives an [`Estimate`] with its interval.
//!
//! - Stage one stops a value as soon as its interval lies above 1: it cannot be faster.
//! - Stage two measures the best of those whose interval lies below 1 once more, and forgets what stage one found: it was chosen because it looked
//!   fast. It is taken if the new interval lies below 1, too, and no case is shown to be slower by more than [`TOLERATED`].
//!
//! What was not worth a change keeps its default.

use lfm2_kernels::tuning::{Knob, Profile};
use serde::{Deserialize, Serialize};

use crate::regression::{Estimate, LEAST_BLOCKS, calmer, difference_of_twins, log_of_twins};
use crate::report::Id;

pub mod cases;
#[cfg(test)]
mod simulation;

/// By how much a case may be slower where all of them together are faster.
pub const TOLERATED: f64 = 0.01;

/// Rounds after which hopeless values are stopped.
const FIRST_LOOK: usize = 4;

/// Rounds of a stage, if there is time.
const ROUNDS: usize = 16;

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// Of each knob.
    pub knobs: Vec<KnobFinding>,
    /// How long cases take with the defaults, and with the profile: measured after all knobs were found.
    pub cases: Vec<CaseFinding>,
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
    /// Values that were not measured to the end.
    pub stopped_early: Vec<usize>,
}

/// What was found of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFinding {
    /// Its name.
    pub id: Id,
    /// How long one run takes with the defaults, in seconds.
    pub default_seconds: f64,
    /// How long it takes with the profile.
    pub tuned_seconds: f64,
    /// How many times as long the profile takes.
    pub ratio: Estimate,
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
    /// There was no time to say.
    NoTime,
    /// Nothing depends on it here.
    Unused,
}

/// Times cases under profiles.
pub trait Stopwatch {
    /// How many cases there are.
    fn cases(&self) -> usize;

    /// How long one run of a case takes under a profile, in seconds.
    fn time(&mut self, profile: &Profile, case: usize) -> f64;

    /// Whether the time is up.
    fn is_over(&self) -> bool;
}

/// What one round found of a case for the base and for another profile, in seconds.
#[derive(Clone, Copy)]
struct Pair {
    base: [f64; 2],
    other: [f64; 2],
}

/// The pairs of one round, a case each.
type Round = Vec<Pair>;

impl Pair {
    fn log_ratio(&self) -> f64 {
        log_of_twins(self.other) - log_of_twins(self.base)
    }

    fn disturbance(&self) -> f64 {
        difference_of_twins(self.base).max(difference_of_twins(self.other))
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// The rounds that count.
fn calm(rounds: &[Round]) -> Vec<Round> {
    calmer(rounds, |round| mean(round.iter().map(Pair::disturbance)))
}

/// How many times as long all cases together take.
fn together(rounds: &[Round], seed: u64) -> Estimate {
    let logs: Vec<_> =
        calm(rounds).iter().map(|round| mean(round.iter().map(Pair::log_ratio))).collect();
    Estimate::of(&logs, seed)
}

/// How many times as long one case takes.
fn alone(rounds: &[Round], case: usize, seed: u64) -> Estimate {
    let logs: Vec<_> = calm(rounds).iter().map(|round| round[case].log_ratio()).collect();
    Estimate::of(&logs, seed)
}

/// Adds a round to what each of `others` has. `false` if the time was up before its end.
fn add_round(
    watch: &mut dyn Stopwatch,
    random: &mut fastrand::Rng,
    base: &Profile,
    others: &mut [(Profile, Vec<Round>)],
) -> bool {
    let mut round = Vec::new();
    for case in 0..watch.cases() {
        let mut order: Vec<_> = (0..=others.len()).collect();
        random.shuffle(&mut order);
        let mut times = vec![[0.0; 2]; order.len()];
        let backwards = order.clone().into_iter().rev();
        for (twin, arm) in
            order.into_iter().map(|arm| (0, arm)).chain(backwards.map(|arm| (1, arm)))
        {
            if watch.is_over() {
                return false;
            }
            let profile = if arm == 0 { base } else { &others[arm - 1].0 };
            times[arm][twin] = watch.time(profile, case);
        }
        round.push(times);
    }
    for (arm, (_, rounds)) in (1..).zip(others) {
        rounds.push(round.iter().map(|times| Pair { base: times[0], other: times[arm] }).collect());
    }
    true
}

/// All rounds that there is time for with one other profile; `None` if those are too few to say anything.
fn rounds_with(
    other: Profile,
    base: &Profile,
    watch: &mut dyn Stopwatch,
    random: &mut fastrand::Rng,
) -> Option<Vec<Round>> {
    let mut others = [(other, Vec::new())];
    while others[0].1.len() < ROUNDS && add_round(watch, random, base, &mut others) {}
    let [(_, rounds)] = others;
    (rounds.len() >= LEAST_BLOCKS).then_some(rounds)
}

/// Finds the value of `knob` beside those of `best`, which then has it, if it is another.
pub fn choose(
    knob: Knob,
    best: &mut Profile,
    watch: &mut dyn Stopwatch,
    random: &mut fastrand::Rng,
) -> KnobFinding {
    let default = best.value(knob);
    let with = |value| {
        let mut profile = best.clone();
        profile.set(knob, value).expect("what is tried is allowed");
        profile
    };
    let mut finding = KnobFinding {
        knob: knob.name().to_string(),
        default,
        tuned: default,
        verdict: Verdict::NoTime,
        ratio: None,
        stopped_early: Vec::new(),
    };
    if watch.cases() == 0 {
        finding.verdict = Verdict::Unused;
        return finding;
    }
    let seed = random.u64(..);
    let values = knob.tried().iter().filter(|value| **value != default);
    let mut others: Vec<_> = values.map(|value| (with(*value), Vec::new())).collect();
    let mut rounds = 0;
    while rounds < ROUNDS && !others.is_empty() && add_round(watch, random, best, &mut others) {
        rounds += 1;
        if rounds < FIRST_LOOK {
            continue;
        }
        others.retain(|(profile, rounds)| {
            let ratio = together(rounds, seed);
            let is_hopeful = ratio.low <= 1.0;
            if !is_hopeful {
                finding.stopped_early.push(profile.value(knob));
                if finding.ratio.is_none_or(|found| ratio.mean < found.mean) {
                    finding.ratio = Some(ratio);
                }
            }
            is_hopeful
        });
    }
    if others.is_empty() {
        finding.verdict = Verdict::NotFaster;
        return finding;
    }
    if rounds < LEAST_BLOCKS {
        return finding;
    }
    let estimates = others.into_iter().map(|(profile, rounds)| (together(&rounds, seed), profile));
    let chosen = estimates.min_by(|(a, _), (b, _)| a.mean.total_cmp(&b.mean));
    let (ratio, profile) = chosen.expect("there is one left");
    finding.ratio = Some(ratio);
    if ratio.high >= 1.0 {
        finding.verdict = Verdict::NotFaster;
        return finding;
    }
    let Some(rounds) = rounds_with(profile.clone(), best, watch, random) else {
        return finding;
    };
    let ratio = together(&rounds, seed);
    finding.ratio = Some(ratio);
    let is_slower = |case| alone(&rounds, case, seed).low > 1.0 + TOLERATED;
    finding.verdict = if ratio.high >= 1.0 {
        Verdict::NotFaster
    } else if (0..watch.cases()).any(is_slower) {
        Verdict::SlowerElsewhere
    } else {
        finding.tuned = profile.value(knob);
        *best = profile;
        Verdict::Faster
    };
    finding
}

/// How long the only case of `watch` takes with the defaults and with `profile`; `None` if there was no time.
pub fn compare(
    id: Id,
    profile: &Profile,
    watch: &mut dyn Stopwatch,
    random: &mut fastrand::Rng,
) -> Option<CaseFinding> {
    let rounds = rounds_with(profile.clone(), &Profile::default(), watch, random)?;
    let calm = calm(&rounds);
    let seconds = |arm: fn(&Pair) -> [f64; 2]| {
        libm::exp(mean(calm.iter().map(|round| log_of_twins(arm(&round[0])))))
    };
    Some(CaseFinding {
        id,
        default_seconds: seconds(|pair| pair.base),
        tuned_seconds: seconds(|pair| pair.other),
        ratio: alone(&rounds, 0, random.u64(..)),
    })
}
