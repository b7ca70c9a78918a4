//! Checks tasks and turns them into a [`Graph`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Bindings, Catalog, Expr, Graph, NameIndex, Task, TaskName, TaskOptions, TaskRef, TaskSpec,
};
use crate::id::TaskIndex;

/// Why a graph cannot run; nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// It has no task.
    #[error("the graph `{0}` has no task: add one")]
    Empty(String),
    /// A name is empty or too long.
    #[error("the {kind} name `{name}` has {chars} characters: 1 to {chars_max} are allowed")]
    Name {
        /// Of what: `run` or `task`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Its length.
        chars: usize,
        /// The bound.
        chars_max: usize,
    },
    /// Two tasks have one name.
    #[error("two tasks are named `{0}`: names are unique within a graph")]
    Duplicate(String),
    /// A task refers to a task that does not exist.
    #[error("the task `{task}` refers to the unknown task `{unknown}`")]
    UnknownTask {
        /// Who refers.
        task: String,
        /// To what.
        unknown: String,
    },
    /// A task asks for a role that the guild does not have.
    #[error("the task `{task}` asks for the unknown role `{role}`: the guild has {known}")]
    UnknownRole {
        /// Who asks.
        task: String,
        /// For what.
        role: String,
        /// What there is.
        known: String,
    },
    /// A task draws on a quota that the guild does not have.
    #[error("the task `{task}` draws on the unknown quota `{quota}`: the guild has {known}")]
    UnknownQuota {
        /// Who draws.
        task: String,
        /// On what.
        quota: String,
        /// What there is.
        known: String,
    },
    /// A demand can never be met.
    #[error(
        "the task `{task}` needs {amount} of the quota `{quota}`, which has {capacity}: it could never run"
    )]
    Demand {
        /// Who draws.
        task: String,
        /// On what.
        quota: String,
        /// How much it needs.
        amount: u32,
        /// How much there is.
        capacity: u32,
    },
    /// Tasks wait for each other in a circle.
    #[error("tasks wait for each other in a cycle: {0}")]
    Cycle(String),
    /// A setting is out of its range.
    #[error("the task `{task}`: {rule}")]
    Setting {
        /// Whose.
        task: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// An input has no JSON form.
    #[error("the input of the task `{task}` has no JSON form: {reason}")]
    Input {
        /// Whose.
        task: String,
        /// What the encoder said.
        reason: String,
    },
    /// A bound is exceeded.
    #[error(
        "the graph has {found} {what}, more than the {limit} allowed: split the run or raise the limit"
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The bound.
        limit: usize,
    },
}

/// Collects tasks.
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    name: Option<String>,
    catalog: Option<Catalog>,
    tasks: Vec<Task>,
}

impl GraphBuilder {
    /// Returns a builder that knows no guild; roles and quotas are checked when it is submitted.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), catalog: None, tasks: Vec::new() }
    }

    /// Returns a builder that knows what a guild offers.
    pub fn for_catalog(name: impl Into<String>, catalog: Catalog) -> Self {
        Self { name: Some(name.into()), catalog: Some(catalog), tasks: Vec::new() }
    }

    /// Returns a builder for tasks that a task spawns; it may stay empty.
    pub fn spawned(catalog: Catalog) -> Self {
        Self { name: None, catalog: Some(catalog), tasks: Vec::new() }
    }

    /// Adds a task and returns its place, by which others can refer to it.
    pub fn add(&mut self, task: Task) -> TaskIndex {
        let index = TaskIndex(u32::try_from(self.tasks.len()).unwrap_or(u32::MAX));
        self.tasks.push(task);
        index
    }

    /// Returns how many tasks were added.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Returns whether no task was added.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Checks everything and returns the graph.
    ///
    /// # Errors
    /// See [`GraphError`]; the first thing found is named.
    pub fn build(self) -> Result<Graph, GraphError> {
        let limits =
            self.catalog.as_ref().map(|catalog| catalog.limits.clone()).unwrap_or_default();
        let spawned = self.name.is_none();
        let name = self.name.unwrap_or_default();
        if !spawned {
            check_name("run", &name, limits.name_chars_max)?;
            if self.tasks.is_empty() {
                return Err(GraphError::Empty(name));
            }
        }
        check_size("tasks", self.tasks.len(), limits.tasks_per_run_max as usize)?;
        let places = Places::of(&self.tasks, limits.name_chars_max)?;
        let mut shared = Shared::default();
        let mut specs = Vec::with_capacity(self.tasks.len());
        let mut edges = 0;
        for task in self.tasks {
            let spec = resolve(task, &places, &mut shared)?;
            if let Expr::Value(value) = &spec.input {
                check_size("bytes in one input", value.size_bytes(), limits.payload_bytes_max)?;
            }
            edges += spec.after.len();
            specs.push(spec);
        }
        check_size("dependencies", edges, limits.edges_per_run_max as usize)?;
        let graph = Graph { name, roles: shared.roles, quotas: shared.quotas, tasks: specs };
        graph.topological_order()?;
        if let Some(catalog) = &self.catalog {
            graph.bind(catalog)?;
        }
        Ok(graph)
    }
}

/// Where each name is.
struct Places {
    names: Vec<TaskName>,
    index: NameIndex,
}

#[derive(Default)]
struct Shared {
    roles: Vec<Arc<str>>,
    quotas: Vec<Arc<str>>,
    last: Option<Arc<TaskOptions>>,
}

fn check_name(kind: &'static str, name: &str, chars_max: usize) -> Result<(), GraphError> {
    let chars = name.chars().count();
    if chars == 0 || chars > chars_max {
        return Err(GraphError::Name { kind, name: name.to_owned(), chars, chars_max });
    }
    Ok(())
}

fn check_size(what: &'static str, found: usize, limit: usize) -> Result<(), GraphError> {
    if found > limit { Err(GraphError::TooLarge { what, found, limit }) } else { Ok(()) }
}

impl Places {
    fn of(tasks: &[Task], chars_max: usize) -> Result<Self, GraphError> {
        let names: Vec<TaskName> = tasks.iter().map(|task| task.name.clone()).collect();
        for name in &names {
            if let TaskName::Named(name) = name {
                check_name("task", name, chars_max)?;
            }
        }
        let index = NameIndex::of_tasks(&names);
        let name = |place: u32| &names[place as usize];
        if let Some(place) = index.duplicate(|one, other| name(one) == name(other)) {
            return Err(GraphError::Duplicate(name(place).to_string()));
        }
        Ok(Self { names, index })
    }

    fn find(&self, name: &str) -> Option<TaskIndex> {
        self.index.find_task(name, |place| &self.names[place as usize])
    }
}

fn resolve(task: Task, places: &Places, shared: &mut Shared) -> Result<TaskSpec, GraphError> {
    check_settings(&task)?;
    let find = |reference: &TaskRef| -> Result<TaskIndex, GraphError> {
        let unknown = |unknown: String| {
            let task = task.name.to_string();
            GraphError::UnknownTask { task, unknown }
        };
        match reference {
            TaskRef::Index(index) if index.at() < places.names.len() => Ok(*index),
            TaskRef::Index(index) => Err(unknown(format!("number {}", index.0))),
            TaskRef::Name(text) => places.find(text).ok_or_else(|| unknown(text.clone())),
        }
    };
    let mut after = task.after.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let expr = task.input.map_err(|reason| {
        let task = task.name.to_string();
        GraphError::Input { task, reason }
    })?;
    let input = expr.resolve(&mut |reference| {
        let index = find(reference)?;
        after.push(index);
        Ok(index)
    })?;
    after.sort_unstable();
    after.dedup();
    let options = TaskOptions {
        role: intern(&mut shared.roles, &task.role),
        retry: task.retry,
        timeout: task.timeout,
        heartbeat: task.heartbeat,
        priority: task.priority,
        quotas: merge_demands(task.quotas, &mut shared.quotas),
    };
    // Tasks of one kind are mostly added one after the other; they share their options.
    let options = match &shared.last {
        Some(last) if **last == options => Arc::clone(last),
        _ => Arc::clone(shared.last.insert(Arc::new(options))),
    };
    Ok(TaskSpec { name: task.name, options, after: after.into(), input, expected: task.expected })
}

/// Two demands of one task on the same quota are one demand of their sum.
fn merge_demands(demands: Vec<(String, u32)>, names: &mut Vec<Arc<str>>) -> Vec<(u16, u32)> {
    if demands.is_empty() {
        return Vec::new();
    }
    let mut merged: BTreeMap<u16, u32> = BTreeMap::new();
    for (quota, amount) in demands {
        let sum = merged.entry(intern(names, &quota)).or_default();
        *sum = sum.saturating_add(amount);
    }
    merged.into_iter().collect()
}

fn intern(names: &mut Vec<Arc<str>>, name: &str) -> u16 {
    let place = names.iter().position(|known| &**known == name).unwrap_or_else(|| {
        names.push(name.into());
        names.len() - 1
    });
    u16::try_from(place).unwrap_or(u16::MAX)
}

fn check_settings(task: &Task) -> Result<(), GraphError> {
    let retry = &task.retry;
    let rules = [
        (retry.attempts_max >= 1, "retry needs at least 1 attempt"),
        (retry.factor.is_finite() && retry.factor >= 1.0, "the backoff factor must be at least 1"),
        ((0.0..=1.0).contains(&retry.jitter), "the jitter must be within 0 and 1"),
        (task.timeout != Some(Duration::ZERO), "the timeout must be above zero"),
        (task.heartbeat != Some(Duration::ZERO), "the heartbeat interval must be above zero"),
        (task.quotas.iter().all(|(_, amount)| *amount > 0), "a quota demand must be above zero"),
        (task.quotas.len() <= 64, "a task may draw on at most 64 quotas"),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err(GraphError::Setting { task: task.name.to_string(), rule }),
        None => Ok(()),
    }
}

impl Graph {
    /// Returns the number of dependencies.
    pub fn edges(&self) -> usize {
        self.tasks.iter().map(|task| task.after.len()).sum()
    }

    /// Returns the sum of all expected durations.
    pub fn work(&self) -> Duration {
        self.tasks.iter().fold(Duration::ZERO, |sum, task| sum.saturating_add(task.expected))
    }

    /// Returns the longest chain of expected durations.
    pub fn critical_path(&self) -> Duration {
        self.ranks().into_iter().max().map_or(Duration::ZERO, Duration::from_micros)
    }

    /// Returns, for each task, the microseconds of the longest chain from its start to the end.
    pub fn ranks(&self) -> Vec<u64> {
        let mut ranks: Vec<u64> =
            self.tasks.iter().map(|task| crate::time::micros(task.expected)).collect();
        let own = ranks.clone();
        let order = self.topological_order().unwrap_or_default();
        for task in order.into_iter().rev() {
            for before in &*self.tasks[task.at()].after {
                let through = own[before.at()].saturating_add(ranks[task.at()]);
                ranks[before.at()] = ranks[before.at()].max(through);
            }
        }
        ranks
    }

    /// Finds the places of its roles and quotas in a guild.
    ///
    /// # Errors
    /// The guild lacks one, or a demand exceeds the quota's capacity.
    pub fn bind(&self, catalog: &Catalog) -> Result<Bindings, GraphError> {
        let user = |uses: &dyn Fn(&TaskSpec) -> bool| {
            self.tasks
                .iter()
                .find(|task| uses(task))
                .map_or_else(String::new, |task| task.name.to_string())
        };
        let mut bindings = Bindings::default();
        for (place, name) in (0..).zip(&self.roles) {
            let Some((_, role)) = catalog.roles.iter().find(|(known, _)| known == name) else {
                return Err(GraphError::UnknownRole {
                    task: user(&|task| task.options.role == place),
                    role: name.to_string(),
                    known: listed(catalog.roles.iter().map(|(name, _)| name)),
                });
            };
            bindings.roles.push(*role);
        }
        let mut capacities = Vec::new();
        for (place, name) in (0..).zip(&self.quotas) {
            let Some((_, quota, capacity)) =
                catalog.quotas.iter().find(|(known, ..)| known == name)
            else {
                return Err(GraphError::UnknownQuota {
                    task: user(&|task| {
                        task.options.quotas.iter().any(|(quota, _)| *quota == place)
                    }),
                    quota: name.to_string(),
                    known: listed(catalog.quotas.iter().map(|(name, ..)| name)),
                });
            };
            bindings.quotas.push(*quota);
            capacities.push(*capacity);
        }
        for task in &self.tasks {
            for (place, amount) in &task.options.quotas {
                let capacity = capacities.get(usize::from(*place)).copied().unwrap_or(0);
                if *amount > capacity {
                    return Err(GraphError::Demand {
                        task: task.name.to_string(),
                        quota: self.quotas[usize::from(*place)].to_string(),
                        amount: *amount,
                        capacity,
                    });
                }
            }
        }
        Ok(bindings)
    }

    /// Orders the tasks so that each comes after those it waits for (Kahn, 1962).
    fn topological_order(&self) -> Result<Vec<TaskIndex>, GraphError> {
        let mut missing: Vec<usize> = self.tasks.iter().map(|task| task.after.len()).collect();
        let followers = self.followers();
        let mut order: Vec<TaskIndex> = (0..)
            .zip(&missing)
            .filter(|(_, count)| **count == 0)
            .map(|(i, _)| TaskIndex(i))
            .collect();
        let mut next = 0;
        while let Some(task) = order.get(next).copied() {
            next += 1;
            for follower in followers.of(task) {
                missing[follower.at()] -= 1;
                if missing[follower.at()] == 0 {
                    order.push(*follower);
                }
            }
        }
        if order.len() == self.tasks.len() { Ok(order) } else { Err(self.name_cycle(&missing)) }
    }

    /// Walks backwards from a task that is stuck until a task comes again.
    fn name_cycle(&self, missing: &[usize]) -> GraphError {
        let stuck = |task: &TaskIndex| missing[task.at()] > 0;
        let mut path: Vec<TaskIndex> = Vec::new();
        let mut seen = vec![false; self.tasks.len()];
        let mut current = missing.iter().position(|count| *count > 0).unwrap_or(0);
        while !seen[current] {
            seen[current] = true;
            path.push(TaskIndex(u32::try_from(current).unwrap_or(u32::MAX)));
            current = self.tasks[current]
                .after
                .iter()
                .find(|task| stuck(task))
                .map_or(current, |task| task.at());
        }
        let start = path.iter().position(|task| task.at() == current).unwrap_or(0);
        let mut names: Vec<String> =
            path[start..].iter().map(|task| self.tasks[task.at()].name.to_string()).collect();
        names.push(names[0].clone());
        names.reverse();
        GraphError::Cycle(names.join(" -> "))
    }

    /// Returns who waits for each task.
    pub(crate) fn followers(&self) -> Followers {
        let mut starts = vec![0_u32; self.tasks.len() + 1];
        for before in self.tasks.iter().flat_map(|task| &*task.after) {
            starts[before.at() + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut list = vec![TaskIndex(0); self.edges()];
        for (index, task) in (0..).zip(&self.tasks) {
            for before in &*task.after {
                list[next[before.at()] as usize] = TaskIndex(index);
                next[before.at()] += 1;
            }
        }
        Followers { starts, list }
    }
}

/// Who waits for whom, as one list with the place where each task's part begins.
#[derive(Clone, Debug)]
pub(crate) struct Followers {
    starts: Vec<u32>,
    list: Vec<TaskIndex>,
}

impl Followers {
    /// Returns the tasks that wait for this one.
    pub(crate) fn of(&self, task: TaskIndex) -> &[TaskIndex] {
        &self.list[self.starts[task.at()] as usize..self.starts[task.at() + 1] as usize]
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> String {
    let names: Vec<&str> = names.map(|name| &**name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
