//! Counts the deaths under one supervisor; deaths of one cause in a burst count once.

use std::collections::{BTreeMap, VecDeque};

use crate::time::Timestamp;

use super::Ceiling;

/// The deaths that count within the period.
#[derive(Clone, Debug, Default)]
pub(super) struct Deaths {
    counted: VecDeque<Timestamp>,
    /// When the running burst of each cause began.
    bursts: BTreeMap<u64, Timestamp>,
}

impl Deaths {
    /// Counts a death and returns whether it is one too many.
    pub(super) fn exceed(&mut self, ceiling: &Ceiling, now: Timestamp, cause: u64) -> bool {
        if self.bursts.get(&cause).is_some_and(|began| now.since(*began) < ceiling.burst) {
            return false;
        }
        self.bursts.retain(|_, began| now.since(*began) < ceiling.burst);
        self.bursts.insert(cause, now);
        while self.counted.front().is_some_and(|at| now.since(*at) >= ceiling.period) {
            self.counted.pop_front();
        }
        if self.counted.len() >= ceiling.deaths_max as usize {
            return true;
        }
        self.counted.push_back(now);
        false
    }
}
