//! The JSON forms of what tasks and guilds are set up with, as lines of the event log show them.
//!
//! They differ from what a store keeps: a store must read back what it wrote, a line must read well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::QuotaTerms;
use crate::limits::Limits;
use crate::retry::RetryPolicy;
use crate::time::micros;

/// Pairs as a JSON object, in their order.
pub(super) struct Pairs<'a, K, V>(pub(super) &'a [(K, V)]);

impl<K: Serialize, V: Serialize> Serialize for Pairs<'_, K, V> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// The terms of a quota without the name of their kind: their fields tell it.
pub(super) struct Terms(pub(super) QuotaTerms);

impl Serialize for Terms {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            QuotaTerms::Permits { permits } => serializer.collect_map([("permits", permits)]),
            QuotaTerms::Rate { amount, per_us, burst } => serializer.collect_map([
                ("amount", u64::from(amount)),
                ("per_us", per_us),
                ("burst", u64::from(burst)),
            ]),
        }
    }
}

/// The same as it is read.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum TermsRead {
    Permits { permits: u32 },
    Rate { amount: u32, per_us: u64, burst: u32 },
}

impl From<TermsRead> for QuotaTerms {
    fn from(terms: TermsRead) -> Self {
        match terms {
            TermsRead::Permits { permits } => Self::Permits { permits },
            TermsRead::Rate { amount, per_us, burst } => Self::Rate { amount, per_us, burst },
        }
    }
}

/// A retry policy with its units in the names.
#[derive(Serialize, Deserialize)]
pub(super) struct Retry {
    attempts_max: u32,
    backoff_first_us: u64,
    backoff_max_us: u64,
    factor: f64,
    jitter: f64,
}

impl From<&RetryPolicy> for Retry {
    fn from(policy: &RetryPolicy) -> Self {
        Self {
            attempts_max: policy.attempts_max,
            backoff_first_us: micros(policy.backoff_first),
            backoff_max_us: micros(policy.backoff_max),
            factor: policy.factor,
            jitter: policy.jitter,
        }
    }
}

impl From<Retry> for RetryPolicy {
    fn from(retry: Retry) -> Self {
        Self {
            attempts_max: retry.attempts_max,
            backoff_first: Duration::from_micros(retry.backoff_first_us),
            backoff_max: Duration::from_micros(retry.backoff_max_us),
            factor: retry.factor,
            jitter: retry.jitter,
        }
    }
}

/// Time limit of an attempt whose task names none.
pub(super) fn timeout_default() -> Duration {
    Limits::default().task_timeout
}

/// How long a task is expected to take that does not say it.
pub(super) const EXPECTED_DEFAULT: Duration = Duration::from_secs(1);
