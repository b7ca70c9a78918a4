//! Lets chaos into the code that runs in production.
//!
//! The runtime knows only the trait [`FaultPoint`]; who injects what, and when, is decided by its
//! implementor. Injected faults take the same way as real ones, with a mark.

mod random;

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use guild_core::event::{EventRecord, Names};
use guild_core::id::{AgentId, TaskId};
use guild_core::time::Timestamp;

pub use random::{ChaosError, RandomFaults};

/// Where a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// An agent begins a life.
    Started,
    /// Before the agent begins to perform.
    BeforePerform,
    /// While the agent performs: it is visited when the work begins, and the fault strikes later.
    InPerform,
    /// After the agent has finished and before anybody knows.
    AfterPerform,
    /// While an agent is dropped.
    Dropped,
    /// An assignment is on its way to an agent.
    Assign,
    /// A result is on its way to the scheduler.
    HandIn,
    /// The memory is about to commit a completion.
    Commit,
    /// The memory is about to sync its store; visited where no thread of its own does that.
    Sync,
}

impl Site {
    /// Returns the site's name in the event log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::BeforePerform => "before_perform",
            Self::InPerform => "in_perform",
            Self::AfterPerform => "after_perform",
            Self::Dropped => "dropped",
            Self::Assign => "assign",
            Self::HandIn => "hand_in",
            Self::Commit => "commit",
            Self::Sync => "sync",
        }
    }
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The code at the site panics.
    Crash,
    /// The agent's host panics, and the assignment is queued behind.
    CrashQueued,
    /// The agent waits for ever; the task's timeout ends it.
    Hang,
    /// The agent, or the sync, takes this much longer.
    Slow(Duration),
    /// Nothing on the agent's thread moves for this long.
    Stall(Duration),
    /// The agent ends without a panic.
    Exit,
    /// The message is lost.
    Lose,
    /// The message arrives twice.
    Repeat,
    /// The message is this late.
    Delay(Duration),
    /// The message arrives behind this many later ones, or alone when none come.
    Reorder(u32),
    /// It is refused: the mailbox is full, or the commit conflicts.
    Refuse,
    /// The agent answers for a task that it was not given.
    WrongResult,
}

/// A fault and how it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// What happens.
    pub fault: Fault,
    /// What the log calls it.
    pub kind: &'static str,
    /// How far into the work; only at [`Site::InPerform`]. Work that is over by then is spared.
    pub after: Duration,
    /// What [`FaultPoint::struck`] is told.
    pub tag: u64,
    /// The number of the fault that this one only continues; it is not recorded again.
    pub continues: Option<u64>,
}

impl Strike {
    /// Returns a fault under the name of its kind.
    pub fn new(fault: Fault, kind: &'static str) -> Self {
        Self { fault, kind, after: Duration::ZERO, tag: 0, continues: None }
    }
}

/// What is about to happen at a site.
pub struct Hit<'a> {
    /// Where.
    pub site: Site,
    /// When.
    pub now: Timestamp,
    /// Which agent it concerns, unless it concerns the guild as a whole.
    pub agent: Option<AgentId>,
    /// Which task, unless the agent has none there.
    pub task: Option<TaskId>,
    /// Which try of the task.
    pub attempt: Option<u32>,
    /// The names of all of them.
    pub names: &'a dyn Names,
}

impl std::fmt::Debug for Hit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hit")
            .field("site", &self.site)
            .field("now", &self.now)
            .field("agent", &self.agent)
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Decides what is struck.
pub trait FaultPoint: Send + Sync + 'static {
    /// Returns the fault that strikes here and now. What makes no sense at the site is ignored.
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike>;

    /// Learns that the fault of this tag has struck and which number the log gives it.
    fn struck(&self, _tag: u64, _number: u64) {}

    /// Learns of each event, once it is durable.
    fn told(&self, _: &EventRecord) {}

    /// Returns how long a message is on its way to or from an agent. That is no fault; a simulation
    /// draws it so that it sees more than one order of events.
    fn latency(&self, _: &Hit<'_>) -> Duration {
        Duration::ZERO
    }

    /// Keeps the current thread from doing anything for this long. A simulation moves its clock
    /// instead.
    fn stall(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            #[expect(clippy::disallowed_methods, reason = "to block the thread is the fault")]
            std::thread::sleep(duration);
        })
    }
}
