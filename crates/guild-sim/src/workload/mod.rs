//! Describes what is simulated: tasks, their durations, roles and quotas.
//!
//! A [`Workload`] holds no code. Its tasks are performed by [`SimulatedAgent`]s, which do nothing but
//! wait on the guild's clock; everything around them is the production code.

mod agent;
mod duration;
mod shapes;
mod wfformat;

use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::graph::{Graph, GraphBuilder, GraphError, NameIndex, Task};
use guild_core::quota::QuotaSpec;
use guild_core::retry::RetryPolicy;
use guild_core::supervision::{GroupSpec, SupervisorSpec};

pub use self::agent::{COUNTER, Effects, Errors, Ledger, SimulatedAgent};
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
    /// Whether it serves the workload itself, as what expands the lists of a flow does:
    /// the `agents` of a [`Simulation`](crate::Simulation) does not change it and its agents are not
    /// counted.
    pub is_inner: bool,
    /// How its agents are supervised, where the workload says so.
    pub supervision: Option<SupervisorSpec>,
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
    /// Roles and groups that belong together.
    pub groups: Vec<GroupSpec>,
    /// How the root treats what gives up, where the workload says so.
    pub root: Option<SupervisorSpec>,
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
    /// How often an attempt must show that it lives.
    pub heartbeat: Option<Duration>,
    /// The tasks that it spawns when it completes; boxed, as most tasks spawn none.
    pub map: Option<Box<Map>>,
}

/// How many tasks a map spawns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items {
    /// Always as many.
    Fixed(u32),
    /// Any number between the two, both included.
    Uniform {
        /// The fewest.
        min: u32,
        /// The most.
        max: u32,
    },
    /// As many as the map of the task at this place.
    As(usize),
}

/// Tasks that are spawned when another one completes.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// How many.
    pub items: Items,
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
            heartbeat: None,
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
    /// The number of tasks of a map makes no sense.
    #[error("task `{task}`: {why}")]
    Items {
        /// The task.
        task: String,
        /// What is wrong.
        why: &'static str,
    },
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
        let role = Role { name: role.into(), agents: None, is_inner: false, supervision: None };
        let roles = vec![role];
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
        let name = |place: u32| &self.tasks[place as usize].name;
        let names = NameIndex::new(self.tasks.iter().map(|task| NameIndex::hash(&task.name)));
        if let Some(place) = names.duplicate(|one, other| name(one) == name(other)) {
            return Err(WorkloadError::Duplicate(name(place).clone()));
        }
        for (place, task) in self.tasks.iter().enumerate() {
            self.check_items(place)?;
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

    fn check_items(&self, place: usize) -> Result<(), WorkloadError> {
        let task = &self.tasks[place];
        let why = match task.map.as_ref().map(|map| map.items) {
            Some(Items::Uniform { min, max }) if min > max => "`min` is above `max`",
            Some(Items::As(_)) if self.counted_map(place).is_none() => {
                "it has as many items as a task that spawns none"
            }
            _ => return Ok(()),
        };
        Err(WorkloadError::Items { task: task.name.clone(), why })
    }

    /// Returns the place of the map that says how many items this one has; none: a task on the
    /// way has no map, or the way is a circle.
    fn counted_map(&self, place: usize) -> Option<usize> {
        let mut at = place;
        for _ in 0..self.tasks.len() {
            match self.tasks.get(at)?.map.as_ref()?.items {
                Items::As(other) => at = other,
                Items::Fixed(_) | Items::Uniform { .. } => return Some(at),
            }
        }
        None
    }

    /// Returns how many tasks the map of this task spawns with this seed; 0 without a map.
    pub fn items(&self, seed: Seed, place: usize) -> u32 {
        let Some(place) = self.counted_map(place) else { return 0 };
        match self.tasks[place].map.as_ref().map(|map| map.items) {
            Some(Items::Fixed(items)) => items,
            Some(Items::Uniform { min, max }) => {
                let span = u64::from(max.saturating_sub(min)) + 1;
                let drawn = seed.bits(Stream::Duration, place as u64, ITEMS_DRAW) % span;
                min.saturating_add(u32::try_from(drawn).unwrap_or(u32::MAX))
            }
            Some(Items::As(_)) | None => 0,
        }
    }

    /// Returns the sum of all durations as this seed draws them, those of spawned tasks included.
    pub fn work(&self, seed: Seed) -> Duration {
        self.work_by_role(seed).into_iter().fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Returns the longest duration that this seed draws.
    pub fn longest(&self, seed: Seed) -> Duration {
        self.drawn(seed).map(|(_, duration)| duration).max().unwrap_or_default()
    }

    /// Returns the time limit of an attempt where faults strike and nothing says another one: so long
    /// that no task needs it, and a hang is noticed.
    pub(crate) fn time_limit(&self, seed: Seed) -> Duration {
        self.longest(seed).saturating_mul(10).max(TIME_LIMIT_MIN)
    }

    /// Returns the work of each role.
    pub fn work_by_role(&self, seed: Seed) -> Vec<Duration> {
        let mut work = vec![Duration::ZERO; self.roles.len()];
        for (role, duration) in self.drawn(seed) {
            work[role] = work[role].saturating_add(duration);
        }
        work
    }

    /// Returns the work of each role, as the graph that this seed has made of the workload expects it:
    /// what a task takes need not be drawn again.
    pub(crate) fn work_in(&self, seed: Seed, graph: &Graph) -> Vec<Duration> {
        let mut work = vec![Duration::ZERO; self.roles.len()];
        for (place, (task, spec)) in self.tasks.iter().zip(&graph.tasks).enumerate() {
            let mut add = |role: usize, duration| work[role] = work[role].saturating_add(duration);
            match task.map {
                None => add(task.role, spec.expected),
                Some(_) => self.drawn_of(seed, place).for_each(|(role, took)| add(role, took)),
            }
        }
        work
    }

    /// Returns the role and the duration of every task, those of maps included.
    fn drawn(&self, seed: Seed) -> impl Iterator<Item = (usize, Duration)> + '_ {
        (0..self.tasks.len()).flat_map(move |place| self.drawn_of(seed, place))
    }

    /// Returns the role and the duration of a task and of each that it spawns.
    fn drawn_of(&self, seed: Seed, place: usize) -> impl Iterator<Item = (usize, Duration)> + '_ {
        let (task, entity) = (&self.tasks[place], place as u64);
        let items = task.map.iter().flat_map(move |map| {
            let drawn =
                move |item| (map.role, map.duration.draw(seed, entity, 1 + u64::from(item)));
            (0..self.items(seed, place)).map(drawn)
        });
        std::iter::once((task.role, task.duration.draw(seed, entity, 0))).chain(items)
    }

    /// Adds the tasks to a builder, their durations drawn by the seed, and builds the graph. The
    /// expected duration of each task is the one that it will take.
    ///
    /// # Errors
    /// The tasks form no graph, or ask for what the builder's guild does not have.
    pub fn graph(&self, seed: Seed, mut builder: GraphBuilder) -> Result<Graph, GraphError> {
        let mut places = Vec::with_capacity(self.tasks.len());
        for (place, task) in self.tasks.iter().enumerate() {
            let us = task.duration.draw(seed, place as u64, 0);
            let map = task.map.as_ref().map(|map| MapInput::draw(self, map, seed, place));
            let input = TaskInput::new(us, task.heartbeat, map);
            let mut added = Task::new(&task.name, &self.roles[task.role].name)
                .input(&input)
                .priority(task.priority)
                .retry(task.retry.clone())
                .expected(us + input.expected_of_map());
            if let Some(timeout) = task.timeout {
                added = added.timeout(timeout);
            }
            if let Some(heartbeat) = task.heartbeat {
                added = added.heartbeat(heartbeat);
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

/// Where tasks take next to no time, what is around them takes some.
const TIME_LIMIT_MIN: Duration = Duration::from_secs(60);

/// The draw of a task's number of items; the draws of the items themselves count from 1.
const ITEMS_DRAW: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn map(items: Items) -> WorkTask {
        let second = Durations::Fixed(Duration::from_secs(1));
        let mut task = WorkTask::new("", Durations::Fixed(Duration::ZERO));
        task.map = Some(Box::new(Map {
            items,
            role: 0,
            duration: second,
            priority: 0,
            quotas: Vec::new(),
            retry: RetryPolicy::default(),
            timeout: None,
        }));
        task
    }

    fn workload(maps: &[Items]) -> Workload {
        let mut workload = Workload::new("maps", "worker");
        for (place, items) in maps.iter().enumerate() {
            workload.add(WorkTask { name: format!("m{place}"), ..map(*items) });
        }
        workload
    }

    #[test]
    fn a_map_of_another_maps_outputs_has_as_many_items() {
        let workload = workload(&[Items::Uniform { min: 3, max: 900 }, Items::As(0), Items::As(1)]);

        assert_eq!(workload.check(), Ok(()));
        let drawn: BTreeSet<u32> = (0..50).map(|seed| workload.items(Seed(seed), 0)).collect();
        assert!(drawn.len() > 30 && drawn.iter().all(|items| (3..=900).contains(items)));
        let seed = Seed(7);
        assert_eq!(workload.items(seed, 2), workload.items(seed, 0));
        let seconds = u64::from(workload.items(seed, 0)) * 3;
        assert_eq!(workload.work(seed), Duration::from_secs(seconds));
    }

    #[test]
    fn a_number_of_items_that_makes_no_sense_is_refused() {
        for maps in [
            &[Items::Uniform { min: 2, max: 1 }][..],
            &[Items::As(1), Items::As(0)],
            &[Items::As(7)],
        ] {
            let error = workload(maps).check().unwrap_err();
            assert!(matches!(error, WorkloadError::Items { .. }), "{error}");
        }
    }
}
