//! Simulates a workload: one world, one run, one outcome.

use std::sync::Arc;
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::event::{Outcome, Tally};
use guild_core::graph::{GraphBuilder, GraphError};
use guild_core::limits::Limits;
use guild_core::planner::ReadyOrder;
use guild_core::restart::RestartPolicy;
use guild_core::supervision::GroupSpec;
use guild_core::time::Timestamp;
use guild_runtime::{FaultPoint, StartError};

use crate::plan::Scene;
use crate::workload::{DURATION_MAX, Role, SimulatedAgent, Workload, WorkloadError};
use crate::world::{Counts, LogReader, Resolution};
use crate::{World, WorldBuilder, WorldError};

/// How a workload is simulated.
#[derive(Clone)]
pub struct Simulation {
    /// Agents of each role, instead of what the workload says.
    pub agents: Option<u32>,
    /// Agents of a role of which the workload says nothing.
    pub agents_default: u32,
    /// Seed of all draws.
    pub seed: u64,
    /// Which ready task goes first.
    pub order: ReadyOrder,
    /// What strikes.
    pub faults: Option<Arc<dyn FaultPoint>>,
    /// Whether every invariant of the planner is checked after every step.
    pub validate: bool,
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("agents", &self.agents)
            .field("seed", &self.seed)
            .field("order", &self.order)
            .field("faults", &self.faults.is_some())
            .finish_non_exhaustive()
    }
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            agents: None,
            agents_default: 16,
            seed: 0,
            order: ReadyOrder::default(),
            faults: None,
            validate: false,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulated {
    /// How the run ended.
    pub outcome: Outcome,
    /// How many tasks ended in which way.
    pub tally: Tally,
    /// Tasks, those that were spawned included.
    pub tasks: u64,
    /// Agents of all roles that are not inner ones.
    pub agents: u64,
    /// Virtual time from the submission to the end.
    pub makespan: Duration,
    /// Sum of the durations of all tasks.
    pub work: Duration,
    /// Longest chain of durations.
    pub critical_path: Duration,
    /// What no schedule can be below: the critical path, or the work of a role shared by its agents.
    pub bound: Duration,
    /// What the log holds.
    pub counts: Counts,
    /// Messages between the guild's actors.
    pub messages: u64,
    /// Hash of the log.
    pub log_hash: u64,
}

/// Why a workload was not simulated to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// The workload makes no sense.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// Its tasks form no graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The guild cannot be started for it.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The run did not end.
    #[error(transparent)]
    World(#[from] WorldError),
}

impl Simulation {
    /// Simulates a workload to its end; `readers` see the log as it grows.
    ///
    /// # Errors
    /// The workload makes no sense, or the run does not end.
    pub fn run(
        &self,
        workload: &Workload,
        readers: Vec<Box<dyn LogReader>>,
    ) -> Result<Simulated, SimulateError> {
        workload.check()?;
        let seed = Seed(self.seed);
        let mut limits = limits(workload);
        limits.task_timeout = self.timeout(workload, seed);
        let agents = self.agents(workload);
        let mut builder = World::with_seed(self.seed)
            .resolution(Resolution::Microsecond)
            .order(self.order)
            .limits(limits.clone())
            .time_limit(TIME_LIMIT)
            .validate(self.validate);
        for (role, agents) in workload.roles.iter().zip(&agents) {
            builder = builder.role(&role.name, *agents, SimulatedAgent::default);
        }
        for (name, spec) in &workload.quotas {
            builder = builder.quota(name, spec.clone());
        }
        if let Some(faults) = &self.faults {
            // Injected crashes say nothing about an agent: it is restarted as often as it takes.
            // What the workload says of a role comes first.
            builder = builder.faults(Arc::clone(faults)).restart(tireless());
        }
        builder = supervised(builder, workload);
        for reader in readers {
            builder = builder.boxed_reader(reader);
        }
        let mut world = builder.start()?;
        let graph = workload.graph(seed, world.graph(&workload.name))?;
        let critical_path = graph.critical_path();
        let work = workload.work_in(seed, &graph);
        let run = world.submit(graph)?;
        let report = world.run_until_ended(&run)?;
        let tally = report.tally();
        let simulated = Simulated {
            outcome: report.outcome(),
            tally,
            tasks: [tally.completed, tally.failed, tally.skipped, tally.cancelled]
                .map(u64::from)
                .iter()
                .sum(),
            agents: counted_agents(workload, &agents),
            makespan: Timestamp(report.makespan_us()).since(Timestamp(0)),
            work: work.iter().copied().fold(Duration::ZERO, Duration::saturating_add),
            critical_path,
            bound: least(&work, &agents).max(critical_path),
            counts: world.counts(),
            messages: world.stats().messages,
            log_hash: world.log_hash(),
        };
        world.shut_down();
        Ok(simulated)
    }

    /// Checks that a workload could be simulated, and changes nothing.
    ///
    /// # Errors
    /// The workload makes no sense.
    pub fn check(&self, workload: &Workload) -> Result<(), SimulateError> {
        workload.check()?;
        workload.graph(Seed(self.seed), GraphBuilder::new(&workload.name))?;
        Ok(())
    }

    /// Returns the agents and tasks among which a fault plan selects.
    pub fn scene(&self, workload: &Workload) -> Scene {
        let roles = workload.roles.iter().map(|role| role.name.clone());
        Scene {
            roles: roles.zip(self.agents(workload)).collect(),
            tasks: workload.tasks.iter().map(|task| task.name.clone()).collect(),
        }
    }

    /// Returns the agents of each role.
    fn agents(&self, workload: &Workload) -> Vec<u32> {
        let of = |role: &Role| {
            let asked_for = self.agents.filter(|_| !role.is_inner);
            asked_for.or(role.agents).unwrap_or(self.agents_default)
        };
        workload.roles.iter().map(of).collect()
    }

    /// A simulated task has all the time that it takes, but where faults strike a hang must be
    /// noticed.
    fn timeout(&self, workload: &Workload, seed: Seed) -> Duration {
        match self.faults {
            None => DURATION_MAX * 2,
            Some(_) => workload.time_limit(seed),
        }
    }
}

/// Returns bounds that any workload of a simulation fits.
fn limits(workload: &Workload) -> Limits {
    let mut limits = Limits::default();
    let longest = workload.tasks.iter().map(|task| task.name.chars().count()).max();
    limits.name_chars_max = limits.name_chars_max.max(longest.unwrap_or(0));
    limits.name_chars_max = limits.name_chars_max.max(workload.name.chars().count());
    limits.events_in_memory_max = 1;
    limits
}

/// Has the roles supervised as the workload says.
pub(crate) fn supervised(mut builder: WorldBuilder, workload: &Workload) -> WorldBuilder {
    for role in &workload.roles {
        if let Some(spec) = &role.supervision {
            builder = builder.supervise(&role.name, spec.clone());
        }
    }
    for GroupSpec { name, members, supervisor } in &workload.groups {
        let members: Vec<&str> = members.iter().map(|member| &**member).collect();
        builder = builder.group(&**name, &members, supervisor.clone());
    }
    match &workload.root {
        Some(spec) => builder.root(spec.clone()),
        None => builder,
    }
}

/// Returns what no schedule can be below for want of agents: the work of a role shared by its agents,
/// of the role where that is most.
fn least(work: &[Duration], agents: &[u32]) -> Duration {
    let shared = work.iter().zip(agents).map(|(work, agents)| *work / (*agents).max(1));
    shared.max().unwrap_or_default()
}

fn counted_agents(workload: &Workload, agents: &[u32]) -> u64 {
    let counted = workload.roles.iter().zip(agents).filter(|(role, _)| !role.is_inner);
    counted.map(|(_, agents)| u64::from(*agents)).sum()
}

/// Returns a policy by which injected crashes never quarantine anybody for long.
pub(crate) fn tireless() -> RestartPolicy {
    RestartPolicy {
        intensity: u32::MAX,
        backoff_max: Duration::from_millis(100),
        ..RestartPolicy::default()
    }
}

/// No workload takes longer: two million tasks of the longest duration would overflow any clock.
const TIME_LIMIT: Duration = Duration::from_secs(50_000 * 365 * 24 * 60 * 60);
