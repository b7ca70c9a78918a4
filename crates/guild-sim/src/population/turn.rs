//! What an individual has at hand while it steps, and the agent that lets it step.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use guild_core::time::{Timestamp, micros};
use guild_memory::Transaction;
use guild_runtime::{Agent, TaskContext, TaskError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Draws, Individual, IndividualId, Next};

/// One step of one individual: who and when it is, its draws, and the shared memory.
pub struct Turn<'a, I> {
    context: &'a mut TaskContext,
    id: IndividualId,
    step: u64,
    at: Timestamp,
    population: u32,
    draws: Draws,
    born: Vec<I>,
}

impl<I> fmt::Debug for Turn<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("id", &self.id)
            .field("step", &self.step)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl<I> Turn<'_, I> {
    /// Returns who steps.
    pub fn id(&self) -> IndividualId {
        self.id
    }

    /// Returns which step of this individual it is, from 1.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Returns the time of the model. All who step at one time see the same, however long the guild
    /// takes for them.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.at.0)
    }

    /// Returns how many individuals have been in the population so far; their ids are below that.
    pub fn population(&self) -> u32 {
        self.population
    }

    /// Returns the draws of this step; an attempt after a crash gets the same.
    pub fn draws(&mut self) -> &mut Draws {
        &mut self.draws
    }

    /// Returns the shared memory: what this step writes is committed with it, once, or not at all.
    pub fn memory(&mut self) -> &mut Transaction {
        self.context.memory()
    }

    /// Adds an individual to the population; it is born if this step is committed, and steps first
    /// at the next time step.
    pub fn bear(&mut self, individual: I) {
        self.born.push(individual);
    }

    /// Returns the attempt that performs the step, for what only the guild knows.
    pub fn context(&mut self) -> &mut TaskContext {
        self.context
    }
}

/// What is asked of the agent that lets an individual step.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "I: Serialize", deserialize = "I: DeserializeOwned"))]
pub(super) struct Ask<I> {
    pub(super) id: u32,
    pub(super) step: u64,
    pub(super) at_us: u64,
    pub(super) population: u32,
    pub(super) individual: I,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "I: Serialize", deserialize = "I: DeserializeOwned"))]
pub(super) struct Stepped<I> {
    pub(super) individual: I,
    pub(super) next: NextStep,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub(super) born: Vec<I>,
}

/// [`Next`] as an output of a task tells it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NextStep {
    Tick,
    AfterUs(u64),
    Leave,
}

/// The agent that lets individuals step.
pub(super) struct Stepper<I> {
    seed: u64,
    individuals: PhantomData<fn() -> I>,
}

impl<I> Stepper<I> {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, individuals: PhantomData }
    }
}

impl<I: Individual> Agent for Stepper<I> {
    type Input = Ask<I>;
    type Output = Stepped<I>;

    async fn perform(
        &mut self,
        ask: Ask<I>,
        context: &mut TaskContext,
    ) -> Result<Stepped<I>, TaskError> {
        let (mut individual, id) = (ask.individual, IndividualId(ask.id));
        let mut turn = Turn {
            context,
            id,
            step: ask.step,
            at: Timestamp(ask.at_us),
            population: ask.population,
            draws: Draws::of(self.seed, id, ask.step),
            born: Vec::new(),
        };
        let next = match individual.step(&mut turn).await? {
            Next::Tick => NextStep::Tick,
            Next::After(delay) => NextStep::AfterUs(micros(delay)),
            Next::Leave => NextStep::Leave,
        };
        Ok(Stepped { next, born: turn.born, individual })
    }
}
