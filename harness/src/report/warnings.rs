//! Why not to trust what was measured.

use super::manifest::{Peak, Run};
use super::measurement::Measurement;
use super::text::{self, counted};
use super::{Results, RunPeak};

impl Results {
    /// What a reader must know of the runs and the machine.
    pub(super) fn find_warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = self.runs.iter().flat_map(|run| self.of_run(run)).collect();
        warnings.extend(self.of_memory());
        let errors = self.measurements.iter().filter(|measurement| measurement.is_harness_error());
        let errors = errors.count();
        if errors > 0 {
            warnings.push(format!(
                "{errors} of {} cases are faster than the peak that was measured beside them: a harness error.",
                self.measurements.len()
            ));
        }
        if self.runs.iter().any(|run| run.commit != self.runs[0].commit) {
            warnings.push("The benches were built from different commits.".to_string());
        }
        warnings
    }

    fn of_run(&self, run: &Run) -> Vec<String> {
        /// What share of the processors others may have.
        const OTHERS: f64 = 0.1;
        let mut warnings = Vec::new();
        let name = format!("{} ({})", run.bench, counted(run.threads, "thread"));
        if !run.is_complete {
            warnings.push(format!(
                "The bench {name} was interrupted: what it had not measured is not here."
            ));
        }
        if let Some(others) = run.others.filter(|others| *others > OTHERS) {
            let percent = 100.0 * others;
            warnings.push(format!(
                "While {name} ran, other programs had {percent:.0} % of the processors."
            ));
        }
        let is_its = |peak: &&RunPeak| peak.bench == run.bench && peak.peak.threads == run.threads;
        let peaks: Vec<_> = self.peaks.iter().filter(is_its).map(|peak| &peak.peak).collect();
        let drifts = peaks.iter().filter_map(|peak| Some((peak.drift()?, peak)));
        let drifts: Vec<_> = drifts.filter(|(drift, _)| drift.abs() > Peak::DRIFT).collect();
        let most = drifts.iter().max_by(|(a, _), (b, _)| a.abs().total_cmp(&b.abs()));
        if let Some((drift, Peak { isa, of, .. })) = most {
            warnings.push(format!(
                "While {name} ran, {} of {} peaks changed by more than {} %, most of all {} ({isa}) by {} %: the machine was not quiet.",
                drifts.len(),
                peaks.len(),
                Peak::DRIFT,
                text::peak(*of),
                text::signed(*drift, 0),
            ));
        }
        warnings
    }

    fn of_memory(&self) -> Option<String> {
        let (slow, fast) = self.memory_speeds()?;
        (100.0 * (fast / slow - 1.0) > 2.0 * Peak::DRIFT).then(|| {
            format!(
                "Beside four fifths of the cases, memory was read at {}B/s to {}B/s: what reads weights or caches, as decoding does, is as uneven.",
                text::rate(slow),
                text::rate(fast),
            )
        })
    }

    /// How fast memory was read beside the cases of the setting that the answer is of, the slowest and the fastest tenth left out.
    fn memory_speeds(&self) -> Option<(f64, f64)> {
        let setting = &self.growths.first()?.setting;
        let is_it = |one: &&Measurement| {
            one.work.working_set.is_none()
                && one.id.isa == setting.isa
                && one.id.threads == setting.threads
        };
        let speeds = self.measurements.iter().filter(is_it).map(|one| one.ceilings.read);
        let mut speeds: Vec<_> = speeds.collect();
        speeds.sort_by(f64::total_cmp);
        let tenth = speeds.len() / 10;
        Some((*speeds.get(tenth)?, speeds[speeds.len() - 1 - tenth]))
    }
}
