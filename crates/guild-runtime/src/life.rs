//! One life of an agent, as the factory that begins it sees it.

use std::fmt;
use std::rc::Weak;

use guild_core::event::{Cause, Names};
use guild_core::id::{AgentId, Incarnation};

use crate::agent::TaskError;
use crate::host::Slot;

/// One life of an agent: who it is, and the way to end it from outside of a task.
///
/// An agent that watches something while it has no task (a connection, a child process) keeps this
/// and ends its life when that is lost: it becomes an incident, and the supervisor decides about
/// the next life.
#[derive(Clone)]
pub struct Life {
    slot: Weak<Slot>,
    agent: AgentId,
    incarnation: Incarnation,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("agent", &self.agent)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

impl Life {
    pub(crate) fn new(slot: Weak<Slot>, agent: AgentId, incarnation: Incarnation) -> Self {
        Self { slot, agent, incarnation }
    }

    /// Returns the agent's number.
    pub fn agent_id(&self) -> AgentId {
        self.agent
    }

    /// Returns which life of the agent this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns the name of the agent; empty when the guild has ended.
    pub fn agent(&self) -> String {
        self.named(|names| names.agent(self.agent))
    }

    /// Returns the name of the agent's role; empty when the guild has ended.
    pub fn role(&self) -> String {
        self.named(|names| names.role(self.agent.role).to_owned())
    }

    /// Ends this life with a failure, as if the agent had crashed: its supervisor decides when the
    /// next one begins. A task under way fails with it. Does nothing when the life is over.
    pub fn end(&self, error: TaskError) {
        if let Some(slot) = self.slot.upgrade() {
            slot.die(self.incarnation, error);
        }
    }

    /// Ends this life, for which nobody is to blame, unless a task is under way.
    pub(crate) fn retire(&self) {
        if let Some(slot) = self.slot.upgrade() {
            slot.leave(self.incarnation);
        }
    }

    /// Ends this life as soon as the task under way has handed in its result; without an error,
    /// nobody is to blame.
    pub(crate) fn end_after_task(&self, error: Option<TaskError>) {
        if let Some(slot) = self.slot.upgrade() {
            slot.end_after_task(self.incarnation, error);
        }
    }

    fn named(&self, look_up: impl FnOnce(&dyn Names) -> String) -> String {
        let slot = self.slot.upgrade();
        slot.map_or_else(String::new, |slot| slot.shared.surroundings.named(|names| look_up(names)))
    }
}

/// The cause of a life that ended while the agent had no task: what was assigned meanwhile was
/// interrupted, and is not to blame.
pub(crate) const DIED_IDLE: Cause = Cause::AgentLost;
