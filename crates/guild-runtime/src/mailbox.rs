//! Hands messages to an actor in groups.
//!
//! Waking another thread costs a hundred times what a message costs, so senders put messages into
//! an [`Inbox`] and only the one that finds it empty wakes the actor. The actor takes all that came in
//! meanwhile at once: one wake, one turn, many messages. What watches the inbox is a future of the
//! actor's context: a wake is no message, so it costs no allocation and no mailbox.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use actix::fut::ActorFuture;
use actix::{Actor, AsyncContext};

/// An actor with an inbox.
pub(crate) trait Attend: Actor {
    /// Handles everything that is in the inbox.
    fn turn(&mut self, context: &mut Self::Context);
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
    /// Wakes the actor that empties it, once that lives.
    owner: Mutex<Option<Waker>>,
}

/// Gives the actor a turn whenever its inbox is not empty.
struct Attendance<T> {
    inbox: Inbox<T>,
    /// What the inbox wakes it by.
    waker: Option<Waker>,
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Inbox<T> {
    /// Returns an inbox whose actor does not live yet; messages wait for it.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { queue: Mutex::new(Some(Vec::new())), owner: Mutex::new(None) }))
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
        if was_empty && let Some(owner) = &*self.owner() {
            owner.wake_by_ref();
        }
    }

    fn is_empty(&self) -> bool {
        self.queue().as_ref().is_none_or(Vec::is_empty)
    }

    fn queue(&self) -> MutexGuard<'_, Option<Vec<T>>> {
        // A vector is whole after every operation on it, so a poisoned lock holds good data.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owner(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Outlet<T> {
    /// Has the actor of this context empty the inbox from now on.
    pub(crate) fn attend<A: Attend>(&self, context: &mut A::Context)
    where
        A::Context: AsyncContext<A>,
        T: 'static,
    {
        context.spawn(Attendance { inbox: self.0.clone(), waker: None });
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

impl<A: Attend, T> ActorFuture<A> for Attendance<T> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut A::Context,
        task: &mut Context<'_>,
    ) -> Poll<()> {
        let this = self.get_mut();
        if !this.waker.as_ref().is_some_and(|known| known.will_wake(task.waker())) {
            this.waker = Some(task.waker().clone());
            this.inbox.owner().clone_from(&this.waker);
        }
        // Whoever adds from here on wakes the actor; what came in before is found now.
        if !this.inbox.is_empty() {
            actor.turn(context);
        }
        Poll::Pending
    }
}

/// Returns an emptied batch for the next turn, without the room that only a burst has needed.
pub(crate) fn recycled<T>(mut batch: Vec<T>) -> Vec<T> {
    debug_assert!(batch.is_empty(), "every message of a batch is handled in its turn");
    batch.shrink_to(ROOM_KEPT);
    batch
}

/// Messages for which an inbox keeps room between its turns.
const ROOM_KEPT: usize = 1_024;

impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        // The messages are dropped outside of the lock: their destructors may send answers.
        let left = self.0.queue().take();
        drop(left);
    }
}
