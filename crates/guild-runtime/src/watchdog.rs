//! Watches over the threads of agents, from a thread of its own: whoever is blocked cannot watch.
//!
//! It looks at the beacons and obeys [`HoldWatch`]: tells the log of an agent that holds its thread,
//! fences a thread that one has held too long, and leaves the rest to the supervisor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use guild_core::event::Event;
use guild_core::id::AgentId;
use guild_core::supervision::{Finding, HoldLimits, HoldWatch, ThreadUse};

use crate::beacon::{Beacon, Held};
use crate::context::Surroundings;
use crate::message::{Hang, SupervisorMessage};

/// How much a thread of agents has to do, and who holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadLoad {
    /// Share of the time in which some agent was at work, 0 to 1; sampled since the start.
    pub busy: f64,
    /// The same of the last second or so.
    pub busy_now: f64,
    /// Attempts under way there: those that run, wait for something, or wait for the thread.
    pub attempts: u32,
    /// Whether an agent has held it so long that it was given up.
    pub is_hung: bool,
    /// Who holds it most, the worst first.
    pub hogs: Vec<Hog>,
}

/// How much an agent holds its thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hog {
    /// Who.
    pub agent: AgentId,
    /// Share of the time, 0 to 1; sampled.
    pub share: f64,
    /// The longest time for which it was seen without an await.
    pub longest: Duration,
}

/// Most agents that a load names.
const HOGS_MAX: usize = 10;

/// The threads that are watched; every clone is the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchdog(Arc<Mutex<Vec<Watched>>>);

#[derive(Debug)]
struct Watched {
    beacon: Arc<Beacon>,
    watch: HoldWatch,
    is_hung: bool,
}

impl Watchdog {
    /// Starts the thread that watches, until the guild has ended.
    pub(crate) fn start(&self, surroundings: &Arc<Surroundings>) {
        let (watched, guild) = (Arc::downgrade(&self.0), Arc::downgrade(surroundings));
        let limits = limits(surroundings);
        let started = std::thread::Builder::new()
            .name("guild-watchdog".to_owned())
            .spawn(move || watch(&watched, &guild, &limits));
        if let Err(error) = started {
            tracing::error!(%error, "no watchdog: an agent that blocks its thread is not noticed");
        }
    }

    /// Watches over one more thread, whose number is how many there were.
    pub(crate) fn add(&self, beacon: Arc<Beacon>) {
        let (watch, is_hung) = (HoldWatch::default(), false);
        self.watched().push(Watched { beacon, watch, is_hung });
    }

    /// Ends the watch.
    pub(crate) fn end(&self) {
        self.watched().clear();
    }

    /// Returns the loads of all threads, in the order in which they were started.
    pub(crate) fn loads(&self) -> Vec<ThreadLoad> {
        self.watched().iter().map(Watched::load).collect()
    }

    /// Returns what all threads have to do, in the order in which they were started; how many agents
    /// live there is not known here.
    pub(crate) fn uses(&self) -> Vec<ThreadUse> {
        let of = |thread: &Watched| ThreadUse {
            busy: thread.watch.recent_load(),
            attempts: thread.beacon.attempts(),
            agents: 0,
        };
        self.watched().iter().map(of).collect()
    }

    /// Returns the share of a thread that an agent has taken there; none: it was never seen at work.
    pub(crate) fn share_of(&self, thread: u16, agent: AgentId) -> Option<f64> {
        self.watched().get(usize::from(thread))?.watch.share_of(agent)
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        // The list is whole after every operation on it, so a poisoned lock holds good data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn load(&self) -> ThreadLoad {
        let looks = self.watch.looks().max(1) as f64;
        let hog = |(agent, holder): (AgentId, guild_core::supervision::Holder)| Hog {
            agent,
            share: holder.seen as f64 / looks,
            longest: holder.longest,
        };
        let mut hogs: Vec<Hog> = self.watch.holders().map(hog).collect();
        hogs.sort_by(|a, b| b.share.total_cmp(&a.share).then(b.longest.cmp(&a.longest)));
        hogs.truncate(HOGS_MAX);
        ThreadLoad {
            busy: self.watch.load(),
            busy_now: self.watch.recent_load(),
            attempts: self.beacon.attempts(),
            is_hung: self.is_hung,
            hogs,
        }
    }
}

fn limits(surroundings: &Surroundings) -> HoldLimits {
    let limits = &surroundings.catalog.limits;
    let (soft, hard) = (limits.hold_soft, limits.hold_hard);
    let shortest = if hard.is_zero() { soft } else { soft.min(hard) };
    HoldLimits { soft, hard, period: (shortest / 4).clamp(PERIOD_MIN, PERIOD_MAX) }
}

const PERIOD_MIN: Duration = Duration::from_millis(2);
const PERIOD_MAX: Duration = Duration::from_millis(20);

/// Looks at all threads, again and again, as long as there is a guild.
fn watch(watched: &Weak<Mutex<Vec<Watched>>>, guild: &Weak<Surroundings>, limits: &HoldLimits) {
    loop {
        std::thread::park_timeout(limits.period);
        let (Some(list), Some(guild)) = (watched.upgrade(), guild.upgrade()) else {
            return;
        };
        let list = Watchdog(list);
        let mut watched = list.watched();
        if watched.is_empty() {
            return;
        }
        let now = guild.clock.now();
        for (thread, of) in (0..).zip(watched.iter_mut()) {
            let look = of.beacon.look();
            let Some(finding) = of.watch.look(now, look, limits) else {
                continue;
            };
            match finding {
                Finding::Slow { agent, held } => {
                    tracing::warn!(agent = agent.index, ?held, "an agent holds its thread");
                    let held_us = guild_core::time::micros(held);
                    guild.log(Event::ThreadHeld { agent, held_us });
                }
                Finding::Hung { agent, held } => {
                    // Whatever it still does, it does without the others: they are moved now.
                    of.beacon.fence();
                    of.is_hung = true;
                    let Held { attempt, fault } = of.beacon.held(look.poll);
                    let hang = Box::new(Hang { thread, agent, held, attempt, fault });
                    guild.supervisor.push(SupervisorMessage::Hung(hang));
                }
                Finding::Awake => {
                    of.is_hung = false;
                    guild.supervisor.push(SupervisorMessage::Awake { thread });
                }
            }
        }
    }
}
