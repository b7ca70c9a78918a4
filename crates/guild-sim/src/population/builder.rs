//! Says what a population is made of.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use guild_core::planner::ReadyOrder;
use guild_memory::{Transaction, TransactionError};
use guild_runtime::FaultPoint;
use serde_json::value::to_raw_value;

use super::turn::Stepper;
use super::{
    Draws, Individual, IndividualId, Measure, MeasureEach, ModelStep, Population, PopulationError,
    ROLE, Series, View, change, micros,
};
use crate::simulate::tireless;
use crate::world::Resolution;
use crate::{World, WorldBuilder};

/// Builds an individual at the start.
type Birth<I> = Box<dyn Fn(IndividualId, &mut Draws) -> I>;
/// Prepares the shared memory.
type Setup = Box<dyn FnMut(&mut Transaction) -> Result<(), TransactionError>>;
/// Writes what of an individual all can see.
type SetupEach<I> = Box<dyn Fn(&mut Transaction, IndividualId, &I) -> Result<(), TransactionError>>;
/// Sets what only the world knows.
type Adjust = Box<dyn FnOnce(WorldBuilder) -> WorldBuilder>;

/// Collects what a [`Population`] is made of.
pub struct PopulationBuilder<I> {
    seed: u64,
    name: String,
    tick: Duration,
    agents: Option<u32>,
    births: Vec<(u32, Birth<I>)>,
    setups: Vec<Setup>,
    setups_each: Vec<SetupEach<I>>,
    faults: Option<Arc<dyn FaultPoint>>,
    adjusts: Vec<Adjust>,
    model_step: Option<ModelStep>,
    measures: Vec<(String, Measure<I>)>,
    each: Vec<(String, MeasureEach<I>)>,
    measured_every: u64,
}

impl<I> fmt::Debug for PopulationBuilder<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PopulationBuilder")
            .field("seed", &self.seed)
            .field("name", &self.name)
            .field("tick", &self.tick)
            .finish_non_exhaustive()
    }
}

impl<I: Individual> PopulationBuilder<I> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            name: "population".to_owned(),
            tick: Duration::from_secs(1),
            agents: None,
            births: Vec::new(),
            setups: Vec::new(),
            setups_each: Vec::new(),
            faults: None,
            adjusts: Vec::new(),
            model_step: None,
            measures: Vec::new(),
            each: Vec::new(),
            measured_every: 1,
        }
    }

    /// Names the population; its runs in the log are `name-1`, `name-2` and so on.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the time from one time step to the next; a second by default, a microsecond at least.
    #[must_use]
    pub fn time_step(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// Adds individuals, each built from its id and its own draws. They step first at the first time
    /// step. Kinds of individual are variants of one `enum`, and each call adds some of one kind.
    #[must_use]
    pub fn individuals(
        mut self,
        count: u32,
        birth: impl Fn(IndividualId, &mut Draws) -> I + 'static,
    ) -> Self {
        self.births.push((count, Box::new(birth)));
        self
    }

    /// Sets how many supervised agents perform the steps. By default there is one for each
    /// individual of the start: whoever steps at one time has seen what was before it. With fewer
    /// agents later ones see what earlier ones did, and where all read what all write there are
    /// fewer conflicts.
    #[must_use]
    pub fn agents(mut self, agents: u32) -> Self {
        self.agents = Some(agents);
        self
    }

    /// Writes into the shared memory before the first step.
    #[must_use]
    pub fn share(
        mut self,
        setup: impl FnMut(&mut Transaction) -> Result<(), TransactionError> + 'static,
    ) -> Self {
        self.setups.push(Box::new(setup));
        self
    }

    /// Writes into the shared memory for each individual of the start: what others can see of it.
    #[must_use]
    pub fn share_each(
        mut self,
        setup: impl Fn(&mut Transaction, IndividualId, &I) -> Result<(), TransactionError> + 'static,
    ) -> Self {
        self.setups_each.push(Box::new(setup));
        self
    }

    /// Changes the shared memory after each time at which somebody has stepped, as the model itself:
    /// prices are set, food grows. It is told the time of the model.
    #[must_use]
    pub fn model_step(
        mut self,
        step: impl FnMut(&mut Transaction, Duration) -> Result<(), TransactionError> + 'static,
    ) -> Self {
        self.model_step = Some(Box::new(step));
        self
    }

    /// Measures something of the whole population over time, under this name.
    #[must_use]
    pub fn measure(
        mut self,
        name: impl Into<String>,
        measure: impl Fn(&View<'_, I>) -> Result<f64, PopulationError> + 'static,
    ) -> Self {
        self.measures.push((name.into(), Box::new(measure)));
        self
    }

    /// Measures something of each individual over time, under this name, for
    /// [`Population::write_each_csv`].
    #[must_use]
    pub fn measure_each(
        mut self,
        name: impl Into<String>,
        measure: impl Fn(IndividualId, &I) -> f64 + 'static,
    ) -> Self {
        self.each.push((name.into(), Box::new(measure)));
        self
    }

    /// Measures only after every n-th tick; after each by default.
    #[must_use]
    pub fn measure_every(mut self, ticks: u64) -> Self {
        self.measured_every = ticks.max(1);
        self
    }

    /// Lets faults strike; whom they crash is restarted as often as it takes.
    #[must_use]
    pub fn faults(mut self, faults: Arc<dyn FaultPoint>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Sets what else there is to set of the world in which the population lives.
    #[must_use]
    pub fn world(mut self, adjust: impl FnOnce(WorldBuilder) -> WorldBuilder + 'static) -> Self {
        self.adjusts.push(Box::new(adjust));
        self
    }

    /// Starts the population at time 0, and measures it.
    ///
    /// # Errors
    /// An individual cannot be written down, the shared memory cannot be prepared as asked, or the
    /// guild does not start.
    pub fn start(self) -> Result<Population<I>, PopulationError> {
        let count: u32 = self.births.iter().map(|(count, _)| *count).sum();
        let seed = self.seed;
        let mut world = World::with_seed(seed)
            .resolution(Resolution::Microsecond)
            .order(ReadyOrder::Random)
            .role(ROLE, self.agents.unwrap_or(count).max(1), move || Stepper::<I>::new(seed));
        if let Some(faults) = self.faults {
            world = world.faults(faults).restart(tireless());
        }
        let world = self.adjusts.into_iter().fold(world, |world, adjust| adjust(world));
        let mut world = world.start()?;
        for setup in self.setups {
            change(&mut world, setup)?;
        }
        let (measured, measures) = self.measures.into_iter().unzip();
        let (each_columns, each) = self.each.into_iter().unzip();
        let mut population = Population {
            world,
            name: self.name,
            tick_us: micros(self.tick).max(1),
            members: Default::default(),
            due: Default::default(),
            born: 0,
            at: Default::default(),
            ticks: 0,
            model_step: self.model_step,
            measures,
            each,
            measured_every: self.measured_every,
            series: Series::new(measured),
            each_series: Vec::new(),
            each_columns,
            individuals: PhantomData,
        };
        let mut first = Vec::new();
        for (count, birth) in self.births {
            for _ in 0..count {
                let id = IndividualId(population.born);
                let individual = birth(id, &mut Draws::of(seed, id, 0));
                let state = to_raw_value(&individual).map_err(|error| PopulationError::State {
                    individual: id,
                    message: error.to_string(),
                })?;
                population.add(state, population.next_tick());
                first.push((id, individual));
            }
        }
        for (setup, some) in self
            .setups_each
            .iter()
            .flat_map(|setup| first.chunks(SHARED_AT_ONCE).map(move |some| (setup, some)))
        {
            change(&mut population.world, |memory| {
                some.iter().try_for_each(|(id, individual)| setup(memory, *id, individual))
            })?;
        }
        population.measure()?;
        Ok(population)
    }
}

/// Individuals of which one transaction tells; each may write a few keys.
const SHARED_AT_ONCE: usize = 200;
