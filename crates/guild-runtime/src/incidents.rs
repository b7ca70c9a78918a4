//! Opens incidents: keeps them for the person who oversees, and records them.
//!
//! Every actor opens its incidents here, in the turn in which it learns of the failure, so that the
//! log shows an incident before the end of the run that it belongs to. What is decided about them
//! is decided by [`IncidentBook`]; this is the lock around it, and a flag that keeps the path of
//! tasks that do not fail away from the lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::event::Event;
use guild_core::id::{AgentId, Incarnation, TaskId};
use guild_core::incident::{
    AcknowledgeError, Attempt, Group, Incident, IncidentBook, IncidentKind, Reason, Report,
};
use guild_core::time::Timestamp;

/// The incidents of a guild; every clone is the same book.
#[derive(Clone)]
pub(crate) struct Incidents(Arc<Shared>);

struct Shared {
    desk: Mutex<Desk>,
    /// Whether what the scheduler decides can matter to an open incident.
    is_watching: AtomicBool,
}

struct Desk {
    book: IncidentBook,
    /// What is known of failed attempts until the planner has decided whether they are tried again.
    failed: BTreeMap<(TaskId, u32), Details>,
}

/// What the planner is not told about a failed attempt.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    pub(crate) attempt: Attempt,
    pub(crate) reason: Reason,
    pub(crate) causes: Vec<Box<str>>,
}

impl Incidents {
    /// Returns the incidents that there were before this start.
    pub(crate) fn new(book: IncidentBook) -> Self {
        let desk = Mutex::new(Desk { book, failed: BTreeMap::new() });
        Self(Arc::new(Shared { desk, is_watching: AtomicBool::new(false) }))
    }

    /// Returns the incidents in RAM, oldest first.
    pub(crate) fn list(&self) -> Vec<Incident> {
        self.desk().book.incidents().cloned().collect()
    }

    /// Returns the groups in RAM.
    pub(crate) fn groups(&self) -> Vec<Group> {
        self.desk().book.groups().cloned().collect()
    }

    /// Returns how many were opened, those before this start included.
    pub(crate) fn opened(&self) -> u64 {
        self.desk().book.opened()
    }

    /// Recovers what a start ends; the events that this returns belong into the log.
    pub(crate) fn guild_started(&self, now: Timestamp) -> Vec<Event> {
        self.change(|desk| desk.book.guild_started(now))
    }

    /// Opens an incident; the events that this returns belong into the log.
    pub(crate) fn open(&self, now: Timestamp, report: Report) -> impl Iterator<Item = Event> {
        let (opened, recovered) = self.change(|desk| desk.book.open(now, report));
        std::iter::once(opened).chain(recovered)
    }

    /// Notes that an agent lives; the events that this returns belong into the log.
    pub(crate) fn agent_lives(
        &self,
        now: Timestamp,
        agent: AgentId,
        incarnation: Incarnation,
    ) -> Vec<Event> {
        self.change(|desk| desk.book.agent_lives(now, agent, incarnation))
    }

    /// Notes that what failed works again; the events that this returns belong into the log.
    pub(crate) fn mended(&self, now: Timestamp, kind: IncidentKind) -> Vec<Event> {
        self.change(|desk| desk.book.mended(now, kind))
    }

    /// Returns whether [`task_event`](Self::task_event) has to hear of assignments and ends.
    pub(crate) fn is_watching(&self) -> bool {
        self.0.is_watching.load(Ordering::Relaxed)
    }

    /// Notes what the scheduler decided; the event that this returns belongs into the log.
    pub(crate) fn task_event(&self, now: Timestamp, event: &Event) -> Option<Event> {
        self.change(|desk| desk.book.task_event(now, event))
    }

    /// Keeps what is known of a failed attempt until [`details`](Self::details) asks for it.
    pub(crate) fn attempt_failed(&self, details: Details) {
        let key = (details.attempt.task, details.attempt.number);
        let mut desk = self.desk();
        desk.failed.insert(key, details);
        // The result of an attempt that was refused as stale is never asked for.
        if desk.failed.len() > FAILED_MAX {
            desk.failed.pop_first();
        }
    }

    /// Returns what is known of a failed attempt, and forgets it.
    pub(crate) fn details(&self, task: TaskId, attempt: u32) -> Option<Details> {
        self.desk().failed.remove(&(task, attempt))
    }

    /// Returns how many failed attempts and revoked leases are kept until more is known of them.
    pub(crate) fn undecided(&self) -> usize {
        let desk = self.desk();
        desk.failed.len() + desk.book.undecided()
    }

    /// Notes what a person says; the event that this returns belongs into the log.
    pub(crate) fn acknowledge(
        &self,
        now: Timestamp,
        incident: u64,
        note: &str,
    ) -> Result<Event, AcknowledgeError> {
        self.desk().book.acknowledge(now, incident, note)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Desk) -> R) -> R {
        let mut desk = self.desk();
        let result = change(&mut desk);
        self.0.is_watching.store(desk.book.is_watching(), Ordering::Relaxed);
        result
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // The desk is whole after every operation on it, so a poisoned lock holds good data.
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Failed attempts of which details are kept. Beyond: an incident tells less.
const FAILED_MAX: usize = 10_000;
