//! What a transaction hands to the memory: what it saw, and what it wants.

use std::collections::BTreeMap;

use guild_core::event::Reads;
use guild_core::id::CommitVersion;

use super::text;
use super::write::{Step, Write};
use crate::namespace::Namespaces;
use crate::range::{KeyRange, RangeSet};
use crate::snapshot::{Key, Snapshot};

/// A range that was scanned, as far as the caller could see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeRead {
    pub(crate) range: KeyRange,
    /// The last key that the caller saw; none: the scan ran dry and the whole range was seen.
    pub(crate) last: Option<Key>,
    /// How many keys of the snapshot lie in the range.
    pub(crate) rows: usize,
}

/// Steps that were tried: the caller knows whether they could be done, and went on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) key: Key,
    pub(crate) steps: Vec<Step>,
    pub(crate) refused: bool,
}

/// What a transaction hands to the memory.
#[derive(Clone, Debug, Default)]
pub struct TransactionParts {
    pub(crate) read_at: CommitVersion,
    /// What was read from; none: nothing was.
    pub(crate) snapshot: Option<Snapshot>,
    /// The version that each key had when it was read; none: it was absent.
    pub(crate) reads: BTreeMap<Key, Option<CommitVersion>>,
    pub(crate) ranges: Vec<RangeRead>,
    pub(crate) tried: Vec<Tried>,
    /// Removed before anything is written.
    pub(crate) cleared: RangeSet,
    pub(crate) writes: BTreeMap<Key, Write>,
}

impl TransactionParts {
    /// Returns how many keys the transaction writes to, and how many ranges it removes.
    pub fn writes(&self) -> usize {
        self.writes.len() + self.cleared.len()
    }

    /// Returns what the transaction has read, as a history tells it. Where a namespace lets a commit
    /// pass although others have changed what it has read, that read says nothing about its place
    /// among them and is left out.
    pub(crate) fn history(&self, namespaces: &Namespaces) -> Reads {
        let keys = self.reads.iter().filter(|(key, _)| namespaces.on_conflict(key).refuses());
        let keys = keys.map(|(key, version)| (text(key), *version)).collect();
        let mut reads = Reads { snapshot: self.read_at, keys, ..Reads::default() };
        let refuses = |read: &&RangeRead| namespaces.on_conflict_in(&read.range).refuses();
        for RangeRead { range, last, rows } in self.ranges.iter().filter(refuses) {
            let (last, rows) = (last.as_ref().map(|key| text(key)), *rows as u64);
            match range.as_prefix() {
                Some(prefix) => reads.ranges.push((text(prefix), last, rows)),
                None => {
                    let (from, to) = range.ends();
                    reads.spans.push((text(from), to.map(text), last, rows));
                }
            }
        }
        reads
    }

    pub(crate) fn has_reads(&self) -> bool {
        !(self.reads.is_empty() && self.ranges.is_empty() && self.tried.is_empty())
    }

    /// Returns whether nothing is written and nothing required, so that the transaction holds at
    /// its snapshot whatever has happened since.
    pub(crate) fn is_read_only(&self) -> bool {
        self.writes.is_empty() && self.cleared.is_empty()
    }
}
