//! Describes how the life of an agent ended, before anybody has decided about it.

use guild_core::event::{Cause, Severity};
use guild_core::id::{AgentId, Incarnation};
use guild_core::incident::{Action, Attempt, IncidentKind, Reason, Report};

use crate::agent::TaskError;
use crate::panics::PanicReport;

/// What went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) reason: Reason,
    pub(crate) message: Box<str>,
    /// What was behind it, the nearest first.
    pub(crate) causes: Vec<Box<str>>,
    pub(crate) location: Option<Box<str>>,
    pub(crate) backtrace: Option<Box<str>>,
}

impl Failure {
    /// Returns the failure of an agent's code or host that panicked.
    pub(crate) fn panicked(cause: Cause, report: PanicReport) -> Self {
        let PanicReport { message, location, backtrace } = report;
        let (reason, causes) = (Reason::Panic, Vec::new());
        Self { cause, reason, message, causes, location, backtrace }
    }

    /// Returns the failure of an agent that answered with an error.
    pub(crate) fn erred(cause: Cause, error: &TaskError) -> Self {
        Self {
            cause,
            reason: error.reason(),
            message: error.to_string().into(),
            causes: error.causes().to_vec(),
            location: None,
            backtrace: None,
        }
    }

    /// Returns the failure of an agent whose task was taken away.
    pub(crate) fn revoked(cause: Cause) -> Self {
        let message = match cause {
            Cause::Heartbeat => "no heartbeat in time",
            _ => "the attempt took longer than its timeout",
        };
        let (reason, causes) = (cause.into(), Vec::new());
        Self { cause, reason, message: message.into(), causes, location: None, backtrace: None }
    }

    /// Adds what went wrong on top of it.
    pub(crate) fn and(&mut self, message: impl Into<Box<str>>) {
        self.causes.push(message.into());
    }

    /// Returns the report of this failure for an incident.
    pub(crate) fn report(
        self,
        kind: IncidentKind,
        severity: Severity,
        agent: Option<(AgentId, Incarnation)>,
        attempt: Option<Attempt>,
        fault: Option<u64>,
        action: Action,
    ) -> Report {
        Report {
            kind,
            severity,
            cause: self.cause,
            reason: self.reason,
            message: self.message,
            causes: self.causes,
            location: self.location,
            backtrace: self.backtrace,
            agent,
            attempt,
            fault,
            action,
        }
    }
}
