//! The command `lfm2`: what this CPU can run, whether the kernels are right on it, and what a model computes.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

mod commands;

const EXAMPLES: &str = "\
Examples:
  lfm2 isas                                       what this CPU has
  lfm2 check                                      every kernel on every instruction set
  lfm2 golden fixtures/models/*                   whole models against PyTorch
  lfm2 inspect F.gguf                             what a model's file holds
  lfm2 generate --preset 350m --tokens 1,2,3      how fast a model runs, without a download
  lfm2 tune --out profile.json                    what runs fastest on this CPU
  lfm2 ab --base old/lfm2 --head new/lfm2         whether a build is slower than another
  lfm2 bring-up --template sve                    begins a new instruction set

`lfm2 COMMAND --help` explains a command and has examples of it.

Exit status: 0 if all is well, 1 if a check failed, 2 if the command could not do what it was asked, 3 if a comparison was inconclusive.";

/// Reference kernels for LFM2, Liquid AI's language models: the same bits on every instruction set.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    match commands::run(Arguments::parse().command) {
        Ok(status) => status,
        Err(failure) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::from(commands::UNUSABLE)
        }
    }
}
