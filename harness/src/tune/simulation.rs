//! The search on a machine whose speed is known, and noisy.

use lfm2_kernels::tuning::{Knob, Profile};

use super::search::Search;
use super::settle::{Settled, Settling, Undone};
use super::{KnobFinding, Stopwatch, Verdict};
use crate::regression::simulation::normal;

/// Takes as long as `seconds` says, times noise.
struct Machine<F> {
    seconds: F,
    noise: f64,
    random: fastrand::Rng,
    timings: usize,
    /// So many timings are all the time that there is.
    most: usize,
    is_interrupted: bool,
}

impl<F: Fn(&Profile, usize) -> f64> Machine<F> {
    fn new(seconds: F, noise: f64, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { seconds, noise, random, timings: 0, most: 4000, is_interrupted: false }
    }
}

impl<F: Fn(&Profile, usize) -> f64> Stopwatch for Machine<F> {
    fn time(&mut self, profile: &Profile, case: usize) -> f64 {
        self.timings += 1;
        (self.seconds)(profile, case) * libm::exp(self.noise * normal(&mut self.random))
    }

    fn now(&self) -> f64 {
        self.timings as f64 / self.most as f64
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted
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
    let mut search = Search { watch: machine, random: &mut fastrand::Rng::with_seed(1) };
    let finding = search.choose(KNOB, KNOB.tried(), &[0, 1], &mut best, 1.0);
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

/// A gain that few rounds do not show is found where there is time for many.
#[test]
fn rounds_follow_the_time_that_there_is() {
    let found = |most| {
        let of = |seed| {
            let mut machine = Machine { most, ..Machine::new(faster_at_one(0.01), 0.03, seed) };
            let (finding, _) = chosen(&mut machine);
            assert!(machine.timings <= most, "{}", machine.timings);
            (finding.verdict == Verdict::Faster, finding.rounds)
        };
        let all: Vec<_> = (0..20).map(of).collect();
        (all.iter().filter(|(found, _)| *found).count(), all[0].1)
    };
    let ((few, rounds_of_few), (many, rounds_of_many)) = (found(400), found(8000));
    assert!(few < 5 && many > 15, "{few} and {many} of 20");
    assert!(rounds_of_few[0] < 16 && rounds_of_many[0] > 50, "{rounds_of_few:?}{rounds_of_many:?}");
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
    assert!(finding.rounds[0] <= 5 && finding.rounds[1] == 0, "{finding:?}");
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
    for most in [1, 50, 150] {
        let mut machine = Machine { most, ..Machine::new(faster_at_one(0.5), 0.001, 3) };
        let (finding, best) = chosen(&mut machine);
        assert_eq!((finding.verdict, best), (Verdict::NoTime, Profile::default()), "{most}");
        assert!(machine.timings <= most);
    }
}

const CASES: usize = 4;

/// Another knob, which was taken after [`KNOB`].
const LATER: Knob = Knob::ManyRows;
const LATER_VALUE: usize = 16;

/// The first two cases depend on [`KNOB`], all but the first on [`LATER`].
fn concerns(knob: Knob, case: usize) -> bool {
    match knob {
        KNOB => case < 2,
        LATER => case > 0,
        _ => false,
    }
}

/// Settles a profile with both knobs, which the machine takes `seconds` with.
fn settled<F: Fn(&Profile, usize) -> f64>(
    start: &Profile,
    machine: &mut Machine<F>,
) -> (Settled, Profile) {
    let mut best = start.clone();
    best.set(KNOB, FASTEST).unwrap();
    best.set(LATER, LATER_VALUE).unwrap();
    let mut settling = Settling {
        watch: machine,
        random: &mut fastrand::Rng::with_seed(1),
        start,
        concerns: &concerns,
        progress: &|| (),
    };
    let settled = settling.settle(&mut best, vec![KNOB, LATER], CASES, 0.5);
    (settled, best)
}

fn undone(settled: &Settled) -> Vec<(Knob, Verdict)> {
    settled.undone.iter().map(|Undone { knob, verdict, .. }| (*knob, *verdict)).collect()
}

fn knobs(profile: &Profile) -> Vec<Knob> {
    profile.iter().map(|(knob, _)| knob).collect()
}

fn has(profile: &Profile, knob: Knob) -> bool {
    profile.value(knob) == if knob == KNOB { FASTEST } else { LATER_VALUE }
}

#[test]
fn a_profile_that_is_nowhere_slower_is_kept() {
    for seed in 0..20 {
        let gain = |profile: &Profile, case| match case {
            0 if has(profile, KNOB) => 0.8e-3,
            _ => 1e-3,
        };
        let mut machine = Machine::new(gain, 0.01, seed);
        let (settled, best) = settled(&Profile::default(), &mut machine);
        assert_eq!((undone(&settled), knobs(&best)), (vec![], vec![KNOB, LATER]));
        let found: Vec<_> = settled.cases.into_iter().map(Option::unwrap).collect();
        assert!((found[0].ratio.mean - 0.8).abs() < 0.02, "{found:?}");
        let ratio = found[0].tuned_seconds / found[0].default_seconds;
        assert!((ratio - found[0].ratio.mean).abs() < 1e-9);
        assert!(found.iter().all(|case| case.ratio.low <= 1.01), "{found:?}");
    }
}

#[test]
fn the_last_knob_that_makes_a_case_slower_is_undone() {
    for seed in 0..10 {
        // Not shown by either alone.
        let slower_together = |profile: &Profile, case| {
            let is_slower = case == 1 && has(profile, KNOB) && has(profile, LATER);
            if is_slower { 1.05e-3 } else { 1e-3 }
        };
        let mut machine = Machine::new(slower_together, 0.01, seed);
        let (settled, best) = settled(&Profile::default(), &mut machine);
        assert_eq!(undone(&settled), [(LATER, Verdict::Undone)]);
        let (case, compared) = settled.undone[0].slower.expect("the case");
        assert!(case == 1 && compared.ratio.low > 1.01, "{compared:?}");
        assert_eq!(knobs(&best), [KNOB]);
        let found: Vec<_> = settled.cases.into_iter().map(Option::unwrap).collect();
        assert!(found.iter().all(|case| case.ratio.low <= 1.01), "{found:?}");
    }
}

#[test]
fn knobs_are_undone_until_no_case_is_slower() {
    // Only the first knob is to blame, and the last one suspected first.
    let slower = |profile: &Profile, case| match case {
        1 if has(profile, KNOB) => 1.05e-3,
        _ => 1e-3,
    };
    let mut start = Profile::default();
    start.set(KNOB, 128 << 10).unwrap();
    let (settled, best) = settled(&start, &mut Machine::new(slower, 0.005, 5));
    assert_eq!(undone(&settled), [(LATER, Verdict::Undone), (KNOB, Verdict::Undone)]);
    assert_eq!(best, start);
    // Nothing is left to compare.
    assert_eq!(settled.cases, [None; CASES]);
}

/// What nobody knows to depend on a knob is nevertheless not left slower.
#[test]
fn a_case_that_no_knob_concerns_undoes_them_all() {
    let slower = |profile: &Profile, case| match case {
        0 if has(profile, LATER) => 1.2e-3,
        _ => 1e-3,
    };
    let mut machine = Machine::new(slower, 0.005, 5);
    let (settled, best) = settled(&Profile::default(), &mut machine);
    assert_eq!(best, Profile::default());
    assert_eq!(settled.undone.len(), 2);
}

#[test]
fn what_there_is_no_time_to_show_is_undone() {
    // Enough for some cases, or for none.
    for most in [10, 40, 80] {
        let same = |_: &Profile, _| 1e-3;
        let mut machine = Machine { most, ..Machine::new(same, 0.01, 3) };
        let (found, best) = settled(&Profile::default(), &mut machine);
        assert!(machine.timings <= most);
        assert_eq!(best, Profile::default(), "{most}: {found:?}");
        assert!(undone(&found).iter().all(|(_, verdict)| *verdict == Verdict::NotShown));
        // Who does not want to wait keeps what the search found.
        let mut machine = Machine { most, is_interrupted: true, ..Machine::new(same, 0.01, 3) };
        let (found, best) = settled(&Profile::default(), &mut machine);
        assert_eq!((undone(&found), knobs(&best)), (vec![], vec![KNOB, LATER]), "{most}");
    }
}

/// A case that looked slower when somebody interrupted the comparison.
#[test]
fn what_looks_slower_is_undone_without_time_to_look_again() {
    let slower = |profile: &Profile, case| match case {
        3 if has(profile, LATER) => 1.2e-3,
        _ => 1e-3,
    };
    let rounds_of_all = 2 * 2 * 20 * CASES;
    for is_interrupted in [false, true] {
        let machine = Machine::new(slower, 0.01, 3);
        let mut machine = Machine { most: 2 * rounds_of_all, is_interrupted, ..machine };
        let mut best = Profile::default();
        best.set(LATER, LATER_VALUE).unwrap();
        let mut settling = Settling {
            watch: &mut machine,
            random: &mut fastrand::Rng::with_seed(1),
            start: &Profile::default(),
            concerns: &concerns,
            progress: &|| (),
        };
        // The first comparison takes all of the time.
        let settled = settling.settle(&mut best, vec![LATER], CASES, 1.0);
        assert_eq!(best, Profile::default());
        assert_eq!(undone(&settled), [(LATER, Verdict::NotShown)]);
    }
}
