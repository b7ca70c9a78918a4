//! What the planner is told and what it answers.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Cause, Event, Outcome, Tally};
use crate::graph::{Bindings, Graph};
use crate::history::RunHistory;
use crate::id::{
    AgentId, CommitVersion, FencingToken, Incarnation, QuotaId, RoleId, RunId, TaskId, TaskIndex,
};

/// What happened to the guild.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are the ids and values that their types name")]
pub enum Input {
    /// A run was submitted and is durable.
    Submit {
        /// Its number.
        run: RunId,
        /// Its tasks.
        graph: Arc<Graph>,
        /// Its roles and quotas in this guild.
        bindings: Bindings,
    },
    /// An agent is up and free, in this life.
    AgentReady { agent: AgentId, incarnation: Incarnation },
    /// An agent's life ended; what it held is lost.
    AgentDown {
        agent: AgentId,
        incarnation: Incarnation,
        cause: Cause,
        message: Box<str>,
        /// Whether somebody stopped it: what it performed has nothing to do with it.
        stopped: bool,
    },
    /// No agent of the role will come back by itself: tasks that ask for it fail, until one is up
    /// again after all.
    RoleLost { role: RoleId },
    /// An agent works on.
    Heartbeat { agent: AgentId, task: TaskId, token: FencingToken },
    /// An agent will not be heard of for this long, and works on.
    Wait { agent: AgentId, task: TaskId, token: FencingToken, lasts: Duration },
    /// An attempt ended.
    Finished {
        agent: AgentId,
        incarnation: Incarnation,
        task: TaskId,
        token: FencingToken,
        result: AttemptResult,
    },
    /// The memory committed a completion; final.
    Committed {
        task: TaskId,
        token: FencingToken,
        version: CommitVersion,
        /// Tasks that were committed with it.
        spawned: Spawned,
    },
    /// The memory refused a completion.
    CommitRefused { task: TaskId, token: FencingToken, refusal: Refusal },
    /// A quota has another number of permits from now on; those that are held stay held.
    Permits { quota: QuotaId, permits: u32 },
    /// A person wants a run to end.
    Cancel { run: RunId },
    /// Time passed.
    Tick,
}

/// Tasks that a task spawned, with their places in the guild; boxed, as most tasks spawn none.
pub type Spawned = Option<Box<(Arc<Graph>, Bindings)>>;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the ids and values that their types name")]
pub enum AttemptResult {
    /// With an output that waits to be committed.
    Done,
    /// It never began (the agent was down or full): assign it again, no attempt is consumed.
    NotStarted,
    /// It failed.
    Failed { cause: Cause, message: Box<str>, retryable: bool, retry_after: Option<Duration> },
}

/// Why the memory refused a completion.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the message is a message")]
pub enum Refusal {
    /// What the task read has changed; try again, at once if it is reserved for the task now.
    Conflict { message: Box<str>, reserved: bool },
    /// The transaction breaks a rule; trying again cannot help.
    Invalid { message: Box<str> },
    /// The task has a newer lease, or has ended.
    StaleToken,
}

/// What the planner wants done.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the ids and values that their types name")]
pub enum Command {
    /// Give the task to the agent.
    Assign {
        task: TaskId,
        attempt: u32,
        agent: AgentId,
        incarnation: Incarnation,
        token: FencingToken,
        timeout: Duration,
    },
    /// Take the task away from the agent: its life ends with the attempt (timeout, cancellation).
    Revoke {
        task: TaskId,
        attempt: u32,
        agent: AgentId,
        incarnation: Incarnation,
        token: FencingToken,
        cause: Option<Cause>,
    },
    /// Commit what the attempt handed in.
    Commit {
        task: TaskId,
        attempt: u32,
        agent: AgentId,
        incarnation: Incarnation,
        token: FencingToken,
    },
    /// Drop what the attempt handed in.
    Discard { task: TaskId, token: FencingToken },
    /// Hold the end of their lives against these agents no longer: a task is to blame.
    Forgive { victims: Vec<AgentId> },
    /// Tell whoever waits for the run.
    EndRun { run: RunId, outcome: Outcome, tally: Tally, makespan_us: u64 },
}

/// The planner's answer to one or more inputs, in order.
#[derive(Debug, Default)]
pub struct Decisions {
    /// What to do.
    pub commands: Vec<Command>,
    /// What to record, before anything is done.
    pub events: Vec<Event>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tasks of the run so far, spawned ones included.
    pub total: u32,
    /// Tasks that ended, by how.
    pub ended: Tally,
    /// Tasks that an agent performs or that wait for their commit.
    pub running: u32,
    /// Tasks that could run.
    pub ready: u32,
}

/// A run from before a restart.
#[derive(Clone, Debug)]
pub struct RestoredRun {
    /// Its number.
    pub run: RunId,
    /// Its submitted tasks.
    pub graph: Arc<Graph>,
    /// Its roles and quotas in this guild.
    pub bindings: Bindings,
    /// The tasks that were spawned, with who spawned them, in the order of their commits.
    pub spawned: Vec<(TaskIndex, Arc<Graph>, Bindings)>,
    /// What the log says of its tasks.
    pub history: RunHistory,
}

impl Decisions {
    /// Returns whether there is nothing to do and nothing to record.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.events.is_empty()
    }
}
