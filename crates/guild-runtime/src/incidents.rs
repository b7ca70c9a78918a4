//! Opens incidents: numbers a failure, keeps it for the person who oversees, and records it.
//!
//! Every actor of the control plane opens its incidents here, in the turn in which it learns of
//! the failure, so that the log shows an incident before the end of the run that it belongs to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::event::{Cause, Event, Severity};
use guild_core::id::{AgentId, Incarnation, TaskId};
use guild_core::incident::Incident;
use guild_core::time::Timestamp;

/// The incidents of a guild; every clone is the same list.
#[derive(Clone)]
pub(crate) struct Incidents(Arc<Mutex<Desk>>);

struct Desk {
    recent: VecDeque<Incident>,
    recent_max: usize,
    opened: u64,
}

/// A failure, before it has the number of an incident.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) kind: &'static str,
    pub(crate) severity: Severity,
    pub(crate) cause: Cause,
    pub(crate) message: Box<str>,
    pub(crate) location: Option<Box<str>>,
    pub(crate) agent: Option<(AgentId, Incarnation)>,
    pub(crate) task: Option<(TaskId, u32)>,
    pub(crate) fault: Option<u64>,
    pub(crate) action: Box<str>,
}

impl Incidents {
    /// Returns a list that keeps this many; `opened_before` were opened before this start.
    pub(crate) fn new(recent_max: usize, opened_before: u64) -> Self {
        let recent = VecDeque::new();
        Self(Arc::new(Mutex::new(Desk { recent, recent_max, opened: opened_before })))
    }

    /// Returns the incidents in RAM, oldest first.
    pub(crate) fn list(&self) -> Vec<Incident> {
        self.desk().recent.iter().cloned().collect()
    }

    /// Returns how many were opened, those before this start included.
    pub(crate) fn opened(&self) -> u64 {
        self.desk().opened
    }

    /// Opens an incident; the event that this returns belongs into the log.
    pub(crate) fn open(&self, at: Timestamp, report: Report) -> Event {
        let mut desk = self.desk();
        desk.opened += 1;
        let event = Event::IncidentOpened {
            incident: desk.opened,
            severity: report.severity,
            r#type: report.kind.into(),
            agent: report.agent.map(|(agent, _)| agent),
            task: report.task.map(|(task, _)| task),
            attempt: report.task.map(|(_, attempt)| attempt),
            fault: report.fault,
            cause: report.cause,
            message: report.message.clone(),
            location: report.location.clone(),
            action: report.action.clone(),
        };
        let incident = Incident {
            number: desk.opened,
            at,
            severity: report.severity,
            kind: report.kind.to_owned(),
            cause: report.cause,
            message: report.message.into(),
            location: report.location.map(Into::into),
            agent: report.agent,
            task: report.task.map(|(task, _)| task),
            attempt: report.task.map(|(_, attempt)| attempt),
            fault: report.fault,
            action: report.action.into(),
        };
        if desk.recent.len() == desk.recent_max {
            desk.recent.pop_front();
        }
        desk.recent.push_back(incident);
        event
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // The desk is whole after every operation on it, so a poisoned lock holds good data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
