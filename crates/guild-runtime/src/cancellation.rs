//! Tells work that an attempt cannot end by itself that the attempt is over.
//!
//! A revoked attempt loses its future at the next await, and everything that the future owns. What it
//! has handed to other threads goes on, and so does a loop without an await: they ask here. The
//! scheduler sets the flag on its own thread, so a loop that keeps the agent's thread hears of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::id::FencingToken;

/// Says whether an attempt is over; every clone is about the same attempt, and can go to any thread.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Returns whether the attempt is over: cancelled, timed out, crashed, shut down or done.
    /// Nothing that is done for it from now on counts.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The attempts that want to know; every clone is the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancellations(Arc<Mutex<BTreeMap<FencingToken, Cancellation>>>);

impl Cancellations {
    /// Watches the attempt of this lease until the watch is dropped, which ends the attempt.
    pub(crate) fn watch(&self, token: FencingToken) -> Watch {
        let cancellation = Cancellation::default();
        self.watched().insert(token, cancellation.clone());
        Watch { cancellation, token, list: self.clone() }
    }

    /// Ends the attempt of this lease.
    pub(crate) fn cancel(&self, token: FencingToken) {
        if let Some(cancellation) = self.watched().remove(&token) {
            cancellation.cancel();
        }
    }

    /// Ends all attempts.
    pub(crate) fn cancel_all(&self) {
        let watched = std::mem::take(&mut *self.watched());
        watched.values().for_each(Cancellation::cancel);
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<FencingToken, Cancellation>> {
        // The list is whole after every operation on it, so a poisoned lock holds good data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    cancellation: Cancellation,
    token: FencingToken,
    list: Cancellations,
}

impl Watch {
    pub(crate) fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cancellation.cancel();
        self.list.cancel(self.token);
    }
}
