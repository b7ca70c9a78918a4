//! Describes what is simulated: tasks, their durations, roles and quotas.
//!
//! A [`Workload`] holds no code. Its tasks are performed by [`SimulatedAgent`]s, which do nothing but
//! wait on the guild's clock; everything around them is the production code.

mod agent;
mod duration;
mod shapes;
mod wfformat;

use std::collections::BTreeSet;
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::graph::{Graph, GraphBuilder, GraphError, Task};
use guild_core::quota::QuotaSpec;
use guild_core::retry::RetryPolicy;

pub use self::agent::{Effects, Ledger, SimulatedAgent};
use self::agent::{MapInput, TaskInput};
pub use self::duration::{DURATION_MAX, DurationError, Durations};
pub use self::wfformat::{WORKFLOW_BYTES_MAX, WorkflowError, is_workflow, read_workflow};

/// A role of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its agents, where the workload says so.
    pub agents: Option<u32>,
}

/// Tasks to be simulated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// Its name; the run has it too.
    pub name: String,
    /// The roles.
    pub roles: Vec<Role>,
    /// The quotas.
    pub quotas: Vec<(String, QuotaSpec)>,
    /// The tasks; they refer to each other by their places.
    pub tasks: Vec<WorkTask>,
}

/// A task of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkTask {
    /// Its name.
    pub name: String,
    /// Place of its role.
    pub role: usize,
    /// Places of the tasks that must complete before it.
    pub after: Vec<usize>,
    /// How long it takes.
    pub duration: Durations,
    /// Higher goes first.
    pub priority: i32,
    /// Places of the quotas that it draws on, with the amounts.
    pub quotas: Vec<(usize, u32)>,
    /// When it is tried again.
    pub retry: RetryPolicy,
    /// Time limit of an attempt; none: a simulated task has all the time it takes.
    pub timeout: Option<Duration>,
    /// The tasks that it spawns when it completes.
    pub map: Option<Map>,
}

/// Tasks that are spawned when another one completes.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// How many.
    pub items: u32,
    /// Place of their role.
    pub role: usize,
    /// How long each takes.
    pub duration: Durations,
    /// Higher goes first.
    pub priority: i32,
    /// Places of the quotas that each draws on, with the amounts.
    pub quotas: Vec<(usize, u32)>,
    /// When one is tried again.
    pub retry: RetryPolicy,
    /// Time limit of an attempt.
    pub timeout: Option<Duration>,
}

impl WorkTask {
    /// Returns a task of the first role that takes this long and waits for nothing.
    pub fn new(name: impl Into<String>, duration: Durations) -> Self {
        Self {
            name: name.into(),
            role: 0,
            after: Vec::new(),
            duration,
            priority: 0,
            quotas: Vec::new(),
            retry: RetryPolicy::default(),
            timeout: None,
            map: None,
        }
    }

    /// Makes the task wait for the ones at these places.
    #[must_use]
    pub fn after(mut self, tasks: impl IntoIterator<Item = usize>) -> Self {
        self.after.extend(tasks);
        self
    }
}

/// Why a workload cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// It has no task.
    #[error("the workload `{0}` has no task: there is nothing to simulate")]
    Empty(String),
    /// Two tasks have one name.
    #[error("two tasks are named `{0}`: names are unique")]
    Duplicate(String),
    /// A duration makes no sense.
    #[error("task `{task}`: {error}")]
    Duration {
        /// The task.
        task: String,
        /// What is wrong.
        error: DurationError,
    },
}

impl Workload {
    /// Returns an empty workload of one role.
    pub fn new(name: impl Into<String>, role: impl Into<String>) -> Self {
        let roles = vec![Role { name: role.into(), agents: None }];
        Self { name: name.into(), roles, ..Self::default() }
    }

    /// Adds a task and returns its place.
    pub fn add(&mut self, task: WorkTask) -> usize {
        self.tasks.push(task);
        self.tasks.len() - 1
    }

    /// Checks what a graph would not: durations, names, and that there is anything at all.
    ///
    /// # Errors
    /// Something makes no sense.
    pub fn check(&self) -> Result<(), WorkloadError> {
        if self.tasks.is_empty() {
            return Err(WorkloadError::Empty(self.name.clone()));
        }
        let mut names = BTreeSet::new();
        for task in &self.tasks {
            if !names.insert(&task.name) {
                return Err(WorkloadError::Duplicate(task.name.clone()));
            }
            let maps = task.map.iter().map(|map| &map.duration);
            for durations in maps.chain([&task.duration]) {
                durations.check().map_err(|error| {
                    let task = task.name.clone();
                    WorkloadError::Duration { task, error }
                })?;
            }
        }
        Ok(())
    }

    /// Returns the sum of all durations as this seed draws them, those of spawned tasks included.
    pub fn work(&self, seed: Seed) -> Duration {
        self.drawn(seed).fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Returns the longest duration that this seed draws.
    pub fn longest(&self, seed: Seed) -> Duration {
        self.drawn(seed).max().unwrap_or_default()
    }

    fn drawn(&self, seed: Seed) -> impl Iterator<Item = Duration> + '_ {
        (0..).zip(&self.tasks).flat_map(move |(entity, task)| {
            let items = task.map.iter().flat_map(move |map| {
                (0..map.items).map(move |item| map.duration.draw(seed, entity, 1 + u64::from(item)))
            });
            std::iter::once(task.duration.draw(seed, entity, 0)).chain(items)
        })
    }

    /// Adds the tasks to a builder, their durations drawn by the seed, and builds the graph. The
    /// expected duration of each task is the one that it will take.
    ///
    /// # Errors
    /// The tasks form no graph, or ask for what the builder's guild does not have.
    pub fn graph(&self, seed: Seed, mut builder: GraphBuilder) -> Result<Graph, GraphError> {
        let mut places = Vec::with_capacity(self.tasks.len());
        for (entity, task) in (0..).zip(&self.tasks) {
            let us = task.duration.draw(seed, entity, 0);
            let map = task.map.as_ref().map(|map| MapInput::draw(self, map, seed, entity));
            let input = TaskInput::new(us, map);
            let mut added = Task::new(&task.name, &self.roles[task.role].name)
                .input(&input)
                .priority(task.priority)
                .retry(task.retry.clone())
                .expected(us + input.expected_of_map());
            if let Some(timeout) = task.timeout {
                added = added.timeout(timeout);
            }
            for (quota, amount) in &task.quotas {
                added = added.quota(&self.quotas[*quota].0, *amount);
            }
            // References forward are by name; the builder finds cycles and unknown names.
            for before in &task.after {
                added = match places.get(*before) {
                    Some(place) => added.after(*place),
                    None => added.after(self.tasks[*before].name.as_str()),
                };
            }
            places.push(builder.add(added));
        }
        builder.build()
    }
}
