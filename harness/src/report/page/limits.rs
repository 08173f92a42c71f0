use maud::{Markup, html};

use super::figure;
use crate::ceiling::Bound;
use crate::report::Results;
use crate::report::charts::{self, Family};
use crate::report::files::Error;
use crate::report::growth::{Growth, Setting};
use crate::report::measurement::Measurement;
use crate::report::text::{counted, rate, time};

/// How near each case comes to what the machine can do.
pub fn section(results: &Results) -> Result<Markup, Error> {
    let measurements = &results.measurements;
    let roofline = match results.growths.first() {
        None => html! {},
        Some(Growth { setting: Setting { isa, threads, .. }, .. }) => {
            let drawn: Vec<_> = measurements
                .iter()
                .filter(|one| one.id.isa == *isa && one.id.threads == *threads)
                .filter(|one| one.work.operations > 0)
                .collect();
            figure(
                |size| charts::roofline(&drawn, size),
                html! {
                    "Every case on " (isa) " with " (counted(*threads, "thread")) ", and the roofs that were measured beside them. The slope is of reading what no cache holds; "
                    "operands that a cache holds may lie above it."
                },
                "cargo bench",
            )?
        }
    };
    Ok(html! {
        section {
            h2 { "How close to the limit" }
            p.note {
                "The limit of a case is the longer of two times: that of its operations at the peak of multiply-adds (or of products of bytes or brain floats), and that of reading its operands "
                "from where they are. Peaks are measured beside each case, on as many threads. More than 100 % cannot be, and is marked as a harness error."
            }
            (roofline)
            (furthest(measurements))
            @for family in Family::ALL { (table(family, measurements)) }
        }
    })
}

/// Those that are furthest from their limits, but for what is over before a second thread could help.
fn furthest(measurements: &[Measurement]) -> Markup {
    const COUNT: usize = 8;
    const LEAST_SECONDS: f64 = 20e-6;
    let mut slow: Vec<_> = measurements
        .iter()
        .filter(|one| one.time.seconds > LEAST_SECONDS && one.id.isa != "scalar")
        .collect();
    slow.retain(|one| one.percent_of_peak.is_some());
    slow.sort_by(|a, b| a.percent_of_peak.partial_cmp(&b.percent_of_peak).expect("numbers"));
    slow.truncate(COUNT);
    html! {
        h3 { "Furthest from the limit" }
        p.note { "Of all that take more than " (time(LEAST_SECONDS)) ", the scalar reference aside." }
        (rows(&slow))
    }
}

fn table(family: Family, measurements: &[Measurement]) -> Markup {
    let of_family: Vec<_> = measurements.iter().filter(|one| Family::of(one) == family).collect();
    let mut percents: Vec<_> = of_family.iter().filter_map(|one| one.percent_of_peak).collect();
    percents.sort_by(f64::total_cmp);
    let [first, .., last] = percents[..] else { return html! {} };
    html! {
        details {
            summary {
                (family.name()) span.muted {
                    " · " (of_family.len()) " cases, " (format!("{first:.0} % to {last:.0} %, median {:.0} %", percents[percents.len() / 2]))
                }
            }
            (rows(&of_family))
        }
    }
}

fn rows(measurements: &[&Measurement]) -> Markup {
    html! {
        div.scroll {
            table.limits {
                thead { tr { th { "case" } th { "time" } th { "of peak" } th.bar {} th { "bound by" } th { "op/s" } th { "B/s" } } }
                tbody {
                    @for one in measurements {
                        tr title=(one.id.command()) {
                            th { (one.id) }
                            td { (time(one.time.seconds)) }
                            td { (percent(one)) }
                            td.bar { @if let Some(percent) = one.percent_of_peak { span.(level(percent)) style=(format!("width:{:.1}%", percent.min(100.0))) {} } }
                            td { @match one.bound { Bound::Compute => "computing", Bound::Memory => "reading" } }
                            td { @if one.work.operations > 0 { (rate(one.operations_per_second())) } @else { "–" } }
                            td { (rate(one.bytes_per_second())) }
                        }
                    }
                }
            }
        }
    }
}

fn percent(measurement: &Measurement) -> Markup {
    html! {
        @match measurement.percent_of_peak {
            None => "–",
            Some(percent) if measurement.is_harness_error() => span.bad { (format!("{percent:.0} %")) " harness error" },
            Some(percent) => (format!("{percent:.0} %")),
        }
    }
}

fn level(percent: f64) -> &'static str {
    match percent {
        _ if percent > 100.0 => "error",
        75.0.. => "high",
        40.0.. => "middle",
        _ => "low",
    }
}
