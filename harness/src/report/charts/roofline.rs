use plotters::prelude::*;

use super::{Axis, Error, Mark, Size, axes, chart, fill, legend, palette, px, stroke};
use crate::report::measurement::Measurement;

/// Cases that are drawn alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Linear layers, floats.
    Linear,
    /// Linear layers, products of bytes.
    LinearBytes,
    /// Conv layers and their mixers.
    Conv,
    /// Attention layers and their mixers.
    Attention,
    /// The whole model.
    Model,
    /// All else.
    Other,
}

impl Family {
    /// Every one, in the order of tables.
    pub const ALL: [Self; 6] =
        [Self::Model, Self::Conv, Self::Attention, Self::Linear, Self::LinearBytes, Self::Other];

    /// That of a case.
    pub fn of(measurement: &Measurement) -> Self {
        match measurement.id.op.as_str() {
            "linear" if measurement.work.dots > 0 => Self::LinearBytes,
            "linear" => Self::Linear,
            "conv_layer" | "conv_mixer" | "short_conv" => Self::Conv,
            "attention_layer" | "attention_mixer" | "attention" => Self::Attention,
            "model" => Self::Model,
            _ => Self::Other,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear, floats",
            Self::LinearBytes => "linear, int8",
            Self::Conv => "conv",
            Self::Attention => "attention",
            Self::Model => "whole model",
            Self::Other => "other operations",
        }
    }

    fn colour(self) -> RGBColor {
        match self {
            Self::Linear => palette::PROJECTION_IN,
            Self::LinearBytes => palette::ROPE,
            Self::Conv => palette::CONV,
            Self::Attention => palette::ATTENTION,
            Self::Model => palette::FEED_FORWARD,
            Self::Other => palette::OTHER,
        }
    }
}

/// Operations per second against operations per byte, below the roofs of one setting.
pub fn roofline(measurements: &[&Measurement], size: Size) -> Result<String, Error> {
    chart("operations per second against operations per byte", size, |area| {
        let mut series: Vec<_> = Family::ALL
            .into_iter()
            .filter(|family| measurements.iter().any(|one| Family::of(one) == *family))
            .map(|family| (family.name(), family.colour(), Mark::Dot))
            .collect();
        series.push(("roofs: multiply-adds, memory", palette::INK, Mark::Line));
        series.push(("products of brain floats, of bytes", palette::MUTED, Mark::Line));
        let top = legend(area, size, &series)?;
        let intensity = |one: &Measurement| one.work.operations as f64 / one.work.bytes as f64;
        let best = |of: fn(&Measurement) -> f64| {
            measurements.iter().map(|one| of(one)).fold(0.0, f64::max)
        };
        let multiply_add = best(|one| one.ceilings.multiply_add);
        let dot = best(|one| one.ceilings.dot);
        let brain_dot = best(|one| one.ceilings.brain_dot);
        let read = best(|one| match one.work.working_set {
            None => one.ceilings.read,
            Some(_) => 0.0,
        });
        let points =
            || measurements.iter().map(|one| (intensity(one), one.operations_per_second()));
        let low = points().fold(f64::MAX, |low, (x, _)| low.min(x));
        let high = points().fold(dot / read, |high, (x, _)| high.max(x));
        let lowest = points().fold(low * read, |low, (_, y)| low.min(y));
        let x = Axis::decades(low, high, |number| format!("{number}"));
        let y = Axis::decades(lowest, dot, |number| match number * (1.0 + 1e-9) {
            number @ 1e12.. => format!("{:.0} T/s", number / 1e12),
            number @ 1e9.. => format!("{:.0} G/s", number / 1e9),
            number => format!("{:.0} M/s", number / 1e6),
        });
        let names = ("operations per byte", "operations per second");
        let mut plot = axes(area, top, &x, &y, names)?;
        let higher = [brain_dot, dot].map(|peak| (peak, palette::MUTED));
        for (peak, colour) in higher.into_iter().chain([(multiply_add, palette::INK)]) {
            // The slope enters the plot on its left, or from below.
            let start = x.from.max(y.from / read);
            let roof = vec![(start, start * read), (peak / read, peak), (x.to, peak)];
            plot.draw_series([PathElement::new(roof, stroke(colour, 1.4))])?;
        }
        for family in Family::ALL.into_iter().rev() {
            let of_family = measurements.iter().filter(|one| Family::of(one) == family);
            let dots = of_family.map(|one| {
                let at = (intensity(one), one.operations_per_second());
                Circle::new(at, px(3.4), fill(family.colour().mix(0.8)))
            });
            plot.draw_series(dots)?;
        }
        Ok(())
    })
}
