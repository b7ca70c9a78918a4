//! Describes one failure for the person who oversees the guild, and what became of it.
//!
//! A failure opens an incident; it is recovered when everything that it took down works again, and
//! acknowledged when a person has seen it. The record says all that is known at the time: what
//! went wrong and behind what, who did what for whom, what was lost, and what was done. The rest of
//! this module decides about incidents, purely: [`IncidentBook`] numbers, groups, follows and
//! forgets them, [`Summary`] tells what fails most.

mod book;
mod fingerprint;
mod reason;
mod summary;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use book::{AcknowledgeError, Group, IncidentBook};
pub use fingerprint::pattern;
pub use reason::Reason;
pub use summary::{Row, Summary};

use crate::event::{Cause, EndState, Severity};
use crate::id::{AgentId, FencingToken, Incarnation, RoleId, TaskId};
use crate::time::Timestamp;

/// What went wrong, where, what was done about it, and whether it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Number of the incident: 1, 2, 3, ...
    pub number: u64,
    /// When it was opened.
    pub at: Timestamp,
    /// What failed and what is known of it.
    pub report: Report,
    /// Incidents of one pattern share it: same kind, reason, role and place.
    pub fingerprint: u64,
    /// How it ended by itself; none: it has not.
    pub recovery: Option<Recovery>,
    /// What the person said who has seen it; none: nobody has.
    pub acknowledgement: Option<Acknowledgement>,
}

/// A failure, before it has the number of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What failed.
    pub kind: IncidentKind,
    /// How much it matters.
    pub severity: Severity,
    /// Why the attempt or the agent failed.
    pub cause: Cause,
    /// What exactly went wrong.
    pub reason: Reason,
    /// The message of the panic or error.
    pub message: Box<str>,
    /// What was behind it, the nearest first: sources of an error, last words of a process, a
    /// second panic while the agent was dropped.
    pub causes: Vec<Box<str>>,
    /// Source file, line and column of a panic, where known.
    pub location: Option<Box<str>>,
    /// The stack at the panic, where backtraces are enabled.
    pub backtrace: Option<Box<str>>,
    /// The agent that failed and its life at that time.
    pub agent: Option<(AgentId, Incarnation)>,
    /// The attempt that it performed.
    pub attempt: Option<Attempt>,
    /// Number of the injected fault behind it, if chaos did it.
    pub fault: Option<u64>,
    /// What was done.
    pub action: Action,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IncidentKind {
    /// The life of an agent ended with a failure.
    AgentCrashed,
    /// A task was given up.
    TaskFailed,
    /// An actor of the control plane panicked.
    ControllerFailed,
    /// An agent panicked while it was dropped, after its life had ended.
    DropPanicked,
    /// The supervisor of a role or group gave up.
    SupervisorGaveUp,
    /// A role has lost all its agents for good.
    RoleLost,
    /// A conflict in the memory that its namespace leaves to a person.
    MemoryConflict,
    /// The store did not do what it had to, and was opened again.
    StoreFailed,
    /// A checkpoint took the place of a store that could not be used.
    StoreRestored,
    /// A checkpoint could not be written.
    CheckpointFailed,
    /// The host of an agent panicked while the agent had no life to lose.
    HostPanicked,
}

/// The attempt that failed, and what was lost with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The task.
    pub task: TaskId,
    /// Which try of it.
    pub number: u32,
    /// The token of its lease; none: it is not known any more.
    pub token: Option<FencingToken>,
    /// When the agent last renewed the lease; none: it never did.
    pub last_heartbeat: Option<Timestamp>,
    /// What it had done and never committed.
    pub discarded: Discarded,
}

/// What an attempt had done that was dropped with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// Keys of the memory that it would have changed.
    pub writes: u32,
    /// Tasks that it would have spawned.
    pub spawned: u32,
}

/// What was done about a failure, at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// The agent gets another life after this time.
    Restart {
        /// The delay.
        delay_us: u64,
    },
    /// The agent gets no work until then.
    Quarantine {
        /// When it is released.
        until: Timestamp,
    },
    /// The agent gets another life when those that it belongs to have stopped.
    RestartTogether,
    /// The agent's supervisor gives up.
    Escalate,
    /// The agent is not started again: its restart type says so, or the guild ends.
    LeaveDown,
    /// A role or group is started again after this time.
    RestartSubtree {
        /// Its name.
        of: Box<str>,
        /// The delay.
        delay_us: u64,
    },
    /// A role or group gets no work until then.
    QuarantineSubtree {
        /// Its name.
        of: Box<str>,
        /// When it is released.
        until: Timestamp,
    },
    /// A role or group is started again with those that it belongs to.
    RestartSubtreeTogether {
        /// Its name.
        of: Box<str>,
    },
    /// A role or group is not started again.
    DropSubtree {
        /// Its name.
        of: Box<str>,
    },
    /// Tasks that ask for the role fail.
    FailTasks,
    /// The task ends, and so do those that wait for it.
    GiveUp {
        /// How it ended.
        state: EndState,
    },
    /// The actor goes on.
    RestartActor,
    /// The guild takes no more work.
    StopGuild,
    /// Nothing had to be done: it was dropped in any case.
    Nothing,
    /// Nothing was committed; a person decides.
    Decide,
    /// The store is opened again, and what it had not acknowledged is written once more.
    ReopenStore,
    /// A checkpoint is the store now.
    RestoreStore {
        /// The checkpoint.
        checkpoint: Box<str>,
        /// Where the damaged store is kept.
        kept: Box<str>,
    },
    /// The store goes on without a checkpoint.
    SkipCheckpoint,
}

/// How an incident ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// When everything that it took down worked again.
    pub at: Timestamp,
    /// The agent that took over the task, and with which try; none: nobody had to.
    pub reassigned: Option<(AgentId, u32)>,
}

/// What the person said who has seen an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// When.
    pub at: Timestamp,
    /// What.
    pub note: Box<str>,
}

/// How far an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// What it took down does not work yet.
    Open,
    /// Everything works again, and nobody has looked at it.
    Recovered,
    /// A person has seen it.
    Acknowledged,
}

impl Report {
    /// Returns the report of a failure in which no agent and no panic had a part.
    pub fn of_service(kind: IncidentKind, message: impl Into<Box<str>>, action: Action) -> Self {
        Self {
            kind,
            severity: Severity::Error,
            cause: Cause::Error,
            reason: Reason::Error,
            message: message.into(),
            causes: Vec::new(),
            location: None,
            backtrace: None,
            agent: None,
            attempt: None,
            fault: None,
            action,
        }
    }
}

impl Incident {
    /// Returns how far the incident is; what a person said counts most.
    pub fn state(&self) -> IncidentState {
        match (&self.acknowledgement, &self.recovery) {
            (Some(_), _) => IncidentState::Acknowledged,
            (None, Some(_)) => IncidentState::Recovered,
            (None, None) => IncidentState::Open,
        }
    }

    /// Returns the role of the agent that failed.
    pub fn role(&self) -> Option<RoleId> {
        self.report.agent.map(|(agent, _)| agent.role)
    }

    /// Returns how long it took until everything worked again.
    pub fn time_to_recover(&self) -> Option<Duration> {
        Some(self.recovery?.at.since(self.at))
    }
}

impl IncidentKind {
    /// Returns the kind's name in the event log.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentCrashed => "agent_crashed",
            Self::TaskFailed => "task_failed",
            Self::ControllerFailed => "controller_failed",
            Self::DropPanicked => "drop_panicked",
            Self::SupervisorGaveUp => "supervisor_gave_up",
            Self::RoleLost => "role_lost",
            Self::MemoryConflict => "memory_conflict",
            Self::StoreFailed => "store_failed",
            Self::StoreRestored => "store_restored",
            Self::CheckpointFailed => "checkpoint_failed",
            Self::HostPanicked => "host_panicked",
        }
    }
}

impl IncidentState {
    /// All states with their names.
    pub const ALL: [(&str, Self); 3] = [
        ("open", Self::Open),
        ("recovered", Self::Recovered),
        ("acknowledged", Self::Acknowledged),
    ];

    /// Returns the state's name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, state)| *state == self);
        found.map_or("open", |(name, _)| name)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart { delay_us } => write!(f, "restarted after {delay_us} us"),
            Self::Quarantine { until } => write!(f, "quarantined until {} us", until.0),
            Self::RestartTogether => f.write_str("restarted with the others that it belongs to"),
            Self::Escalate => f.write_str("its supervisor gives up"),
            Self::LeaveDown => f.write_str("not started again"),
            Self::RestartSubtree { of, delay_us } => {
                write!(f, "`{of}` is started again after {delay_us} us")
            }
            Self::QuarantineSubtree { of, until } => {
                write!(f, "`{of}` is quarantined until {} us; the others serve on", until.0)
            }
            Self::RestartSubtreeTogether { of } => {
                write!(f, "`{of}` is restarted with the others that it belongs to")
            }
            Self::DropSubtree { of } => {
                write!(f, "`{of}` is not started again; tasks that ask for it fail")
            }
            Self::FailTasks => f.write_str("tasks that ask for it fail"),
            Self::GiveUp { state: EndState::DeadLettered } => {
                f.write_str("dead-lettered; tasks that depend on it are skipped")
            }
            Self::GiveUp { .. } => f.write_str("given up; tasks that depend on it are skipped"),
            Self::RestartActor => f.write_str("restarted"),
            Self::StopGuild => {
                f.write_str("the guild takes no more work; start it again on its store")
            }
            Self::Nothing => f.write_str("the agent's life was over already"),
            Self::Decide => {
                f.write_str("nothing was committed; a person decides which value holds")
            }
            Self::ReopenStore => {
                f.write_str("opened again; what was not acknowledged is written once more")
            }
            Self::RestoreStore { checkpoint, kept } => write!(
                f,
                "checkpoint {checkpoint} has taken its place; what was committed after it is \
                 lost, and the damaged store is kept in {kept}"
            ),
            Self::SkipCheckpoint => {
                f.write_str("the store goes on without it; the checkpoints before are kept")
            }
        }
    }
}
