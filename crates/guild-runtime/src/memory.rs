//! Serialises all commits: the only actor that changes the shared memory.
//!
//! One turn validates and applies everything that came in, seals it as one group for the committer
//! thread, and answers what has reached its durability level by then. Architecture invariant:
//! nothing is answered, published or told before its group is acknowledged.

mod keeping;
mod parked;
mod refused;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Supervised};
use guild_core::event::EventRecord;
use guild_core::graph::{Bindings, Graph};
use guild_core::id::{CommitVersion, RunId};
use guild_core::incident::AcknowledgeError;
use guild_core::planner::{Input, Refusal};
use guild_core::time::Timestamp;
use guild_memory::{
    Completion, GroupNo, Memory, NameTable, Owner, RollbackError, Snapshot, Submitted,
    TransactionParts,
};

use tokio::sync::oneshot;

pub(crate) use self::keeping::{CheckpointReply, report_restore};
use self::keeping::{SUSPENDED, checkpoint, report_troubles};
use self::parked::Parked;
use self::refused::attempt_of;
use crate::clock::Clock;
use crate::context::{Subject, Surroundings};
use crate::events::EventLog;
use crate::fault::{Fault, Site};
use crate::guild::SubmitError;
use crate::handle::TransactError;
use crate::mailbox::{Attend, Outlet, recycled};
use crate::message::{MemoryMessage, SchedulerMessage};
use crate::run::{RunBoard, RunError, RunReport};

/// The actor that owns the memory.
pub(crate) struct MemoryActor {
    /// Boxed, as it leaves for each turn.
    memory: Option<Box<Memory>>,
    inbox: Outlet<MemoryMessage>,
    surroundings: Arc<Surroundings>,
    clock: Clock,
    board: RunBoard,
    events: EventLog,
    seed: u64,
    /// How long a sync takes, where the groups are made durable by this actor.
    sync_time: Option<SyncTime>,
    is_syncing: bool,
    /// Whether an incident of the store is open.
    is_in_trouble: bool,
    observer: Option<Observer>,
    checkpoint_every: Option<Duration>,
    batch: Vec<MemoryMessage>,
    parked: Parked,
    /// Answers of this turn.
    turn: Group,
    /// Answers that wait for their group.
    waiting: VecDeque<(GroupNo, Group)>,
    failed: bool,
    closing: Option<oneshot::Sender<Result<(), String>>>,
}

/// What the memory actor is built from.
pub(crate) struct MemoryParts {
    pub(crate) memory: Memory,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) board: RunBoard,
    pub(crate) events: EventLog,
    pub(crate) seed: u64,
    pub(crate) sync_time: Option<SyncTime>,
    pub(crate) observer: Option<Observer>,
    /// None: no checkpoints are made unless somebody asks.
    pub(crate) checkpoint_every: Option<Duration>,
}

/// Tells how long the next sync of a simulated disk takes.
pub(crate) type SyncTime = Box<dyn FnMut() -> Duration + Send>;

/// Sees every record that is durable, in order.
pub(crate) type Observer = Box<dyn FnMut(&EventRecord, &NameTable) + Send>;

/// An answer to the handle, told whether what it says is durable.
type Reply = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What may be told once a group is acknowledged, in the order in which it is told.
#[derive(Default)]
struct Group {
    records: Vec<EventRecord>,
    /// The memory after the group; none: it is as it was.
    snapshot: Option<Snapshot>,
    to_scheduler: Vec<SchedulerMessage>,
    ended: Vec<RunReport>,
    replies: Vec<Reply>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.to_scheduler.is_empty()
            && self.ended.is_empty()
            && self.replies.is_empty()
    }
}

impl MemoryActor {
    /// Returns the actor for an opened memory.
    pub(crate) fn new(parts: MemoryParts) -> Self {
        Self {
            memory: Some(Box::new(parts.memory)),
            inbox: parts.surroundings.memory.outlet(),
            clock: parts.surroundings.clock,
            surroundings: parts.surroundings,
            board: parts.board,
            events: parts.events,
            seed: parts.seed,
            sync_time: parts.sync_time,
            is_syncing: false,
            is_in_trouble: false,
            observer: parts.observer,
            checkpoint_every: parts.checkpoint_every,
            batch: Vec::new(),
            parked: Parked::default(),
            turn: Group::default(),
            waiting: VecDeque::new(),
            failed: false,
            closing: None,
        }
    }

    /// Closes the store, and tells who waits for a version that there is no other one.
    fn close(&mut self) -> Result<(), String> {
        let closed = self.close_store();
        self.surroundings.acknowledged.close();
        closed
    }

    /// Closes the store; what waits for its group is told when that went well.
    fn close_store(&mut self) -> Result<(), String> {
        let Some(memory) = self.memory.take() else {
            return Ok(());
        };
        memory.close().map_err(|error| error.to_string())?;
        while let Some((_, group)) = self.waiting.pop_front() {
            self.tell(group);
        }
        Ok(())
    }

    fn end_turn(&mut self) {
        let Some(memory) = self.memory.as_mut() else {
            return;
        };
        self.turn.records = memory.take_records();
        if !self.turn.is_empty() {
            let group = memory.seal();
            self.turn.snapshot = memory.take_published();
            self.waiting.push_back((group, std::mem::take(&mut self.turn)));
        }
        if memory.needs_driving() && !self.is_syncing {
            self.is_syncing = true;
            let mut delay = self.sync_time.as_mut().map_or(Duration::ZERO, |time| time());
            let struck = self.surroundings.strike(Site::Sync, Subject::default());
            if let Some((Fault::Slow(more), _)) = struck {
                delay += more;
            }
            let (delay, inbox) = (self.clock.delay(delay), self.inbox.inbox());
            actix_rt::spawn(async move {
                tokio::time::sleep(delay).await;
                inbox.push(MemoryMessage::SyncOver);
            });
        }
        let acknowledged = memory.acknowledged();
        let failure = memory.failure().map(ToString::to_string);
        while self.waiting.front().is_some_and(|(group, _)| *group <= acknowledged) {
            if let Some((_, group)) = self.waiting.pop_front() {
                self.tell(group);
            }
        }
        if let Some(reason) = failure {
            self.fail(&reason);
        }
    }

    fn receive(&mut self, now: Timestamp, memory: &mut Memory, message: MemoryMessage) {
        match message {
            MemoryMessage::Submit { reply, .. } if memory.is_suspended() => {
                ignore_absent(reply.send(Err(SubmitError::Unavailable(SUSPENDED.to_owned()))));
            }
            MemoryMessage::Transact { reply, .. } if memory.is_suspended() => {
                ignore_absent(reply.send(Err(TransactError::Unavailable(SUSPENDED.to_owned()))));
            }
            MemoryMessage::Checkpoint { reply } => {
                checkpoint(memory, &self.surroundings, Some(reply));
            }
            MemoryMessage::Grant { task, token } => memory.grant(task, token),
            MemoryMessage::Record(event) => memory.record(now, event),
            MemoryMessage::Complete(completion) => {
                let owner = Owner::Task(completion.task);
                let work = completion.transaction.as_deref();
                match work.and_then(|work| memory.must_wait(now, owner, work)) {
                    Some(until) => self.park(now, until, MemoryMessage::Complete(completion)),
                    None => self.complete(now, memory, completion),
                }
            }
            MemoryMessage::Ended(report) => self.turn.ended.push(*report),
            MemoryMessage::Submit { graph, bindings, reply } => {
                let answer = self.submit(now, memory, graph, bindings);
                self.answer(answer, SubmitError::Unavailable, reply);
            }
            MemoryMessage::Transact { caller, parts, reply } => {
                match memory.must_wait(now, Owner::Caller(caller), &parts) {
                    Some(until) => {
                        let message = MemoryMessage::Transact { caller, parts, reply };
                        self.park(now, until, message);
                    }
                    None => self.transact(now, memory, caller, *parts, reply),
                }
            }
            MemoryMessage::Forget { run } => {
                if self.board.forget(run) {
                    self.write_names(|names| names.remove_run(run));
                }
            }
            MemoryMessage::Rollback { range, version, reply } => {
                let answer = memory.rollback(now, &range, version).map_err(|error| match error {
                    RollbackError::Commit(error) => TransactError::Commit(error),
                    error => TransactError::GivenUp(error),
                });
                self.answer(answer, TransactError::Unavailable, reply);
            }
            MemoryMessage::GiveUp { caller } => memory.give_up(Owner::Caller(caller)),
            MemoryMessage::LookAgain => self.parked.look_again(),
            MemoryMessage::Acknowledge { incident, note, reply } => {
                let answer = self.surroundings.incidents.acknowledge(now, incident, &note);
                let answer = answer.map(|event| memory.record(now, event));
                self.turn.replies.push(Box::new(move |durable| {
                    let answer = durable.map_err(|_| AcknowledgeError::Ended).and(answer);
                    ignore_absent(reply.send(answer));
                }));
            }
            MemoryMessage::Acknowledged => {}
            MemoryMessage::SyncOver => {
                self.is_syncing = false;
                memory.drive();
            }
            MemoryMessage::Pause { delay, done } => {
                let delay = self.clock.delay(delay);
                actix_rt::spawn(async move {
                    tokio::time::sleep(delay).await;
                    ignore_absent(done.send(()));
                });
            }
            MemoryMessage::Close { reply } => self.closing = Some(reply),
        }
    }

    fn transact(
        &mut self,
        now: Timestamp,
        memory: &mut Memory,
        caller: u64,
        parts: TransactionParts,
        reply: oneshot::Sender<Result<CommitVersion, TransactError>>,
    ) {
        let answer = memory.transact_as(now, Some(Owner::Caller(caller)), parts);
        if let Err(error) = &answer {
            self.escalate(now, memory, error, None, None);
        }
        self.answer(answer.map_err(TransactError::from), TransactError::Unavailable, reply);
    }

    fn submit(
        &mut self,
        now: Timestamp,
        memory: &mut Memory,
        graph: Arc<Graph>,
        bindings: Bindings,
    ) -> Result<RunId, SubmitError> {
        let name = graph.name.clone();
        match memory.submit(now, &name, Arc::clone(&graph), &bindings, self.seed) {
            Ok(Submitted::New(run)) => {
                self.write_names(|names| names.add_run(run, name, Arc::clone(&graph)));
                let input = Input::Submit { run, graph, bindings };
                self.turn.to_scheduler.push(SchedulerMessage::Tell(input));
                Ok(run)
            }
            Ok(Submitted::Existing(run)) => Ok(run),
            Err(error) => Err(SubmitError::Refused(error)),
        }
    }

    /// Sends an answer once it is durable, or says that it never will be.
    fn answer<T: Send + 'static, E: Send + 'static>(
        &mut self,
        answer: Result<T, E>,
        unavailable: impl FnOnce(String) -> E + Send + 'static,
        reply: oneshot::Sender<Result<T, E>>,
    ) {
        self.turn.replies.push(Box::new(move |durable| {
            let answer = durable.map_err(unavailable).and(answer);
            ignore_absent(reply.send(answer));
        }));
    }

    /// Puts a commit aside that has to wait for a reservation.
    fn park(&mut self, now: Timestamp, until: Timestamp, message: MemoryMessage) {
        if self.parked.push(message) {
            let delay = self.clock.delay(until.since(now));
            let inbox = self.inbox.inbox();
            actix_rt::spawn(async move {
                tokio::time::sleep(delay).await;
                inbox.push(MemoryMessage::LookAgain);
            });
        }
    }

    /// Looks again at the commits that wait, as long as some of them may go on.
    fn unpark(&mut self, now: Timestamp, memory: &mut Memory) {
        while let Some(waiting) = self.parked.take(memory.reservation_epoch()) {
            waiting.into_iter().for_each(|message| self.receive(now, memory, message));
        }
    }

    fn complete(&mut self, now: Timestamp, memory: &mut Memory, completion: Completion) {
        let (task, token) = (completion.task, completion.token);
        let output = completion.output.clone();
        let spawned = completion.spawned.clone();
        let (agent, attempt) = (completion.agent, completion.attempt);
        let incarnation = completion.incarnation;
        let subject = Subject::attempt(agent, task, attempt);
        if let Some((Fault::Refuse, number)) = self.surroundings.strike(Site::Commit, subject) {
            let message = format!("injected conflict {number}").into();
            let refusal = Refusal::Conflict { message, reserved: false };
            let input = Input::CommitRefused { task, token, refusal };
            return self.turn.to_scheduler.push(SchedulerMessage::Tell(input));
        }
        let record = attempt_of(&completion);
        let answer = match memory.complete(now, completion) {
            Ok(version) => {
                if let Some((graph, _)) = spawned.as_deref()
                    && !graph.tasks.is_empty()
                {
                    self.write_names(|names| {
                        let first = names.next_index(task.run);
                        names.add_spawned(task.run, task.index, first, Arc::clone(graph));
                    });
                }
                SchedulerMessage::Committed { task, token, version, output, spawned }
            }
            Err(error) => {
                self.escalate(now, memory, &error, Some((agent, incarnation)), Some(record));
                let refusal = self.refusal(error);
                SchedulerMessage::Tell(Input::CommitRefused { task, token, refusal })
            }
        };
        self.turn.to_scheduler.push(answer);
    }

    fn write_names(&self, change: impl FnOnce(&mut NameTable)) {
        change(&mut self.surroundings.names.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn tell(&mut self, mut group: Group) {
        if let Some(observer) = &mut self.observer {
            self.surroundings.named(|names| {
                group.records.iter().for_each(|record| observer(record, names));
            });
        }
        if let Some(faults) = &self.surroundings.faults {
            group.records.iter().for_each(|record| faults.told(record));
        }
        self.surroundings
            .stats
            .messages
            .fetch_add(group.to_scheduler.len() as u64, Ordering::Relaxed);
        self.surroundings.letters.apply(&group.records);
        self.events.publish(&mut group.records);
        if let Some(memory) = &mut self.memory {
            memory.give_back(recycled(group.records));
        }
        if let Some(snapshot) = group.snapshot {
            self.surroundings.acknowledged.publish(snapshot);
        }
        self.surroundings.scheduler.push_all(&mut group.to_scheduler);
        if self.turn.to_scheduler.is_empty() {
            self.turn.to_scheduler = recycled(group.to_scheduler);
        }
        for report in group.ended {
            self.board.end(report);
        }
        for reply in group.replies {
            reply(Ok(()));
        }
    }

    /// The store failed: nothing is acknowledged any more, and everybody who waits is told.
    fn fail(&mut self, reason: &str) {
        if !self.failed {
            self.failed = true;
            tracing::error!(reason, "the store failed; nothing is acknowledged any more");
            self.board.close(RunError::Failed(reason.to_owned()));
            self.surroundings.acknowledged.close();
        }
        for (_, group) in self.waiting.drain(..) {
            for reply in group.replies {
                reply(Err(reason.to_owned()));
            }
        }
    }
}

/// Also when it panics nothing is acknowledged any more, and nobody waits for it.
impl Drop for MemoryActor {
    fn drop(&mut self) {
        self.surroundings.acknowledged.close();
    }
}

/// Whoever asked may have stopped waiting; the answer is durable all the same.
fn ignore_absent<T>(sent: Result<(), T>) {
    if sent.is_err() {
        tracing::debug!("nobody waits for the answer any more");
    }
}

impl Actor for MemoryActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.inbox.attend::<Self>(context);
        if let Some(every) = self.checkpoint_every {
            context.run_interval(self.clock.delay(every), |actor, _| {
                if let Some(memory) = &mut actor.memory {
                    checkpoint(memory, &actor.surroundings, None);
                }
            });
        }
    }
}

impl Supervised for MemoryActor {}

impl Attend for MemoryActor {
    fn turn(&mut self, _: &mut Context<Self>) {
        let mut batch = std::mem::take(&mut self.batch);
        self.inbox.take(&mut batch);
        // Everything that one turn does happens at one time.
        let now = self.clock.now();
        // After the close there is no memory: requests are dropped, and who asked is told so.
        if let Some(mut memory) = self.memory.take() {
            self.is_in_trouble =
                report_troubles(now, &mut memory, &self.surroundings, self.is_in_trouble);
            for message in batch.drain(..) {
                self.receive(now, &mut memory, message);
            }
            self.unpark(now, &mut memory);
            self.memory = Some(memory);
            self.end_turn();
        }
        batch.clear();
        self.batch = recycled(batch);
        if let Some(reply) = self.closing.take() {
            ignore_absent(reply.send(self.close()));
        }
    }
}
