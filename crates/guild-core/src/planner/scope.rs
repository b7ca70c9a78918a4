//! Ends tasks and tells those who wait for them.
//!
//! A task's scope is the task and everything that it spawned; whoever depends on the task waits for
//! the scope, and is skipped if something in it did not complete.

use std::sync::Arc;

use crate::event::{EndState, Event, Outcome};
use crate::graph::{Bindings, Graph};
use crate::id::{RunId, TaskId, TaskIndex};
use crate::time::{Timestamp, micros};

use super::run::{Run, Status};
use super::{Command, Decisions, Planner, Spawned};

impl Planner {
    pub(super) fn submit(
        &mut self,
        now: Timestamp,
        id: RunId,
        graph: Arc<Graph>,
        bindings: Bindings,
        out: &mut Decisions,
    ) {
        let place = id.0 as usize;
        if self.runs.len() <= place {
            self.runs.resize_with(place + 1, || None);
        }
        if self.runs[place].is_some() {
            return;
        }
        let mut run = Run::new(id, now);
        let first = run.add_part(graph, bindings, None);
        self.runs[place] = Some(Box::new(run));
        self.start_roots(id, first, out);
        self.end_run_if_over(now, id, out);
    }

    fn start_roots(&mut self, id: RunId, first: u32, out: &mut Decisions) {
        let Some(run) = self.run(id) else { return };
        let count = u32::try_from(run.tasks.len()).unwrap_or(u32::MAX);
        let roots: Vec<TaskIndex> = (first..count)
            .map(TaskIndex)
            .filter(|index| run.tasks[index.at()].pending == 0)
            .collect();
        for index in roots {
            self.make_ready(TaskId { run: id, index }, out);
        }
    }

    pub(super) fn complete(
        &mut self,
        now: Timestamp,
        task: TaskId,
        spawned: Spawned,
        out: &mut Decisions,
    ) {
        let Some(run) = self.run_mut(task.run) else {
            return;
        };
        run.set(task.index, Status::Completed);
        run.tasks[task.index.at()].holder = None;
        let cancelled = run.cancelled;
        let first = spawned
            .filter(|spawned| !spawned.0.tasks.is_empty())
            .map(|spawned| *spawned)
            .map(|(graph, bindings)| run.add_part(graph, bindings, Some(task.index)));
        match first {
            None => self.close_if_over(task, out),
            Some(first) if cancelled => self.cancel_from(now, task.run, first, out),
            Some(first) => self.start_roots(task.run, first, out),
        }
        self.end_run_if_over(now, task.run, out);
    }

    /// Ends a task that did not complete, and skips those who wait for it.
    pub(super) fn end(
        &mut self,
        now: Timestamp,
        task: TaskId,
        state: EndState,
        out: &mut Decisions,
    ) {
        self.end_quietly(task, state, out);
        self.close_if_over(task, out);
        self.end_run_if_over(now, task.run, out);
    }

    /// Ends a task and leaves its scope to be closed.
    pub(super) fn end_quietly(&mut self, task: TaskId, state: EndState, out: &mut Decisions) {
        if let Some(run) = self.run_mut(task.run) {
            run.set(task.index, Status::Ended(state));
            let ended = &mut run.tasks[task.index.at()];
            ended.tainted = true;
            ended.holder = None;
            out.events.push(Event::TaskEnded { task, state });
        }
    }

    /// Closes the scope of a task, and all scopes that close with it.
    pub(super) fn close_if_over(&mut self, task: TaskId, out: &mut Decisions) {
        let (mut next, mut over) = (Some(task.index), Vec::new());
        while let Some(index) = next.take().or_else(|| over.pop()) {
            let Some(run) = self.run_mut(task.run) else {
                return;
            };
            let state = &mut run.tasks[index.at()];
            if state.closed || !state.status.is_final() || state.children_open > 0 {
                continue;
            }
            state.closed = true;
            let (tainted, parent) = (state.tainted, run.parts[state.part as usize].parent);
            if let Some(parent) = parent {
                let parent_state = &mut run.tasks[parent.at()];
                parent_state.children_open -= 1;
                parent_state.tainted |= tainted;
                over.push(parent);
            }
            let skipped = if run.cancelled { EndState::Cancelled } else { EndState::Skipped };
            for follower in run.followers(index) {
                let Some(run) = self.run_mut(task.run) else {
                    return;
                };
                let state = &mut run.tasks[follower.at()];
                state.pending -= 1;
                let (pending, status) = (state.pending, state.status);
                let follower = TaskId { run: task.run, index: follower };
                if status == Status::Waiting && tainted {
                    self.end_quietly(follower, skipped, out);
                    over.push(follower.index);
                } else if status == Status::Waiting && pending == 0 {
                    self.make_ready(follower, out);
                }
            }
        }
    }

    pub(super) fn cancel(&mut self, now: Timestamp, id: RunId, out: &mut Decisions) {
        match self.run_mut(id) {
            Some(run) if !run.cancelled && !run.is_ended() => run.cancelled = true,
            _ => return,
        }
        out.events.push(Event::RunCancelled { run: id });
        self.cancel_from(now, id, 0, out);
        self.end_run_if_over(now, id, out);
    }

    /// Ends all tasks from a number on that are not being committed.
    pub(super) fn cancel_from(
        &mut self,
        now: Timestamp,
        id: RunId,
        first: u32,
        out: &mut Decisions,
    ) {
        let count = self.run(id).map_or(0, |run| run.tasks.len());
        for index in (first..).take(count.saturating_sub(first as usize)).map(TaskIndex) {
            let task = TaskId { run: id, index };
            match self.status(task) {
                Some(Status::Running) => {
                    self.revoke(task, None, out);
                    self.release_quotas(now, task, out);
                    self.end_quietly(task, EndState::Cancelled, out);
                }
                Some(Status::Waiting | Status::Ready | Status::Parked | Status::Backoff(_)) => {
                    self.end_quietly(task, EndState::Cancelled, out);
                }
                Some(Status::Committing | Status::Completed | Status::Ended(_)) | None => continue,
            }
        }
        for index in (first..).take(count.saturating_sub(first as usize)).map(TaskIndex) {
            self.close_if_over(TaskId { run: id, index }, out);
        }
    }

    /// Tells the end of a run, once.
    pub(super) fn end_run_if_over(&mut self, now: Timestamp, id: RunId, out: &mut Decisions) {
        let Some(run) = self.run_mut(id) else { return };
        if run.told || !run.is_ended() {
            return;
        }
        run.told = true;
        let outcome = if run.cancelled {
            Outcome::Cancelled
        } else if run.tally.failed > 0 {
            Outcome::Failed
        } else {
            Outcome::Completed
        };
        let (tally, makespan_us) = (run.tally, micros(now.since(run.submitted_at)));
        out.events.push(Event::RunEnded { run: id, outcome, tally, makespan_us });
        out.commands.push(Command::EndRun { run: id, outcome, tally, makespan_us });
    }
}
