//! Leases a task to an agent, and accounts for it wherever the lease is dropped.

use guild_core::event::Cause;
use guild_core::id::{AgentId, FencingToken, Incarnation, TaskId};
use guild_core::planner::{AttemptResult, Input};
use guild_memory::Completion;

use crate::mailbox::Inbox;
use crate::message::SchedulerMessage;

/// A lease on a task; it accounts for the task wherever it is dropped.
///
/// Dropped before the attempt began it hands the task back, and no attempt is consumed.
pub(crate) struct Lease {
    pub(crate) agent: AgentId,
    pub(crate) incarnation: Incarnation,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) token: FencingToken,
    scheduler: Option<Inbox<SchedulerMessage>>,
}

impl Lease {
    /// Returns a lease that reports to this scheduler.
    pub(crate) fn new(
        agent: AgentId,
        incarnation: Incarnation,
        task: TaskId,
        attempt: u32,
        token: FencingToken,
        scheduler: Inbox<SchedulerMessage>,
    ) -> Self {
        Self { agent, incarnation, task, attempt, token, scheduler: Some(scheduler) }
    }

    /// Returns a lease on the same attempt that reports nothing: that of a message that arrives
    /// twice.
    pub(crate) fn copy(&self) -> Self {
        let Self { agent, incarnation, task, attempt, token, .. } = *self;
        Self { agent, incarnation, task, attempt, token, scheduler: None }
    }

    /// Hands in a copy; the lease goes on.
    pub(crate) fn repeat(&self, work: Completion) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.push(SchedulerMessage::HandIn(work));
        }
    }

    /// Ends the lease with this message.
    pub(crate) fn end_with(&mut self, message: SchedulerMessage) {
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.push(message);
        }
    }

    /// Gives back a lease whose agent had no room for it; the agent is not to blame.
    pub(crate) fn refuse(mut self) {
        self.finish(AttemptResult::Failed {
            cause: Cause::AgentLost,
            message: "the mailbox of the agent was full".into(),
            retryable: true,
            retry_after: None,
        });
    }

    /// Reports how the attempt ended.
    pub(crate) fn finish(&mut self, result: AttemptResult) {
        let (agent, incarnation, task, token) =
            (self.agent, self.incarnation, self.task, self.token);
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.push(SchedulerMessage::Tell(Input::Finished {
                agent,
                incarnation,
                task,
                token,
                result,
            }));
        }
    }

    /// Ends a lease that was never handed out; nothing is reported.
    pub(crate) fn void(mut self) {
        self.settle();
    }

    /// The scheduler knows already; nothing is reported.
    pub(crate) fn settle(&mut self) {
        self.scheduler = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.finish(AttemptResult::NotStarted);
    }
}
