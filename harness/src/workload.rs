//! What is timed, by benches and by the timing gate: operations at the shapes of LFM2-350M, each with what one run of it does.
//!
//! A model's weights and caches do not fit the processor's caches, so each layer finds its own gone when its turn comes. What is
//! timed is therefore one of many copies in turn, which together are several times as large as the last cache.

use std::time::{Duration, Instant};

use lfm2_kernels::Isa;

use crate::ceiling::Work;

mod forward;
mod function;
mod last;
pub mod layers;
pub mod operations;
mod stored;
mod value;

pub use forward::forward_case;
pub use last::Last;
pub use stored::{Stored, Weights, buffer, matrices, values};
pub use value::Value;
pub(crate) use value::runs_within;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// The least that still answers the question.
    Quick,
    /// What fits ten minutes on two cores, all benches together.
    Usual,
    /// Every length and shape.
    Full,
}

impl Extent {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Usual => "usual",
            Self::Full => "full",
        }
    }
}

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

impl Case<'_> {
    /// `op/isa/format/shape/threads`.
    pub fn id(&self) -> String {
        let Self { op, isa, format, shape, .. } = self;
        format!("{op}/{isa}/{format}/{shape}/{}", rayon::current_num_threads())
    }

    /// About how long one run takes, for want of a measurement.
    pub fn guess(&self) -> f64 {
        let threads = rayon::current_num_threads() as f64;
        let (operations_per_second, bytes_per_second) =
            if self.isa.name() == "scalar" { (5e8, 5e8) } else { (1e11 * threads, 2e10) };
        let Work { operations, bytes, .. } = self.work;
        (operations as f64 / operations_per_second).max(bytes as f64 / bytes_per_second)
    }

    /// Whether the scalar reference would take so long that it must be asked for.
    pub fn is_too_slow(&self) -> bool {
        self.isa.name() == "scalar" && self.guess() > 0.2
    }

    /// How long so many runs take.
    pub fn time(&self, workload: &mut dyn Workload, runs: u64) -> Duration {
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
