use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lfm2_harness::machine::Machine;
use lfm2_harness::report::{self, Entry, Error, Id, Manifest, Peak, Run};
use rayon::current_num_threads;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::load::Load;
use crate::remaining::Remaining;
use crate::{Options, time};

/// Keeps what has been measured, so that a run that is interrupted leaves a report of it.
pub struct Recorder {
    record: Arc<Mutex<Record>>,
    signals: Option<Handle>,
    measures: bool,
}

struct Record {
    target: PathBuf,
    manifest: Manifest,
    began: Instant,
    load: Option<Load>,
}

impl Recorder {
    /// Of a run that begins now.
    pub fn new(bench: &str, options: &Options) -> Self {
        let run = Run::begin(
            bench,
            options.extent().name(),
            options.is_filtered(),
            current_num_threads(),
        );
        let manifest = Manifest {
            schema_version: report::manifest::SCHEMA_VERSION,
            run,
            machine: Machine::detect(),
            peaks: Vec::new(),
            cases: Default::default(),
            summary: Value::Null,
        };
        let (began, load) = (Instant::now(), Load::now());
        let record = Arc::new(Mutex::new(Record { target: target(), manifest, began, load }));
        let measures = options.measures();
        let signals = if measures { end_with_report(record.clone()) } else { None };
        Self { record, signals, measures }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    /// How long this bench, and those after it, will take.
    pub fn remaining(&self, options: &Options, cases: &[f64], besides: Duration) -> Remaining {
        let record = self.lock();
        Remaining::new(&record.manifest.run.bench, options, &record.target, cases, besides)
    }

    /// Keeps what the machine can do: at first as what it could when the run began, then as what it could at its end.
    pub fn record_peaks(&self, peaks: Vec<Peak>) {
        let before = &mut self.lock().manifest.peaks;
        if before.is_empty() {
            *before = peaks;
            return;
        }
        for (before, after) in before.iter_mut().zip(peaks) {
            before.after = Some(after.before);
        }
    }

    /// What has been kept of that.
    pub fn peaks(&self) -> Vec<Peak> {
        self.lock().manifest.peaks.clone()
    }

    /// Keeps a case that Criterion has measured.
    pub fn record(&self, id: Id, entry: Entry) {
        let mut record = self.lock();
        record.manifest.cases.insert(id, entry);
        record.save();
    }

    /// Keeps what the bench makes of it all, and writes the report.
    pub fn finish(self, summary: Value) {
        if !self.measures {
            return;
        }
        let mut record = self.lock();
        let manifest = &mut record.manifest;
        manifest.run.is_complete = true;
        manifest.summary = summary;
        record.report();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(signals) = &self.signals {
            signals.close();
        }
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes signals end the run with a report of what it has measured.
fn end_with_report(record: Arc<Mutex<Record>>) -> Option<Handle> {
    // Where signals cannot be waited for, measuring must go on nevertheless.
    let mut signals = Signals::new([SIGINT, SIGTERM]).ok()?;
    let handle = signals.handle();
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let mut record = lock(&record);
            // Of a run that has measured nothing, there is nothing to say.
            if !record.manifest.cases.is_empty() {
                eprintln!("\ninterrupted: the report has what was measured so far");
                record.report();
            }
            exit(128 + signal);
        }
    });
    Some(handle)
}

impl Record {
    fn save(&mut self) {
        let run = &mut self.manifest.run;
        run.seconds = self.began.elapsed().as_secs_f64();
        run.others = Load::now().zip(self.load.as_ref()).map(|(now, load)| now.others_since(load));
        if let Err(error) = self.manifest.save(&self.target) {
            panic!("{error}");
        }
    }

    fn report(&mut self) {
        self.save();
        let Run { bench, seconds, others, .. } = &self.manifest.run;
        println!("\nthe bench {bench} took {}", time(seconds.ceil()));
        if let Some(others) = others.filter(|others| *others > 0.1) {
            let percent = 100.0 * others;
            println!(
                "other programs had {percent:.0} % of the processors: do not trust these times"
            );
        }
        match report::make(&self.target) {
            Ok(path) => println!("report: {}", path.display()),
            // A bench whose cases Criterion has no part in.
            Err(Error::NothingMeasured { .. }) => {}
            Err(error) => {
                eprintln!("error: no report: {error}");
                exit(1);
            }
        }
    }
}

/// Cargo's target folder, as this program lies somewhere below it: cargo tags it, unless someone else has made it.
fn target() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let mut folders = program.ancestors();
    let tagged = folders.clone().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let named = || folders.find(|folder| folder.ends_with("target"));
    tagged.or_else(named).unwrap_or(Path::new("target")).to_path_buf()
}
