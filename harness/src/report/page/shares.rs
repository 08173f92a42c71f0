use maud::{Markup, html};

use super::figure;
use crate::report::Results;
use crate::report::breakdown::{Breakdown, Whole};
use crate::report::charts;
use crate::report::files::Error;
use crate::report::growth::Phase;
use crate::report::text::time;

/// Where the time goes.
pub fn section(results: &Results) -> Result<Markup, Error> {
    let mut figures = Vec::new();
    for of in [Whole::ConvLayer, Whole::AttentionLayer, Whole::Model] {
        for phase in [Phase::Prefill, Phase::Decode] {
            let breakdowns: Vec<_> = results
                .breakdowns
                .iter()
                .filter(|breakdown| (breakdown.of, breakdown.phase) == (of, phase))
                .collect();
            if breakdowns.is_empty() {
                continue;
            }
            let name = name(of, phase);
            let chart = figure(
                |size| charts::bars(&breakdowns, name, size),
                html! { (sums(&breakdowns)) },
                "cargo bench --bench layers --bench ops --bench forward",
            )?;
            figures.push(html! { h3 { (name) } (chart) });
        }
    }
    if figures.is_empty() {
        return Ok(html! {
            section {
                h2 { "Where the time goes" }
                p.note { "Operations and layers were not both measured. " code.command { "cargo bench" } }
            }
        });
    }
    Ok(html! {
        section {
            h2 { "Where the time goes" }
            p.note {
                "Nothing is timed inside of a layer: the parts are the operations by themselves, as often as the layer runs them. Bars are shares of their sum, by length."
            }
            @for figure in figures { (figure) }
        }
    })
}

fn name(of: Whole, phase: Phase) -> &'static str {
    match (of, phase) {
        (Whole::ConvLayer, Phase::Prefill) => "Conv layer, prefill",
        (Whole::ConvLayer, Phase::Decode) => "Conv layer, decode",
        (Whole::AttentionLayer, Phase::Prefill) => "Attention layer, prefill",
        (Whole::AttentionLayer, Phase::Decode) => "Attention layer, decode",
        (Whole::Model, Phase::Prefill) => "Whole model, prefill",
        (Whole::Model, Phase::Decode) => "Whole model, decode",
    }
}

/// What the parts add up to, beside what the whole takes.
fn sums(breakdowns: &[&Breakdown]) -> Markup {
    let measured = breakdowns.iter().filter_map(|breakdown| Some((breakdown, breakdown.measured?)));
    let of_whole: Vec<_> = measured
        .map(|(breakdown, whole)| {
            format!(
                "{:.0} % of the {} measured at {}",
                100.0 * breakdown.sum / whole,
                time(whole),
                breakdown.length
            )
        })
        .collect();
    html! {
        @if of_whole.is_empty() { "The whole was not measured at these lengths." }
        @else { "The parts add up to " (of_whole.join(", ")) "." }
    }
}
