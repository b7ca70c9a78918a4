//! Finds the names of runs, tasks, roles, agents and quotas by their numbers.
//!
//! Numbers rule inside; this table is where a line of the event log or a message for a person gets
//! its names from. A spawned task is shown under its parent: `parent/name`, or `parent[7]` when it
//! is the seventh of a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use guild_core::event::Names;
use guild_core::graph::{Graph, TaskName};
use guild_core::id::{AgentId, QuotaId, RoleId, RunId, TaskId, TaskIndex};

/// The names of everything in a store.
#[derive(Clone, Debug, Default)]
pub struct NameTable {
    roles: Vec<String>,
    quotas: Vec<String>,
    runs: BTreeMap<RunId, RunNames>,
}

#[derive(Clone, Debug)]
struct RunNames {
    name: Arc<str>,
    /// Ascending by `first`; the submitted graph comes first, with index 0 and no parent.
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    first: TaskIndex,
    parent: Option<TaskIndex>,
    graph: Arc<Graph>,
}

impl NameTable {
    /// Sets the names of all roles, in the order of their ids.
    pub fn set_roles(&mut self, roles: Vec<String>) {
        self.roles = roles;
    }

    /// Sets the names of all quotas, in the order of their ids.
    pub fn set_quotas(&mut self, quotas: Vec<String>) {
        self.quotas = quotas;
    }

    /// Adds a run and its submitted tasks.
    pub fn add_run(&mut self, run: RunId, name: impl Into<Arc<str>>, graph: Arc<Graph>) {
        let part = Part { first: TaskIndex(0), parent: None, graph };
        self.runs.insert(run, RunNames { name: name.into(), parts: vec![part] });
    }

    /// Returns the number that the next spawned task of a run gets; 0 for an unknown run.
    pub fn next_index(&self, run: RunId) -> TaskIndex {
        let last = self.runs.get(&run).and_then(|run| run.parts.last());
        let next = last.map_or(0, |part| part.first.at() + part.graph.tasks.len());
        TaskIndex(u32::try_from(next).unwrap_or(u32::MAX))
    }

    /// Adds the tasks that a task spawned; in the order of their first index.
    pub fn add_spawned(
        &mut self,
        run: RunId,
        parent: TaskIndex,
        first: TaskIndex,
        graph: Arc<Graph>,
    ) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.parts.push(Part { first, parent: Some(parent), graph });
        }
    }

    /// Forgets a run.
    pub fn remove_run(&mut self, run: RunId) {
        self.runs.remove(&run);
    }

    /// Returns the run of this name.
    pub fn find_run(&self, name: &str) -> Option<RunId> {
        self.runs.iter().find(|(_, run)| &*run.name == name).map(|(id, _)| *id)
    }

    /// Returns the task of this full name within a run.
    pub fn find_task(&self, run: RunId, name: &str) -> Option<TaskIndex> {
        let names = self.runs.get(&run)?;
        let last = names.parts.last()?;
        let tasks = last.first.0 + u32::try_from(last.graph.tasks.len()).ok()?;
        (0..tasks).map(TaskIndex).find(|index| names.task(*index) == name)
    }
}

impl RunNames {
    fn part(&self, index: TaskIndex) -> Option<(&Part, &TaskName)> {
        let place = self.parts.partition_point(|part| part.first <= index).checked_sub(1)?;
        let part = &self.parts[place];
        let task = part.graph.tasks.get((index.0 - part.first.0) as usize)?;
        Some((part, &task.name))
    }

    /// From the task up to the root and back: tasks may spawn tasks to any depth.
    fn task(&self, index: TaskIndex) -> String {
        let mut path = Vec::new();
        let mut at = Some(index);
        while let Some(index) = at {
            let Some((part, name)) = self.part(index) else {
                return format!("#{}", index.0);
            };
            path.push(name);
            at = part.parent.filter(|parent| *parent < index);
        }
        let mut full = String::new();
        for name in path.into_iter().rev() {
            match name {
                TaskName::Named(name) if full.is_empty() => full.push_str(name),
                TaskName::Named(name) => {
                    full.push('/');
                    full.push_str(name);
                }
                TaskName::Number(number) if full.is_empty() => full = number.to_string(),
                TaskName::Number(number) => full = format!("{full}[{number}]"),
            }
        }
        full
    }
}

impl Names for NameTable {
    fn run(&self, run: RunId) -> String {
        self.runs.get(&run).map_or_else(|| format!("#{}", run.0), |run| run.name.to_string())
    }

    fn task(&self, task: TaskId) -> String {
        match self.runs.get(&task.run) {
            Some(run) => run.task(task.index),
            None => format!("#{}", task.index.0),
        }
    }

    fn role(&self, role: RoleId) -> String {
        let name = self.roles.get(usize::from(role.0));
        name.cloned().unwrap_or_else(|| format!("role#{}", role.0))
    }

    fn agent(&self, agent: AgentId) -> String {
        format!("{}-{}", self.role(agent.role), agent.index)
    }

    fn quota(&self, quota: QuotaId) -> String {
        let name = self.quotas.get(usize::from(quota.0));
        name.cloned().unwrap_or_else(|| format!("quota#{}", quota.0))
    }
}
