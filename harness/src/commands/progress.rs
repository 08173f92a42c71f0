//! Progress bars: on a terminal, and nowhere else.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressFinish, ProgressState, ProgressStyle};

/// A bar of `length` steps. It is drawn on standard error, if that is a terminal, and gone when it is dropped.
pub fn bar(doing: &'static str, unit: &str, length: usize) -> ProgressBar {
    let template = format!("{{msg:8}} {{bar:40}} {{human_pos}} of {{human_len}} {unit}{{left}}");
    let left = |state: &ProgressState, text: &mut dyn Write| {
        // Nothing is known before the first step.
        if state.pos() > 0 {
            let _ = write!(text, ", {:#} left", HumanDuration(state.eta()));
        }
    };
    let style = ProgressStyle::with_template(&template).expect("the template is valid");
    let bar = ProgressBar::new(length as u64)
        .with_style(style.with_key("left", left))
        .with_message(doing)
        .with_finish(ProgressFinish::AndClear);
    if !bar.is_hidden() {
        // Shows it before the first step, which may take long.
        bar.enable_steady_tick(Duration::from_millis(250));
    }
    bar
}
