//! What the benches share.
//!
//! Benchmark ids follow `operation/isa/format/shape/threads` in `ops`, `conv_layer/isa/phase/length` and its siblings in `layers`, and
//! `forward/isa/format/phase/length` in `forward`. `LFM2_BENCH_ISAS=all`, or a list such as `avx2,avx512`, chooses instruction sets.
#![forbid(unsafe_code)]

use std::time::Duration;

use criterion::Criterion;
use lfm2_kernels::Isa;
use rayon::ThreadPoolBuilder;

/// The instruction sets to time: those that `LFM2_BENCH_ISAS` names, else the `default` ones.
///
/// # Panics
///
/// If it names one that this CPU lacks.
pub fn chosen_isas(default: Vec<Isa>) -> Vec<Isa> {
    match std::env::var("LFM2_BENCH_ISAS").as_deref() {
        Err(_) => default,
        Ok("all") => Isa::available(),
        Ok(list) => list
            .split(',')
            .map(|name| name.parse().unwrap_or_else(|error| panic!("LFM2_BENCH_ISAS: {error}")))
            .collect(),
    }
}

/// Criterion with as few and short measurements as let all benches end within minutes.
pub fn criterion(measurement: Duration) -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(measurement)
        .configure_from_args()
}

/// Runs `work` on a thread of a pool, as a program does that decodes for long: work that is handed in from outside waits for
/// threads to wake.
///
/// # Panics
///
/// If threads cannot be started.
pub fn in_pool(work: impl FnOnce() + Send) {
    ThreadPoolBuilder::new().build().expect("threads can be started").install(work);
}

/// The middle of some measurements, and the middle half's ends.
///
/// # Panics
///
/// If there are none.
pub fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
