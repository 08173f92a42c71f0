//! Progress bars: on a terminal, and nowhere else.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar without a length yet. It is drawn on standard error, if that is a terminal.
pub fn bar(doing: &'static str, unit: &str) -> ProgressBar {
    let template =
        format!("{{msg:>10}} {{bar:40}} {{human_pos}}/{{human_len}} {unit} ({{eta}} left)");
    let style = ProgressStyle::with_template(&template).expect("the template is valid");
    ProgressBar::new(0).with_style(style).with_message(doing)
}
