//! The last attempt of a task that is not tried again.

use guild_core::event::{Cause, Event};
use guild_core::id::{AgentId, Incarnation, TaskId};
use guild_core::incident::{Attempt, Discarded};

/// A failed attempt after which there is no other.
pub(crate) struct GivenUp {
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) agent: AgentId,
    pub(crate) incarnation: Incarnation,
    pub(crate) cause: Cause,
    pub(crate) message: Box<str>,
}

impl GivenUp {
    /// Returns what the event says; none for every other event.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let Event::TaskFailed { task, attempt, agent, incarnation, cause, message, .. } = event
        else {
            return None;
        };
        Some(Self {
            task: *task,
            attempt: *attempt,
            agent: *agent,
            incarnation: *incarnation,
            cause: *cause,
            message: message.clone(),
        })
    }

    /// Returns the record of an attempt of which the agent could tell nothing.
    pub(crate) fn record(&self) -> Attempt {
        Attempt {
            task: self.task,
            number: self.attempt,
            token: None,
            last_heartbeat: None,
            discarded: Discarded::default(),
        }
    }
}
