//! The handle of a running guild.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::event::{Event, EventRecord, Names};
use guild_core::graph::{Graph, GraphBuilder, GraphError};
use guild_core::id::{RunId, TaskId};
use guild_core::incident::{AcknowledgeError, Group, Incident};
use guild_core::letter::DeadLetter;
use guild_core::planner::Input;
use guild_memory::SubmitError as SubmitRefused;
use tokio::sync::oneshot;

use crate::builder::GuildBuilder;
use crate::context::Surroundings;
use crate::events::{EventLog, Events};
use crate::handle::MemoryHandle;
use crate::letters::LetterError;
use crate::mailbox::Inbox;
use crate::message::{ControllerMessage, MemoryMessage, SchedulerMessage};
use crate::run::{Run, RunBoard};
use crate::watchdog::ThreadLoad;

/// A running guild. Every clone is the same guild; it can be used from any thread and runtime, and
/// from none with [`block_on`](https://docs.rs/pollster).
///
/// It lives until [`shutdown`](Self::shutdown) or the end of the process, not until its last handle is
/// dropped: a service may submit and forget.
#[derive(Clone)]
pub struct Guild {
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) controller: Inbox<ControllerMessage>,
    pub(crate) board: RunBoard,
    pub(crate) events: EventLog,
    pub(crate) incidents_before: u64,
    pub(crate) faults_before: u64,
    pub(crate) agents: u32,
    pub(crate) seed: Seed,
    pub(crate) thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl fmt::Debug for Guild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guild").field("agents", &self.agents).finish_non_exhaustive()
    }
}

/// Why a graph was not submitted; nothing of it is kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The graph asks for a role or quota that the guild does not have, or breaks a limit.
    #[error(transparent)]
    Graph(#[from] Arc<GraphError>),
    /// The memory refused it.
    #[error(transparent)]
    Refused(#[from] SubmitRefused),
    /// Too many tasks have not ended; try again when some have.
    #[error("{open} tasks have not ended yet, and {open_max} may be open: try again later")]
    Overloaded {
        /// How many there are.
        open: u64,
        /// The bound, [`Limits::tasks_open_max`](guild_core::limits::Limits::tasks_open_max).
        open_max: u64,
    },
    /// Too many submissions wait; try again later.
    #[error("{0} submissions wait already: try again later")]
    Busy(usize),
    /// The guild has shut down, or its store failed.
    #[error("the guild takes no submissions: {0}")]
    Unavailable(String),
}

/// How a guild ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// What is under way may finish and commit until this much time has passed.
    Until(Duration),
    /// What is under way is dropped.
    Now,
}

/// How a guild ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Attempts that were dropped; with a store on disk their tasks go on at the next start.
    pub attempts_dropped: usize,
    /// Agents that did not stop in time; they end with the process.
    pub agents_left: u32,
}

/// What happened in a guild since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Agents of all roles.
    pub agents: u32,
    /// Attempts that were assigned.
    pub attempts: u64,
    /// Lives of agents that ended with a failure.
    pub crashes: u64,
    /// Lives of agents that followed one.
    pub restarts: u64,
    /// Incidents that were opened.
    pub incidents: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Messages between the guild's actors.
    pub messages: u64,
    /// Threads that agents block now, and that were given up.
    pub threads_hung: u64,
}

/// What is under way in a guild; after the end of all runs, nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Runs that have not ended.
    pub runs: usize,
    /// Tasks that agents perform.
    pub attempts: usize,
    /// Completions that wait for the memory.
    pub commits: usize,
    /// Messages that are held back.
    pub messages: usize,
    /// Timers that would do something for a task.
    pub timers: usize,
    /// Tasks that wait for an agent or a quota.
    pub waiting: usize,
    /// Failures of which something is kept until it is known what becomes of their tasks.
    pub failures: usize,
}

impl Guild {
    /// Returns a builder.
    pub fn builder() -> GuildBuilder {
        GuildBuilder::default()
    }

    /// Returns a builder of a graph that knows this guild's roles, quotas and limits.
    pub fn graph(&self, name: impl Into<String>) -> GraphBuilder {
        GraphBuilder::for_catalog(name, self.surroundings.catalog.clone())
    }

    /// Submits a graph. The name of the graph is the key: submitting the same graph again gives
    /// the same run, also after a restart on the same store.
    ///
    /// # Errors
    /// The guild lacks a role or quota of the graph, another graph has this name, or the guild is
    /// shutting down; nothing is kept then.
    ///
    /// # Cancel safety
    /// Once the future was polled the graph may be submitted even if the future is dropped.
    pub async fn submit(&self, graph: Graph) -> Result<Run, SubmitError> {
        let bindings = graph.bind(&self.surroundings.catalog).map_err(Arc::new)?;
        let limits = &self.surroundings.catalog.limits;
        let open = self.surroundings.stats.tasks_open.load(Ordering::Relaxed);
        if open >= limits.tasks_open_max {
            return Err(SubmitError::Overloaded { open, open_max: limits.tasks_open_max });
        }
        let waiting_max = limits.requests_waiting_max;
        let (reply, answer) = oneshot::channel();
        let message = MemoryMessage::Submit { graph: Arc::new(graph), bindings, reply };
        self.surroundings
            .memory
            .try_push(message, waiting_max)
            .map_err(|_| SubmitError::Busy(waiting_max))?;
        let id = answer.await.unwrap_or_else(|_| Err(SubmitError::Unavailable(ENDED.into())))?;
        Ok(self.follow(id))
    }

    /// Returns the run of this name, if one was submitted.
    pub fn run(&self, name: &str) -> Option<Run> {
        self.surroundings.named(|names| names.find_run(name)).map(|id| self.follow(id))
    }

    /// Returns a reader of the event log from number `from` on; 1 is the first event.
    pub fn events(&self, from: u64) -> Events {
        self.events.reader(from)
    }

    /// Writes an event as one line of JSON, with names instead of numbers.
    pub fn event_line(&self, record: &EventRecord) -> String {
        self.surroundings.named(|names| guild_core::event::line(record, names))
    }

    /// Returns the recent incidents, those from before the start included, oldest first.
    pub fn incidents(&self) -> Vec<Incident> {
        self.surroundings.incidents.list()
    }

    /// Returns the patterns of incidents: what is the same mistake, and how often it happened.
    pub fn incident_groups(&self) -> Vec<Group> {
        self.surroundings.incidents.groups()
    }

    /// Notes that a person has seen an incident, and what they say about it; the newest note counts.
    ///
    /// # Errors
    /// There is no such incident, the note is too long, or the guild has ended; nothing has changed
    /// then.
    pub async fn acknowledge(&self, incident: u64, note: &str) -> Result<(), AcknowledgeError> {
        let (reply, answer) = oneshot::channel();
        let note = note.to_owned();
        self.surroundings.memory.push(MemoryMessage::Acknowledge { incident, note, reply });
        answer.await.unwrap_or(Err(AcknowledgeError::Ended))
    }

    /// Returns the dead letters, oldest first: tasks that were given up because they took their agents
    /// down, with the reports of their crashes. They stay when a person has dealt with them, and say so.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.surroundings.letters.list()
    }

    /// Has a dead letter tried again: the task alone, with the input that it had, as a run of its own,
    /// `RUN/TASK/retry-N`. The tasks that were skipped because of it stay skipped.
    ///
    /// # Errors
    /// The task has no letter, or what it was given is no longer kept; nothing is done then. Or the
    /// run is not taken, see [`submit`](Self::submit).
    pub async fn retry_letter(&self, task: TaskId) -> Result<Run, LetterError> {
        let name = || self.surroundings.named(|names| names.task(task));
        let letters = &self.surroundings.letters;
        let retries = letters.retries(task).ok_or_else(|| LetterError::Unknown(name()))?;
        let mut graph = letters.graph(task).ok_or_else(|| LetterError::Forgotten(name()))?;
        graph.name = format!("{}/{}/retry-{}", graph.name, name(), retries + 1);
        let run = self.submit(graph).await?;
        let retried = Event::LetterRetried { task, run: run.id() };
        self.surroundings.log(retried);
        Ok(run)
    }

    /// Throws a dead letter away; the note says why, for whoever reads the log.
    ///
    /// # Errors
    /// [`LetterError::Unknown`].
    pub fn discard_letter(&self, task: TaskId, note: &str) -> Result<(), LetterError> {
        let name = || self.surroundings.named(|names| names.task(task));
        self.surroundings.letters.retries(task).ok_or_else(|| LetterError::Unknown(name()))?;
        let discarded = Event::LetterDiscarded { task, note: note.into() };
        self.surroundings.log(discarded);
        Ok(())
    }

    /// Returns what happened since the start.
    pub fn stats(&self) -> Stats {
        let counters = &self.surroundings.stats;
        Stats {
            agents: self.agents,
            attempts: counters.attempts.load(Ordering::Relaxed),
            crashes: counters.crashes.load(Ordering::Relaxed),
            restarts: counters.restarts.load(Ordering::Relaxed),
            incidents: self.surroundings.incidents.opened() - self.incidents_before,
            faults: counters.faults.load(Ordering::Relaxed) - self.faults_before,
            messages: counters.messages.load(Ordering::Relaxed),
            threads_hung: counters.threads_hung.load(Ordering::Relaxed),
        }
    }

    /// Returns how much each thread of agents has to do, and which agents hold it most: sampled, since
    /// the start. Empty where agents have no threads of their own.
    pub fn threads(&self) -> Vec<ThreadLoad> {
        self.surroundings.watchdog.loads()
    }

    /// Changes how many permits a quota has, from now on; what is held stays held. Returns whether
    /// the guild has a quota of this name; a rate stays as it is.
    pub fn set_permits(&self, quota: &str, permits: u32) -> bool {
        let quotas = &self.surroundings.catalog.quotas;
        let Some((_, quota, _)) = quotas.iter().find(|(name, ..)| &**name == quota) else {
            return false;
        };
        let input = Input::Permits { quota: *quota, permits };
        self.surroundings.scheduler.push(SchedulerMessage::Tell(input));
        true
    }

    /// Records that a fault strikes which no agent can see (its disk fails, a quota is cut); returns
    /// its number.
    pub fn record_fault(&self, kind: &str, site: &str) -> u64 {
        let number = self.surroundings.stats.faults.fetch_add(1, Ordering::Relaxed) + 1;
        self.surroundings.log(Event::FaultInjected {
            fault: number,
            r#type: kind.into(),
            site: site.into(),
            agent: None,
            task: None,
            attempt: None,
        });
        number
    }

    /// Counts what is under way; none when the guild has ended.
    pub async fn under_way(&self) -> Option<UnderWay> {
        let (reply, answer) = oneshot::channel();
        self.surroundings.scheduler.push(SchedulerMessage::Census { reply });
        answer.await.ok()
    }

    /// Makes the scheduler panic, as a bug in it would: the guild takes no more work then. Returns
    /// the number of the fault.
    pub fn inject_controller_crash(&self) -> u64 {
        let fault = self.record_fault("controller_crash", "process");
        self.surroundings.scheduler.push(SchedulerMessage::Crash { fault });
        fault
    }

    /// Records that a phase of an experiment begins, `chaos` or `quiet` say.
    pub fn record_phase(&self, phase: &str) {
        let phase = phase.into();
        self.surroundings.log(Event::PhaseStarted { phase });
    }

    /// Returns the shared memory.
    pub fn memory(&self) -> MemoryHandle {
        MemoryHandle { surroundings: Arc::clone(&self.surroundings), seed: self.seed }
    }

    /// Ends the guild: assigns nothing more, lets work under way finish within the drain, drops the
    /// rest, and closes the store.
    ///
    /// # Errors
    /// The store could not be closed cleanly, or the guild has ended already.
    pub async fn shutdown(&self, drain: Drain) -> Result<ShutdownReport, ShutdownError> {
        let (reply, answer) = oneshot::channel();
        self.controller.push(ControllerMessage::Shutdown { drain, reply });
        let report = match answer.await {
            Ok(report) => report.map_err(ShutdownError::Store),
            Err(_) => Err(ShutdownError::Ended),
        };
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the control thread ended with a panic");
        }
        report
    }

    fn follow(&self, id: RunId) -> Run {
        let state = self.board.follow(id);
        Run { id, surroundings: Arc::clone(&self.surroundings), state }
    }
}

/// Why a guild did not end cleanly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// The store could not be closed; what was acknowledged is kept.
    #[error("the store was not closed cleanly: {0}")]
    Store(String),
    /// It has ended before.
    #[error("the guild has ended already")]
    Ended,
}

pub(crate) const ENDED: &str = "it has ended";
