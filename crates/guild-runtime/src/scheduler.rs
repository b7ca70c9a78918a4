//! Dispatches: turns messages into inputs of the planner and its commands into messages.
//!
//! Architecture invariant: nothing is decided in here. One turn takes everything that came in,
//! asks [`Planner`] about each, and sends one group of messages to the memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, SpawnHandle, Supervised};
use guild_core::event::{Cause, EndState, Event, Names, Severity};
use guild_core::id::{RunId, TaskId};
use guild_core::incident::{Action, IncidentKind, Report};
use guild_core::payload::Payload;
use guild_core::planner::{AttemptResult, Command, Decisions, Input, Planner};
use guild_core::time::Timestamp;
use guild_memory::Completion;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::context::{Subject, Surroundings};
use crate::fault::Site;
use crate::guild::UnderWay;
use crate::host::Hosts;
use crate::lease::Lease;
use crate::mailbox::{Attend, Outlet, recycled};
use crate::message::{
    Assign, HostMessage, MemoryMessage, Revoke, SchedulerMessage, SupervisorMessage,
};
use crate::run::RunBoard;

mod book;
mod given_up;
mod post;
pub(crate) use book::RunBook;
use given_up::GivenUp;
use post::{Overtaken, Post};

/// The actor that gives tasks to agents.
pub(crate) struct Scheduler {
    planner: Planner,
    inbox: Outlet<SchedulerMessage>,
    surroundings: Arc<Surroundings>,
    clock: Clock,
    board: RunBoard,
    hosts: Hosts,
    books: BTreeMap<RunId, RunBook>,
    /// What an attempt handed in, while the planner decides about it.
    handed_in: Option<Completion>,
    /// Messages of this turn to the memory.
    to_memory: Vec<MemoryMessage>,
    batch: Vec<SchedulerMessage>,
    decisions: Decisions,
    timer: Option<(Timestamp, SpawnHandle)>,
    draining: Option<oneshot::Sender<()>>,
    /// Assignments on their way to agents.
    post: Post,
    /// Results that chaos lets arrive behind later ones.
    late: Overtaken<SchedulerMessage>,
    /// The last attempt of a task whose end is the next that the planner tells.
    given_up: Option<GivenUp>,
}

/// What the scheduler is built from.
pub(crate) struct SchedulerParts {
    pub(crate) planner: Planner,
    pub(crate) decisions: Decisions,
    pub(crate) books: BTreeMap<RunId, RunBook>,
    pub(crate) inbox: Outlet<SchedulerMessage>,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) clock: Clock,
    pub(crate) board: RunBoard,
    pub(crate) hosts: Hosts,
}

impl Scheduler {
    /// Returns a scheduler; what recovery has decided is carried out when it starts.
    pub(crate) fn new(parts: SchedulerParts) -> Self {
        let open: usize = parts.books.values().map(RunBook::tasks).sum();
        parts.surroundings.stats.tasks_open.store(open as u64, Ordering::Relaxed);
        let room = parts.surroundings.catalog.limits.mailbox_messages_max.max(1);
        Self {
            planner: parts.planner,
            inbox: parts.inbox,
            surroundings: parts.surroundings,
            clock: parts.clock,
            board: parts.board,
            hosts: parts.hosts,
            books: parts.books,
            handed_in: None,
            to_memory: Vec::new(),
            batch: Vec::new(),
            decisions: parts.decisions,
            timer: None,
            draining: None,
            post: Post::new(room),
            late: Overtaken::default(),
            given_up: None,
        }
    }

    fn end_turn(&mut self, context: &mut Context<Self>) {
        self.count(self.to_memory.len());
        self.surroundings.memory.push_all(&mut self.to_memory);
        for run in self.books.keys() {
            self.board.progress(*run, self.planner.progress(*run));
        }
        self.arm(context);
        if self.planner.tasks_in_flight() == 0
            && self.planner.open_commits() == 0
            && let Some(idle) = self.draining.take()
            && idle.send(()).is_err()
        {
            tracing::debug!("nobody waits for the drain any more");
        }
    }

    fn receive(&mut self, now: Timestamp, message: SchedulerMessage) {
        match message {
            SchedulerMessage::Tell(input) => {
                if let Input::Submit { run, graph, .. } = &input {
                    self.open_tasks(graph.tasks.len());
                    self.books.insert(*run, RunBook::new(Arc::clone(graph)));
                }
                self.take(now, input);
            }
            SchedulerMessage::HandIn(work) => {
                let (agent, incarnation) = (work.agent, work.incarnation);
                let (task, token, result) = (work.task, work.token, AttemptResult::Done);
                self.handed_in = Some(work);
                self.take(now, Input::Finished { agent, incarnation, task, token, result });
            }
            SchedulerMessage::Committed { task, token, version, output, spawned } => {
                if let Some(book) = self.books.get_mut(&task.run) {
                    book.completed(task.index, output, spawned.as_ref().map(|spawned| &spawned.0));
                    self.open_tasks(spawned.as_ref().map_or(0, |spawned| spawned.0.tasks.len()));
                }
                self.take(now, Input::Committed { task, token, version, spawned });
            }
            SchedulerMessage::Late { behind, result } => {
                self.late.hold(behind, SchedulerMessage::HandIn(result));
                self.release_later();
            }
            SchedulerMessage::Release => {
                self.post.release();
                for message in self.late.release() {
                    self.receive(now, message);
                    self.obey(now);
                }
            }
            SchedulerMessage::Crash { fault } => {
                self.surroundings.stats.control_fault.store(fault, Ordering::Relaxed);
                panic!("injected crash {fault}");
            }
            SchedulerMessage::Census { reply } => {
                let census = self.planner.census();
                let under_way = UnderWay {
                    runs: self.books.len().max(census.runs),
                    attempts: self.planner.tasks_in_flight(),
                    commits: self.planner.open_commits(),
                    messages: self.post.held() + self.late.len(),
                    timers: census.timers,
                    waiting: census.waiting,
                    failures: self.surroundings.incidents.undecided(),
                };
                if reply.send(under_way).is_err() {
                    tracing::debug!("nobody waits for the census any more");
                }
            }
            SchedulerMessage::Drain { idle } => {
                self.planner.pause();
                let phase = "drain".into();
                self.to_memory.push(MemoryMessage::Record(Event::PhaseStarted { phase }));
                self.draining = Some(idle);
            }
            SchedulerMessage::Halt { halted } => self.halt(now, halted),
        }
    }

    fn take(&mut self, now: Timestamp, input: Input) {
        self.planner.take(now, input, &mut self.decisions);
    }

    /// Gives out what is ready, once everything that came in is known.
    fn settle(&mut self, now: Timestamp) {
        loop {
            self.planner.settle(now, &mut self.decisions);
            if self.decisions.is_empty() {
                break;
            }
            self.obey(now);
        }
    }

    /// Carries out what the planner decided; an assignment that fails is a new input.
    fn obey(&mut self, now: Timestamp) {
        let mut refused = Vec::new();
        loop {
            let mut decisions = std::mem::take(&mut self.decisions);
            for event in decisions.events.drain(..) {
                // The kinds that `IncidentBook::task_event` hears of.
                let is_watched = match &event {
                    Event::TaskFailed { .. } => true,
                    Event::TaskAssigned { .. } | Event::TaskEnded { .. } => {
                        self.given_up.is_some() || self.surroundings.incidents.is_watching()
                    }
                    _ => false,
                };
                if is_watched {
                    self.record_watched(now, event);
                } else {
                    self.to_memory.push(MemoryMessage::Record(event));
                }
            }
            for command in decisions.commands.drain(..) {
                self.carry_out(now, command, &mut refused);
            }
            self.decisions = decisions;
            if refused.is_empty() {
                break;
            }
            for input in refused.drain(..) {
                self.take(now, input);
            }
        }
        // Handed in for a task that the planner did not ask for: a stale result.
        self.handed_in = None;
    }

    fn carry_out(&mut self, now: Timestamp, command: Command, refused: &mut Vec<Input>) {
        match command {
            Command::Assign { task, attempt, agent, incarnation, token, timeout } => {
                let inbox = self.inbox.inbox();
                let lease = Lease::new(agent, incarnation, task, attempt, token, inbox);
                match self.input_of(task) {
                    Ok(input) => self.assign(now, lease, input, timeout),
                    Err(message) => {
                        lease.void();
                        let (cause, retryable, retry_after) = (Cause::Error, false, None);
                        let result =
                            AttemptResult::Failed { cause, message, retryable, retry_after };
                        refused.push(Input::Finished { agent, incarnation, task, token, result });
                    }
                }
            }
            Command::Revoke { task, attempt, agent, incarnation, token, cause } => {
                self.count(1);
                self.surroundings.cancellations.cancel(agent, token);
                let fault = self.post.struck(agent, token);
                let revoke = Revoke { task, attempt, token, incarnation, cause, fault };
                let revoke = HostMessage::Revoke(revoke);
                if self.hosts.with(agent, |host| host.order(revoke)) == Some(false) {
                    tracing::warn!(agent = agent.index, "the host of a revoked attempt has ended");
                }
            }
            // What was handed in has the numbers of the lease that the planner has found it to hold.
            Command::Commit { .. } => {
                let Some(work) = self.handed_in.take() else {
                    unreachable!("the planner commits only what was just handed in");
                };
                self.to_memory.push(MemoryMessage::Complete(work));
            }
            Command::Discard { .. } => self.handed_in = None,
            Command::Forgive { victims } => {
                self.count(1);
                self.surroundings.supervisor.push(SupervisorMessage::Forgive { victims });
            }
            Command::EndRun { run, outcome, tally, makespan_us } => {
                self.planner.forget(run);
                if let Some(book) = self.books.remove(&run) {
                    let open = &self.surroundings.stats.tasks_open;
                    open.fetch_sub(book.tasks() as u64, Ordering::Relaxed);
                    let name = self.surroundings.named(|names| names.run(run));
                    let report = book.into_report(run, name, outcome, tally, makespan_us);
                    self.to_memory.push(MemoryMessage::Ended(Box::new(report)));
                }
            }
        }
    }

    fn assign(&mut self, now: Timestamp, lease: Lease, input: Payload, timeout: Duration) {
        let (task, token) = (lease.task, lease.token);
        self.to_memory.push(MemoryMessage::Grant { task, token });
        let deadline = self.clock.instant(now.after(timeout));
        self.surroundings.stats.attempts.fetch_add(1, Ordering::Relaxed);
        self.count(1);
        let subject = Subject::attempt(lease.agent, lease.task, lease.attempt);
        let fault = self.surroundings.strike(Site::Assign, subject);
        let latency = self.surroundings.latency(Site::Assign, subject);
        let latency = self.clock.delay(latency);
        let (agent, assign) = (lease.agent, Assign { lease, input, deadline });
        let (post, clock) = (&mut self.post, self.clock);
        let is_held = self.hosts.with(agent, |host| post.send(host, assign, fault, latency, clock));
        if is_held == Some(true) {
            self.release_later();
        }
    }

    /// Wakes the scheduler when a message that was to arrive behind later ones has waited for them
    /// long enough.
    fn release_later(&self) {
        let (inbox, delay) = (self.inbox.inbox(), self.clock.delay(post::OVERTAKEN_MAX));
        actix_rt::spawn(async move {
            tokio::time::sleep(delay).await;
            inbox.push(SchedulerMessage::Release);
        });
    }

    /// Records an event that may open or end an incident.
    fn record_watched(&mut self, now: Timestamp, event: Event) {
        self.keep_letter(&event);
        let recovered = self.surroundings.incidents.task_event(now, &event);
        let opened = match &event {
            Event::TaskFailed { retry_at: None, .. } => {
                self.given_up = GivenUp::of(&event);
                None
            }
            Event::TaskFailed { task, attempt, .. } => {
                self.surroundings.incidents.details(*task, *attempt);
                None
            }
            Event::TaskEnded { task, state } => {
                let given_up = self.given_up.take_if(|failed| failed.task == *task);
                given_up.and_then(|failed| self.report(failed, *state))
            }
            _ => None,
        };
        self.to_memory.push(MemoryMessage::Record(event));
        self.to_memory.extend(recovered.map(MemoryMessage::Record));
        if let Some(report) = opened {
            let events = self.surroundings.incidents.open(now, report);
            self.to_memory.extend(events.map(MemoryMessage::Record));
        }
    }

    /// Reports a task that is given up; a failed attempt that is tried again has the incident of
    /// its agent, if that went down with it, and a cancelled task has none.
    fn report(&self, failed: GivenUp, state: EndState) -> Option<Report> {
        let details = self.surroundings.incidents.details(failed.task, failed.attempt);
        if !matches!(state, EndState::Failed | EndState::DeadLettered) {
            return None;
        }
        let (reason, causes, attempt) = match details {
            Some(details) => (details.reason, details.causes, details.attempt),
            None => (failed.cause.into(), Vec::new(), failed.record()),
        };
        Some(Report {
            kind: IncidentKind::TaskFailed,
            severity: Severity::Error,
            cause: failed.cause,
            reason,
            message: failed.message,
            causes,
            location: None,
            backtrace: None,
            agent: Some((failed.agent, failed.incarnation)),
            attempt: Some(attempt),
            fault: None,
            action: Action::GiveUp { state },
        })
    }

    /// Keeps a task that died, so that a person can have it tried again.
    fn keep_letter(&self, event: &Event) {
        if let Event::TaskEnded { task, state: EndState::DeadLettered } = event
            && let Some(book) = self.books.get(&task.run)
            && let Some(alone) = self.surroundings.alone(book, task.run, task.index)
        {
            self.surroundings.letters.keep(*task, alone);
        }
    }

    fn input_of(&self, task: TaskId) -> Result<Payload, Box<str>> {
        let book = self.books.get(&task.run).ok_or("its run has ended")?;
        let input = book.input(task.index).map_err(|error| error.to_string())?;
        let limit = self.surroundings.catalog.limits.payload_bytes_max;
        if input.size_bytes() > limit {
            let size = input.size_bytes();
            return Err(format!(
                "the input has {size} bytes, more than the {limit} that a task may get"
            )
            .into());
        }
        Ok(input)
    }

    /// Takes back everything that is under way; its tasks stay unfinished.
    fn halt(&mut self, now: Timestamp, halted: oneshot::Sender<usize>) {
        self.planner.pause();
        self.obey(now);
        self.surroundings.cancellations.cancel_all();
        if halted.send(self.planner.tasks_in_flight()).is_err() {
            tracing::debug!("nobody waits for the halt any more");
        }
    }

    fn open_tasks(&self, count: usize) {
        self.surroundings.stats.tasks_open.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn count(&self, messages: usize) {
        self.surroundings.stats.messages.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Keeps one timer: the planner's next wake-up, or an earlier one that is armed already.
    fn arm(&mut self, context: &mut Context<Self>) {
        let Some(at) = self.planner.next_wakeup() else {
            return;
        };
        if let Some((armed, handle)) = self.timer {
            if armed <= at {
                return;
            }
            context.cancel_future(handle);
        }
        let delay = self.clock.delay(at.since(self.clock.now()));
        let handle = context.run_later(delay, |scheduler, context| {
            scheduler.timer = None;
            scheduler.turn(context);
        });
        self.timer = Some((at, handle));
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.inbox.attend::<Self>(context);
        self.obey(self.clock.now());
        self.end_turn(context);
    }
}

impl Supervised for Scheduler {}

impl Attend for Scheduler {
    fn turn(&mut self, context: &mut Context<Self>) {
        let now = self.clock.now();
        let mut batch = std::mem::take(&mut self.batch);
        self.inbox.take(&mut batch);
        self.count(batch.len());
        for message in batch.drain(..) {
            let is_result = matches!(message, SchedulerMessage::HandIn(_));
            self.receive(now, message);
            self.obey(now);
            if is_result && !self.late.is_empty() {
                for message in self.late.pass() {
                    self.receive(now, message);
                    self.obey(now);
                }
            }
        }
        self.batch = recycled(batch);
        self.settle(now);
        self.end_turn(context);
    }
}
