//! Performs simulated tasks: waits, and counts its effects for those who check them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::graph::Task;
use guild_core::retry::RetryPolicy;
use guild_core::time::{Timestamp, micros};
use guild_runtime::{Agent, TaskContext, TaskError};
use serde::{Deserialize, Serialize};

use super::{Map, Workload};
use crate::checker::serial::list_append::Operation;
use crate::checker::serial::{Clients, list};
use crate::plan::matches;

/// What a simulated task is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskInput {
    /// How long it takes, in microseconds.
    us: u64,
    /// How often it must show that it lives, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heartbeat_us: Option<u64>,
    /// What it spawns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    map: Option<MapInput>,
}

/// What a simulated task spawns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MapInput {
    role: String,
    us: Vec<u64>,
    priority: i32,
    quotas: Vec<(String, u32)>,
    retry: RetryPolicy,
    timeout: Option<Duration>,
}

impl TaskInput {
    pub(super) fn new(
        duration: Duration,
        heartbeat: Option<Duration>,
        map: Option<MapInput>,
    ) -> Self {
        Self { us: micros(duration), heartbeat_us: heartbeat.map(micros), map }
    }

    /// Waits as long as the task takes, and shows twice in each interval that it lives.
    async fn wait(&self, context: &mut TaskContext) {
        let mut left = self.us;
        let step = self.heartbeat_us.map_or(left, |interval| (interval / 2).max(1));
        while left > step {
            context.sleep(Duration::from_micros(step)).await;
            context.heartbeat();
            left -= step;
        }
        if left > 0 {
            context.sleep(Duration::from_micros(left)).await;
        }
    }

    /// Returns the least time that what it spawns adds to the paths through it.
    pub(super) fn expected_of_map(&self) -> Duration {
        let longest = self.map.as_ref().and_then(|map| map.us.iter().max()).copied();
        Duration::from_micros(longest.unwrap_or(0))
    }
}

impl MapInput {
    pub(super) fn draw(workload: &Workload, map: &Map, seed: Seed, place: usize) -> Self {
        let draw = |item: u32| micros(map.duration.draw(seed, place as u64, 1 + u64::from(item)));
        let name = |(quota, amount): &(usize, u32)| (workload.quotas[*quota].0.clone(), *amount);
        Self {
            role: workload.roles[map.role].name.clone(),
            us: (0..workload.items(seed, place)).map(draw).collect(),
            priority: map.priority,
            quotas: map.quotas.iter().map(name).collect(),
            retry: map.retry.clone(),
            timeout: map.timeout,
        }
    }

    fn spawn(self, context: &mut TaskContext) {
        for (number, us) in (0..).zip(self.us) {
            let mut task = Task::numbered(number, &self.role)
                .input(&TaskInput { us, heartbeat_us: None, map: None })
                .priority(self.priority)
                .retry(self.retry.clone())
                .expected(Duration::from_micros(us));
            if let Some(timeout) = self.timeout {
                task = task.timeout(timeout);
            }
            for (quota, amount) in &self.quotas {
                task = task.quota(quota, *amount);
            }
            context.spawn(task);
        }
    }
}

/// Where simulated tasks leave their effects, so that a test can count them.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Whether each task adds 1 to the key `effects` of the shared memory and puts its own key.
    pub in_memory: bool,
    /// Who is told what some tasks read of lists that they share, and what they append to them.
    pub lists: Option<Clients>,
    /// A ledger outside of Guild.
    pub outside: Option<Ledger>,
    /// Whether the effect outside is had under another key by each attempt, as it must not be.
    pub careless: bool,
    /// How often a task that has had its effects answers with an error all the same.
    pub errors: Option<Errors>,
}

/// How often tasks answer with an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Errors {
    /// What draws them.
    pub seed: Seed,
    /// The probability that an attempt answers with an error after which another may succeed.
    pub retryable: f64,
    /// The probability that an attempt answers with an error that says not to try again.
    pub fatal: f64,
    /// The pattern of the tasks that do; none: all.
    pub tasks: Option<String>,
    /// From when on none does.
    pub until: Timestamp,
}

impl Errors {
    /// Draws how an attempt ends.
    fn draw(&self, context: &TaskContext) -> Result<(), TaskError> {
        let admitted = |pattern: &String| matches(pattern, &context.task());
        if context.now() >= self.until || !self.tasks.as_ref().is_none_or(admitted) {
            return Ok(());
        }
        let task = context.task_id();
        let entity = u64::from(task.run.0) << 32 | u64::from(task.index.0);
        let drawn = self.seed.unit(Stream::Fault, entity, u64::from(context.attempt()));
        if drawn < self.fatal {
            return Err(TaskError::fatal("simulated error that no attempt gets over"));
        }
        match drawn < self.fatal + self.retryable {
            true => Err(TaskError::retryable("simulated error")),
            false => Ok(()),
        }
    }
}

/// A service outside of Guild that honours idempotency keys: what comes under a known key is not
/// done again. Every clone is the same service.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Done>>);

#[derive(Debug, Default)]
struct Done {
    keys: BTreeSet<String>,
    effects: BTreeMap<String, u64>,
}

impl Ledger {
    /// Has the effect of a task, unless it was had under this key.
    pub fn effect(&self, task: String, key: &str) {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if done.keys.insert(key.to_owned()) {
            *done.effects.entry(task).or_default() += 1;
        }
    }

    /// Returns how often the effect of each task was had.
    pub fn effects(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).effects.clone()
    }
}

/// The key that every task with effects adds 1 to.
pub const COUNTER: &str = "effects";

/// Every how many tasks one reads or appends to lists, so that transactions conflict now and then.
const LISTS_EVERY: u32 = 5;
/// Tasks that share two lists: reading a list takes the longer the more has been appended to it.
const TASKS_OF_LISTS: u32 = 200;
/// An append to a list that is longer would be refused; none is.
const LIST_LENGTH_MAX: usize = 1_000;

/// An agent that waits as long as its task is said to take.
#[derive(Clone, Debug, Default)]
pub struct SimulatedAgent {
    effects: Effects,
}

impl SimulatedAgent {
    /// Returns an agent that leaves these effects.
    pub fn with_effects(effects: Effects) -> Self {
        Self { effects }
    }
}

impl Agent for SimulatedAgent {
    type Input = TaskInput;
    type Output = ();

    async fn perform(
        &mut self,
        input: TaskInput,
        context: &mut TaskContext,
    ) -> Result<(), TaskError> {
        input.wait(context).await;
        if self.effects.in_memory {
            let key = format!("effect/{}", context.task());
            let seen = context.memory().get::<u32>(&key)?.unwrap_or(0);
            context.memory().put(&key, &(seen + 1))?;
            context.memory().add(COUNTER, 1)?;
        }
        if let Some(clients) = &self.effects.lists
            && context.task_id().index.0.is_multiple_of(LISTS_EVERY)
        {
            clients.saw(context.token(), use_lists(context)?);
        }
        if let Some(ledger) = &self.effects.outside {
            let task = format!("{}/{}", context.run(), context.task());
            let mut key = context.idempotency_key().to_owned();
            if self.effects.careless {
                key += &format!("#{}", context.attempt());
            }
            ledger.effect(task, &key);
        }
        if let Some(errors) = &self.effects.errors {
            errors.draw(context)?;
        }
        if let Some(map) = input.map {
            map.spawn(context);
        }
        Ok(())
    }
}

/// Reads two lists and appends an element of its own to one of them, or only appends, and returns
/// what it saw. Two tasks that read both and append to different ones tempt to write skew.
fn use_lists(context: &mut TaskContext) -> Result<Vec<Operation>, TaskError> {
    let index = context.task_id().index.0;
    let element = context.token().0.cast_signed();
    let (pair, turn) = (index / TASKS_OF_LISTS, index / LISTS_EVERY % 4);
    let keys = [2 * pair, 2 * pair + 1];
    let memory = context.memory();
    let mut operations = Vec::new();
    if turn == 3 {
        let key = keys[usize::from(pair % 2 == 0)];
        memory.append(list(key), &element, LIST_LENGTH_MAX)?;
        operations.push(Operation::Append { key, element });
        return Ok(operations);
    }
    for (place, key) in (0..).zip(keys) {
        let mut elements = memory.get::<Vec<i64>>(list(key))?.unwrap_or_default();
        operations.push(Operation::Read { key, elements: Some(elements.clone()) });
        if place == turn % 2 {
            elements.push(element);
            memory.put(list(key), &elements)?;
            operations.push(Operation::Append { key, element });
        }
    }
    Ok(operations)
}
