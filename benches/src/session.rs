use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use lfm2_harness::report::{Entry, Id};
use lfm2_harness::workload::run;
use lfm2_kernels::Isa;
use serde::Serialize;

use crate::peaks::{self, Memory};
use crate::recorder::Recorder;
use crate::{Case, Extent, Options, Spread, Work, Workload, time};

/// One run of one bench.
pub struct Session {
    /// What the command line asks for.
    pub options: Options,
    criterion: Criterion,
    memory: Memory,
    recorder: Recorder,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// `op/isa/format/shape/threads`.
    pub id: String,
    /// The name of the instruction set.
    pub isa: &'static str,
    /// Of weights, cache or elements.
    pub format: &'static str,
    /// Lengths, or phase and length.
    pub shape: String,
    /// What one run does.
    pub work: Work,
    /// Of one run.
    pub seconds: Spread,
}

impl Session {
    /// Starts the bench in the file of that name. What the machine can do at most is measured first.
    pub fn new(bench: &str, options: Options) -> Self {
        let criterion = options.criterion();
        let measures = options.measures();
        let memory = if measures { Memory::new() } else { Memory::default() };
        let recorder = Recorder::new(bench, &options);
        if measures {
            recorder.record_peaks(peaks::measure(&options.compared_isas(), &memory));
        }
        Self { options, criterion, memory, recorder }
    }

    /// Times each case for about as long as `each` says (more, where ten runs take longer), and says how far it is.
    ///
    /// # Panics
    ///
    /// If a case's bits are not those of another instruction set: a wrong kernel is not timed.
    pub fn measure(&mut self, each: Duration, cases: Vec<Case>) -> Vec<Measurement> {
        let each = if self.options.extent() == Extent::Quick { each / 2 } else { each };
        let is_wanted = |case: &Case| {
            self.options.matches(&case.id()) && (self.options.is_patient() || !case.is_too_slow())
        };
        let cases: Vec<_> = cases.into_iter().filter(is_wanted).collect();
        let planned = |case: &Case| {
            const PLOTS: f64 = 0.4;
            let runs = (1.4 * each.as_secs_f64()).max(12.0 * case.guess());
            runs + 3.0 * case.guess() + PLOTS
        };
        let all: f64 = cases.iter().map(planned).sum();
        let (count, began, mut done) = (cases.len(), Instant::now(), 0.0);
        let mut measurements = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            // Plans are corrected by how those before turned out.
            let pace = (began.elapsed().as_secs_f64() + 5.0) / (done + 5.0);
            let left = (all - done) * pace;
            let progress = format!("{}/{count}, about {} left", index + 1, time(left.ceil()));
            measurements.extend(self.measure_one(each, case, &progress));
            done += planned(case);
        }
        measurements
    }

    fn measure_one(&mut self, each: Duration, case: &Case, progress: &str) -> Option<Measurement> {
        let id = case.id();
        let threads = rayon::current_num_threads();
        let name: Id = id.parse().expect("ids follow the grammar");
        let Case { op, isa, format, shape, work, .. } = case;
        let (reference, reference_rows) = case.reference();
        let takes_long = case.guess() > 0.05;

        let mut group = self.criterion.benchmark_group(*op);
        group.sampling_mode(SamplingMode::Flat);
        if !self.options.has("--sample-size") {
            group.sample_size(if takes_long { 10 } else { 20 });
        }
        if !self.options.has("--measurement-time") {
            group.measurement_time(each);
        }
        if !self.options.has("--warm-up-time") {
            group.warm_up_time(each / 4);
        }
        group.throughput(match *work {
            Work { operations: 0, bytes: 0, rows, .. } => Throughput::Elements(rows as u64),
            Work { operations: 0, bytes, .. } => Throughput::Bytes(bytes),
            Work { operations, bytes, .. } => {
                Throughput::ElementsAndBytes { elements: operations, bytes }
            }
        });

        let mut workload: Option<Box<dyn Workload>> = None;
        let mut samples = Vec::new();
        let benchmark = BenchmarkId::new(format!("{isa}/{format}"), format!("{shape}/{threads}"));
        let measures = self.options.measures();
        let (memory, mut ceilings) = (&self.memory, None);
        group.bench_function(benchmark, |bencher| {
            let workload = workload.get_or_insert_with(|| {
                if measures {
                    eprintln!("[{progress}] {id}");
                }
                let mut workload = (case.prepare)();
                check(&id, &mut *workload, *isa, reference, reference_rows);
                ceilings = measures.then(|| peaks::ceilings(*isa, work, memory));
                workload
            });
            bencher.iter_custom(|iterations| {
                let elapsed = run(&mut **workload, *isa, work.rows, iterations);
                samples.push((iterations, elapsed));
                elapsed
            });
        });
        group.finish();
        let seconds = seconds(&samples);
        let before = ceilings.filter(|_| !seconds.is_empty())?;
        let entry = Entry {
            work: *work,
            ceilings: before.max(peaks::ceilings(*isa, work, memory)),
            same_bits_as: reference.name().to_string(),
            same_bits_rows: reference_rows,
        };
        self.recorder.record(name, entry);
        Some(Measurement {
            id,
            isa: isa.name(),
            format,
            shape: shape.clone(),
            work: *work,
            seconds: Spread::of(seconds),
        })
    }

    /// Writes Criterion's summary.
    pub fn finish(&self) {
        self.criterion.final_summary();
    }

    /// Ends the bench: keeps what it makes of its measurements, writes the report and says where it is.
    ///
    /// # Panics
    ///
    /// If that cannot be written.
    pub fn report(self, summary: impl Serialize) {
        let peaks = peaks::measure(&self.options.compared_isas(), &self.memory);
        self.recorder.finish(&peaks, serde_json::to_value(summary).expect("JSON can hold it"));
    }
}

/// Seconds per run of the samples that count. While Criterion warms up, each is of twice as many runs as the one before; then all
/// are of equally many.
fn seconds(samples: &[(u64, Duration)]) -> Vec<f64> {
    let counted = samples.last().map_or(0, |(runs, _)| *runs);
    let counts = samples.iter().rev().take_while(|(runs, _)| *runs == counted);
    counts.map(|(runs, elapsed)| elapsed.as_secs_f64() / *runs as f64).collect()
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

    #[test]
    fn warming_up_does_not_count() {
        let sample = |(runs, milliseconds)| (runs, Duration::from_millis(milliseconds));
        let samples = [(1, 900), (4, 800), (2, 250), (2, 500), (2, 1000)].map(sample);
        assert_eq!(seconds(&samples), [0.5, 0.25, 0.125]);
        assert!(seconds(&[]).is_empty());
    }

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
