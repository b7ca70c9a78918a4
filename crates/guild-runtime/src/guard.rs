//! Keeps an actor's address and mailbox alive through its panics.
//!
//! actix drops an actor that panics, with all queued messages, and its own `Supervisor` restarts
//! only after `ctx.stop()`. [`Guard`] polls the actor's `ContextFut` under a catch; after a panic
//! it parks until somebody with authority gives a [`Verdict`], and `ContextFut::restart()` (public
//! since actix 0.13.2 for custom supervisors, actix#567) brings the actor back behind the same
//! address. Nothing of the actor is dropped while the stack unwinds.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix::dev::ContextFut;
use actix::{Actor, ActorContext, Supervised};
use futures_util::future::LocalBoxFuture;

use guild_core::id::AgentId;

use crate::beacon;
use crate::panics::{PanicReport, caught, drop_caught};

/// What becomes of a crashed actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on: `restarting()`, then `started()`, then its queued messages.
    Restart,
    /// It ends; its mailbox closes.
    Stop,
}

/// Decides about a crash; the actor is parked until the future is ready.
pub(crate) trait OnCrash: FnMut(PanicReport) -> LocalBoxFuture<'static, Verdict> {}
impl<F: FnMut(PanicReport) -> LocalBoxFuture<'static, Verdict>> OnCrash for F {}

/// A guarded actor; a future to be spawned on its arbiter.
pub(crate) struct Guard<A: Actor<Context = actix::Context<A>>, F> {
    cell: Option<ContextFut<A, actix::Context<A>>>,
    parked: Option<LocalBoxFuture<'static, Verdict>>,
    on_crash: F,
    /// Whose cell it is; none: that of a control actor.
    agent: Option<AgentId>,
}

impl<A: Actor<Context = actix::Context<A>>, F> Guard<A, F> {
    /// Guards an actor.
    pub(crate) fn new(cell: ContextFut<A, actix::Context<A>>, on_crash: F) -> Self {
        Self { cell: Some(cell), parked: None, on_crash, agent: None }
    }

    /// Guards the cell of an agent, which ends when its thread is fenced.
    pub(crate) fn of_agent(
        agent: AgentId,
        cell: ContextFut<A, actix::Context<A>>,
        on_crash: F,
    ) -> Self {
        Self { agent: Some(agent), ..Self::new(cell, on_crash) }
    }

    fn end(&mut self) -> Poll<()> {
        if let Some(mut cell) = self.cell.take() {
            // A terminated context runs no hooks of a torn actor while it is dropped.
            cell.ctx().terminate();
            if let Err(report) = drop_caught(cell) {
                tracing::warn!(message = %report.message, "actor panicked while it was dropped");
            }
        }
        Poll::Ready(())
    }
}

impl<A: Actor<Context = actix::Context<A>>, F> Unpin for Guard<A, F> {}

impl<A, F> Future for Guard<A, F>
where
    A: Actor<Context = actix::Context<A>> + Supervised,
    F: OnCrash,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(agent) = this.agent else {
            return this.poll_cell(cx);
        };
        match beacon::during(agent, None, || this.poll_cell(cx)) {
            Some(poll) => poll,
            None => this.end(),
        }
    }
}

impl<A, F> Guard<A, F>
where
    A: Actor<Context = actix::Context<A>> + Supervised,
    F: OnCrash,
{
    fn poll_cell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(cell) = self.cell.as_mut() else {
                return Poll::Ready(());
            };
            let report = if let Some(parked) = self.parked.as_mut() {
                match ready!(parked.as_mut().poll(cx)) {
                    Verdict::Stop => return self.end(),
                    Verdict::Restart => self.parked = None,
                }
                match caught(|| cell.restart()) {
                    Ok(true) => continue,
                    Ok(false) => return self.end(),
                    Err(report) => report,
                }
            } else {
                match caught(|| Pin::new(cell).poll(cx)) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(())) => return self.end(),
                    Err(report) => report,
                }
            };
            self.parked = Some((self.on_crash)(report));
        }
    }
}

#[cfg(test)]
mod facts;
#[cfg(test)]
mod tests;
