//! One line of the event log, as whoever reads it sees it: names instead of numbers.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::{Cause, ClockKind, EndState, Outcome, QuotaTerms, Severity, Tally};
use crate::retry::RetryPolicy;

/// One line of the event log.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLine<'a> {
    /// Place in the log.
    pub seq: u64,
    /// Microseconds since the run began.
    pub at_us: u64,
    /// What happened.
    pub event: LineEvent<'a>,
}

/// A text of a line; borrowed unless it has escapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text<'a>(pub Cow<'a, str>);

/// What happened, in names. The names of variants and fields are those of the log.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "fields are the documented fields of the event log")]
#[non_exhaustive]
pub enum LineEvent<'a> {
    GuildStarted {
        epoch: u64,
        clock: ClockKind,
        durability: Text<'a>,
        roles: Vec<(String, u32)>,
        quotas: Vec<(String, QuotaTerms)>,
        commits_in_flight_max: u64,
        interruptions_max: u32,
        faults: bool,
    },
    PhaseStarted {
        phase: Text<'a>,
    },
    RunSubmitted {
        run: Text<'a>,
        tasks: u32,
        edges: u32,
        seed: u64,
    },
    RunJoined {
        run: Text<'a>,
    },
    RunCancelled {
        run: Text<'a>,
    },
    RunEnded {
        run: Text<'a>,
        outcome: Outcome,
        tally: Tally,
        makespan_us: u64,
    },
    AgentStarted {
        agent: Text<'a>,
        role: Text<'a>,
        incarnation: u64,
    },
    AgentCrashed {
        agent: Text<'a>,
        incarnation: u64,
        cause: Cause,
        message: Text<'a>,
        task: Option<TaskText<'a>>,
    },
    AgentRestarted {
        agent: Text<'a>,
        incarnation: u64,
        delay_us: u64,
    },
    AgentQuarantined {
        agent: Text<'a>,
        reason: Text<'a>,
        until_us: Option<u64>,
    },
    AgentReleased {
        agent: Text<'a>,
        reason: Text<'a>,
    },
    AgentStopped {
        agent: Text<'a>,
        incarnation: u64,
        reason: Text<'a>,
    },
    RoleLost {
        role: Text<'a>,
        reason: Text<'a>,
    },
    ThreadHeld {
        agent: Text<'a>,
        held_us: u64,
    },
    LetterRetried {
        task: TaskText<'a>,
        retry_run: Text<'a>,
    },
    LetterDiscarded {
        task: TaskText<'a>,
        note: Text<'a>,
    },
    TaskAdded {
        task: TaskText<'a>,
        role: Text<'a>,
        after: Vec<Text<'a>>,
        spawned_by: Option<Text<'a>>,
        terms: Box<Terms>,
    },
    TaskReady {
        task: TaskText<'a>,
    },
    TaskAssigned {
        task: TaskText<'a>,
        lease: LeaseText<'a>,
    },
    TaskReturned {
        task: TaskText<'a>,
        lease: LeaseText<'a>,
    },
    TaskCompleted {
        task: TaskText<'a>,
        lease: LeaseText<'a>,
        version: u64,
    },
    TaskFailed {
        task: TaskText<'a>,
        attempt: u32,
        agent: Text<'a>,
        incarnation: u64,
        cause: Cause,
        message: Text<'a>,
        retry_at_us: Option<u64>,
    },
    TaskEnded {
        task: TaskText<'a>,
        state: EndState,
    },
    TaskPoisoned {
        task: TaskText<'a>,
        kills: u32,
    },
    StaleResult {
        task: TaskText<'a>,
        token: u64,
        agent: Text<'a>,
        incarnation: u64,
    },
    FaultInjected {
        fault: u64,
        r#type: Text<'a>,
        site: Text<'a>,
        agent: Option<Text<'a>>,
        task: Option<TaskText<'a>>,
        attempt: Option<u32>,
    },
    IncidentOpened {
        incident: u64,
        severity: Severity,
        r#type: Text<'a>,
        agent: Option<Text<'a>>,
        task: Option<TaskText<'a>>,
        attempt: Option<u32>,
        fault: Option<u64>,
        cause: Cause,
        message: Text<'a>,
        action: Text<'a>,
    },
    /// Everything that it took down works again; the agent is the one that took over the task.
    IncidentRecovered {
        incident: u64,
        took_us: u64,
        agent: Option<Text<'a>>,
        attempt: Option<u32>,
    },
    IncidentAcknowledged {
        incident: u64,
        note: Text<'a>,
    },
    MemoryCommitted {
        version: u64,
        task: Option<TaskText<'a>>,
        writes: u32,
        history: Option<Box<HistoryText<'a>>>,
    },
    QuotaChanged {
        quota: Text<'a>,
        in_use: u32,
        limit: u32,
    },
    /// A kind that is not known here.
    Other {
        kind: Text<'a>,
    },
}

impl<'a> LineEvent<'a> {
    /// Returns the task that the event is about.
    pub fn task(&self) -> Option<&TaskText<'a>> {
        match self {
            Self::TaskAdded { task, .. }
            | Self::TaskReady { task }
            | Self::TaskAssigned { task, .. }
            | Self::TaskReturned { task, .. }
            | Self::TaskCompleted { task, .. }
            | Self::TaskFailed { task, .. }
            | Self::TaskEnded { task, .. }
            | Self::TaskPoisoned { task, .. }
            | Self::StaleResult { task, .. } => Some(task),
            Self::AgentCrashed { task, .. }
            | Self::FaultInjected { task, .. }
            | Self::IncidentOpened { task, .. }
            | Self::MemoryCommitted { task, .. } => task.as_ref(),
            _ => None,
        }
    }

    /// Returns the name of the run that the event is about, or whose task.
    pub fn run(&self) -> Option<&str> {
        match self {
            Self::RunSubmitted { run, .. }
            | Self::RunJoined { run }
            | Self::RunCancelled { run }
            | Self::RunEnded { run, .. } => Some(run),
            _ => self.task().map(|task| &*task.run),
        }
    }

    /// Returns the name of the agent that the event is about.
    pub fn agent(&self) -> Option<&str> {
        match self {
            Self::AgentStarted { agent, .. }
            | Self::AgentCrashed { agent, .. }
            | Self::AgentRestarted { agent, .. }
            | Self::AgentQuarantined { agent, .. }
            | Self::AgentReleased { agent, .. }
            | Self::AgentStopped { agent, .. }
            | Self::ThreadHeld { agent, .. }
            | Self::TaskFailed { agent, .. }
            | Self::StaleResult { agent, .. } => Some(agent),
            Self::TaskAssigned { lease, .. }
            | Self::TaskReturned { lease, .. }
            | Self::TaskCompleted { lease, .. } => Some(&lease.agent),
            Self::FaultInjected { agent, .. }
            | Self::IncidentOpened { agent, .. }
            | Self::IncidentRecovered { agent, .. } => agent.as_deref(),
            _ => None,
        }
    }
}

/// A task by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskText<'a> {
    /// The name of its run.
    pub run: Text<'a>,
    /// Its full name within the run.
    pub task: Text<'a>,
}

/// Who holds a task, and by which right.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the documented fields of the event log")]
pub struct LeaseText<'a> {
    pub attempt: u32,
    pub agent: Text<'a>,
    pub incarnation: u64,
    pub token: u64,
}

/// A range that is no prefix: its first key, the first key behind it (none: it has no end), the last key
/// that was seen (none: all of it), and how many.
pub type SpanText<'a> = (Text<'a>, Option<Text<'a>>, Option<Text<'a>>, u64);

/// What a commit has read and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryText<'a> {
    /// The version that was read.
    pub snapshot: u64,
    /// Each key with the version that it had; none: it was absent.
    pub reads: Vec<(Text<'a>, Option<u64>)>,
    /// Each scanned prefix: the last key that was seen (none: all of it), and how many.
    pub ranges: Vec<(Text<'a>, Option<Text<'a>>, u64)>,
    /// Each other scanned range.
    pub spans: Vec<SpanText<'a>>,
    /// The keys that were written, as `+key`, and those that were removed, as `-key`.
    pub keys: Vec<Text<'a>>,
}

/// What a task asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Time limit of one attempt.
    pub timeout: Duration,
    /// Longest time between two heartbeats.
    pub heartbeat: Option<Duration>,
    /// Higher goes first.
    pub priority: i32,
    /// What each attempt takes of which quota.
    pub quotas: Vec<(String, u32)>,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// How long the task is expected to take.
    pub expected: Duration,
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: serde::de::Error>(
                self,
                text: &'de str,
            ) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AnyText)
    }
}
