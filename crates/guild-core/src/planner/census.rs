//! Counts what a planner still keeps: after the end of all runs, nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::run::Status;
use super::{Planner, Timer};
use crate::time::Timestamp;

/// What a planner keeps of work that has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Runs that were not forgotten.
    pub runs: usize,
    /// Timers that would do something.
    pub timers: usize,
    /// Tasks that wait for an agent or a quota.
    pub waiting: usize,
}

impl Planner {
    /// Counts what is kept; takes a time in proportion to it.
    pub fn census(&self) -> Census {
        let parked = self.quotas.iter().flat_map(|quota| quota.parked.values());
        Census {
            runs: self.runs.iter().flatten().count(),
            timers: self
                .timers
                .iter()
                .filter(|Reverse((at, timer))| self.acts(*at, *timer))
                .count(),
            waiting: self.roles.iter().map(|role| role.ready.len()).sum::<usize>()
                + parked.map(BinaryHeap::len).sum::<usize>(),
        }
    }

    /// Returns whether a timer would do something; what it was armed for may be over.
    fn acts(&self, at: Timestamp, timer: Timer) -> bool {
        match timer {
            Timer::Lease(agent) => {
                let pool = self.roles.get(usize::from(agent.role.0));
                pool.is_some_and(|pool| pool.lease(agent.index).is_some())
            }
            Timer::Backoff(task) => self.status(task) == Some(Status::Backoff(at)),
            Timer::Quota(quota) => {
                let pool = self.quotas.get(usize::from(quota.0));
                pool.is_some_and(|pool| pool.parked.values().any(|tasks| !tasks.is_empty()))
            }
        }
    }
}
