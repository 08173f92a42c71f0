//! Whether a whole profile is nowhere slower than where the search began; what is not shown to be so is undone.

use lfm2_kernels::tuning::{Knob, Profile};

use super::rounds::{self, alone, seconds};
use super::search::TOLERATED;
use super::{Compared, Stopwatch, Verdict};

/// A comparison of a profile with where the search began, case by case.
pub struct Settling<'a> {
    /// What times.
    pub watch: &'a mut dyn Stopwatch,
    /// The order of what takes turns, and of intervals.
    pub random: &'a mut fastrand::Rng,
    /// Where the search began.
    pub start: &'a Profile,
    /// Whether a knob can make a difference to a case.
    pub concerns: &'a dyn Fn(Knob, usize) -> bool,
    /// Called after each case that was compared.
    pub progress: &'a dyn Fn(),
}

/// What is known of all cases, and what was undone.
#[derive(Debug)]
pub struct Settled {
    /// Of each case; `None` where there was no time.
    pub cases: Vec<Option<Compared>>,
    /// Knobs that have their value from before.
    pub undone: Vec<Undone>,
}

/// A knob that has its value from before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Undone {
    /// Which one.
    pub knob: Knob,
    /// Why.
    pub verdict: Verdict,
    /// The case that was slower, and by how much.
    pub slower: Option<(usize, Compared)>,
}

/// Whether it is slower beyond noise: two runs of the same may differ by [`TOLERATED`] though each is measured well.
fn is_slower(compared: &Compared) -> bool {
    compared.ratio.low > 1.0 + TOLERATED
}

impl Settling<'_> {
    /// Compares `count` cases until `first_end`. A case that is slower, by its whole interval, is measured again, and if it is slower again, the knob that
    /// was `taken` last of those that concern it is undone and what it concerns compared anew, until no case is slower. If time runs out
    /// before, whatever concerns a case that is not compared is undone: unless somebody interrupted that, who then has what was found so far.
    pub fn settle(
        &mut self,
        best: &mut Profile,
        mut taken: Vec<Knob>,
        count: usize,
        first_end: f64,
    ) -> Settled {
        let mut settled = Settled { cases: vec![None; count], undone: Vec::new() };
        if taken.is_empty() {
            return settled;
        }
        let mut doubtful: Vec<usize>;
        let mut end = first_end;
        loop {
            let unknown = (0..count).filter(|case| settled.cases[*case].is_none()).collect();
            self.compare(unknown, best, end, &mut settled.cases);
            let found = settled.cases.iter().enumerate();
            let suspects = found.filter(|(_, case)| case.as_ref().is_some_and(is_slower));
            doubtful = suspects.map(|(case, _)| case).collect();
            // What looked slower is biased: it is forgotten.
            doubtful.iter().for_each(|case| settled.cases[*case] = None);
            self.compare(doubtful.clone(), best, self.part_of_rest(3.0), &mut settled.cases);
            let slower = |case: &usize| settled.cases[*case].as_ref().is_some_and(is_slower);
            let slower: Vec<_> = doubtful.iter().copied().filter(slower).collect();
            doubtful.retain(|case| settled.cases[*case].is_none());
            if slower.is_empty() {
                break;
            }
            for case in slower {
                // Forgotten, if a knob that concerns it was undone for another case just now.
                let Some(compared) = settled.cases[case].take() else {
                    continue;
                };
                let knob = taken.iter().rfind(|knob| (self.concerns)(**knob, case)).copied();
                // Whatever it is that makes the case slower, without a profile it is not.
                let knobs = knob.map_or_else(|| taken.clone(), |knob| vec![knob]);
                let why = (Verdict::Undone, Some((case, compared)));
                self.undo(&knobs, why, best, &mut taken, &mut settled);
            }
            if taken.is_empty() {
                break;
            }
            end = self.part_of_rest(2.0);
        }
        loop {
            let is_interrupted = self.watch.is_interrupted();
            let unknown = |case: &usize| settled.cases[*case].is_none();
            let unknown: Vec<_> = match is_interrupted {
                true => doubtful.clone(),
                false => (0..count).filter(unknown).collect(),
            };
            let is_doubtful =
                |knob: &Knob| unknown.iter().any(|case| (self.concerns)(*knob, *case));
            let knobs: Vec<_> = taken.iter().copied().filter(is_doubtful).collect();
            if knobs.is_empty() {
                break;
            }
            self.undo(&knobs, (Verdict::NotShown, None), best, &mut taken, &mut settled);
        }
        if taken.is_empty() {
            // The profile is where the search began.
            settled.cases.fill(None);
        }
        settled
    }

    /// A time that leaves all but one of so many parts of what is left.
    fn part_of_rest(&self, parts: f64) -> f64 {
        let now = self.watch.now();
        now + (1.0 - now) / parts
    }

    /// Gives knobs back what they had, and forgets what was measured with what they have.
    fn undo(
        &self,
        knobs: &[Knob],
        (verdict, slower): (Verdict, Option<(usize, Compared)>),
        best: &mut Profile,
        taken: &mut Vec<Knob>,
        settled: &mut Settled,
    ) {
        for &knob in knobs {
            let Some(at) = taken.iter().position(|other| *other == knob) else {
                continue;
            };
            taken.remove(at);
            settled.undone.push(Undone { knob, verdict, slower });
            let before = self.start.iter().find(|(other, _)| *other == knob);
            match before {
                Some((_, value)) => best.set(knob, value).expect("it had that value"),
                None => best.unset(knob),
            }
            for (case, compared) in settled.cases.iter_mut().enumerate() {
                if (self.concerns)(knob, case) {
                    *compared = None;
                }
            }
        }
    }

    /// Compares those cases, each with as much of the time until `end`.
    fn compare(
        &mut self,
        cases: Vec<usize>,
        profile: &Profile,
        end: f64,
        found: &mut [Option<Compared>],
    ) {
        let count = cases.len();
        for (done, case) in cases.into_iter().enumerate() {
            let now = self.watch.now();
            let until = now + (end - now) / (count - done) as f64;
            found[case] = self.compare_one(case, profile, until);
            (self.progress)();
        }
    }

    fn compare_one(&mut self, case: usize, profile: &Profile, until: f64) -> Option<Compared> {
        let rounds = rounds::with(profile, self.start, &[case], self.watch, self.random, until)?;
        let [default_seconds, tuned_seconds] = seconds(&rounds);
        Some(Compared {
            default_seconds,
            tuned_seconds,
            ratio: alone(&rounds, 0, self.random.u64(..)),
            rounds: rounds.len(),
            limit: self.watch.limit(case),
        })
    }
}
