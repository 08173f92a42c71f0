use std::hint::black_box;

use lfm2_kernels::Isa;

use super::Workload;

/// A workload that is a function over an output.
struct Function<F> {
    start: Vec<f32>,
    out: Vec<f32>,
    function: F,
    /// Whether an output that is not set back would drift away from ordinary numbers.
    drifts: bool,
    turn: usize,
}

impl<F: FnMut(Isa, usize, usize, &mut [f32])> Workload for Function<F> {
    fn restore(&mut self) {
        self.turn = 0;
        self.out.copy_from_slice(&self.start);
    }

    fn run(&mut self, isa: Isa, rows: usize) {
        let turn = self.turn;
        self.turn += 1;
        (self.function)(isa, rows, turn, black_box(&mut self.out));
    }

    fn output(&self) -> &[f32] {
        &self.out
    }

    fn rewinds(&self) -> bool {
        self.drifts
    }

    fn rewind(&mut self) {
        self.out.copy_from_slice(&self.start);
    }
}

/// A workload that runs `function(isa, rows, turn, out)`, where `out` is at first `start`.
pub fn workload<'a>(
    start: Vec<f32>,
    function: impl FnMut(Isa, usize, usize, &mut [f32]) + 'a,
) -> Box<dyn Workload + 'a> {
    Box::new(Function { out: start.clone(), start, function, drifts: false, turn: 0 })
}

/// The same, where `out` is `start` before every run.
pub fn rewound<'a>(
    start: Vec<f32>,
    function: impl FnMut(Isa, usize, usize, &mut [f32]) + 'a,
) -> Box<dyn Workload + 'a> {
    Box::new(Function { out: start.clone(), start, function, drifts: true, turn: 0 })
}
