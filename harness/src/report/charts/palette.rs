//! Colours: each of the light theme, which charts are drawn in, with what takes its place in the dark.

use std::fmt::Write;

use plotters::style::RGBColor;

/// Letters.
pub const INK: RGBColor = RGBColor(0x1B, 0x1F, 0x24);
/// Letters of less weight.
pub const MUTED: RGBColor = RGBColor(0x5B, 0x65, 0x70);
/// Lines behind the data.
pub const GRID: RGBColor = RGBColor(0xE1, 0xE5, 0xEA);
/// Letters on a colour.
pub const ON_COLOUR: RGBColor = RGBColor(0xFF, 0xFF, 0xFE);
/// Conv.
pub const CONV: RGBColor = RGBColor(0x0B, 0x72, 0x85);
/// Attention.
pub const ATTENTION: RGBColor = RGBColor(0xC9, 0x4A, 0x12);
/// Feed-forward.
pub const FEED_FORWARD: RGBColor = RGBColor(0x6B, 0x46, 0xC1);
/// The head, and what is not named.
pub const OTHER: RGBColor = RGBColor(0x71, 0x7D, 0x8A);
/// Projections into a mixer.
pub const PROJECTION_IN: RGBColor = RGBColor(0x2F, 0x5F, 0xC4);
/// Projections out of it.
pub const PROJECTION_OUT: RGBColor = RGBColor(0x3C, 0x86, 0xD8);
/// Norms.
pub const NORM: RGBColor = RGBColor(0x9A, 0x73, 0x0A);
/// Rotations.
pub const ROPE: RGBColor = RGBColor(0xB0, 0x2A, 0x74);

/// Each with what takes its place in the dark.
const DARK: [(RGBColor, &str); 12] = [
    (INK, "#E6E9ED"),
    (MUTED, "#9AA5B1"),
    (GRID, "#2C333B"),
    (ON_COLOUR, "#0E1216"),
    (CONV, "#3CC3D8"),
    (ATTENTION, "#FF9256"),
    (FEED_FORWARD, "#B197FC"),
    (OTHER, "#98A4B0"),
    (PROJECTION_IN, "#6D9BF5"),
    (PROJECTION_OUT, "#84C0FF"),
    (NORM, "#E3B341"),
    (ROPE, "#F783BF"),
];

/// As style sheets write it.
pub fn hexadecimal(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// The rules that turn charts dark, and the marks in tables, which have the colour in the variable `--mark`.
pub fn dark_rules() -> String {
    let mut rules = String::new();
    for (light, dark) in DARK {
        let light = hexadecimal(light);
        let _ = writeln!(rules, "svg [fill=\"{light}\"] {{ fill: {dark} }}");
        let _ = writeln!(rules, "svg [stroke=\"{light}\"] {{ stroke: {dark} }}");
    }
    rules
}
