//! The tables that end a search.

use std::fmt::Write;
use std::path::Path;

use lfm2_harness::ceiling::Bound;
use lfm2_harness::profile::{ProfileFile, users_file};
use lfm2_harness::regression::Estimate;
use lfm2_harness::report::text::{signed, time};
use lfm2_harness::tune::{CaseFinding, Compared, KnobFinding, Limit, Measurements, Start, Verdict};

use crate::commands::output::table;

/// What was found, and where it is.
pub fn of(profile: &ProfileFile, out: &Path) -> String {
    let Measurements { from, knobs, cases } = &profile.measurements;
    let default = match from {
        Start::BuiltIn => "default",
        Start::UnknownCpu => "unknown CPU",
    };
    let header = ["knob", default, "tuned", "gain", ""].map(String::from);
    let rows = [header].into_iter().chain(knobs.iter().map(knob_row));
    let mut text = table(&rows.collect::<Vec<_>>());
    if !cases.is_empty() {
        let header = ["case", default, "tuned", "gain", "of the limit"].map(String::from);
        let rows = [header].into_iter().chain(cases.iter().map(case_row));
        text += "\n";
        text += &table(&rows.collect::<Vec<_>>());
    }
    let out = out.display();
    let _ = match knobs.iter().any(|finding| finding.verdict == Verdict::Faster) {
        false => {
            writeln!(text, "\nnothing was shown to be faster than the defaults: {out} changes none")
        }
        true => writeln!(text, "\n{out} holds what is faster: --profile {out}{}", users_hint()),
    };
    text
}

fn users_hint() -> String {
    let path = users_file();
    path.map_or(String::new(), |path| format!(", or for all runs as {}", path.display()))
}

fn knob_row(finding: &KnobFinding) -> [String; 5] {
    let remark = match finding.verdict {
        Verdict::Undone if let Some(CaseFinding { id, compared }) = &finding.slower => {
            &format!("undone, as {id} is slower: {}", gain(compared.ratio))
        }
        Verdict::Faster => "",
        Verdict::NotFaster => "no other value was shown to be faster",
        Verdict::SlowerElsewhere => "another value is faster, but not for all cases",
        Verdict::Undone => "undone: with all that was taken, a case was slower",
        Verdict::NotShown => "undone: no time to show that no case is slower",
        Verdict::NoTime => "no time",
        Verdict::Unused => "nothing depends on it here",
    };
    let taken = finding.verdict == Verdict::Faster;
    [
        finding.knob.clone(),
        finding.default.to_string(),
        if taken { finding.tuned.to_string() } else { "-".to_string() },
        finding.ratio.filter(|_| taken).map_or("-".to_string(), gain),
        remark.to_string(),
    ]
}

fn case_row(CaseFinding { id, compared }: &CaseFinding) -> [String; 5] {
    let Compared { default_seconds, tuned_seconds, ratio, limit, .. } = *compared;
    let of_limit = limit.map_or("-".to_string(), |Limit { seconds, bound }| {
        let bound = match bound {
            Bound::Compute => "computing",
            Bound::Memory => "reading",
        };
        format!("{:3.0} % {bound}", 100.0 * seconds / tuned_seconds)
    });
    [id.to_string(), time(default_seconds), time(tuned_seconds), gain(ratio), of_limit]
}

/// By how much more is done in the same time, with its interval.
fn gain(ratio: Estimate) -> String {
    let percent = |ratio: f64| signed(100.0 * (1.0 / ratio - 1.0), 1);
    format!("{} % ({} to {})", percent(ratio.mean), percent(ratio.high), percent(ratio.low))
}
