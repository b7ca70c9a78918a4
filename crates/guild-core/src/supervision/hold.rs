//! Decides when a thread of agents is held by one of them.
//!
//! An agent that does not come to an await keeps its thread from everybody else on it. The thread
//! stamps the beginning and the end of each poll; a watchdog looks at the stamps now and then and
//! passes what it sees in here. Two looks that see the same poll say how long it has lasted at
//! least; one that took longer than the soft limit is told, one beyond the hard limit loses its
//! thread. Each look is also a sample: who is seen most holds the thread most.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::AgentId;
use crate::time::Timestamp;

/// Agents of one thread whose holds are kept: those that were seen most.
const HOLDERS_MAX: usize = 256;

/// What counts as recent.
const RECENT: Duration = Duration::from_secs(1);

/// How long an agent may hold its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    /// Beyond: it is told.
    pub soft: Duration,
    /// Beyond: the agent loses its thread; zero: never.
    pub hard: Duration,
    /// Time between two looks. A longer one counts as two: the watchdog itself was not let run.
    pub period: Duration,
}

/// What one look at a thread shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Number of the poll: each has another one.
    pub poll: u64,
    /// Who is polled; none: nobody.
    pub agent: Option<AgentId>,
    /// How long this poll may take, where the agent has declared it.
    pub declared: Duration,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An agent has held the thread beyond the soft limit; told once for each poll.
    Slow {
        /// Who.
        agent: AgentId,
        /// How long, at least.
        held: Duration,
    },
    /// An agent has held the thread beyond the hard limit, and beyond what it has declared.
    Hung {
        /// Who.
        agent: AgentId,
        /// How long, at least.
        held: Duration,
    },
    /// A thread that was given up runs again.
    Awake,
}

/// What is known of one thread.
#[derive(Clone, Debug, Default)]
pub struct HoldWatch {
    last: Option<(Timestamp, Look)>,
    held: Duration,
    is_told: bool,
    is_given_up: bool,
    looks: u64,
    busy: u64,
    /// Share of the looks that have seen somebody work, those of the last second above all.
    recent: f64,
    holders: BTreeMap<AgentId, Holder>,
}

/// How much one agent has held its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Looks that have seen it.
    pub seen: u64,
    /// The longest time for which it was seen without an await.
    pub longest: Duration,
}

impl HoldWatch {
    /// Takes a look.
    pub fn look(&mut self, now: Timestamp, look: Look, limits: &HoldLimits) -> Option<Finding> {
        let last = self.last.replace((now, look));
        self.looks += 1;
        let elapsed = last.map_or(limits.period, |(before, _)| now.since(before));
        let weight = elapsed.min(limits.period * 2).as_secs_f64() / RECENT.as_secs_f64();
        let is_busy = if look.agent.is_some() { 1.0 } else { 0.0 };
        self.recent += (is_busy - self.recent) * weight.min(1.0);
        let Some(agent) = look.agent else {
            self.begin();
            return self.awake();
        };
        self.busy += 1;
        self.note(agent);
        let Some((before, seen)) = last.filter(|(_, seen)| seen.poll == look.poll) else {
            self.begin();
            return self.awake();
        };
        debug_assert!(seen.agent == look.agent, "one poll is that of one agent");
        self.held += now.since(before).min(limits.period * 2);
        let held = self.held;
        if let Some(holder) = self.holders.get_mut(&agent) {
            holder.longest = holder.longest.max(held);
        }
        if self.is_given_up {
            return None;
        }
        if !limits.hard.is_zero() && held >= limits.hard.max(look.declared) {
            self.is_given_up = true;
            return Some(Finding::Hung { agent, held });
        }
        let is_slow = !self.is_told && held >= limits.soft.max(look.declared);
        self.is_told |= is_slow;
        is_slow.then_some(Finding::Slow { agent, held })
    }

    /// Returns the share of the looks that have seen somebody work, 0 to 1.
    pub fn load(&self) -> f64 {
        self.busy as f64 / self.looks.max(1) as f64
    }

    /// Returns the share of the looks that have seen somebody work, 0 to 1, where older ones count less
    /// and less: by how much the last second has gone.
    pub fn recent_load(&self) -> f64 {
        self.recent
    }

    /// Returns the share of the looks that have seen this agent, 0 to 1; none: it was never seen.
    pub fn share_of(&self, agent: AgentId) -> Option<f64> {
        let holder = self.holders.get(&agent)?;
        Some(holder.seen as f64 / self.looks.max(1) as f64)
    }

    /// Returns how often the thread was looked at.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Returns who was seen how much, by agent.
    pub fn holders(&self) -> impl Iterator<Item = (AgentId, Holder)> {
        self.holders.iter().map(|(agent, holder)| (*agent, *holder))
    }

    fn begin(&mut self) {
        self.held = Duration::ZERO;
        self.is_told = false;
    }

    fn awake(&mut self) -> Option<Finding> {
        std::mem::take(&mut self.is_given_up).then_some(Finding::Awake)
    }

    fn note(&mut self, agent: AgentId) {
        if self.holders.len() >= HOLDERS_MAX && !self.holders.contains_key(&agent) {
            let least = self.holders.iter().min_by_key(|(_, holder)| holder.seen);
            if let Some(least) = least.map(|(agent, _)| *agent) {
                self.holders.remove(&least);
            }
        }
        self.holders.entry(agent).or_default().seen += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RoleId;

    const LIMITS: HoldLimits = HoldLimits {
        soft: Duration::from_millis(100),
        hard: Duration::from_millis(500),
        period: Duration::from_millis(50),
    };

    fn agent(index: u32) -> AgentId {
        AgentId { role: RoleId(0), index }
    }

    /// Looks every 50 ms at what the pairs of poll and agent say.
    fn looks(watch: &mut HoldWatch, from_ms: u64, seen: &[(u64, Option<u32>)]) -> Vec<Finding> {
        let look = |(n, (poll, index)): (u64, &(u64, Option<u32>))| {
            let now = Timestamp((from_ms + 50 * n) * 1_000);
            let look = Look { poll: *poll, agent: index.map(agent), declared: Duration::ZERO };
            watch.look(now, look, &LIMITS)
        };
        (0..).zip(seen).filter_map(look).collect()
    }

    #[test]
    fn an_agent_that_holds_its_thread_is_told_once_and_then_loses_it() {
        let mut watch = HoldWatch::default();
        let found = looks(&mut watch, 0, &[(7, Some(3)); 12]);

        let ms = Duration::from_millis;
        let slow = Finding::Slow { agent: agent(3), held: ms(100) };
        assert_eq!(found, [slow, Finding::Hung { agent: agent(3), held: ms(500) }]);
        assert_eq!(looks(&mut watch, 600, &[(8, None)]), [Finding::Awake]);
    }

    #[test]
    fn many_short_polls_of_one_agent_are_no_hold_but_show_in_the_load() {
        let mut watch = HoldWatch::default();
        let polls: Vec<_> = (0..100).map(|poll| (poll, (poll % 4 > 0).then_some(1))).collect();

        assert!(looks(&mut watch, 0, &polls).is_empty());
        assert!((watch.load() - 0.75).abs() < 0.01);
        let (hog, holder) = watch.holders().next().unwrap();
        assert_eq!((hog, holder.seen), (agent(1), 75));
    }

    #[test]
    fn the_recent_load_follows_what_happens_now() {
        let mut watch = HoldWatch::default();
        let polls = |agent| -> Vec<_> { (0..100).map(|poll| (poll, agent)).collect() };
        looks(&mut watch, 0, &polls(Some(1)));
        assert!(watch.recent_load() > 0.95, "{}", watch.recent_load());
        looks(&mut watch, 5_000, &polls(None));
        assert!(watch.recent_load() < 0.05, "{}", watch.recent_load());
        assert_eq!((watch.load(), watch.share_of(agent(1))), (0.5, Some(0.5)));
        assert_eq!(watch.share_of(agent(2)), None);
    }

    #[test]
    fn a_declared_hold_is_borne_and_a_watchdog_that_was_not_let_run_blames_nobody() {
        let declared = Duration::from_secs(60);
        let mut watch = HoldWatch::default();
        for n in 0..100 {
            let look = Look { poll: 1, agent: Some(agent(0)), declared };
            assert_eq!(watch.look(Timestamp(n * 50_000), look, &LIMITS), None);
        }

        let mut watch = HoldWatch::default();
        let look = Look { poll: 1, agent: Some(agent(0)), declared: Duration::ZERO };
        watch.look(Timestamp(0), look, &LIMITS);
        let hour = Timestamp(3_600_000_000);
        let found = watch.look(hour, look, &LIMITS);
        let held = Duration::from_millis(100);
        assert_eq!(found, Some(Finding::Slow { agent: agent(0), held }), "the machine slept");
    }
}
