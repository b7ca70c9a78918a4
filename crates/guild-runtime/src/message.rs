//! The messages between Guild's actors; one place shows who tells whom what.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use guild_core::event::{Cause, Event};
use guild_core::graph::{Bindings, Graph};
use guild_core::id::{AgentId, CommitVersion, FencingToken, Incarnation, RunId, TaskId};
use guild_core::incident::{AcknowledgeError, Attempt};
use guild_core::payload::Payload;
use guild_core::planner::{Input, Spawned};
use guild_memory::{Completion, KeyRange, RollbackError, TransactionParts};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::guild::SubmitError;
use crate::handle::TransactError;
use crate::host::Running;
use crate::lease::Lease;
use crate::run::RunReport;

/// To the scheduler.
#[derive(Debug)]
pub(crate) enum SchedulerMessage {
    /// From an agent, its supervisor, the memory or the handle: an input of the planner.
    Tell(Input),
    /// From an agent: its attempt is done and wants to be committed.
    HandIn(Completion),
    /// From the memory: a completion is durable.
    Committed {
        task: TaskId,
        token: FencingToken,
        version: CommitVersion,
        output: Payload,
        spawned: Spawned,
    },
    /// From an agent that chaos has struck: a result that arrives behind so many later ones.
    Late { behind: u32, result: Completion },
    /// From a timer: what was to arrive behind later messages has waited long enough.
    Release,
    /// From the handle: panic, for that is the fault of this number.
    Crash { fault: u64 },
    /// From the handle: answer with what is under way.
    Census { reply: oneshot::Sender<crate::guild::UnderWay> },
    /// From the controller: assign nothing more; answer when nothing is under way.
    Drain { idle: oneshot::Sender<()> },
    /// From the controller: take back what is under way and answer with how many there were.
    Halt { halted: oneshot::Sender<usize> },
}

/// To the memory.
pub(crate) enum MemoryMessage {
    /// From the scheduler: this lease may commit.
    Grant { task: TaskId, token: FencingToken },
    /// From anybody: record this.
    Record(Event),
    /// From the scheduler: commit a completion.
    Complete(Completion),
    /// From the scheduler: tell whoever waits for the run, once its end is durable.
    Ended(Box<RunReport>),
    /// From the handle: commit a new run.
    Submit {
        graph: Arc<Graph>,
        bindings: Bindings,
        reply: oneshot::Sender<Result<RunId, SubmitError>>,
    },
    /// From the handle: commit a transaction; all tries of one call have the same number.
    Transact {
        caller: u64,
        parts: Box<TransactionParts>,
        reply: oneshot::Sender<Result<CommitVersion, TransactError>>,
    },
    /// From the handle: return to an earlier version.
    Rollback {
        range: KeyRange,
        version: CommitVersion,
        reply: oneshot::Sender<Result<CommitVersion, TransactError<RollbackError>>>,
    },
    /// From the handle: a person has seen an incident.
    Acknowledge {
        incident: u64,
        note: String,
        reply: oneshot::Sender<Result<(), AcknowledgeError>>,
    },
    /// From the committer thread: more groups reached their level, or the store failed.
    Acknowledged,
    /// From the handle: drop what is kept of a run that has ended.
    Forget { run: RunId },
    /// From the handle: this call ends without a commit.
    GiveUp { caller: u64 },
    /// From the memory itself: reservations have run out; look again at what waits for them.
    LookAgain,
    /// From the handle: answer after this delay.
    Pause { delay: Duration, done: oneshot::Sender<()> },
    /// From the simulated disk: a sync has taken its time.
    SyncOver,
    /// From the handle: write a checkpoint.
    Checkpoint { reply: crate::memory::CheckpointReply },
    /// From the controller: flush everything and close the store.
    Close { reply: oneshot::Sender<Result<(), String>> },
}

/// To an agent's host.
pub(crate) enum HostMessage {
    /// From the scheduler: perform this task.
    Assign(Assign),
    /// From the scheduler: drop a task, and end the life that performs it or has performed it
    /// without the scheduler's knowledge.
    Revoke(Revoke),
    /// From the supervisor: begin this life.
    Revive(Revive),
    /// From the supervisor: end this life, and what it performs; another one may follow.
    Stop { incarnation: Incarnation },
    /// From the supervisor: end.
    Retire,
    /// From chaos: panic, for that is the fault of this number.
    Blow { fault: u64 },
}

/// A task to be performed.
pub(crate) struct Assign {
    pub(crate) lease: Lease,
    pub(crate) input: Payload,
    pub(crate) deadline: Instant,
}

/// A task that is taken back.
pub(crate) struct Revoke {
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) token: FencingToken,
    pub(crate) incarnation: Incarnation,
    pub(crate) cause: Option<Cause>,
    /// Number of the fault that has struck the assignment on its way.
    pub(crate) fault: Option<u64>,
}

/// A life to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revive {
    pub(crate) incarnation: Incarnation,
    /// Whether the supervisor wants to know when its first piece of work is done.
    pub(crate) probe: bool,
}

/// To the supervisor.
#[derive(Debug)]
pub(crate) enum SupervisorMessage {
    /// From an agent: it is up.
    ChildUp { agent: AgentId, incarnation: Incarnation },
    /// From an agent on probation: it has done a piece of work.
    ChildPassed { agent: AgentId, incarnation: Incarnation },
    /// From the scheduler: the newest failures of these agents were not their own.
    Forgive { victims: Vec<AgentId> },
    /// From an agent: its life ended.
    ChildDown(Box<ChildDown>),
    /// From the watchdog: this agent has held its thread so long that it was fenced.
    Hung(Box<Hang>),
    /// From the watchdog: a thread that was fenced runs again.
    Awake { thread: u16 },
    /// From the controller: end all agents, and answer with what is left.
    Stop { stopped: oneshot::Sender<Left> },
}

/// An agent that has held its thread so long that it was given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hang {
    pub(crate) thread: u16,
    pub(crate) agent: AgentId,
    pub(crate) held: Duration,
    /// The attempt that it performs; none: it was starting or ending.
    pub(crate) attempt: Option<Running>,
    /// Number of the fault that made it hang.
    pub(crate) fault: Option<u64>,
}

/// What is left when all agents have ended.
#[derive(Default)]
pub(crate) struct Left {
    /// Agents that did not stop in time.
    pub(crate) agents: u32,
    /// The threads on which agents lived, to be stopped.
    pub(crate) threads: Vec<Arbiter>,
}

impl std::fmt::Debug for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Left").field("agents", &self.agents).finish_non_exhaustive()
    }
}

/// Why the life of an agent ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// By a failure.
    Failed(Failure),
    /// Its task was cancelled: nobody is to blame.
    Cancelled,
    /// Its supervisor stopped it.
    Stopped,
    /// It wanted to.
    Retired,
}

impl Ended {
    /// Returns what there is to tell about it.
    pub(crate) fn message(&self) -> Box<str> {
        match self {
            Self::Failed(failure) => failure.message.clone(),
            Self::Cancelled => "the attempt was cancelled".into(),
            Self::Stopped => "its supervisor stopped it with others that it belongs to".into(),
            Self::Retired => "it has ended its life in order".into(),
        }
    }
}

/// How the life of an agent ended.
#[derive(Debug)]
pub(crate) struct ChildDown {
    pub(crate) agent: AgentId,
    pub(crate) incarnation: Incarnation,
    pub(crate) ended: Ended,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) fault: Option<u64>,
    /// Whether the scheduler has to hear of it; not when it has revoked the lease itself.
    pub(crate) unknown_to_scheduler: bool,
    /// Where the parked cell waits for its next life; none: send [`Revive`].
    pub(crate) parked: Option<oneshot::Sender<Revive>>,
}

/// To the controller.
#[derive(Debug)]
pub(crate) enum ControllerMessage {
    /// From the handle: end the guild.
    Shutdown {
        drain: crate::guild::Drain,
        reply: oneshot::Sender<Result<crate::guild::ShutdownReport, String>>,
    },
}
