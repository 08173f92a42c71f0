//! What `lfm2 ab` says: a table for people, and one for comments of pull requests.

use lfm2_harness::regression::{CONTROL, Estimate, Outcome, Verdict, WORTH_SEEING};
use lfm2_harness::report::Id;
use lfm2_harness::report::text::time;

use super::{Compared, Counts, Report};
use crate::commands::output::{counted, table};

const COLUMNS: [&str; 7] = ["case", "base", "head", "ratio", "control", "threshold", ""];

/// The last column, where instructions were counted.
const INSTRUCTIONS: &str = "instructions";

pub fn text(report: &Report) -> String {
    let rows = [header(report)].into_iter().chain(report.cases.iter().map(row));
    let mut text = table(&rows.collect::<Vec<_>>());
    for (id, none) in not_counted(report) {
        text += &format!("no counts of {id}: {none}\n");
    }
    for case in &report.not_compared {
        text += &format!("not compared: {}\n", case.text());
    }
    text + &conclusion(report) + "\n"
}

pub fn markdown(report: &Report) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("**{}**\n\n", conclusion(report));
    let header = header(report);
    text += &line(&header);
    text += &line(&vec!["---".to_string(); header.len()]);
    for case in &report.cases {
        let mut cells = row(case);
        cells[0] = format!("`{}`", cells[0]);
        text += &line(&cells);
    }
    for (id, none) in not_counted(report) {
        text += &format!("\nNo counts of `{id}`: {none}.\n");
    }
    for case in &report.not_compared {
        text += &format!("\nNot compared: `{}` {}.\n", case.id, case.why.text());
    }
    let machine = &report.machine;
    let unknown = || "unknown CPU".to_string();
    text + &format!(
        "\nRatio: how many times as long the head takes, geometric mean (95 % interval). Control: the base against itself. {}, {} threads, seed {}.\n",
        machine.cpu.clone().unwrap_or_else(unknown),
        machine.threads,
        report.plan.seed,
    )
}

fn header(report: &Report) -> Vec<String> {
    let counts = report.cases.iter().any(|case| case.instructions.is_some());
    COLUMNS.into_iter().chain(counts.then_some(INSTRUCTIONS)).map(String::from).collect()
}

fn not_counted(report: &Report) -> impl Iterator<Item = (&Id, &str)> {
    report.cases.iter().filter_map(|case| match &case.instructions {
        Some(Counts::None { none }) => Some((&case.id, none.as_str())),
        _ => None,
    })
}

fn row(case: &Compared) -> Vec<String> {
    let finding = &case.finding;
    let ratio =
        |Estimate { mean, low, high, .. }: &Estimate| format!("{mean:.3} ({low:.3} to {high:.3})");
    let cells = [
        case.id.to_string(),
        time(finding.seconds(|block| block.base)),
        time(finding.seconds(|block| block.head)),
        ratio(&finding.ratio),
        ratio(&finding.control),
        format!("{:.3}", 1.0 + finding.threshold),
        verdict(finding.verdict).to_string(),
    ];
    cells.into_iter().chain(case.instructions.as_ref().map(Counts::text)).collect()
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NoRegression => "not slower",
        Verdict::Faster => "faster",
        Verdict::Regression => "SLOWER",
        Verdict::TooNoisy => "too noisy",
        Verdict::ControlDisagrees => "control disagrees",
    }
}

fn conclusion(report: &Report) -> String {
    let number = |wanted| report.cases.iter().filter(|case| case.finding.verdict == wanted).count();
    let [slower, disagreeing, noisy] =
        [Verdict::Regression, Verdict::ControlDisagrees, Verdict::TooNoisy].map(number);
    let all = counted(report.cases.len(), "case");
    match report.outcome {
        Outcome::NoRegression => format!("no regression in {all}"),
        Outcome::Regression => format!("regression: the head is slower in {slower} of {all}"),
        Outcome::Inconclusive if disagreeing > 0 => format!(
            "inconclusive: the base differs from itself by more than {} % in {}",
            100.0 * CONTROL,
            counted(disagreeing, "case"),
        ),
        Outcome::Inconclusive => format!(
            "inconclusive: {} too noisy to see whether they are {} % slower; run again on a quieter machine, or with more --blocks",
            counted(noisy, "case"),
            100.0 * WORTH_SEEING,
        ),
    }
}
