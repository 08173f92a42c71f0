//! Rounds in which profiles take turns, and what follows from them.

use lfm2_kernels::tuning::Profile;

use super::Stopwatch;
use crate::regression::{Estimate, LEAST_BLOCKS, calmer, difference_of_twins, log_of_twins};

/// Rounds that say all that can be said.
pub const MOST: usize = 200;

/// What one round found of a case for the base and for another profile, in seconds.
#[derive(Clone, Copy)]
pub struct Pair {
    base: [f64; 2],
    other: [f64; 2],
}

/// The pairs of one round, a case each.
pub type Round = Vec<Pair>;

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
pub fn together(rounds: &[Round], seed: u64) -> Estimate {
    let logs: Vec<_> =
        calm(rounds).iter().map(|round| mean(round.iter().map(Pair::log_ratio))).collect();
    Estimate::of(&logs, seed)
}

/// How many times as long the case at that place takes.
pub fn alone(rounds: &[Round], at: usize, seed: u64) -> Estimate {
    let logs: Vec<_> = calm(rounds).iter().map(|round| round[at].log_ratio()).collect();
    Estimate::of(&logs, seed)
}

/// How long the first case takes under the base and under the other profile.
pub fn seconds(rounds: &[Round]) -> [f64; 2] {
    let calm = calm(rounds);
    let of = |arm: fn(&Pair) -> [f64; 2]| {
        libm::exp(mean(calm.iter().map(|round| log_of_twins(arm(&round[0])))))
    };
    [of(|pair| pair.base), of(|pair| pair.other)]
}

/// Adds a round to what each of `others` has. `false` if it was `until` before its end.
pub fn add(
    watch: &mut dyn Stopwatch,
    random: &mut fastrand::Rng,
    cases: &[usize],
    base: &Profile,
    others: &mut [(Profile, Vec<Round>)],
    until: f64,
) -> bool {
    let mut round = Vec::new();
    for &case in cases {
        let mut order: Vec<_> = (0..=others.len()).collect();
        random.shuffle(&mut order);
        let mut times = vec![[0.0; 2]; order.len()];
        let backwards = order.clone().into_iter().rev();
        for (twin, arm) in
            order.into_iter().map(|arm| (0, arm)).chain(backwards.map(|arm| (1, arm)))
        {
            if watch.now() >= until {
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
pub fn with(
    other: &Profile,
    base: &Profile,
    cases: &[usize],
    watch: &mut dyn Stopwatch,
    random: &mut fastrand::Rng,
    until: f64,
) -> Option<Vec<Round>> {
    let mut others = [(other.clone(), Vec::new())];
    while others[0].1.len() < MOST && add(watch, random, cases, base, &mut others, until) {}
    let [(_, rounds)] = others;
    (rounds.len() >= LEAST_BLOCKS).then_some(rounds)
}
