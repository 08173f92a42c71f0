//! The search on a machine whose speed is known, and noisy.

use super::*;
use crate::regression::simulation::normal;

/// Takes as long as `seconds` says, times noise.
struct Machine<F> {
    seconds: F,
    noise: f64,
    random: fastrand::Rng,
    timings: usize,
    most: usize,
}

impl<F: Fn(&Profile, usize) -> f64> Machine<F> {
    fn new(seconds: F, noise: f64, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { seconds, noise, random, timings: 0, most: usize::MAX }
    }
}

impl<F: Fn(&Profile, usize) -> f64> Stopwatch for Machine<F> {
    fn cases(&self) -> usize {
        2
    }

    fn time(&mut self, profile: &Profile, case: usize) -> f64 {
        self.timings += 1;
        (self.seconds)(profile, case) * libm::exp(self.noise * normal(&mut self.random))
    }

    fn is_over(&self) -> bool {
        self.timings >= self.most
    }
}

const KNOB: Knob = Knob::SharedBytes;
const FASTEST: usize = 32 << 10;

/// The fastest value takes `gain` less than the others.
fn faster_at_one(gain: f64) -> impl Fn(&Profile, usize) -> f64 {
    move |profile, _| if profile.value(KNOB) == FASTEST { 1e-3 * (1.0 - gain) } else { 1e-3 }
}

fn chosen<F: Fn(&Profile, usize) -> f64>(machine: &mut Machine<F>) -> (KnobFinding, Profile) {
    let mut best = Profile::default();
    let finding = choose(KNOB, &mut best, machine, &mut fastrand::Rng::with_seed(1));
    (finding, best)
}

#[test]
fn what_is_faster_is_found_and_what_is_not_is_left() {
    for seed in 0..20 {
        let (finding, best) = chosen(&mut Machine::new(faster_at_one(0.05), 0.02, seed));
        assert_eq!((finding.verdict, finding.tuned), (Verdict::Faster, FASTEST), "{finding:?}");
        assert_eq!(best.iter().collect::<Vec<_>>(), [(KNOB, FASTEST)]);
    }
    let takes = |seed: &u64| {
        let (finding, best) = chosen(&mut Machine::new(faster_at_one(0.0), 0.02, *seed));
        assert_eq!(finding.tuned, best.value(KNOB));
        finding.tuned != finding.default
    };
    let taken = (0..100).filter(takes).count();
    // Four values are tried, of which each must look faster twice.
    assert!(taken <= 3, "{taken} of 100 searches found what was not there");
}

#[test]
fn what_is_hopeless_is_stopped_early() {
    let slower = |profile: &Profile, _| {
        if profile.value(KNOB) == KNOB.default_value() { 1e-3 } else { 2e-3 }
    };
    let mut machine = Machine::new(slower, 0.02, 3);
    let (finding, best) = chosen(&mut machine);
    assert_eq!((finding.verdict, best), (Verdict::NotFaster, Profile::default()));
    assert_eq!(finding.stopped_early.len(), KNOB.tried().len() - 1);
    let round = 2 * machine.cases() * KNOB.tried().len();
    assert!(machine.timings <= (FIRST_LOOK + 1) * round, "{}", machine.timings);
}

#[test]
fn what_is_slower_elsewhere_is_not_taken() {
    let seconds = |profile: &Profile, case| match (profile.value(KNOB), case) {
        (FASTEST, 0) => 0.8e-3,
        (FASTEST, _) => 1.1e-3,
        _ => 1e-3,
    };
    let (finding, best) = chosen(&mut Machine::new(seconds, 0.005, 3));
    assert_eq!((finding.verdict, best), (Verdict::SlowerElsewhere, Profile::default()));
}

#[test]
fn without_time_nothing_is_taken() {
    for most in [0, 1, 50, 150] {
        let mut machine = Machine { most, ..Machine::new(faster_at_one(0.5), 0.001, 3) };
        let (finding, best) = chosen(&mut machine);
        assert_eq!((finding.verdict, best), (Verdict::NoTime, Profile::default()), "{most}");
        assert_eq!(machine.timings, most);
    }
}

#[test]
fn a_profile_is_compared_with_the_defaults() {
    let mut profile = Profile::default();
    profile.set(KNOB, FASTEST).unwrap();
    let id: Id = "add/scalar/f32/1x1024/1".parse().unwrap();
    let random = &mut fastrand::Rng::with_seed(1);
    let mut machine = Machine::new(faster_at_one(0.2), 0.01, 5);
    let found = compare(id.clone(), &profile, &mut machine, random).unwrap();
    assert!(found.ratio.low < 0.8 && 0.8 < found.ratio.high, "{found:?}");
    assert!((found.tuned_seconds / found.default_seconds - found.ratio.mean).abs() < 1e-9);
    let mut machine = Machine { most: 20, ..machine };
    machine.timings = 0;
    assert_eq!(compare(id, &profile, &mut machine, random), None);
}
