//! Cases that are made ready once, and timed for a short while at a time.

use std::time::Duration;

use lfm2_kernels::tuning::{Knob, Profile};

use super::Tuned;
use crate::ceiling::{Memory, ceilings};
use crate::tune::{Limit, Stopwatch};
use crate::workload::{Workload, runs_within};

/// For about how long a case runs at a time.
pub const SLOT: Duration = Duration::from_micros(1500);

/// Cases that are timed as long as there is time.
pub struct Ready<'a, 'b> {
    cases: Vec<ReadyCase<'a, 'b>>,
    memory: Memory,
    now: &'b dyn Fn() -> f64,
    is_interrupted: &'b dyn Fn() -> bool,
}

struct ReadyCase<'a, 'b> {
    tuned: &'b Tuned<'a>,
    /// What runs, with weights that were packed for a value of [`Knob::HugePages`].
    workloads: Vec<(usize, Box<dyn Workload + 'a>)>,
    /// Runs that are timed together.
    runs: u64,
}

impl<'a, 'b> Ready<'a, 'b> {
    /// Each is made ready when it is first timed, or before; `now` and `is_interrupted` are those of a [`Stopwatch`].
    pub fn new(
        cases: &'b [Tuned<'a>],
        memory: Memory,
        now: &'b dyn Fn() -> f64,
        is_interrupted: &'b dyn Fn() -> bool,
    ) -> Self {
        let ready = |tuned| ReadyCase { tuned, workloads: Vec::new(), runs: 0 };
        Self { cases: cases.iter().map(ready).collect(), memory, now, is_interrupted }
    }

    /// Makes a case ready for a profile.
    pub fn prepare(&mut self, profile: &Profile, case: usize) {
        profile.install();
        self.cases[case].workload(profile.value(Knob::HugePages));
    }

    /// Frees what is ready for none of those profiles.
    pub fn keep(&mut self, profiles: [&Profile; 2]) {
        let pages = profiles.map(|profile| profile.value(Knob::HugePages));
        for case in &mut self.cases {
            case.workloads.retain(|(packed_for, _)| pages.contains(packed_for));
        }
    }
}

impl<'a> ReadyCase<'a, '_> {
    /// What runs with such pages.
    fn workload(&mut self, pages: usize) -> &mut (dyn Workload + 'a) {
        let Self { tuned, workloads, runs } = self;
        let found = workloads.iter().position(|(packed_for, _)| *packed_for == pages);
        let at = found.unwrap_or_else(|| {
            let mut workload = (tuned.case.prepare)();
            // Warms up, too.
            *runs = runs_within(SLOT, |runs| tuned.case.time(&mut *workload, runs)).max(*runs);
            workloads.push((pages, workload));
            workloads.len() - 1
        });
        &mut *workloads[at].1
    }
}

impl Stopwatch for Ready<'_, '_> {
    fn time(&mut self, profile: &Profile, case: usize) -> f64 {
        profile.install();
        let ready = &mut self.cases[case];
        let tuned = ready.tuned;
        ready.workload(profile.value(Knob::HugePages));
        let runs = ready.runs;
        let workload = ready.workload(profile.value(Knob::HugePages));
        tuned.case.time(workload, runs).as_secs_f64() / runs as f64
    }

    fn now(&self) -> f64 {
        (self.now)()
    }

    fn is_interrupted(&self) -> bool {
        (self.is_interrupted)()
    }

    fn limit(&mut self, case: usize) -> Option<Limit> {
        let case = &self.cases[case].tuned.case;
        let (seconds, bound) = ceilings(case.isa, &case.work, &self.memory).seconds(&case.work);
        (seconds > 0.0).then_some(Limit { seconds, bound })
    }
}
