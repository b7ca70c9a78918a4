//! A task as the log tells of it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use guild_core::event::{Cause, EndState, LineEvent, Terms};
use guild_core::retry::RetryPolicy;

use super::AgentNo;

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checker) enum Status {
    /// It was added.
    Waiting,
    /// It could run.
    Ready,
    /// An agent has it, or its result is being committed.
    Leased,
    /// It failed; it is tried again at this time, or never.
    Backoff(Option<u64>),
    /// It completed.
    Completed,
    /// It ended otherwise.
    Ended(EndState),
}

/// A task in the hands of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checker) struct Lease {
    pub(in crate::checker) attempt: u32,
    pub(in crate::checker) agent: AgentNo,
    pub(in crate::checker) incarnation: u64,
    pub(in crate::checker) token: u64,
    pub(in crate::checker) since_us: u64,
    /// Whether the process ended in which it was given.
    pub(in crate::checker) is_orphaned: bool,
}

/// A task.
#[derive(Debug)]
pub(in crate::checker) struct Task {
    pub(in crate::checker) name: Arc<str>,
    /// Whether it was added; a task may be named as a dependency before.
    pub(in crate::checker) is_added: bool,
    pub(in crate::checker) role: Arc<str>,
    pub(in crate::checker) terms: Arc<Terms>,
    pub(in crate::checker) status: Status,
    pub(in crate::checker) lease: Option<Lease>,
    /// Tasks before it whose scope is open.
    pub(in crate::checker) pending: u32,
    /// Whether a task before it did not complete, or something that it spawned.
    pub(in crate::checker) is_doomed: bool,
    /// The newest version that the tasks before it committed.
    pub(in crate::checker) needs_version: u64,
    /// The newest version that it and what it spawned committed.
    pub(in crate::checker) version: u64,
    /// Attempts that were assigned and not returned.
    pub(in crate::checker) attempts: u32,
    /// Attempts that failed by the task's own fault.
    pub(in crate::checker) failures: u32,
    /// Whether it has taken down more agents than a task may.
    pub(in crate::checker) is_poison: bool,
    /// Attempts that were lost otherwise.
    pub(in crate::checker) interruptions: u32,
    /// The agent that failed it last.
    pub(in crate::checker) avoid: Option<AgentNo>,
    /// Whether the process started again since something happened to it.
    pub(in crate::checker) is_recovered: bool,
    /// It and all that it spawned have ended.
    pub(super) is_closed: bool,
    pub(super) is_tainted: bool,
    pub(super) children_open: u32,
    pub(in crate::checker) parent: Option<u32>,
    pub(in crate::checker) followers: Vec<u32>,
}

static NO_TERMS: LazyLock<Arc<Terms>> = LazyLock::new(|| {
    Arc::new(Terms {
        timeout: Duration::ZERO,
        heartbeat: None,
        priority: 0,
        quotas: Vec::new(),
        retry: RetryPolicy::default(),
        expected: Duration::ZERO,
    })
});

impl Task {
    pub(super) fn named(name: Arc<str>) -> Self {
        Self {
            role: Arc::clone(&name),
            name,
            is_added: false,
            terms: Arc::clone(&NO_TERMS),
            status: Status::Waiting,
            lease: None,
            pending: 0,
            is_doomed: false,
            needs_version: 0,
            version: 0,
            attempts: 0,
            failures: 0,
            is_poison: false,
            interruptions: 0,
            avoid: None,
            is_recovered: false,
            is_closed: false,
            is_tainted: false,
            children_open: 0,
            parent: None,
            followers: Vec::new(),
        }
    }

    /// Returns whether it has ended.
    pub(in crate::checker) fn is_over(&self) -> bool {
        matches!(self.status, Status::Completed | Status::Ended(_))
    }

    /// Takes in an event about it; returns the lease that ended with it.
    pub(super) fn take(
        &mut self,
        at_us: u64,
        event: &LineEvent<'_>,
        agent: Option<AgentNo>,
    ) -> Option<Lease> {
        if self.is_over() {
            return None;
        }
        match event {
            LineEvent::TaskReady { .. } => {
                self.status = Status::Ready;
                self.is_recovered = false;
                self.lease.take()
            }
            LineEvent::TaskAssigned { lease, .. } => {
                self.status = Status::Leased;
                self.attempts = lease.attempt;
                let agent = agent?;
                self.lease.replace(Lease {
                    attempt: lease.attempt,
                    agent,
                    incarnation: lease.incarnation,
                    token: lease.token,
                    since_us: at_us,
                    is_orphaned: false,
                })
            }
            LineEvent::TaskReturned { lease, .. } => {
                self.attempts = lease.attempt.saturating_sub(1);
                self.status = Status::Waiting;
                self.lease.take()
            }
            LineEvent::TaskFailed { cause, retry_at_us, .. } => {
                match cause {
                    Cause::AgentLost | Cause::Conflict => self.interruptions += 1,
                    Cause::Error | Cause::Panic | Cause::Timeout | Cause::Heartbeat => {
                        self.failures += 1;
                    }
                }
                self.status = Status::Backoff(*retry_at_us);
                self.avoid = agent;
                self.lease.take()
            }
            LineEvent::TaskPoisoned { .. } => {
                self.is_poison = true;
                None
            }
            LineEvent::TaskCompleted { version, .. } => {
                self.status = Status::Completed;
                self.version = *version;
                self.lease.take()
            }
            LineEvent::TaskEnded { state, .. } => {
                self.status = Status::Ended(*state);
                self.lease.take()
            }
            _ => None,
        }
    }
}
