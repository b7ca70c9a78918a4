//! Performs one attempt: a future of its own, polled under a catch until it ends or is interrupted.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;
use guild_core::event::Cause;
use guild_core::id::{FencingToken, TaskIndex};
use guild_core::incident::Attempt;
use guild_core::payload::Payload;
use guild_core::planner::AttemptResult;
use guild_memory::Completion;
use tracing::Span;

use super::slot::{Interruption, Revoked, Revoker, Running, Slot, Struck};
use crate::agent::{Behaviour, TaskError};
use crate::beacon;
use crate::context::{Subject, TaskContext};
use crate::failure::Failure;
use crate::fault::{Fault, Site, Strike};
use crate::incidents::Details;
use crate::lease::Lease;
use crate::message::{Assign, Ended, SchedulerMessage};
use crate::panics::{PanicReport, caught, poll_caught};

/// How the guarded future of an attempt ended.
enum End {
    Output(Payload),
    Error(TaskError),
    Panic(PanicReport),
    Revoked(Revoked),
    /// Its thread was given up while it was blocked: everybody knows, and it lives on elsewhere.
    Fenced,
}

/// Performs what was assigned, and reports how it ended. The agent's work is polled under a catch
/// until it ends or is interrupted, and is dropped under a catch too.
pub(super) fn perform(
    slot: Rc<Slot>,
    mut behaviour: Box<dyn Behaviour>,
    Assign { lease, input, deadline }: Assign,
) -> impl Future<Output = ()> {
    let mut context = TaskContext::new(
        Arc::clone(&slot.shared.surroundings),
        (lease.agent, lease.task, lease.attempt, lease.token),
        deadline,
    );
    slot.take_fault();
    let under_way = beacon::UnderWay::begin();
    // No `async fn`: that would keep its arguments beside what becomes of them.
    async move {
        let _under_way = under_way;
        let end = {
            let (span, running) = (context.span(), Running::of(&lease));
            let mut work = pin!(Some(work(&mut *behaviour, input, &mut context, &slot)));
            let end = poll_fn(|cx| poll(&slot, running, &span, work.as_mut(), cx)).await;
            let drop = || caught(|| span.in_scope(|| work.set(None)));
            if let Err(report) = beacon::always(slot.agent, Some(running), drop) {
                tracing::warn!(message = %report.message, "an attempt panicked while it was dropped");
            }
            end
        };
        let (incarnation, token) = (lease.incarnation, lease.token);
        match end {
            End::Output(output) => {
                slot.rest();
                slot.behaviour.set(Some(behaviour));
                // What happens from here on is the consequence of a fault that is still under way.
                let (record, retires) = (record(&lease, &context), context.retires());
                match context.into_completion(&lease, output) {
                    Ok(work) => hand_in(&slot, lease, work),
                    Err(error) => fail(&slot, lease, record, &error),
                }
                slot.survived(incarnation, token, retires);
            }
            End::Error(error) if error.is_crash() => {
                let failure = Failure::erred(error.cause(), &error);
                crash(&slot, lease, &context, behaviour, failure);
            }
            End::Error(error) => {
                slot.rest();
                slot.take_fault();
                slot.behaviour.set(Some(behaviour));
                let record = record(&lease, &context);
                fail(&slot, lease, record, &error);
                slot.survived(incarnation, token, context.retires());
            }
            End::Panic(report) => {
                let failure = Failure::panicked(Cause::Panic, report);
                crash(&slot, lease, &context, behaviour, failure);
            }
            End::Fenced => fence(&slot, lease, &context, behaviour),
            // Seldom, and large: the room for it is not kept in every attempt.
            End::Revoked(revoked) => {
                Box::pin(revoke(&slot, lease, &context, behaviour, revoked)).await;
            }
        }
    }
}

/// Polls the work of an attempt until it ends or is interrupted.
fn poll(
    slot: &Slot,
    running: Running,
    span: &Span,
    work: Pin<&mut Option<impl Future<Output = Result<Payload, TaskError>>>>,
    cx: &mut Context<'_>,
) -> Poll<End> {
    if let Some(end) = interrupted(slot, running.token) {
        return Poll::Ready(end);
    }
    let Some(work) = work.as_pin_mut() else {
        return Poll::Pending;
    };
    let poll = || span.in_scope(|| poll_caught(work, cx));
    let Some(poll) = beacon::during(slot.agent, Some(running), poll) else {
        return Poll::Ready(End::Fenced);
    };
    match poll {
        Poll::Ready(Ok(Ok(output))) => Poll::Ready(End::Output(output)),
        Poll::Ready(Ok(Err(error))) => Poll::Ready(End::Error(error)),
        Poll::Ready(Err(report)) => Poll::Ready(End::Panic(report)),
        Poll::Pending => {
            let known = slot.waker.take().filter(|known| known.will_wake(cx.waker()));
            slot.waker.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
            // The work itself may have ended its life, when nobody could be woken yet.
            interrupted(slot, running.token).map_or(Poll::Pending, Poll::Ready)
        }
    }
}

/// The record of an attempt that failed.
fn record(lease: &Lease, context: &TaskContext) -> Attempt {
    Attempt {
        task: lease.task,
        number: lease.attempt,
        token: Some(lease.token),
        last_heartbeat: context.last_heartbeat(),
        discarded: context.discarded(),
    }
}

/// Fails an attempt whose agent lives on.
fn fail(slot: &Slot, mut lease: Lease, attempt: Attempt, error: &TaskError) {
    let (reason, causes) = (error.reason(), error.causes().to_vec());
    slot.shared.surroundings.incidents.attempt_failed(Details { attempt, reason, causes });
    lease.finish(AttemptResult::Failed {
        cause: error.cause(),
        message: error.to_string().into(),
        retryable: error.is_retryable(),
        retry_after: error.retry_after(),
    });
}

/// Ends the life of an agent together with its attempt.
fn crash(
    slot: &Slot,
    mut lease: Lease,
    context: &TaskContext,
    behaviour: Box<dyn Behaviour>,
    failure: Failure,
) {
    slot.rest();
    slot.take_leaving();
    let attempt = Some(record(&lease, context));
    let struck = Struck { attempt, fault: slot.take_fault(), revoked: false };
    lease.settle();
    slot.drop_behaviour(lease.incarnation, behaviour, attempt);
    slot.end_life(lease.incarnation, Ended::Failed(failure), struck, None);
}

/// Drops what is left of an attempt on a thread that was given up: its agent lives on elsewhere.
fn fence(slot: &Slot, mut lease: Lease, context: &TaskContext, behaviour: Box<dyn Behaviour>) {
    slot.rest();
    let attempt = Some(record(&lease, context));
    lease.settle();
    slot.end();
    slot.drop_behaviour(lease.incarnation, behaviour, attempt);
}

/// Ends the life of an agent whose lease was taken back.
async fn revoke(
    slot: &Slot,
    mut lease: Lease,
    context: &TaskContext,
    behaviour: Box<dyn Behaviour>,
    revoked: Revoked,
) {
    let (incarnation, attempt) = (lease.incarnation, Some(record(&lease, context)));
    // The scheduler does not know of what a supervisor stops.
    let is_known = revoked.by == Revoker::Scheduler;
    let struck = Struck { attempt, fault: slot.take_fault(), revoked: is_known };
    slot.take_leaving();
    lease.settle();
    if revoked.by == Revoker::Host {
        // The next life may begin at any time, and no host has two behaviours.
        slot.rest();
        return slot.drop_behaviour(incarnation, behaviour, attempt);
    }
    let wrong = slot.end_behaviour(incarnation, behaviour, attempt).await;
    slot.rest();
    let ended = match (revoked.cause.map(Failure::revoked), wrong) {
        (Some(mut failure), Some(wrong)) => {
            failure.and(wrong.to_string());
            Ended::Failed(failure)
        }
        (Some(failure), None) => Ended::Failed(failure),
        // Nobody is to blame for a cancellation or a stop, but for a bad end.
        (None, Some(wrong)) => Ended::Failed(Failure::erred(Cause::AgentLost, &wrong)),
        (None, None) if is_known => Ended::Cancelled,
        (None, None) => Ended::Stopped,
    };
    slot.end_life(incarnation, ended, struck, None);
}

/// The agent's work, with the faults that chaos wants.
async fn work(
    behaviour: &mut dyn Behaviour,
    input: Payload,
    context: &mut TaskContext,
    slot: &Slot,
) -> Result<Payload, TaskError> {
    let subject = Subject::attempt(slot.agent, context.task_id(), context.attempt());
    let surroundings = &slot.shared.surroundings;
    // What chaos does is boxed: the room for it is not kept in every attempt.
    if let Some((fault, number)) = surroundings.strike(Site::BeforePerform, subject) {
        Box::pin(suffer(fault, number, Site::BeforePerform, slot)).await?;
    }
    let blow = surroundings.decide(Site::InPerform, subject);
    let work = behaviour.perform(input, context);
    let output = match blow {
        None => work.await?,
        Some(blow) => Box::pin(struck(work, blow, subject, slot)).await?,
    };
    if let Some((fault, number)) = surroundings.strike(Site::AfterPerform, subject) {
        Box::pin(suffer(fault, number, Site::AfterPerform, slot)).await?;
    }
    Ok(output)
}

/// The agent's work, in the middle of which a fault strikes.
async fn struck(
    mut work: LocalBoxFuture<'_, Result<Payload, TaskError>>,
    blow: Strike,
    subject: Subject,
    slot: &Slot,
) -> Result<Payload, TaskError> {
    let surroundings = &slot.shared.surroundings;
    let delay = surroundings.clock.delay(blow.after);
    if let Ok(output) = tokio::time::timeout(delay, work.as_mut()).await {
        return output;
    }
    let number = surroundings.record(&blow, Site::InPerform, subject);
    suffer(blow.fault, number, Site::InPerform, slot).await?;
    work.await
}

/// Carries out a fault on the attempt under way.
async fn suffer(fault: Fault, number: u64, site: Site, slot: &Slot) -> Result<(), TaskError> {
    let surroundings = &slot.shared.surroundings;
    slot.strike(number);
    beacon::strike(number);
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
fn hand_in(slot: &Slot, mut lease: Lease, mut work: Completion) {
    let surroundings = &slot.shared.surroundings;
    let subject = Subject::attempt(slot.agent, lease.task, lease.attempt);
    let mut latency = surroundings.latency(Site::HandIn, subject);
    if let Some((fault, number)) = surroundings.strike(Site::HandIn, subject) {
        slot.strike(number);
        match fault {
            Fault::Lose => return lease.settle(),
            Fault::Repeat => lease.repeat(work.clone()),
            Fault::WrongResult => {
                mistake(&mut work);
                return lease.end_with(SchedulerMessage::HandIn(work));
            }
            Fault::Reorder(behind) => {
                return lease.end_with(SchedulerMessage::Late { behind, result: work });
            }
            Fault::Delay(delay) => latency = delay,
            _ => tracing::debug!("fault strikes where it can do nothing"),
        }
    }
    let result = SchedulerMessage::HandIn(work);
    if latency.is_zero() {
        return lease.end_with(result);
    }
    let latency = surroundings.clock.delay(latency);
    actix_rt::spawn(async move {
        tokio::time::sleep(latency).await;
        lease.end_with(result);
    });
}

/// Makes the result that of a task which the agent was not given.
fn mistake(work: &mut Completion) {
    match work.task.index {
        TaskIndex(0) => work.token = FencingToken(work.token.0.saturating_sub(1)),
        _ => work.task.index = TaskIndex(0),
    }
}

/// Returns how the attempt ends that was interrupted.
fn interrupted(slot: &Slot, token: FencingToken) -> Option<End> {
    match slot.take_interruption().filter(|found| found.token() == token)? {
        Interruption::Revoked(revoked) => Some(End::Revoked(revoked)),
        Interruption::Died(_, error) => Some(End::Error(error.into_crash())),
    }
}
