//! What a harness knows beyond the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::serial;

/// What a harness knows beyond the log. What is left out is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knowledge {
    /// Whether the log shows everything to its end: a run that has not ended in it is lost (I1).
    pub is_complete: bool,
    /// How often each effect outside of Guild happened, by its idempotency key `RUN/TASK` (I3).
    pub ledger: Option<BTreeMap<String, u64>>,
    /// What the checkers of histories say of what the harness recorded itself (I8).
    pub histories: Vec<serial::Verdict>,
    /// The newest version of the memory that somebody was told is durable (I9).
    pub acknowledged_version: Option<u64>,
    /// The agents that a fault plan may strike, by their names in the log (I11).
    pub strikable: Option<BTreeSet<String>>,
    /// Time within which everything must have ended once the quiet phase has begun, instead of the
    /// time that the log allows (I12).
    pub quiet_within: Option<Duration>,
    /// How long a sync of the store takes: what follows from a completion waits for the one that is
    /// under way and for its own (I12).
    pub sync: Duration,
    /// How long one may take that a fault made slow before the quiet phase began (I12).
    pub sync_slow: Duration,
    /// What is still there after the end, by what it is: timers, tasks, messages (I14).
    pub leftovers: Option<BTreeMap<String, u64>>,
    /// The hash of the log of another run with the same seed (I15).
    pub other_hash: Option<u64>,
}
