//! Folds the event log of one run back into the states of its tasks.
//!
//! Recovery and the offline reader use it: the log is the truth, and this is how it is read.

use crate::event::{Cause, EndState, Event, EventRecord, Outcome, Tally};
use crate::id::{AgentId, CommitVersion, Incarnation, RunId, TaskId};
use crate::time::Timestamp;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// It completed in this commit.
    Completed(CommitVersion),
    /// It ended otherwise.
    Ended(EndState),
}

/// What the log says of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskHistory {
    /// Attempts that were assigned.
    pub attempts: u32,
    /// Attempts that failed by the task's own fault.
    pub failures: u32,
    /// Agents that it has surely taken down.
    pub kills: u32,
    /// Attempts that were lost otherwise.
    pub interruptions: u32,
    /// When it may be tried again, after its last attempt has failed.
    pub retry_at: Option<Timestamp>,
    /// Who performs it, if anybody did when the log ends.
    pub in_flight: Option<(AgentId, Incarnation)>,
    /// How it ended.
    pub end: Option<TaskEnd>,
}

/// What the log says of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHistory {
    /// The run.
    pub run: RunId,
    /// Its tasks by number.
    pub tasks: Vec<TaskHistory>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Whether somebody cancelled it.
    pub cancelled: bool,
    /// How it ended: outcome, tally, makespan in microseconds.
    pub ended: Option<(Outcome, Tally, u64)>,
}

impl RunHistory {
    /// Returns the history of a run of which nothing is known.
    pub fn new(run: RunId) -> Self {
        let submitted_at = Timestamp::default();
        Self { run, tasks: Vec::new(), submitted_at, cancelled: false, ended: None }
    }

    /// Adds the next record of the log; records of other runs change nothing.
    pub fn apply(&mut self, record: &EventRecord) {
        match &record.event {
            Event::RunSubmitted { run, .. } if *run == self.run => self.submitted_at = record.at,
            Event::RunCancelled { run } if *run == self.run => self.cancelled = true,
            Event::RunEnded { run, outcome, tally, makespan_us } if *run == self.run => {
                self.ended = Some((*outcome, *tally, *makespan_us));
            }
            Event::TaskAdded { task, .. } => drop(self.task(*task)),
            Event::TaskAssigned { task, attempt, agent, incarnation, .. } => {
                if let Some(history) = self.task(*task) {
                    history.attempts = history.attempts.max(*attempt);
                    history.in_flight = Some((*agent, *incarnation));
                    history.retry_at = None;
                }
            }
            Event::TaskReturned { task, attempt, .. } => {
                if let Some(history) = self.task(*task) {
                    history.attempts = attempt.saturating_sub(1);
                    history.in_flight = None;
                }
            }
            Event::TaskFailed { task, cause, retry_at, .. } => {
                if let Some(history) = self.task(*task) {
                    history.in_flight = None;
                    history.retry_at = *retry_at;
                    match cause {
                        Cause::AgentLost | Cause::Conflict => history.interruptions += 1,
                        Cause::Error => history.failures += 1,
                        Cause::Panic | Cause::Timeout | Cause::Heartbeat => {
                            history.failures += 1;
                            history.kills += 1;
                        }
                    }
                }
            }
            Event::TaskCompleted { task, version, .. } => {
                self.end(*task, TaskEnd::Completed(*version));
            }
            Event::TaskEnded { task, state } => self.end(*task, TaskEnd::Ended(*state)),
            _ => {}
        }
    }

    fn end(&mut self, task: TaskId, end: TaskEnd) {
        if let Some(history) = self.task(task) {
            history.in_flight = None;
            history.end.get_or_insert(end);
        }
    }

    fn task(&mut self, task: TaskId) -> Option<&mut TaskHistory> {
        if task.run != self.run {
            return None;
        }
        let count = task.index.at() + 1;
        if self.tasks.len() < count {
            self.tasks.resize(count, TaskHistory::default());
        }
        self.tasks.get_mut(task.index.at())
    }
}
