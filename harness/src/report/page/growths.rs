use maud::{Markup, html};

use super::figure;
use super::table::table;
use crate::report::Results;
use crate::report::charts;
use crate::report::files::Error;
use crate::report::fit::Fit;
use crate::report::growth::{Curve, Growth, Part, Phase};
use crate::report::text::{self, about, three_digits, time};

/// The answer, and the chart of it.
pub fn answer(results: &Results) -> Result<Markup, Error> {
    let phases = [Phase::Prefill, Phase::Decode];
    let layers: Vec<_> =
        phases.iter().filter_map(|phase| results.growth(*phase, Part::Layer)).collect();
    let Some(first) = layers.first() else {
        return Ok(html! {
            section.answer {
                p { "Conv and attention layers were not measured together. " code.command { "cargo bench --bench layers" } }
            }
        });
    };
    let [cost, crossing] = text::answer(first);
    let ratios = figure(
        |size| charts::ratios(&layers, size),
        html! { "What an attention layer costs, as a multiple of what a conv layer costs at the same length." },
        "cargo bench --bench layers",
    )?;
    Ok(html! {
        section.answer {
            p.lead { @if first.phase == Phase::Decode { strong { "Decode. " } } (cost) " " (crossing) }
            @for other in &layers[1..] {
                @let [cost, crossing] = text::answer(other);
                p { strong { "Decode. " } (cost) " " (crossing) }
            }
            p.note { "A layer is norm, projections, mixer, output projection and residual, without the feed-forward that both kinds have alike." }
            (ratios)
        }
    })
}

/// Times against the length in one phase.
pub fn section(results: &Results, phase: Phase) -> Result<Markup, Error> {
    let growths: Vec<_> = results.answered().filter(|growth| growth.phase == phase).collect();
    if growths.is_empty() {
        return Ok(html! {});
    }
    let (title, what) = match phase {
        Phase::Prefill => ("Prefill", "a prompt of that many tokens"),
        Phase::Decode => ("Decode", "one token after that many"),
    };
    let has_fits = growths.iter().any(|growth| growth.conv.fit.is_some());
    let chart = figure(
        |size| charts::growth(&growths, size),
        html! {
            "Points: the median time of " (what) ", with a line through it as long as its 95 % confidence interval."
            @if has_fits { " Curves: the fits below, each in the band that 95 % of the fits lie in which noise could have made." }
        },
        "cargo bench --bench layers",
    )?;
    Ok(html! {
        section {
            h2 { (title) }
            (chart)
            (times(&growths))
            (fits(&growths))
        }
    })
}

fn times(growths: &[&Growth]) -> Markup {
    let growth = growths[0];
    let rows = growth.pairs.iter().map(|pair| {
        vec![
            html! { (pair.length) },
            html! { (time(pair.conv.seconds)) },
            html! { (fitted(&growth.conv, pair.length)) },
            html! { (time(pair.attention.seconds)) },
            html! { (fitted(&growth.attention, pair.length)) },
            html! { (three_digits(pair.ratio())) },
        ]
    });
    let heads =
        ["length", "conv layer", "by its fit", "attention layer", "by its fit", "attention / conv"];
    html! {
        details {
            summary { "Times of each length" }
            (table(&heads, rows))
        }
    }
}

/// What the fit says of a length, and its band.
fn fitted(curve: &Curve, length: usize) -> String {
    let band = curve.band.iter().find(|band| band.length == length as f64);
    band.map_or_else(
        || "–".to_string(),
        |band| {
            let [seconds, low, high] = [band.seconds, band.low, band.high].map(time);
            format!("{seconds} ({low} to {high})")
        },
    )
}

fn fits(growths: &[&Growth]) -> Markup {
    let curves = growths.iter().flat_map(|growth| {
        let part = if growth.part == Part::Layer { "layer" } else { "mixer" };
        [(format!("conv {part}"), &growth.conv), (format!("attention {part}"), &growth.attention)]
    });
    let is_quadratic = growths[0].phase == Phase::Prefill;
    let mut heads =
        vec!["fit", "per call", "per token", "exponent at the long end", "held-out length"];
    if is_quadratic {
        heads.insert(3, "per pair of tokens");
    }
    let rows = curves.map(|(name, curve)| {
        let of_fit = |part: fn(&Fit) -> f64| match &curve.fit {
            Some(fit) => html! { (term(part(fit))) },
            None => html! { "too few lengths" },
        };
        let mut cells =
            vec![html! { (name) }, of_fit(|fit| fit.constant), of_fit(|fit| fit.linear)];
        if is_quadratic {
            cells.push(of_fit(|fit| fit.quadratic));
        }
        cells.extend([exponent(curve), held_out(curve)]);
        cells
    });
    html! {
        (table(&heads, rows))
        @for growth in growths {
            p.note {
                @if growth.part == Part::Layer { "Whole layers: " } @else { "Mixers alone: " }
                (text::crossing(growth))
                @if let Some(length) = growth.fits_cross { " The fits cross at about " (about(length)) "." }
            }
        }
        details {
            summary { "How these are found" }
            p.note {
                (order(growths)) " Fits are t = a + bT + cT², of least squared relative errors, no part below 0. Their bands are of 400 fits to times drawn about the fit, "
                "as far from it as each time's standard error says, or as all times lie about it, whichever is farther. The exponent is that of the last three lengths. The held-out "
                "length is predicted by a fit without it. Where both cost the same is found on straight lines between measured lengths, in logarithms; its interval holds the noise of each time within the run, "
                "not what another run would make of it."
            }
        }
    }
}

/// How times came to be comparable.
fn order(growths: &[&Growth]) -> &'static str {
    if growths.iter().all(|growth| growth.took_turns) {
        "Both kinds at all lengths took turns, in twenty rounds (ten for what takes long): when memory changes its speed, it does so for all of them, and does not bend the curves."
    } else {
        "Lengths were measured one after the other: memory that changes its speed meanwhile bends the curves."
    }
}

fn exponent(curve: &Curve) -> Markup {
    html! {
        @match curve.exponent {
            Some(exponent) => (text::signed(exponent, 2).trim_start_matches('+')),
            None => "–",
        }
    }
}

fn held_out(curve: &Curve) -> Markup {
    html! {
        @match curve.held_out {
            Some(held_out) => {
                (held_out.length) ": " (text::signed(held_out.percent, 1)) " % "
                @if held_out.is_near { span.good { "within 15 %" } } @else { span.bad { "off by more" } }
            }
            None => "too few lengths",
        }
    }
}

/// A part of a fit; in nanoseconds and below, which times seldom are.
fn term(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_string(),
        1e-9.. => time(seconds),
        1e-12.. => format!("{} ps", three_digits(1e12 * seconds)),
        _ => format!("{} fs", three_digits(1e15 * seconds)),
    }
}

/// What a layer keeps of a sequence.
pub fn states(results: &Results) -> Result<Markup, Error> {
    if results.states.len() < 2 {
        return Ok(html! {});
    }
    let chart = figure(
        |size| charts::states(&results.states, size),
        html! { "What one layer keeps of a sequence: a conv layer its last inputs, an attention layer keys and values of every token. Counted, not measured." },
        "lfm2 report",
    )?;
    Ok(html! { section { h2 { "What a sequence keeps" } (chart) } })
}
