//! Finds the names of runs, tasks, roles, agents and quotas by their numbers.
//!
//! Numbers rule inside; this table is where a line of the event log or a message for a person gets
//! its names from. A spawned task is shown under its parent: `parent/name`, or `parent[7]` when it
//! is the seventh of a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use guild_core::event::Names;
use guild_core::graph::{Graph, TaskName, TaskSpec};
use guild_core::id::{QuotaId, RoleId, RunId, TaskId, TaskIndex};

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
    /// The name as a JSON string: most lines of the log have it.
    quoted: Box<str>,
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
        let name = name.into();
        let quoted = serde_json::Value::from(&*name).to_string().into();
        self.runs.insert(run, RunNames { name, quoted, parts: vec![part] });
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
        (0..tasks).map(TaskIndex).find(|index| {
            let mut full = String::new();
            names.write_task(*index, &mut full);
            full == name
        })
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
    fn write_task(&self, index: TaskIndex, text: &mut String) {
        if let Some((Part { parent: None, .. }, TaskName::Named(name))) = self.part(index) {
            return text.push_str(name);
        }
        let mut path = Vec::new();
        let mut at = Some(index);
        while let Some(index) = at {
            let Some((part, name)) = self.part(index) else {
                return number(text, "#", index.0, "");
            };
            path.push(name);
            at = part.parent.filter(|parent| *parent < index);
        }
        for (depth, name) in path.into_iter().rev().enumerate() {
            match (name, depth) {
                (TaskName::Named(name), 0) => text.push_str(name),
                (TaskName::Named(name), _) => {
                    text.push('/');
                    text.push_str(name);
                }
                (TaskName::Number(n), 0) => number(text, "", *n, ""),
                (TaskName::Number(n), _) => number(text, "[", *n, "]"),
            }
        }
    }
}

fn number(text: &mut String, before: &str, number: u32, after: &str) {
    use std::fmt::Write as _;
    write!(text, "{before}{number}{after}").expect("a string takes any text");
}

impl Names for NameTable {
    fn write_run(&self, run: RunId, text: &mut String) {
        match self.runs.get(&run) {
            Some(run) => text.push_str(&run.name),
            None => number(text, "#", run.0, ""),
        }
    }

    fn write_quoted_run(&self, run: RunId, text: &mut String) {
        match self.runs.get(&run) {
            Some(run) => text.push_str(&run.quoted),
            None => number(text, "\"#", run.0, "\""),
        }
    }

    fn write_task(&self, task: TaskId, text: &mut String) {
        match self.runs.get(&task.run) {
            Some(run) => run.write_task(task.index, text),
            None => number(text, "#", task.index.0, ""),
        }
    }

    fn role(&self, role: RoleId) -> &str {
        self.roles.get(usize::from(role.0)).map_or("?", String::as_str)
    }

    fn quota(&self, quota: QuotaId) -> &str {
        self.quotas.get(usize::from(quota.0)).map_or("?", String::as_str)
    }

    fn terms(&self, task: TaskId) -> Option<(&TaskSpec, Vec<(&str, u32)>)> {
        let (part, _) = self.runs.get(&task.run)?.part(task.index)?;
        let spec = &part.graph.tasks[(task.index.0 - part.first.0) as usize];
        let name =
            |place: u16| part.graph.quotas.get(usize::from(place)).map_or("?", |name| &**name);
        let quotas = spec.options.quotas.iter();
        Some((spec, quotas.map(|(place, amount)| (name(*place), *amount)).collect()))
    }
}
