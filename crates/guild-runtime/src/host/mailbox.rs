//! The mailbox of an agent's host.
//!
//! An address of actix is five allocations, which every idle agent would carry along, and two more for
//! each message. This one is a queue behind a lock: one allocation of 72 bytes, and room for
//! messages only while some wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::message::{Assign, HostMessage};

/// Where a host is reached; every clone leads to the same mailbox.
#[derive(Clone)]
pub(crate) struct HostAddr(Arc<Mailbox>);

/// Where a host takes its messages out. When it is dropped with its host the mailbox closes: what
/// waits and what comes later is dropped.
pub(crate) struct HostInbox(Arc<Mailbox>);

/// None when the host has ended.
struct Mailbox(Mutex<Option<Queue>>);

#[derive(Default)]
struct Queue {
    messages: VecDeque<HostMessage>,
    /// Wakes the host; none: it looks anyway.
    waker: Option<Waker>,
}

/// Why an assignment was not taken.
pub(crate) enum Undelivered {
    /// The agent lives and is only slow to read.
    Full(Assign),
    /// The host has ended; the assignment was dropped, and with it its lease, which hands the task back.
    Closed,
}

/// Returns both ends of a mailbox, for a host that is spawned elsewhere.
pub(crate) fn host_mailbox() -> (HostAddr, HostInbox) {
    let mailbox = Arc::new(Mailbox(Mutex::new(Some(Queue::default()))));
    (HostAddr(Arc::clone(&mailbox)), HostInbox(mailbox))
}

impl HostAddr {
    /// Sends an assignment unless `room` messages wait already.
    pub(crate) fn assign(&self, assign: Assign, room: usize) -> Result<(), Undelivered> {
        let mut queue = self.0.queue();
        match queue.as_mut() {
            None => return Err(Undelivered::Closed),
            Some(open) if open.messages.len() >= room => return Err(Undelivered::Full(assign)),
            Some(open) => open.messages.push_back(HostMessage::Assign(assign)),
        }
        wake(queue);
        Ok(())
    }

    /// Sends an order, which must not be lost and so finds room always: there are as many as
    /// lives, leases and faults. Returns whether the host lives.
    pub(crate) fn order(&self, order: HostMessage) -> bool {
        let mut queue = self.0.queue();
        let Some(open) = queue.as_mut() else {
            return false;
        };
        open.messages.push_back(order);
        wake(queue);
        true
    }
}

/// Wakes the host behind a mailbox outside of its lock.
fn wake(mut queue: MutexGuard<'_, Option<Queue>>) {
    let waker = queue.as_mut().and_then(|open| open.waker.take());
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl HostInbox {
    /// Takes the oldest message; when there is none, whoever sends the next one wakes the host.
    pub(super) fn take(&self, waker: &Waker) -> Option<HostMessage> {
        let mut queue = self.0.queue();
        let open = queue.as_mut()?;
        let message = open.messages.pop_front();
        if open.messages.is_empty() {
            open.messages = VecDeque::new();
        }
        if message.is_none() && open.waker.is_none() {
            open.waker = Some(waker.clone());
        }
        message
    }
}

impl Drop for HostInbox {
    fn drop(&mut self) {
        // Outside of the lock: leases that wait in there are given back.
        let left = self.0.queue().take();
        drop(left);
    }
}

impl Mailbox {
    fn queue(&self) -> MutexGuard<'_, Option<Queue>> {
        // A queue is whole after every operation on it, so a poisoned lock holds good data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use guild_core::id::Incarnation;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn stop(life: u64) -> HostMessage {
        HostMessage::Stop { incarnation: Incarnation(life) }
    }

    fn life_of(message: Option<HostMessage>) -> u64 {
        let Some(HostMessage::Stop { incarnation }) = message else {
            panic!("no stop was sent");
        };
        incarnation.0
    }

    #[test]
    fn orders_come_in_order_and_only_the_first_one_wakes_a_host_that_waits() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let (address, inbox) = host_mailbox();
        assert!(address.order(stop(1)), "before the host looks for the first time");
        assert_eq!(life_of(inbox.take(&waker)), 1);
        assert!(inbox.take(&waker).is_none());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);

        for life in 2..5 {
            assert!(address.order(stop(life)));
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!([(); 3].map(|()| life_of(inbox.take(&waker))), [2, 3, 4]);
        assert!(inbox.take(&waker).is_none());
        assert!(address.clone().order(stop(5)));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn mailbox_that_was_emptied_keeps_no_room_and_one_whose_host_has_ended_is_closed() {
        let (address, inbox) = host_mailbox();
        assert!(address.order(stop(1)));
        assert!(inbox.take(Waker::noop()).is_some());
        let room = inbox.0.queue().as_ref().map(|open| open.messages.capacity());
        assert_eq!(room, Some(0));

        drop(inbox);
        assert!(!address.order(HostMessage::Retire));
    }
}
