use lfm2_harness::ceiling::{self, Memory, beyond_cache};
use lfm2_harness::machine::Machine;
use lfm2_harness::report::{Peak, PeakOf};
use lfm2_kernels::Isa;
use rayon::current_num_threads;

/// What the machine can do at most, with each instruction set.
pub fn measure(isas: &[Isa], memory: &Memory) -> Vec<Peak> {
    // A processor that was idle takes a while to run at its full speed.
    measure_once(isas, memory);
    measure_once(isas, memory)
}

fn measure_once(isas: &[Isa], memory: &Memory) -> Vec<Peak> {
    const TIMES: usize = 5;
    let threads = current_num_threads();
    let best = |measure: &dyn Fn() -> f64| (0..TIMES).map(|_| measure()).fold(0.0, f64::max);
    let mut peaks = Vec::new();
    for &isa in isas {
        let mut push = |of, measure: &dyn Fn() -> f64| {
            let before = best(measure);
            peaks.push(Peak { isa: isa.name().to_string(), threads, of, before, after: None });
        };
        push(PeakOf::MultiplyAdd, &|| ceiling::multiply_add(isa));
        push(PeakOf::Dot, &|| ceiling::dot(isa));
        push(PeakOf::BrainDot, &|| ceiling::brain_dot(isa));
        for working_set in working_sets(threads) {
            let x = memory.first(working_set);
            push(PeakOf::Read { working_set }, &|| ceiling::read_again(isa, x));
        }
    }
    peaks
}

/// Half of what each level of caches holds for so many threads, and what none holds.
fn working_sets(threads: usize) -> Vec<u64> {
    let caches = Machine::detect().caches.into_iter().filter(|cache| cache.kind != "Instruction");
    let halves = caches.map(|cache| cache.bytes * threads.div_ceil(cache.shared_by) as u64 / 2);
    let far = beyond_cache() as u64;
    halves.filter(|half| *half < far / 2).chain([far]).collect()
}
