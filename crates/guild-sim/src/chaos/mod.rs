//! Runs a fault plan: a whole guild in virtual time, faults while it works, then quiet, and a
//! verdict.
//!
//! An [`Experiment`] is a plan that fits its workload. [`Experiment::run`] plays it once for a seed;
//! [`Batch`] plays it for many seeds on all cores and shrinks the first violation. The same plan,
//! seed and binary give the same run, whatever the machine does meanwhile.

mod batch;
mod drive;
mod fit;
mod notes;
mod point;
mod verdict;
mod workload;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::graph::GraphBuilder;
use guild_core::limits::Limits;
use guild_core::restart::RestartPolicy;
use guild_core::time::Timestamp;

pub use self::batch::{Batch, BatchEnd, Violated};
use self::drive::{Drive, Stop};
use self::notes::{Notes, Told};
pub use self::point::PlanFaults;
pub use self::verdict::STEADY_STATE;
use self::verdict::{Known, Verdicts, is_violated, judge};
use crate::checker::serial::Clients;
use crate::checker::{Invariant, Knowledge, Watch};
use crate::plan::{
    Case, Coverage, Drawn, DrawnErrors, FaultId, Plan, PlanError, PlanResult, Scene, TaskEffects,
};
use crate::simulate::supervised;
use crate::workload::{COUNTER, Effects, Errors, Ledger, SimulatedAgent, Workload};
use crate::world::{Counts, Disk, LogReader, Medium, Perturbation, Resolution};
use crate::{World, WorldBuilder};

/// A plan that fits its workload.
#[derive(Debug)]
pub struct Experiment {
    plan: Plan,
    text: String,
    loaded: Option<Workload>,
}

/// What is done beyond one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Whether the steady state is checked without faults before.
    pub before: bool,
    /// Whether the run is repeated, and must have the same log.
    pub repeat: bool,
}

impl Checks {
    /// Everything.
    pub const ALL: Self = Self { before: true, repeat: true };
    /// Nothing.
    pub const NONE: Self = Self { before: false, repeat: false };
}

/// What came of one run.
#[derive(Clone, Debug)]
pub struct ChaosRun {
    /// Everything worth telling.
    pub result: PlanResult,
    /// The strikes, in their order.
    pub faults: Vec<FaultId>,
    /// Which faults struck and which branches were taken.
    pub coverage: Coverage,
    /// What the log holds, counted.
    pub counts: Counts,
}

/// A run in its world.
struct Played {
    ended: Result<(), Stop>,
    told: Told,
    strikes: Vec<FaultId>,
    counts: Counts,
    log_hash: u64,
    verdicts: Verdicts,
}

impl Experiment {
    /// Checks that a plan fits its workload; `text` is what the plan was read from, and `loaded`
    /// the workload of its file, where it names one.
    ///
    /// # Errors
    /// The workload makes no sense, a fault selects nobody in it, or strikes what is not there.
    pub fn new(plan: Plan, text: &str, loaded: Option<Workload>) -> Result<Self, PlanError> {
        let experiment = Self { plan, text: text.to_owned(), loaded };
        let drawn = experiment.plan.draw(experiment.plan.seed);
        let workload = experiment.workload(&drawn)?;
        fit::check(&experiment.plan, &workload)?;
        let graph = workload.graph(drawn.seed, GraphBuilder::new(&workload.name));
        graph.map_err(|error| experiment.plan.error("workload", error.to_string()))?;
        experiment.plan.check(&scene(&workload))?;
        Ok(experiment)
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the workload of a drawn plan.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn workload(&self, drawn: &Drawn) -> Result<Workload, PlanError> {
        workload::workload(&self.plan, drawn, self.loaded.as_ref())
    }

    /// Plays the plan once; `readers` see the log as it grows.
    ///
    /// # Errors
    /// The workload of this seed makes no sense.
    pub fn run(
        &self,
        seed: Seed,
        case: Option<&Case>,
        checks: Checks,
        readers: Vec<Box<dyn LogReader>>,
    ) -> Result<ChaosRun, PlanError> {
        let started = real_now();
        let whole = self.plan.draw(seed);
        let drawn = case.map_or_else(|| whole.clone(), |case| whole.reduce(case));
        let mut before = Verdicts::new();
        if checks.before {
            let case = Case { methods: BTreeSet::new(), ..drawn.case.clone() };
            let calm = self.play(&Drawn { case, ..drawn.clone() }, Vec::new(), None)?;
            before = calm.verdicts;
        }
        let other = match checks.repeat && self.checks_invariant(Invariant::I15.name()) {
            true => Some(self.play(&drawn, Vec::new(), None)?.log_hash),
            false => None,
        };
        let mut played = self.play(&drawn, readers, other)?;
        for (id, verdict) in before {
            // What fails without faults is not their doing, whatever else fails with them.
            if is_violated(&verdict) {
                played.verdicts.insert(id, format!("violated {BEFORE}: {verdict}"));
            }
        }
        Ok(self.tell(seed, case, played, started.elapsed()))
    }

    fn checks_invariant(&self, id: &str) -> bool {
        let asked = &self.plan.steady_state.invariants;
        asked.is_empty() || id == STEADY_STATE || asked.iter().any(|asked| asked == id)
    }

    fn tell(&self, seed: Seed, case: Option<&Case>, played: Played, real: Duration) -> ChaosRun {
        let Played { told, mut verdicts, .. } = played;
        let mut fired = vec![0; self.plan.methods.len()];
        for fault in &told.faults {
            fired[fault.method] += 1;
        }
        let mut coverage = Coverage::new(fired.len());
        if let Err(error) = coverage.add(&fired, told.branches.iter().map(String::as_str)) {
            unreachable!("the lines of a world are events: {error}");
        }
        let ids = Invariant::ALL.into_iter().map(Invariant::name).chain([STEADY_STATE]);
        let mut result = PlanResult::new(&self.plan, &self.text, seed, case, &fired);
        // A run that came to no end is told of in any case.
        result.verdicts = ids
            .filter_map(|id| Some((id.to_owned(), verdicts.remove(id)?)))
            .filter(|(id, verdict)| {
                self.checks_invariant(id) || (played.ended.is_err() && is_violated(verdict))
            })
            .collect();
        result.faults = told.faults;
        result.incidents = told.incidents;
        result.events_hash = format!("{:016x}", played.log_hash);
        result.times(told.last.since(Timestamp(0)), real);
        ChaosRun { result, faults: played.strikes, coverage, counts: played.counts }
    }

    /// Plays a drawn plan in a world of its own; `other` is the hash of the log that it must have.
    fn play(
        &self,
        drawn: &Drawn,
        readers: Vec<Box<dyn LogReader>>,
        other: Option<u64>,
    ) -> Result<Played, PlanError> {
        let workload = self.workload(drawn)?;
        let point = PlanFaults::new(drawn, &scene(&workload), true);
        let (notes, watch) = (Notes::new(point.clone()), Watch::default());
        let clients = Clients::default();
        let effects = self.effects(drawn, &clients);
        let ledger = effects.outside.clone();
        let mut builder = self
            .world(drawn, &workload, &point, &effects)
            .reader(clients.clone())
            .reader(watch.clone())
            .reader(notes.clone());
        for reader in readers {
            builder = builder.boxed_reader(reader);
        }
        let refused = |error: String| self.plan.error("workload", error);
        let world = builder.start().map_err(|error| refused(error.to_string()))?;
        let graph = workload
            .graph(drawn.seed, world.graph(&workload.name))
            .map_err(|error| refused(error.to_string()))?;
        let bound = fit::bound(&self.plan, drawn, &workload, graph.critical_path());
        let mut drive = Drive::new(world, point.clone(), notes.clone(), drawn, &workload.quotas);
        let ended = drive.run(graph, drawn.quiet.after + bound);
        let (world, leftovers) = drive.over(ended.is_ok());
        let told = notes.told();
        let strikable = point.selected();
        // Of what was told and lost, and of a run that has not ended, clients know too little.
        let knows_all = ended.is_ok() && world.rewritten().is_none();
        let lists = knows_all.then(|| clients.verdict());
        let known = Known {
            ended: &ended,
            told: &told,
            completed_min_percent: self.plan.steady_state.completed_min_percent,
            rewritten: world.rewritten(),
            bound,
            counter: match (&ledger, &ended) {
                (Some(_), Ok(())) => world.value(COUNTER).ok().map(Option::unwrap_or_default),
                _ => None,
            },
            knowledge: Knowledge {
                is_complete: ended.is_ok(),
                ledger: ledger.as_ref().map(Ledger::effects),
                histories: lists.into_iter().chain([world.history()]).collect(),
                leftovers,
                strikable: Some(strikable),
                quiet_within: drawn.quiet.within,
                sync: fit::durability(&self.plan).map_or(Duration::ZERO, |_| sync(drawn)),
                sync_slow: fit::slowest_sync(drawn),
                other_hash: other,
                ..Knowledge::default()
            },
        };
        let verdicts = judge(&watch.finish_with(&known.knowledge), &known);
        let (counts, log_hash) = (world.counts(), world.log_hash());
        Ok(Played { strikes: point.strikes(), counts, log_hash, verdicts, ended, told })
    }

    /// Returns what the tasks leave for those who check them.
    fn effects(&self, drawn: &Drawn, clients: &Clients) -> Effects {
        let effects = self.plan.workload.effects;
        let in_memory = effects != TaskEffects::None;
        let DrawnErrors { retryable, fatal } = drawn.errors;
        let errors = Errors {
            // Not the draws of the faults.
            seed: Seed(drawn.seed.bits(Stream::Plan, u64::MAX, u64::MAX)),
            retryable,
            fatal,
            tasks: self.plan.workload.errors.tasks.clone(),
            until: Timestamp(0).after(drawn.quiet.after),
        };
        Effects {
            errors: (retryable + fatal > 0.0).then_some(errors),
            in_memory,
            lists: in_memory.then(|| clients.clone()),
            outside: in_memory.then(Ledger::default),
            careless: effects == TaskEffects::Careless,
        }
    }

    fn world(
        &self,
        drawn: &Drawn,
        workload: &Workload,
        point: &PlanFaults,
        effects: &Effects,
    ) -> WorldBuilder {
        let knobs = &drawn.knobs;
        let mut limits = Limits::default();
        limits.events_in_memory_max = EVENTS_MAX;
        limits.mailbox_messages_max =
            knobs.mailbox.map_or(limits.mailbox_messages_max, |mailbox| mailbox as usize);
        limits.commits_in_flight_max =
            knobs.commits_in_flight.map_or(limits.commits_in_flight_max, |max| max as usize);
        limits.task_timeout = knobs.timeout.unwrap_or_else(|| workload.time_limit(drawn.seed));
        let mut restart = RestartPolicy::default();
        restart.intensity = knobs.restarts_max.unwrap_or(restart.intensity);
        let mut builder = World::with_seed(drawn.seed.0)
            .resolution(Resolution::Microsecond)
            .order(self.plan.workload.policy.order())
            .limits(limits)
            .restart(restart)
            .record_histories(true)
            .perturbed(SHUFFLED)
            .faults(Arc::new(point.clone()));
        if let Some(durability) = fit::durability(&self.plan) {
            let sync = sync(drawn);
            let disk = Disk::default();
            point.strike_disk(disk.clone());
            builder = builder.medium(Medium::Disk { durability, sync: (sync, sync) }).disk(disk);
        }
        for role in &workload.roles {
            let effects = effects.clone();
            let agents = role.agents.unwrap_or(1);
            let factory = move || SimulatedAgent::with_effects(effects.clone());
            builder = builder.role(&role.name, agents, factory);
        }
        for (name, spec) in &workload.quotas {
            builder = builder.quota(name, spec.clone());
        }
        // What a flow says of its roles comes before the knobs.
        supervised(builder, workload)
    }
}

/// How a verdict says that faults are not to blame.
const BEFORE: &str = "before any fault";

/// Events that a recovery reads back; a run of a plan has fewer.
const EVENTS_MAX: usize = 1 << 20;

/// Each seed is another order of equal tasks. How late messages are is a knob of the plan.
const SHUFFLED: Perturbation = Perturbation { latency_max: Duration::ZERO, shuffle_ties: true };

/// How long a sync takes when the plan does not say it.
const SYNC: Duration = Duration::from_millis(1);

fn sync(drawn: &Drawn) -> Duration {
    drawn.knobs.sync.unwrap_or(SYNC)
}

/// Returns who is there to be struck.
fn scene(workload: &Workload) -> Scene {
    Scene {
        roles: workload
            .roles
            .iter()
            .map(|role| (role.name.clone(), role.agents.unwrap_or(1)))
            .collect(),
        tasks: workload.tasks.iter().map(|task| task.name.clone()).collect(),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a simulation takes is real time")]
fn real_now() -> std::time::Instant {
    std::time::Instant::now()
}
