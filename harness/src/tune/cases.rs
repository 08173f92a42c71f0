//! What is timed to tune a knob, and at the end: linear layers of a model in the usual formats, and small operations.

use std::time::Duration;

use lfm2_kernels::Isa;
use lfm2_kernels::model::{Config, Error};
use lfm2_kernels::tuning::{Knob, Profile};

use super::Stopwatch;
use crate::ceiling::beyond_cache;
use crate::workload::operations::{self, BF16, BF16_BF16, F32, Q4_0, Q8_0};
use crate::workload::{Case, Stored, Weights, Workload, runs_within};

/// For about how long a case runs at a time.
const SLOT: Duration = Duration::from_millis(3);

/// The linear layers that are timed.
pub struct Shapes {
    /// `[outputs, inputs]`.
    linear: Vec<[usize; 2]>,
    /// The rows of a decoded token, of a few sequences, and of a prompt.
    rows: [usize; 3],
    /// Bytes that the copies of a matrix take together at least.
    pub weight_bytes: usize,
}

/// How many rows there are.
#[derive(Clone, Copy)]
enum Rows {
    One,
    Few,
    Many,
}
use Rows::{Few, Many, One};

impl Shapes {
    /// A shape for trying things out, which does not say anything about a model.
    pub const TINY: &'static str = "tiny";

    /// The names of those that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Config::preset_names().chain([Self::TINY])
    }

    /// The largest and the smallest linear layer of a preset.
    ///
    /// # Errors
    ///
    /// If there is no such preset.
    pub fn named(name: &str) -> Result<Self, Error> {
        if name == Self::TINY {
            let linear = vec![[96, 64], [32, 64]];
            return Ok(Self { linear, rows: [1, 4, 32], weight_bytes: 1 });
        }
        let config = Config::preset(name)?;
        let (width, smallest) = (config.hidden_size, config.key_value_width());
        let linear = vec![[config.feed_forward_width, width], [smallest, width]];
        Ok(Self { linear, rows: [1, 16, 512], weight_bytes: beyond_cache() })
    }

    fn cases<'a>(&self, isa: Isa, parts: &[(Stored, Rows)], weights: &'a Weights) -> Vec<Case<'a>> {
        let mut cases = Vec::new();
        // Those of the same weights follow each other.
        for &shape in &self.linear {
            for &(stored, rows) in parts {
                let rows = self.rows[rows as usize];
                cases.push(operations::linear_case(isa, stored, shape, rows, weights));
            }
        }
        cases.retain(|case| !case.is_too_slow());
        cases
    }

    /// The cases that a knob concerns; none if none does on that instruction set.
    pub fn of_knob<'a>(&self, knob: Knob, isa: Isa, weights: &'a Weights) -> Vec<Case<'a>> {
        let has_brain_dots = isa.has_brain_dots();
        let is_x86 = cfg!(target_arch = "x86_64") && isa.name() != "scalar";
        let parts: &[_] = match knob {
            Knob::BlockRows => &[(F32, Many), (BF16, Many), (Q8_0, Many)],
            Knob::TasksPerThread => &[(F32, Few), (F32, Many), (Q4_0, Few), (Q4_0, Many)],
            Knob::SharedBytes => &[(F32, One), (F32, Few), (Q4_0, One), (Q4_0, Few)],
            Knob::RowRunBytes => &[(F32, One), (BF16, One), (Q4_0, One)],
            Knob::WidenedRows => &[(BF16, Few)],
            Knob::ChainCuts => &[(F32, Many), (BF16, Many)],
            Knob::BrainCuts if has_brain_dots => &[(BF16_BF16, Many)],
            Knob::IntegerGroups => &[(Q8_0, Many), (Q4_0, Many)],
            Knob::WideAhead => &[(F32, One)],
            Knob::NarrowAhead => &[(BF16, One)],
            Knob::BrainAhead if has_brain_dots => &[(BF16_BF16, One)],
            Knob::QuantisedAhead => &[(Q8_0, One), (Q4_0, One)],
            Knob::PrefetchLevel if is_x86 => &[(F32, One), (F32, Few), (BF16, One), (Q4_0, One)],
            Knob::HugePages => &[(F32, One), (Q4_0, One)],
            Knob::SharedElements => {
                let [_, few, many] = self.rows;
                let rows = [few, many].into_iter();
                return rows.flat_map(|rows| operations::small_cases(isa, rows)).collect();
            }
            Knob::BrainCuts | Knob::BrainAhead | Knob::PrefetchLevel => &[],
        };
        self.cases(isa, parts, weights)
    }

    /// What a profile is held against the defaults with.
    pub fn all<'a>(&self, isa: Isa, weights: &'a Weights) -> Vec<Case<'a>> {
        let formats = [F32, BF16, BF16_BF16, Q8_0, Q4_0];
        let parts = formats.map(|format| [One, Few, Many].map(|rows| (format, rows)));
        let mut cases = self.cases(isa, parts.as_flattened(), weights);
        cases.extend(operations::small_cases(isa, self.rows[Many as usize]));
        cases
    }
}

/// Cases that are timed until `is_over`.
pub struct Ready<'a, 'b> {
    cases: Vec<ReadyCase<'a>>,
    is_over: &'b dyn Fn() -> bool,
}

struct ReadyCase<'a> {
    case: Case<'a>,
    /// What runs, with weights that were packed for a value of [`Knob::HugePages`].
    workloads: Vec<(usize, Box<dyn Workload + 'a>)>,
    /// Runs that are timed together.
    runs: u64,
}

impl<'a, 'b> Ready<'a, 'b> {
    /// Each is made ready when it is first timed.
    pub fn new(cases: Vec<Case<'a>>, is_over: &'b dyn Fn() -> bool) -> Self {
        let ready = |case| ReadyCase { case, workloads: Vec::new(), runs: 0 };
        Self { cases: cases.into_iter().map(ready).collect(), is_over }
    }
}

impl Stopwatch for Ready<'_, '_> {
    fn cases(&self) -> usize {
        self.cases.len()
    }

    fn time(&mut self, profile: &Profile, case: usize) -> f64 {
        profile.install();
        let ReadyCase { case, workloads, runs } = &mut self.cases[case];
        let pages = profile.value(Knob::HugePages);
        let found = workloads.iter().position(|(packed_for, _)| *packed_for == pages);
        let at = found.unwrap_or_else(|| {
            let mut workload = (case.prepare)();
            // Warms up, too.
            *runs = runs_within(SLOT, |runs| case.time(&mut *workload, runs)).max(*runs);
            workloads.push((pages, workload));
            workloads.len() - 1
        });
        case.time(&mut *workloads[at].1, *runs).as_secs_f64() / *runs as f64
    }

    fn is_over(&self) -> bool {
        (self.is_over)()
    }
}
