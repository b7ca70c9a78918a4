//! Builds and starts a guild.

mod check;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::event::EventRecord;
use guild_core::graph::Catalog;
use guild_core::id::RoleId;
use guild_core::limits::Limits;
use guild_core::planner::ReadyOrder;
use guild_core::quota::QuotaSpec;
use guild_core::restart::RestartPolicy;
use guild_core::supervision::{GroupSpec, SupervisorSpec, TreeError};
use guild_core::time::Timestamp;
use guild_memory::store::Store;
use guild_memory::{
    Clash, Commits, Durability, Memory, MergeFunctions, NameTable, Namespace, NamespaceError,
    Namespaces, OpenError, Recovered, StoreError,
};

use crate::agent::{Agent, Factory};
use crate::fault::FaultPoint;
use crate::guild::Guild;
use crate::life::Life;
use crate::mailbox::Inbox;
use crate::memory::Observer;
use crate::message::MemoryMessage;
use crate::process::{ProcessAgent, ProcessSpec};
use crate::start::{Opened, RoleParts, Stage};

/// Where the memory is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// In RAM only; it ends with the process.
    #[default]
    Ram,
    /// In a sled store in this directory, which is created where it is absent.
    Directory(PathBuf),
}

/// What a simulation gives to a guild, see [`GuildBuilder::stage`].
pub struct Staging {
    /// The store; none: the memory is in RAM only and cannot be recovered.
    pub store: Option<Box<dyn Store>>,
    /// How many times longer the timers run than the guild's time. Tokio's timers fire on whole
    /// milliseconds: 1,000 makes every microsecond of the guild one of them.
    pub stretch: u32,
    /// The time at which the guild starts, unless its store has seen a later one.
    pub not_before: Timestamp,
    /// Says how long the next sync of the store takes.
    pub sync_time: Box<dyn FnMut() -> Duration + Send>,
    /// Whether tasks that are equal in their order go in one that the seed draws.
    pub shuffle_ties: bool,
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging")
            .field("has_store", &self.store.is_some())
            .field("stretch", &self.stretch)
            .finish_non_exhaustive()
    }
}

/// Why a guild did not start; nothing runs then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No role was declared.
    #[error("a guild needs a role: call `role(name, agents, factory)`")]
    NoRole,
    /// A role or quota was declared twice.
    #[error("`{0}` is declared twice: names of roles and quotas are unique")]
    Duplicate(String),
    /// A name is empty or too long.
    #[error("the name `{name}` has {chars} characters: 1 to {chars_max} are allowed")]
    Name {
        /// The name.
        name: String,
        /// Its length.
        chars: usize,
        /// The bound.
        chars_max: usize,
    },
    /// A role has no agent or too many.
    #[error("the role `{role}` has {agents} agents: 1 to {agents_max} are allowed")]
    Agents {
        /// The role.
        role: String,
        /// How many were asked for.
        agents: u32,
        /// The bound.
        agents_max: u32,
    },
    /// A quota can never be met.
    #[error("the quota `{0}` allows nothing: permits, amount, burst and period must be above zero")]
    EmptyQuota(String),
    /// The supervision or bulkhead of a role is declared that is not there.
    #[error(
        "there is no role `{0}`, whose supervision or bulkhead is declared: declare it by `role`"
    )]
    UnknownRole(String),
    /// The groups make no tree.
    #[error(transparent)]
    Groups(#[from] TreeError),
    /// The rules of a namespace make no sense.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The control thread cannot be started.
    #[error("the control thread did not start: {0}")]
    Thread(String),
}

/// Collects what a guild is made of.
pub struct GuildBuilder {
    roles: Vec<(String, u32, Factory)>,
    quotas: Vec<(String, QuotaSpec)>,
    namespaces: Vec<Namespace>,
    merge_functions: MergeFunctions,
    storage: Storage,
    durability: Option<Durability>,
    restart: RestartPolicy,
    supervised: BTreeMap<String, SupervisorSpec>,
    groups: Vec<GroupSpec>,
    root: SupervisorSpec,
    seed: u64,
    limits: Limits,
    validate: bool,
    faults: Option<Arc<dyn FaultPoint>>,
    agent_threads: Option<usize>,
    bulkheads: BTreeMap<String, usize>,
    order: ReadyOrder,
    histories: bool,
    observer: Option<Observer>,
    backtraces: bool,
}

impl fmt::Debug for GuildBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<_> = self.roles.iter().map(|(name, agents, _)| (name, agents)).collect();
        f.debug_struct("GuildBuilder")
            .field("roles", &roles)
            .field("quotas", &self.quotas)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

impl Default for GuildBuilder {
    fn default() -> Self {
        Self {
            roles: Vec::new(),
            quotas: Vec::new(),
            namespaces: Vec::new(),
            merge_functions: MergeFunctions::new(),
            storage: Storage::Ram,
            durability: None,
            restart: RestartPolicy::default(),
            supervised: BTreeMap::new(),
            groups: Vec::new(),
            root: SupervisorSpec::default(),
            seed: 0,
            limits: Limits::default(),
            validate: false,
            faults: None,
            agent_threads: None,
            bulkheads: BTreeMap::new(),
            order: ReadyOrder::default(),
            histories: false,
            observer: None,
            backtraces: false,
        }
    }
}

impl GuildBuilder {
    /// Declares a role: its name, how many agents it has, and what builds one of them.
    #[must_use]
    pub fn role<A: Agent>(
        self,
        name: impl Into<String>,
        agents: u32,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        self.role_with(name, agents, move |_| factory())
    }

    /// Declares a role whose factory is told which life of which agent it builds.
    #[must_use]
    pub fn role_with<A: Agent>(
        mut self,
        name: impl Into<String>,
        agents: u32,
        factory: impl Fn(Life) -> A + Send + Sync + 'static,
    ) -> Self {
        self.roles.push((name.into(), agents, Factory::new(factory)));
        self
    }

    /// Declares a role whose agents are processes of their own, one for each agent, in any language.
    #[must_use]
    pub fn process_role(
        self,
        name: impl Into<String>,
        agents: u32,
        spec: impl Into<Arc<ProcessSpec>>,
    ) -> Self {
        let spec = spec.into();
        self.role_with(name, agents, move |life| ProcessAgent::new(Arc::clone(&spec), life))
    }

    /// Declares a quota that tasks share.
    #[must_use]
    pub fn quota(mut self, name: impl Into<String>, spec: QuotaSpec) -> Self {
        self.quotas.push((name.into(), spec));
        self
    }

    /// Declares rules for a part of the memory: who may do what there, how much may be there, and
    /// what happens when two transactions meet.
    #[must_use]
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespaces.push(namespace);
        self
    }

    /// Registers a function that makes one value out of two that meet, for namespaces that name it.
    /// It is called while a commit is decided, so it should be quick; it has to give the same answer
    /// for the same values. An error makes the transaction run again.
    #[must_use]
    pub fn merge_function(
        mut self,
        name: impl Into<String>,
        function: impl Fn(Clash<'_>) -> Result<Option<serde_json::Value>, String>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.merge_functions.insert(name.into(), Arc::new(function));
        self
    }

    /// Says where the memory is kept; in RAM by default.
    #[must_use]
    pub fn store(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Says how safe a commit is before it is acknowledged: by default `Memory` for a memory in
    /// RAM, `Disk` for a directory.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets when crashed agents are restarted, for all roles that are not [supervised](Self::supervise)
    /// otherwise.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
        self
    }

    /// Sets how the agents of a role are supervised: who is restarted with whom, how often, after
    /// which delay, and what happens when that is used up. By default one for one, permanent, with
    /// the policy of [`restart`](Self::restart), then quarantine.
    #[must_use]
    pub fn supervise(mut self, role: impl Into<String>, spec: SupervisorSpec) -> Self {
        self.supervised.insert(role.into(), spec);
        self
    }

    /// Puts roles, and groups of roles, under a supervisor of their own, because they belong together.
    /// It acts when one of its members gives up ([`Exhausted::Escalate`], or more deaths than the
    /// ceiling of its supervisor bears), by its own strategy and counters; when those are used up too
    /// it gives up itself, to the one above it.
    ///
    /// [`Exhausted::Escalate`]: guild_core::supervision::Exhausted::Escalate
    #[must_use]
    pub fn group<M: AsRef<str>>(
        mut self,
        name: impl AsRef<str>,
        members: impl IntoIterator<Item = M>,
        spec: SupervisorSpec,
    ) -> Self {
        let members = members.into_iter().map(|member| member.as_ref().into()).collect();
        self.groups.push(GroupSpec { name: name.as_ref().into(), members, supervisor: spec });
        self
    }

    /// Sets how the root treats roles and groups that give up and are in no group. By default it
    /// starts them again, and quarantines one that gives up too often while the others serve on; with
    /// [`Exhausted::Escalate`] the guild ends then.
    ///
    /// [`Exhausted::Escalate`]: guild_core::supervision::Exhausted::Escalate
    #[must_use]
    pub fn root(mut self, spec: SupervisorSpec) -> Self {
        self.root = spec;
        self
    }

    /// Sets the seed of all random draws.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the bounds.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Checks every invariant of the planner after every step; slow, meant for tests.
    #[must_use]
    pub fn validate(mut self, validate: bool) -> Self {
        self.validate = validate;
        self
    }

    /// Lets faults be injected.
    #[must_use]
    pub fn faults(mut self, faults: Arc<dyn FaultPoint>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Sets how many threads the agents share; 0 puts them on the control thread, where an agent
    /// that blocks delays everything. The default is one less than the machine has cores, and at
    /// least 1.
    #[must_use]
    pub fn agent_threads(mut self, threads: usize) -> Self {
        self.agent_threads = Some(threads);
        self
    }

    /// Gives the agents of a role this many threads of their own, at least 1: what they do to their
    /// threads harms nobody of another role, and nobody harms them.
    #[must_use]
    pub fn bulkhead(mut self, role: impl Into<String>, threads: usize) -> Self {
        self.bulkheads.insert(role.into(), threads.max(1));
        self
    }

    /// Says which ready task goes first; by default the one with the longest path behind it.
    #[must_use]
    pub fn order(mut self, order: ReadyOrder) -> Self {
        self.order = order;
        self
    }

    /// Makes the event log tell what every commit has read and written, for checkers of histories;
    /// off by default, for the log grows with it.
    #[must_use]
    pub fn record_histories(mut self, records: bool) -> Self {
        self.histories = records;
        self
    }

    /// Captures the stack of every panic of an agent, for its incident. Off by default: it takes
    /// milliseconds, a restart takes microseconds.
    #[must_use]
    pub fn backtraces(mut self, captures: bool) -> Self {
        self.backtraces = captures;
        self
    }

    /// Shows every record of the event log to `observer` as soon as it is durable, in order and
    /// without a gap; first those that the store holds already, as far as they are kept in RAM
    /// ([`Limits::events_in_memory_max`]). It is called on the control thread, which it must not block.
    #[must_use]
    pub fn observe(
        mut self,
        observer: impl FnMut(&EventRecord, &NameTable) + Send + 'static,
    ) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Starts the guild on threads of its own: it needs no runtime and works within any.
    ///
    /// # Errors
    /// A declaration is wrong, or the store cannot be opened; nothing runs then.
    pub fn start(self) -> Result<Guild, StartError> {
        let opened = self.open(None)?;
        crate::start::start(opened)
    }

    /// Starts the guild on the calling thread, inside of a running actix system, for a simulation:
    /// every actor is on this thread, no other one is started, and all timers are those of the
    /// system's runtime, which may be paused.
    ///
    /// # Errors
    /// A declaration is wrong, or the store cannot be opened; nothing runs then.
    pub fn stage(self, staging: Staging) -> Result<Guild, StartError> {
        let opened = self.open(Some(staging))?;
        crate::panics::install_hook();
        Ok(crate::start::stand_up(opened))
    }

    fn open(self, staging: Option<Staging>) -> Result<Opened, StartError> {
        self.check()?;
        let durability = self.durability.unwrap_or(match self.storage {
            Storage::Ram => Durability::Memory,
            Storage::Directory(_) => Durability::Disk,
        });
        let memory_inbox = Inbox::<MemoryMessage>::new();
        let notified = memory_inbox.clone();
        let notify = move || notified.push(MemoryMessage::Acknowledged);
        let (opened, stage) = self.open_memory(staging, durability, notify);
        let (mut memory, mut recovered) = opened?;
        let checkpoint_every = Some(self.limits.checkpoint_every)
            .filter(|every| stage.is_none() && self.storage != Storage::Ram && !every.is_zero());
        memory.record_histories(self.histories);
        let role_names: Vec<String> = self.roles.iter().map(|role| role.0.clone()).collect();
        let quota_names: Vec<String> = self.quotas.iter().map(|quota| quota.0.clone()).collect();
        let role_ids = memory.intern_roles(&role_names)?;
        let supervision = self.tree(&role_ids)?;
        let (agent_threads, bulkheads) = match &stage {
            Some(_) => (0, BTreeMap::new()),
            None => (self.shared_threads(), self.own_threads(&role_ids)),
        };
        let quota_ids = memory.intern_quotas(&quota_names)?;
        let namespaces =
            Namespaces::new(self.namespaces, memory.role_names(), &self.merge_functions)?;
        let namespaces = Arc::new(namespaces);
        memory.set_namespaces(Arc::clone(&namespaces));
        let named = role_names.iter().map(|name| name.as_str().into());
        let catalog = Catalog {
            roles: named.zip(role_ids.iter().copied()).collect(),
            quotas: (self.quotas.iter().zip(&quota_ids))
                .map(|((name, spec), id)| (name.as_str().into(), *id, spec.capacity()))
                .collect(),
            limits: self.limits.clone(),
        };
        let mut roles: BTreeMap<RoleId, RoleParts> = BTreeMap::new();
        for ((_, agents, factory), id) in self.roles.into_iter().zip(role_ids) {
            roles.insert(id, RoleParts { agents, factory });
        }
        let quotas =
            quota_ids.into_iter().zip(self.quotas.into_iter().map(|quota| quota.1)).collect();
        let mut names = std::mem::take(&mut recovered.names);
        names.set_roles(memory.role_names().to_vec());
        names.set_quotas(memory.quota_names().to_vec());
        let names = Arc::new(RwLock::new(names));
        Ok(Opened {
            memory,
            memory_inbox,
            recovered,
            names,
            namespaces,
            catalog,
            roles,
            quotas,
            supervision,
            seed: Seed(self.seed),
            validate: self.validate,
            faults: self.faults,
            order: self.order,
            durability,
            observer: self.observer,
            checkpoint_every,
            backtraces: self.backtraces,
            bulkheads,
            agent_threads,
            stage,
        })
    }

    /// Opens the memory where it is kept, or on the store of a stage.
    fn open_memory(
        &self,
        staging: Option<Staging>,
        durability: Durability,
        notify: impl Fn() + Send + 'static,
    ) -> (Result<(Memory, Recovered), OpenError>, Option<Stage>) {
        let on_thread = Commits::OnThread(Box::new(notify));
        let limits = self.limits.clone();
        match (staging, &self.storage) {
            (Some(Staging { store, stretch, sync_time, not_before, shuffle_ties }), _) => {
                let stage = Stage { stretch, sync_time, not_before, shuffle_ties };
                (Memory::open(store, durability, limits, Commits::Driven), Some(stage))
            }
            (None, Storage::Ram) => (Memory::open(None, durability, limits, on_thread), None),
            (None, Storage::Directory(path)) => {
                (Memory::open_directory(path, durability, limits, on_thread), None)
            }
        }
    }
}
