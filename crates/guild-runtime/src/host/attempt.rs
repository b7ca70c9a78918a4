//! Performs one attempt: the agent's work in a guarded future, with the faults that chaos wants.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use guild_core::event::{Cause, Severity};
use guild_core::id::{FencingToken, TaskId, TaskIndex};
use guild_core::payload::Payload;
use guild_core::planner::AttemptResult;
use tracing::Instrument;

use super::{Lease, Revoked, Slot, Struck};
use crate::agent::{Behaviour, TaskError};
use crate::context::{Subject, TaskContext};
use crate::fault::{Fault, Site};
use crate::incidents::Report;
use crate::message::{Assign, Ended, HandedIn, MemoryMessage, SchedulerMessage, SupervisorMessage};
use crate::panics::{PanicReport, caught, poll_caught};

/// How the guarded future of an attempt ended.
enum End {
    Output(Payload),
    Error(TaskError),
    Panic(PanicReport),
    Revoked(Revoked),
}

/// Performs what was assigned and reports the outcome.
pub(super) async fn perform(slot: Rc<Slot>, mut behaviour: Box<dyn Behaviour>, assign: Assign) {
    let Assign { mut lease, input, deadline } = assign;
    let mut context = TaskContext::new(
        Arc::clone(&slot.shared.surroundings),
        (lease.agent, lease.task, lease.attempt, lease.token),
        deadline,
    );
    slot.fault.set(None);
    let end = {
        let span = context.span();
        let work = work(&mut *behaviour, input, &mut context, &slot).instrument(span);
        run_until_revoked(&slot, lease.token, work).await
    };
    slot.running.set(None);
    let task = Some((lease.task, lease.attempt));
    // The scheduler knows of what it has revoked itself, but not of what a supervisor stops.
    let revoked = matches!(&end, End::Revoked(revoked) if revoked.ended != Ended::Stopped);
    let struck = Struck { task, fault: slot.fault.take(), revoked };
    match end {
        End::Output(output) => {
            // What happens from here on is the consequence of a fault that is still under way.
            slot.fault.set(struck.fault);
            *slot.behaviour.borrow_mut() = Some(behaviour);
            let retires = context.retires();
            match context.into_work(output) {
                Ok(work) => hand_in(&slot, lease, work),
                Err(error) => lease.finish(failed(&error)),
            }
            slot.survived(retires);
        }
        End::Error(error) if error.is_crash() => {
            let message: Box<str> = error.to_string().into();
            lease.settle();
            slot.drop_behaviour(behaviour, task);
            let report = PanicReport { message, location: None };
            slot.end_life(Ended::Failed(error.cause()), report, struck, None);
        }
        End::Error(error) => {
            *slot.behaviour.borrow_mut() = Some(behaviour);
            lease.finish(failed(&error));
            slot.survived(context.retires());
        }
        End::Panic(report) => {
            lease.settle();
            slot.drop_behaviour(behaviour, task);
            slot.end_life(Ended::Failed(Cause::Panic), report, struck, None);
        }
        End::Revoked(revoked) => {
            lease.settle();
            slot.drop_behaviour(behaviour, task);
            if revoked.tell {
                slot.end_life(revoked.ended, revocation(revoked.ended), struck, None);
            }
        }
    }
}

/// What a life tells its supervisor that did not end by itself.
pub(super) fn revocation(ended: Ended) -> PanicReport {
    let message = match ended {
        Ended::Failed(Cause::Heartbeat) => "no heartbeat in time",
        Ended::Failed(_) => "the attempt took longer than its timeout",
        Ended::Cancelled => "the attempt was cancelled",
        Ended::Stopped => "its supervisor stopped it with others that it belongs to",
        Ended::Retired => "it has ended its life in order",
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
    /// Goes on after an attempt that the agent has survived: its probation is over, and it may want
    /// to end its life.
    fn survived(&self, retires: bool) {
        if self.probing.take() {
            self.shared.supervisor.push(SupervisorMessage::ChildPassed { agent: self.agent });
        }
        if retires {
            let ended = Ended::Retired;
            self.end_life(ended, revocation(ended), Struck::default(), None);
        }
    }

    /// Drops the behaviour of a life that is over. A panic in there harms nobody, and a person is
    /// told: it is a bug of the agent.
    pub(super) fn drop_behaviour(
        &self,
        behaviour: Box<dyn Behaviour>,
        task: Option<(TaskId, u32)>,
    ) {
        let surroundings = &self.shared.surroundings;
        let subject = Subject { agent: Some(self.agent), task };
        let struck = surroundings.strike(Site::Dropped, subject);
        let dropped = caught(move || {
            drop(behaviour);
            if let Some((Fault::Crash, number)) = struck {
                panic!("injected crash {number}");
            }
        });
        let Err(panic) = dropped else { return };
        tracing::warn!(agent = self.agent.index, message = %panic.message, "agent panicked while it was dropped");
        let report = Report {
            kind: "drop_panicked",
            severity: Severity::Warning,
            cause: Cause::Panic,
            message: panic.message,
            location: panic.location,
            agent: self.incarnation.get().map(|incarnation| (self.agent, incarnation)),
            task,
            fault: struck.map(|(_, number)| number),
            action: "the agent's life was over already".into(),
        };
        let event = surroundings.incidents.open(surroundings.clock.now(), report);
        surroundings.memory.push(MemoryMessage::Record(event));
    }
}

/// The agent's work, with the faults that chaos wants.
async fn work(
    behaviour: &mut dyn Behaviour,
    input: Payload,
    context: &mut TaskContext,
    slot: &Slot,
) -> Result<Payload, TaskError> {
    let subject = Subject::attempt(slot.agent, context.task_id(), context.attempt());
    strike(Site::BeforePerform, subject, slot).await?;
    let surroundings = Arc::clone(&slot.shared.surroundings);
    let blow = surroundings.decide(Site::InPerform, subject);
    let mut work = pin!(behaviour.perform(input, context));
    let output = match blow {
        None => work.await?,
        Some(blow) => {
            let delay = surroundings.clock.delay(blow.after);
            match tokio::time::timeout(delay, work.as_mut()).await {
                Ok(output) => output?,
                Err(_) => {
                    let number = surroundings.record(&blow, Site::InPerform, subject);
                    suffer(blow.fault, number, Site::InPerform, slot).await?;
                    work.await?
                }
            }
        }
    };
    strike(Site::AfterPerform, subject, slot).await?;
    Ok(output)
}

/// Carries out the fault that strikes an attempt here, if any.
async fn strike(site: Site, subject: Subject, slot: &Slot) -> Result<(), TaskError> {
    match slot.shared.surroundings.strike(site, subject) {
        None => Ok(()),
        Some((fault, number)) => suffer(fault, number, site, slot).await,
    }
}

/// Carries out a fault on the attempt under way.
async fn suffer(fault: Fault, number: u64, site: Site, slot: &Slot) -> Result<(), TaskError> {
    let surroundings = &slot.shared.surroundings;
    slot.fault.set(Some(number));
    match fault {
        Fault::Crash => panic!("injected crash {number}"),
        Fault::Exit => return Err(TaskError::gone(format_args!("injected exit {number}"))),
        Fault::Hang => std::future::pending().await,
        Fault::Slow(delay) => tokio::time::sleep(surroundings.clock.delay(delay)).await,
        Fault::Stall(delay) => {
            if let Some(faults) = &surroundings.faults {
                faults.stall(surroundings.clock.delay(delay)).await;
            }
        }
        Fault::CrashQueued
        | Fault::Lose
        | Fault::Repeat
        | Fault::Delay(_)
        | Fault::Reorder(_)
        | Fault::Refuse
        | Fault::WrongResult => {
            tracing::debug!(site = site.name(), "fault strikes where it can do nothing");
        }
    }
    Ok(())
}

/// Sends the result of an attempt on its way, through what chaos does to messages.
fn hand_in(slot: &Slot, mut lease: Lease, work: HandedIn) {
    let surroundings = &slot.shared.surroundings;
    let subject = Subject::attempt(slot.agent, lease.task, lease.attempt);
    let mut latency = surroundings.latency(Site::HandIn, subject);
    if let Some((fault, number)) = surroundings.strike(Site::HandIn, subject) {
        slot.fault.set(Some(number));
        match fault {
            Fault::Lose => return lease.settle(),
            Fault::Repeat => lease.repeat(work.clone()),
            Fault::WrongResult => {
                let result = wrong(lease.result(work));
                return lease.end_with(result);
            }
            Fault::Reorder(behind) => {
                let result = Box::new(lease.result(work));
                return lease.end_with(SchedulerMessage::Late { behind, result });
            }
            Fault::Delay(delay) => latency = delay,
            _ => tracing::debug!("fault strikes where it can do nothing"),
        }
    }
    let result = lease.result(work);
    if latency.is_zero() {
        return lease.end_with(result);
    }
    let latency = surroundings.clock.delay(latency);
    actix_rt::spawn(async move {
        tokio::time::sleep(latency).await;
        lease.end_with(result);
    });
}

/// Returns the result of an agent that answers for a task it was not given.
fn wrong(result: SchedulerMessage) -> SchedulerMessage {
    match result {
        SchedulerMessage::HandIn { agent, incarnation, mut task, mut token, work } => {
            match task.index {
                TaskIndex(0) => token = FencingToken(token.0.saturating_sub(1)),
                _ => task.index = TaskIndex(0),
            }
            SchedulerMessage::HandIn { agent, incarnation, task, token, work }
        }
        other => other,
    }
}

/// Polls the work under a catch until it ends or its lease is revoked; drops it under a catch too.
async fn run_until_revoked(
    slot: &Slot,
    token: FencingToken,
    work: impl Future<Output = Result<Payload, TaskError>>,
) -> End {
    let mut work = pin!(Some(work));
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
