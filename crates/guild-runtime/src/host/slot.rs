//! What the host of an agent and the future of its attempt share; both live on one arbiter.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use guild_core::event::{Cause, Severity};
use guild_core::id::{AgentId, FencingToken, Incarnation, RunId, TaskId, TaskIndex};
use guild_core::incident::{Action, Attempt, Discarded, IncidentKind};
use tokio::sync::oneshot;

use super::HostShared;
use crate::agent::{Behaviour, TaskError};
use crate::beacon;
use crate::context::Subject;
use crate::failure::Failure;
use crate::fault::{Fault, Site};
use crate::lease::Lease;
use crate::life::DIED_IDLE;
use crate::message::{ChildDown, Ended, Revive, SupervisorMessage};
use crate::panics::{PanicReport, caught, poll_caught};

/// The state of one agent's host.
pub(crate) struct Slot {
    pub(crate) agent: AgentId,
    /// The newest life that has begun, and none begins twice; 0: none has.
    newest: Cell<Incarnation>,
    /// Whether that one goes on.
    is_alive: Cell<bool>,
    pub(crate) behaviour: Cell<Option<Box<dyn Behaviour>>>,
    /// Of the attempt under way; 0: there is none.
    token: Cell<FencingToken>,
    task: Cell<TaskId>,
    number: Cell<u32>,
    /// Wakes the attempt under way.
    pub(crate) waker: Cell<Option<Waker>>,
    rare: Cell<Option<Box<Rare>>>,
    pub(crate) shared: Arc<HostShared>,
}

/// The task of an agent is aligned to 128 bytes, and takes 272 with what the allocator notes. A slot with
/// its counts fits in what is left of the last 128, instead of beginning new ones: there may be very many.
const _: () =
    assert!(size_of::<Slot>() <= 88, "a slot is larger than what is left beside its task");

/// What most agents never have.
#[derive(Default)]
struct Rare {
    /// The life to begin when the cell restarts.
    next: Option<Revive>,
    /// Whether the supervisor waits for the first piece of work that is done.
    is_probing: bool,
    interruption: Option<Interruption>,
    /// Set by an agent whose life ends with the attempt under way, whatever comes of that.
    leaving: Option<Leaving>,
    /// Number of the fault that struck last, until its consequence is reported.
    fault: Option<u64>,
}

/// The attempt under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) token: FencingToken,
    pub(crate) task: TaskId,
    pub(crate) number: u32,
}

/// Why a life ends with its attempt; none: nobody is to blame.
pub(crate) struct Leaving(Option<TaskError>);

/// What ends an attempt from outside.
pub(crate) enum Interruption {
    /// Its lease was taken back.
    Revoked(Revoked),
    /// The agent itself ended its life.
    Died(FencingToken, TaskError),
}

#[derive(Clone, Copy)]
pub(crate) struct Revoked {
    pub(crate) token: FencingToken,
    pub(crate) cause: Option<Cause>,
    pub(crate) by: Revoker,
}

/// Who takes a lease back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoker {
    /// The scheduler: the life ends with the attempt, which the supervisor has to hear.
    Scheduler,
    /// The supervisor, which has to hear of the end, as the scheduler has.
    Supervisor,
    /// The host itself: it has panicked and reported that already, or it ends with the guild.
    Host,
}

/// What an agent was doing when its life ended.
#[derive(Clone, Copy, Default)]
pub(crate) struct Struck {
    pub(crate) attempt: Option<Attempt>,
    pub(crate) fault: Option<u64>,
    /// Whether the scheduler took the task back and so knows of it.
    pub(crate) revoked: bool,
}

impl Running {
    /// Returns the attempt of a lease.
    pub(super) fn of(lease: &Lease) -> Self {
        Self { token: lease.token, task: lease.task, number: lease.attempt }
    }

    /// Returns the record of the attempt, of which only its own future knows more.
    pub(crate) fn attempt(self) -> Attempt {
        Attempt {
            task: self.task,
            number: self.number,
            token: Some(self.token),
            last_heartbeat: None,
            discarded: Discarded::default(),
        }
    }
}

impl Interruption {
    pub(crate) fn token(&self) -> FencingToken {
        match self {
            Self::Revoked(revoked) => revoked.token,
            Self::Died(token, _) => *token,
        }
    }
}

impl Rare {
    fn is_empty(&self) -> bool {
        let Self { next, is_probing, interruption, leaving, fault } = self;
        let is_idle = next.is_none() && !is_probing && fault.is_none();
        is_idle && interruption.is_none() && leaving.is_none()
    }
}

impl Slot {
    /// Returns the slot of an agent that has no life yet.
    pub(crate) fn new(agent: AgentId, shared: Arc<HostShared>) -> Rc<Self> {
        Rc::new(Self {
            agent,
            newest: Cell::new(Incarnation(0)),
            is_alive: Cell::new(false),
            behaviour: Cell::new(None),
            token: Cell::new(FencingToken(0)),
            task: Cell::new(TaskId { run: RunId(0), index: TaskIndex(0) }),
            number: Cell::new(0),
            waker: Cell::new(None),
            rare: Cell::new(None),
            shared,
        })
    }

    /// Notes what most agents never have.
    fn note(&self, note: impl FnOnce(&mut Rare)) {
        let mut rare = self.rare.take().unwrap_or_default();
        note(&mut rare);
        self.rare.set(Some(rare));
    }

    /// Takes what was noted, if anything was.
    fn take<T>(&self, take: impl FnOnce(&mut Rare) -> Option<T>) -> Option<T> {
        let mut rare = self.rare.take()?;
        let taken = take(&mut rare);
        self.rare.set(Some(rare).filter(|rare| !rare.is_empty()));
        taken
    }

    /// Has a cell that restarts begin this life.
    pub(crate) fn set_next(&self, next: Revive) {
        self.note(|rare| rare.next = Some(next));
    }

    pub(crate) fn take_next(&self) -> Option<Revive> {
        self.take(|rare| rare.next.take())
    }

    /// Notes that a fault has struck.
    pub(crate) fn strike(&self, fault: u64) {
        self.note(|rare| rare.fault = Some(fault));
    }

    /// Returns the number of the fault that has struck, unless its consequence was reported.
    pub(crate) fn take_fault(&self) -> Option<u64> {
        self.take(|rare| rare.fault.take())
    }

    pub(crate) fn take_interruption(&self) -> Option<Interruption> {
        self.take(|rare| rare.interruption.take())
    }

    pub(crate) fn take_leaving(&self) -> Option<Leaving> {
        self.take(|rare| rare.leaving.take())
    }

    /// Returns the present life.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.is_alive.get().then(|| self.newest.get())
    }

    /// Begins a life; returns whether it is newer than all before.
    pub(crate) fn begin(&self, Revive { incarnation, probe }: Revive) -> bool {
        if self.newest.get() >= incarnation {
            return false;
        }
        self.newest.set(incarnation);
        self.is_alive.set(true);
        self.end_probation();
        if probe {
            self.note(|rare| rare.is_probing = true);
        }
        true
    }

    /// Returns whether the supervisor waited for the first piece of work that is done.
    fn end_probation(&self) -> bool {
        self.take(|rare| Some(std::mem::take(&mut rare.is_probing))) == Some(true)
    }

    /// Ends the present life here; nobody is told.
    pub(crate) fn end(&self) {
        self.is_alive.set(false);
    }

    /// Returns the attempt under way.
    pub(crate) fn running(&self) -> Option<Running> {
        let (token, task, number) = (self.token.get(), self.task.get(), self.number.get());
        (token.0 > 0).then_some(Running { token, task, number })
    }

    /// Notes that an attempt is under way.
    pub(crate) fn run(&self, Running { token, task, number }: Running) {
        self.token.set(token);
        self.task.set(task);
        self.number.set(number);
    }

    /// Notes that no attempt is under way.
    pub(crate) fn rest(&self) {
        self.token.set(FencingToken(0));
    }

    pub(crate) fn runs(&self, token: FencingToken) -> bool {
        self.running().is_some_and(|running| running.token == token)
    }

    /// Ends the attempt under way at its next poll, if it is the one that is meant.
    pub(crate) fn interrupt(&self, interruption: Interruption) {
        if self.runs(interruption.token()) {
            self.note(|rare| rare.interruption = Some(interruption));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// Ends a life from within: with its attempt, if one is under way.
    pub(crate) fn die(&self, incarnation: Incarnation, error: TaskError) {
        if self.incarnation() != Some(incarnation) {
            return;
        }
        if let Some(running) = self.running() {
            return self.interrupt(Interruption::Died(running.token, error));
        }
        let struck = Struck { fault: self.take_fault(), ..Struck::default() };
        let ended = Ended::Failed(Failure::erred(DIED_IDLE, &error));
        self.end_life(incarnation, ended, struck, None);
    }

    /// Ends a life in order, unless a task is under way.
    pub(crate) fn leave(&self, incarnation: Incarnation) {
        if self.running().is_none() {
            self.end_life(incarnation, Ended::Retired, Struck::default(), None);
        }
    }

    /// Ends a life when the attempt under way is over.
    pub(crate) fn end_after_task(&self, incarnation: Incarnation, error: Option<TaskError>) {
        if self.incarnation() == Some(incarnation) {
            self.note(|rare| rare.leaving = Some(Leaving(error)));
        }
    }

    /// Goes on after an attempt that the agent has survived: its probation is over, and its life
    /// ends if it wanted that.
    pub(crate) fn survived(&self, incarnation: Incarnation, token: FencingToken, retires: bool) {
        if self.end_probation() {
            let passed = SupervisorMessage::ChildPassed { agent: self.agent, incarnation };
            self.shared.surroundings.supervisor.push(passed);
        }
        match self.take_interruption() {
            Some(Interruption::Died(of, error)) if of == token => self.die(incarnation, error),
            // What else came too late is known to whoever sent it.
            Some(_) | None => {}
        }
        match self.take_leaving().map(|leaving| leaving.0) {
            None if retires => self.leave(incarnation),
            None => {}
            Some(None) => self.leave(incarnation),
            Some(Some(error)) => self.die(incarnation, error),
        }
    }

    /// Ends the life of an agent whose host panicked, and parks the host until somebody has decided.
    /// Returns whether it had one; else there is nothing to decide.
    pub(crate) fn crash(&self, report: PanicReport, parked: oneshot::Sender<Revive>) -> bool {
        let running = self.running();
        if let Some(Running { token, .. }) = running {
            let revoked = Revoked { token, cause: None, by: Revoker::Host };
            self.interrupt(Interruption::Revoked(revoked));
        }
        let attempt = running.map(Running::attempt);
        let struck = Struck { attempt, fault: self.take_fault(), revoked: false };
        let Some(incarnation) = self.incarnation() else {
            self.tell_crash(report, struck.fault);
            return false;
        };
        let ended = Ended::Failed(Failure::panicked(Cause::AgentLost, report));
        self.end_life(incarnation, ended, struck, Some(parked));
        true
    }

    /// Tells a person of a host that panicked while its agent had no life to lose.
    fn tell_crash(&self, report: PanicReport, fault: Option<u64>) {
        let surroundings = &self.shared.surroundings;
        let newest = Some(self.newest.get()).filter(|newest| *newest > Incarnation(0));
        let of = newest.map(|incarnation| (self.agent, incarnation));
        let report = Failure::panicked(Cause::Panic, report).report(
            IncidentKind::HostPanicked,
            Severity::Warning,
            of,
            None,
            fault,
            Action::RestartActor,
        );
        surroundings.open_incident(surroundings.clock.now(), report);
    }

    /// Ends a life unless it is over; the supervisor decides about the next one.
    pub(crate) fn end_life(
        &self,
        incarnation: Incarnation,
        ended: Ended,
        struck: Struck,
        parked: Option<oneshot::Sender<Revive>>,
    ) {
        if self.incarnation() != Some(incarnation) {
            return;
        }
        self.end();
        let behaviour = self.behaviour.take();
        if let Some(behaviour) = behaviour {
            self.drop_behaviour(incarnation, behaviour, struck.attempt);
        }
        self.tell_end(incarnation, ended, struck, parked);
    }

    /// Tells the supervisor of a life that is over.
    pub(crate) fn tell_end(
        &self,
        incarnation: Incarnation,
        ended: Ended,
        struck: Struck,
        parked: Option<oneshot::Sender<Revive>>,
    ) {
        let down = SupervisorMessage::ChildDown(Box::new(ChildDown {
            agent: self.agent,
            incarnation,
            ended,
            attempt: struck.attempt,
            fault: struck.fault,
            unknown_to_scheduler: !struck.revoked,
            parked,
        }));
        self.shared.surroundings.supervisor.push(down);
    }

    /// Drops what is left of a life. A panic in there harms nobody, and a person is told: it is a
    /// bug of the agent.
    pub(crate) fn drop_behaviour(
        &self,
        incarnation: Incarnation,
        behaviour: Box<dyn Behaviour>,
        attempt: Option<Attempt>,
    ) {
        let surroundings = &self.shared.surroundings;
        let task = attempt.map(|attempt| (attempt.task, attempt.number));
        let subject = Subject { agent: Some(self.agent), task };
        let struck = surroundings.strike(Site::Dropped, subject);
        let dropped = beacon::always(self.agent, attempt.and_then(running), || {
            caught(move || {
                drop(behaviour);
                if let Some((Fault::Crash, number)) = struck {
                    panic!("injected crash {number}");
                }
            })
        });
        let Err(report) = dropped else { return };
        tracing::warn!(agent = self.agent.index, message = %report.message, "agent panicked while it was dropped");
        let report = Failure::panicked(Cause::Panic, report).report(
            IncidentKind::DropPanicked,
            Severity::Warning,
            Some((self.agent, incarnation)),
            attempt,
            struck.map(|(_, number)| number),
            Action::Nothing,
        );
        surroundings.open_incident(surroundings.clock.now(), report);
    }

    /// Lets an agent end in good order, then drops it; returns what went wrong, if anything.
    pub(crate) async fn end_behaviour(
        &self,
        incarnation: Incarnation,
        mut behaviour: Box<dyn Behaviour>,
        attempt: Option<Attempt>,
    ) -> Option<TaskError> {
        let surroundings = &self.shared.surroundings;
        let limit = surroundings.clock.delay(surroundings.catalog.limits.end_time_max);
        let wrong = {
            let mut end = std::pin::pin!(tokio::time::timeout(limit, behaviour.end()));
            let running = attempt.and_then(running);
            let ended = std::future::poll_fn(|cx| {
                let poll = beacon::during(self.agent, running, || poll_caught(end.as_mut(), cx));
                poll.map_or(Poll::Ready(None), |poll| poll.map(Some))
            });
            match ended.await {
                Some(Ok(Ok(Ok(())))) => None,
                Some(Ok(Ok(Err(error)))) => Some(error),
                Some(Ok(Err(_))) => {
                    Some(TaskError::crashed("it took too long to end, and was dropped"))
                }
                Some(Err(report)) => Some(TaskError::crashed(format_args!(
                    "it panicked while it ended: {}",
                    report.message
                ))),
                // Its thread was given up: everybody knows, and it lives on elsewhere.
                None => None,
            }
        };
        self.drop_behaviour(incarnation, behaviour, attempt);
        wrong
    }
}

/// Returns the attempt that a record is about.
fn running(attempt: Attempt) -> Option<Running> {
    let token = attempt.token?;
    Some(Running { token, task: attempt.task, number: attempt.number })
}
