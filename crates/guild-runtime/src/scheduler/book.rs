//! Keeps the inputs and outputs of one run's tasks; the planner knows only their states.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use guild_core::event::{Outcome, Tally};
use guild_core::graph::{ComposeError, Expr, Graph, TaskName, TaskSpec};
use guild_core::id::{RunId, TaskIndex};
use guild_core::payload::Payload;

use crate::run::RunReport;

/// The graphs and outputs of one run.
pub(crate) struct RunBook {
    /// The submitted graph and every spawned one, by the number of their first task.
    parts: BTreeMap<u32, Arc<Graph>>,
    outputs: Vec<Option<Payload>>,
    children: BTreeMap<TaskIndex, (u32, u32)>,
}

impl RunBook {
    /// Opens the book of a run.
    pub(crate) fn new(graph: Arc<Graph>) -> Self {
        let outputs = vec![None; graph.tasks.len()];
        Self { parts: BTreeMap::from([(0, graph)]), outputs, children: BTreeMap::new() }
    }

    /// Returns how many tasks the run has, spawned ones included.
    pub(crate) fn tasks(&self) -> usize {
        self.outputs.len()
    }

    /// Notes the output of a completed task and the tasks that it spawned.
    pub(crate) fn completed(
        &mut self,
        task: TaskIndex,
        output: Payload,
        spawned: Option<&Arc<Graph>>,
    ) {
        if let Some(slot) = self.outputs.get_mut(task.at()) {
            *slot = Some(output);
        }
        if let Some(graph) = spawned {
            self.spawned(task, graph);
        }
    }

    /// Adds the tasks that a task spawned.
    pub(crate) fn spawned(&mut self, parent: TaskIndex, graph: &Arc<Graph>) {
        let first = u32::try_from(self.outputs.len()).unwrap_or(u32::MAX);
        let count = u32::try_from(graph.tasks.len()).unwrap_or(u32::MAX);
        if count > 0 {
            self.children.insert(parent, (first, count));
            self.parts.insert(first, Arc::clone(graph));
            self.outputs.resize(self.outputs.len() + graph.tasks.len(), None);
        }
    }

    /// Puts an output back that was recovered.
    pub(crate) fn recovered(&mut self, outputs: Vec<Option<Payload>>) {
        self.outputs = outputs;
    }

    /// Composes the input of a task from the outputs of earlier ones.
    pub(crate) fn input(&self, task: TaskIndex) -> Result<Payload, ComposeError> {
        let Some((first, graph)) = self.parts.range(..=task.0).next_back() else {
            return Ok(Payload::NULL);
        };
        let spec = &graph.tasks[(task.0 - first) as usize];
        let output = |local: TaskIndex| self.outputs.get((local.0 + first) as usize)?.clone();
        let spawned = |local: TaskIndex| {
            let (child, count) =
                self.children.get(&TaskIndex(local.0 + first)).copied().unwrap_or((0, 0));
            (child..child + count).map(|index| TaskIndex(index - first)).collect()
        };
        spec.input.compose(&output, &spawned)
    }

    /// Returns a graph of one task alone, with the input that it has here; none: it cannot be made.
    pub(crate) fn alone(&self, task: TaskIndex, name: String, run: String) -> Option<Graph> {
        let (first, graph) = self.parts.range(..=task.0).next_back()?;
        let spec = graph.tasks.get((task.0 - first) as usize)?;
        let input = Expr::Value(self.input(task).ok()?);
        let (name, options) = (TaskName::Named(name.into()), Arc::clone(&spec.options));
        let (after, expected) = (Box::default(), spec.expected);
        let alone = TaskSpec { name, options, after, input, expected };
        let (roles, quotas) = (graph.roles.clone(), graph.quotas.clone());
        Some(Graph { name: run, roles, quotas, tasks: vec![alone] })
    }

    /// Closes the book into the report of the run.
    pub(crate) fn into_report(
        self,
        id: RunId,
        name: String,
        outcome: Outcome,
        tally: Tally,
        makespan_us: u64,
    ) -> RunReport {
        let graph = self.parts.get(&0).map(Arc::clone);
        let (outputs, children) = (self.outputs, self.children);
        RunReport {
            id,
            name,
            outcome,
            tally,
            makespan_us,
            outputs,
            graph,
            by_name: OnceLock::new(),
            children,
        }
    }
}
