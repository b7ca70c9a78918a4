//! Supervises the agents of one role, one for one.
//!
//! An agent reports how its life ended; the restart ledger of core decides whether and when it
//! gets another one; the supervisor carries that out and tells the scheduler when the agent is
//! back. A child never predicts the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle, Supervised};
use guild_core::draw::{Seed, Stream};
use guild_core::event::{Event, Severity};
use guild_core::id::{AgentId, Incarnation, RoleId};
use guild_core::planner::Input;
use guild_core::restart::{RestartLedger, RestartPolicy, Verdict};
use guild_core::time::{Timestamp, micros};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::context::Surroundings;
use crate::host::{HostAddr, order};
use crate::incidents::Report;
use crate::mailbox::{Outlet, Wake, recycled};
use crate::message::{
    ChildDown, MemoryMessage, Retire, Revive, SchedulerMessage, SupervisorMessage,
};

/// The actor that supervises a role.
pub(crate) struct RoleSupervisor {
    role: RoleId,
    children: Vec<Child>,
    hosts: Arc<Vec<Vec<HostAddr>>>,
    inbox: Outlet<SupervisorMessage>,
    surroundings: Arc<Surroundings>,
    clock: Clock,
    policy: RestartPolicy,
    seed: Seed,
    /// Lives that are to begin later, by time; one timer serves them all.
    due: BTreeMap<(Timestamp, u32), ()>,
    timer: Option<(Timestamp, SpawnHandle)>,
    batch: Vec<SupervisorMessage>,
}

struct Child {
    ledger: RestartLedger,
    incarnation: Incarnation,
    restart: Option<Pending>,
    lives: u32,
}

/// A life that is to begin.
struct Pending {
    delay_us: u64,
    quarantined: bool,
    parked: Option<oneshot::Sender<Incarnation>>,
}

/// What a supervisor is built from.
pub(crate) struct SupervisorParts {
    pub(crate) role: RoleId,
    pub(crate) agents: u32,
    pub(crate) first: Incarnation,
    pub(crate) policy: RestartPolicy,
    pub(crate) hosts: Arc<Vec<Vec<HostAddr>>>,
    pub(crate) inbox: Outlet<SupervisorMessage>,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) clock: Clock,
    pub(crate) seed: Seed,
}

impl RoleSupervisor {
    /// Returns the supervisor of a role whose agents are starting.
    pub(crate) fn new(parts: SupervisorParts) -> Self {
        let child = |_| Child {
            ledger: RestartLedger::default(),
            incarnation: parts.first,
            restart: None,
            lives: 0,
        };
        Self {
            role: parts.role,
            children: (0..parts.agents).map(child).collect(),
            hosts: parts.hosts,
            inbox: parts.inbox,
            surroundings: parts.surroundings,
            clock: parts.clock,
            policy: parts.policy,
            seed: parts.seed,
            due: BTreeMap::new(),
            timer: None,
            batch: Vec::new(),
        }
    }

    fn turn(&mut self, context: &mut Context<Self>) {
        let now = self.clock.now();
        let mut batch = std::mem::take(&mut self.batch);
        self.inbox.take(&mut batch);
        self.surroundings.stats.messages.fetch_add(batch.len() as u64, Ordering::Relaxed);
        for message in batch.drain(..) {
            match message {
                SupervisorMessage::ChildUp { agent, incarnation } => {
                    self.up(now, agent, incarnation)
                }
                SupervisorMessage::ChildDown(down) => self.down(now, *down),
                SupervisorMessage::Stop { stopped } => self.stop(stopped),
            }
        }
        self.batch = recycled(batch);
        self.revive_due(now);
        self.arm(context);
    }

    fn up(&mut self, now: Timestamp, agent: AgentId, incarnation: Incarnation) {
        let Some(child) = self.children.get_mut(agent.index as usize) else {
            return;
        };
        child.lives += 1;
        child.ledger.running(now);
        let event = match child.restart.take() {
            // Before its first life that came up there is nothing to restart, though it may have
            // crashed while it was started.
            Some(pending) if child.lives > 1 => {
                self.surroundings.stats.restarts.fetch_add(1, Ordering::Relaxed);
                Event::AgentRestarted { agent, incarnation, delay_us: pending.delay_us }
            }
            Some(_) | None => Event::AgentStarted { agent, role: self.role, incarnation },
        };
        self.surroundings.memory.push(MemoryMessage::Record(event));
        self.surroundings
            .scheduler
            .push(SchedulerMessage::Tell(Input::AgentReady { agent, incarnation }));
    }

    fn down(&mut self, now: Timestamp, down: ChildDown) {
        let agent = down.agent;
        let Some(child) = self.children.get_mut(agent.index as usize) else {
            return;
        };
        child.incarnation = down.incarnation.next();
        let Some(cause) = down.cause else {
            let pending = Pending { delay_us: 0, quarantined: false, parked: down.parked };
            return self.schedule(now, agent, pending);
        };
        let draw = self.seed.unit(Stream::Restart, entity(agent), down.incarnation.0);
        let verdict = child.ledger.crashed(&self.policy, now, draw);
        self.surroundings.stats.crashes.fetch_add(1, Ordering::Relaxed);
        let mut events = vec![MemoryMessage::Record(Event::AgentCrashed {
            agent,
            incarnation: down.incarnation,
            cause,
            message: down.message.clone(),
            task: down.task.map(|(task, _)| task),
        })];
        let (at, action, quarantined) = match verdict {
            Verdict::Restart { delay } => {
                (now.after(delay), format!("restarted after {} us", micros(delay)), false)
            }
            Verdict::Quarantine { until } => {
                events.push(MemoryMessage::Record(Event::AgentQuarantined {
                    agent,
                    reason: "it crashed more often than its restart policy allows".into(),
                    until: Some(until),
                }));
                (until, format!("quarantined until {} us", until.0), true)
            }
        };
        let report = Report {
            kind: "agent_crashed",
            severity: if quarantined { Severity::Error } else { Severity::Warning },
            cause,
            message: down.message.clone(),
            location: down.location,
            agent: Some((agent, down.incarnation)),
            task: down.task,
            fault: down.fault,
            action: action.into(),
        };
        events.push(MemoryMessage::Record(self.surroundings.incidents.open(now, report)));
        self.surroundings.memory.push_all(&mut events);
        if down.unknown_to_scheduler {
            let (incarnation, message) = (down.incarnation, down.message);
            let input = Input::AgentDown { agent, incarnation, cause, message };
            self.surroundings.scheduler.push(SchedulerMessage::Tell(input));
        }
        let delay_us = micros(at.since(now));
        self.schedule(at, agent, Pending { delay_us, quarantined, parked: down.parked });
    }

    fn schedule(&mut self, at: Timestamp, agent: AgentId, pending: Pending) {
        if let Some(child) = self.children.get_mut(agent.index as usize) {
            child.restart = Some(pending);
            self.due.insert((at, agent.index), ());
        }
    }

    fn revive_due(&mut self, now: Timestamp) {
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, index), ()) = entry.remove_entry();
            self.revive(AgentId { role: self.role, index });
        }
    }

    fn revive(&mut self, agent: AgentId) {
        let Some(child) = self.children.get_mut(agent.index as usize) else {
            return;
        };
        let Some(pending) = child.restart.as_mut() else {
            return;
        };
        let incarnation = child.incarnation;
        if std::mem::take(&mut pending.quarantined) {
            child.ledger.released();
            let reason = "its quarantine is over".into();
            self.surroundings
                .memory
                .push(MemoryMessage::Record(Event::AgentReleased { agent, reason }));
        }
        let parked = pending.parked.take();
        let delivered = match parked {
            Some(parked) => parked.send(incarnation).is_ok(),
            None => self
                .hosts
                .get(usize::from(self.role.0))
                .and_then(|hosts| hosts.get(agent.index as usize))
                .is_some_and(|host| order(host, Revive { incarnation })),
        };
        if !delivered {
            tracing::warn!(agent = agent.index, "agent's host is gone; it is not restarted");
        }
    }

    fn stop(&mut self, stopped: oneshot::Sender<()>) {
        self.due.clear();
        let hosts = self.hosts.get(usize::from(self.role.0)).into_iter().flatten();
        for (host, child) in hosts.zip(&mut self.children) {
            child.restart = None;
            if !order(host, Retire) {
                tracing::debug!("host has ended already");
            }
        }
        if stopped.send(()).is_err() {
            tracing::debug!("nobody waits for the stop any more");
        }
    }

    fn arm(&mut self, context: &mut Context<Self>) {
        let Some((at, _)) = self.due.first_key_value().map(|(key, ())| *key) else {
            return;
        };
        if let Some((armed, handle)) = self.timer {
            if armed <= at {
                return;
            }
            context.cancel_future(handle);
        }
        let delay = self.clock.delay(at.since(self.clock.now()));
        let handle = context.run_later(delay, |supervisor, context| {
            supervisor.timer = None;
            supervisor.turn(context);
        });
        self.timer = Some((at, handle));
    }
}

fn entity(agent: AgentId) -> u64 {
    u64::from(agent.role.0) << 32 | u64::from(agent.index)
}

impl Actor for RoleSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.timer = None;
        self.inbox.bind(context.address().recipient());
        self.arm(context);
    }
}

impl Supervised for RoleSupervisor {}

impl Handler<Wake> for RoleSupervisor {
    type Result = ();

    fn handle(&mut self, _: Wake, context: &mut Context<Self>) {
        self.turn(context);
    }
}
