//! Tells the time: the only place that reads a clock.
//!
//! It reads tokio's clock, so a paused runtime gives virtual time to everything.

use guild_core::time::{Timestamp, micros};
use tokio::time::Instant;

/// Maps tokio's clock to the time of the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    offset: Timestamp,
}

impl Clock {
    /// Starts a clock that goes on from `offset`.
    pub(crate) fn continuing(offset: Timestamp) -> Self {
        Self { started: Instant::now(), offset }
    }

    /// Returns the time of the store.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.offset.0.saturating_add(micros(self.started.elapsed())))
    }

    /// Returns the instant of tokio's clock at a time of the store.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.started + at.since(self.offset)
    }
}
