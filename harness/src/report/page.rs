//! The page: one file that needs no other, nor a script.

use std::time::{Duration, UNIX_EPOCH};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::Size;
use super::charts::palette::dark_rules;
use super::files::Error;
use super::growth::{Growth, Part, Phase, Setting};
use super::manifest::{PeakOf, Run};
use super::text::counted;
use super::{Report, Results, RunPeak};

mod comparisons;
mod facts;
mod growths;
mod limits;
mod machines;
mod shares;
mod table;

const STYLE: &str = include_str!("page/style.css");

/// The page of a report.
pub fn of(report: &Report) -> Result<String, Error> {
    let mut sections = Vec::new();
    for (index, results) in report.results.iter().enumerate() {
        let title = match report.results.len() {
            1 => None,
            _ => Some(format!("{}. {}", index + 1, results.cpu())),
        };
        sections.push(machine(results, title)?);
    }
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "LFM2: conv layer or attention layer" }
                style {
                    (PreEscaped(STYLE))
                    "@media (prefers-color-scheme: dark) {\n" (PreEscaped(dark_rules())) "}"
                }
            }
            body {
                header {
                    p.kicker { "LFM2-350M on the CPU" }
                    h1 { "Conv layer or attention layer?" }
                }
                main {
                    @if report.results.len() > 1 { (machines::section(&report.results)) }
                    @for section in sections { (section) }
                    footer {
                        p { "Made by " code { "lfm2 report" } " of what " code { "cargo bench" } " measured; the numbers are in "
                            code { "report.json" } ", a summary in " code { "report.md" } "." }
                    }
                }
            }
        }
    };
    // A number and its percent sign stay together.
    Ok(page.into_string().replace(" %", "\u{a0}%"))
}

impl Results {
    /// The name of the CPU.
    pub(super) fn cpu(&self) -> String {
        self.machine
            .cpu
            .clone()
            .unwrap_or_else(|| format!("a CPU without a name, {}", self.machine.architecture))
    }

    /// The growths of the setting that the answer is of: that of most lengths.
    pub(super) fn answered(&self) -> impl Iterator<Item = &Growth> {
        let first = self.growths.first();
        let is_it =
            move |growth: &&Growth| first.is_some_and(|first| first.setting == growth.setting);
        self.growths.iter().filter(is_it)
    }

    /// That of a phase and part.
    pub(super) fn growth(&self, phase: Phase, part: Part) -> Option<&Growth> {
        self.answered().find(|growth| (growth.phase, growth.part) == (phase, part))
    }

    /// The highest of what was measured of a peak on the setting that the answer is of.
    pub(super) fn peak(&self, of: PeakOf) -> Option<f64> {
        let Setting { isa, threads, .. } = &self.growths.first()?.setting;
        let is_it = |peak: &&RunPeak| {
            (&peak.peak.isa, peak.peak.threads, peak.peak.of) == (isa, *threads, of)
        };
        let highest = |peak: &RunPeak| peak.peak.after.unwrap_or(0.0).max(peak.peak.before);
        self.peaks.iter().filter(is_it).map(highest).reduce(f64::max)
    }

    /// Reading the largest working set: where weights are read from.
    pub(super) fn memory(&self) -> Option<PeakOf> {
        let all = self.peaks.iter().map(|peak| peak.peak.of);
        all.max_by_key(|of| of.working_set()).filter(|of| of.working_set().is_some())
    }
}

/// A chart in both sizes; the style sheet shows one.
fn figure(
    draw: impl Fn(Size) -> Result<String, Error>,
    caption: Markup,
    command: &str,
) -> Result<Markup, Error> {
    let (wide, narrow) = (draw(Size::WIDE)?, draw(Size::NARROW)?);
    Ok(html! {
        figure {
            (PreEscaped(wide)) (PreEscaped(narrow))
            figcaption { (caption) " " code.command { (command) } }
        }
    })
}

fn machine(results: &Results, title: Option<String>) -> Result<Markup, Error> {
    let answer = growths::answer(results)?;
    let charts = [
        growths::section(results, Phase::Prefill)?,
        growths::section(results, Phase::Decode)?,
        growths::states(results)?,
        shares::section(results)?,
        limits::section(results)?,
    ];
    Ok(html! {
        @if let Some(title) = title { h2.machine { (title) } }
        (setting(results))
        (answer)
        @if !results.warnings.is_empty() {
            div.warnings role="note" {
                strong { "Read with care" }
                ul { @for warning in &results.warnings { li { (warning) } } }
            }
        }
        @for chart in charts { (chart) }
        (comparisons::section(results))
        (facts::section(results))
    })
}

fn setting(results: &Results) -> Markup {
    html! {
        p.setting {
            (results.cpu())
            @if let Some(Growth { setting: Setting { isa, format, threads }, .. }) = results.growths.first() {
                " · " (isa) " · " (format) " · " (counted(*threads, "thread"))
            }
            @if let Some(run) = results.runs.iter().max_by_key(|run| run.began) { " · " span.whole { (date(run)) } }
        }
    }
}

fn date(run: &Run) -> String {
    let began = UNIX_EPOCH + Duration::from_secs(run.began);
    // The day is enough.
    humantime::format_rfc3339_seconds(began).to_string().chars().take(10).collect()
}
