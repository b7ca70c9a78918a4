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

/// Where messages for one actor are put; every clone is the same queue.
pub(crate) struct Inbox<T>(Arc<Shared<T>>);

/// Where the actor takes them out. When it is dropped with its actor the inbox closes: what waits
/// and what comes later is dropped, so that whoever waits for an answer learns that there is none.
pub(crate) struct Outlet<T>(Inbox<T>);

struct Shared<T> {
    /// None when the actor has ended.
    queue: Mutex<Option<Vec<T>>>,
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
        Self(Arc::new(Shared { queue: Mutex::new(Some(Vec::new())), owner: OnceLock::new() }))
    }

    /// Returns the actor's end; there is one for each inbox.
    pub(crate) fn outlet(&self) -> Outlet<T> {
        Outlet(self.clone())
    }

    /// Adds a message of the control plane. How many there can be is bounded by their senders:
    /// one result per agent, `commits_in_flight_max` commits, one report per crash.
    pub(crate) fn push(&self, message: T) {
        self.add(|queue| queue.push(message));
    }

    /// Adds several messages in order, with one wake.
    pub(crate) fn push_all(&self, messages: &mut Vec<T>) {
        if !messages.is_empty() {
            self.add(|queue| queue.append(messages));
        }
    }

    /// Adds a message from outside unless `capacity` wait already.
    pub(crate) fn try_push(&self, message: T, capacity: usize) -> Result<(), Full> {
        let mut result = Ok(());
        self.add(|queue| {
            if queue.len() < capacity {
                queue.push(message);
            } else {
                result = Err(Full);
            }
        });
        result
    }

    fn add(&self, change: impl FnOnce(&mut Vec<T>)) {
        let was_empty = match self.queue().as_mut() {
            None => return,
            Some(queue) => {
                let was_empty = queue.is_empty();
                change(queue);
                was_empty && !queue.is_empty()
            }
        };
        if was_empty {
            self.wake();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Option<Vec<T>>> {
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

impl<T> Outlet<T> {
    /// Names the actor that empties the inbox.
    pub(crate) fn bind(&self, owner: Recipient<Wake>) {
        // After a restart of the actor the owner is known already. In both cases what waits is
        // looked at after the owner is known: whoever adds later finds it.
        self.0.0.owner.get_or_init(|| owner);
        if self.0.queue().as_ref().is_some_and(|queue| !queue.is_empty()) {
            self.0.wake();
        }
    }

    /// Takes all messages into `batch`, which must be empty; its room is reused for the next ones.
    pub(crate) fn take(&self, batch: &mut Vec<T>) {
        debug_assert!(batch.is_empty(), "a batch is taken into an empty vector");
        if let Some(queue) = self.0.queue().as_mut() {
            std::mem::swap(queue, batch);
        }
    }

    /// Returns the end where messages are put in.
    pub(crate) fn inbox(&self) -> Inbox<T> {
        self.0.clone()
    }
}

/// Returns an emptied batch for the next turn, without the room that only a burst has needed.
pub(crate) fn recycled<T>(mut batch: Vec<T>) -> Vec<T> {
    debug_assert!(batch.is_empty(), "every message of a batch is handled in its turn");
    batch.shrink_to(ROOM_KEPT);
    batch
}

/// Messages for which an inbox keeps room between its turns.
const ROOM_KEPT: usize = 16_384;

impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        // The messages are dropped outside of the lock: their destructors may send answers.
        let left = self.0.queue().take();
        drop(left);
    }
}
