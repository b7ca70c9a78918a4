//! Records what happened: the engine's only output.
//!
//! The command line, the page, recovery and the invariant checkers read events and nothing else.
//! An event holds ids; [`EventRecord`] adds the place and the time it got in the log. Names are
//! put in by [`crate::event::Names`] when a line is written for outsiders.

use serde::{Deserialize, Serialize};

mod kind;
mod line;
mod read;
mod terms;
mod told;

pub use line::{Names, line, write_line};
pub use read::{LineError, parse_line};
pub use told::{EventLine, HistoryText, LeaseText, LineEvent, SpanText, TaskText, Terms, Text};

use crate::id::{
    AgentId, BootEpoch, CommitVersion, FencingToken, Incarnation, QuotaId, RoleId, RunId, TaskId,
};
use crate::incident::Incident;
use crate::planner::ReadyOrder;
use crate::time::Timestamp;

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Place in the log: 1, 2, 3, ... without a gap.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The agent answered with an error.
    Error,
    /// The agent panicked while it performed the task.
    Panic,
    /// The attempt took longer than its task allows.
    Timeout,
    /// The agent did not renew its lease in time.
    Heartbeat,
    /// The agent was gone before it answered.
    AgentLost,
    /// What the task had read changed before it could commit.
    Conflict,
}

/// How a task ended that did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    /// It answered with an error and its attempts are used up, or the error said not to retry.
    Failed,
    /// It took its agents down (panic, timeout, lost heartbeat) until its attempts were used up.
    DeadLettered,
    /// A task that it depends on did not complete.
    Skipped,
    /// Its run was cancelled.
    Cancelled,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every task completed.
    Completed,
    /// Some task failed or was dead-lettered.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// How much an incident matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Recovered without a person.
    Warning,
    /// A person must act.
    Error,
}

/// How many tasks of a run ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Tasks that completed.
    pub completed: u32,
    /// Tasks that failed or were dead-lettered.
    pub failed: u32,
    /// Tasks that were skipped.
    pub skipped: u32,
    /// Tasks that were cancelled.
    pub cancelled: u32,
}

/// Whose time the log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// The time of the machine.
    Real,
    /// The time of a simulation: it stands still while anything can be done.
    Virtual,
}

/// How much of a quota there is. Not untagged, as its line is: a store could not read it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are the documented fields of the event log")]
pub enum QuotaTerms {
    Permits { permits: u32 },
    Rate { amount: u32, per_us: u64, burst: u32 },
}

/// What a guild was started with, as far as it explains its log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are the documented fields of the event log")]
pub struct Setup {
    pub clock: ClockKind,
    pub order: ReadyOrder,
    pub durability: Box<str>,
    pub roles: Vec<(Box<str>, u32)>,
    pub quotas: Vec<(Box<str>, QuotaTerms)>,
    pub commits_in_flight_max: usize,
    pub interruptions_max: u32,
    /// Whether faults may be injected.
    pub faults: bool,
}

/// What a commit has read and written, when the guild records histories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// The snapshot that was read.
    pub snapshot: CommitVersion,
    /// Each key with the version that it had; none: it was absent.
    pub keys: Vec<(String, Option<CommitVersion>)>,
    /// Each scanned prefix: the last key that was seen (none: all of it), and how many.
    pub ranges: Vec<(String, Option<String>, u64)>,
    /// Each other scanned range: its first key, the first key behind it (none: it has no end), the
    /// last key that was seen (none: all of it), and how many.
    pub spans: Vec<(String, Option<String>, Option<String>, u64)>,
    /// The keys that were written, as `+key`, and those that were removed, as `-key`.
    pub written: Vec<String>,
}

/// What happened. The names of variants and fields are the `kind`s and fields of the event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are the documented fields of the event log")]
#[non_exhaustive]
pub enum Event {
    GuildStarted {
        epoch: BootEpoch,
        setup: Box<Setup>,
    },
    PhaseStarted {
        phase: Box<str>,
    },
    RunSubmitted {
        run: RunId,
        tasks: u32,
        edges: u32,
        seed: u64,
    },
    AgentStarted {
        agent: AgentId,
        role: RoleId,
        incarnation: Incarnation,
    },
    TaskAdded {
        task: TaskId,
        role: RoleId,
        after: Box<[TaskId]>,
        spawned_by: Option<TaskId>,
    },
    TaskReady {
        task: TaskId,
    },
    TaskAssigned {
        task: TaskId,
        attempt: u32,
        agent: AgentId,
        incarnation: Incarnation,
        token: FencingToken,
    },
    TaskCompleted {
        task: TaskId,
        attempt: u32,
        agent: AgentId,
        incarnation: Incarnation,
        token: FencingToken,
        version: CommitVersion,
    },
    TaskFailed {
        task: TaskId,
        attempt: u32,
        agent: AgentId,
        incarnation: Incarnation,
        cause: Cause,
        message: Box<str>,
        retry_at: Option<Timestamp>,
    },
    TaskEnded {
        task: TaskId,
        state: EndState,
    },
    AgentCrashed {
        agent: AgentId,
        incarnation: Incarnation,
        cause: Cause,
        message: Box<str>,
        task: Option<TaskId>,
    },
    AgentRestarted {
        agent: AgentId,
        incarnation: Incarnation,
        delay_us: u64,
    },
    AgentQuarantined {
        agent: AgentId,
        reason: Box<str>,
        until: Option<Timestamp>,
    },
    AgentReleased {
        agent: AgentId,
        reason: Box<str>,
    },
    StaleResult {
        task: TaskId,
        token: FencingToken,
        agent: AgentId,
        incarnation: Incarnation,
    },
    FaultInjected {
        fault: u64,
        r#type: Box<str>,
        site: Box<str>,
        agent: Option<AgentId>,
        task: Option<TaskId>,
        attempt: Option<u32>,
    },
    IncidentOpened(Box<Incident>),
    IncidentRecovered {
        incident: u64,
        took_us: u64,
        /// The agent that took over the task, and with which try.
        reassigned: Option<(AgentId, u32)>,
    },
    IncidentAcknowledged {
        incident: u64,
        note: Box<str>,
    },
    MemoryCommitted {
        version: CommitVersion,
        task: Option<TaskId>,
        writes: u32,
        reads: Option<Box<Reads>>,
    },
    QuotaChanged {
        quota: QuotaId,
        in_use: u32,
        limit: u32,
    },
    RunEnded {
        run: RunId,
        outcome: Outcome,
        tally: Tally,
        makespan_us: u64,
    },
    RunCancelled {
        run: RunId,
    },
    /// A graph was submitted again under the name of a run that there is already.
    RunJoined {
        run: RunId,
    },
    /// An assignment did not reach its agent; the task is ready again, and no attempt is used up.
    TaskReturned {
        task: TaskId,
        attempt: u32,
        agent: AgentId,
        incarnation: Incarnation,
        token: FencingToken,
    },
    /// A life of an agent ended without a failure of its own: in order, or because others that it
    /// belongs together with are restarted.
    AgentStopped {
        agent: AgentId,
        incarnation: Incarnation,
        reason: Box<str>,
    },
    /// An agent has held its thread for long without an await; others on it wait.
    ThreadHeld {
        agent: AgentId,
        held_us: u64,
    },
    /// A task has taken down more agents than one may; it is dead-lettered.
    TaskPoisoned {
        task: TaskId,
        kills: u32,
    },
    /// A person has a dead letter tried again, as a run of its own.
    LetterRetried {
        task: TaskId,
        run: RunId,
    },
    /// A person has thrown a dead letter away.
    LetterDiscarded {
        task: TaskId,
        note: Box<str>,
    },
    /// No agent of a role will come back by itself; tasks that ask for it fail.
    RoleLost {
        role: RoleId,
        reason: Box<str>,
    },
}
