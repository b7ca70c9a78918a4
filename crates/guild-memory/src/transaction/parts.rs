//! What a transaction hands to the memory: what it saw, and what it wants.

use std::collections::BTreeMap;

use guild_core::event::Reads;
use guild_core::id::CommitVersion;

use super::text;
use super::write::{Step, Write};
use crate::snapshot::Key;

/// A prefix that was scanned, as far as the caller could see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeRead {
    pub(crate) prefix: Key,
    /// The last key that the caller saw; none: the scan ran dry and the whole prefix was seen.
    pub(crate) last: Option<Key>,
    /// How many keys of the snapshot lie in the range.
    pub(crate) rows: usize,
}

/// Steps that were refused: the caller knows that they could not be done, and went on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) key: Key,
    pub(crate) steps: Vec<Step>,
}

/// What a transaction hands to the memory.
#[derive(Clone, Debug, Default)]
pub struct TransactionParts {
    pub(crate) read_at: CommitVersion,
    /// The version that each key had when it was read; none: it was absent.
    pub(crate) reads: BTreeMap<Key, Option<CommitVersion>>,
    pub(crate) ranges: Vec<RangeRead>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) writes: BTreeMap<Key, Write>,
}

impl TransactionParts {
    /// Returns how many keys change.
    pub fn writes(&self) -> usize {
        self.writes.len()
    }

    /// Returns what the transaction has read, as a history tells it.
    pub(crate) fn history(&self) -> Reads {
        let keys = self.reads.iter().map(|(key, version)| (text(key), *version)).collect();
        let range = |range: &RangeRead| {
            (text(&range.prefix), range.last.as_ref().map(|key| text(key)), range.rows as u64)
        };
        let ranges = self.ranges.iter().map(range).collect();
        Reads { snapshot: self.read_at, keys, ranges, written: Vec::new() }
    }

    pub(crate) fn has_reads(&self) -> bool {
        !(self.reads.is_empty() && self.ranges.is_empty() && self.refused.is_empty())
    }
}
