//! A build of this command, which times itself: `lfm2 time`.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lfm2_harness::report::Id;
use lfm2_kernels::Isa;
use regex::escape;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::AbArguments;
use crate::commands::Failure;
use crate::commands::output::SCHEMA_VERSION;
use crate::commands::time::{Timed, Times};

/// A program and what every run of it is asked.
pub struct Program {
    path: PathBuf,
    threads: Option<u32>,
    isas: Vec<Isa>,
    full: bool,
    each: Duration,
    limit: Duration,
    /// Whether it is told to use none: a build that knows none refuses the option.
    has_profiles: Cell<bool>,
}

/// Both programs run under their built-in values, not under a profile that a user has for one of them.
const NO_PROFILE: [&str; 2] = ["--profile", "none"];

#[derive(Deserialize)]
struct Version {
    schema_version: Option<u64>,
}

impl Program {
    pub fn new(path: &Path, arguments: &AbArguments) -> Result<Self, Failure> {
        // Starting what is not there is no error everywhere, but a child that fails.
        if !path.is_file() {
            return Err(format!("{} is no file: expected a build of lfm2", path.display()).into());
        }
        // A bare name would be looked up among the installed programs.
        let path = path.canonicalize()?;
        let (threads, isas, full) =
            (arguments.threads.count(), arguments.choice.isa.clone(), arguments.choice.full);
        Ok(Self {
            path,
            threads,
            isas,
            full,
            each: arguments.each,
            limit: arguments.limit,
            has_profiles: Cell::new(true),
        })
    }

    /// The cases that it has.
    pub fn list(&self, filter: Option<&str>) -> Result<Times, Failure> {
        let filter = filter.into_iter().flat_map(|filter| ["--filter", filter]);
        self.time(filter.chain(["--list"]))
    }

    /// Times just these cases, in this order.
    pub fn measure(&self, ids: &[&Id]) -> Result<(Times, Vec<f64>), Failure> {
        let each = humantime::format_duration(self.each).to_string().replace(' ', "");
        let times = self.time(["--filter", &pattern(ids), "--each", &each])?;
        let of = |id: &&Id| {
            let is_it = |timed: &&Timed| timed.id == **id;
            let value = times.cases.iter().find(is_it).and_then(|timed| timed.value);
            match value.map(|value| value.seconds) {
                Some(seconds) if seconds.is_finite() && seconds > 0.0 => Ok(seconds),
                Some(seconds) => Err(self.failure(&format!("took {seconds} seconds for {id}"))),
                None => Err(self.failure(&format!("named {id}, but did not time it"))),
            }
        };
        let seconds = ids.iter().map(of).collect::<Result<_, _>>()?;
        Ok((times, seconds))
    }

    /// Instructions of a process that runs a case so often on one thread, or why they are not known.
    pub fn instructions(&self, id: &Id, runs: u64) -> Result<u64, String> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
        command.arg(&self.path).args(["time", "--json", "--full", "--threads", "1"]);
        command.args(self.profile());
        command.args(["--isa", &id.isa, "--filter", &pattern(&[id]), "--runs", &runs.to_string()]);
        let output = self.output(command).map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Valgrind's own lines begin with the number of the process.
        let (own, others): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.starts_with("=="));
        if !output.status.success() {
            let error = others.iter().find(|line| line.starts_with("error")).or(own.last());
            let error = error.copied().unwrap_or_default();
            return Err(format!("under valgrind, {}: {error}", output.status));
        }
        let count = own.iter().find_map(|line| line.split_once("refs:"));
        let count = count.and_then(|(_, count)| count.replace(',', "").trim().parse().ok());
        count.ok_or_else(|| format!("valgrind counted nothing: {}", own.join(" ")))
    }

    fn profile(&self) -> &'static [&'static str] {
        if self.has_profiles.get() { &NO_PROFILE } else { &[] }
    }

    fn time<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Result<Times, Failure> {
        let mut command = Command::new(&self.path);
        command.args(["time", "--json"]).args(arguments.clone()).args(self.profile());
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        if !self.isas.is_empty() {
            let names: Vec<_> = self.isas.iter().map(|isa| isa.name()).collect();
            command.args(["--isa", &names.join(",")]);
        }
        if self.full {
            command.arg("--full");
        }
        let output = self.output(command)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            if self.has_profiles.get() && said.contains("unexpected argument '--profile'") {
                self.has_profiles.set(false);
                return self.time(arguments);
            }
            let lines: Vec<_> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n");
            return Err(self.failure(&format!("failed: {}\n{last}", output.status)));
        }
        let expected =
            format!("what `lfm2 time --json` prints with schema version {SCHEMA_VERSION}");
        let unreadable =
            |found: String| self.failure(&format!("printed {found}: expected {expected}"));
        let version: Version = serde_json::from_slice(&output.stdout)
            .map_err(|error| unreadable(format!("no such JSON ({error})")))?;
        match version.schema_version {
            Some(version) if version == u64::from(SCHEMA_VERSION) => {}
            Some(version) => return Err(unreadable(format!("schema version {version}"))),
            None => return Err(unreadable("JSON without schema_version".to_string())),
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| unreadable(format!("JSON without what is needed ({error})")))
    }

    /// What it prints, unless it runs for too long.
    fn output(&self, mut command: Command) -> Result<Output, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| {
            format!("{} cannot be started: {error}", command.get_program().display())
        })?;
        let pid = Pid::from_child(&child);
        let (sender, receiver) = mpsc::channel();
        // A thread that waits, since one that asks again and again would disturb what is timed.
        thread::spawn(move || sender.send(child.wait_with_output()));
        match receiver.recv_timeout(self.limit) {
            Ok(output) => output.map_err(|error| self.failure(&error.to_string())),
            Err(_) => {
                // It may have ended just now.
                let _ = kill_process(pid, Signal::KILL);
                let limit = humantime::format_duration(self.limit);
                Err(self
                    .failure(&format!("was stopped, as it ran for more than {limit}: see --limit")))
            }
        }
    }

    fn failure(&self, what: &str) -> Failure {
        format!("{} {what}", self.path.display()).into()
    }
}

/// What matches just these.
fn pattern(ids: &[&Id]) -> String {
    let names: Vec<_> = ids.iter().map(|id| escape(&id.to_string())).collect();
    format!("^({})$", names.join("|"))
}
