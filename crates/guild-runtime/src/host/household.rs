//! Runs an agent as one future of its arbiter: its guarded actor, and the attempt that it performs.
//!
//! A task of the arbiter for every attempt would cost as much as everything else that is done for
//! one. The two are polled one after the other, each under its own catch: a panic of the one leaves
//! the other alone.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;

use super::AgentHost;
use crate::guard::{Guard, OnCrash};

/// An agent's actor and its attempt; ends when both have.
pub(super) struct Household<F> {
    /// None when it has ended.
    actor: Option<Guard<AgentHost, F>>,
    attempt: Option<LocalBoxFuture<'static, ()>>,
}

impl<F> Household<F> {
    /// Returns a household without an attempt.
    pub(super) fn new(actor: Guard<AgentHost, F>) -> Self {
        Self { actor: Some(actor), attempt: None }
    }
}

impl<F> Unpin for Household<F> {}

impl<F: OnCrash> Future for Household<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(actor) = &mut this.actor {
            if Pin::new(&mut *actor).poll(cx).is_ready() {
                this.actor = None;
            } else if let Some(begun) = actor.cell().and_then(AgentHost::take_begun) {
                debug_assert!(this.attempt.is_none(), "an agent performs one attempt at a time");
                this.attempt = Some(begun);
            }
        }
        if let Some(attempt) = &mut this.attempt
            && attempt.as_mut().poll(cx).is_ready()
        {
            this.attempt = None;
        }
        match (&this.actor, &this.attempt) {
            (None, None) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}
