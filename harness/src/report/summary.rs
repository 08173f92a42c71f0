//! The summary for a pull request, in Markdown.

use std::fmt::Write;

use super::charts::Family;
use super::growth::{Growth, Part, Phase, Setting};
use super::text::{answer, counted, three_digits, time};
use super::{Report, Results};

/// The summary of a report.
pub fn of(report: &Report) -> String {
    let mut text = "# Conv layer or attention layer?\n".to_string();
    for results in &report.results {
        // A string takes everything.
        let _ = machine(results, &mut text);
    }
    text
}

fn machine(results: &Results, text: &mut String) -> std::fmt::Result {
    write!(text, "\n## {}", results.cpu())?;
    if let Some(Growth { setting: Setting { isa, format, threads }, .. }) = results.growths.first()
    {
        write!(text, ", {isa}, {format}, {}", counted(*threads, "thread"))?;
    }
    text.push_str("\n\n");
    for phase in [Phase::Prefill, Phase::Decode] {
        let Some(growth) = results.growth(phase, Part::Layer) else { continue };
        let (name, lengths) = match phase {
            Phase::Prefill => ("Prefill", "tokens"),
            Phase::Decode => ("Decode", "context"),
        };
        writeln!(text, "**{name}.** {}\n", answer(growth).join(" "))?;
        writeln!(
            text,
            "| {lengths} | conv layer | attention layer | attention / conv |\n|--:|--:|--:|--:|"
        )?;
        for pair in &growth.pairs {
            let [conv, attention] =
                [pair.conv, pair.attention].map(|estimate| time(estimate.seconds));
            let ratio = three_digits(pair.ratio());
            writeln!(text, "| {} | {conv} | {attention} | {ratio} |", pair.length)?;
        }
        text.push('\n');
    }
    writeln!(
        text,
        "| percent of peak | cases | lowest | median | highest |\n|:--|--:|--:|--:|--:|"
    )?;
    for family in Family::ALL {
        let of_family = results.measurements.iter().filter(|one| Family::of(one) == family);
        let mut percents: Vec<_> = of_family.filter_map(|one| one.percent_of_peak).collect();
        percents.sort_by(f64::total_cmp);
        if let (Some(low), Some(high)) = (percents.first(), percents.last()) {
            let (count, median) = (percents.len(), percents[percents.len() / 2]);
            let name = family.name();
            writeln!(text, "| {name} | {count} | {low:.0} % | {median:.0} % | {high:.0} % |")?;
        }
    }
    for warning in &results.warnings {
        write!(text, "\n> {warning}\n")?;
    }
    Ok(())
}
