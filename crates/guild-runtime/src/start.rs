//! Starts the tree: memory, scheduler, supervisors, agents, in this order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use actix_rt::System;
use futures_util::future::LocalBoxFuture;
use guild_core::draw::Seed;
use guild_core::event::{Cause, ClockKind, EndState, Event, QuotaTerms, Setup, Severity};
use guild_core::graph::Catalog;
use guild_core::history::TaskEnd;
use guild_core::id::{Incarnation, QuotaId, RoleId, TaskId, TaskIndex};
use guild_core::incident::{Action, IncidentBook, IncidentKind};
use guild_core::letter::DeadLetters;
use guild_core::planner::{Decisions, Planner, PlannerConfig, ReadyOrder, RestoredRun};
use guild_core::quota::QuotaSpec;
use guild_core::supervision::Tree as Supervision;
use guild_core::time::{Timestamp, micros};
use guild_memory::{Durability, Memory, NameTable, Namespaces, Recovered};

use crate::agent::Factory;
use crate::blocking::BlockingPool;
use crate::builder::StartError;
use crate::cancellation::Cancellations;
use crate::clock::Clock;
use crate::context::{Counters, Surroundings};
use crate::controller::{Controller, Links};
use crate::events::EventLog;
use crate::failure::Failure;
use crate::fault::FaultPoint;
use crate::fleet::Fleet;
use crate::guard::{Guard, Verdict};
use crate::guild::Guild;
use crate::host::Hosts;
use crate::incidents::Incidents;
use crate::letters::LetterBox;
use crate::mailbox::Inbox;
use crate::memory::{MemoryActor, MemoryParts, Observer, SyncTime, report_restore};
use crate::message::{ControllerMessage, MemoryMessage};
use crate::panics::PanicReport;
use crate::run::{RunBoard, RunError};
use crate::scheduler::{RunBook, Scheduler, SchedulerParts};
use crate::supervisor::{SupervisorActor, SupervisorParts};
use crate::threads::Threads;
use crate::watch::Acknowledged;
use crate::watchdog::Watchdog;

/// A role to be started.
pub(crate) struct RoleParts {
    pub(crate) agents: u32,
    pub(crate) factory: Factory,
}

/// What is different on the stage of a simulation.
pub(crate) struct Stage {
    pub(crate) stretch: u32,
    pub(crate) sync_time: SyncTime,
    pub(crate) not_before: Timestamp,
    pub(crate) shuffle_ties: bool,
}

/// A checked declaration over an opened memory.
pub(crate) struct Opened {
    pub(crate) memory: Memory,
    pub(crate) memory_inbox: Inbox<MemoryMessage>,
    pub(crate) recovered: Recovered,
    pub(crate) names: Arc<RwLock<NameTable>>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) catalog: Catalog,
    pub(crate) roles: BTreeMap<RoleId, RoleParts>,
    pub(crate) quotas: BTreeMap<QuotaId, QuotaSpec>,
    pub(crate) supervision: Supervision,
    pub(crate) seed: Seed,
    pub(crate) validate: bool,
    pub(crate) faults: Option<Arc<dyn FaultPoint>>,
    pub(crate) order: ReadyOrder,
    pub(crate) durability: Durability,
    pub(crate) observer: Option<Observer>,
    pub(crate) checkpoint_every: Option<Duration>,
    pub(crate) stage: Option<Stage>,
    pub(crate) agent_threads: usize,
    /// Whether panics have their stack captured.
    pub(crate) backtraces: bool,
    /// Threads that roles have for themselves.
    pub(crate) bulkheads: BTreeMap<RoleId, usize>,
}

/// Starts the control thread and waits until the tree stands.
pub(crate) fn start(opened: Opened) -> Result<Guild, StartError> {
    crate::panics::install_hook();
    let (ready, started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("guild-control".to_owned())
        .spawn(move || {
            let system = System::new();
            let guild = system.block_on(async { stand_up(opened) });
            if ready.send(guild).is_ok()
                && let Err(error) = system.run()
            {
                tracing::error!(%error, "the control thread ended");
            }
        })
        .map_err(|error| StartError::Thread(error.to_string()))?;
    let guild = started
        .recv()
        .map_err(|_| StartError::Thread("it ended before the guild stood".to_owned()))?;
    *guild.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(thread);
    Ok(guild)
}

/// Starts all actors on the calling thread, whose system is running, and its agents on threads of
/// their own, if any.
pub(crate) fn stand_up(mut opened: Opened) -> Guild {
    let stretch = opened.stage.as_ref().map_or(1, |stage| stage.stretch);
    let not_before = opened.stage.as_ref().map(|stage| stage.not_before).unwrap_or_default();
    let clock = Clock::continuing(opened.recovered.last_at.max(not_before), stretch);
    let setup = Box::new(setup(&opened));
    let epoch = opened.recovered.epoch;
    opened.memory.record(clock.now(), Event::GuildStarted { epoch, setup });
    let owns_system = opened.stage.is_none();
    show_recovered(&mut opened);
    let limits = opened.catalog.limits.clone();
    let incidents_before = opened.recovered.incidents.opened();
    let faults_before = opened.recovered.faults;
    let restored = opened.recovered.restored.take();
    let surroundings = surroundings(&mut opened, clock);
    crate::panics::capture_backtraces(opened.backtraces);
    let events =
        EventLog::new(limits.events_in_memory_max, std::mem::take(&mut opened.recovered.events));
    report_restore(&mut opened.memory, restored, &surroundings);
    let board = RunBoard::default();
    let controller = Inbox::new();
    let first = Incarnation::first(opened.recovered.epoch);
    let roles = std::mem::take(&mut opened.roles);
    let (supervision, seed) = (std::mem::take(&mut opened.supervision), opened.seed);
    let fleet = recruit(&opened, &supervision, &roles, first, &surroundings);
    let hosts = fleet.hosts.clone();
    let tree = Tree { surroundings, board, events, controller, clock, hosts };

    let agents = roles.values().map(|role| role.agents).sum();
    tree.start_memory_and_scheduler(opened, &roles);
    tree.start_supervisor(supervision, fleet, &roles, first, seed);
    let links = Links {
        surroundings: Arc::clone(&tree.surroundings),
        board: tree.board.clone(),
        events: tree.events.clone(),
    };
    let inbox = tree.controller.outlet();
    let root = Controller::new(inbox, links, owns_system);
    tree.spawn("controller", root, Verdict::Restart);
    Guild {
        surroundings: tree.surroundings,
        controller: tree.controller,
        board: tree.board,
        events: tree.events,
        incidents_before,
        faults_before,
        agents,
        seed,
        thread: Arc::new(Mutex::new(None)),
    }
}

/// Returns what all actors share; the incidents that this start ends are recorded.
fn surroundings(opened: &mut Opened, clock: Clock) -> Arc<Surroundings> {
    let (limits, recovered) = (&opened.catalog.limits, &mut opened.recovered);
    let letters = std::mem::replace(&mut recovered.letters, DeadLetters::new(0));
    let incidents = std::mem::replace(&mut recovered.incidents, IncidentBook::new(limits, 0));
    let (faults, incidents) = (recovered.faults, Incidents::new(incidents));
    for event in incidents.guild_started(clock.now()) {
        opened.memory.record(clock.now(), event);
    }
    Arc::new(Surroundings {
        scheduler: Inbox::new(),
        supervisor: Inbox::new(),
        memory: opened.memory_inbox.clone(),
        snapshots: opened.memory.snapshots(),
        acknowledged: Acknowledged::new(opened.memory.snapshots().latest()),
        pins: opened.memory.pins(),
        names: Arc::clone(&opened.names),
        namespaces: Arc::clone(&opened.namespaces),
        catalog: opened.catalog.clone(),
        faults: opened.faults.clone(),
        blocking: BlockingPool::new(
            opened.stage.is_none().then_some(opened.catalog.limits.blocking_threads_max),
        ),
        watchdog: Watchdog::default(),
        letters: LetterBox::new(letters),
        incidents,
        cancellations: Cancellations::new(&agents_of(&opened.roles)),
        clock,
        stats: Counters { faults: AtomicU64::new(faults), ..Counters::default() },
    })
}

/// Shows the observer what the store holds already.
fn show_recovered(opened: &mut Opened) {
    if let Some(observer) = &mut opened.observer {
        let names = opened.names.read().unwrap_or_else(PoisonError::into_inner);
        opened.recovered.events.iter().for_each(|record| observer(record, &names));
    }
}

/// Returns what the first line of the log tells of this start.
fn setup(opened: &Opened) -> Setup {
    let limits = &opened.catalog.limits;
    let role = |(name, id): &(Arc<str>, RoleId)| {
        (Box::from(&**name), opened.roles.get(id).map_or(0, |role| role.agents))
    };
    let quota = |(name, id, _): &(Arc<str>, QuotaId, u32)| {
        let terms = match opened.quotas.get(id)? {
            QuotaSpec::Permits(permits) => QuotaTerms::Permits { permits: *permits },
            QuotaSpec::Rate { amount, per, burst } => {
                QuotaTerms::Rate { amount: *amount, per_us: micros(*per), burst: *burst }
            }
        };
        Some((Box::from(&**name), terms))
    };
    Setup {
        clock: if opened.stage.is_some() { ClockKind::Virtual } else { ClockKind::Real },
        order: opened.order,
        durability: opened.durability.name().into(),
        roles: opened.catalog.roles.iter().map(role).collect(),
        quotas: opened.catalog.quotas.iter().filter_map(quota).collect(),
        commits_in_flight_max: limits.commits_in_flight_max,
        interruptions_max: limits.interruptions_max,
        faults: opened.faults.is_some(),
    }
}

/// Returns how many agents each role has; a [`RoleId`] is a place in it.
fn agents_of(roles: &BTreeMap<RoleId, RoleParts>) -> Vec<u32> {
    let places = roles.keys().map(|role| role.0 + 1).max().unwrap_or(0);
    let agents = |id| roles.get(&RoleId(id)).map_or(0, |role| role.agents);
    (0..places).map(agents).collect()
}

/// Spawns the agents of all roles.
fn recruit(
    opened: &Opened,
    supervision: &Supervision,
    roles: &BTreeMap<RoleId, RoleParts>,
    first: Incarnation,
    surroundings: &Arc<Surroundings>,
) -> Fleet {
    let watchdog = surroundings.watchdog.clone();
    let backtraces = opened.backtraces;
    let threads = Threads::start(opened.agent_threads, &opened.bulkheads, watchdog, backtraces);
    if !threads.is_empty() {
        surroundings.watchdog.start(surroundings);
    }
    let mut fleet = Fleet::new(threads, agents_of(roles).len());
    for (role, parts) in roles {
        // Where the order of starts matters, hosts wait until the supervisor tells them.
        let first = Some(first).filter(|_| !supervision.starts_in_sequence(*role));
        fleet.recruit(*role, parts.agents, parts.factory.clone(), first, surroundings);
    }
    fleet
}

/// What the control actors are started with.
struct Tree {
    surroundings: Arc<Surroundings>,
    board: RunBoard,
    events: EventLog,
    controller: Inbox<ControllerMessage>,
    clock: Clock,
    hosts: Hosts,
}

impl Tree {
    fn start_supervisor(
        &self,
        tree: Supervision,
        fleet: Fleet,
        roles: &BTreeMap<RoleId, RoleParts>,
        first: Incarnation,
        seed: Seed,
    ) {
        let supervisor = SupervisorActor::new(SupervisorParts {
            tree,
            agents: agents_of(roles),
            first,
            fleet,
            inbox: self.surroundings.supervisor.outlet(),
            surroundings: Arc::clone(&self.surroundings),
            board: self.board.clone(),
            clock: self.clock,
            seed,
        });
        self.spawn("supervisor", supervisor, Verdict::Restart);
    }

    fn start_memory_and_scheduler(&self, opened: Opened, roles: &BTreeMap<RoleId, RoleParts>) {
        let agents = agents_of(roles);
        let places = opened.quotas.keys().map(|quota| quota.0 + 1).max().unwrap_or(0);
        // A quota that only earlier starts knew has no limit now; no task can ask for it.
        let quotas = (0..places)
            .map(|id| opened.quotas.get(&QuotaId(id)).cloned().unwrap_or(QuotaSpec::Permits(1)))
            .collect();
        let mut planner = Planner::new(PlannerConfig {
            agents,
            quotas,
            limits: opened.catalog.limits.clone(),
            seed: opened.seed,
            epoch: opened.recovered.epoch,
            order: opened.order,
            commits_at_once: opened.durability == Durability::Memory,
            validate: opened.validate,
        });
        for (quota, (at, in_use)) in opened.recovered.quotas_in_use {
            planner.resume_quota(quota, at, in_use);
        }
        if opened.stage.as_ref().is_some_and(|stage| stage.shuffle_ties) {
            planner.shuffle_ties();
        }
        let mut decisions = Decisions::default();
        let mut books = BTreeMap::new();
        for run in opened.recovered.runs {
            self.restore(run, &mut planner, &mut decisions, &mut books);
        }
        let memory = MemoryActor::new(MemoryParts {
            memory: opened.memory,
            surroundings: Arc::clone(&self.surroundings),
            board: self.board.clone(),
            events: self.events.clone(),
            seed: opened.seed.0,
            sync_time: opened.stage.map(|stage| stage.sync_time),
            observer: opened.observer,
            checkpoint_every: opened.checkpoint_every,
        });
        self.spawn("memory", memory, Verdict::Stop);
        let scheduler = Scheduler::new(SchedulerParts {
            planner,
            decisions,
            books,
            inbox: self.surroundings.scheduler.outlet(),
            surroundings: Arc::clone(&self.surroundings),
            clock: self.clock,
            board: self.board.clone(),
            hosts: self.hosts.clone(),
        });
        self.spawn("scheduler", scheduler, Verdict::Stop);
    }

    /// Goes on with a run from before the start, or puts its report back where it has ended.
    fn restore(
        &self,
        run: guild_memory::RecoveredRun,
        planner: &mut Planner,
        decisions: &mut Decisions,
        books: &mut BTreeMap<guild_core::id::RunId, RunBook>,
    ) {
        let mut book = RunBook::new(Arc::clone(&run.graph));
        for (parent, graph, _) in &run.spawned {
            book.spawned(*parent, graph);
        }
        book.recovered(run.outputs);
        for (index, history) in (0..).map(TaskIndex).zip(&run.history.tasks) {
            let (task, letters) = (TaskId { run: run.id, index }, &self.surroundings.letters);
            if history.end == Some(TaskEnd::Ended(EndState::DeadLettered))
                && letters.retries(task).is_some()
                && let Some(alone) = self.surroundings.alone(&book, run.id, index)
            {
                letters.keep(task, alone);
            }
        }
        if let Some((outcome, tally, makespan_us)) = run.history.ended {
            self.board.end(book.into_report(
                run.id,
                run.name.to_string(),
                outcome,
                tally,
                makespan_us,
            ));
            return;
        }
        books.insert(run.id, book);
        let restored = RestoredRun {
            run: run.id,
            graph: run.graph,
            bindings: run.bindings,
            spawned: run.spawned,
            history: run.history,
        };
        planner.restore(self.clock.now(), restored, decisions);
    }

    /// Starts a control actor under a guard. When it panics a person is told; an actor whose state
    /// cannot be trusted afterwards ends, and everybody who waits learns that the guild failed.
    fn spawn<A>(&self, name: &'static str, actor: A, verdict: Verdict)
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let (surroundings, board) = (Arc::clone(&self.surroundings), self.board.clone());
        let clock = self.clock;
        let on_crash = move |report: PanicReport| -> LocalBoxFuture<'static, Verdict> {
            let message = format!("the {name} panicked: {}", report.message);
            tracing::error!(%message, location = ?report.location, "a control actor panicked");
            let action = match verdict {
                Verdict::Restart => Action::RestartActor,
                Verdict::Stop => {
                    board.close(RunError::Failed(message.clone()));
                    Action::StopGuild
                }
            };
            let struck = surroundings.stats.control_fault.swap(0, Ordering::Relaxed);
            let fault = (struck > 0).then_some(struck);
            let failure =
                Failure::panicked(Cause::Panic, PanicReport { message: message.into(), ..report });
            let kind = IncidentKind::ControllerFailed;
            let report = failure.report(kind, Severity::Error, None, None, fault, action);
            surroundings.open_incident(clock.now(), report);
            Box::pin(std::future::ready(verdict))
        };
        actix_rt::spawn(Guard::new(Context::new().into_future(actor), on_crash));
    }
}
