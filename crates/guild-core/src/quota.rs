//! Shares scarce things: permits that an attempt holds, and rates that it spends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{Timestamp, micros};

/// A quota of a guild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuotaSpec {
    /// At most this many permits are held at once.
    Permits(u32),
    /// A token bucket: `amount` tokens are refilled evenly over `per`; at most `burst` are saved up.
    Rate {
        /// Tokens refilled per period; at least 1.
        amount: u32,
        /// The period.
        per: Duration,
        /// Most tokens that are saved up; at least 1.
        burst: u32,
    },
}

impl QuotaSpec {
    /// Returns the most that one task can ask for.
    pub fn capacity(&self) -> u32 {
        match self {
            Self::Permits(permits) => *permits,
            Self::Rate { burst, .. } => *burst,
        }
    }

    /// Returns whether anything can ever be taken.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::Permits(permits) => *permits > 0,
            Self::Rate { amount, per, burst } => *amount > 0 && *burst > 0 && micros(*per) > 0,
        }
    }
}

/// The state of a quota.
///
/// A rate is a token bucket in whole numbers: its level counts `tokens * period`, so that a refill
/// adds `elapsed * amount` and nothing is ever rounded away.
#[derive(Clone, Debug)]
pub struct Quota {
    spec: QuotaSpec,
    in_use: u32,
    level: u128,
    filled_at: Timestamp,
}

impl Quota {
    /// Returns an unused quota; a bucket is full.
    pub fn new(spec: QuotaSpec) -> Self {
        let level = match &spec {
            QuotaSpec::Permits(_) => 0,
            QuotaSpec::Rate { per, burst, .. } => u128::from(*burst) * u128::from(micros(*per)),
        };
        Self { spec, in_use: 0, level, filled_at: Timestamp(0) }
    }

    /// Goes on where an earlier process ended, with what was in use then: the tokens of a rate stay
    /// spent. Permits are free again, for nobody holds them any more.
    pub fn resume(&mut self, at: Timestamp, in_use: u32) {
        if let QuotaSpec::Rate { per, burst, .. } = &self.spec {
            let left = u128::from(burst.saturating_sub(in_use));
            self.level = left * u128::from(micros(*per));
            self.filled_at = at;
        }
    }

    /// Returns how much can be taken now.
    pub fn available(&self, now: Timestamp) -> u32 {
        match &self.spec {
            QuotaSpec::Permits(permits) => permits.saturating_sub(self.in_use),
            QuotaSpec::Rate { per, .. } => {
                u32::try_from(self.level_at(now) / u128::from(micros(*per).max(1)))
                    .unwrap_or(u32::MAX)
            }
        }
    }

    /// Takes `amount`, or nothing if there is less.
    #[must_use]
    pub fn take(&mut self, now: Timestamp, amount: u32) -> bool {
        if self.available(now) < amount {
            return false;
        }
        match &self.spec {
            QuotaSpec::Permits(_) => self.in_use += amount,
            QuotaSpec::Rate { per, .. } => {
                let spent = u128::from(amount) * u128::from(micros(*per));
                self.level = self.level_at(now) - spent;
                self.filled_at = now;
            }
        }
        true
    }

    /// Changes the number of permits; those that are held stay held. Returns whether that is new:
    /// a rate has no permits.
    pub fn set_permits(&mut self, permits: u32) -> bool {
        match &mut self.spec {
            QuotaSpec::Permits(known) => std::mem::replace(known, permits) != permits,
            QuotaSpec::Rate { .. } => false,
        }
    }

    /// Puts permits back; tokens of a rate are spent for good.
    pub fn put_back(&mut self, amount: u32) {
        self.in_use = self.in_use.saturating_sub(amount);
    }

    /// Returns permits that are held, or tokens that a full bucket lacks.
    pub fn in_use(&self, now: Timestamp) -> u32 {
        match &self.spec {
            QuotaSpec::Permits(_) => self.in_use,
            QuotaSpec::Rate { burst, .. } => burst.saturating_sub(self.available(now)),
        }
    }

    /// Returns the permits that are held; none for a rate, of which nothing is held.
    pub fn held(&self) -> Option<u32> {
        matches!(self.spec, QuotaSpec::Permits(_)).then_some(self.in_use)
    }

    /// Returns the most that can be in use.
    pub fn limit(&self) -> u32 {
        self.spec.capacity()
    }

    /// Returns when `amount` will be there by time alone; permits come back by events.
    pub fn next_available(&self, now: Timestamp, amount: u32) -> Option<Timestamp> {
        match &self.spec {
            QuotaSpec::Permits(_) => None,
            QuotaSpec::Rate { amount: refill, per, .. } => {
                let needed = u128::from(amount) * u128::from(micros(*per));
                let missing = needed.saturating_sub(self.level_at(now));
                let wait = missing.div_ceil(u128::from((*refill).max(1)));
                Some(Timestamp(now.0.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))))
            }
        }
    }

    fn level_at(&self, now: Timestamp) -> u128 {
        match &self.spec {
            QuotaSpec::Permits(_) => 0,
            QuotaSpec::Rate { amount, per, burst } => {
                let elapsed = u128::from(now.0.saturating_sub(self.filled_at.0));
                let full = u128::from(*burst) * u128::from(micros(*per));
                (self.level + elapsed * u128::from(*amount)).min(full)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_never_gives_more_than_its_burst_and_its_refill() {
        let per = Duration::from_secs(60);
        let mut quota = Quota::new(QuotaSpec::Rate { amount: 600, per, burst: 5 });
        let mut given = 0;

        for now in (0..60_000_000).step_by(7_001) {
            given += u32::from(quota.take(Timestamp(now), 1));
        }

        assert!((595..=605).contains(&given), "{given} tokens in a minute of 600");
    }

    #[test]
    fn a_rate_tells_when_tokens_come_and_they_come_then() {
        let per = Duration::from_secs(1);
        let mut quota = Quota::new(QuotaSpec::Rate { amount: 3, per, burst: 2 });
        assert!(quota.take(Timestamp(0), 2));

        let at = quota.next_available(Timestamp(10), 1).unwrap();

        assert!(!quota.take(Timestamp(at.0 - 1), 1));
        assert!(quota.take(at, 1));
    }

    #[test]
    fn tokens_that_an_earlier_process_spent_stay_spent() {
        let per = Duration::from_secs(1);
        let mut quota = Quota::new(QuotaSpec::Rate { amount: 10, per, burst: 10 });
        assert!(quota.take(Timestamp(5), 8));
        let in_use = quota.in_use(Timestamp(5));

        let mut resumed = Quota::new(QuotaSpec::Rate { amount: 10, per, burst: 10 });
        resumed.resume(Timestamp(5), in_use);

        assert_eq!(resumed.available(Timestamp(5)), 2);
        assert_eq!(resumed.available(Timestamp(100_005)), 3);
        let mut permits = Quota::new(QuotaSpec::Permits(3));
        permits.resume(Timestamp(5), 2);
        assert_eq!(permits.available(Timestamp(5)), 3);
    }

    #[test]
    fn permits_come_back_and_are_never_more_than_there_are() {
        let mut quota = Quota::new(QuotaSpec::Permits(3));
        assert!(quota.take(Timestamp(0), 2));
        assert!(!quota.take(Timestamp(0), 2));

        quota.put_back(2);

        assert_eq!(quota.available(Timestamp(0)), 3);
        assert_eq!(quota.next_available(Timestamp(0), 1), None);
    }
}
