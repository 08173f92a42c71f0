use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Error, Mark, Size, chart, fill, legend, letters, palette, px, width_of};
use crate::report::breakdown::Breakdown;

/// The colour of a part of a layer or of the model.
pub fn colour_of(part: &str) -> RGBColor {
    match part {
        "convolution" | "conv layers" => palette::CONV,
        "attention" | "attention layers" => palette::ATTENTION,
        "feed-forward" => palette::FEED_FORWARD,
        "projection in" => palette::PROJECTION_IN,
        "projection out" => palette::PROJECTION_OUT,
        "norm" => palette::NORM,
        "rope" => palette::ROPE,
        _ => palette::OTHER,
    }
}

/// A bar for each length, of the shares of its parts.
pub fn bars(breakdowns: &[&Breakdown], name: &str, size: Size) -> Result<String, Error> {
    const BAR: f64 = 24.0;
    const STEP: f64 = 31.0;
    // As high as the bars are, and a legend of up to three rows.
    let rows = if size.is_narrow() { 3.0 } else { 1.0 };
    let height = (10.0 + 20.0 * rows + STEP * breakdowns.len() as f64) as i32;
    let size = Size { height, ..size };
    chart(name, size, |area| {
        let Some(first) = breakdowns.first() else { return Ok(()) };
        let series: Vec<_> = first
            .shares
            .iter()
            .map(|share| (share.name.as_str(), colour_of(&share.name), Mark::Square))
            .collect();
        let mut y = legend(area, size, &series)?;
        let lengths = breakdowns.iter().map(|breakdown| breakdown.length.to_string());
        let labels = lengths.map(|length| width_of(&length)).fold(0.0, f64::max) + 10.0;
        let whole = f64::from(size.width) - labels - 4.0;
        for breakdown in breakdowns {
            let middle = px(y + BAR / 2.0);
            let style = letters(&palette::MUTED, HPos::Right, VPos::Center);
            let label = breakdown.length.to_string();
            area.draw(&Text::new(label, (px(labels - 6.0), middle), style))?;
            let mut x = labels;
            for share in &breakdown.shares {
                let width = whole * share.percent / 100.0;
                // A hair between neighbours, unless they are hairs themselves.
                let gap = if width > 3.0 { 1.0 } else { 0.0 };
                let corners = [(px(x), px(y)), (px(x + width - gap), px(y + BAR))];
                area.draw(&Rectangle::new(corners, fill(colour_of(&share.name))))?;
                let percent = format!("{:.0} %", share.percent);
                if width_of(&percent) + 8.0 < width {
                    let style = letters(&palette::ON_COLOUR, HPos::Center, VPos::Center);
                    area.draw(&Text::new(percent, (px(x + width / 2.0), middle), style))?;
                }
                x += width;
            }
            y += STEP;
        }
        Ok(())
    })
}
