//! Shows on a terminal how far a run is.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guild::{Event, EventRecord, Progress};
use guild_core::time::micros;
use guild_sim::world::LogReader;
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
        let done = u64::from(ended.completed) + failed + others;
        bar.set_length(u64::from(progress.total));
        let begins = bar.position() == 0 && done > 0;
        bar.set_position(done);
        if begins {
            // What a resumed run had done before says nothing about how fast it is now.
            bar.reset_eta();
        }
        bar.set_message(format!("{} running, {failed} failed", progress.running));
    }

    /// Prints a line above the bar, or to standard error.
    pub(crate) fn say(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
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

/// A bar of a simulation; it shows virtual time beside real time. Every clone is the same bar.
#[derive(Clone, Debug)]
pub(crate) struct VirtualBar {
    bar: Option<ProgressBar>,
    ended: u64,
    added: u64,
    seen: u64,
}

/// Events between two looks at the real time.
const EVENTS_PER_LOOK: u64 = 4_096;

impl VirtualBar {
    pub(crate) fn new(tasks: u64) -> Self {
        let style = "{bar:30} {pos}/{len} tasks, {msg} of virtual time in {elapsed}, ETA {eta}";
        Self { bar: bar(tasks, style), ended: 0, added: 0, seen: 0 }
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

impl LogReader for VirtualBar {
    fn record(&mut self, record: &EventRecord, _: &str) {
        let Some(bar) = &self.bar else { return };
        match &record.event {
            Event::TaskAdded { .. } => self.added += 1,
            Event::TaskCompleted { .. } | Event::TaskEnded { .. } => self.ended += 1,
            _ => {}
        }
        self.seen += 1;
        if self.seen.is_multiple_of(EVENTS_PER_LOOK) {
            bar.set_length(self.added);
            bar.set_position(self.ended);
            bar.set_message(format!("{:.1?}", Duration::from_micros(record.at.0)));
        }
    }
}

/// A bar that counts simulations, and what they simulated where that is told.
#[derive(Debug)]
pub(crate) struct CountBar {
    bar: Option<ProgressBar>,
    virtual_us: AtomicU64,
}

impl CountBar {
    pub(crate) fn new(jobs: u64) -> Self {
        let style = "{bar:30} {pos}/{len} simulations{msg} in {elapsed}, ETA {eta}";
        Self { bar: bar(jobs, style), virtual_us: AtomicU64::new(0) }
    }

    /// One more is done.
    pub(crate) fn step(&self) {
        self.bar.iter().for_each(|bar| bar.inc(1));
    }

    /// One more is done, and took so long in its own time.
    pub(crate) fn simulated(&self, virtual_time: Duration) {
        let Some(bar) = &self.bar else { return };
        let took = micros(virtual_time);
        let sum = self.virtual_us.fetch_add(took, Ordering::Relaxed).saturating_add(took);
        bar.set_message(format!(", {:.1?} of virtual time", Duration::from_micros(sum)));
        bar.inc(1);
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn bar(length: u64, style: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let target = ProgressDrawTarget::stderr_with_hz(10);
    Some(ProgressBar::with_draw_target(Some(length), target).with_style(style))
}
