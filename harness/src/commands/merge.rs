//! `lfm2 merge`: what `lfm2 check --json` or `lfm2 report` wrote on several machines, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use lfm2_harness::report;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::{SCHEMA_VERSION, print, print_json, table};
use super::{FAILED, Failure};

/// Lays the results of several machines side by side
///
/// Files that `lfm2 check --json` printed: the hashes of every operation must agree. Results are the same bits on every machine, so hashes
/// that differ are a bug. Exit status: 0 all agree and every check was right, 1 something differs or failed, 2 a file cannot be read.
///
/// Files `report.json` that `cargo bench` or `lfm2 report` wrote: one report of all machines, in a folder of its own. No time of one is
/// divided by that of another.
#[derive(Args)]
pub struct MergeArguments {
    /// Files that `lfm2 check --json` wrote, or `report.json` of benches
    #[arg(value_name = "FILE", num_args = 2.., required = true)]
    files: Vec<PathBuf>,

    /// Print JSON instead of a table, or of the path of a report
    #[arg(long)]
    json: bool,

    /// Where a report of benches is written
    #[arg(long, value_name = "FOLDER", default_value = "lfm2-report")]
    out: PathBuf,
}

/// What is read of a result file.
#[derive(Deserialize)]
struct ResultFile {
    schema_version: u32,
    commit: String,
    is_dirty: bool,
    machine: MachineName,
    isas: Vec<String>,
    hashes: BTreeMap<String, String>,
    is_right: bool,
}

#[derive(Deserialize)]
struct MachineName {
    cpu: Option<String>,
    architecture: String,
}

#[derive(Serialize)]
struct Merged {
    files: Vec<Column>,
    operations: Vec<Row>,
    is_right: bool,
}

#[derive(Serialize)]
struct Column {
    file: String,
    cpu: String,
    architecture: String,
    isas: Vec<String>,
    commit: String,
    is_dirty: bool,
    is_right: bool,
}

#[derive(Serialize)]
struct Row {
    op: String,
    hashes: Vec<Option<String>>,
    agree: bool,
}

/// Compares the files; the exit status says whether they agree.
pub fn run(arguments: MergeArguments) -> Result<ExitCode, Failure> {
    let files = &arguments.files;
    let are_reports = files.iter().map(|path| is_report(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some(other) = are_reports.iter().position(|is_report| *is_report != are_reports[0]) {
        let kind =
            |is_report| if is_report { "a report of benches" } else { "a result of lfm2 check" };
        let [first, other] =
            [0, other].map(|i| format!("{} is {}", files[i].display(), kind(are_reports[i])));
        return Err(format!("{first}, {other}: expected files of one kind").into());
    }
    if are_reports[0] {
        return merge_reports(&arguments);
    }
    let results = arguments.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let merged = merge(&arguments.files, results);
    if arguments.json {
        print_json(&merged)?;
    } else {
        print(&text(&merged))?;
    }
    Ok(if merged.is_right { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Whether the file holds what benches measured. One that holds no JSON at all is left to whoever reads it.
fn is_report(path: &Path) -> Result<bool, Failure> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let content: Result<Value, _> = serde_json::from_reader(BufReader::new(file));
    Ok(content.is_ok_and(|content| content["document"] == report::DOCUMENT))
}

fn merge_reports(arguments: &MergeArguments) -> Result<ExitCode, Failure> {
    let report = report::merge(&arguments.files)?;
    let page = report.write(&arguments.out)?;
    match arguments.json {
        true => print(&(serde_json::to_string_pretty(&report)? + "\n"))?,
        false => print(&format!("{}\n", page.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<ResultFile, Failure> {
    let at = |error: String| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| at(error.to_string()))?;
    let result: ResultFile = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| at(format!("not a result of lfm2 check --json: {error}")))?;
    if result.schema_version != SCHEMA_VERSION {
        let version = result.schema_version;
        return Err(at(format!("schema version {version}, expected {SCHEMA_VERSION}")).into());
    }
    Ok(result)
}

fn merge(paths: &[PathBuf], results: Vec<ResultFile>) -> Merged {
    let ops: BTreeSet<&String> = results.iter().flat_map(|result| result.hashes.keys()).collect();
    let row = |op: &String| {
        let hashes: Vec<_> = results.iter().map(|result| result.hashes.get(op).cloned()).collect();
        // An operation that one machine did not check does not agree.
        let agree = hashes.iter().all(|hash| hash.is_some() && *hash == hashes[0]);
        Row { op: op.clone(), hashes, agree }
    };
    let operations: Vec<Row> = ops.into_iter().map(row).collect();
    let column = |(path, result): (&PathBuf, ResultFile)| Column {
        file: path.display().to_string(),
        cpu: result.machine.cpu.unwrap_or_else(|| "unknown".into()),
        architecture: result.machine.architecture,
        isas: result.isas,
        commit: result.commit,
        is_dirty: result.is_dirty,
        is_right: result.is_right,
    };
    let files: Vec<Column> = paths.iter().zip(results).map(column).collect();
    let is_right = !operations.is_empty()
        && operations.iter().all(|row| row.agree)
        && files.iter().all(|file| file.is_right);
    Merged { files, operations, is_right }
}

fn text(merged: &Merged) -> String {
    let mut text = String::new();
    for (i, file) in merged.files.iter().enumerate() {
        let Column { cpu, architecture, isas, commit, is_dirty, is_right, file } = file;
        let dirty = if *is_dirty { " and changes" } else { "" };
        let verdict = if *is_right { "ok" } else { "FAILED" };
        text += &format!(
            "[{}] {file}: {cpu}, {architecture}: {}; commit {commit}{dirty}: {verdict}\n",
            i + 1,
            isas.join(", ")
        );
    }
    text.push('\n');
    let mut rows = vec![["operation".to_string(), "hashes".into(), String::new()]];
    for Row { op, hashes, agree } in &merged.operations {
        let shown = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "not checked".into());
        let hashes: Vec<String> = match agree {
            true => vec![shown(&hashes[0])],
            false => hashes.iter().map(shown).collect(),
        };
        rows.push([op.clone(), hashes.join(" "), if *agree { "ok" } else { "DIFFERS" }.into()]);
    }
    text + &table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(pairs: &[(&str, &str)], is_right: bool) -> ResultFile {
        ResultFile {
            schema_version: SCHEMA_VERSION,
            commit: "c".into(),
            is_dirty: false,
            machine: MachineName { cpu: None, architecture: "a".into() },
            isas: vec!["scalar".into()],
            hashes: pairs.iter().map(|(op, hash)| (op.to_string(), hash.to_string())).collect(),
            is_right,
        }
    }

    fn is_right(results: Vec<ResultFile>) -> bool {
        merge(&vec![PathBuf::from("f"); results.len()], results).is_right
    }

    #[test]
    fn only_equal_hashes_of_right_results_agree() {
        let one = || result(&[("add", "1"), ("rope", "2")], true);
        assert!(is_right(vec![one(), one(), one()]));
        assert!(!is_right(vec![one(), result(&[("add", "1"), ("rope", "3")], true)]));
        assert!(!is_right(vec![one(), result(&[("add", "1")], true)]));
        assert!(!is_right(vec![one(), result(&[("add", "1"), ("rope", "2")], false)]));
        assert!(!is_right(vec![result(&[], true), result(&[], true)]));
    }
}
