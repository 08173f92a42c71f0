use std::time::{Duration, Instant};

use lfm2_harness::ceiling::Work;
use lfm2_kernels::Isa;

/// Something to time.
pub struct Case<'a> {
    /// The first part of the id.
    pub op: &'static str,
    /// The instruction set that is timed.
    pub isa: Isa,
    /// The third part of the id.
    pub format: &'static str,
    /// The fourth part of the id.
    pub shape: String,
    /// What one run does.
    pub work: Work,
    /// Makes what runs; called only if the case is not filtered out.
    pub prepare: Box<dyn Fn() -> Box<dyn Workload + 'a> + 'a>,
}

impl<'a> Case<'a> {
    /// `op/isa/format/shape/threads`.
    pub fn id(&self) -> String {
        let Self { op, isa, format, shape, .. } = self;
        format!("{op}/{isa}/{format}/{shape}/{}", rayon::current_num_threads())
    }

    /// How many samples are taken.
    pub(crate) fn samples(&self) -> usize {
        if self.guess() > 0.05 { 10 } else { 20 }
    }

    /// About how many seconds it takes, with `each` for its samples unless its runs take longer.
    pub(crate) fn planned(&self, each: Duration) -> f64 {
        const PLOTS: f64 = 0.4;
        let runs = (1.4 * each.as_secs_f64()).max(12.0 * self.guess());
        runs + 3.0 * self.guess() + PLOTS
    }

    /// Whether the scalar reference would take so long that it must be asked for.
    pub(crate) fn is_too_slow(&self) -> bool {
        self.isa.name() == "scalar" && self.guess() > 0.2
    }

    /// About how long one run takes, for want of a measurement.
    fn guess(&self) -> f64 {
        let threads = rayon::current_num_threads() as f64;
        let (operations_per_second, bytes_per_second) =
            if self.isa.name() == "scalar" { (5e8, 5e8) } else { (1e11 * threads, 2e10) };
        let Work { operations, bytes, .. } = self.work;
        (operations as f64 / operations_per_second).max(bytes as f64 / bytes_per_second)
    }

    /// Whose bits to compare with, and over how many rows: the scalar reference where that is a matter of milliseconds, else
    /// another instruction set, else the reference over the first rows.
    pub(crate) fn reference(&self) -> (Isa, usize) {
        const SCALAR_OPERATIONS: u64 = 20_000_000;
        let Work { rows, operations, .. } = self.work;
        let others = Isa::available().into_iter().filter(|isa| *isa != self.isa);
        let is_scalar = |isa: &Isa| isa.name() == "scalar";
        let (scalar, wide): (Vec<_>, Vec<_>) = others.partition(is_scalar);
        match (scalar.first(), wide.last()) {
            (Some(&scalar), _) if operations <= SCALAR_OPERATIONS => (scalar, rows),
            (_, Some(&other)) => (other, rows),
            (Some(&scalar), None) => {
                let share = SCALAR_OPERATIONS as f64 / operations as f64;
                (scalar, ((rows as f64 * share) as usize).max(1))
            }
            // There is one instruction set on this machine.
            (None, None) => (self.isa, rows),
        }
    }

    /// What runs, after a look at its bits.
    ///
    /// # Panics
    ///
    /// If they are not those of another instruction set: a wrong kernel is not timed.
    pub(crate) fn checked(&self) -> Box<dyn Workload + 'a> {
        let mut workload = (self.prepare)();
        let (reference, rows) = self.reference();
        check(&self.id(), &mut *workload, self.isa, reference, rows);
        workload
    }

    /// How long so many runs take.
    pub(crate) fn time(&self, workload: &mut dyn Workload, runs: u64) -> Duration {
        let (isa, rows) = (self.isa, self.work.rows);
        if workload.rewinds() {
            let mut elapsed = Duration::ZERO;
            for _ in 0..runs {
                workload.rewind();
                let start = Instant::now();
                workload.run(isa, rows);
                elapsed += start.elapsed();
            }
            return elapsed;
        }
        let start = Instant::now();
        for _ in 0..runs {
            workload.run(isa, rows);
        }
        start.elapsed()
    }
}

/// What a case runs.
pub trait Workload {
    /// Brings everything back to where the first run began.
    fn restore(&mut self);

    /// Runs once, over the first `rows` of its rows.
    fn run(&mut self, isa: Isa, rows: usize);

    /// What the last run wrote.
    fn output(&self) -> &[f32];

    /// Whether [`rewind`](Self::rewind) must be called before each run. Otherwise runs are timed together, as one would be over
    /// sooner than a clock can tell.
    fn rewinds(&self) -> bool {
        false
    }

    /// Makes room for the next run; not timed.
    fn rewind(&mut self) {}
}

fn check(id: &str, workload: &mut dyn Workload, isa: Isa, reference: Isa, rows: usize) {
    let mut bits = |isa| {
        workload.restore();
        workload.run(isa, rows);
        workload.output().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let (expected, found) = (bits(reference), bits(isa));
    workload.restore();
    assert_eq!(found.len(), expected.len(), "{id}: outputs differ in length");
    if let Some(at) = (0..found.len()).find(|&i| found[i] != expected[i]) {
        panic!(
            "{id} is not timed, because it is wrong: element {at} is {} ({:#010x}) on {isa} and {} ({:#010x}) on {reference}",
            f32::from_bits(found[at]),
            found[at],
            f32::from_bits(expected[at]),
            expected[at],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives another result each time.
    struct Wrong([f32; 2]);

    impl Workload for Wrong {
        fn restore(&mut self) {}

        fn run(&mut self, _: Isa, _: usize) {
            self.0[1] += 1.0;
        }

        fn output(&self) -> &[f32] {
            &self.0
        }
    }

    #[test]
    #[should_panic(expected = "add is not timed, because it is wrong: element 1 is 2 (0x40000000)")]
    fn what_is_wrong_is_not_timed() {
        check("add", &mut Wrong([0.0; 2]), Isa::best(), Isa::best(), 1);
    }
}
