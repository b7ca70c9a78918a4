//! Lets chaos into the code that runs in production.
//!
//! The runtime knows only the trait [`FaultPoint`]; who injects what, and when, is decided by its
//! implementor. Injected faults take the same way as real ones, with a mark.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use guild_core::draw::{Seed, Stream};
use guild_core::event::Names;
use guild_core::id::{AgentId, TaskId};
use guild_core::time::Timestamp;

/// Where a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// An agent begins a life.
    Started,
    /// Before the agent begins to perform.
    BeforePerform,
    /// After the agent has finished and before anybody knows.
    AfterPerform,
    /// While an agent is dropped.
    Dropped,
    /// An assignment is on its way to an agent.
    Assign,
    /// An agent's host takes an assignment out of its mailbox.
    Receive,
    /// A result is on its way to the scheduler.
    HandIn,
    /// The memory is about to commit a completion.
    Commit,
}

impl Site {
    /// Returns the site's name in the event log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::BeforePerform => "before_perform",
            Self::AfterPerform => "after_perform",
            Self::Dropped => "dropped",
            Self::Assign => "assign",
            Self::Receive => "receive",
            Self::HandIn => "hand_in",
            Self::Commit => "commit",
        }
    }
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The code at the site panics.
    Crash,
    /// The agent panics this long after it began; only before the work.
    CrashAfter(Duration),
    /// The agent waits for ever; the task's timeout ends it.
    Hang,
    /// The agent takes this much longer.
    Slow(Duration),
    /// Nothing on the agent's thread moves for this long.
    Stall(Duration),
    /// The agent ends without a panic.
    Exit,
    /// The message is lost.
    Lose,
    /// The message arrives twice; only a result can.
    Repeat,
    /// The message is this late.
    Delay(Duration),
    /// It is refused: the mailbox is full, or the commit conflicts.
    Refuse,
    /// The result is another one.
    Garble,
}

/// A fault and the name of its kind in the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// What happens.
    pub fault: Fault,
    /// What the log calls it.
    pub kind: &'static str,
}

/// What is about to happen at a site.
pub struct Hit<'a> {
    /// Where.
    pub site: Site,
    /// When.
    pub now: Timestamp,
    /// Which agent it concerns.
    pub agent: AgentId,
    /// Which task, unless the agent has none there.
    pub task: Option<TaskId>,
    /// Which try of the task.
    pub attempt: Option<u32>,
    /// The names of all of them.
    pub names: &'a dyn Names,
}

impl std::fmt::Debug for Hit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hit")
            .field("site", &self.site)
            .field("now", &self.now)
            .field("agent", &self.agent)
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Decides what is struck.
pub trait FaultPoint: Send + Sync + 'static {
    /// Returns the fault that strikes here and now. What makes no sense at the site is ignored.
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike>;

    /// Returns how long a message is on its way to or from an agent. That is no fault; a simulation
    /// draws it so that it sees more than one order of events.
    fn latency(&self, _: &Hit<'_>) -> Duration {
        Duration::ZERO
    }

    /// Keeps the current thread from doing anything for this long. A simulation moves its clock
    /// instead.
    fn stall(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            #[expect(clippy::disallowed_methods, reason = "to block the thread is the fault")]
            std::thread::sleep(duration);
        })
    }
}

/// Strikes attempts at random, repeatably by seed.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomFaults {
    seed: Seed,
    crash: f64,
    hang: f64,
    slow: f64,
    slow_by: Duration,
}

/// A chaos specification that cannot be understood.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChaosError {
    /// A part is no `name=value`.
    #[error("`{0}` is no fault: write name=probability, for example crash=0.05")]
    Shape(String),
    /// A fault of this name does not exist.
    #[error("unknown fault `{0}`: there are crash, hang and slow")]
    Unknown(String),
    /// A probability is no number from 0 to 1.
    #[error("`{value}` is no probability for `{fault}`: write a number from 0 to 1")]
    Probability {
        /// The fault.
        fault: String,
        /// What was written.
        value: String,
    },
    /// A fault is named twice.
    #[error("the fault `{0}` is named twice")]
    Duplicate(String),
    /// The probabilities add up to more than 1.
    #[error("the probabilities of all faults add up to {0}, which is more than 1")]
    Sum(f64),
}

impl RandomFaults {
    /// Reads `crash=0.05,hang=0.01,slow=0.1`: the probability of each fault per attempt.
    ///
    /// A crash strikes before or after the work with equal chance; `slow` adds 100 ms.
    ///
    /// # Errors
    /// A part is no `name=value`, a fault is unknown or named twice, or a probability is not
    /// within 0 to 1, alone or in sum.
    pub fn parse(spec: &str, seed: Seed) -> Result<Self, ChaosError> {
        let mut rates: [(&str, Option<f64>); 3] = [("crash", None), ("hang", None), ("slow", None)];
        for part in spec.split(',').map(str::trim) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| ChaosError::Shape(part.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            let rate = rates
                .iter_mut()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| ChaosError::Unknown(name.to_owned()))?;
            let probability =
                value.parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| {
                    ChaosError::Probability { fault: name.to_owned(), value: value.to_owned() }
                })?;
            if rate.1.replace(probability).is_some() {
                return Err(ChaosError::Duplicate(name.to_owned()));
            }
        }
        let [crash, hang, slow] = rates.map(|(_, rate)| rate.unwrap_or(0.0));
        if crash + hang + slow > 1.0 {
            return Err(ChaosError::Sum(crash + hang + slow));
        }
        Ok(Self { seed, crash, hang, slow, slow_by: Duration::from_millis(100) })
    }
}

impl RandomFaults {
    fn draw(&self, site: Site, task: TaskId, attempt: u32) -> Option<Fault> {
        let entity = u64::from(task.run.0) << 32 | u64::from(task.index.0);
        let draw = self.seed.unit(Stream::Fault, entity, u64::from(attempt));
        let before = site == Site::BeforePerform;
        if draw < self.crash {
            let crashes_before = draw < self.crash / 2.0;
            (crashes_before == before).then_some(Fault::Crash)
        } else if draw < self.crash + self.hang {
            before.then_some(Fault::Hang)
        } else if draw < self.crash + self.hang + self.slow {
            before.then_some(Fault::Slow(self.slow_by))
        } else {
            None
        }
    }
}

impl FaultPoint for RandomFaults {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        if !matches!(hit.site, Site::BeforePerform | Site::AfterPerform) {
            return None;
        }
        let fault = self.draw(hit.site, hit.task?, hit.attempt?)?;
        let kind = match fault {
            Fault::Crash => "crash",
            Fault::Hang => "hang",
            _ => "slow",
        };
        Some(Strike { fault, kind })
    }
}

#[cfg(test)]
mod tests {
    use guild_core::id::{RunId, TaskIndex};

    use super::*;

    #[test]
    fn every_bad_part_of_a_specification_is_named() {
        let parse = |spec: &str| RandomFaults::parse(spec, Seed(1)).unwrap_err().to_string();

        assert!(parse("crash").contains("`crash` is no fault"));
        assert!(parse("crsh=0.1").contains("unknown fault `crsh`"));
        assert!(parse("crash=1.5").contains("`1.5` is no probability for `crash`"));
        assert!(parse("crash=NaN").contains("no probability"));
        assert!(parse("crash=0.1,crash=0.2").contains("named twice"));
        assert!(parse("crash=0.6,hang=0.6").contains("more than 1"));
    }

    #[test]
    fn faults_strike_as_often_as_asked_and_at_one_site_per_attempt() {
        let faults = RandomFaults::parse("crash=0.2,hang=0.1", Seed(7)).unwrap();
        let (mut crashes, mut hangs) = (0, 0);

        for index in 0..10_000 {
            let task = TaskId { run: RunId(1), index: TaskIndex(index) };
            let struck =
                [Site::BeforePerform, Site::AfterPerform].map(|site| faults.draw(site, task, 1));
            assert!(struck[0].is_none() || struck[1].is_none());
            crashes += struck.iter().filter(|fault| **fault == Some(Fault::Crash)).count();
            hangs += struck.iter().filter(|fault| **fault == Some(Fault::Hang)).count();
        }

        assert!((1_800..2_200).contains(&crashes), "{crashes} crashes of 2,000");
        assert!((850..1_150).contains(&hangs), "{hangs} hangs of 1,000");
    }
}
