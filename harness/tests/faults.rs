//! Faults that are switched on for the whole process: a process of their own.

use lfm2_harness::verbs::check;
use lfm2_kernels::Isa;
use lfm2_kernels::faults::{LaneFault, switch_lanes, switch_off};
use lfm2_kernels::simd::verbs::VERBS;

/// Every wrong verb that a result of its own can show, on every instruction set but the one that it is compared with.
#[test]
fn every_fault_of_the_lanes_is_seen() {
    let unseen = [
        LaneFault::SubtractAddsNegative,
        LaneFault::LoadCopies,
        LaneFault::BrainDotsFlushSubnormals,
    ];
    for isa in Isa::available().into_iter().filter(|isa| isa.name() != "scalar") {
        for fault in LaneFault::ALL.into_iter().filter(|fault| fault.exists_on(isa)) {
            switch_lanes(fault, isa);
            let is_seen = check(VERBS, isa).is_err();
            switch_off();
            assert_eq!(is_seen, !unseen.contains(&fault), "{fault:?} on {isa}");
        }
    }
}
