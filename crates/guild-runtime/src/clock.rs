//! Tells the time: the only place that reads a clock.
//!
//! It reads tokio's clock, so a paused runtime gives virtual time to everything. Tokio's timers fire
//! on whole milliseconds; a simulation that needs microseconds stretches its time: one microsecond
//! of the guild is then one millisecond of the timers.

use std::time::Duration;

use guild_core::time::{Timestamp, micros};
use tokio::time::Instant;

/// Maps tokio's clock to the time of the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    offset: Timestamp,
    stretch: u32,
}

impl Clock {
    /// Starts a clock that goes on from `offset`; `stretch` is the time of the timers in one unit
    /// of the guild's time.
    pub(crate) fn continuing(offset: Timestamp, stretch: u32) -> Self {
        Self { started: Instant::now(), offset, stretch: stretch.max(1) }
    }

    /// Returns the time of the store.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// Returns the time of the store at an instant of tokio's clock.
    pub(crate) fn at(&self, instant: Instant) -> Timestamp {
        let elapsed = instant.saturating_duration_since(self.started);
        Timestamp(self.offset.0.saturating_add(micros(elapsed) / u64::from(self.stretch)))
    }

    /// Returns the instant of tokio's clock at a time of the store.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        let delay = self.delay(at.since(self.offset));
        self.started.checked_add(delay).unwrap_or_else(|| self.started + FAR)
    }

    /// Returns how long the timers have to wait for this much of the guild's time.
    pub(crate) fn delay(&self, duration: Duration) -> Duration {
        duration.saturating_mul(self.stretch).min(FAR)
    }
}

/// A hundred thousand years: further than any timer reaches.
const FAR: Duration = Duration::from_secs(100_000 * 365 * 24 * 60 * 60);
