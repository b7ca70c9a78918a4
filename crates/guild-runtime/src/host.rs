//! Houses one agent: a guarded actor whose work runs in a guarded future of its own.
//!
//! The behaviour moves into the future of the attempt and comes back with the outcome. When the
//! attempt panics or is revoked, the torn behaviour is dropped with the future and this life of the
//! agent ends; the host, its address and its mailbox stay for the next one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Poller, Waker};

use actix::dev::channel::AddressReceiver;
use actix::prelude::SendError;
use actix::{Actor, ActorContext, Addr, Handler, Message};
use futures_util::future::LocalBoxFuture;
use guild_core::event::Cause;
use guild_core::id::{AgentId, Incarnation, RoleId};
use tokio::sync::oneshot;

mod attempt;
mod cell;
mod household;
mod slot;

use cell::{HostCell, HostContext};
use household::Household;
use slot::{Interruption, Revoked, Revoker, Struck};
pub(crate) use slot::{Running, Slot};

use crate::agent::{Behaviour, Factory};
use crate::context::{Subject, Surroundings};
use crate::failure::Failure;
use crate::fault::{Fault, Site};
use crate::guard::{Guard, Verdict};
use crate::life::Life;
use crate::message::{Assign, Blow, Ended, Retire, Revive, Revoke, Stop, SupervisorMessage};
use crate::panics::{PanicReport, caught};

/// What all hosts of a role share.
pub(crate) struct HostShared {
    pub(crate) factory: Factory,
    pub(crate) surroundings: Arc<Surroundings>,
}

/// The actor that houses an agent.
pub(crate) struct AgentHost {
    slot: Rc<Slot>,
}

impl AgentHost {
    /// Starts the host of an agent on the current arbiter, behind the address that receives. It
    /// begins its first life at once, or waits to be told.
    pub(crate) fn spawn(
        agent: AgentId,
        first: Option<Incarnation>,
        shared: Arc<HostShared>,
        receiver: AddressReceiver<Self>,
    ) {
        let first = first.map(|incarnation| Revive { incarnation, probe: false });
        let slot = Slot::new(agent, first, shared);
        let (host, at_home) = (Self { slot: Rc::clone(&slot) }, Rc::clone(&slot));
        let on_crash = move |report| cell_crashed(&slot, report);
        let guard = Guard::of_agent(agent, HostCell::new(host, receiver), on_crash);
        actix_rt::spawn(Household::new(guard, at_home));
    }

    fn begin(&self, revive: Revive) {
        let (slot, incarnation) = (&self.slot, revive.incarnation);
        if !slot.begin(revive) {
            return;
        }
        let struck = slot.shared.surroundings.strike(Site::Started, Subject::agent(slot.agent));
        let fault = struck.map(|(_, number)| number);
        let life = Life::new(Rc::downgrade(slot), slot.agent, incarnation);
        let make = || match struck {
            Some((Fault::Crash, number)) => panic!("injected crash {number}"),
            Some(_) | None => slot.shared.factory.make(life),
        };
        match caught(make) {
            Ok(behaviour) => {
                slot.behaviour.set(Some(behaviour));
                // The supervisor records it and then tells the scheduler, so that the log shows an
                // agent's start before its first task.
                let agent = slot.agent;
                slot.shared
                    .surroundings
                    .supervisor
                    .push(SupervisorMessage::ChildUp { agent, incarnation });
            }
            Err(report) => {
                let struck = Struck { fault, ..Struck::default() };
                let ended = Ended::Failed(Failure::panicked(Cause::Panic, report));
                slot.end_life(incarnation, ended, struck, None);
            }
        }
    }
}

/// The host's own actor panicked: its life ends, an attempt under way is dropped, and the cell is
/// parked until the supervisor gives it its next life.
fn cell_crashed(slot: &Rc<Slot>, report: PanicReport) -> LocalBoxFuture<'static, Verdict> {
    let (resume, parked) = oneshot::channel();
    if !slot.crash(report, resume) {
        // Its mailbox goes on; in there comes its next life, when its supervisor has decided so.
        return Box::pin(std::future::ready(Verdict::Restart));
    }
    let slot = Rc::clone(slot);
    Box::pin(async move {
        match parked.await {
            Ok(revive) => {
                slot.next.set(Some(revive));
                Verdict::Restart
            }
            Err(_) => Verdict::Stop,
        }
    })
}

impl Actor for AgentHost {
    type Context = HostContext;

    fn started(&mut self, _: &mut HostContext) {
        if let Some(revive) = self.slot.next.take() {
            self.begin(revive);
        }
    }
}

impl Handler<Revive> for AgentHost {
    type Result = ();

    fn handle(&mut self, message: Revive, _: &mut HostContext) {
        self.begin(message);
    }
}

impl Handler<Stop> for AgentHost {
    type Result = ();

    fn handle(&mut self, Stop { incarnation }: Stop, _: &mut HostContext) {
        let slot = &self.slot;
        if slot.incarnation() != Some(incarnation) {
            // This life is over, and the supervisor hears of it.
            return;
        }
        if let Some(Running { token, .. }) = slot.running.get() {
            let revoked = Revoked { token, cause: None, by: Revoker::Supervisor };
            slot.interrupt(Interruption::Revoked(revoked));
        } else {
            let behaviour = slot.behaviour.take();
            match behaviour {
                Some(behaviour) => end_idle(Rc::clone(slot), incarnation, behaviour),
                None => slot.end_life(incarnation, Ended::Stopped, Struck::default(), None),
            }
        }
    }
}

/// Lets an agent without a task end in good order; most need no time for it, and no task.
fn end_idle(slot: Rc<Slot>, incarnation: Incarnation, behaviour: Box<dyn Behaviour>) {
    slot.end();
    let mut end: LocalBoxFuture<'static, ()> = Box::pin(async move {
        let ended = match slot.end_behaviour(incarnation, behaviour, None).await {
            None => Ended::Stopped,
            Some(error) => Ended::Failed(Failure::erred(Cause::AgentLost, &error)),
        };
        slot.tell_end(incarnation, ended, Struck::default(), None);
    });
    if end.as_mut().poll(&mut Poller::from_waker(Waker::noop())).is_pending() {
        actix_rt::spawn(end);
    }
}

impl Handler<Retire> for AgentHost {
    type Result = ();

    fn handle(&mut self, _: Retire, context: &mut HostContext) {
        // Only an agent that did not stop in time still has one.
        if let Some(Running { token, .. }) = self.slot.running.get() {
            let revoked = Revoked { token, cause: None, by: Revoker::Host };
            self.slot.interrupt(Interruption::Revoked(revoked));
        }
        context.stop();
    }
}

impl Handler<Revoke> for AgentHost {
    type Result = ();

    fn handle(&mut self, message: Revoke, _: &mut HostContext) {
        let (slot, Revoke { task, attempt, token, incarnation, cause, fault }) =
            (&self.slot, message);
        if slot.runs(token) {
            slot.fault.set(slot.fault.get().or(fault));
            let revoked = Revoked { token, cause, by: Revoker::Scheduler };
            slot.interrupt(Interruption::Revoked(revoked));
        } else if slot.running.get().is_none() {
            // The scheduler has given up this life though its attempt is over or never came: the
            // message was lost or crossed the revocation. It waits for the next life, so this one
            // has to end.
            let fault = slot.fault.take().or(fault);
            let attempt = Some(Running { token, task, number: attempt }.attempt());
            let struck = Struck { attempt, fault, revoked: true };
            slot.end_life(incarnation, revoked(cause), struck, None);
        }
    }
}

/// Returns how a life ends whose lease the scheduler took back.
fn revoked(cause: Option<Cause>) -> Ended {
    cause.map_or(Ended::Cancelled, |cause| Ended::Failed(Failure::revoked(cause)))
}

impl Handler<Blow> for AgentHost {
    type Result = ();

    fn handle(&mut self, blow: Blow, _: &mut HostContext) {
        self.slot.fault.set(Some(blow.fault));
        panic!("injected crash {}", blow.fault);
    }
}

impl Handler<Assign> for AgentHost {
    type Result = ();

    fn handle(&mut self, mut assign: Assign, _: &mut HostContext) {
        let slot = &self.slot;
        if assign.lease.token <= slot.taken.get() {
            // A copy of what was taken already, or older: whoever sent it has the answer.
            return assign.lease.settle();
        }
        if slot.incarnation() != Some(assign.lease.incarnation) || slot.running.get().is_some() {
            // Dropping the lease hands the task back to the scheduler.
            return;
        }
        let Some(behaviour) = slot.behaviour.take() else {
            return;
        };
        slot.taken.set(assign.lease.token);
        slot.running.set(Some(Running::of(&assign.lease)));
        slot.begun.set(Some(Box::pin(attempt::perform(Rc::clone(slot), behaviour, assign))));
    }
}

/// Where an agent's host is reached.
pub(crate) type HostAddr = Addr<AgentHost>;

/// Where the hosts of all agents are reached; every clone is the same list. Only actors of the control
/// thread have it, and only the supervisor changes it, when an agent moves to another thread.
#[derive(Clone, Default)]
pub(crate) struct Hosts(Rc<RefCell<Vec<Vec<HostAddr>>>>);

impl Hosts {
    /// Returns a list for this many roles without agents.
    pub(crate) fn of_roles(roles: usize) -> Self {
        Self(Rc::new(RefCell::new((0..roles).map(|_| Vec::new()).collect())))
    }

    /// Makes room for so many agents of a role, as there may be very many.
    pub(crate) fn reserve(&self, role: RoleId, agents: u32) {
        if let Some(hosts) = self.0.borrow_mut().get_mut(usize::from(role.0)) {
            hosts.reserve_exact(agents as usize);
        }
    }

    /// Adds the next agent of a role.
    pub(crate) fn add(&self, role: RoleId, host: HostAddr) {
        if let Some(hosts) = self.0.borrow_mut().get_mut(usize::from(role.0)) {
            hosts.push(host);
        }
    }

    /// Does something with the host of an agent; its address is not cheap to clone.
    pub(crate) fn with<R>(&self, agent: AgentId, work: impl FnOnce(&HostAddr) -> R) -> Option<R> {
        let hosts = self.0.borrow();
        hosts.get(usize::from(agent.role.0))?.get(agent.index as usize).map(work)
    }

    /// Gives an agent another host; returns the one that it leaves.
    pub(crate) fn set(&self, agent: AgentId, host: HostAddr) -> Option<HostAddr> {
        let mut hosts = self.0.borrow_mut();
        let known = hosts.get_mut(usize::from(agent.role.0))?.get_mut(agent.index as usize)?;
        Some(std::mem::replace(known, host))
    }

    /// Returns all hosts.
    pub(crate) fn all(&self) -> Vec<HostAddr> {
        self.0.borrow().iter().flatten().cloned().collect()
    }
}

/// Returns the address and the context of a host that is spawned elsewhere; beyond so many
/// messages that wait, `try_send` answers full.
pub(crate) fn host_channel(capacity: usize) -> (HostAddr, AddressReceiver<AgentHost>) {
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
