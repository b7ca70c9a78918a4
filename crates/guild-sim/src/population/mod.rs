//! Simulates a population: thousands of individuals that step through time and share a memory.
//!
//! An [`Individual`] is a value with a `step`. Its own state travels with its steps and is private to
//! it; what all share is in the guild's memory. Each step is a task that one of the guild's
//! supervised agents performs, so a step happens once or not at all, whatever crashes while it is
//! under way: its writes, its new state and its children are one commit.
//!
//! Time is that of the model. Individuals step at the next time step ([`Next::Tick`]), after a while
//! of their own ([`Next::After`]), or never again ([`Next::Leave`]); a model of time steps and one of
//! events are the same thing here. Those who step at one time do so as if one after the other, in
//! an order that the seed draws: the memory is serialisable. Where many change one key they should
//! do it by an operation that reads nothing ([`Transaction::add`](guild_memory::Transaction::add)),
//! or they run again and again.
//!
//! ```
//! use guild_runtime::TaskError;
//! use guild_sim::population::{Individual, Next, Population, Turn};
//! use serde::{Deserialize, Serialize};
//!
//! /// Walks at random; whoever comes too far from home leaves.
//! #[derive(Serialize, Deserialize)]
//! struct Walker {
//!     place: i64,
//! }
//!
//! impl Individual for Walker {
//!     async fn step(&mut self, turn: &mut Turn<'_, Self>) -> Result<Next, TaskError> {
//!         self.place += if turn.draws().chance(0.5) { 1 } else { -1 };
//!         turn.memory().add("steps", 1)?;
//!         Ok(if self.place.abs() < 3 { Next::Tick } else { Next::Leave })
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut walkers = Population::with_seed(7)
//!     .individuals(100, |_, _| Walker { place: 0 })
//!     .measure("walkers", |view| Ok(view.count() as f64))
//!     .measure("steps", |view| view.number("steps"))
//!     .start()?;
//!
//! walkers.run_ticks(20)?;
//!
//! let series = walkers.series();
//! assert_eq!(series.column("walkers").map(|counts| counts[0]), Some(100.0));
//! assert!(series.last("walkers") < Some(50.0), "{}", series.to_csv());
//! # Ok(())
//! # }
//! ```

mod builder;
mod draws;
mod series;
mod sweep;
mod turn;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use guild_core::event::Outcome;
use guild_core::graph::{GraphError, Task};
use guild_core::id::TaskId;
use guild_core::incident::Incident;
use guild_core::retry::RetryPolicy;
use guild_core::time::{Timestamp, micros};
use guild_memory::{Transaction, TransactionError};
use guild_runtime::{RunReport, StartError, TaskError, TransactError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use self::builder::PopulationBuilder;
pub use self::draws::Draws;
pub use self::series::{Row, Series};
pub use self::sweep::{Trial, sweep, sweep_csv};
pub use self::turn::Turn;
use self::turn::{Ask, NextStep, Stepped};
pub use self::view::View;
use crate::{World, WorldError};

/// One member of a population: a value with a behaviour.
pub trait Individual: Serialize + DeserializeOwned + 'static {
    /// Lives through one moment, and says when the next one comes.
    ///
    /// `self` is what the individual was after its last step; what it is at the end is kept if the
    /// step is committed. A step that panics or loses a conflict is tried again from the same state
    /// with the same draws.
    fn step(&mut self, turn: &mut Turn<'_, Self>) -> impl Future<Output = Result<Next, TaskError>>;
}

/// When an individual steps again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At the next time step.
    Tick,
    /// This much later, on no time step in particular; zero counts as a microsecond.
    After(Duration),
    /// Never: it leaves the population.
    Leave,
}

/// Names an individual: they count up from 0 in the order of their births, and no id is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndividualId(pub u32);

impl fmt::Display for IndividualId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a population does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PopulationError {
    /// The guild cannot be started for it.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An individual has no JSON form, or one that does not give it back.
    #[error("individual {individual} cannot be kept: {message}")]
    State {
        /// Which one.
        individual: IndividualId,
        /// What the coder said.
        message: String,
    },
    /// A step failed for good; the time before it is the last that was.
    #[error("individual {individual} failed in its step {step}: {message}")]
    Step {
        /// Which one.
        individual: IndividualId,
        /// Which of its steps, from 1.
        step: u64,
        /// What it said.
        message: String,
    },
    /// The shared memory cannot be read or written as asked.
    #[error(transparent)]
    Memory(#[from] TransactionError),
    /// The shared memory refused the model's own change.
    #[error("the model's own step was refused: {0}")]
    ModelStep(String),
    /// The steps of one time form no graph: there are more than a run may have.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The guild did not end what it was told.
    #[error(transparent)]
    World(#[from] WorldError),
}

/// An individual between its steps.
#[derive(Debug)]
pub(crate) struct Member {
    /// What it is, as it was written down.
    state: Box<RawValue>,
    steps: u64,
    due: Timestamp,
}

impl Member {
    fn decode<I: Individual>(&self, id: IndividualId) -> Result<I, PopulationError> {
        serde_json::from_str(self.state.get())
            .map_err(|error| PopulationError::State { individual: id, message: error.to_string() })
    }
}

/// A measure of the population as a whole.
type Measure<I> = Box<dyn Fn(&View<'_, I>) -> Result<f64, PopulationError>>;
/// A measure of one individual.
type MeasureEach<I> = Box<dyn Fn(IndividualId, &I) -> f64>;
/// What the model does between two times.
type ModelStep = Box<dyn FnMut(&mut Transaction, Duration) -> Result<(), TransactionError>>;

/// A population that is simulated.
pub struct Population<I> {
    world: World,
    name: String,
    tick_us: u64,
    members: BTreeMap<IndividualId, Member>,
    /// Who steps when.
    due: BTreeSet<(Timestamp, IndividualId)>,
    born: u32,
    at: Timestamp,
    ticks: u64,
    model_step: Option<ModelStep>,
    measures: Vec<Measure<I>>,
    each: Vec<MeasureEach<I>>,
    measured_every: u64,
    series: Series,
    each_series: Vec<(IndividualId, Row)>,
    each_columns: Vec<String>,
    individuals: PhantomData<fn() -> I>,
}

impl<I> fmt::Debug for Population<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Population")
            .field("name", &self.name)
            .field("count", &self.members.len())
            .field("at", &self.at)
            .field("ticks", &self.ticks)
            .finish_non_exhaustive()
    }
}

impl<I: Individual> Population<I> {
    /// Returns a builder of a population whose random draws all come from this seed.
    pub fn with_seed(seed: u64) -> PopulationBuilder<I> {
        PopulationBuilder::new(seed)
    }

    /// Lets the next who are due step, at their time. Returns false when nobody will ever step.
    ///
    /// # Errors
    /// A step failed for good, or the model's own step or a measure did.
    pub fn tick(&mut self) -> Result<bool, PopulationError> {
        let Some((at, _)) = self.due.first().copied() else {
            return Ok(false);
        };
        let stepping: Vec<IndividualId> =
            self.due.iter().take_while(|(due, _)| *due == at).map(|(_, id)| *id).collect();
        let ahead = at.since(self.world.now());
        if !ahead.is_zero() {
            self.world.run_for(ahead);
        }
        let report = self.perform(at, &stepping)?;
        self.at = at;
        self.ticks += 1;
        self.take_steps(&stepping, &report)?;
        self.step_model()?;
        if self.ticks.is_multiple_of(self.measured_every) {
            self.measure()?;
        }
        Ok(true)
    }

    /// Lets time pass for this many times at which somebody steps, or until nobody ever will.
    ///
    /// # Errors
    /// As [`tick`](Self::tick).
    pub fn run_ticks(&mut self, ticks: u64) -> Result<(), PopulationError> {
        for _ in 0..ticks {
            if !self.tick()? {
                break;
            }
        }
        Ok(())
    }

    /// Lets this much time of the model pass.
    ///
    /// # Errors
    /// As [`tick`](Self::tick).
    pub fn run_for(&mut self, duration: Duration) -> Result<(), PopulationError> {
        let end = self.at.after(duration);
        while self.due.first().is_some_and(|(due, _)| *due <= end) {
            self.tick()?;
        }
        self.at = end;
        Ok(())
    }

    /// Lets time pass until something holds, but not for more than this many ticks; returns whether
    /// it came to hold.
    ///
    /// # Errors
    /// As [`tick`](Self::tick), and what `holds` fails with.
    pub fn run_until(
        &mut self,
        ticks_max: u64,
        holds: impl Fn(&View<'_, I>) -> Result<bool, PopulationError>,
    ) -> Result<bool, PopulationError> {
        for _ in 0..ticks_max {
            if holds(&self.view())? {
                return Ok(true);
            }
            if !self.tick()? {
                return Ok(false);
            }
        }
        holds(&self.view())
    }

    /// Returns the population as it is now.
    pub fn view(&self) -> View<'_, I> {
        View::new(self.ticks, self.at, self.world.snapshot(), &self.members)
    }

    /// Returns what was measured over time; the first row is from before the first step.
    pub fn series(&self) -> &Series {
        &self.series
    }

    /// Writes what was measured of each individual as CSV: `individual,tick,time_s` and a column for
    /// each measure.
    ///
    /// # Errors
    /// The writer fails.
    pub fn write_each_csv(&self, writer: impl std::io::Write) -> std::io::Result<()> {
        let mut csv = csv::Writer::from_writer(writer);
        let heads = ["individual", "tick", "time_s"].into_iter();
        csv.write_record(heads.chain(self.each_columns.iter().map(String::as_str)))?;
        for (id, row) in &self.each_series {
            csv.write_record(std::iter::once(id.to_string()).chain(row.cells()))?;
        }
        csv.flush()
    }

    /// Returns the world: its counts, incidents and log.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Performs the steps of all who are due at one time, as one run.
    fn perform(
        &mut self,
        at: Timestamp,
        stepping: &[IndividualId],
    ) -> Result<Arc<RunReport>, PopulationError> {
        let mut graph = self.world.graph(format!("{}-{}", self.name, self.ticks + 1));
        for id in stepping {
            let member = &self.members[id];
            let ask = Ask {
                id: id.0,
                step: member.steps + 1,
                at_us: at.0,
                population: self.born,
                individual: &*member.state,
            };
            let task = Task::numbered(id.0, ROLE).input(&ask);
            graph.add(task.retry(RetryPolicy::immediately(ATTEMPTS_MAX)));
        }
        let run = self.world.submit(graph.build()?)?;
        let report = self.world.run_until_ended(&run)?;
        if report.outcome() != Outcome::Completed {
            return Err(self.failure(stepping, &report));
        }
        self.world.forget(&run);
        Ok(report)
    }

    fn failure(&self, stepping: &[IndividualId], report: &RunReport) -> PopulationError {
        let place = report.payloads().iter().position(Option::is_none).unwrap_or_default();
        let individual = stepping.get(place).copied().unwrap_or(IndividualId(0));
        let incidents = self.world.incidents();
        let is_its = |task: TaskId| task.run == report.id() && task.index.at() == place;
        let attempt_of = |incident: &Incident| incident.report.attempt.map(|attempt| attempt.task);
        let told = incidents.iter().rev().find(|incident| attempt_of(incident).is_some_and(is_its));
        let message = told.map_or("it did not complete", |told| &told.report.message).to_owned();
        PopulationError::Step { individual, step: self.members[&individual].steps + 1, message }
    }

    /// Takes over what the steps came to, in the order of the ids.
    fn take_steps(
        &mut self,
        stepping: &[IndividualId],
        report: &RunReport,
    ) -> Result<(), PopulationError> {
        for (id, payload) in stepping.iter().zip(report.payloads()) {
            let unreadable = |message: String| PopulationError::State { individual: *id, message };
            let payload = payload.as_ref().ok_or_else(|| unreadable("no output".to_owned()))?;
            let stepped: Stepped<Box<RawValue>> =
                payload.decode().map_err(|error| unreadable(error.to_string()))?;
            self.due.remove(&(self.at, *id));
            let due = match stepped.next {
                NextStep::Tick => Some(self.next_tick()),
                NextStep::AfterUs(us) => Some(self.at.after(Duration::from_micros(us.max(1)))),
                NextStep::Leave => None,
            };
            match (due, self.members.get_mut(id)) {
                (Some(due), Some(member)) => {
                    member.state = stepped.individual;
                    member.steps += 1;
                    member.due = due;
                    self.due.insert((due, *id));
                }
                (None, _) | (_, None) => {
                    self.members.remove(id);
                }
            }
            for state in stepped.born {
                self.add(state, self.next_tick());
            }
        }
        Ok(())
    }

    fn add(&mut self, state: Box<RawValue>, due: Timestamp) {
        let id = IndividualId(self.born);
        self.born += 1;
        self.members.insert(id, Member { state, steps: 0, due });
        self.due.insert((due, id));
    }

    fn next_tick(&self) -> Timestamp {
        Timestamp((self.at.0 / self.tick_us).saturating_add(1).saturating_mul(self.tick_us))
    }

    fn step_model(&mut self) -> Result<(), PopulationError> {
        let Some(step) = &mut self.model_step else {
            return Ok(());
        };
        let time = Duration::from_micros(self.at.0);
        change(&mut self.world, |memory| step(memory, time))
    }

    /// Measures the population as it is now.
    fn measure(&mut self) -> Result<(), PopulationError> {
        let view = View::new(self.ticks, self.at, self.world.snapshot(), &self.members);
        let row = |values| Row { tick: self.ticks, time_s: view.time().as_secs_f64(), values };
        if !self.each.is_empty() {
            for (id, individual) in view.individuals()? {
                let values = self.each.iter().map(|each| each(*id, individual)).collect();
                self.each_series.push((*id, row(values)));
            }
        }
        let values = self.measures.iter().map(|measure| measure(&view));
        let row = row(values.collect::<Result<_, _>>()?);
        self.series.push(row);
        Ok(())
    }
}

/// Changes the shared memory from outside of all steps.
fn change(
    world: &mut World,
    change: impl FnMut(&mut Transaction) -> Result<(), TransactionError>,
) -> Result<(), PopulationError> {
    match world.transact(change) {
        Ok(_) => Ok(()),
        Err(TransactError::GivenUp(error)) => Err(error.into()),
        Err(error) => Err(PopulationError::ModelStep(error.to_string())),
    }
}

/// The role of the agents that let individuals step.
const ROLE: &str = "individual";
/// How often a step is tried before the population gives up.
const ATTEMPTS_MAX: u32 = 100;
