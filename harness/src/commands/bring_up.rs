//! `lfm2 bring-up`: what an engineer with a new instruction set needs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use lfm2_harness::check::DEFAULT_SEED;
use lfm2_harness::gate::Judges;
use lfm2_harness::hashes::Hashes;
use lfm2_harness::plan::{Cases, DEFAULT_CASES};
use lfm2_harness::self_test::self_test;
use lfm2_harness::verbs::{self, TRIALS};
use lfm2_harness::witness;
use lfm2_kernels::Isa;
use lfm2_kernels::simd::IsaError;
use lfm2_kernels::simd::verbs::VERBS;

use self::stages::Stage;
use self::template::template;
use super::check::{Results, check_all, text};
use super::output::{OutputFile, counted, print};
use super::{FAILED, Failure};

mod stages;
mod template;

const EXAMPLES: &str = "\
Examples:
  lfm2 bring-up --template sve --out kernels/src/simd/sve.rs   a file to begin with
  lfm2 bring-up --isa sve --until lanes                        after each verb that is written
  lfm2 bring-up --isa sve                                      when all of them are

kernels/docs/bring-up.md goes through it step by step.

Exit status: 0 if all that was asked for is right, 1 if something is wrong, 2 if the question makes no sense.";

/// Brings an instruction set up: prints a file to begin with, or finds the first thing that is wrong with it
///
/// The checks are those of `lfm2 check`, in an order in which what fails first explains what would fail later: each verb of the lanes by itself,
/// then operations on single elements, reductions, linear layers, attention and convolutions, whole models. It stops after the first
/// stage that is not right.
#[derive(Args)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("what").args(["isa", "template"]).required(true)))]
pub struct BringUpArguments {
    /// The instruction set to look at
    #[arg(long, value_name = "ISA")]
    isa: Option<String>,

    /// Print the file of a new instruction set of that name, which is right and slow
    #[arg(long, value_name = "NAME")]
    template: Option<String>,

    /// Where that file goes, if not to standard output; one that exists is refused
    #[arg(long, value_name = "FILE", requires = "template")]
    out: Option<PathBuf>,

    /// Stop after this stage
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = Stage::Model, conflicts_with = "template")]
    until: Stage,

    /// Random cases for each operation, after the shapes that are always checked
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CASES, conflicts_with = "template")]
    cases: u32,
}

pub fn run(arguments: &BringUpArguments) -> Result<ExitCode, Failure> {
    if let Some(name) = &arguments.template {
        write(&template(name)?, arguments.out.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    let isa = instruction_set(arguments.isa.as_deref().unwrap_or_default())?;
    // A crash must name its verb or its case.
    if let Some(status) = witness::supervise(FAILED) {
        return Ok(status);
    }
    self_test(&Judges::OURS).map_err(|error| format!("the gate itself is broken: {error}"))?;
    let kept = Hashes::kept()?;
    for stage in Stage::ALL.into_iter().filter(|stage| *stage <= arguments.until) {
        if !run_stage(stage, isa, arguments.cases.into(), &kept)? {
            print(&format!("\n{}", stage.advice(isa)))?;
            return Ok(ExitCode::from(FAILED));
        }
    }
    print(&match arguments.until {
        Stage::Model => next_steps(isa),
        until => format!("{isa} is right until here, {until}: lfm2 bring-up --isa {isa}\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a stage and prints what came of it; returns whether it is right.
fn run_stage(stage: Stage, isa: Isa, cases: Cases, kept: &Hashes) -> Result<bool, Failure> {
    print(&format!("{stage}: {}\n", stage.about()))?;
    if stage == Stage::Lanes {
        // First without instructions for dot products. Operations go both ways anyway.
        for isa in isa.without_dots().into_iter().chain([isa]) {
            match verbs::check(VERBS, isa) {
                Ok(count) => print(&format!(
                    "{:18} {:>11}  {TRIALS:>7} ok      {isa}\n",
                    counted(count, "verb"),
                    "exact"
                ))?,
                Err(wrong) => {
                    print(&format!("\nFAILED {wrong}\n"))?;
                    return Ok(false);
                }
            }
        }
        print("\n")?;
        return Ok(true);
    }
    let reports = check_all(&stage.ops(), &[isa], cases, DEFAULT_SEED);
    let results = Results::new(&reports, kept, false);
    print(&(text(&[isa], &results) + "\n"))?;
    Ok(results.is_right())
}

fn instruction_set(name: &str) -> Result<Isa, Failure> {
    match name.parse() {
        Ok(Isa::Scalar(_)) => {
            Err("scalar is what the others are compared with: lfm2 check --isa scalar".into())
        }
        Ok(isa) => Ok(isa),
        Err(error @ IsaError::Unknown { .. }) => {
            Err(format!("{error}; lfm2 bring-up --template NAME begins a new one").into())
        }
        Err(error) => Err(error.into()),
    }
}

fn write(text: &str, out: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = out else { return print(text) };
    if path.symlink_metadata().is_ok() {
        let path = path.display();
        return Err(format!("{path} exists: a template is written to a new file").into());
    }
    let mut file = OutputFile::create(path)?;
    file.write_all(text.as_bytes())?;
    file.finish()
}

fn next_steps(isa: Isa) -> String {
    format!(
        "\
{isa} is right. Next, from the folder of the source tree:

  .ci/check-inlining target/release/lfm2                                no intrinsic is left as a call, which is right and slow
  EXPECT_ISAS=scalar,{isa} cargo test                                   it takes part in every test
  cargo run --release --features faults --bin lfm2 -- faults --isa {isa}   the gate would have seen bugs in it
  lfm2 time --isa scalar,{isa} --filter '^linear/.*/1x'                 what it is worth
  lfm2 tune --isa {isa} --out profile.json                              which sizes of blocks are fastest
  cargo bench -- --isa {isa}                                            how near it comes to what the CPU can do
  lfm2 ab --base OLD --head target/release/lfm2 --isa {isa}             whether a change made it slower
"
    )
}
