//! Draws a run as one self-contained page: who worked when, what waited, what set the time it took,
//! and what went wrong.
//!
//! A [`Chronicle`] reads the event log and nothing else, so the page of any run can be made: of a
//! simulation while it runs (a [`Recorder`] is a [`LogReader`]), or of the file of a log. A [`Page`]
//! holds its data, its style and its script; it loads nothing.

mod chronicle;
mod data;
mod heat;
mod kind;
mod line;
mod page;
mod series;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::event::EventRecord;

pub use self::chronicle::{Chronicle, ChronicleError};
pub use self::page::{Page, SweepPoint};
use crate::world::LogReader;

/// Reads the log of a world into a chronicle; every clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Chronicle>>);

impl Recorder {
    /// Returns what was recorded, and begins anew.
    pub fn take(&self) -> Chronicle {
        std::mem::take(&mut self.chronicle())
    }

    fn chronicle(&self) -> MutexGuard<'_, Chronicle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogReader for Recorder {
    fn record(&mut self, _: &EventRecord, line: &str) {
        if let Err(error) = self.chronicle().line(line) {
            unreachable!("the guild wrote a line that it cannot read: {error}");
        }
    }
}
