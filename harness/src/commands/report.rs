//! `lfm2 report`: the report of what the benches measured.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use lfm2_harness::report::{self, Report, Results};

use super::Failure;
use super::output::print;

/// Makes the report of what `cargo bench` measured again
///
/// Reads the times that Criterion keeps and what the benches say of them, and writes `lfm2-report/index.html`, a page that needs no other
/// file, with `report.json` and `report.md` beside it. Prints the path of the page.
#[derive(Args)]
pub struct ReportArguments {
    /// Cargo's target folder
    #[arg(long, value_name = "FOLDER", default_value = "target")]
    target: PathBuf,

    /// Where the report is written [default: lfm2-report in the target folder]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &ReportArguments) -> Result<ExitCode, Failure> {
    let ReportArguments { target, out } = arguments;
    let out = out.clone().unwrap_or_else(|| report::folder(target));
    let page = Report::of(vec![Results::read(target)?]).write(&out)?;
    print(&format!("{}\n", page.display()))?;
    Ok(ExitCode::SUCCESS)
}
