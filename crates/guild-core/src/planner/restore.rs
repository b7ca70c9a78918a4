//! Goes on with a run from before a restart.

use std::cmp::Reverse;

use crate::event::{Cause, EndState, Event};
use crate::history::{TaskEnd, TaskHistory};
use crate::id::{RunId, TaskId, TaskIndex};
use crate::time::Timestamp;

use super::run::{Run, Status, Trouble, Victims};
use super::{Decisions, Planner, RestoredRun, Timer};

impl Planner {
    /// Takes up a run where its log ends: what ended stays ended, attempts that were under way are
    /// recorded as lost, backoffs last as long as they would have, and everything else goes on.
    pub fn restore(&mut self, now: Timestamp, restored: RestoredRun, out: &mut Decisions) {
        let id = restored.run;
        let place = id.0 as usize;
        if self.runs.len() <= place {
            self.runs.resize_with(place + 1, || None);
        }
        let mut run = Run::new(id, restored.history.submitted_at);
        run.add_part(restored.graph, restored.bindings, None);
        for (parent, graph, bindings) in restored.spawned {
            run.add_part(graph, bindings, Some(parent));
        }
        run.cancelled = restored.history.cancelled;
        for (index, history) in (0..).map(TaskIndex).zip(&restored.history.tasks) {
            take_up(now, &mut run, index, history);
        }
        close_scopes(&mut run);
        let cancelled = run.cancelled;
        self.runs[place] = Some(Box::new(run));
        for (index, history) in (0..).map(TaskIndex).zip(restored.history.tasks) {
            let task = TaskId { run: id, index };
            if let Some(Status::Backoff(at)) = self.status(task) {
                self.timers.push(Reverse((at, Timer::Backoff(task))));
            }
            if let (None, Some((agent, incarnation))) = (history.end, history.in_flight) {
                out.events.push(Event::TaskFailed {
                    task,
                    attempt: history.attempts,
                    agent,
                    incarnation,
                    cause: Cause::AgentLost,
                    message: "the process ended during the attempt".into(),
                    retry_at: Some(now),
                });
            }
        }
        if cancelled {
            self.cancel_from(now, id, 0, out);
        } else {
            self.go_on(id, out);
        }
        self.end_run_if_over(now, id, out);
        self.check();
    }

    /// Readies what could run, and skips what waits for a task that did not complete.
    fn go_on(&mut self, id: RunId, out: &mut Decisions) {
        let count = self.run(id).map_or(0, |run| run.tasks.len());
        for index in (0..).map(TaskIndex).take(count) {
            let task = TaskId { run: id, index };
            let Some(run) = self.run(id) else { return };
            let state = &run.tasks[index.at()];
            if state.status != Status::Waiting {
                continue;
            }
            let part = run.part(index);
            let first = part.first;
            let doomed = run.spec(index).after.iter().any(|before| {
                let before = &run.tasks[(before.0 + first) as usize];
                before.closed && before.tainted
            });
            if doomed {
                self.skip(task, out);
            } else if state.pending == 0 {
                self.make_ready(task, out);
            }
        }
    }

    fn skip(&mut self, task: TaskId, out: &mut Decisions) {
        self.end_quietly(task, EndState::Skipped, out);
        self.close_if_over(task, out);
    }
}

fn take_up(now: Timestamp, run: &mut Run, index: TaskIndex, history: &TaskHistory) {
    let Some(state) = run.tasks.get_mut(index.at()) else {
        return;
    };
    state.attempts = history.attempts;
    let is_cut_off = history.end.is_none() && history.in_flight.is_some();
    let interruptions = history.interruptions + u32::from(is_cut_off);
    if history.failures > 0 || interruptions > 0 || history.kills > 0 {
        state.trouble = Some(Box::new(Trouble {
            failures: history.failures,
            interruptions,
            avoid: None,
            victims: Victims::from_before(history.kills),
        }));
    }
    match history.end {
        None => {
            if let Some(at) = history.retry_at.filter(|at| *at > now) {
                run.set(index, Status::Backoff(at));
            }
        }
        Some(TaskEnd::Completed(_)) => run.set(index, Status::Completed),
        Some(TaskEnd::Ended(end)) => {
            state.tainted = true;
            run.set(index, Status::Ended(end));
        }
    }
}

/// Works out which scopes have closed. Spawned tasks come after their parents, so one pass from the
/// last task to the first sees every child before its parent.
fn close_scopes(run: &mut Run) {
    for index in (0..run.tasks.len()).rev() {
        let state = &mut run.tasks[index];
        if !state.status.is_final() || state.children_open > 0 {
            continue;
        }
        state.closed = true;
        let (tainted, parent) = (state.tainted, run.parts[state.part as usize].parent);
        if let Some(parent) = parent {
            let parent = &mut run.tasks[parent.at()];
            parent.children_open -= 1;
            parent.tainted |= tainted;
        }
    }
    for index in (0..).map(TaskIndex).take(run.tasks.len()) {
        let first = run.part(index).first;
        let open = run
            .spec(index)
            .after
            .iter()
            .filter(|before| !run.tasks[(before.0 + first) as usize].closed)
            .count();
        run.tasks[index.at()].pending = u32::try_from(open).unwrap_or(u32::MAX);
    }
}
