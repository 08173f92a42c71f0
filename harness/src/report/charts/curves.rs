use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{
    Axis, Drawn, Error, Mark, Plot, Size, axes, chart, fill, legend, letters, palette, px, some_of,
    stroke, width_of,
};
use crate::report::band::Band;
use crate::report::crossing::{Crossing, Pair};
use crate::report::estimate::Estimate;
use crate::report::growth::{Curve, Growth, Part, Phase, StateBytes};
use crate::report::text::{about, bytes, lengths};

/// Times of layers and mixers of both kinds against the length, with fits and their bands.
pub fn growth(growths: &[&Growth], size: Size) -> Result<String, Error> {
    let phase = growths.first().map_or(Phase::Prefill, |growth| growth.phase);
    let name = match phase {
        Phase::Prefill => "time of a layer against the tokens of a prompt",
        Phase::Decode => "time of a layer against the tokens before",
    };
    chart(name, size, |area| {
        let mut series = Vec::new();
        for growth in growths {
            let (conv, attention, mark) = match growth.part {
                Part::Layer => ("conv layer", "attention layer", Mark::Dot),
                Part::Mixer => ("conv mixer alone", "attention mixer alone", Mark::Ring),
            };
            series.push((conv, palette::CONV, mark));
            series.push((attention, palette::ATTENTION, mark));
        }
        let top = legend(area, size, &series)?;
        let pairs = growths.iter().flat_map(|growth| &growth.pairs);
        let times = pairs.clone().flat_map(|pair| [pair.conv, pair.attention]);
        let (low, high) = times.fold((f64::MAX, 0.0_f64), |(low, high), time| {
            (low.min(time.low), high.max(time.high))
        });
        let x = length_axis(pairs.map(|pair| pair.length).collect(), size);
        let y = Axis::decades(low, high, decade_of_seconds);
        let mut plot = axes(area, top, &x, &y, (lengths(phase), "time of one call"))?;
        for growth in growths {
            let is_layer = growth.part == Part::Layer;
            if let (true, Crossing::At { length, .. }) = (is_layer, growth.crossing) {
                mark_crossing(&mut plot, length, &x, &y)?;
            }
            let (attention, conv) = (&growth.attention, &growth.conv);
            curve(&mut plot, growth, attention, |pair| pair.attention, palette::ATTENTION)?;
            curve(&mut plot, growth, conv, |pair| pair.conv, palette::CONV)?;
        }
        Ok(())
    })
}

/// The lengths of all, as an axis.
fn length_axis(mut all: Vec<usize>, size: Size) -> Axis {
    all.sort_unstable();
    all.dedup();
    let (first, last) = (all[0] as f64, all[all.len() - 1] as f64);
    Axis::at(first, last, &some_of(&all, size), |length| format!("{length:.0}"))
}

fn decade_of_seconds(seconds: f64) -> String {
    // Powers of ten are not quite what they should be.
    let seconds = seconds * (1.0 + 1e-9);
    match seconds {
        1.0.. => format!("{:.0} s", seconds),
        1e-3.. => format!("{:.0} ms", 1e3 * seconds),
        1e-6.. => format!("{:.0} µs", 1e6 * seconds),
        _ => format!("{:.0} ns", 1e9 * seconds),
    }
}

/// Points with their intervals, and the line of a fit with its band, or one from point to point where there is no fit.
fn curve(
    plot: &mut Plot,
    growth: &Growth,
    Curve { fit, band, .. }: &Curve,
    estimate: impl Fn(&Pair) -> Estimate,
    colour: RGBColor,
) -> Drawn {
    let (width, radius, style) = match growth.part {
        Part::Layer => (2.0, 4.0, fill(colour)),
        Part::Mixer => (1.2, 3.6, stroke(colour, 1.6)),
    };
    let ends = |band: &[Band], end: fn(&Band) -> f64| -> Vec<_> {
        band.iter().map(|band| (band.length, end(band))).collect()
    };
    let mut outline = ends(band, |band| band.low);
    outline.extend(ends(band, |band| band.high).into_iter().rev());
    plot.draw_series([Polygon::new(outline, fill(colour.mix(0.18)))])?;
    let points = growth.pairs.iter().map(|pair| (pair.length as f64, estimate(pair)));
    let medians: Vec<_> = points.clone().map(|(length, time)| (length, time.seconds)).collect();
    let line = match fit {
        None => medians.clone(),
        Some(fit) => {
            const STEPS: i32 = 96;
            let (first, last) = (medians[0].0, medians[medians.len() - 1].0);
            let step = |i| first * (last / first).powf(f64::from(i) / f64::from(STEPS));
            (0..=STEPS).map(step).map(|x| (x, fit.at(x))).collect()
        }
    };
    plot.draw_series([PathElement::new(line, stroke(colour, width))])?;
    plot.draw_series(points.map(|(length, Estimate { low, high, .. })| {
        PathElement::new(vec![(length, low), (length, high)], stroke(colour, width))
    }))?;
    plot.draw_series(medians.into_iter().map(|point| Circle::new(point, px(radius), style)))?;
    Ok(())
}

/// A dashed line where both cost the same, named at the top, on the side where there is more room.
fn mark_crossing(plot: &mut Plot, length: f64, x: &Axis, y: &Axis) -> Drawn {
    let ends = [(length, y.from), (length, y.to)];
    plot.draw_series(DashedLineSeries::new(
        ends,
        px(4.0) as u32,
        px(4.0) as u32,
        stroke(palette::MUTED, 1.0),
    ))?;
    let text = format!("same at {}", about(length));
    let is_left = x.part(length) > 0.5;
    let (side, shift) = if is_left { (HPos::Right, -px(6.0)) } else { (HPos::Left, px(6.0)) };
    let label = letters(&palette::MUTED, side, VPos::Top);
    let named = EmptyElement::at((length, y.to)) + Text::new(text, (shift, px(4.0)), label);
    plot.draw_series([named])?;
    Ok(())
}

/// How many times as much attention costs, against the length, in both phases.
pub fn ratios(growths: &[&Growth], size: Size) -> Result<String, Error> {
    chart("cost of an attention layer as a multiple of a conv layer's", size, |area| {
        let style = |growth: &Growth| match growth.phase {
            Phase::Prefill => ("prefill: that many tokens", palette::ATTENTION, Mark::Dot),
            Phase::Decode => {
                ("decode: one token after that many", palette::FEED_FORWARD, Mark::Dot)
            }
        };
        let series: Vec<_> = growths.iter().map(|growth| style(growth)).collect();
        let top = legend(area, size, &series)?;
        let pairs = growths.iter().flat_map(|growth| &growth.pairs);
        let ratios = pairs.clone().map(Pair::ratio);
        let (low, high) =
            ratios.fold((1.0_f64, 1.0_f64), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
        let x = length_axis(pairs.map(|pair| pair.length).collect(), size);
        let all = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        let (below, above) = (low / 1.15, high * 1.15);
        let ticks: Vec<_> = all.into_iter().filter(|tick| (below..=above).contains(tick)).collect();
        let y = Axis::at(below, above, &ticks, |ratio| format!("{ratio}×"));
        let mut plot = axes(area, top, &x, &y, ("tokens", "attention layer / conv layer"))?;
        let equal = vec![(x.from, 1.0), (x.to, 1.0)];
        plot.draw_series([PathElement::new(equal, stroke(palette::INK, 1.2))])?;
        let note = "both cost the same";
        if width_of(note) < f64::from(size.width) / 2.0 {
            let label = letters(&palette::MUTED, HPos::Right, VPos::Bottom);
            let named =
                EmptyElement::at((x.to, 1.0)) + Text::new(note, (-px(4.0), px(16.0)), label);
            plot.draw_series([named])?;
        }
        for growth in growths {
            let (_, colour, _) = style(growth);
            let point = |pair: &Pair| (pair.length as f64, pair.ratio());
            let points: Vec<_> = growth.pairs.iter().map(point).collect();
            plot.draw_series([PathElement::new(points.clone(), stroke(colour, 2.0))])?;
            let dots = points.into_iter().map(|point| Circle::new(point, px(4.0), fill(colour)));
            plot.draw_series(dots)?;
        }
        Ok(())
    })
}

/// What a layer keeps of a sequence against its length.
pub fn states(states: &[StateBytes], size: Size) -> Result<String, Error> {
    chart("bytes that a layer keeps of a sequence", size, |area| {
        type Bytes = fn(&StateBytes) -> usize;
        let kinds: [(&str, RGBColor, Mark, Bytes); 3] = [
            ("conv layer", palette::CONV, Mark::Dot, |state| state.conv),
            ("attention layer, f32", palette::ATTENTION, Mark::Dot, |state| state.attention),
            ("attention layer, f16", palette::ATTENTION, Mark::Ring, |state| state.attention_f16),
        ];
        let series = kinds.map(|(name, colour, mark, _)| (name, colour, mark));
        let top = legend(area, size, &series)?;
        let all = kinds.iter().flat_map(|(.., of)| states.iter().map(of));
        let (low, high) = all.fold((usize::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
        let x = length_axis(states.iter().map(|state| state.length).collect(), size);
        let ticks: Vec<_> = (10..40)
            .step_by(4)
            .map(|power| 2_f64.powi(power))
            .filter(|tick| (low as f64 / 4.0..=high as f64 * 2.0).contains(tick))
            .collect();
        let y = Axis::at(low as f64 / 2.0, high as f64 * 2.0, &ticks, |n| bytes(n as u64));
        let mut plot = axes(area, top, &x, &y, ("tokens of context", "bytes of one layer"))?;
        for (_, colour, mark, of) in kinds {
            let point = |state: &StateBytes| (state.length as f64, of(state) as f64);
            let points: Vec<_> = states.iter().map(point).collect();
            let (width, style) = match mark {
                Mark::Ring => (1.2, stroke(colour, 1.6)),
                _ => (2.0, fill(colour)),
            };
            plot.draw_series([PathElement::new(points.clone(), stroke(colour, width))])?;
            plot.draw_series(points.into_iter().map(|point| Circle::new(point, px(4.0), style)))?;
        }
        Ok(())
    })
}
