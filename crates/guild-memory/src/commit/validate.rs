//! Finds out whether all that a transaction has seen is still so, and what follows if it is not.

use guild_core::id::CommitVersion;

use super::{CommitError, Conflict, Data};
use crate::namespace::OnConflict;
use crate::seeded::{self, Bug};
use crate::snapshot::{Entry, Key};
use crate::transaction::{RangeRead, TransactionParts, Tried, Write, run, text};

impl Data {
    /// Returns the keys where the transaction has met another one and both values are to be kept or
    /// made one; usually there are none.
    pub(super) fn validate(&self, parts: &TransactionParts) -> Result<Vec<Key>, CommitError> {
        let mut clashes = Vec::new();
        for (key, seen) in &parts.reads {
            let now = self.map.get(key);
            if now.as_ref().map(|entry| entry.version) != *seen {
                let conflict = changed(key, *seen, now.as_deref(), parts.read_at);
                let is_ours = match self.namespaces.on_conflict(key) {
                    OnConflict::Merge(_) => parts.writes.get(key).is_some_and(Write::is_known),
                    OnConflict::KeepBoth => matches!(parts.writes.get(key), Some(Write::Put(_))),
                    _ => false,
                };
                if is_ours {
                    clashes.push(key.clone());
                } else {
                    decide(self.namespaces.on_conflict(key), conflict)?;
                }
            }
        }
        for Tried { key, steps, refused } in &parts.tried {
            let now = self.map.get(key);
            let result = run(key, now.as_ref().map(|entry| &entry.value), steps);
            if result.is_err_and(|error| error.depends_on_others()) != *refused {
                let conflict = changed(key, None, now.as_deref(), parts.read_at);
                decide(self.namespaces.on_conflict(key), conflict)?;
            }
        }
        for read in &parts.ranges {
            if seeded::is(Bug::NoRangeValidation) {
                continue;
            }
            if let Err(conflict) = self.validate_range(read, parts.read_at) {
                decide(self.namespaces.on_conflict_in(&read.range), conflict)?;
            }
        }
        Ok(clashes)
    }

    /// No entry of the range is newer than the snapshot, so all of them were there; if there are
    /// as many as were seen, none was removed either.
    fn validate_range(
        &self,
        read: &RangeRead,
        read_at: CommitVersion,
    ) -> Result<(), Box<Conflict>> {
        let conflict = |entry: Option<&Entry>| {
            Box::new(Conflict {
                key: entry.map(|entry| text(&entry.key)),
                range: Some(read.range.clone()),
                read_at,
                seen_at: None,
                now_at: entry.map(|entry| entry.version),
                writer: entry.and_then(|entry| entry.writer),
                reserved_until: None,
            })
        };
        let mut rows = 0;
        for entry in self.map.range(read.range.bounds_to(read.last.as_ref())) {
            let is_newer = entry.version > read_at;
            if is_newer || seeded::is(Bug::GreaterOrEqual) && entry.version == read_at {
                return Err(conflict(Some(&entry)));
            }
            rows += 1;
        }
        if rows == read.rows { Ok(()) } else { Err(conflict(None)) }
    }
}

/// Returns what becomes of the whole transaction.
fn decide(policy: &OnConflict, conflict: Box<Conflict>) -> Result<(), CommitError> {
    match policy {
        OnConflict::LastWriterWins => Ok(()),
        OnConflict::Escalate => Err(CommitError::Escalated(conflict)),
        OnConflict::Retry | OnConflict::Merge(_) | OnConflict::KeepBoth => {
            Err(CommitError::Conflict(conflict))
        }
    }
}

pub(super) fn changed(
    key: &[u8],
    seen_at: Option<CommitVersion>,
    now: Option<&Entry>,
    read_at: CommitVersion,
) -> Box<Conflict> {
    Box::new(Conflict {
        key: Some(text(key)),
        range: None,
        read_at,
        seen_at,
        now_at: now.map(|entry| entry.version),
        writer: now.and_then(|entry| entry.writer),
        reserved_until: None,
    })
}
