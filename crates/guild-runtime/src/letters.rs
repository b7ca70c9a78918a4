//! Keeps the dead letters of a guild, with what is needed to try them again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::event::EventRecord;
use guild_core::graph::Graph;
use guild_core::id::TaskId;
use guild_core::letter::{DeadLetter, DeadLetters};

use crate::guild::SubmitError;

/// Why nothing was done about a dead letter.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// The task left no letter, or an old one that is no longer kept.
    #[error("the task `{0}` has no dead letter here: it did not die, or its letter has left RAM")]
    Unknown(String),
    /// What the task was given is no longer kept.
    #[error("what the task `{0}` was given is no longer kept: submit it anew")]
    Forgotten(String),
    /// It was not submitted again.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// The dead letters; every clone is the same box.
#[derive(Clone)]
pub(crate) struct LetterBox(Arc<Mutex<Desk>>);

struct Desk {
    letters: DeadLetters,
    /// Each task alone, with the input that it had, as long as its letter is kept.
    graphs: BTreeMap<TaskId, Graph>,
}

impl LetterBox {
    /// Returns a box with the letters from before this start.
    pub(crate) fn new(letters: DeadLetters) -> Self {
        Self(Arc::new(Mutex::new(Desk { letters, graphs: BTreeMap::new() })))
    }

    /// Learns of events that are durable.
    pub(crate) fn apply(&self, records: &[EventRecord]) {
        let mut desk = self.desk();
        let Desk { letters, graphs } = &mut *desk;
        for record in records {
            if let Some(gone) = letters.apply(record) {
                graphs.remove(&gone);
            }
        }
    }

    /// Keeps a task that has died, so that it can be tried again.
    pub(crate) fn keep(&self, task: TaskId, alone: Graph) {
        self.desk().graphs.insert(task, alone);
    }

    /// Returns the letters, oldest first.
    pub(crate) fn list(&self) -> Vec<DeadLetter> {
        self.desk().letters.iter().cloned().collect()
    }

    /// Returns how often the letter of a task was tried again; none: it has no letter.
    pub(crate) fn retries(&self, task: TaskId) -> Option<u32> {
        self.desk().letters.get(task).map(|letter| letter.retries)
    }

    /// Returns the task alone.
    pub(crate) fn graph(&self, task: TaskId) -> Option<Graph> {
        self.desk().graphs.get(&task).cloned()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // The desk is whole after every operation on it, so a poisoned lock holds good data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
