//! The subcommands, one file each, and what they share.

use std::error::Error;
use std::process::ExitCode;

use clap::Subcommand;

mod ab;
mod bring_up;
mod check;
mod faults;
mod generate;
mod golden;
mod inspect;
mod isas;
mod logits;
mod merge;
mod quantize;
mod report;
mod scaling;
mod time;
mod tune;
mod versus;

mod checkpoint;
mod exhaustive;
mod output;
mod profile;
mod progress;
mod settings;
mod tokens;

/// Why a command could not do what it was asked. The message says what is wrong, where, and what would be right.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The exit status of a check that failed.
pub const FAILED: u8 = 1;

/// The exit status of a command that could not do what it was asked.
pub const UNUSABLE: u8 = 2;

/// The exit status of a comparison that found the machine too noisy.
pub const INCONCLUSIVE: u8 = 3;

#[derive(Subcommand)]
pub enum Command {
    Isas(isas::IsasArguments),
    Check(check::CheckArguments),
    Faults(faults::FaultsArguments),
    Merge(merge::MergeArguments),
    Golden(golden::GoldenArguments),
    Inspect(inspect::InspectArguments),
    Logits(logits::LogitsArguments),
    Generate(generate::GenerateArguments),
    Quantize(quantize::QuantizeArguments),
    Report(report::ReportArguments),
    Versus(versus::VersusArguments),
    Time(time::TimeArguments),
    Ab(ab::AbArguments),
    Tune(tune::TuneArguments),
    Scaling(scaling::ScalingArguments),
    BringUp(bring_up::BringUpArguments),
}

pub fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Isas(arguments) => isas::run(arguments),
        Command::Check(arguments) => {
            check::run(arguments).map_err(|failure| failure.to_string().into())
        }
        Command::Faults(arguments) => faults::run(&arguments),
        Command::Merge(arguments) => merge::run(arguments),
        Command::Golden(arguments) => golden::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Logits(arguments) => logits::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Versus(arguments) => versus::run(arguments),
        Command::Time(arguments) => time::run(arguments),
        Command::Ab(arguments) => ab::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Scaling(arguments) => scaling::run(&arguments),
        Command::BringUp(arguments) => bring_up::run(&arguments),
    }
}
