//! Carries out what the supervision tree decides: starts, stops and restarts agents, and tells a
//! person who gave up.
//!
//! An agent reports how its life ended; the tree of core decides about it and about those that
//! belong together with it; this actor obeys and tells the scheduler who is there. A child never
//! predicts the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, AsyncContext, Context, SpawnHandle, Supervised};
use guild_core::draw::{Seed, Stream};
use guild_core::event::{Cause, Event};
use guild_core::id::{AgentId, Incarnation, RoleId};
use guild_core::incident::Attempt;
use guild_core::planner::Input;
use guild_core::supervision::{
    Ending, Exit, Input as ChildInput, Tree, TreeInput, TreeOrder, fingerprint,
};
use guild_core::time::{Timestamp, micros};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::context::Surroundings;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::incidents::Details;
use crate::mailbox::{Attend, Outlet, recycled};
use crate::message::{
    ChildDown, Ended, HostMessage, Left, Revive, SchedulerMessage, SupervisorMessage,
};
use crate::run::{RunBoard, RunError};

mod hung;
mod report;

use report::Crash;

/// Orders for which room is kept between two turns.
const ORDERS_KEPT: usize = 256;

/// The actor that supervises all agents.
pub(crate) struct SupervisorActor {
    tree: Tree,
    /// The agents of each role; a [`RoleId`] is a place in here.
    roles: Vec<Crew>,
    /// What is known of those that do not live.
    down: BTreeMap<AgentId, Down>,
    fleet: Fleet,
    inbox: Outlet<SupervisorMessage>,
    surroundings: Arc<Surroundings>,
    board: RunBoard,
    clock: Clock,
    seed: Seed,
    timer: Option<(Timestamp, SpawnHandle)>,
    batch: Vec<SupervisorMessage>,
    orders: Vec<TreeOrder>,
    /// Who waits for the end of everything.
    stopped: Option<oneshot::Sender<Left>>,
    /// Agents that did not stop in time.
    abandoned: u32,
}

/// The agents of one role.
#[derive(Default)]
struct Crew {
    children: Vec<Child>,
    /// The newest death for which the role's supervisor gave up.
    fatal: Option<Crash>,
}

struct Child {
    /// Its present life, or the next one while it is down.
    incarnation: Incarnation,
    lives: u32,
    /// Whether its host begins its first life without being told.
    begins_alone: bool,
}

/// An agent that has lived and does not.
struct Down {
    since: Timestamp,
    /// How long it was down before it was told to start.
    delay_us: u64,
    /// Where a cell whose own actor has panicked waits for its next life.
    parked: Option<oneshot::Sender<Revive>>,
}

/// What the supervisor is built from.
pub(crate) struct SupervisorParts {
    pub(crate) tree: Tree,
    /// How many agents each role has.
    pub(crate) agents: Vec<u32>,
    pub(crate) first: Incarnation,
    pub(crate) fleet: Fleet,
    pub(crate) inbox: Outlet<SupervisorMessage>,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) board: RunBoard,
    pub(crate) clock: Clock,
    pub(crate) seed: Seed,
}

impl SupervisorActor {
    /// Returns the supervisor of a fleet whose hosts have been spawned, and starts the agents whose
    /// hosts wait to be told.
    pub(crate) fn new(parts: SupervisorParts) -> Self {
        let crew = |(role, agents): (u16, &u32)| {
            let begins_alone = !parts.tree.starts_in_sequence(RoleId(role));
            let child = |_| Child { incarnation: parts.first, lives: 0, begins_alone };
            Crew { children: (0..*agents).map(child).collect(), fatal: None }
        };
        let mut supervisor = Self {
            roles: (0..).zip(&parts.agents).map(crew).collect(),
            down: BTreeMap::new(),
            tree: parts.tree,
            fleet: parts.fleet,
            inbox: parts.inbox,
            surroundings: parts.surroundings,
            board: parts.board,
            clock: parts.clock,
            seed: parts.seed,
            timer: None,
            batch: Vec::new(),
            orders: Vec::new(),
            stopped: None,
            abandoned: 0,
        };
        supervisor.step(supervisor.clock.now(), TreeInput::Start);
        supervisor
    }

    fn tell(&mut self, now: Timestamp, agent: AgentId, input: ChildInput) {
        self.step(now, TreeInput::Agent { role: agent.role, input });
    }

    /// Tells the tree what blames nobody, so that it draws nothing, and obeys.
    fn step(&mut self, now: Timestamp, input: TreeInput) {
        let mut orders = std::mem::take(&mut self.orders);
        self.tree.step(now, input, 0.0, &mut orders);
        self.obey(now, orders);
    }

    /// Carries out what the tree wants; what cannot be carried out is told to it.
    fn obey(&mut self, now: Timestamp, mut orders: Vec<TreeOrder>) {
        let mut answers = Vec::new();
        loop {
            for order in orders.drain(..) {
                answers.extend(self.carry_out(now, order));
            }
            if answers.is_empty() {
                break;
            }
            for answer in answers.drain(..) {
                self.tree.step(now, answer, 0.0, &mut orders);
            }
        }
        orders.shrink_to(ORDERS_KEPT);
        self.orders = orders;
    }

    fn carry_out(&mut self, now: Timestamp, order: TreeOrder) -> Option<TreeInput> {
        match order {
            TreeOrder::Start { agent, probe, released } => {
                self.start(now, agent, probe, released);
                None
            }
            TreeOrder::Stop { agent } => self.stop(agent),
            TreeOrder::Abandon { agent } => {
                self.abandon(now, agent);
                None
            }
            TreeOrder::Lost { role } => {
                self.lose(now, role);
                None
            }
            TreeOrder::Escalated(escalation) => {
                self.report_escalation(now, &escalation);
                None
            }
            TreeOrder::Ended(ending) => {
                self.end(now, ending);
                None
            }
        }
    }

    fn up(&mut self, now: Timestamp, agent: AgentId, incarnation: Incarnation) {
        let role = agent.role;
        let Some(child) = self.child(agent).filter(|child| child.incarnation == incarnation) else {
            return;
        };
        child.lives += 1;
        let lives = child.lives;
        let delay_us = self.down.remove(&agent).map_or(0, |down| down.delay_us);
        self.tell(now, agent, ChildInput::Up { child: agent.index });
        // Before its first life that came up there is nothing to restart, though it may have crashed
        // while it was started.
        let event = if lives > 1 {
            self.surroundings.stats.restarts.fetch_add(1, Ordering::Relaxed);
            Event::AgentRestarted { agent, incarnation, delay_us }
        } else {
            Event::AgentStarted { agent, role, incarnation }
        };
        self.surroundings.log(event);
        let recovered = self.surroundings.incidents.agent_lives(now, agent, incarnation);
        recovered.into_iter().for_each(|event| self.surroundings.log(event));
        self.tell_scheduler(Input::AgentReady { agent, incarnation });
    }

    fn down(&mut self, now: Timestamp, mut down: ChildDown) {
        let (agent, incarnation) = (down.agent, down.incarnation);
        let parked = down.parked.take();
        let Some(child) = self.child(agent) else {
            return;
        };
        if child.incarnation != incarnation {
            // A life that was given up before it could say so.
            if let Some(parked) = parked {
                self.let_go_on(now, parked, down);
            }
            return;
        }
        child.incarnation = incarnation.next();
        self.down.insert(agent, Down { since: now, delay_us: 0, parked });
        let child = agent.index;
        let input = match &down.ended {
            Ended::Failed(failure) => {
                let cause =
                    fingerprint(failure.cause, failure.location.as_deref(), &failure.message);
                ChildInput::Down { child, exit: Exit::Failed { cause } }
            }
            Ended::Cancelled => ChildInput::Down { child, exit: Exit::Blameless },
            Ended::Retired => ChildInput::Down { child, exit: Exit::Normal },
            Ended::Stopped => ChildInput::Stopped { child },
        };
        let draw = self.seed.unit(Stream::Restart, agent.to_bits(), incarnation.0);
        let mut orders = std::mem::take(&mut self.orders);
        let input = TreeInput::Agent { role: agent.role, input };
        let verdict = self.tree.step(now, input, draw, &mut orders);
        let (message, unknown_to_scheduler) = (down.ended.message(), down.unknown_to_scheduler);
        let stopped = !matches!(down.ended, Ended::Failed(_));
        let cause = match down.ended {
            Ended::Failed(failure) => {
                let cause = failure.cause;
                if unknown_to_scheduler {
                    self.keep_details(&failure, down.attempt);
                }
                let crash =
                    Crash { agent, incarnation, failure, attempt: down.attempt, fault: down.fault };
                self.report_crash(now, crash, verdict);
                cause
            }
            Ended::Stopped | Ended::Retired if !self.is_ending() => {
                self.surroundings.log(Event::AgentStopped {
                    agent,
                    incarnation,
                    reason: message.clone(),
                });
                Cause::AgentLost
            }
            Ended::Stopped | Ended::Retired | Ended::Cancelled => Cause::AgentLost,
        };
        if unknown_to_scheduler {
            self.tell_scheduler(Input::AgentDown { agent, incarnation, cause, message, stopped });
        }
        self.obey(now, orders);
    }

    /// Keeps what the planner is not told of an attempt until it has decided about its task.
    pub(super) fn keep_details(&self, failure: &Failure, attempt: Option<Attempt>) {
        if let Some(attempt) = attempt {
            let (reason, causes) = (failure.reason, failure.causes.clone());
            let details = Details { attempt, reason, causes };
            self.surroundings.incidents.attempt_failed(details);
        }
    }

    fn tell_scheduler(&self, input: Input) {
        self.surroundings.scheduler.push(SchedulerMessage::Tell(input));
    }

    fn start(&mut self, now: Timestamp, agent: AgentId, probe: bool, released: bool) {
        let Some(child) = self.child(agent) else {
            return;
        };
        if std::mem::take(&mut child.begins_alone) {
            return;
        }
        let revive = Revive { incarnation: child.incarnation, probe };
        let is_restart = child.lives > 0;
        let mut parked = None;
        if let Some(down) = self.down.get_mut(&agent) {
            down.delay_us = micros(now.since(down.since));
            parked = down.parked.take();
        }
        if released {
            let reason = "its quarantine is over".into();
            self.surroundings.log(Event::AgentReleased { agent, reason });
        }
        let delivered = match parked {
            Some(parked) => parked.send(revive).is_ok(),
            None => {
                // Between two lives an agent has nothing that would be lost on its way.
                if is_restart && let Some(left) = self.fleet.move_on(now, agent) {
                    left.order(HostMessage::Retire);
                }
                self.fleet.hosts.with(agent, |host| host.order(HostMessage::Revive(revive)))
                    == Some(true)
            }
        };
        if !delivered {
            tracing::warn!(agent = agent.index, "agent's host is gone; it is not restarted");
        }
    }

    /// Stops an agent; returns what the tree has to know at once.
    fn stop(&mut self, agent: AgentId) -> Option<TreeInput> {
        let incarnation = self.child(agent)?.incarnation;
        let stop = HostMessage::Stop { incarnation };
        let is_alive = self.fleet.hosts.with(agent, |host| host.order(stop)) == Some(true);
        let child = agent.index;
        let input = ChildInput::Stopped { child };
        (!is_alive).then_some(TreeInput::Agent { role: agent.role, input })
    }

    /// Goes on without an agent that does not stop: its life is over for everybody but itself.
    fn abandon(&mut self, now: Timestamp, agent: AgentId) {
        let Some(child) = self.child(agent) else {
            return;
        };
        let incarnation = child.incarnation;
        child.incarnation = incarnation.next();
        self.down.insert(agent, Down { since: now, delay_us: 0, parked: None });
        self.abandoned += 1;
        tracing::warn!(agent = agent.index, "an agent did not stop in time; it is left behind");
        if !self.is_ending() {
            let reason: Box<str> = "it did not stop in time and was left behind".into();
            self.surroundings.log(Event::AgentStopped {
                agent,
                incarnation,
                reason: reason.clone(),
            });
            let (cause, message, stopped) = (Cause::AgentLost, reason, true);
            self.tell_scheduler(Input::AgentDown { agent, incarnation, cause, message, stopped });
        }
    }

    fn lose(&mut self, now: Timestamp, role: RoleId) {
        if self.is_ending() {
            return;
        }
        let reason: Box<str> = "its agents have ended, and nothing starts them again".into();
        self.surroundings.log(Event::RoleLost { role, reason: reason.clone() });
        self.report_loss(now, role, reason);
        self.tell_scheduler(Input::RoleLost { role });
    }

    fn end(&mut self, now: Timestamp, ending: Ending) {
        tracing::info!(?ending, at_us = now.0, "all agents have ended");
        if let Ending::Meltdown { .. } = ending {
            return self
                .fail("its supervisors gave up; the newest incident tells the chain of causes");
        }
        for host in self.fleet.hosts.all() {
            if !host.order(HostMessage::Retire) {
                tracing::trace!("host has ended already");
            }
        }
        let left = Left { agents: self.abandoned, threads: self.fleet.threads.end() };
        if let Some(stopped) = self.stopped.take()
            && stopped.send(left).is_err()
        {
            tracing::debug!("nobody waits for the stop any more");
        }
    }

    /// Takes no more work; whoever waits learns why.
    fn fail(&self, why: &str) {
        self.board.close(RunError::Failed(why.to_owned()));
        let (halted, _) = oneshot::channel();
        self.surroundings.scheduler.push(SchedulerMessage::Halt { halted });
    }

    fn is_ending(&self) -> bool {
        self.stopped.is_some()
    }

    fn child(&mut self, agent: AgentId) -> Option<&mut Child> {
        let crew = self.roles.get_mut(usize::from(agent.role.0))?;
        crew.children.get_mut(agent.index as usize)
    }

    /// Keeps one timer: the tree's next wake-up, or an earlier one that is armed already.
    fn arm(&mut self, context: &mut Context<Self>) {
        let Some(at) = self.tree.next_wakeup() else {
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

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.timer = None;
        self.inbox.attend::<Self>(context);
        self.arm(context);
    }
}

impl Supervised for SupervisorActor {}

impl Attend for SupervisorActor {
    fn turn(&mut self, context: &mut Context<Self>) {
        let now = self.clock.now();
        let mut batch = std::mem::take(&mut self.batch);
        self.inbox.take(&mut batch);
        self.surroundings.stats.messages.fetch_add(batch.len() as u64, Ordering::Relaxed);
        for message in batch.drain(..) {
            match message {
                SupervisorMessage::ChildUp { agent, incarnation } => {
                    self.up(now, agent, incarnation);
                }
                SupervisorMessage::ChildPassed { agent, incarnation } => {
                    if self.child(agent).is_some_and(|child| child.incarnation == incarnation) {
                        self.tell(now, agent, ChildInput::Passed { child: agent.index });
                    }
                }
                SupervisorMessage::Hung(hang) => self.thread_hung(now, &hang),
                SupervisorMessage::Awake { thread } => self.thread_awake(thread),
                SupervisorMessage::Forgive { victims } => {
                    for agent in victims {
                        self.tell(now, agent, ChildInput::Forgiven { child: agent.index });
                    }
                }
                SupervisorMessage::ChildDown(down) => self.down(now, *down),
                SupervisorMessage::Stop { stopped } => {
                    self.stopped = Some(stopped);
                    self.step(now, TreeInput::Stop);
                }
            }
        }
        self.batch = recycled(batch);
        self.step(now, TreeInput::Tick);
        self.arm(context);
    }
}
