//! Shows a watchdog what a thread of agents is doing: a stamp at the beginning and the end of every
//! poll of an agent.
//!
//! The stamps have one writer, the thread itself, and cost a few stores; the watchdog only reads
//! them. It can fence the thread: from then on no poll of an agent begins on it.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use guild_core::id::AgentId;
use guild_core::supervision::Look;
use guild_core::time::micros;

/// What one thread shows.
#[derive(Debug, Default)]
pub(crate) struct Beacon {
    /// Beginnings and ends of polls: odd while one is under way.
    stamps: AtomicU64,
    /// Who is polled.
    agent: AtomicU64,
    /// How long the present poll may take, as its agent has declared, in microseconds.
    declared_us: AtomicU64,
    is_fenced: AtomicBool,
}

thread_local! {
    static HERE: OnceCell<Arc<Beacon>> = const { OnceCell::new() };
}

impl Beacon {
    /// Makes this the beacon of the calling thread.
    pub(crate) fn install(self: Arc<Self>) {
        HERE.with(|here| drop(here.set(self)));
    }

    /// Lets no further poll of an agent begin.
    pub(crate) fn fence(&self) {
        self.is_fenced.store(true, Ordering::Release);
    }

    /// Looks at the thread from another one.
    pub(crate) fn look(&self) -> Look {
        let stamps = self.stamps.load(Ordering::Acquire);
        let agent = self.agent.load(Ordering::Relaxed);
        let declared = Duration::from_micros(self.declared_us.load(Ordering::Relaxed));
        // What was read between two stamps belongs together.
        let is_whole = self.stamps.load(Ordering::Acquire) == stamps;
        let agent = (stamps % 2 == 1 && is_whole).then(|| AgentId::from_bits(agent));
        Look { poll: stamps, agent, declared }
    }
}

/// Polls something of an agent between two stamps; none: the thread is fenced, and nothing was polled.
pub(crate) fn during<R>(agent: AgentId, poll: impl FnOnce() -> R) -> Option<R> {
    HERE.with(|here| {
        let Some(beacon) = here.get() else {
            return Some(poll());
        };
        if beacon.is_fenced.load(Ordering::Acquire) {
            return None;
        }
        beacon.agent.store(agent.to_bits(), Ordering::Relaxed);
        beacon.declared_us.store(0, Ordering::Relaxed);
        stamp(beacon);
        let _end = End(beacon);
        Some(poll())
    })
}

/// Declares that the present poll may take this long.
pub(crate) fn declare(lasts: Duration) {
    HERE.with(|here| {
        if let Some(beacon) = here.get() {
            beacon.declared_us.store(micros(lasts), Ordering::Relaxed);
        }
    });
}

/// Stamps the end of a poll, however it ends.
struct End<'a>(&'a Beacon);

impl Drop for End<'_> {
    fn drop(&mut self) {
        stamp(self.0);
    }
}

fn stamp(beacon: &Beacon) {
    // Only this thread writes, so nothing is lost between the load and the store.
    let stamps = beacon.stamps.load(Ordering::Relaxed);
    beacon.stamps.store(stamps + 1, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use guild_core::id::RoleId;

    use super::*;

    #[test]
    fn a_look_sees_who_is_polled_and_a_fenced_thread_polls_nobody() {
        let beacon = Arc::new(Beacon::default());
        let agent = AgentId { role: RoleId(3), index: 70_000 };
        let seen = std::thread::scope(|scope| {
            let on_thread = scope.spawn(|| {
                Arc::clone(&beacon).install();
                let during_poll = during(agent, || {
                    declare(Duration::from_secs(5));
                    beacon.look()
                });
                let panics = || assert!(agent.index == 0, "a panic in a poll");
                let caught = during(agent, || std::panic::catch_unwind(panics).is_err());
                assert_eq!(caught, Some(true));
                let after = beacon.look();
                beacon.fence();
                assert_eq!(during(agent, || ()), None);
                (during_poll.unwrap(), after)
            });
            on_thread.join().unwrap()
        });
        assert_eq!((seen.0.agent, seen.0.declared), (Some(agent), Duration::from_secs(5)));
        assert_eq!(seen.1.agent, None);
        assert_eq!(during(agent, || 7), Some(7), "a thread without a beacon is watched by nobody");
    }
}
