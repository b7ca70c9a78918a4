//! Houses one agent: a guarded actor whose work runs in a guarded future of its own.
//!
//! The behaviour moves into the future of the attempt and comes back with the outcome. When the
//! attempt panics or is revoked, the torn behaviour is dropped with the future and this life of the
//! agent ends; the host, its address and its mailbox stay for the next one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, Waker};

use futures_util::future::LocalBoxFuture;
use guild_core::event::Cause;
use guild_core::id::{AgentId, FencingToken, Incarnation, RoleId};
use tokio::sync::oneshot;

mod attempt;
mod household;
mod mailbox;
mod slot;

use household::Household;
pub(crate) use mailbox::{HostAddr, HostInbox, Undelivered, host_mailbox};
use slot::{Interruption, Revoked, Revoker, Struck};
pub(crate) use slot::{Running, Slot};

use crate::agent::{Behaviour, Factory};
use crate::context::{Subject, Surroundings};
use crate::failure::Failure;
use crate::fault::{Fault, Site};
use crate::guard::{Cell, Guard, Verdict};
use crate::life::Life;
use crate::message::{Assign, Ended, HostMessage, Revive, Revoke, SupervisorMessage};
use crate::panics::{PanicReport, caught};

/// What all hosts of a role share.
pub(crate) struct HostShared {
    pub(crate) factory: Factory,
    pub(crate) surroundings: Arc<Surroundings>,
}

/// The actor that houses an agent.
pub(crate) struct AgentHost {
    slot: Rc<Slot>,
    inbox: HostInbox,
    /// The life to begin at the next poll.
    next: Option<Revive>,
    /// The newest token that was taken; an assignment with the same one is a copy.
    taken: FencingToken,
    /// An attempt that has been taken on, until its household polls it.
    begun: Option<LocalBoxFuture<'static, ()>>,
}

impl AgentHost {
    /// Starts the host of an agent on the current arbiter, behind the address that receives. It
    /// begins its first life at once, or waits to be told.
    pub(crate) fn spawn(
        agent: AgentId,
        first: Option<Incarnation>,
        shared: Arc<HostShared>,
        inbox: HostInbox,
    ) {
        let next = first.map(|incarnation| Revive { incarnation, probe: false });
        let slot = Slot::new(agent, shared);
        let (taken, begun) = (FencingToken(0), None);
        let host = Self { slot: Rc::clone(&slot), inbox, next, taken, begun };
        let on_crash = move |report| cell_crashed(&slot, report);
        actix_rt::spawn(Household::new(Guard::of_agent(agent, host, on_crash)));
    }

    fn take_begun(&mut self) -> Option<LocalBoxFuture<'static, ()>> {
        self.begun.take()
    }

    /// Handles a message; returns whether the host goes on.
    fn handle(&mut self, message: HostMessage) -> bool {
        match message {
            HostMessage::Assign(assign) => self.assign(assign),
            HostMessage::Revoke(revoke) => self.revoke(revoke),
            HostMessage::Revive(revive) => self.begin(revive),
            HostMessage::Stop { incarnation } => self.stop(incarnation),
            HostMessage::Retire => {
                // Only an agent that did not stop in time still has one.
                if let Some(Running { token, .. }) = self.slot.running() {
                    let revoked = Revoked { token, cause: None, by: Revoker::Host };
                    self.slot.interrupt(Interruption::Revoked(revoked));
                }
                return false;
            }
            HostMessage::Blow { fault } => {
                self.slot.strike(fault);
                panic!("injected crash {fault}");
            }
        }
        true
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

    /// Ends a life, and what it performs.
    fn stop(&self, incarnation: Incarnation) {
        let slot = &self.slot;
        if slot.incarnation() != Some(incarnation) {
            // This life is over, and the supervisor hears of it.
            return;
        }
        if let Some(Running { token, .. }) = slot.running() {
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

    /// Drops a task that is taken back, and ends the life that performs it.
    fn revoke(&self, revoke: Revoke) {
        let Revoke { task, attempt, token, incarnation, cause, fault } = revoke;
        let slot = &self.slot;
        if slot.runs(token) {
            if let Some(fault) = slot.take_fault().or(fault) {
                slot.strike(fault);
            }
            let revoked = Revoked { token, cause, by: Revoker::Scheduler };
            slot.interrupt(Interruption::Revoked(revoked));
        } else if slot.running().is_none() {
            // The scheduler has given up this life though its attempt is over or never came: the
            // message was lost or crossed the revocation. It waits for the next life, so this one
            // has to end.
            let fault = slot.take_fault().or(fault);
            let attempt = Some(Running { token, task, number: attempt }.attempt());
            let struck = Struck { attempt, fault, revoked: true };
            slot.end_life(incarnation, revoked(cause), struck, None);
        }
    }

    /// Takes a task on.
    fn assign(&mut self, mut assign: Assign) {
        let slot = &self.slot;
        if assign.lease.token <= self.taken {
            // A copy of what was taken already, or older: whoever sent it has the answer.
            return assign.lease.settle();
        }
        if slot.incarnation() != Some(assign.lease.incarnation) || slot.running().is_some() {
            // Dropping the lease hands the task back to the scheduler.
            return;
        }
        let Some(behaviour) = slot.behaviour.take() else {
            return;
        };
        self.taken = assign.lease.token;
        slot.run(Running::of(&assign.lease));
        self.begun = Some(Box::pin(attempt::perform(Rc::clone(slot), behaviour, assign)));
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
                slot.set_next(revive);
                Verdict::Restart
            }
            Err(_) => Verdict::Stop,
        }
    })
}

impl Cell for AgentHost {
    fn poll(&mut self, cx: &mut Poller<'_>) -> Poll<()> {
        if let Some(next) = self.next.take() {
            self.begin(next);
        }
        while let Some(message) = self.inbox.take(cx.waker()) {
            if !self.handle(message) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn restart(&mut self) -> bool {
        self.next = self.slot.take_next();
        true
    }

    /// It has no hooks.
    fn terminate(&mut self) {}
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

/// Returns how a life ends whose lease the scheduler took back.
fn revoked(cause: Option<Cause>) -> Ended {
    cause.map_or(Ended::Cancelled, |cause| Ended::Failed(Failure::revoked(cause)))
}

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
