//! Houses one agent: a guarded actor whose work runs in a guarded future of its own.
//!
//! The behaviour moves into the future of the attempt and comes back with the outcome. When the
//! attempt panics or is revoked, the torn behaviour is dropped with the future and this life of the
//! agent ends; the host, its address and its mailbox stay for the next one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, Context, Handler, Supervised};
use futures_util::future::LocalBoxFuture;
use guild_core::event::Cause;
use guild_core::id::{AgentId, FencingToken, Incarnation, TaskId};
use guild_core::payload::Payload;
use guild_core::planner::{AttemptResult, Input};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::agent::{Behaviour, Factory, TaskError};
use crate::context::{Surroundings, TaskContext};
use crate::fault::{Fault, Site};
use crate::guard::{Guard, Verdict};
use crate::mailbox::Inbox;
use crate::message::{
    Assign, ChildDown, HandedIn, Retire, Revive, Revoke, SchedulerMessage, SupervisorMessage,
};
use crate::panics::{PanicReport, caught, drop_caught, poll_caught};

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

    fn hand_in(&mut self, work: HandedIn) {
        let (agent, incarnation, task, token) =
            (self.agent, self.incarnation, self.task, self.token);
        if let Some(scheduler) = self.scheduler.take() {
            let work = Box::new(work);
            scheduler.push(SchedulerMessage::HandIn { agent, incarnation, task, token, work });
        }
    }

    /// Hands in a copy; the lease goes on.
    fn repeat(&self, work: HandedIn) {
        let (agent, incarnation, task, token) =
            (self.agent, self.incarnation, self.task, self.token);
        if let Some(scheduler) = &self.scheduler {
            let work = Box::new(work);
            scheduler.push(SchedulerMessage::HandIn { agent, incarnation, task, token, work });
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
    behaviour: RefCell<Option<Box<dyn Behaviour>>>,
    running: Cell<Option<FencingToken>>,
    revoked: Cell<Option<Revoked>>,
    waker: RefCell<Option<Waker>>,
    /// Number of the fault that struck last, until its consequence is reported.
    fault: Cell<Option<u64>>,
    shared: Arc<HostShared>,
}

#[derive(Clone, Copy)]
struct Revoked {
    token: FencingToken,
    cause: Option<Cause>,
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

/// A life that ends because the scheduler took its task back.
const REVOKED: Struck = Struck { task: None, fault: None, revoked: true };

/// The actor that houses an agent.
pub(crate) struct AgentHost {
    slot: Rc<Slot>,
    /// The life to begin when the cell (re)starts.
    next: Rc<Cell<Option<Incarnation>>>,
}

impl AgentHost {
    /// Starts the host of an agent on the current arbiter, behind the address that receives.
    pub(crate) fn spawn(
        agent: AgentId,
        first: Incarnation,
        shared: Arc<HostShared>,
        context: Context<Self>,
    ) {
        let slot = Rc::new(Slot {
            agent,
            incarnation: Cell::new(None),
            behaviour: RefCell::new(None),
            running: Cell::new(None),
            revoked: Cell::new(None),
            waker: RefCell::new(None),
            fault: Cell::new(None),
            shared,
        });
        let next = Rc::new(Cell::new(Some(first)));
        let host = Self { slot: Rc::clone(&slot), next: Rc::clone(&next) };
        let on_crash = move |report| cell_crashed(&slot, &next, report);
        actix_rt::spawn(Guard::new(context.into_future(host), on_crash));
    }

    fn begin(&self, incarnation: Incarnation) {
        let slot = &self.slot;
        slot.incarnation.set(Some(incarnation));
        let struck = slot.shared.surroundings.strike(Site::Started, slot.agent, None);
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
                slot.end_life(Some(Cause::Panic), report, struck, None);
            }
        }
    }
}

/// The host's own actor panicked: its life ends, an attempt under way is dropped, and the cell is
/// parked until the supervisor gives it its next life.
fn cell_crashed(
    slot: &Rc<Slot>,
    next: &Rc<Cell<Option<Incarnation>>>,
    report: PanicReport,
) -> LocalBoxFuture<'static, Verdict> {
    if let Some(token) = slot.running.get() {
        slot.revoke(Revoked { token, cause: Some(Cause::AgentLost), tell: false });
    }
    let (resume, parked) = oneshot::channel();
    let struck = Struck { fault: slot.fault.take(), ..Struck::default() };
    slot.end_life(Some(Cause::AgentLost), report, struck, Some(resume));
    let next = Rc::clone(next);
    Box::pin(async move {
        match parked.await {
            Ok(incarnation) => {
                next.set(Some(incarnation));
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
        cause: Option<Cause>,
        report: PanicReport,
        struck: Struck,
        parked: Option<oneshot::Sender<Incarnation>>,
    ) {
        let Some(incarnation) = self.incarnation.take() else {
            return;
        };
        if let Some(behaviour) = self.behaviour.borrow_mut().take()
            && let Err(second) = drop_caught(behaviour)
        {
            tracing::warn!(message = %second.message, "agent panicked while it was dropped");
        }
        self.shared.supervisor.push(SupervisorMessage::ChildDown(Box::new(ChildDown {
            agent: self.agent,
            incarnation,
            cause,
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
        if let Some(incarnation) = self.next.take() {
            self.begin(incarnation);
        }
    }
}

impl Supervised for AgentHost {}

impl Handler<Revive> for AgentHost {
    type Result = ();

    fn handle(&mut self, message: Revive, _: &mut Context<Self>) {
        self.begin(message.incarnation);
    }
}

impl Handler<Retire> for AgentHost {
    type Result = ();

    fn handle(&mut self, _: Retire, context: &mut Context<Self>) {
        if let Some(token) = self.slot.running.get() {
            self.slot.revoke(Revoked { token, cause: None, tell: false });
        }
        context.stop();
    }
}

impl Handler<Revoke> for AgentHost {
    type Result = ();

    fn handle(&mut self, message: Revoke, _: &mut Context<Self>) {
        let (slot, Revoke { token, incarnation, cause }) = (&self.slot, message);
        if slot.running.get() == Some(token) {
            slot.revoke(Revoked { token, cause, tell: true });
        } else if slot.incarnation.get() == Some(incarnation) && slot.running.get().is_none() {
            // The scheduler has given up this life though its attempt is over: the result was lost
            // or crossed the revocation. It waits for the next life, so this one has to end.
            let fault = slot.fault.take();
            slot.end_life(cause, revocation(cause), Struck { fault, ..REVOKED }, None);
        }
    }
}

impl Handler<Assign> for AgentHost {
    type Result = ();

    fn handle(&mut self, assign: Assign, _: &mut Context<Self>) {
        let slot = &self.slot;
        let subject = Some((assign.lease.task, assign.lease.attempt));
        if let Some((Fault::Crash, number)) =
            slot.shared.surroundings.strike(Site::Receive, slot.agent, subject)
        {
            slot.fault.set(Some(number));
            panic!("injected crash {number}");
        }
        if slot.incarnation.get() != Some(assign.lease.incarnation) || slot.running.get().is_some()
        {
            // Dropping the lease hands the task back to the scheduler.
            return;
        }
        let Some(behaviour) = slot.behaviour.borrow_mut().take() else {
            return;
        };
        slot.running.set(Some(assign.lease.token));
        actix_rt::spawn(attempt(Rc::clone(slot), behaviour, assign));
    }
}

/// How the guarded future of an attempt ended.
enum End {
    Output(Payload),
    Error(TaskError),
    Panic(PanicReport),
    Revoked(Revoked),
}

async fn attempt(slot: Rc<Slot>, mut behaviour: Box<dyn Behaviour>, assign: Assign) {
    let Assign { mut lease, input, deadline } = assign;
    let mut context = TaskContext::new(
        Arc::clone(&slot.shared.surroundings),
        (lease.agent, lease.task, lease.attempt, lease.token),
        deadline,
    );
    slot.fault.set(None);
    let end = {
        let span = context.span();
        let work = perform(&mut *behaviour, input, &mut context, &slot).instrument(span);
        run_until_revoked(&slot, lease.token, work).await
    };
    slot.running.set(None);
    let task = Some((lease.task, lease.attempt));
    let struck = Struck { task, fault: slot.fault.take(), revoked: matches!(end, End::Revoked(_)) };
    match end {
        End::Output(output) => {
            match context.into_work(output) {
                Ok(work) => hand_in(&slot, lease, work),
                Err(error) => lease.finish(failed(&error)),
            }
            // What happens from here on is the consequence of a fault that is still under way.
            slot.fault.set(struck.fault);
            *slot.behaviour.borrow_mut() = Some(behaviour);
        }
        End::Error(error) if error.is_crash() => {
            let message: Box<str> = error.to_string().into();
            lease.settle();
            slot.drop_behaviour(behaviour);
            let report = PanicReport { message, location: None };
            slot.end_life(Some(error.cause()), report, struck, None);
        }
        End::Error(error) => {
            *slot.behaviour.borrow_mut() = Some(behaviour);
            lease.finish(failed(&error));
        }
        End::Panic(report) => {
            lease.settle();
            slot.drop_behaviour(behaviour);
            slot.end_life(Some(Cause::Panic), report, struck, None);
        }
        End::Revoked(revoked) => {
            lease.settle();
            slot.drop_behaviour(behaviour);
            if revoked.tell {
                slot.end_life(revoked.cause, revocation(revoked.cause), struck, None);
            }
        }
    }
}

/// What a revoked life tells its supervisor.
fn revocation(cause: Option<Cause>) -> PanicReport {
    let message = match cause {
        Some(Cause::Heartbeat) => "no heartbeat in time",
        Some(_) => "the attempt took longer than its timeout",
        None => "the attempt was cancelled",
    };
    PanicReport { message: message.into(), location: None }
}

fn failed(error: &TaskError) -> AttemptResult {
    AttemptResult::Failed {
        cause: error.cause(),
        message: error.to_string().into(),
        retryable: error.is_retryable(),
        retry_after: error.retry_after(),
    }
}

impl Slot {
    fn drop_behaviour(&self, behaviour: Box<dyn Behaviour>) {
        let struck = self.shared.surroundings.strike(Site::Dropped, self.agent, None);
        let dropped = caught(move || {
            drop(behaviour);
            if let Some((Fault::Crash, number)) = struck {
                panic!("injected crash {number}");
            }
        });
        if let Err(report) = dropped {
            tracing::warn!(agent = self.agent.index, message = %report.message, "agent panicked while it was dropped");
        }
    }
}

/// The agent's work, with the faults that chaos wants.
async fn perform(
    behaviour: &mut dyn Behaviour,
    input: Payload,
    context: &mut TaskContext,
    slot: &Slot,
) -> Result<Payload, TaskError> {
    let bomb = strike(Site::BeforePerform, context, slot).await?;
    let output = match bomb {
        None => behaviour.perform(input, context).await?,
        Some((delay, number)) => {
            let delay = slot.shared.surroundings.clock.delay(delay);
            let work = behaviour.perform(input, context);
            match tokio::time::timeout(delay, work).await {
                Ok(output) => output?,
                Err(_) => panic!("injected crash {number}"),
            }
        }
    };
    strike(Site::AfterPerform, context, slot).await?;
    Ok(output)
}

/// Carries out the fault that strikes an attempt here; returns a crash that strikes it later.
async fn strike(
    site: Site,
    context: &TaskContext,
    slot: &Slot,
) -> Result<Option<(Duration, u64)>, TaskError> {
    let surroundings = context.surroundings();
    let subject = Some((context.task_id(), context.attempt()));
    let Some((fault, number)) = surroundings.strike(site, slot.agent, subject) else {
        return Ok(None);
    };
    slot.fault.set(Some(number));
    match fault {
        Fault::Crash => panic!("injected crash {number}"),
        Fault::CrashAfter(delay) => return Ok(Some((delay, number))),
        Fault::Exit => return Err(TaskError::gone(format_args!("injected exit {number}"))),
        Fault::Hang => std::future::pending().await,
        Fault::Slow(delay) => tokio::time::sleep(surroundings.clock.delay(delay)).await,
        Fault::Stall(delay) => {
            if let Some(faults) = &surroundings.faults {
                faults.stall(surroundings.clock.delay(delay)).await;
            }
        }
        Fault::Lose | Fault::Repeat | Fault::Delay(_) | Fault::Refuse | Fault::Garble => {
            tracing::debug!(site = site.name(), "fault strikes where it can do nothing");
        }
    }
    Ok(None)
}

/// Sends the result of an attempt on its way, through what chaos does to messages.
fn hand_in(slot: &Slot, mut lease: Lease, mut work: HandedIn) {
    let surroundings = &slot.shared.surroundings;
    let of = (lease.task, lease.attempt);
    let mut latency = surroundings.latency(Site::HandIn, slot.agent, of);
    match surroundings.strike(Site::HandIn, slot.agent, Some(of)).map(|(fault, _)| fault) {
        Some(Fault::Lose) => return lease.settle(),
        Some(Fault::Repeat) => lease.repeat(work.clone()),
        Some(Fault::Garble) => work.output = Payload::encode("garbled").unwrap_or(Payload::NULL),
        Some(Fault::Delay(delay)) => latency = delay,
        Some(_) | None => {}
    }
    if latency.is_zero() {
        return lease.hand_in(work);
    }
    let latency = surroundings.clock.delay(latency);
    actix_rt::spawn(async move {
        tokio::time::sleep(latency).await;
        lease.hand_in(work);
    });
}

/// Polls the work under a catch until it ends or its lease is revoked; drops it under a catch too.
async fn run_until_revoked(
    slot: &Slot,
    token: FencingToken,
    work: impl Future<Output = Result<Payload, TaskError>>,
) -> End {
    let mut work = std::pin::pin!(Some(work));
    let end = poll_fn(|cx| {
        if let Some(revoked) = slot.revoked.take()
            && revoked.token == token
        {
            return Poll::Ready(End::Revoked(revoked));
        }
        let Some(running) = work.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        match poll_caught(running, cx) {
            Poll::Ready(Ok(Ok(output))) => Poll::Ready(End::Output(output)),
            Poll::Ready(Ok(Err(error))) => Poll::Ready(End::Error(error)),
            Poll::Ready(Err(report)) => Poll::Ready(End::Panic(report)),
            Poll::Pending => {
                let mut waker = slot.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    })
    .await;
    if let Err(report) = caught(|| work.set(None)) {
        tracing::warn!(message = %report.message, "an attempt panicked while it was dropped");
    }
    end
}

/// Where an agent's host is reached.
pub(crate) type HostAddr = Addr<AgentHost>;

/// Returns the address and the context of a host that is spawned elsewhere.
pub(crate) fn host_channel() -> (HostAddr, actix::dev::channel::AddressReceiver<AgentHost>) {
    let (sender, receiver) = actix::dev::channel::channel(MAILBOX_CAPACITY);
    (Addr::new(sender), receiver)
}

/// Messages that wait for one host at most: one assignment, one revocation, and orders of its
/// supervisor. Beyond: `try_send` answers full and the task stays ready.
const MAILBOX_CAPACITY: usize = 8;
