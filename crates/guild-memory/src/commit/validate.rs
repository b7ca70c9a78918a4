//! Finds out whether all that a transaction has seen is still so, and what follows if it is not.

use std::sync::Arc;

use guild_core::id::CommitVersion;

use super::{CommitError, Conflict, Data, Writer};
use crate::namespace::OnConflict;
use crate::range::KeyRange;
use crate::seeded::{self, Bug};
use crate::snapshot::{Entry, Key};
use crate::transaction::{RangeRead, TransactionParts, Tried, Write, run, text};

/// The newest change of a key that is not what a transaction has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    /// None: nothing that is kept tells of it.
    pub(super) at: Option<CommitVersion>,
    pub(super) writer: Option<Writer>,
    pub(super) is_removed: bool,
}

/// So many commits are looked at for a removal, which is wanted for a message alone.
const COMMITS_LOOKED_AT: usize = 10_000;

/// Why a range would now answer otherwise.
enum RangeChange {
    Newer(Arc<Entry>),
    Removed,
}

impl Data {
    /// Returns the keys where the transaction has met another one and both values are to be kept or
    /// made one; usually there are none.
    pub(super) fn validate(&self, parts: &TransactionParts) -> Result<Vec<Key>, CommitError> {
        let mut clashes = Vec::new();
        for (key, seen) in &parts.reads {
            let now = self.map.get(key);
            if now.as_ref().map(|entry| entry.version) != *seen {
                let is_ours = match self.namespaces.on_conflict(key) {
                    OnConflict::Merge(_) => parts.writes.get(key).is_some_and(Write::is_known),
                    OnConflict::KeepBoth => matches!(parts.writes.get(key), Some(Write::Put(_))),
                    _ => false,
                };
                if is_ours {
                    clashes.push(key.clone());
                } else {
                    let conflict = || self.changed(Some(key), None, *seen, parts.read_at);
                    decide(self.namespaces.on_conflict(key), conflict)?;
                }
            }
        }
        for Tried { key, steps, refused } in &parts.tried {
            let now = self.map.get(key);
            let result = run(key, now.as_ref().map(|entry| &entry.value), steps);
            if result.is_err_and(|error| error.depends_on_others()) != *refused {
                let conflict = || self.changed(Some(key), None, None, parts.read_at);
                decide(self.namespaces.on_conflict(key), conflict)?;
            }
        }
        for read in &parts.ranges {
            if seeded::is(Bug::NoRangeValidation) {
                continue;
            }
            if let Some(change) = self.range_change(read, parts.read_at) {
                let conflict = || self.changed_in(read, change, parts.read_at);
                decide(self.namespaces.on_conflict_in(&read.range), conflict)?;
            }
        }
        Ok(clashes)
    }

    /// No entry of the range is newer than the snapshot, so all of them were there; if there are
    /// as many as were seen, none was removed either.
    fn range_change(&self, read: &RangeRead, read_at: CommitVersion) -> Option<RangeChange> {
        let mut rows = 0;
        for entry in self.map.range(read.range.bounds_to(read.last.as_ref())) {
            let is_newer = entry.version > read_at;
            if is_newer || seeded::is(Bug::GreaterOrEqual) && entry.version == read_at {
                return Some(RangeChange::Newer(entry));
            }
            rows += 1;
        }
        (rows != read.rows).then_some(RangeChange::Removed)
    }

    /// Returns the conflict of a range that was read.
    fn changed_in(
        &self,
        read: &RangeRead,
        change: RangeChange,
        read_at: CommitVersion,
    ) -> Box<Conflict> {
        let key = match change {
            RangeChange::Newer(entry) => Some(entry.key.clone()),
            RangeChange::Removed => self.removed_from(read, read_at),
        };
        self.changed(key.as_ref(), Some(read.range.clone()), None, read_at)
    }

    /// Returns the conflict of a key that was read, or of a range with the key that has changed in it; none:
    /// one was removed, and nothing that is kept tells which.
    pub(super) fn changed(
        &self,
        key: Option<&Key>,
        range: Option<KeyRange>,
        seen_at: Option<CommitVersion>,
        read_at: CommitVersion,
    ) -> Box<Conflict> {
        let unknown = Newest { at: None, writer: None, is_removed: true };
        let Newest { at, writer, is_removed } =
            key.map_or(unknown, |key| self.newest(key, read_at));
        Box::new(Conflict {
            key: key.map(|key| text(key)),
            range,
            read_at,
            seen_at,
            now_at: at,
            writer,
            is_removed,
            reserved_until: None,
        })
    }

    /// Returns what became of a key last, after a version at which it was there if it is absent now:
    /// its removal is looked for in the history then.
    pub(super) fn newest(&self, key: &[u8], read_at: CommitVersion) -> Newest {
        if let Some(entry) = self.map.get(key) {
            return Newest { at: Some(entry.version), writer: entry.writer, is_removed: false };
        }
        let mut commits =
            self.history.log().back_between(read_at, self.version).take(COMMITS_LOOKED_AT);
        let last =
            commits.find_map(|commit| Some((commit.change_of(key)?.after.is_none(), commit)));
        // Of what a held snapshot keeps of a history that was cut, the removal itself may be gone.
        let removal = last.filter(|(is_removal, _)| *is_removal).map(|(_, commit)| commit);
        let (at, writer) =
            removal.map_or((None, None), |commit| (Some(commit.version), commit.writer));
        Newest { at, writer, is_removed: true }
    }

    /// Returns a key that was in a range and no longer is, where no key of the range is newer than what
    /// was read: the first of those that were there and that somebody has touched since.
    fn removed_from(&self, read: &RangeRead, read_at: CommitVersion) -> Option<Key> {
        let is_read = |key: &Key| {
            read.range.contains(key) && read.last.as_ref().is_none_or(|last| key <= last)
        };
        let commits = self.history.log().between(read_at, self.version);
        commits.take(COMMITS_LOOKED_AT).find_map(|commit| {
            let mut changes = commit.changes.iter();
            let was_read = changes.find(|change| {
                let before = change.before.as_ref();
                is_read(&change.key) && before.is_some_and(|before| before.version <= read_at)
            });
            was_read.map(|change| change.key.clone())
        })
    }
}

/// Returns what becomes of the whole transaction.
fn decide(
    policy: &OnConflict,
    conflict: impl FnOnce() -> Box<Conflict>,
) -> Result<(), CommitError> {
    match policy {
        OnConflict::LastWriterWins => Ok(()),
        OnConflict::Escalate => Err(CommitError::Escalated(conflict())),
        OnConflict::Retry | OnConflict::Merge(_) | OnConflict::KeepBoth => {
            Err(CommitError::Conflict(conflict()))
        }
    }
}
