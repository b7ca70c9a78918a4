//! Admits runs, and knows which lease of each task may still commit.

use std::sync::Arc;

use guild_core::event::Event;
use guild_core::graph::{Bindings, Graph};
use guild_core::history::{RunHistory, TaskEnd};
use guild_core::id::{FencingToken, RunId, TaskId, TaskIndex};
use guild_core::time::Timestamp;

use super::Memory;
use crate::commit::Violation;
use crate::key;
use crate::record::{GraphRow, RunRow, encode};
use crate::recovery::{RecoveredRun, check_graph, edges, index};

/// Why a run is refused; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// There is a run of this name with other tasks.
    #[error(
        "run `{name}` exists already with a different graph; choose another run name, or submit the same graph to resume it"
    )]
    RunExists {
        /// The name.
        name: String,
    },
    /// The run breaks a rule.
    #[error("{0}")]
    Invalid(Violation),
    /// The store failed, so nothing is accepted any more.
    #[error("the memory is unavailable: {reason}")]
    Unavailable {
        /// What failed, and the remedy.
        reason: String,
    },
}

/// The answer to a submission; durable when its group is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The run is new.
    New(RunId),
    /// A run of this name with the same graph exists already.
    Existing(RunId),
}

/// A task that has no lease yet.
pub(super) const NOT_GRANTED: u64 = 0;
/// A task that takes no more commits.
pub(super) const CLOSED: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct RunState {
    pub(super) graph: Arc<Graph>,
    pub(super) tasks: u32,
    pub(super) edges: u64,
    /// For each task the newest token granted, or [`CLOSED`]; empty once the run has ended.
    pub(super) fences: Vec<u64>,
}

impl RunState {
    pub(super) fn recovered(run: &RecoveredRun) -> Self {
        let fence =
            |place: usize| match run.history.tasks.get(place).and_then(|task| task.end.as_ref()) {
                Some(TaskEnd::Completed(_) | TaskEnd::Ended(_)) => CLOSED,
                None => NOT_GRANTED,
            };
        let open = if has_ended(&run.history) { 0 } else { run.tasks() };
        Self {
            graph: run.graph.clone(),
            tasks: index(run.tasks()).0,
            edges: run.edges(),
            fences: (0..open).map(fence).collect(),
        }
    }
}

fn has_ended(history: &RunHistory) -> bool {
    history.ended.is_some()
}

impl Memory {
    /// Adds a run, or finds the one of this name; records `RunSubmitted` and its `TaskAdded`.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(
        &mut self,
        now: Timestamp,
        name: &str,
        graph: Arc<Graph>,
        bindings: &Bindings,
        seed: u64,
    ) -> Result<Submitted, SubmitError> {
        if let Some(reason) = self.unavailable() {
            return Err(SubmitError::Unavailable { reason });
        }
        if let Some(run) = self.runs_by_name.get(name).copied() {
            let known = &self.runs[run.0 as usize].graph;
            // What is asked for is what there is only if all tasks are the same.
            if Arc::ptr_eq(known, &graph) || *known == graph {
                self.record(now, Event::RunJoined { run });
                return Ok(Submitted::Existing(run));
            }
            return Err(SubmitError::RunExists { name: name.to_owned() });
        }
        self.check_run(name, &graph, bindings).map_err(SubmitError::Invalid)?;
        let run = RunId(index(self.runs.len()).0);
        if let Some(draft) = &mut self.draft {
            let (name, bindings) = (name.to_owned(), bindings.clone());
            let row = RunRow { name, bindings, graph: GraphRow::of(&graph) };
            draft.put_record(&key::run(run), &encode(&row));
        }
        let tasks = index(graph.tasks.len()).0;
        let edges = edges(&graph);
        let shown_edges = u32::try_from(edges).unwrap_or(u32::MAX);
        self.record(now, Event::RunSubmitted { run, tasks, edges: shown_edges, seed });
        self.record_added(now, run, TaskIndex(0), None, &graph, bindings);
        self.runs_by_name.insert(name.to_owned(), run);
        self.runs.push(RunState { graph, tasks, edges, fences: vec![NOT_GRANTED; tasks as usize] });
        Ok(Submitted::New(run))
    }

    /// Lets only this token, or a later one, complete the task from now on.
    pub fn grant(&mut self, task: TaskId, token: FencingToken) {
        if let Some(fence) = self.fence(task) {
            // A closed task stays closed: CLOSED is above every token.
            *fence = (*fence).max(token.0);
        }
    }

    pub(super) fn record_added(
        &mut self,
        now: Timestamp,
        run: RunId,
        first: TaskIndex,
        spawned_by: Option<TaskId>,
        graph: &Graph,
        bindings: &Bindings,
    ) {
        let id = |place: u32| TaskId { run, index: TaskIndex(first.0 + place) };
        for (place, task) in graph.tasks.iter().enumerate() {
            let role = bindings.roles[usize::from(task.options.role)];
            let after = task.after.iter().map(|after| id(after.0)).collect();
            let task = id(index(place).0);
            self.record(now, Event::TaskAdded { task, role, after, spawned_by });
        }
    }

    fn check_run(&self, name: &str, graph: &Graph, bindings: &Bindings) -> Result<(), Violation> {
        let (chars, chars_max) = (name.chars().count(), self.limits.name_chars_max);
        if chars > chars_max {
            return Err(Violation::NameTooLong { chars, chars_max });
        }
        self.check_tasks(0, 0, graph, bindings)
    }

    pub(super) fn check_tasks(
        &self,
        tasks_before: u32,
        edges_before: u64,
        graph: &Graph,
        bindings: &Bindings,
    ) -> Result<(), Violation> {
        let tasks = u64::from(tasks_before) + graph.tasks.len() as u64;
        let tasks_max = self.limits.tasks_per_run_max;
        if tasks > u64::from(tasks_max) {
            return Err(Violation::TooManyTasks { tasks, tasks_max });
        }
        let edges = edges_before + edges(graph);
        let edges_max = self.limits.edges_per_run_max;
        if edges > u64::from(edges_max) {
            return Err(Violation::TooManyEdges { edges, edges_max });
        }
        check_graph(graph, bindings).map_err(Violation::Graph)
    }

    pub(super) fn fence(&mut self, task: TaskId) -> Option<&mut u64> {
        self.runs.get_mut(task.run.0 as usize)?.fences.get_mut(task.index.at())
    }
}
