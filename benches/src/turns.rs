use std::time::Duration;

use lfm2_harness::ceiling::{Ceilings, Memory, ceilings};

use crate::{Case, Workload, case};

/// What runs, and what came of its turns.
pub struct Prepared<'a> {
    /// What runs.
    pub workload: Box<dyn Workload + 'a>,
    /// What the machine could do at most meanwhile; `None` where nothing is measured.
    pub ceilings: Option<Ceilings>,
    /// Seconds per run, of each turn.
    pub turns: Vec<f64>,
}

/// Rounds in which cases take turns.
const ROUNDS: usize = 20;

/// Gives every case its turn, round after round, so that a disturbance meets all of them alike, instead of bending the curve that
/// they make together. A case's turns take as long as `each`, or longer if its runs do.
pub fn take<'a>(each: Duration, cases: &[Case<'a>], memory: Option<&Memory>) -> Vec<Prepared<'a>> {
    const ROUNDS_WITH_CEILINGS: usize = 4;
    let mut all: Vec<_> = cases.iter().map(|case| Prepared::new(case, memory)).collect();
    for round in 0..ROUNDS {
        for (case, prepared) in cases.iter().zip(&mut all) {
            let samples = case::samples(case);
            if round.is_multiple_of(ROUNDS / samples) {
                prepared.take_turn(case, each / samples as u32);
            }
            if (round + 1).is_multiple_of(ROUNDS / ROUNDS_WITH_CEILINGS) {
                prepared.measure_ceilings(case, memory);
            }
        }
    }
    all
}

impl<'a> Prepared<'a> {
    /// What runs if its bits are right.
    pub fn new(case: &Case<'a>, memory: Option<&Memory>) -> Self {
        let workload = case::checked(case);
        let mut prepared = Self { workload, ceilings: None, turns: Vec::new() };
        prepared.measure_ceilings(case, memory);
        prepared
    }

    /// Measures once more what the machine can do at most; the highest counts.
    pub fn measure_ceilings(&mut self, case: &Case, memory: Option<&Memory>) {
        let now = memory.map(|memory| ceilings(case.isa, &case.work, memory));
        self.ceilings = match (self.ceilings, now) {
            (Some(before), Some(now)) => Some(before.max(now)),
            (before, now) => before.or(now),
        };
    }

    /// As many runs as fill `time`. The first finds caches that are not its own, and counts only if it is the only one.
    fn take_turn(&mut self, case: &Case, time: Duration) {
        let mut seconds = |runs| case.time(&mut *self.workload, runs).as_secs_f64() / runs as f64;
        let first = seconds(1);
        let one = self.turns.last().copied().unwrap_or(first);
        let turn = match (time.as_secs_f64() / one) as u64 {
            0 | 1 => first,
            runs => seconds(runs),
        };
        self.turns.push(turn);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::thread::sleep;

    use lfm2_harness::ceiling::Work;
    use lfm2_kernels::Isa;

    use super::*;

    /// Writes its name down whenever it runs.
    struct Named<'a>(&'static str, &'a RefCell<Vec<&'static str>>);

    impl Workload for Named<'_> {
        fn restore(&mut self) {
            self.1.borrow_mut().clear();
        }

        fn run(&mut self, _: Isa, _: usize) {
            self.1.borrow_mut().push(self.0);
            sleep(Duration::from_millis(1));
        }

        fn output(&self) -> &[f32] {
            &[]
        }
    }

    #[test]
    fn cases_take_turns() {
        let log = RefCell::new(Vec::new());
        let case = |op, operations| Case {
            op,
            isa: Isa::best(),
            format: "f32",
            shape: "1".to_string(),
            work: Work { rows: 1, operations, ..Work::default() },
            prepare: Box::new(|| Box::new(Named(op, &log))),
        };
        // One that is said to take long has half as many turns.
        let cases = [case("short", 1), case("long", u64::MAX / 2)];
        let all = take(Duration::ZERO, &cases, None);
        assert_eq!(*log.borrow(), ["short", "long", "short"].repeat(10));
        let counts: Vec<_> = all.iter().map(|one| one.turns.len()).collect();
        assert_eq!(counts, [20, 10]);
        assert!(all.iter().flat_map(|one| &one.turns).all(|seconds| *seconds >= 1e-3));
    }
}
