//! How the benches go about a case.

use std::time::Duration;

use lfm2_kernels::Isa;

use crate::{Case, Work, Workload};

/// How many samples are taken of a case.
pub fn samples(case: &Case) -> usize {
    if case.guess() > 0.05 { 10 } else { 20 }
}

/// About how many seconds a case takes, with `each` for its samples unless its runs take longer.
pub fn planned(case: &Case, each: Duration) -> f64 {
    const PLOTS: f64 = 0.4;
    let runs = (1.4 * each.as_secs_f64()).max(12.0 * case.guess());
    runs + 3.0 * case.guess() + PLOTS
}

/// What a case runs, after a look at its bits.
///
/// # Panics
///
/// If they are not those of another instruction set: a wrong kernel is not timed.
pub fn checked<'a>(case: &Case<'a>) -> Box<dyn Workload + 'a> {
    let mut workload = (case.prepare)();
    let (reference, rows) = reference(case);
    check(&case.id(), &mut *workload, case.isa, reference, rows);
    workload
}

/// Whose bits to compare with, and over how many rows: the scalar reference where that is a matter of milliseconds, else
/// another instruction set, else the reference over the first rows.
pub fn reference(case: &Case) -> (Isa, usize) {
    const SCALAR_OPERATIONS: u64 = 20_000_000;
    let Work { rows, operations, .. } = case.work;
    let others = Isa::available().into_iter().filter(|isa| *isa != case.isa);
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
        (None, None) => (case.isa, rows),
    }
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
