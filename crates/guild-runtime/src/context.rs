//! What an attempt may do while it performs: the only hands an agent has.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use guild_core::event::{Event, Names};
use guild_core::graph::{Catalog, Graph, GraphBuilder, Task};
use guild_core::id::{AgentId, FencingToken, RunId, TaskId, TaskIndex};
use guild_core::incident::{Discarded, Report};
use guild_core::payload::Payload;
use guild_core::planner::Input;
use guild_core::time::Timestamp;
use guild_memory::{
    Access, Completion, KeyRange, NameTable, Namespaces, Pins, Snapshots, Transaction,
    TransactionError,
};
use tokio::time::Instant;

use crate::agent::TaskError;
use crate::blocking::BlockingPool;
use crate::cancellation::{AttemptEnd, Cancellation, Cancellations};
use crate::clock::Clock;
use crate::fault::{Fault, FaultPoint, Hit, Site, Strike};
use crate::incidents::Incidents;
use crate::lease::Lease;
use crate::letters::LetterBox;
use crate::mailbox::Inbox;
use crate::message::{MemoryMessage, SchedulerMessage, SupervisorMessage};
use crate::scheduler::RunBook;
use crate::watch::{self, Acknowledged};
use crate::watchdog::Watchdog;

/// What all actors of a guild share: where to send, and where to look things up.
pub(crate) struct Surroundings {
    pub(crate) scheduler: Inbox<SchedulerMessage>,
    pub(crate) supervisor: Inbox<SupervisorMessage>,
    pub(crate) memory: Inbox<MemoryMessage>,
    pub(crate) snapshots: Snapshots,
    pub(crate) acknowledged: Acknowledged,
    pub(crate) pins: Pins,
    pub(crate) names: Arc<RwLock<NameTable>>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) catalog: Catalog,
    pub(crate) faults: Option<Arc<dyn FaultPoint>>,
    pub(crate) incidents: Incidents,
    pub(crate) letters: LetterBox,
    pub(crate) blocking: BlockingPool,
    pub(crate) watchdog: Watchdog,
    pub(crate) cancellations: Cancellations,
    pub(crate) clock: Clock,
    pub(crate) stats: Counters,
}

/// Whom a fault may strike at a site.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) agent: Option<AgentId>,
    pub(crate) task: Option<(TaskId, u32)>,
}

impl Subject {
    /// An agent that has no task there.
    pub(crate) fn agent(agent: AgentId) -> Self {
        Self { agent: Some(agent), task: None }
    }

    /// An attempt of a task by an agent.
    pub(crate) fn attempt(agent: AgentId, task: TaskId, attempt: u32) -> Self {
        Self { agent: Some(agent), task: Some((task, attempt)) }
    }

    fn hit(self, site: Site, now: Timestamp, names: &NameTable) -> Hit<'_> {
        let task = self.task.map(|(task, _)| task);
        let attempt = self.task.map(|(_, attempt)| attempt);
        Hit { site, now, agent: self.agent, task, attempt, names }
    }
}

/// Counts what happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages: AtomicU64,
    pub(crate) callers: AtomicU64,
    pub(crate) attempts: AtomicU64,
    pub(crate) crashes: AtomicU64,
    pub(crate) restarts: AtomicU64,
    /// Tasks of runs that have not ended.
    pub(crate) tasks_open: AtomicU64,
    /// Threads that agents block now.
    pub(crate) threads_hung: AtomicU64,
    pub(crate) faults: AtomicU64,
    /// Number of the fault that makes a control actor panic; 0: there is none.
    pub(crate) control_fault: AtomicU64,
}

impl Surroundings {
    /// Asks chaos what strikes here, and records it with its number.
    pub(crate) fn strike(&self, site: Site, of: Subject) -> Option<(Fault, u64)> {
        let strike = self.decide(site, of)?;
        Some((strike.fault, self.record(&strike, site, of)))
    }

    /// Asks chaos what strikes here; it has happened once it is [recorded](Self::record).
    pub(crate) fn decide(&self, site: Site, of: Subject) -> Option<Strike> {
        let faults = self.faults.as_ref()?;
        self.named(|names| faults.strike(&of.hit(site, self.clock.now(), names)))
    }

    /// Has an event recorded.
    pub(crate) fn log(&self, event: Event) {
        self.memory.push(MemoryMessage::Record(event));
    }

    /// Opens an incident and has its events recorded; the memory and the scheduler record theirs in
    /// the turn that they are in.
    pub(crate) fn open_incident(&self, now: Timestamp, report: Report) {
        self.incidents.open(now, report).for_each(|event| self.log(event));
    }

    /// Records a fault and returns its number.
    pub(crate) fn record(&self, strike: &Strike, site: Site, of: Subject) -> u64 {
        if let Some(number) = strike.continues {
            return number;
        }
        let number = self.stats.faults.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(faults) = &self.faults {
            faults.struck(strike.tag, number);
        }
        self.log(Event::FaultInjected {
            fault: number,
            r#type: strike.kind.into(),
            site: site.name().into(),
            agent: of.agent,
            task: of.task.map(|(task, _)| task),
            attempt: of.task.map(|(_, attempt)| attempt),
        });
        number
    }

    /// Returns how long a message is on its way to or from an agent.
    pub(crate) fn latency(&self, site: Site, of: Subject) -> Duration {
        let Some(faults) = &self.faults else {
            return Duration::ZERO;
        };
        self.named(|names| faults.latency(&of.hit(site, self.clock.now(), names)))
    }

    /// Returns a graph of one task alone, by which it can be tried again.
    pub(crate) fn alone(&self, book: &RunBook, run: RunId, index: TaskIndex) -> Option<Graph> {
        let task = TaskId { run, index };
        let (run, name) = self.named(|names| (names.run(run), names.task(task)));
        book.alone(index, name, run)
    }

    /// Looks something up by name. The table is whole after every write, so a poisoned lock holds
    /// good data.
    pub(crate) fn named<R>(&self, look_up: impl FnOnce(&NameTable) -> R) -> R {
        look_up(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The attempt that an agent performs: its memory, its identity and its deadline.
pub struct TaskContext {
    surroundings: Arc<Surroundings>,
    agent: AgentId,
    task: TaskId,
    attempt: u32,
    token: FencingToken,
    deadline: Instant,
    transaction: Transaction,
    /// Boxed, as most tasks spawn none.
    spawned: Option<Box<GraphBuilder>>,
    idempotency_key: Option<Box<str>>,
    last_heartbeat: Option<Instant>,
    /// Ends the attempt for those who hold its cancellation.
    end: Option<AttemptEnd>,
    retires: bool,
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

impl TaskContext {
    pub(crate) fn new(
        surroundings: Arc<Surroundings>,
        (agent, task, attempt, token): (AgentId, TaskId, u32, FencingToken),
        deadline: Instant,
    ) -> Self {
        let mut transaction = Transaction::begin(&surroundings.snapshots);
        if !surroundings.namespaces.is_empty() {
            let namespaces = Arc::clone(&surroundings.namespaces);
            transaction = transaction.with_access(Access { namespaces, role: agent.role });
        }
        Self {
            surroundings,
            agent,
            task,
            attempt,
            token,
            deadline,
            transaction,
            spawned: None,
            idempotency_key: None,
            last_heartbeat: None,
            end: None,
            retires: false,
        }
    }

    /// Returns the task's transaction on the shared memory.
    ///
    /// It reads one stable snapshot, taken at the first read, and its own writes. The writes are
    /// committed together with the task's completion; if something that was read has changed by
    /// then, nothing is committed and the task is tried again.
    pub fn memory(&mut self) -> &mut Transaction {
        &mut self.transaction
    }

    /// Follows the changes that others commit to a part of the memory, from now on.
    ///
    /// What it tells is not part of the task's transaction and is not watched over by its commit.
    ///
    /// # Errors
    /// `Denied`: the role may not watch there.
    pub fn watch(&self, range: impl Into<KeyRange>) -> Result<watch::Watch, TransactionError> {
        let (range, namespaces) = (range.into(), Arc::clone(&self.surroundings.namespaces));
        Access { namespaces, role: self.agent.role }.check_watch(&range)?;
        Ok(self.surroundings.acknowledged.follow(range))
    }

    /// Adds a task that is committed together with this task's completion.
    ///
    /// Spawned tasks may depend on each other (by what this returns), not on tasks outside. Whoever
    /// depends on this task waits for the spawned ones too.
    pub fn spawn(&mut self, task: Task) -> TaskIndex {
        let catalog = &self.surroundings.catalog;
        let spawned = || Box::new(GraphBuilder::spawned(catalog.clone()));
        self.spawned.get_or_insert_with(spawned).add(task)
    }

    /// Ends the agent's life in order when this attempt is over, whatever it comes to: a connection has
    /// grown old, a library leaks. Whether another life follows says the
    /// [restart type](guild_core::supervision::RestartType) of its role.
    pub fn retire(&mut self) {
        self.retires = true;
    }

    pub(crate) fn retires(&self) -> bool {
        self.retires
    }

    /// Renews the lease: tells the scheduler that the agent works on.
    ///
    /// Needed only for tasks with a heartbeat interval; more than one in 10 ms are not sent.
    pub fn heartbeat(&mut self) {
        let now = Instant::now();
        let recent = self
            .last_heartbeat
            .is_some_and(|last| now.duration_since(last).as_millis() < HEARTBEAT_MS_MIN);
        if !recent {
            self.last_heartbeat = Some(now);
            let (agent, task, token) = (self.agent, self.task, self.token);
            self.surroundings.scheduler.push(SchedulerMessage::Tell(Input::Heartbeat {
                agent,
                task,
                token,
            }));
        }
    }

    /// Declares that the agent will not be heard of for this long, and works on: it sends no heartbeat,
    /// and may keep its thread from others, up to its task's timeout. Without that a heartbeat task
    /// loses its lease after its interval, and an agent without an await its thread after
    /// [`Limits::hold_hard`](guild_core::limits::Limits::hold_hard).
    pub fn declare_wait(&mut self, lasts: Duration) {
        crate::beacon::declare(lasts);
        let (agent, task, token) = (self.agent, self.task, self.token);
        let wait = Input::Wait { agent, task, token, lasts };
        self.surroundings.scheduler.push(SchedulerMessage::Tell(wait));
    }

    /// Does work that blocks (a file, a lock, a long computation) on a pool of threads, so that the
    /// other agents of this thread go on. The pool has
    /// [`Limits::blocking_threads_max`](guild_core::limits::Limits::blocking_threads_max) threads for
    /// all agents together; whoever comes when they are busy waits, in order. In a simulation the work
    /// is done at once.
    ///
    /// # Panics
    /// The work panics: it is the panic of this agent.
    ///
    /// # Cancel safety
    /// Work that has begun goes on when the future is dropped; give it a
    /// [`cancellation`](Self::cancellation) to ask.
    pub async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> R {
        self.surroundings.blocking.run(work).await
    }

    /// Returns the time of the guild: microseconds since the first start of its store.
    pub fn now(&self) -> Timestamp {
        self.surroundings.clock.now()
    }

    /// Waits this long on the guild's clock; in a simulation with microseconds that is exact, where
    /// tokio's own timers fire on whole milliseconds.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(self.surroundings.clock.delay(duration)).await;
    }

    /// Returns when the attempt times out; its future is dropped then.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns what tells other threads that the attempt is over.
    ///
    /// The attempt's own future needs none: it is dropped at an await. Work that it hands out
    /// (`spawn_blocking`, a thread) takes this with it and asks now and then.
    pub fn cancellation(&mut self) -> Cancellation {
        let cancellation = self.surroundings.cancellations.of(self.agent, self.token);
        self.end.get_or_insert_with(|| AttemptEnd(cancellation.clone()));
        cancellation
    }

    /// Returns whether the attempt is over: its run was cancelled, its time is up, or the guild shuts
    /// down. For loops without an await; what they answer then is refused.
    pub fn is_cancelled(&self) -> bool {
        self.surroundings.cancellations.is_over(self.agent, self.token)
    }

    /// Returns a key that is the same for every attempt of this task, also after a restart of the
    /// process, and of no other task: give it to outside services so that they do a thing only once.
    /// It is `RUN/TASK`, where a slash in the name of the run is `%2F` and a percent sign `%25`.
    pub fn idempotency_key(&mut self) -> &str {
        let (surroundings, task) = (&self.surroundings, self.task);
        self.idempotency_key.get_or_insert_with(|| {
            surroundings
                .named(|names| {
                    // What stands before the first slash is the run, so that no two tasks share a key.
                    let run = names.run(task.run).replace('%', "%25").replace('/', "%2F");
                    format!("{run}/{}", names.task(task))
                })
                .into()
        })
    }

    /// Returns the name of the run.
    pub fn run(&self) -> String {
        self.surroundings.named(|names| names.run(self.task.run))
    }

    /// Returns the name of the task.
    pub fn task(&self) -> String {
        self.surroundings.named(|names| names.task(self.task))
    }

    /// Returns the name of the agent.
    pub fn agent(&self) -> String {
        self.surroundings.named(|names| names.agent(self.agent))
    }

    /// Returns which try of the task this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the task's number.
    pub fn task_id(&self) -> TaskId {
        self.task
    }

    /// Returns the agent's number.
    pub fn agent_id(&self) -> AgentId {
        self.agent
    }

    /// Returns the tracing span of this attempt; the agent's work runs in it.
    pub fn span(&self) -> tracing::Span {
        tracing::debug_span!(
            "attempt",
            run = self.task.run.0,
            task = self.task.index.0,
            attempt = self.attempt,
            agent = self.agent.index,
        )
    }

    /// Returns the longest time between two heartbeats that the task allows; none: it needs none.
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        self.surroundings.named(|names| names.terms(self.task)?.0.options.heartbeat)
    }

    /// Returns the token of the lease: only its holder can commit.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Returns when the agent last renewed its lease; none: it has not.
    pub(crate) fn last_heartbeat(&self) -> Option<Timestamp> {
        self.last_heartbeat.map(|last| self.surroundings.clock.at(last))
    }

    /// Returns what is lost if the attempt ends here.
    pub(crate) fn discarded(&self) -> Discarded {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Discarded {
            writes: count(self.transaction.writes()),
            spawned: count(self.spawned.as_ref().map_or(0, |spawned| spawned.len())),
        }
    }

    /// Packs up what is committed.
    pub(crate) fn into_completion(
        self,
        lease: &Lease,
        output: Payload,
    ) -> Result<Completion, TaskError> {
        let limits = &self.surroundings.catalog.limits;
        if output.size_bytes() > limits.payload_bytes_max {
            return Err(TaskError::fatal(format_args!(
                "the output has {} bytes, more than the {} that a task may hand in",
                output.size_bytes(),
                limits.payload_bytes_max
            )));
        }
        let spawned = match self.spawned {
            None => None,
            Some(builder) => {
                let graph = builder.build().map_err(TaskError::fatal)?;
                let bindings = graph.bind(&self.surroundings.catalog).map_err(TaskError::fatal)?;
                Some(Box::new((Arc::new(graph), bindings)))
            }
        };
        Ok(Completion {
            task: lease.task,
            attempt: lease.attempt,
            agent: lease.agent,
            incarnation: lease.incarnation,
            token: lease.token,
            output,
            transaction: self.transaction.into_work(),
            spawned,
        })
    }
}

/// Shortest time between two heartbeats that are sent, in milliseconds.
const HEARTBEAT_MS_MIN: u128 = 10;
