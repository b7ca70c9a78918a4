//! Folds the events of one run to the figures of its summary.
//!
//! The summary is made from the event log and nothing else, so it is the same for a run in one go
//! and for one that was resumed five times. What happens to agents counts for the run that is under
//! way: a store may hold others before and after it.

use guild::{Event, EventRecord, RunId, TaskId};

/// What is known of one task.
#[derive(Clone, Debug, Default)]
struct TaskTimes {
    after: Box<[TaskId]>,
    parent: Option<u32>,
    assigned_at: u64,
    attempts: u32,
    /// When it would have ended if every task had started as soon as it could, from 0.
    finish: u64,
    /// The same for the last of the tasks that it spawned, itself included.
    subtree_finish: u64,
}

/// The figures of one run.
#[derive(Debug)]
pub(crate) struct Fold {
    run: RunId,
    tasks: Vec<TaskTimes>,
    pub(crate) added: u64,
    pub(crate) ended: u64,
    pub(crate) attempts: u64,
    pub(crate) incidents: u64,
    pub(crate) crashes: u64,
    pub(crate) restarts: u64,
    pub(crate) faults: u64,
    /// Time from assignment to end, of all attempts.
    pub(crate) work_us: u64,
    /// The longest chain of completed attempts that had to wait for each other.
    pub(crate) critical_path_us: u64,
    pub(crate) seed: Option<u64>,
    /// Tasks that ended since the guild was started last.
    pub(crate) ended_since_start: u64,
    /// From the submission to the end, or to the newest event of a run that has not ended.
    pub(crate) elapsed_us: u64,
    submitted_at: u64,
    is_under_way: bool,
}

impl Fold {
    pub(crate) fn new(run: RunId) -> Self {
        Self {
            run,
            tasks: Vec::new(),
            added: 0,
            ended: 0,
            attempts: 0,
            incidents: 0,
            crashes: 0,
            restarts: 0,
            faults: 0,
            work_us: 0,
            critical_path_us: 0,
            seed: None,
            ended_since_start: 0,
            elapsed_us: 0,
            submitted_at: 0,
            is_under_way: false,
        }
    }

    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// Adds the next event of the log.
    pub(crate) fn take(&mut self, record: &EventRecord) {
        let at = record.at.0;
        match &record.event {
            Event::RunSubmitted { run, seed, .. } if *run == self.run => {
                self.seed = Some(*seed);
                self.submitted_at = at;
                self.is_under_way = true;
            }
            Event::RunEnded { run, makespan_us, .. } if *run == self.run => {
                self.elapsed_us = *makespan_us;
                self.is_under_way = false;
            }
            Event::GuildStarted { .. } => self.ended_since_start = 0,
            Event::TaskAdded { task, after, spawned_by, .. } if task.run == self.run => {
                self.added += 1;
                let added = self.task(*task);
                added.after.clone_from(after);
                added.parent = spawned_by.map(|parent| parent.index.0);
            }
            Event::TaskAssigned { task, attempt, .. } if task.run == self.run => {
                let assigned = self.task(*task);
                assigned.assigned_at = at;
                let new = attempt.saturating_sub(assigned.attempts);
                assigned.attempts += new;
                self.attempts += u64::from(new);
            }
            Event::TaskFailed { task, .. } if task.run == self.run => {
                self.work_us += at.saturating_sub(self.task(*task).assigned_at);
            }
            Event::TaskCompleted { task, .. } if task.run == self.run => {
                self.task_ended();
                let duration = at.saturating_sub(self.task(*task).assigned_at);
                self.work_us += duration;
                self.completed(*task, duration);
            }
            Event::TaskEnded { task, .. } if task.run == self.run => self.task_ended(),
            Event::AgentCrashed { .. } if self.is_under_way => self.crashes += 1,
            Event::AgentRestarted { .. } if self.is_under_way => self.restarts += 1,
            Event::FaultInjected { .. } if self.is_under_way => self.faults += 1,
            Event::IncidentOpened { .. } if self.is_under_way => self.incidents += 1,
            _ => {}
        }
        if self.is_under_way {
            self.elapsed_us = at.saturating_sub(self.submitted_at);
        }
    }

    fn task_ended(&mut self) {
        self.ended += 1;
        self.ended_since_start += 1;
    }

    fn task(&mut self, task: TaskId) -> &mut TaskTimes {
        let at = task.index.at();
        if self.tasks.len() <= at {
            self.tasks.resize_with(at + 1, TaskTimes::default);
        }
        &mut self.tasks[at]
    }

    /// All that a task waits for has completed before it, so one pass in the order of the log
    /// finds the critical path.
    fn completed(&mut self, task: TaskId, duration: u64) {
        let of = |at: u32| self.tasks.get(at as usize);
        let this = &self.tasks[task.index.at()];
        let waited = this.after.iter().filter_map(|after| Some(of(after.index.0)?.subtree_finish));
        let spawned = this.parent.and_then(|parent| Some(of(parent)?.finish));
        let finish = waited.chain(spawned).max().unwrap_or(0) + duration;
        self.tasks[task.index.at()].finish = finish;
        self.critical_path_us = self.critical_path_us.max(finish);
        let mut up = Some(task.index.0);
        while let Some(at) = up {
            let Some(above) = self.tasks.get_mut(at as usize) else {
                break;
            };
            if above.subtree_finish >= finish {
                break;
            }
            above.subtree_finish = finish;
            up = above.parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use guild::{
        AgentId, Cause, CommitVersion, FencingToken, Incarnation, Outcome, RoleId, Tally,
        TaskIndex, Timestamp,
    };

    use super::*;

    const RUN: RunId = RunId(1);

    fn id(index: u32) -> TaskId {
        TaskId { run: RUN, index: TaskIndex(index) }
    }

    fn added(index: u32, after: &[u32], parent: Option<u32>) -> Event {
        let after = after.iter().map(|after| id(*after)).collect();
        Event::TaskAdded { task: id(index), role: RoleId(0), after, spawned_by: parent.map(id) }
    }

    fn assigned(index: u32, attempt: u32) -> Event {
        let agent = AgentId { role: RoleId(0), index: 0 };
        let (incarnation, token) = (Incarnation(1), FencingToken(1));
        Event::TaskAssigned { task: id(index), attempt, agent, incarnation, token }
    }

    fn completed(index: u32) -> Event {
        let agent = AgentId { role: RoleId(0), index: 0 };
        let (incarnation, token) = (Incarnation(1), FencingToken(1));
        let version = CommitVersion(1);
        Event::TaskCompleted { task: id(index), attempt: 1, agent, incarnation, token, version }
    }

    #[test]
    fn critical_path_goes_through_the_slowest_spawned_task() {
        let mut fold = Fold::new(RUN);
        let log = [
            (0, added(0, &[], None)),
            (0, added(1, &[0], None)),
            (0, assigned(0, 1)),
            (10, completed(0)),
            (10, added(2, &[], Some(0))),
            (10, added(3, &[], Some(0))),
            (20, assigned(2, 1)),
            (20, assigned(3, 1)),
            (25, completed(2)),
            (50, completed(3)),
            (60, assigned(1, 2)),
            (67, completed(1)),
        ];
        for (seq, (at, event)) in (1..).zip(log) {
            fold.take(&EventRecord { seq, at: Timestamp(at), event });
        }

        assert_eq!(fold.critical_path_us, 10 + 30 + 7);
        assert_eq!(fold.work_us, 10 + 5 + 30 + 7);
        assert_eq!((fold.added, fold.ended, fold.attempts), (4, 4, 5));
    }

    #[test]
    fn what_happened_to_agents_before_and_after_the_run_is_not_its_own() {
        let mut fold = Fold::new(RUN);
        let submitted = |run| Event::RunSubmitted { run, tasks: 1, edges: 0, seed: 0 };
        let ended = |run| {
            let (outcome, tally) = (Outcome::Completed, Tally::default());
            Event::RunEnded { run, outcome, tally, makespan_us: 40 }
        };
        let crashed = || {
            let (agent, incarnation) = (AgentId { role: RoleId(0), index: 0 }, Incarnation(1));
            let (cause, message) = (Cause::Panic, "".into());
            Event::AgentCrashed { agent, incarnation, cause, message, task: None }
        };
        let log = [
            (0, submitted(RunId(0))),
            (1, crashed()),
            (2, ended(RunId(0))),
            (10, submitted(RUN)),
            (20, crashed()),
            (30, crashed()),
        ];
        let mut take = |(at, event)| fold.take(&EventRecord { seq: 1, at: Timestamp(at), event });
        log.into_iter().for_each(&mut take);
        assert_eq!((fold.crashes, fold.elapsed_us), (2, 20));

        let mut take = |(at, event)| fold.take(&EventRecord { seq: 1, at: Timestamp(at), event });
        [(50, ended(RUN)), (60, crashed())].into_iter().for_each(&mut take);

        assert_eq!((fold.crashes, fold.elapsed_us), (2, 40));
    }
}
