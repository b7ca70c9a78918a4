//! Keeps an actor's address and mailbox alive through its panics.
//!
//! actix drops an actor that panics, with all queued messages, and its own `Supervisor` restarts
//! only after `ctx.stop()`. [`Guard`] polls the actor's [`Cell`] under a catch; after a panic it parks
//! until somebody with authority gives a [`Verdict`], and a restart of the cell brings the actor back
//! behind the same address. Nothing of the actor is dropped while the stack unwinds.

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

/// An actor with its mailbox, as its guard polls it.
pub(crate) trait Cell {
    /// Begins the actor and lets it handle what it was sent; ready when it has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Has the actor begin anew at the next poll, its mailbox as it is; returns whether somebody can
    /// still send to it.
    fn restart(&mut self) -> bool;

    /// Has the actor end without its hooks: it may be torn.
    fn terminate(&mut self);
}

/// An actor in a context of actix. Its `restart()` is public since actix 0.13.2 for custom supervisors
/// (actix#567).
impl<A: Actor<Context = actix::Context<A>> + Supervised> Cell for ContextFut<A, actix::Context<A>> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(Pin::new(self), cx)
    }

    fn restart(&mut self) -> bool {
        ContextFut::restart(self)
    }

    fn terminate(&mut self) {
        self.ctx().terminate();
    }
}

/// A guarded actor; a future to be spawned on its arbiter.
pub(crate) struct Guard<C, F> {
    cell: Option<C>,
    parked: Option<LocalBoxFuture<'static, Verdict>>,
    on_crash: F,
    /// Whose cell it is; none: that of a control actor.
    agent: Option<AgentId>,
}

impl<C: Cell, F> Guard<C, F> {
    /// Guards an actor.
    pub(crate) fn new(cell: C, on_crash: F) -> Self {
        Self { cell: Some(cell), parked: None, on_crash, agent: None }
    }

    /// Guards the cell of an agent, which ends when its thread is fenced.
    pub(crate) fn of_agent(agent: AgentId, cell: C, on_crash: F) -> Self {
        Self { agent: Some(agent), ..Self::new(cell, on_crash) }
    }

    /// Returns the cell, unless it has ended.
    pub(crate) fn cell(&mut self) -> Option<&mut C> {
        self.cell.as_mut()
    }

    fn end(&mut self) -> Poll<()> {
        if let Some(mut cell) = self.cell.take() {
            cell.terminate();
            if let Err(report) = drop_caught(cell) {
                tracing::warn!(message = %report.message, "actor panicked while it was dropped");
            }
        }
        Poll::Ready(())
    }
}

impl<C, F> Unpin for Guard<C, F> {}

impl<C: Cell, F: OnCrash> Future for Guard<C, F> {
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

impl<C: Cell, F: OnCrash> Guard<C, F> {
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
                match caught(|| cell.poll(cx)) {
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
