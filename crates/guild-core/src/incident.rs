//! Describes one failure for the person who oversees the guild.

use serde::{Deserialize, Serialize};

use crate::event::{Cause, Severity};
use crate::id::{AgentId, Incarnation, TaskId};
use crate::time::Timestamp;

/// What went wrong, where, and what was done about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Number of the incident: 1, 2, 3, ...
    pub number: u64,
    /// When it was opened.
    pub at: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// What kind of failure it is: `agent_crashed`, `task_failed`, `task_dead_lettered`,
    /// `controller_failed`.
    pub kind: String,
    /// Why the attempt or the agent failed.
    pub cause: Cause,
    /// The message of the panic or error.
    pub message: String,
    /// Source file, line and column of a panic, where known.
    pub location: Option<String>,
    /// The agent that failed and its life at that time.
    pub agent: Option<(AgentId, Incarnation)>,
    /// The task that it performed.
    pub task: Option<TaskId>,
    /// Which try of the task it was.
    pub attempt: Option<u32>,
    /// Number of the injected fault behind it, if chaos did it.
    pub fault: Option<u64>,
    /// What was done: restarted after how long, quarantined, dead-lettered.
    pub action: String,
}
