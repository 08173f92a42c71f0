//! `lfm2 time`: what one process finds of how long operations take.

use std::process::ExitCode;
use std::time::Duration;

use clap::value_parser;
use lfm2_harness::ceiling::Work;
use lfm2_harness::machine::Machine;
use lfm2_harness::report::Id;
use lfm2_harness::report::text::time;
use lfm2_harness::workload::layers::{self, Layers};
use lfm2_harness::workload::{Case, Extent, Value, Weights, operations};
use lfm2_kernels::Isa;
use lfm2_kernels::threads::enter;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::output::{print, print_json, table};
use super::profile::ProfileArguments;
use super::settings::{Threads, chosen_isas};
use super::{Failure, progress};

const EXAMPLES: &str = "\
Examples:
  lfm2 time --list                                  what can be timed
  lfm2 time --filter 'rms_norm|rope'                what matches a regular expression
  lfm2 time --full --isa avx2 --filter '^linear/.*/q6_k_int8/1x'
  lfm2 time --filter '^add/' --json                 what `lfm2 ab` asks of both programs";

/// Times operations, with one value of each
///
/// One process is one observation: another one may find other times, with its memory elsewhere and the machine in another mood. Whether one
/// program is slower than another, `lfm2 ab` finds out of many processes, which run this command.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TimeArguments {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    profile: ProfileArguments,
    /// For how long each case runs, such as 50ms; one that takes longer runs three times
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = duration)]
    each: Duration,
    /// How often each case runs, without a run before, instead of for how long
    #[arg(long, value_name = "N", conflicts_with = "each", value_parser = value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// Name the cases instead of timing them
    #[arg(long)]
    list: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Which cases.
#[derive(clap::Args)]
pub struct Choice {
    /// Those whose name, op/isa/format/shape/threads, matches this regular expression
    #[arg(long, value_name = "RE", value_parser = Regex::new)]
    pub filter: Option<Regex>,
    /// Instruction sets, with commas between them [default: this CPU's best]
    #[arg(long, value_name = "ISA", value_delimiter = ',')]
    pub isa: Vec<Isa>,
    /// Every shape and format, not only those that answer the question soon
    #[arg(long)]
    pub full: bool,
}

/// A time that is written like 50ms, from a millisecond on.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_millis(1) => Ok(time),
        Ok(_) => Err("expected at least 1ms".to_string()),
        Err(error) => Err(format!("{error}: expected a time such as 50ms or 2s")),
    }
}

/// What a process says of itself and found.
#[derive(Serialize, Deserialize)]
pub struct Times {
    pub machine: Machine,
    pub cases: Vec<Timed>,
}

#[derive(Serialize, Deserialize)]
pub struct Timed {
    pub id: Id,
    pub work: Work,
    /// Of one run; `None` in a list.
    #[serde(flatten)]
    pub value: Option<Value>,
}

pub fn run(arguments: TimeArguments) -> Result<ExitCode, Failure> {
    arguments.profile.install()?;
    let times = arguments.threads.pool()?.install(|| enter(|| times(&arguments)))?;
    match arguments.json {
        true => print_json(&times)?,
        false => print(&text(&times))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn times(arguments: &TimeArguments) -> Result<Times, Failure> {
    let (weights, layers) = Default::default();
    let cases = arguments.choice.cases(&weights, &layers)?;
    let bar = progress::bar("timing", "cases", if arguments.list { 0 } else { cases.len() });
    let timed = |case: &Case| {
        let value = (!arguments.list).then(|| {
            let mut workload = (case.prepare)();
            let time = |runs| case.time(&mut *workload, runs);
            match arguments.runs {
                None => Value::measure(time, arguments.each),
                Some(runs) => Value::of_runs(runs, time),
            }
        });
        bar.inc(1);
        Ok(Timed { id: case.id().parse()?, work: case.work, value })
    };
    let cases = cases.iter().map(timed).collect::<Result<_, Failure>>()?;
    Ok(Times { machine: Machine::detect(), cases })
}

impl Choice {
    fn cases<'a>(
        &self,
        weights: &'a Weights,
        layers: &'a Layers,
    ) -> Result<Vec<Case<'a>>, Failure> {
        let isas = match self.isa.is_empty() {
            true => vec![Isa::best()],
            false => chosen_isas(&self.isa),
        };
        let (extent, parts) = match self.full {
            true => (Extent::Full, layers::parts(&isas, Extent::Full)),
            false => (Extent::Quick, layers::compared(&isas)),
        };
        let mut cases = operations::cases(&isas, extent, weights);
        cases.extend(parts.into_iter().flatten().map(|part| part.case(layers)));
        let matches = |case: &Case| self.filter.as_ref().is_none_or(|re| re.is_match(&case.id()));
        // What takes the scalar reference seconds must be asked for.
        cases.retain(|case| matches(case) && (self.full || !case.is_too_slow()));
        match (cases.is_empty(), &self.filter) {
            (true, Some(filter)) => {
                let full = if self.full { "" } else { ", and with --full more" };
                Err(format!(
                    "no case matches `{filter}`: lfm2 time --list names those that there are{full}"
                )
                .into())
            }
            _ => Ok(cases),
        }
    }
}

fn text(times: &Times) -> String {
    let row = |Timed { id, value, .. }: &Timed| {
        let [seconds, runs] = match value {
            Some(Value { seconds, runs }) => [time(*seconds), format!("{runs} runs")],
            None => Default::default(),
        };
        [id.to_string(), seconds, runs]
    };
    table(&times.cases.iter().map(row).collect::<Vec<_>>())
}
