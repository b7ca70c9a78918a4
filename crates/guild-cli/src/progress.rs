//! Shows on a terminal how far a run is.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use guild::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Time between two looks at the progress.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// A bar on standard error; silent where that is no terminal.
#[derive(Debug)]
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(crate) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let style = "{bar:30} {pos}/{len} done, {msg}, {rate}, ETA {eta}";
        let style = ProgressStyle::with_template(style)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
                // What cannot be written now is drawn again at the next look.
                write!(text, "{:.1}/s", state.per_sec()).ok();
            });
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(style);
        Self(Some(bar))
    }

    pub(crate) fn show(&self, progress: &Progress) {
        let Some(bar) = &self.0 else { return };
        let ended = progress.ended;
        let failed = u64::from(ended.failed);
        let others = u64::from(ended.skipped) + u64::from(ended.cancelled);
        bar.set_length(u64::from(progress.total));
        bar.set_position(u64::from(ended.completed) + failed + others);
        bar.set_message(format!("{} running, {failed} failed", progress.running));
    }

    /// Prints a line above the bar, or to standard error.
    pub(crate) fn say(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
