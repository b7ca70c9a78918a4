//! Hands messages to an actor in groups.
//!
//! Waking another thread costs a hundred times what a message costs, so senders put messages into
//! an [`Inbox`] and only the one that finds it empty sends the actor a [`Wake`]. The actor takes
//! all that came in meanwhile at once: one wake, one turn, many messages.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use actix::{Message, Recipient};

/// Tells an actor that its inbox is no longer empty.
#[derive(Debug)]
pub(crate) struct Wake;

impl Message for Wake {
    type Result = ();
}

/// The inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A queue of messages for one actor; every clone is the same queue.
pub(crate) struct Inbox<T>(Arc<Shared<T>>);

struct Shared<T> {
    queue: Mutex<Vec<T>>,
    owner: OnceLock<Recipient<Wake>>,
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Inbox<T> {
    /// Returns an inbox whose actor does not live yet; messages wait for it.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { queue: Mutex::new(Vec::new()), owner: OnceLock::new() }))
    }

    /// Names the actor that empties the inbox.
    pub(crate) fn bind(&self, owner: Recipient<Wake>) {
        if self.0.owner.set(owner).is_ok() && !self.queue().is_empty() {
            self.wake();
        }
    }

    /// Adds a message of the control plane. How many there can be is bounded by their senders:
    /// one result per agent, `commits_in_flight_max` commits, one report per crash.
    pub(crate) fn push(&self, message: T) {
        let was_empty = {
            let mut queue = self.queue();
            queue.push(message);
            queue.len() == 1
        };
        if was_empty {
            self.wake();
        }
    }

    /// Adds several messages in order, with one wake.
    pub(crate) fn push_all(&self, messages: &mut Vec<T>) {
        if messages.is_empty() {
            return;
        }
        let was_empty = {
            let mut queue = self.queue();
            let was_empty = queue.is_empty();
            queue.append(messages);
            was_empty
        };
        if was_empty {
            self.wake();
        }
    }

    /// Adds a message from outside unless `capacity` wait already.
    pub(crate) fn try_push(&self, message: T, capacity: usize) -> Result<(), Full> {
        let was_empty = {
            let mut queue = self.queue();
            if queue.len() >= capacity {
                return Err(Full);
            }
            queue.push(message);
            queue.len() == 1
        };
        if was_empty {
            self.wake();
        }
        Ok(())
    }

    /// Takes all messages into `batch`, which must be empty; its room is reused for the next ones.
    pub(crate) fn take(&self, batch: &mut Vec<T>) {
        debug_assert!(batch.is_empty(), "a batch is taken into an empty vector");
        std::mem::swap(&mut *self.queue(), batch);
    }

    fn queue(&self) -> MutexGuard<'_, Vec<T>> {
        // A vector is whole after every operation on it, so a poisoned lock holds good data.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(owner) = self.0.owner.get() {
            // At most one wake is under way for each time the inbox was emptied, so a full mailbox
            // means that the actor will look anyway; a closed one that it has ended.
            if let Err(error) = owner.try_send(Wake) {
                tracing::trace!(%error, "actor was not woken");
            }
        }
    }
}
