//! Lets a checker read along with a world.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::event::EventRecord;

use super::{Checker, Knowledge, Verdict};
use crate::world::LogReader;

/// A checker that reads the log of a world; every clone is the same checker.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Mutex<Checker>>);

impl Watch {
    /// Takes the verdict about everything so far; the checker begins anew.
    pub fn finish_with(&self, knowledge: &Knowledge) -> Verdict {
        std::mem::take(&mut *self.checker()).finish_with(knowledge)
    }

    fn checker(&self) -> MutexGuard<'_, Checker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogReader for Watch {
    fn record(&mut self, _: &EventRecord, line: &str) {
        self.checker().line(line);
    }
}
