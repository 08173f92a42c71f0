use maud::{Markup, html};

use crate::report::Results;
use crate::report::comparison::{By, Comparison};
use crate::report::text::{three_digits, time};

/// One instruction set, format or number of threads against another.
pub fn section(results: &Results) -> Markup {
    if results.comparisons.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "One against another" }
            p.note { "How many times as fast as the first of each row. " code.command { "cargo bench" } }
            (table(results, By::Isa, "Instruction sets", "cargo bench -- --isa all"))
            (table(results, By::Format, "Formats", "cargo bench -- --full"))
            (table(results, By::Threads, "Threads", "cargo bench -- --threads N"))
        }
    }
}

fn table(results: &Results, by: By, title: &str, command: &str) -> Markup {
    let comparisons: Vec<_> =
        results.comparisons.iter().filter(|comparison| comparison.by == by).collect();
    let is_layer = |comparison: &&Comparison| {
        ["model/", "conv_layer/", "attention_layer/"]
            .iter()
            .any(|op| comparison.common.starts_with(op))
    };
    let (layers, operations): (Vec<_>, Vec<_>) = comparisons.into_iter().partition(is_layer);
    html! {
        h3 { (title) }
        @if layers.is_empty() && operations.is_empty() {
            p.note { "Only one was measured. " code.command { (command) } }
        }
        (rows(&layers))
        @if !operations.is_empty() {
            details {
                summary { "operations" span.muted { " · " (operations.len()) " cases" } }
                (rows(&operations))
            }
        }
    }
}

fn rows(comparisons: &[&Comparison]) -> Markup {
    html! {
        @if !comparisons.is_empty() {
            ul.compared {
                @for comparison in comparisons {
                    @let fastest = comparison.entries.iter().map(|entry| entry.times_as_fast).fold(0.0, f64::max);
                    li {
                        code { (comparison.common) }
                        @for entry in &comparison.entries {
                            div.entry {
                                span.name { (entry.name) }
                                span.bar { span style=(format!("width:{:.1}%", 100.0 * entry.times_as_fast / fastest)) {} }
                                span.value { (three_digits(entry.times_as_fast)) "×" }
                                span.value.muted { (time(entry.seconds)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
