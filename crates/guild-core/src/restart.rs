//! Decides whether and when a crashed agent gets another life.
//!
//! Pure: the supervisor passes the time and a draw in and obeys the verdict, so every rule is
//! tested without actors. Terms follow Erlang/OTP (restart intensity within a period).

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff;
use crate::time::Timestamp;

/// When crashed agents are restarted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Crashes within `period` that are borne; one more and the agent is quarantined.
    pub intensity: u32,
    /// The window in which crashes count.
    pub period: Duration,
    /// Delay before the first restart; the second and later ones wait longer.
    pub backoff_first: Duration,
    /// Delay that no backoff exceeds.
    pub backoff_max: Duration,
    /// Factor from one delay to the next; at least 1.
    pub factor: f64,
    /// Share of the delay that is drawn at random, 0 to 1.
    pub jitter: f64,
    /// How long a quarantined agent gets no work; twice as long each time that the first task
    /// after its release takes it down again.
    pub quarantine: Duration,
    /// Time that no quarantine exceeds.
    pub quarantine_max: Duration,
    /// How long an agent must run without a crash before its streak of crashes is forgotten.
    pub sustained: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            intensity: 10,
            period: Duration::from_secs(60),
            backoff_first: Duration::ZERO,
            backoff_max: Duration::from_secs(5),
            factor: 2.0,
            jitter: 0.5,
            quarantine: Duration::from_secs(30),
            quarantine_max: Duration::from_secs(600),
            sustained: Duration::from_secs(10),
        }
    }
}

/// What becomes of a crashed agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It lives again after this delay.
    Restart {
        /// The delay.
        delay: Duration,
    },
    /// It gets no work until then; then it lives again.
    Quarantine {
        /// When it is released.
        until: Timestamp,
    },
}

/// Remembers the crashes of one agent.
///
/// It is a circuit breaker too: closed while the agent may crash, open during a quarantine, and
/// half-open after it, until one probe [passes](Self::passed); a crash before that opens it again.
#[derive(Clone, Debug, Default)]
pub struct RestartLedger {
    /// Times of the crashes within the period, oldest first; never more than the intensity.
    crashes: VecDeque<Timestamp>,
    /// Crashes since the agent last ran for long enough; the exponent of the backoff.
    streak: u32,
    running_since: Option<Timestamp>,
    half_open: bool,
    /// Quarantines since the agent last passed a probe.
    quarantines: u32,
}

impl RestartLedger {
    /// Decides about a crash at `now`; `draw` is in `0.0..1.0`.
    pub fn crashed(&mut self, policy: &RestartPolicy, now: Timestamp, draw: f64) -> Verdict {
        // Only sustained running clears the streak: neither a successful start nor time spent
        // waiting for one says anything about the agent's health.
        if let Some(since) = self.running_since.take()
            && now.since(since) >= policy.sustained
        {
            self.streak = 0;
            self.passed();
        }
        while self.crashes.front().is_some_and(|crash| now.since(*crash) >= policy.period) {
            self.crashes.pop_front();
        }
        if self.half_open || self.crashes.len() >= policy.intensity as usize {
            return self.condemned(policy, now);
        }
        self.crashes.push_back(now);
        self.streak += 1;
        let bounds = (policy.backoff_first, policy.backoff_max);
        let delay = backoff::delay(bounds, policy.factor, policy.jitter, self.streak, draw);
        Verdict::Restart { delay }
    }

    /// Puts the agent into quarantine at `now`, whatever it may still bear.
    pub fn condemned(&mut self, policy: &RestartPolicy, now: Timestamp) -> Verdict {
        self.running_since = None;
        self.quarantines += 1;
        let bounds = (policy.quarantine, policy.quarantine_max.max(policy.quarantine));
        let lasts = backoff::delay(bounds, 2.0, 0.0, self.quarantines, 0.0);
        Verdict::Quarantine { until: now.after(lasts) }
    }

    /// Notes that the agent runs.
    pub fn running(&mut self, now: Timestamp) {
        self.running_since = Some(now);
    }

    /// Notes that the quarantine is over: the agent begins with a clean window, on probation.
    pub fn released(&mut self) {
        self.crashes.clear();
        self.streak = 0;
        self.half_open = true;
    }

    /// Forgets the newest crash, for which something else was to blame; the one that led to its
    /// quarantine, if it is there.
    pub fn forgive(&mut self, is_quarantined: bool) {
        if is_quarantined {
            self.quarantines = self.quarantines.saturating_sub(1);
        } else {
            self.crashes.pop_back();
            self.streak = self.streak.saturating_sub(1);
        }
    }

    /// Returns whether the agent is on probation: out of quarantine and not proved yet.
    pub fn is_half_open(&self) -> bool {
        self.half_open
    }

    /// Notes that the agent has done a task, or run for long enough: its probation is over.
    pub fn passed(&mut self) {
        self.half_open = false;
        self.quarantines = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    #[test]
    fn the_streak_is_cleared_by_sustained_running_and_by_nothing_else() {
        let policy = RestartPolicy {
            backoff_first: Duration::from_secs(1),
            jitter: 0.0,
            ..Default::default()
        };
        let mut ledger = RestartLedger::default();
        let crash = |ledger: &mut RestartLedger, at| match ledger.crashed(&policy, seconds(at), 0.0)
        {
            Verdict::Restart { delay } => delay.as_secs(),
            Verdict::Quarantine { .. } => unreachable!("the intensity is not reached"),
        };

        assert_eq!(crash(&mut ledger, 0), 1);
        ledger.running(seconds(1));
        assert_eq!(crash(&mut ledger, 2), 2, "a successful start clears nothing");
        assert_eq!(crash(&mut ledger, 40), 4, "time spent down clears nothing");
        ledger.running(seconds(44));
        assert_eq!(crash(&mut ledger, 54), 1, "ten seconds of running clear it");
    }

    #[test]
    fn agent_on_probation_is_quarantined_for_twice_as_long_until_it_passes() {
        let policy = RestartPolicy { intensity: 0, ..Default::default() };
        let mut ledger = RestartLedger::default();
        let quarantined =
            |ledger: &mut RestartLedger, at| match ledger.crashed(&policy, seconds(at), 0.0) {
                Verdict::Quarantine { until } => until.since(seconds(at)).as_secs(),
                Verdict::Restart { .. } => unreachable!("no crash is borne"),
            };

        assert_eq!(quarantined(&mut ledger, 0), 30);
        ledger.released();
        ledger.running(seconds(30));
        assert!(ledger.is_half_open());
        assert_eq!(quarantined(&mut ledger, 31), 60, "the probe failed");
        for _ in 0..10 {
            ledger.released();
            assert!(quarantined(&mut ledger, 1_000) <= 600);
        }
        ledger.released();
        ledger.running(seconds(2_000));
        ledger.passed();
        assert!(!ledger.is_half_open());
        assert_eq!(quarantined(&mut ledger, 2_001), 30, "a passed probe clears the record");
    }

    proptest! {
        #[test]
        fn no_window_holds_more_restarts_than_the_intensity(
            gaps in prop::collection::vec(0_u64..20_000_000, 1..200),
            intensity in 0_u32..6,
        ) {
            let policy = RestartPolicy { intensity, ..Default::default() };
            let mut ledger = RestartLedger::default();
            let mut now = Timestamp(0);
            let mut restarts: Vec<Timestamp> = Vec::new();
            for gap in gaps {
                now = now.after(Duration::from_micros(gap));
                match ledger.crashed(&policy, now, 0.5) {
                    Verdict::Restart { .. } => restarts.push(now),
                    Verdict::Quarantine { until } => {
                        prop_assert!(until >= now.after(policy.quarantine));
                        prop_assert!(until <= now.after(policy.quarantine_max));
                        let recent = restarts.iter().filter(|at| now.since(**at) < policy.period);
                        prop_assert_eq!(recent.count(), intensity as usize);
                    }
                }
                let recent = restarts.iter().filter(|at| now.since(**at) < policy.period);
                prop_assert!(recent.count() <= intensity as usize);
            }
        }
    }
}
