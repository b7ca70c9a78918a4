//! Houses one agent: a guarded actor whose work runs in a guarded future of its own.
//!
//! The behaviour moves into the future of the attempt and comes back with the outcome. When the
//! attempt panics or is revoked, the torn behaviour is dropped with the future and this life of the
//! agent ends; the host, its address and its mailbox stay for the next one.

mod attempt;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use actix::prelude::SendError;
use actix::{Actor, ActorContext, Addr, Context, Handler, Message, Supervised};
use futures_util::future::LocalBoxFuture;
use guild_core::event::Cause;
use guild_core::id::{AgentId, FencingToken, Incarnation, TaskId};
use guild_core::planner::{AttemptResult, Input};
use tokio::sync::oneshot;

use crate::agent::{Behaviour, Factory};
use crate::context::{Subject, Surroundings};
use crate::fault::{Fault, Site};
use crate::guard::{Guard, Verdict};
use crate::mailbox::Inbox;
use crate::message::{
    Assign, Blow, ChildDown, Ended, HandedIn, Retire, Revive, Revoke, SchedulerMessage, Stop,
    SupervisorMessage,
};
use crate::panics::{PanicReport, caught};

/// What all hosts of a role share.
pub(crate) struct HostShared {
    pub(crate) factory: Factory,
    pub(crate) supervisor: Inbox<SupervisorMessage>,
    pub(crate) surroundings: Arc<Surroundings>,
}

/// A lease on a task; it accounts for the task wherever it is dropped.
///
/// Dropped before the attempt began it hands the task back, and no attempt is consumed.
pub(crate) struct Lease {
    pub(crate) agent: AgentId,
    pub(crate) incarnation: Incarnation,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) token: FencingToken,
    scheduler: Option<Inbox<SchedulerMessage>>,
}

impl Lease {
    /// Returns a lease that reports to this scheduler.
    pub(crate) fn new(
        agent: AgentId,
        incarnation: Incarnation,
        task: TaskId,
        attempt: u32,
        token: FencingToken,
        scheduler: Inbox<SchedulerMessage>,
    ) -> Self {
        Self { agent, incarnation, task, attempt, token, scheduler: Some(scheduler) }
    }

    /// Returns a lease on the same attempt that reports nothing: that of a message that arrives
    /// twice.
    pub(crate) fn copy(&self) -> Self {
        let Self { agent, incarnation, task, attempt, token, .. } = *self;
        Self { agent, incarnation, task, attempt, token, scheduler: None }
    }

    /// Returns what hands in the work of this lease.
    fn result(&self, work: HandedIn) -> SchedulerMessage {
        let Self { agent, incarnation, task, token, .. } = *self;
        SchedulerMessage::HandIn { agent, incarnation, task, token, work: Box::new(work) }
    }

    /// Hands in a copy; the lease goes on.
    fn repeat(&self, work: HandedIn) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.push(self.result(work));
        }
    }

    /// Ends the lease with this message.
    fn end_with(&mut self, message: SchedulerMessage) {
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.push(message);
        }
    }

    /// Gives back a lease whose agent had no room for it; the agent is not to blame.
    pub(crate) fn refuse(mut self) {
        self.finish(AttemptResult::Failed {
            cause: Cause::AgentLost,
            message: "the mailbox of the agent was full".into(),
            retryable: true,
            retry_after: None,
        });
    }

    fn finish(&mut self, result: AttemptResult) {
        let (agent, incarnation, task, token) =
            (self.agent, self.incarnation, self.task, self.token);
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.push(SchedulerMessage::Tell(Input::Finished {
                agent,
                incarnation,
                task,
                token,
                result,
            }));
        }
    }

    /// Ends a lease that was never handed out; nothing is reported.
    pub(crate) fn void(mut self) {
        self.settle();
    }

    /// The scheduler knows already; nothing is reported.
    fn settle(&mut self) {
        self.scheduler = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.finish(AttemptResult::NotStarted);
    }
}

/// What the host and the future of its attempt share; both live on one arbiter.
struct Slot {
    agent: AgentId,
    incarnation: Cell<Option<Incarnation>>,
    /// The newest life that has begun; none begins twice.
    newest: Cell<Option<Incarnation>>,
    /// Whether the supervisor waits for the first piece of work that is done.
    probing: Cell<bool>,
    behaviour: RefCell<Option<Box<dyn Behaviour>>>,
    running: Cell<Option<FencingToken>>,
    /// The newest token that was taken; an assignment with the same one is a copy.
    taken: Cell<FencingToken>,
    revoked: Cell<Option<Revoked>>,
    waker: RefCell<Option<Waker>>,
    /// Number of the fault that struck last, until its consequence is reported.
    fault: Cell<Option<u64>>,
    shared: Arc<HostShared>,
}

#[derive(Clone, Copy)]
struct Revoked {
    token: FencingToken,
    ended: Ended,
    /// Whether the supervisor hears of it (not when the cell itself has reported already).
    tell: bool,
}

/// What an agent was doing when its life ended.
#[derive(Clone, Copy, Default)]
struct Struck {
    task: Option<(TaskId, u32)>,
    fault: Option<u64>,
    /// Whether the scheduler took the task back and so knows of it.
    revoked: bool,
}

/// The actor that houses an agent.
pub(crate) struct AgentHost {
    slot: Rc<Slot>,
    /// The life to begin when the cell (re)starts.
    next: Rc<Cell<Option<Revive>>>,
}

impl AgentHost {
    /// Starts the host of an agent on the current arbiter, behind the address that receives. It
    /// begins its first life at once, or waits to be told.
    pub(crate) fn spawn(
        agent: AgentId,
        first: Option<Incarnation>,
        shared: Arc<HostShared>,
        context: Context<Self>,
    ) {
        let slot = Rc::new(Slot {
            agent,
            incarnation: Cell::new(None),
            newest: Cell::new(None),
            probing: Cell::new(false),
            behaviour: RefCell::new(None),
            running: Cell::new(None),
            taken: Cell::new(FencingToken(0)),
            revoked: Cell::new(None),
            waker: RefCell::new(None),
            fault: Cell::new(None),
            shared,
        });
        let first = first.map(|incarnation| Revive { incarnation, probe: false });
        let next = Rc::new(Cell::new(first));
        let host = Self { slot: Rc::clone(&slot), next: Rc::clone(&next) };
        let on_crash = move |report| cell_crashed(&slot, &next, report);
        actix_rt::spawn(Guard::new(context.into_future(host), on_crash));
    }

    fn begin(&self, Revive { incarnation, probe }: Revive) {
        let slot = &self.slot;
        if slot.newest.get() >= Some(incarnation) {
            return;
        }
        slot.newest.set(Some(incarnation));
        slot.incarnation.set(Some(incarnation));
        slot.probing.set(probe);
        let struck = slot.shared.surroundings.strike(Site::Started, Subject::agent(slot.agent));
        let fault = struck.map(|(_, number)| number);
        let make = || match struck {
            Some((Fault::Crash, number)) => panic!("injected crash {number}"),
            Some(_) | None => slot.shared.factory.make(),
        };
        match caught(make) {
            Ok(behaviour) => {
                *slot.behaviour.borrow_mut() = Some(behaviour);
                // The supervisor records it and then tells the scheduler, so that the log shows an
                // agent's start before its first task.
                let agent = slot.agent;
                slot.shared.supervisor.push(SupervisorMessage::ChildUp { agent, incarnation });
            }
            Err(report) => {
                let struck = Struck { fault, ..Struck::default() };
                slot.end_life(Ended::Failed(Cause::Panic), report, struck, None);
            }
        }
    }
}

/// The host's own actor panicked: its life ends, an attempt under way is dropped, and the cell is
/// parked until the supervisor gives it its next life.
fn cell_crashed(
    slot: &Rc<Slot>,
    next: &Rc<Cell<Option<Revive>>>,
    report: PanicReport,
) -> LocalBoxFuture<'static, Verdict> {
    let ended = Ended::Failed(Cause::AgentLost);
    if let Some(token) = slot.running.get() {
        slot.revoke(Revoked { token, ended, tell: false });
    }
    let (resume, parked) = oneshot::channel();
    let struck = Struck { fault: slot.fault.take(), ..Struck::default() };
    slot.end_life(ended, report, struck, Some(resume));
    let next = Rc::clone(next);
    Box::pin(async move {
        match parked.await {
            Ok(revive) => {
                next.set(Some(revive));
                Verdict::Restart
            }
            Err(_) => Verdict::Stop,
        }
    })
}

impl Slot {
    fn revoke(&self, revoked: Revoked) {
        if self.running.get() == Some(revoked.token) {
            self.revoked.set(Some(revoked));
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn end_life(
        &self,
        ended: Ended,
        report: PanicReport,
        struck: Struck,
        parked: Option<oneshot::Sender<Revive>>,
    ) {
        let Some(incarnation) = self.incarnation.get() else {
            return;
        };
        let behaviour = self.behaviour.borrow_mut().take();
        if let Some(behaviour) = behaviour {
            self.drop_behaviour(behaviour, struck.task);
        }
        self.incarnation.set(None);
        self.shared.supervisor.push(SupervisorMessage::ChildDown(Box::new(ChildDown {
            agent: self.agent,
            incarnation,
            ended,
            message: report.message,
            location: report.location,
            task: struck.task,
            fault: struck.fault,
            unknown_to_scheduler: !struck.revoked,
            parked,
        })));
    }
}

impl Actor for AgentHost {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        if let Some(revive) = self.next.take() {
            self.begin(revive);
        }
    }
}

impl Supervised for AgentHost {}

impl Handler<Revive> for AgentHost {
    type Result = ();

    fn handle(&mut self, message: Revive, _: &mut Context<Self>) {
        self.begin(message);
    }
}

impl Handler<Stop> for AgentHost {
    type Result = ();

    fn handle(&mut self, message: Stop, _: &mut Context<Self>) {
        let slot = &self.slot;
        if slot.incarnation.get() != Some(message.incarnation) {
            // This life is over, and the supervisor hears of it.
            return;
        }
        let ended = Ended::Stopped;
        match slot.running.get() {
            Some(token) => slot.revoke(Revoked { token, ended, tell: true }),
            None => slot.end_life(ended, attempt::revocation(ended), Struck::default(), None),
        }
    }
}

impl Handler<Retire> for AgentHost {
    type Result = ();

    fn handle(&mut self, _: Retire, context: &mut Context<Self>) {
        if let Some(token) = self.slot.running.get() {
            self.slot.revoke(Revoked { token, ended: Ended::Stopped, tell: false });
        }
        context.stop();
    }
}

impl Handler<Revoke> for AgentHost {
    type Result = ();

    fn handle(&mut self, message: Revoke, _: &mut Context<Self>) {
        let (slot, Revoke { task, attempt, token, incarnation, cause, fault }) =
            (&self.slot, message);
        let ended = cause.map_or(Ended::Cancelled, Ended::Failed);
        if slot.running.get() == Some(token) {
            slot.fault.set(slot.fault.get().or(fault));
            slot.revoke(Revoked { token, ended, tell: true });
        } else if slot.incarnation.get() == Some(incarnation) && slot.running.get().is_none() {
            // The scheduler has given up this life though its attempt is over or never came: the
            // message was lost or crossed the revocation. It waits for the next life, so this one
            // has to end.
            let fault = slot.fault.take().or(fault);
            let struck = Struck { task: Some((task, attempt)), fault, revoked: true };
            slot.end_life(ended, attempt::revocation(ended), struck, None);
        }
    }
}

impl Handler<Blow> for AgentHost {
    type Result = ();

    fn handle(&mut self, blow: Blow, _: &mut Context<Self>) {
        self.slot.fault.set(Some(blow.fault));
        panic!("injected crash {}", blow.fault);
    }
}

impl Handler<Assign> for AgentHost {
    type Result = ();

    fn handle(&mut self, mut assign: Assign, _: &mut Context<Self>) {
        let slot = &self.slot;
        if assign.lease.token <= slot.taken.get() {
            // A copy of what was taken already, or older: whoever sent it has the answer.
            return assign.lease.settle();
        }
        if slot.incarnation.get() != Some(assign.lease.incarnation) || slot.running.get().is_some()
        {
            // Dropping the lease hands the task back to the scheduler.
            return;
        }
        let Some(behaviour) = slot.behaviour.borrow_mut().take() else {
            return;
        };
        slot.taken.set(assign.lease.token);
        slot.running.set(Some(assign.lease.token));
        actix_rt::spawn(attempt::perform(Rc::clone(slot), behaviour, assign));
    }
}

/// Where an agent's host is reached.
pub(crate) type HostAddr = Addr<AgentHost>;

/// Returns the address and the context of a host that is spawned elsewhere; beyond so many
/// messages that wait, `try_send` answers full.
pub(crate) fn host_channel(
    capacity: usize,
) -> (HostAddr, actix::dev::channel::AddressReceiver<AgentHost>) {
    let (sender, receiver) = actix::dev::channel::channel(capacity.max(1));
    (Addr::new(sender), receiver)
}

/// Sends an order that must not be lost: to a host whose mailbox is full it goes when there is room.
/// Returns whether the host lives.
pub(crate) fn order<M>(host: &HostAddr, message: M) -> bool
where
    M: Message<Result = ()> + Send + 'static,
    AgentHost: Handler<M>,
{
    match host.try_send(message) {
        Ok(()) => true,
        Err(SendError::Closed(_)) => false,
        Err(SendError::Full(message)) => {
            let room = host.send(message);
            actix_rt::spawn(async move {
                if room.await.is_err() {
                    tracing::debug!("a host ended before it read its mailbox");
                }
            });
            true
        }
    }
}
