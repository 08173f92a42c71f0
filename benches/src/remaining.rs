use std::fs;
use std::io::{IsTerminal, stderr};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::{Duration, Instant};

use lfm2_harness::report::manifest;
use lfm2_harness::report::text::counted;
use rayon::current_num_threads;

use crate::{Case, Extent, Options, time};

/// The benches in the order in which `cargo bench` runs them, with about how many seconds they take on two cores: quick, usual and full.
const BENCHES: [(&str, [f64; 3]); 4] = [
    ("forward", [25.0, 130.0, 1500.0]),
    ("layers", [40.0, 120.0, 1350.0]),
    ("ops", [45.0, 180.0, 1800.0]),
    ("peers", [60.0, 180.0, 300.0]),
];

/// How long benches will still take.
pub struct Remaining {
    bench: String,
    /// The number of cases.
    cases: usize,
    /// Those that are over.
    done: usize,
    /// Seconds by plan, of this bench.
    planned: f64,
    /// Seconds by plan of what is over.
    spent: f64,
    began: Instant,
    /// Seconds of the benches after this one.
    after: f64,
    is_terminal: bool,
}

impl Remaining {
    /// Of a bench that begins now, with seconds by plan of each of its cases. What comes on a terminal with every case comes once where
    /// there is none.
    pub fn new(
        bench: &str,
        options: &Options,
        target: &Path,
        cases: &[f64],
        besides: Duration,
    ) -> Self {
        let remaining = Self {
            bench: bench.to_string(),
            cases: cases.len(),
            done: 0,
            planned: cases.iter().sum::<f64>() + besides.as_secs_f64(),
            spent: 0.0,
            began: Instant::now(),
            after: after(bench, options, target),
            is_terminal: stderr().is_terminal(),
        };
        if options.measures() && !cases.is_empty() && !remaining.is_terminal {
            let (cases, threads) =
                (counted(cases.len(), "case"), counted(current_num_threads(), "thread"));
            eprintln!("{bench}: {cases} on {threads}, about {}", remaining.text());
        }
        remaining
    }

    /// Says what comes next.
    pub fn announce(&self, group: &[Case]) {
        let Self { cases, done, is_terminal, .. } = self;
        if !is_terminal {
            return;
        };
        let id = group[0].id();
        let what = match group.len() {
            1 => id,
            count => format!("{id} and {} others in turn", count - 1),
        };
        eprintln!("[{}/{cases}, about {}] {what}", done + 1, self.text());
    }

    /// A case is over that was planned to take so many seconds.
    pub fn advance(&mut self, planned: f64) {
        self.done += 1;
        self.spent += planned;
    }

    fn text(&self) -> String {
        let here = left(self.planned, self.spent, self.began.elapsed().as_secs_f64());
        let text = |seconds: f64| time(seconds.ceil());
        if self.after == 0.0 {
            return format!("{} left", text(here));
        }
        format!("{} left, {} of it in {}", text(here + self.after), text(here), self.bench)
    }
}

/// Plans are corrected by how what is over turned out.
fn left(planned: f64, spent: f64, elapsed: f64) -> f64 {
    /// So many seconds go by the plan in any case.
    const TRUST: f64 = 5.0;
    (planned - spent) * (elapsed + TRUST) / (spent + TRUST)
}

/// Seconds of the benches that cargo runs after `bench`: as many as they took the last time, or those of [`BENCHES`]. 0 where that is
/// not known: when cases are left out or flags change what is done.
fn after(bench: &str, options: &Options, target: &Path) -> f64 {
    let Some(command) = parent_command() else { return 0.0 };
    if !options.is_plain() {
        return 0.0;
    }
    let earlier = manifest::read_all(target).map_or_else(|_| Vec::new(), |found| found.manifests);
    let extent = options.extent();
    let seconds = |bench: &str, guess: f64| {
        let runs = earlier.iter().map(|manifest| &manifest.run);
        let runs = runs.filter(|run| run.bench == bench && run.extent == extent.name());
        let complete = runs.filter(|run| run.is_complete && !run.is_filtered);
        complete.map(|run| run.seconds).reduce(|a, b| a + b).unwrap_or(guess)
    };
    let guess = |guesses: [f64; 3]| match extent {
        Extent::Quick => guesses[0],
        Extent::Usual => guesses[1],
        Extent::Full => guesses[2],
    };
    let later = following(bench, &command).into_iter();
    later.map(|(bench, guesses)| seconds(bench, guess(guesses))).sum()
}

/// The benches that this command of cargo runs after `bench`.
fn following(bench: &str, command: &[String]) -> Vec<(&'static str, [f64; 3])> {
    let flags: Vec<_> = command.iter().take_while(|word| *word != "--").collect();
    let named = flags.windows(2).filter(|pair| pair[0] == "--bench").map(|pair| pair[1].as_str());
    let named: Vec<_> =
        named.chain(flags.iter().filter_map(|word| word.strip_prefix("--bench="))).collect();
    let runs = |name: &str| match &named[..] {
        [] => name != "peers" || cfg!(feature = "peers"),
        named => named.contains(&name),
    };
    let later = BENCHES.into_iter().skip_while(|(name, _)| *name != bench).skip(1);
    later.filter(|(name, _)| runs(name)).collect()
}

/// The words of the command that started this program, if that is cargo and the system tells.
fn parent_command() -> Option<Vec<String>> {
    let words = fs::read_to_string(format!("/proc/{}/cmdline", parent_id())).ok()?;
    let words: Vec<_> = words.split_terminator('\0').map(String::from).collect();
    let program = Path::new(words.first()?).file_stem()?;
    (program == "cargo").then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bench: &str, command: &str) -> Vec<&'static str> {
        let words: Vec<_> = command.split_whitespace().map(String::from).collect();
        following(bench, &words).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn benches_follow_in_order() {
        let peers = if cfg!(feature = "peers") { &["peers"][..] } else { &[] };
        assert_eq!(names("forward", "cargo bench"), [&["layers", "ops"], peers].concat());
        assert_eq!(names("ops", "cargo bench -- --bench layers"), peers);
        assert_eq!(names("forward", "cargo bench --bench forward -- --quick"), [""; 0]);
        assert_eq!(names("forward", "cargo bench --bench=ops --bench forward"), ["ops"]);
        assert_eq!(names("unknown", "cargo bench"), [""; 0]);
    }

    #[test]
    fn plans_are_corrected_by_what_is_over() {
        assert_eq!(left(100.0, 0.0, 0.0), 100.0);
        // 45 of 145 seconds took twice as long, of which five are not believed.
        assert_eq!(left(145.0, 45.0, 95.0), 200.0);
    }
}
