use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use lfm2_harness::ceiling::Memory;
use lfm2_harness::report::{Entry, Id, Peak, PeakOf, text};
use serde::Serialize;

use crate::peaks;
use crate::recorder::Recorder;
use crate::turns::{self, Prepared};
use crate::{Case, Extent, Options, Spread, Work, case, counted};

/// One run of one bench.
pub struct Session {
    /// What the command line asks for.
    pub options: Options,
    criterion: Criterion,
    /// `None` where nothing is measured.
    memory: Option<Memory>,
    recorder: Recorder,
    /// What it takes besides its cases.
    besides: Duration,
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
        let recorder = Recorder::new(bench, &options);
        let memory = options.measures().then(Memory::new);
        let began = Instant::now();
        if let Some(memory) = &memory {
            recorder.record_peaks(peaks::measure(&options.compared_isas(), memory));
        }
        // At the end they are measured once more.
        let besides = began.elapsed();
        Self { options, criterion, memory, recorder, besides }
    }

    /// What no cache holds, to read it; `None` where nothing is measured.
    pub fn memory(&self) -> Option<&[f32]> {
        self.memory.as_ref().map(Memory::all)
    }

    /// Tells of work that comes besides the cases, for the estimate of how long all will take.
    pub fn expect(&mut self, work: Duration) {
        self.besides += work;
    }

    /// Times each case for about as long as `each` says (more, where ten runs take longer), and says how long it will take. Cases of one
    /// group take turns, unless Criterion is asked for samples of another kind.
    ///
    /// # Panics
    ///
    /// If a case's bits are not those of another instruction set: a wrong kernel is not timed.
    pub fn measure(&mut self, each: Duration, groups: Vec<Vec<Case>>) -> Vec<Measurement> {
        let each = if self.options.extent() == Extent::Quick { each / 4 } else { each };
        let is_wanted = |case: &Case| {
            self.options.matches(&case.id()) && (self.options.is_patient() || !case.is_too_slow())
        };
        let wanted = |group: Vec<_>| group.into_iter().filter(is_wanted).collect();
        let mut groups: Vec<Vec<_>> = groups.into_iter().map(wanted).collect();
        groups.retain(|group| !group.is_empty());
        let cases: Vec<_> = groups.iter().flatten().map(|case| case::planned(case, each)).collect();
        let mut remaining = self.recorder.remaining(&self.options, &cases, self.besides);
        let mut measurements = Vec::new();
        for group in &groups {
            remaining.announce(group);
            for (case, prepared) in group.iter().zip(self.take_turns(each, group)) {
                measurements.extend(self.measure_one(each, case, prepared));
                remaining.advance(case::planned(case, each));
            }
        }
        measurements
    }

    /// Of each case what its turns gave; `None` of one that is by itself.
    fn take_turns<'a>(&self, each: Duration, group: &[Case<'a>]) -> Vec<Option<Prepared<'a>>> {
        if group.len() == 1 || self.memory.is_none() || self.options.chooses_samples() {
            return group.iter().map(|_| None).collect();
        }
        turns::take(each, group, self.memory.as_ref()).into_iter().map(Some).collect()
    }

    /// Lets Criterion time a case, or gives it what the case's turns gave.
    fn measure_one<'a>(
        &mut self,
        each: Duration,
        case: &Case<'a>,
        mut prepared: Option<Prepared<'a>>,
    ) -> Option<Measurement> {
        let id = case.id();
        let name: Id = id.parse().expect("ids follow the grammar");
        let Case { op, isa, format, shape, work, .. } = case;
        let took_turns = prepared.is_some();

        let mut group = self.criterion.benchmark_group(*op);
        group.sampling_mode(SamplingMode::Flat);
        if !self.options.has("--sample-size") {
            group.sample_size(case::samples(case));
        }
        if !self.options.has("--measurement-time") {
            group.measurement_time(each);
        }
        if took_turns {
            // Criterion runs it once, and knows how many runs it wants of each sample.
            group.warm_up_time(Duration::from_nanos(1));
        } else if !self.options.has("--warm-up-time") {
            group.warm_up_time(each / 4);
        }
        group.throughput(match *work {
            Work { operations: 0, bytes: 0, rows, .. } => Throughput::Elements(rows as u64),
            Work { operations: 0, bytes, .. } => Throughput::Bytes(bytes),
            Work { operations, bytes, .. } => {
                Throughput::ElementsAndBytes { elements: operations, bytes }
            }
        });

        let turns = prepared.as_ref().map(|prepared| prepared.turns.clone());
        let mut turns = turns.into_iter().flatten();
        let mut samples = Vec::new();
        let threads = rayon::current_num_threads();
        let benchmark = BenchmarkId::new(format!("{isa}/{format}"), format!("{shape}/{threads}"));
        group.bench_function(benchmark, |bencher| {
            let prepared =
                prepared.get_or_insert_with(|| Prepared::new(case, self.memory.as_ref()));
            bencher.iter_custom(|runs| {
                let turn = if samples.is_empty() { None } else { turns.next() };
                let elapsed = match turn {
                    Some(seconds) => Duration::from_secs_f64(runs as f64 * seconds),
                    None => case.time(&mut *prepared.workload, runs),
                };
                samples.push((runs, elapsed));
                elapsed
            });
        });
        group.finish();
        let mut prepared = prepared?;
        prepared.measure_ceilings(case, self.memory.as_ref());
        let ceilings = prepared.ceilings?;
        let seconds = if took_turns { prepared.turns } else { seconds(&samples) };
        let (reference, same_bits_rows) = case::reference(case);
        let same_bits_as = reference.name().to_string();
        let entry = Entry { work: *work, ceilings, took_turns, same_bits_as, same_bits_rows };
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

    /// Writes Criterion's summary, and measures once more what the machine can do at most.
    pub fn finish(&self) {
        self.criterion.final_summary();
        if let Some(memory) = &self.memory {
            self.recorder.record_peaks(peaks::measure(&self.options.compared_isas(), memory));
        }
    }

    /// Prints what the machine could do at most when the bench began, and at its end.
    pub fn print_peaks(&self) {
        let threads = counted(rayon::current_num_threads(), "thread");
        println!("\nwhat the CPU does at most, {threads}");
        println!("{:13}{:28}{:>14}{:>14}", "", "", "before", "after");
        let peaks = self.recorder.peaks();
        let memory = peaks.iter().filter_map(|peak| peak.of.working_set()).max();
        let is_of_cache = |of: PeakOf| of.working_set().is_some() && of.working_set() != memory;
        for peak in peaks.iter().filter(|peak| !is_of_cache(peak.of)) {
            let &Peak { ref isa, of, before, after, .. } = peak;
            let (Some(after), Some(drift)) = (after, peak.drift()) else { continue };
            let [before, after] = [before, after].map(|rate| text::peak_rate(of, rate));
            let note = if drift.abs() > Peak::DRIFT { "  the machine was not quiet" } else { "" };
            println!("{isa:13}{:28}{before:>14}{after:>14}{drift:>+8.1} %{note}", text::peak(of));
        }
    }

    /// Ends the bench: keeps what it makes of its measurements, writes the report and says where it is.
    ///
    /// # Panics
    ///
    /// If that cannot be written.
    pub fn report(self, summary: impl Serialize) {
        self.recorder.finish(serde_json::to_value(summary).expect("JSON can hold it"));
    }
}

/// Seconds per run of the samples that count. While Criterion warms up, each is of twice as many runs as the one before; then all
/// are of equally many.
fn seconds(samples: &[(u64, Duration)]) -> Vec<f64> {
    let counted = samples.last().map_or(0, |(runs, _)| *runs);
    let counts = samples.iter().rev().take_while(|(runs, _)| *runs == counted);
    counts.map(|(runs, elapsed)| elapsed.as_secs_f64() / *runs as f64).collect()
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
}
