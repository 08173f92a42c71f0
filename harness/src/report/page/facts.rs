use maud::{Markup, html};

use super::date;
use super::table::table;
use crate::report::manifest::Peak;
use crate::report::text::{self, bytes, time};
use crate::report::{Results, RunPeak};

/// The machine, the runs, and what it can do at most.
pub fn section(results: &Results) -> Markup {
    let machine = &results.machine;
    let features: Vec<_> = machine
        .features
        .iter()
        .filter(|feature| feature.present)
        .map(|feature| feature.name.as_str())
        .collect();
    let caches: Vec<_> = machine
        .caches
        .iter()
        .filter(|cache| cache.kind != "Instruction")
        .map(|cache| format!("level {}: {}", cache.level, bytes(cache.bytes)))
        .collect();
    let unknown = || "not known".to_string();
    let rows = [
        ("CPU", format!("{} ({})", results.cpu(), machine.architecture)),
        ("features", features.join(", ")),
        ("cores", machine.cores.map_or_else(unknown, |cores| cores.to_string())),
        ("threads", machine.threads.to_string()),
        ("caches", if caches.is_empty() { unknown() } else { caches.join(", ") }),
        ("memory", machine.memory_bytes.map_or_else(unknown, bytes)),
        ("governor", machine.governor.clone().unwrap_or_else(unknown)),
    ];
    html! {
        section {
            h2 { "The machine" }
            dl { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } }
            h3 { "Runs" }
            (runs(results))
            h3 { "What it can do at most" }
            p.note { "Measured when each run began and when it ended, on as many threads. " code.command { "cargo bench" } }
            details { summary { "Peaks before and after" } (peaks(results)) }
        }
    }
}

fn runs(results: &Results) -> Markup {
    let heads =
        ["bench", "began", "took", "extent", "threads", "others' load", "commit", "compiler"];
    let rows = results.runs.iter().map(|run| {
        vec![
            html! { (run.bench) @if !run.is_complete { " (interrupted)" } },
            html! { (date(run)) },
            html! { (time(run.seconds.ceil())) },
            html! { (run.extent) @if run.is_filtered { ", filtered" } },
            html! { (run.threads) },
            html! { @match run.others { Some(others) => (format!("{:.0} %", 100.0 * others)), None => "not known" } },
            html! { (run.commit) @if run.is_dirty { " and changes" } },
            // Without what is in parentheses.
            html! { (run.compiler.split(" (").next().unwrap_or_default()) },
        ]
    });
    table(&heads, rows)
}

fn peaks(results: &Results) -> Markup {
    let heads = ["peak", "isa", "threads", "bench", "before", "after", "drift"];
    let rows = results.peaks.iter().map(|RunPeak { bench, peak }| {
        vec![
            html! { (text::peak(peak.of)) },
            html! { (peak.isa) },
            html! { (peak.threads) },
            html! { (bench) },
            html! { (text::peak_rate(peak.of, peak.before)) },
            html! { @match peak.after { Some(after) => (text::peak_rate(peak.of, after)), None => "–" } },
            html! {
                @match peak.drift() {
                    Some(drift) => span.bad[drift.abs() > Peak::DRIFT] { (text::signed(drift, 0)) " %" },
                    None => "–",
                }
            },
        ]
    });
    table(&heads, rows)
}
