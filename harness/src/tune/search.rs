//! The value of one knob that is fastest beside those of the others.

use lfm2_kernels::tuning::{Knob, Profile};

use super::rounds::{self, alone, together};
use super::{KnobFinding, Stopwatch, Verdict};
use crate::regression::LEAST_BLOCKS;

/// By how much a case may be slower where all of them together are faster.
pub const TOLERATED: f64 = 0.01;

/// Rounds after which hopeless values are stopped.
const FIRST_LOOK: usize = 4;

/// One search after another, each of a knob.
pub struct Search<'a> {
    /// What times.
    pub watch: &'a mut dyn Stopwatch,
    /// The order of what takes turns, and of intervals.
    pub random: &'a mut fastrand::Rng,
}

impl Search<'_> {
    /// Finds which of `values` of `knob` is fastest for `cases`, beside those of `best`, which then has it, if it is another than its own. Stage
    /// one ends when half of the time is over that there is `until` then.
    pub fn choose(
        &mut self,
        knob: Knob,
        values: &[usize],
        cases: &[usize],
        best: &mut Profile,
        until: f64,
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
            rounds: [0; 2],
            stopped_early: Vec::new(),
            slower: None,
        };
        let values = values.iter().filter(|value| **value != default);
        let others: Vec<_> = values.map(|value| (with(*value), Vec::new())).collect();
        if cases.is_empty() || others.is_empty() {
            finding.verdict = Verdict::Unused;
            return finding;
        }
        let seed = self.random.u64(..);
        let half = self.watch.now().midpoint(until);
        let Some(profile) = self.fastest(knob, others, cases, best, half, seed, &mut finding)
        else {
            return finding;
        };
        let rounds = rounds::with(&profile, best, cases, self.watch, self.random, until);
        let Some(rounds) = rounds else {
            return finding;
        };
        finding.rounds[1] = rounds.len();
        let ratio = together(&rounds, seed);
        finding.ratio = Some(ratio);
        let is_slower = |at| alone(&rounds, at, seed).low > 1.0 + TOLERATED;
        finding.verdict = if ratio.high >= 1.0 {
            Verdict::NotFaster
        } else if (0..cases.len()).any(is_slower) {
            Verdict::SlowerElsewhere
        } else {
            finding.tuned = profile.value(knob);
            *best = profile;
            Verdict::Faster
        };
        finding
    }

    /// Stage one: the fastest of `others`, if it looks faster than `base`.
    #[allow(clippy::too_many_arguments)]
    fn fastest(
        &mut self,
        knob: Knob,
        mut others: Vec<(Profile, Vec<rounds::Round>)>,
        cases: &[usize],
        base: &Profile,
        until: f64,
        seed: u64,
        finding: &mut KnobFinding,
    ) -> Option<Profile> {
        let (mut rounds, mut look) = (0, FIRST_LOOK);
        while rounds < rounds::MOST
            && !others.is_empty()
            && rounds::add(self.watch, self.random, cases, base, &mut others, until)
        {
            rounds += 1;
            if rounds < look {
                continue;
            }
            // To look takes time, and who looks often sees what is not there.
            look += (rounds / 4).max(1);
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
        finding.rounds[0] = rounds;
        if others.is_empty() {
            finding.verdict = Verdict::NotFaster;
            return None;
        }
        if rounds < LEAST_BLOCKS {
            return None;
        }
        let estimates =
            others.into_iter().map(|(profile, rounds)| (together(&rounds, seed), profile));
        let chosen = estimates.min_by(|(a, _), (b, _)| a.mean.total_cmp(&b.mean));
        let (ratio, profile) = chosen.expect("there is one left");
        finding.ratio = Some(ratio);
        if ratio.high >= 1.0 {
            finding.verdict = Verdict::NotFaster;
            return None;
        }
        Some(profile)
    }
}
