//! Shows a watchdog what a thread of agents is doing: a stamp at the beginning and the end of every
//! poll of an agent.
//!
//! The stamps have one writer, the thread itself, and cost a few stores; the watchdog only reads
//! them. It can fence the thread: from then on no poll of an agent begins on it.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use guild_core::id::{AgentId, FencingToken, RunId, TaskId, TaskIndex};
use guild_core::supervision::Look;
use guild_core::time::micros;

use crate::host::Running;

/// What one thread shows.
#[derive(Debug, Default)]
pub(crate) struct Beacon {
    /// Beginnings and ends of polls: odd while one is under way.
    stamps: AtomicU64,
    /// Who is polled.
    agent: AtomicU64,
    /// How long the present poll may take, as its agent has declared, in microseconds.
    declared_us: AtomicU64,
    work: Work,
    /// Number of the fault that strikes the present poll; 0: none does.
    fault: AtomicU64,
    /// Attempts under way on this thread.
    attempts: AtomicU32,
    is_fenced: AtomicBool,
}

/// What is polled: an attempt, or with the token 0 something else of the agent.
#[derive(Debug, Default)]
struct Work {
    token: AtomicU64,
    task: AtomicU64,
    number: AtomicU32,
}

/// What a poll that holds its thread was about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// The attempt; none: the agent was starting or ending.
    pub(crate) attempt: Option<Running>,
    /// Number of the injected fault behind it.
    pub(crate) fault: Option<u64>,
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
        let agent = (stamps % 2 == 1 && self.is_still(stamps)).then(|| AgentId::from_bits(agent));
        Look { poll: stamps, agent, declared }
    }

    /// Returns what the poll of this number is about; nothing, when it is over.
    pub(crate) fn held(&self, poll: u64) -> Held {
        let Work { token, task, number } = &self.work;
        let token = FencingToken(token.load(Ordering::Relaxed));
        let task = task_of(task.load(Ordering::Relaxed));
        let number = number.load(Ordering::Relaxed);
        let fault = self.fault.load(Ordering::Relaxed);
        if !self.is_still(poll) {
            return Held::default();
        }
        let attempt = (token.0 > 0).then_some(Running { token, task, number });
        Held { attempt, fault: (fault > 0).then_some(fault) }
    }

    /// Returns how many attempts are under way on the thread.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// What was read between two stamps belongs together.
    fn is_still(&self, stamps: u64) -> bool {
        self.stamps.load(Ordering::Acquire) == stamps
    }

    fn begin(&self, agent: AgentId, attempt: Option<Running>) {
        self.agent.store(agent.to_bits(), Ordering::Relaxed);
        self.declared_us.store(0, Ordering::Relaxed);
        self.fault.store(0, Ordering::Relaxed);
        if let Some(Running { token, task, number }) = attempt {
            self.work.task.store(bits_of(task), Ordering::Relaxed);
            self.work.number.store(number, Ordering::Relaxed);
            self.work.token.store(token.0, Ordering::Relaxed);
        } else {
            self.work.token.store(0, Ordering::Relaxed);
        }
        stamp(self);
    }
}

/// Polls something of an agent between two stamps; none: the thread is fenced, and nothing was polled.
/// What is polled within a poll is a part of it.
pub(crate) fn during<R>(
    agent: AgentId,
    attempt: Option<Running>,
    poll: impl FnOnce() -> R,
) -> Option<R> {
    HERE.with(|here| match here.get() {
        Some(beacon) if beacon.is_fenced.load(Ordering::Acquire) => None,
        beacon => Some(stamped(beacon, agent, attempt, poll)),
    })
}

/// Does what has to be done for an agent also on a fenced thread (its end, a drop), between two stamps.
pub(crate) fn always<R>(agent: AgentId, attempt: Option<Running>, work: impl FnOnce() -> R) -> R {
    HERE.with(|here| stamped(here.get(), agent, attempt, work))
}

fn stamped<R>(
    beacon: Option<&Arc<Beacon>>,
    agent: AgentId,
    attempt: Option<Running>,
    work: impl FnOnce() -> R,
) -> R {
    let Some(beacon) = beacon.filter(|beacon| beacon.stamps.load(Ordering::Relaxed) % 2 == 0)
    else {
        return work();
    };
    beacon.begin(agent, attempt);
    let _end = End(beacon);
    work()
}

/// Declares that the present poll may take this long.
pub(crate) fn declare(lasts: Duration) {
    HERE.with(|here| {
        if let Some(beacon) = here.get() {
            beacon.declared_us.store(micros(lasts), Ordering::Relaxed);
        }
    });
}

/// Says that the fault of this number strikes the present poll.
pub(crate) fn strike(fault: u64) {
    HERE.with(|here| {
        if let Some(beacon) = here.get() {
            beacon.fault.store(fault, Ordering::Relaxed);
        }
    });
}

/// Counts an attempt on its thread, until it is dropped there.
pub(crate) struct UnderWay(());

impl UnderWay {
    /// Counts one more.
    pub(crate) fn begin() -> Self {
        Self::count(1);
        Self(())
    }

    fn count(by: i32) {
        HERE.with(|here| {
            if let Some(beacon) = here.get() {
                // Only this thread writes, so nothing is lost between the load and the store.
                let attempts = beacon.attempts.load(Ordering::Relaxed);
                beacon.attempts.store(attempts.saturating_add_signed(by), Ordering::Relaxed);
            }
        });
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        Self::count(-1);
    }
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

fn bits_of(task: TaskId) -> u64 {
    u64::from(task.run.0) << 32 | u64::from(task.index.0)
}

fn task_of(bits: u64) -> TaskId {
    let half = |bits: u64| u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX);
    TaskId { run: RunId(half(bits >> 32)), index: TaskIndex(half(bits)) }
}

#[cfg(test)]
mod tests {
    use guild_core::id::RoleId;

    use super::*;

    const AGENT: AgentId = AgentId { role: RoleId(3), index: 70_000 };

    fn on_a_thread<R: Send>(beacon: &Arc<Beacon>, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let on_thread = scope.spawn(|| {
                Arc::clone(beacon).install();
                work()
            });
            on_thread.join().unwrap()
        })
    }

    #[test]
    fn a_look_sees_who_is_polled_and_a_fenced_thread_polls_nobody() {
        let beacon = Arc::new(Beacon::default());
        on_a_thread(&beacon, || {
            let seen = during(AGENT, None, || {
                declare(Duration::from_secs(5));
                beacon.look()
            });
            let seen = seen.unwrap();
            assert_eq!((seen.agent, seen.declared), (Some(AGENT), Duration::from_secs(5)));
            let panics = || panic!("a panic in a poll");
            let caught = during(AGENT, None, || std::panic::catch_unwind(panics).is_err());
            assert_eq!(caught, Some(true));
            assert_eq!(beacon.look().agent, None);
            beacon.fence();
            assert_eq!(during(AGENT, None, || ()), None);
            assert_eq!(always(AGENT, None, || beacon.look().agent), Some(AGENT));
        });
        assert_eq!(during(AGENT, None, || 7), Some(7), "a thread without a beacon is not watched");
    }

    #[test]
    fn what_is_polled_within_a_poll_is_a_part_of_it() {
        let beacon = Arc::new(Beacon::default());
        on_a_thread(&beacon, || {
            let (outer, inner, after) = always(AGENT, None, || {
                let outer = beacon.look();
                let inner = always(AGENT, None, || beacon.look());
                (outer, inner, beacon.look())
            });
            assert_eq!((outer, inner), (inner, after));
            assert_eq!(outer.agent, Some(AGENT));
        });
    }

    #[test]
    fn a_poll_tells_its_attempt_and_its_fault_while_it_lasts() {
        let beacon = Arc::new(Beacon::default());
        let task = TaskId { run: RunId(7), index: TaskIndex(u32::MAX) };
        let running = Running { token: FencingToken(9), task, number: 2 };
        on_a_thread(&beacon, || {
            let under_way = UnderWay::begin();
            let (poll, held) = always(AGENT, Some(running), || {
                strike(11);
                let poll = beacon.look().poll;
                (poll, beacon.held(poll))
            });
            assert_eq!(held, Held { attempt: Some(running), fault: Some(11) });
            assert_eq!(beacon.held(poll), Held::default(), "it is over");
            let of_cell = always(AGENT, None, || beacon.held(beacon.look().poll));
            assert_eq!(of_cell, Held::default());
            assert_eq!(beacon.attempts(), 1);
            drop(under_way);
            assert_eq!(beacon.attempts(), 0);
        });
    }
}
