//! `lfm2 ab`: whether one build of this command is slower than another.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::value_parser;
use lfm2_harness::machine::{Machine, difference};
use lfm2_harness::regression::{Block, Finding, LEAST_BLOCKS, Outcome, Plan, decide, order};
use lfm2_harness::report::Id;
use serde::Serialize;

use super::output::{OutputFile, print, print_json};
use super::settings::Threads;
use super::time::{Choice, Timed, Times, duration};
use super::{FAILED, Failure, INCONCLUSIVE, progress};

mod counts;
mod program;
mod report;

use counts::Counts;
use program::Program;

const EXAMPLES: &str = "\
Examples:
  lfm2 ab --base old/lfm2 --head target/release/lfm2
  lfm2 ab --base old/lfm2 --head new/lfm2 --filter '^(rms_norm|rope)/' --threads 1
  lfm2 ab --base old/lfm2 --head new/lfm2 --json --markdown summary.md > ab.json
  lfm2 ab --base new/lfm2 --head new/lfm2        how quiet this machine is

Exit status: 0 if nothing is slower, 1 if something is, 2 if they cannot be compared, 3 if the machine was too noisy to say.";

/// Compares the speed of two builds of this program, on this machine, as a gate
///
/// Runs `lfm2 time` of both in processes that take turns, and of the base twice as often: as a control, which must agree with itself. A case is
/// slower if the lower limit of the geometric mean of its ratios is above 5 %, and above three times what the control's noise is, in a
/// second stage that measures again whatever was not clear in the first. What may be 10 % slower, or not, is never green.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct AbArguments {
    /// The build that is compared with
    #[arg(long, value_name = "BIN")]
    base: PathBuf,
    /// The build that may be slower
    #[arg(long, value_name = "BIN")]
    head: PathBuf,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    threads: Threads,
    /// For how long a process runs each case
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = duration)]
    each: Duration,
    /// Blocks of six processes in stage one; stage two has three times as many
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u32).range(LEAST_BLOCKS as i64..=1000))]
    blocks: u32,
    /// Of the order of the processes and of the intervals [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How long a process may run
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    limit: Duration,
    /// Count instructions, too, with valgrind, where it can run the instruction set
    #[arg(long)]
    counts: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Write the table as Markdown, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    outcome: Outcome,
    base: PathBuf,
    head: PathBuf,
    machine: Machine,
    plan: Plan,
    each_seconds: f64,
    cases: Vec<Compared>,
    not_compared: Vec<NotCompared>,
}

#[derive(Serialize)]
struct Compared {
    id: Id,
    #[serde(flatten)]
    finding: Finding,
    /// Of one run, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<Counts>,
}

/// A case that both should have.
#[derive(Debug, PartialEq, Serialize)]
struct NotCompared {
    id: Id,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    OnlyInBase,
    OnlyInHead,
    OtherWork,
}

pub fn run(arguments: &AbArguments) -> Result<ExitCode, Failure> {
    // What cannot be written shows before anything takes long.
    let markdown = arguments.markdown.as_deref().map(OutputFile::create).transpose()?;
    let report = compare(arguments)?;
    match arguments.json {
        true => print_json(&report)?,
        false => print(&report::text(&report))?,
    }
    if let Some(mut file) = markdown {
        file.write_all(report::markdown(&report).as_bytes())?;
        file.finish()?;
    }
    Ok(match report.outcome {
        Outcome::NoRegression => ExitCode::SUCCESS,
        Outcome::Regression => FAILED.into(),
        Outcome::Inconclusive => INCONCLUSIVE.into(),
    })
}

fn compare(arguments: &AbArguments) -> Result<Report, Failure> {
    let [base, head] = [&arguments.base, &arguments.head].map(|path| Program::new(path, arguments));
    let (base, head) = (base?, head?);
    let filter = arguments.choice.filter.as_ref().map(|filter| filter.as_str());
    let (of_base, of_head) = (base.list(filter)?, head.list(filter)?);
    let machine = of_base.machine.clone();
    check_machine(&machine, &of_head)?;
    let (ids, not_compared) = common(of_base.cases, of_head.cases);
    if ids.is_empty() {
        return Err(no_case(&not_compared));
    }

    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let blocks = arguments.blocks as usize;
    let plan = Plan { blocks: [blocks, 3 * blocks], seed };
    let mut random = fastrand::Rng::with_seed(seed);
    let findings = decide(ids.len(), &plan, |stage, cases, count| {
        let chosen: Vec<_> = cases.iter().map(|&case| &ids[case]).collect();
        let doing = if stage == 1 { "stage 1" } else { "stage 2" };
        let bar = progress::bar(doing, "processes", 6 * count);
        let mut blocks = vec![vec![Block::default(); count]; chosen.len()];
        for number in 0..count {
            for (at, arm) in order(&mut random).into_iter().enumerate() {
                let program = if arm.is_head() { &head } else { &base };
                let (times, values) = program.measure(&chosen)?;
                check_machine(&machine, &times)?;
                for (blocks, seconds) in blocks.iter_mut().zip(values) {
                    blocks[number].record(arm, at >= 3, seconds);
                }
                bar.inc(1);
            }
        }
        Ok::<_, Failure>(blocks)
    })?;
    let outcome = Outcome::of(&findings);
    let bar = progress::bar("counting", "cases", if arguments.counts { ids.len() } else { 0 });
    let compared = |(id, finding): (Id, Finding)| {
        let instructions = arguments
            .counts
            .then(|| Counts::of(&base, &head, &id, finding.seconds(|block| block.base)));
        bar.inc(1);
        Compared { id, finding, instructions }
    };
    Ok(Report {
        outcome,
        base: arguments.base.clone(),
        head: arguments.head.clone(),
        machine,
        plan,
        each_seconds: arguments.each.as_secs_f64(),
        cases: ids.into_iter().zip(findings).map(compared).collect(),
        not_compared,
    })
}

/// Times of different machines are not compared: nor those of one that has become another.
fn check_machine(machine: &Machine, times: &Times) -> Result<(), Failure> {
    match difference(machine, &times.machine) {
        None => Ok(()),
        Some(difference) => {
            Err(format!("the programs did not run on the same machine: {difference}").into())
        }
    }
}

/// The cases of both, and the others.
fn common(base: Vec<Timed>, head: Vec<Timed>) -> (Vec<Id>, Vec<NotCompared>) {
    let (mut ids, mut not_compared) = (Vec::new(), Vec::new());
    let mut leave = |id: &Id, why| not_compared.push(NotCompared { id: id.clone(), why });
    let find =
        |cases: &[Timed], id: &Id| cases.iter().find(|case| case.id == *id).map(|case| case.work);
    for case in &base {
        match find(&head, &case.id) {
            None => leave(&case.id, Why::OnlyInBase),
            Some(work) if work != case.work => leave(&case.id, Why::OtherWork),
            Some(_) => ids.push(case.id.clone()),
        }
    }
    for case in head.iter().filter(|case| find(&base, &case.id).is_none()) {
        leave(&case.id, Why::OnlyInHead);
    }
    (ids, not_compared)
}

fn no_case(not_compared: &[NotCompared]) -> Failure {
    let mut message = "no case can be compared: expected both programs to have one".to_string();
    for case in not_compared {
        message += &format!("\n  {}", case.text());
    }
    message.into()
}

impl NotCompared {
    fn text(&self) -> String {
        format!("{} {}", self.id, self.why.text())
    }
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::OnlyInBase => "is only in the base",
            Self::OnlyInHead => "is only in the head",
            Self::OtherWork => "does other work in the head",
        }
    }
}
