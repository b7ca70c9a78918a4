//! Performs simulated tasks: waits, and counts its effects for those who check them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::graph::Task;
use guild_core::retry::RetryPolicy;
use guild_core::time::micros;
use guild_runtime::{Agent, TaskContext, TaskError};
use serde::{Deserialize, Serialize};

use super::{Map, Workload};

/// What a simulated task is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskInput {
    /// How long it takes, in microseconds.
    us: u64,
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
    pub(super) fn new(duration: Duration, map: Option<MapInput>) -> Self {
        Self { us: micros(duration), map }
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
                .input(&TaskInput { us, map: None })
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
    /// Whether each task adds 1 to the key `effects` of the shared memory, and puts its own key.
    pub in_memory: bool,
    /// A ledger outside of Guild.
    pub outside: Option<Ledger>,
}

/// A ledger outside of Guild: what was done under which idempotency key, and how often.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, u32>>>);

impl Ledger {
    /// Notes that something was done.
    pub fn note(&self, key: &str) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *ledger.entry(key.to_owned()).or_default() += 1;
    }

    /// Returns each key with how often it was done.
    pub fn entries(&self) -> Vec<(String, u32)> {
        let ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.iter().map(|(key, times)| (key.clone(), *times)).collect()
    }
}

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
        if input.us > 0 {
            context.sleep(Duration::from_micros(input.us)).await;
        }
        if self.effects.in_memory {
            let key = format!("effect/{}", context.task());
            let seen = context.memory().get::<u32>(&key)?.unwrap_or(0);
            context.memory().put(&key, &(seen + 1))?;
            context.memory().add("effects", 1)?;
        }
        if let Some(ledger) = &self.effects.outside {
            ledger.note(context.idempotency_key());
        }
        if let Some(map) = input.map {
            map.spawn(context);
        }
        Ok(())
    }
}
