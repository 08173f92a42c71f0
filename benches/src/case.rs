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
