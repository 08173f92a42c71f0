use maud::{Markup, html};

use super::table::table;
use crate::report::Results;
use crate::report::crossing::Crossing;
use crate::report::growth::{Growth, Part, Phase, Setting};
use crate::report::manifest::PeakOf;
use crate::report::text::{self, about, bytes, counted, three_digits};

/// The answers of several machines. Nothing is computed of two of them.
pub fn section(all: &[Results]) -> Markup {
    let layer = |results: &Results, phase| results.growth(phase, Part::Layer).cloned();
    let crossing = |growth: Option<Growth>| match growth.map(|growth| growth.crossing) {
        Some(Crossing::At { length, low, high, .. }) => {
            format!("{} ({} to {})", about(length), about(low), about(high))
        }
        Some(Crossing::AttentionCostsMore) => "none in range: attention costs more".to_string(),
        Some(Crossing::AttentionCostsLess) => "none in range: attention costs less".to_string(),
        Some(Crossing::Equal) => "everywhere".to_string(),
        Some(Crossing::Unknown) | None => "not measured".to_string(),
    };
    let missing = || "not measured".to_string();
    let answer = |growth: Option<Growth>| {
        growth.map_or_else(missing, |growth| {
            let pair = growth.answer();
            format!("{} at {}", three_digits(pair.ratio()), pair.length)
        })
    };
    let setting = |results: &Results| {
        results.growths.first().map_or_else(
            missing,
            |Growth { setting: Setting { isa, format, threads }, .. }| {
                format!("{isa}, {format}, {}", counted(*threads, "thread"))
            },
        )
    };
    let rate = |results: &Results, of| results.peak(of).map(|peak| text::peak_rate(of, peak));
    let memory = |results: &Results| {
        let of = results.memory()?;
        Some(format!("{} ({})", rate(results, of)?, bytes(of.working_set()?)))
    };
    type Cell<'a> = Box<dyn Fn(&Results) -> String + 'a>;
    let rows: [(&str, Cell); 7] = [
        ("setting", Box::new(setting)),
        ("prefill: attention / conv", Box::new(|results| answer(layer(results, Phase::Prefill)))),
        ("prefill: the same at", Box::new(|results| crossing(layer(results, Phase::Prefill)))),
        ("decode: attention / conv", Box::new(|results| answer(layer(results, Phase::Decode)))),
        ("decode: the same at", Box::new(|results| crossing(layer(results, Phase::Decode)))),
        (
            "multiply-adds",
            Box::new(|results| rate(results, PeakOf::MultiplyAdd).unwrap_or_else(missing)),
        ),
        ("reading memory", Box::new(|results| memory(results).unwrap_or_else(missing))),
    ];
    let names = all.iter().enumerate().map(|(index, one)| format!("{}. {}", index + 1, one.cpu()));
    let names: Vec<_> = names.collect();
    let heads: Vec<_> = [""].into_iter().chain(names.iter().map(String::as_str)).collect();
    let rows = rows.iter().map(|(name, cell)| {
        let cells = all.iter().map(|results| html! { (cell(results)) });
        [html! { (name) }].into_iter().chain(cells).collect()
    });
    html! {
        section {
            h2 { "Machines side by side" }
            (table(&heads, rows))
        }
    }
}
