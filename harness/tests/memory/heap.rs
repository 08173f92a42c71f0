//! What kernels allocate themselves, packed weights, caches and working buffers, lies beside guard pages too.

use std::ops::Range;

use lfm2_harness::buffer::Place;
use lfm2_harness::case_line::CaseLine;
use lfm2_harness::cases::{OPS, Op};
use lfm2_harness::check::replay;
use lfm2_harness::emulator;
use lfm2_harness::gate::{Demand, Gate, Judges};
use lfm2_harness::guarded_heap::{GuardedHeap, Side};
use lfm2_harness::kernels::Kernels;
use lfm2_harness::plan::{Depth, fixed_plans};
use lfm2_kernels::linear::{Matrix, linear};
use lfm2_kernels::ops::{CacheElement, KeyValueCache};
use lfm2_kernels::simd::LANES;
use lfm2_kernels::tuning::{Knob, Profile};
use lfm2_kernels::{Isa, free_buffers};
use libtest_mimic::Failed;
use rayon::ThreadPoolBuilder;

#[global_allocator]
static HEAP: GuardedHeap = GuardedHeap::new();

/// In huge pages, other matrices would lie where guard pages are to be.
pub fn give_each_matrix_its_own_memory() {
    let mut profile = Profile::default();
    profile.set(Knob::HugePages, 0).expect("a value that it may have");
    profile.install();
}

/// Our kernels, guarded while they run. Linear layers leave no buffers to each other, which may be longer than the next one's, so that what it
/// must not touch is not beside a guard page.
const fn gate<const GUARDS_END: bool>() -> Gate {
    const fn side<const GUARDS_END: bool>() -> Side {
        if GUARDS_END { Side::End } else { Side::Start }
    }
    let kernels = Kernels {
        linear: |isa, x, weight, bias, out| {
            free_buffers();
            linear(isa, x, weight, bias, out);
        },
        ..Kernels::OURS
    };
    let judges = Judges {
        run: |case, kernels, isa| HEAP.guarding(side::<GUARDS_END>(), || case.run(kernels, isa)),
        run_another_way: |case, kernels, isa| {
            HEAP.guarding(side::<GUARDS_END>(), || case.run_another_way(kernels, isa))
        },
        ..Judges::OURS
    };
    Gate { judges, ..Gate::of(kernels, Demand::EqualBits) }
}

/// Families of operations that read what is packed when they are called, and of those that have caches, tables or weights from before.
const PACKED: [&str; 2] = ["embedding", "linear"];
const KEPT: [&str; 8] = [
    "rope",
    "attention",
    "short_conv",
    "shift_sum_time",
    "shift_sum_feature",
    "model",
    "model_experts",
    "model_quantised",
];

/// Cases run where a byte touched beside an allocation ends the process.
pub fn cases_run_in_a_guarded_heap() -> Result<(), Failed> {
    let guarded = |op: &&Op| [&PACKED[..], &KEPT].concat().contains(&op.family());
    for (index, op) in OPS.iter().filter(guarded).enumerate() {
        // Not all shapes: they run where slices are guarded.
        let takes_long = op.family().starts_with("model") || emulator::is_at_work();
        let step = if takes_long { 29 } else { 5 };
        let shapes = (op.fixed_shapes)().into_iter().skip(index % step).step_by(step);
        let shapes: Vec<_> = shapes.collect();
        for plan in fixed_plans(op, Depth::Quick) {
            let guarded = match plan.place {
                Place::Ordinary => None,
                Place::GuardedEnd => Some((Side::End, gate::<true>())),
                Place::GuardedStart => Some((Side::Start, gate::<false>())),
            };
            if let Some((side, gate)) = guarded
                && shapes.contains(&plan.shape)
            {
                for isa in Isa::available() {
                    run(side, &gate, &CaseLine { op: *op, isa, plan: plan.clone() })?;
                }
            }
        }
    }
    Ok(())
}

fn run(side: Side, gate: &Gate, line: &CaseLine) -> Result<(), Failed> {
    let before = HEAP.count();
    let result = match KEPT.contains(&line.op.family()) {
        true => HEAP.guarding(side, || replay(gate, line)),
        // All that the harness allocates would take a page as well.
        false => replay(gate, line),
    };
    free_buffers();
    result.map_err(|failure| format!("{}: {}", failure.case, failure.reason))?;
    if HEAP.count() == before { Err(format!("{line}: nothing was guarded").into()) } else { Ok(()) }
}

/// A number all of whose bytes are [`BYTE`].
const NUMBER: f32 = f32::from_bits(u32::from_ne_bytes([BYTE; 4]));
const BYTE: u8 = 0x3F;

/// Calls `access` with where packed weights lie that are whole lines of [`NUMBER`].
pub fn with_packed_weights(side: Side, length: usize, access: fn(Range<usize>)) {
    let rows = vec![NUMBER; LANES * 2 * length];
    with_newest(side, || Matrix::from_f32(LANES, 2 * length, &rows), access);
}

/// Calls `access` with where a cache lies that is full of [`NUMBER`].
pub fn with_cache(side: Side, length: usize, access: fn(Range<usize>)) {
    let new = || KeyValueCache::new(1, LANES, length, CacheElement::F32);
    let rows = vec![NUMBER; new().capacity() * LANES];
    let full = || {
        let mut cache = new();
        cache.append(&rows, &rows);
        cache
    };
    with_newest(side, full, access);
}

/// Calls `access` with where packed weights lay that were freed.
pub fn with_freed_weights(length: usize, access: fn(Range<usize>)) {
    with_packed_weights(Side::End, length, |_| ());
    access(HEAP.newest());
}

fn with_newest<T>(side: Side, make: impl Fn() -> T + Sync, access: fn(Range<usize>)) {
    // Alone, and not for the first time, no thread sets anything up that would be newer.
    let pool = ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    pool.install(|| {
        drop(make());
        let made = HEAP.guarding(side, &make);
        access(HEAP.newest());
        drop(made);
    });
}

/// Reads a byte, which must be one of [`NUMBER`].
pub fn read(address: usize) {
    assert_eq!(HEAP.read_at(address), BYTE);
}

/// Writes a byte.
pub fn write(address: usize) {
    HEAP.rewrite_at(address, BYTE);
}
