//! Says what a world is made of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::limits::Limits;
use guild_core::planner::ReadyOrder;
use guild_core::quota::QuotaSpec;
use guild_core::restart::RestartPolicy;
use guild_core::supervision::SupervisorSpec;
use guild_memory::Durability;
use guild_runtime::{Agent, FaultPoint, GuildBuilder, StartError};

use super::World;
use super::disk::Disk;
use super::log::{Log, LogReader};
use super::perturbation::{Jitter, Perturbation};

/// How fine the time of a world is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// Agents may use `tokio::time` as in production; timers fire on whole milliseconds.
    #[default]
    Millisecond,
    /// Timers fire on whole microseconds, for agents that wait by
    /// [`TaskContext::sleep`](guild_runtime::TaskContext::sleep) alone: what they wait for by
    /// `tokio::time` passes a thousand times too fast.
    Microsecond,
}

impl Resolution {
    pub(super) fn stretch(self) -> u32 {
        match self {
            Self::Millisecond => 1,
            Self::Microsecond => 1_000,
        }
    }
}

/// Where a world keeps its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// In RAM: nothing survives a crash of the process, and nothing is spent on it.
    #[default]
    Ram,
    /// On a simulated disk with this level of durability, whose syncs take this long. It forgets
    /// what was not synced when the power fails.
    Disk {
        /// What an acknowledgement promises.
        durability: Durability,
        /// The shortest and the longest time of a sync.
        sync: (Duration, Duration),
    },
}

/// A role of the world, which is added to a guild as often as the world starts again.
pub(super) struct Role {
    pub(super) name: String,
    pub(super) agents: u32,
    pub(super) add: Box<dyn Fn(GuildBuilder) -> GuildBuilder>,
}

/// Collects what a [`World`] is made of.
pub struct WorldBuilder {
    pub(super) seed: u64,
    pub(super) roles: Vec<Role>,
    pub(super) quotas: Vec<(String, QuotaSpec)>,
    pub(super) restart: RestartPolicy,
    pub(super) supervised: Vec<(String, SupervisorSpec)>,
    pub(super) groups: Vec<(String, Vec<String>, SupervisorSpec)>,
    pub(super) root: Option<SupervisorSpec>,
    pub(super) order: ReadyOrder,
    pub(super) limits: Limits,
    pub(super) faults: Option<Arc<dyn FaultPoint>>,
    pub(super) perturbation: Option<Perturbation>,
    pub(super) resolution: Resolution,
    pub(super) medium: Medium,
    pub(super) disk: Disk,
    histories: bool,
    pub(super) validate: bool,
    pub(super) time_limit: Duration,
    keeps_lines: bool,
    readers: Vec<Box<dyn LogReader>>,
}

impl fmt::Debug for WorldBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorldBuilder")
            .field("seed", &self.seed)
            .field("medium", &self.medium)
            .finish_non_exhaustive()
    }
}

impl WorldBuilder {
    pub(super) fn new(seed: u64) -> Self {
        let mut limits = Limits::default();
        // Readers of a world see each record as it is made; the ring is for recovery only.
        limits.events_in_memory_max = 1 << 16;
        Self {
            seed,
            roles: Vec::new(),
            quotas: Vec::new(),
            restart: RestartPolicy::default(),
            supervised: Vec::new(),
            groups: Vec::new(),
            root: None,
            order: ReadyOrder::default(),
            limits,
            faults: None,
            perturbation: None,
            resolution: Resolution::default(),
            medium: Medium::default(),
            disk: Disk::default(),
            histories: false,
            validate: false,
            time_limit: TIME_LIMIT,
            keeps_lines: false,
            readers: Vec::new(),
        }
    }

    /// Declares a role: its name, how many agents it has, and what builds one of them.
    #[must_use]
    pub fn role<A: Agent>(
        mut self,
        name: impl Into<String>,
        agents: u32,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        let (name, factory) = (name.into(), Arc::new(factory));
        let role = name.clone();
        let add = Box::new(move |guild: GuildBuilder| {
            let factory = Arc::clone(&factory);
            guild.role(role.clone(), agents, move || factory())
        });
        self.roles.push(Role { name, agents, add });
        self
    }

    /// Declares an agent that is alone in its role: tasks ask for it by this name.
    #[must_use]
    pub fn agent<A: Agent>(
        self,
        name: impl Into<String>,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        self.role(name, 1, factory)
    }

    /// Declares a quota that tasks share.
    #[must_use]
    pub fn quota(mut self, name: impl Into<String>, spec: QuotaSpec) -> Self {
        self.quotas.push((name.into(), spec));
        self
    }

    /// Sets when crashed agents are restarted.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
        self
    }

    /// Sets how the agents of a role are supervised, see [`GuildBuilder::supervise`].
    #[must_use]
    pub fn supervise(mut self, role: impl Into<String>, spec: SupervisorSpec) -> Self {
        self.supervised.push((role.into(), spec));
        self
    }

    /// Puts roles and groups that belong together under a supervisor, see [`GuildBuilder::group`].
    #[must_use]
    pub fn group(
        mut self,
        name: impl Into<String>,
        members: &[&str],
        spec: SupervisorSpec,
    ) -> Self {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.groups.push((name.into(), members, spec));
        self
    }

    /// Sets how the root treats what gives up, see [`GuildBuilder::root`].
    #[must_use]
    pub fn root(mut self, spec: SupervisorSpec) -> Self {
        self.root = Some(spec);
        self
    }

    /// Sets how many crashes within the period of [`within`](Self::within) an agent is forgiven; one
    /// more and it is quarantined.
    #[must_use]
    pub fn restarts_max(mut self, crashes: u32) -> Self {
        self.restart.intensity = crashes;
        self
    }

    /// Sets the period in which crashes count.
    #[must_use]
    pub fn within(mut self, period: Duration) -> Self {
        self.restart.period = period;
        self
    }

    /// Says which ready task goes first.
    #[must_use]
    pub fn order(mut self, order: ReadyOrder) -> Self {
        self.order = order;
        self
    }

    /// Sets the bounds.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets faults strike.
    #[must_use]
    pub fn faults(mut self, faults: Arc<dyn FaultPoint>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Draws from the seed what is otherwise always the same: how long messages are on their way, and
    /// the order of equal tasks.
    #[must_use]
    pub fn perturbed(mut self, perturbation: Perturbation) -> Self {
        self.perturbation = Some(perturbation);
        self
    }

    /// Sets how fine time is.
    #[must_use]
    pub fn resolution(mut self, resolution: Resolution) -> Self {
        self.resolution = resolution;
        self
    }

    /// Says where the memory is kept.
    #[must_use]
    pub fn medium(mut self, medium: Medium) -> Self {
        self.medium = medium;
        self
    }

    /// Keeps the memory on this disk, of which the caller has another handle: so it can be made to
    /// fail at any moment.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disk = disk;
        self
    }

    /// Makes the log tell what each commit has read and written, for checkers of logs. The world
    /// itself judges it always, see [`World::history`].
    #[must_use]
    pub fn record_histories(mut self, records: bool) -> Self {
        self.histories = records;
        self
    }

    /// Checks every invariant of the planner after every step; slow.
    #[must_use]
    pub fn validate(mut self, validate: bool) -> Self {
        self.validate = validate;
        self
    }

    /// Sets after how much virtual time a wait is given up; ten years by default.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Keeps the lines of the log, so that [`World::log`] returns them.
    #[must_use]
    pub fn keep_log(mut self) -> Self {
        self.keeps_lines = true;
        self
    }

    /// Shows every record of the log and its line to a reader.
    #[must_use]
    pub fn reader(self, reader: impl LogReader + 'static) -> Self {
        self.boxed_reader(Box::new(reader))
    }

    pub(crate) fn boxed_reader(mut self, reader: Box<dyn LogReader>) -> Self {
        self.readers.push(reader);
        self
    }

    /// Starts the world at time 0.
    ///
    /// # Errors
    /// A declaration is wrong; nothing runs then.
    pub fn start(mut self) -> Result<World, StartError> {
        let remembers = self.medium != Medium::Ram;
        let readers = std::mem::take(&mut self.readers);
        let log = Log::new(self.keeps_lines, remembers, self.histories, readers);
        let disk = match &self.medium {
            Medium::Ram => None,
            Medium::Disk { .. } => Some(self.disk.clone()),
        };
        World::open(self, log, disk)
    }

    /// Returns what strikes, and what makes messages late.
    pub(super) fn faults_and_jitter(&self) -> Option<Arc<dyn FaultPoint>> {
        let latency_max = self.perturbation.map_or(Duration::ZERO, |drawn| drawn.latency_max);
        if latency_max.is_zero() {
            return self.faults.clone();
        }
        let unit = match self.resolution {
            Resolution::Millisecond => Duration::from_millis(1),
            Resolution::Microsecond => Duration::from_micros(1),
        };
        let below = self.faults.clone();
        Some(Arc::new(Jitter { seed: Seed(self.seed), latency_max, unit, below }))
    }

    /// Returns what draws the time of each sync.
    pub(super) fn sync_time(&self) -> Box<dyn FnMut() -> Duration + Send> {
        let (shortest, longest) = match self.medium {
            Medium::Ram => (Duration::ZERO, Duration::ZERO),
            Medium::Disk { sync, .. } => sync,
        };
        let (seed, mut n) = (Seed(self.seed), 0);
        Box::new(move || {
            n += 1;
            shortest + longest.saturating_sub(shortest).mul_f64(seed.unit(Stream::Sync, 0, n))
        })
    }
}

/// What a world takes for never: a wait that long has no end.
const TIME_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
