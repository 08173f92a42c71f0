//! Charts as SVG, in the colours of the light theme; a style sheet replaces them in the dark ([`palette`]).

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::files::Error;

mod bars;
mod curves;
pub mod palette;
mod roofline;

pub use self::bars::{bars, colour_of};
pub use self::curves::{growth, ratios, states};
pub use self::roofline::{Family, roofline};

/// Width and height in pixels of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// To the right.
    pub width: i32,
    /// Downwards.
    pub height: i32,
}

impl Size {
    /// For a desktop.
    pub const WIDE: Self = Self { width: 860, height: 440 };
    /// For a phone.
    pub const NARROW: Self = Self { width: 360, height: 360 };

    fn is_narrow(self) -> bool {
        self.width < 500
    }
}

/// The backend rounds to whole pixels, so there are more of them than on the screen.
const FINE: i32 = 8;

/// The height of letters, in pixels of the screen.
const TEXT: f64 = 12.5;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Problem = DrawingAreaErrorKind<std::io::Error>;
type Drawn = Result<(), Problem>;

/// What `draw` draws, with a title for who cannot see it.
fn chart(name: &str, size: Size, draw: impl FnOnce(&Area) -> Drawn) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let pixels = ((size.width * FINE) as u32, (size.height * FINE) as u32);
        let area = SVGBackend::with_string(&mut svg, pixels).into_drawing_area();
        draw(&area).and_then(|()| area.present()).map_err(|problem| Error::Chart {
            name: name.to_string(),
            problem: problem.to_string(),
        })?;
    }
    let class = if size.is_narrow() { "narrow" } else { "wide" };
    let fine = format!("width=\"{}\" height=\"{}\"", size.width * FINE, size.height * FINE);
    let screen = format!(
        "class=\"{class}\" role=\"img\" aria-label=\"{name}\" width=\"{}\" height=\"{}\"",
        size.width, size.height
    );
    Ok(svg.replacen(&fine, &screen, 1))
}

/// A chart that stands alone, with its own dark theme.
pub fn alone(svg: &str) -> String {
    let rules = palette::dark_rules().replace("svg ", "");
    let style = format!("<style>@media (prefers-color-scheme: dark) {{\n{rules}}}</style>");
    svg.replacen(">\n", &format!(">\n{style}\n"), 1)
}

/// Pixels of the screen in those of the backend.
fn px(pixels: f64) -> i32 {
    (pixels * f64::from(FINE)).round() as i32
}

/// Letters of a colour, and where they stand about their point.
fn letters(colour: &RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'_> {
    // The backend divides by this factor.
    const DIVISOR: f64 = 1.24;
    let size = TEXT * f64::from(FINE) * DIVISOR;
    let style = TextStyle::from(("sans-serif", size).into_font());
    style.color(colour).pos(Pos::new(horizontal, vertical))
}

/// About how wide a text is, in pixels of the screen.
fn width_of(text: &str) -> f64 {
    0.56 * TEXT * text.chars().count() as f64
}

/// A line of that width in pixels of the screen.
fn stroke(colour: impl Color, width: f64) -> ShapeStyle {
    ShapeStyle { color: colour.to_rgba(), filled: false, stroke_width: px(width) as u32 }
}

/// A filled shape.
fn fill(colour: impl Color) -> ShapeStyle {
    ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: 0 }
}

/// What stands for a series in a legend.
#[derive(Clone, Copy)]
enum Mark {
    Square,
    Dot,
    Ring,
    Line,
}

/// Draws the names of series in rows at the top; how high they are, in pixels of the screen.
fn legend(area: &Area, size: Size, series: &[(&str, RGBColor, Mark)]) -> Result<f64, Problem> {
    const ROW: f64 = 20.0;
    const MARK: f64 = 16.0;
    const GAP: f64 = 16.0;
    let (mut x, mut y) = (4.0, 4.0);
    for (name, colour, mark) in series {
        let width = MARK + 4.0 + width_of(name);
        if x > 4.0 && x + width > f64::from(size.width) {
            (x, y) = (4.0, y + ROW);
        }
        let (middle, centre) = (y + ROW / 2.0, (px(x + MARK / 2.0), px(y + ROW / 2.0)));
        match mark {
            Mark::Square => {
                let corners = [(px(x + 2.0), px(middle - 6.0)), (px(x + 14.0), px(middle + 6.0))];
                area.draw(&Rectangle::new(corners, fill(*colour)))?;
            }
            Mark::Dot => area.draw(&Circle::new(centre, px(4.0), fill(*colour)))?,
            Mark::Ring => area.draw(&Circle::new(centre, px(3.6), stroke(*colour, 1.6)))?,
            Mark::Line => {
                let ends = vec![(px(x), px(middle)), (px(x + MARK), px(middle))];
                area.draw(&PathElement::new(ends, stroke(*colour, 2.0)))?;
            }
        }
        let style = letters(&palette::INK, HPos::Left, VPos::Center);
        area.draw(&Text::new(name.to_string(), (px(x + MARK + 4.0), px(middle)), style))?;
        x += width + GAP;
    }
    Ok(y + ROW + 6.0)
}

/// A logarithmic axis: its range, and where it has lines with which labels.
#[derive(Clone)]
struct Axis {
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// With a line at every power of ten.
    fn decades(low: f64, high: f64, label: impl Fn(f64) -> String) -> Self {
        let room = (high / low).powf(0.06).max(1.1);
        let (from, to) = (low / room, high * room);
        let powers = from.log10().ceil() as i32..=to.log10().floor() as i32;
        let tick = |power| (10_f64.powi(power), label(10_f64.powi(power)));
        Self { from, to, ticks: powers.map(tick).collect() }
    }

    /// With lines at these numbers.
    fn at(low: f64, high: f64, ticks: &[f64], label: impl Fn(f64) -> String) -> Self {
        let room = (high / low).powf(0.03);
        let ticks = ticks.iter().map(|tick| (*tick, label(*tick))).collect();
        Self { from: low / room, to: high * room, ticks }
    }

    /// Where `value` is between the ends, 0 and 1.
    fn part(&self, value: f64) -> f64 {
        (value / self.from).ln() / (self.to / self.from).ln()
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        first + (f64::from(last - first) * self.part(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(tick, _)| *tick).collect()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        let label = self.ticks.iter().find(|(tick, _)| tick == value);
        label.map_or_else(String::new, |(_, label)| label.clone())
    }
}

type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Axes with their lines and labels below a legend of height `top`.
fn axes<'a, 'b>(
    area: &'a Area<'b>,
    top: f64,
    x: &Axis,
    y: &Axis,
    (x_name, y_name): (&str, &str),
) -> Result<Plot<'a, 'b>, Problem> {
    const TITLE: f64 = 20.0;
    const LABEL_HEIGHT: f64 = 24.0;
    let widest = y.ticks.iter().map(|(_, label)| width_of(label)).fold(0.0, f64::max);
    let (width, height) = area.dim_in_pixel();
    let title = letters(&palette::MUTED, HPos::Left, VPos::Center);
    area.draw(&Text::new(y_name.to_string(), (px(4.0), px(top + TITLE / 2.0)), title))?;
    let title = letters(&palette::MUTED, HPos::Right, VPos::Center);
    let corner = (width as i32 - px(8.0), height as i32 - px(TITLE / 2.0));
    area.draw(&Text::new(x_name.to_string(), corner, title))?;
    let mut plot = ChartBuilder::on(area)
        .margin_top(px(top + TITLE + 4.0))
        .margin_right(px(20.0))
        .margin_bottom(px(TITLE))
        .x_label_area_size(px(LABEL_HEIGHT))
        .y_label_area_size(px(widest + 14.0))
        .build_cartesian_2d(x.clone(), y.clone())?;
    plot.configure_mesh()
        .bold_line_style(stroke(palette::GRID, 1.0))
        .light_line_style(TRANSPARENT)
        .axis_style(stroke(palette::GRID, 1.0))
        .set_all_tick_mark_size(px(4.0))
        .x_label_style(letters(&palette::MUTED, HPos::Center, VPos::Top))
        .y_label_style(letters(&palette::MUTED, HPos::Right, VPos::Center))
        .draw()?;
    Ok(plot)
}

/// Those of `lengths` that have room for their labels.
fn some_of(lengths: &[usize], size: Size) -> Vec<f64> {
    let room = (size.width - 80) as usize / 42;
    let step = lengths.len().div_ceil(room.max(2)).max(1);
    // The longest is named in any case.
    let chosen = lengths.iter().rev().step_by(step).rev();
    chosen.map(|length| *length as f64).collect()
}
