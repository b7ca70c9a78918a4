//! Decides when a failed attempt is tried again.
//!
//! Exponential backoff with full-range jitter; the draw is an argument, so the rule is pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff;

/// How often and how fast a task is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub attempts_max: u32,
    /// Delay before the second attempt.
    pub backoff_first: Duration,
    /// Delay that no backoff exceeds.
    pub backoff_max: Duration,
    /// Factor from one delay to the next; at least 1.
    pub factor: f64,
    /// Share of the delay that is drawn at random, 0 to 1: 0.5 draws from half to the whole delay.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.5,
        }
    }
}

impl RetryPolicy {
    /// Returns a policy that never tries again.
    pub fn once() -> Self {
        Self { attempts_max: 1, ..Self::default() }
    }

    /// Returns a policy with this many attempts and no delay.
    pub fn immediately(attempts_max: u32) -> Self {
        Self { attempts_max, backoff_first: Duration::ZERO, ..Self::default() }
    }

    /// Returns how a task waits that lost its attempt to a conflict or to the end of its agent:
    /// short, spread widely, and longer the more often it happens.
    pub fn interrupted() -> Self {
        Self {
            attempts_max: u32::MAX,
            backoff_first: Duration::from_micros(200),
            backoff_max: Duration::from_millis(100),
            factor: 2.0,
            jitter: 1.0,
        }
    }

    /// Returns the delay after `failures` failures (from 1); `draw` is in `0.0..1.0`.
    pub fn delay_after(&self, failures: u32, draw: f64) -> Duration {
        let bounds = (self.backoff_first, self.backoff_max);
        backoff::delay(bounds, self.factor, self.jitter, failures, draw)
    }
}
