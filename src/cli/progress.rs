//! What moves on standard error while something takes time. Nothing is drawn when it is not a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for so many bytes.
#[must_use]
pub fn bytes(what: &str, size: u64) -> ProgressBar {
    let bar = ProgressBar::new(size);
    styled(bar, "{msg} [{bar:30}] {bytes}/{total_bytes}").with_message(what.to_owned())
}

/// A spinner with a text that can be changed.
#[must_use]
pub fn spinner(what: &str) -> ProgressBar {
    let bar = styled(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}").with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        // A template of ours that is wrong costs its looks only.
        Err(_) => bar,
    }
}
