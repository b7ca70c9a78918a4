//! Reads earlier versions: one state, the changes of one key, the difference of two states.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use guild_core::id::CommitVersion;
use guild_core::time::Timestamp;

use super::{Commit, Replaced};
use crate::commit::Writer;
use crate::range::KeyRange;
use crate::seeded::{self, Bug};
use crate::snapshot::{Entry, Key, Snapshot, Undone};
use crate::transaction::text;

/// A version that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// It is older than what is kept.
    #[error(
        "version {asked} of the memory is no longer kept; the oldest is {oldest} (history_bytes_max bounds what is kept)"
    )]
    TooOld {
        /// What was asked for.
        asked: CommitVersion,
        /// The oldest version that can be read.
        oldest: CommitVersion,
    },
    /// It does not exist yet.
    #[error("version {asked} of the memory does not exist; the newest is {newest}")]
    NotYet {
        /// What was asked for.
        asked: CommitVersion,
        /// The newest version.
        newest: CommitVersion,
    },
}

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySize {
    /// Commits.
    pub commits: usize,
    /// Bytes of what they have replaced, as the limit `history_bytes_max` counts them.
    pub bytes: usize,
}

/// What one commit made of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The commit.
    pub version: CommitVersion,
    /// When it was made; none: it is older than the kept history.
    pub at: Option<Timestamp>,
    /// Who made it; none: it came from outside of tasks.
    pub writer: Option<Writer>,
    /// The value from then on; none: the key was removed.
    pub value: Option<Bytes>,
}

/// A key that has another value in one state than in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// What it was; none: absent.
    pub before: Option<Entry>,
    /// What it became; none: absent.
    pub after: Option<Entry>,
}

impl Commit {
    /// Returns what the commit has changed in a range: each key and its new value, or none where it
    /// was removed; in ascending order.
    pub fn changes_in(&self, range: &KeyRange) -> impl Iterator<Item = (String, Option<&Entry>)> {
        let (from, _) = range.bounds();
        let first = match from {
            Bound::Included(from) => self.changes.partition_point(|change| *change.key < *from),
            Bound::Excluded(_) | Bound::Unbounded => 0,
        };
        self.changes[first..]
            .iter()
            .take_while(|change| range.contains(&change.key))
            .map(|change| (text(&change.key), change.after.as_deref()))
    }
}

impl Snapshot {
    /// Returns the oldest version that can be read.
    pub fn oldest(&self) -> CommitVersion {
        self.floor()
    }

    /// Returns how much history is kept.
    pub fn history_size(&self) -> HistorySize {
        let mut size = HistorySize { commits: 0, bytes: 0 };
        for commit in self.log().between(self.floor(), self.version()) {
            size.commits += 1;
            size.bytes += commit.size_bytes();
        }
        size
    }

    /// Returns the memory as it was at an earlier version.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn as_of(&self, version: CommitVersion) -> Result<Self, HistoryError> {
        self.check(version)?;
        let mut undone = Undone::new();
        for commit in self.log().back_between(version, self.version()) {
            for Replaced { key, before, .. } in &commit.changes {
                undone.insert(key.clone(), before.clone());
            }
        }
        Ok(self.before(version, undone))
    }

    /// Returns the commits after a version that have changed anything, in order.
    ///
    /// # Errors
    /// `TooOld`: commits after the version are no longer kept.
    pub fn commits_after(
        &self,
        version: CommitVersion,
    ) -> Result<impl Iterator<Item = Arc<Commit>>, HistoryError> {
        let oldest = self.floor();
        if version < oldest {
            return Err(HistoryError::TooOld { asked: version, oldest });
        }
        let skipped = if seeded::is(Bug::WatchSkipsVersion) { version.next() } else { version };
        Ok(self.log().between(skipped, self.version()))
    }

    /// Returns what became of a key, newest first; the last one is older than the kept history,
    /// unless the key was absent then.
    pub fn history(&self, key: impl AsRef<str>) -> Vec<Revision> {
        let key = key.as_ref().as_bytes();
        let mut revisions = Vec::new();
        let mut oldest = self.get(key);
        for commit in self.log().back_between(self.floor(), self.version()) {
            if let Some(Replaced { before, after, .. }) = commit.change_of(key) {
                revisions.push(Revision {
                    version: commit.version,
                    at: Some(commit.at),
                    writer: commit.writer,
                    value: after.as_ref().map(|after| after.value.clone()),
                });
                oldest = before.clone();
            }
        }
        revisions.extend(oldest.map(|entry| Revision {
            version: entry.version,
            at: None,
            writer: entry.writer,
            value: Some(entry.value.clone()),
        }));
        revisions
    }

    /// Returns the keys of a range that have another value at one version than at another, in
    /// ascending order.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn difference(
        &self,
        from: CommitVersion,
        to: CommitVersion,
        range: &KeyRange,
    ) -> Result<Vec<Difference>, HistoryError> {
        self.check(from)?;
        self.check(to)?;
        let (early, late) = (from.min(to), from.max(to));
        let mut changed: BTreeMap<Key, Replaced> = BTreeMap::new();
        for commit in self.log().between(early, late) {
            for change in commit.changes.iter().filter(|change| range.contains(&change.key)) {
                changed
                    .entry(change.key.clone())
                    .and_modify(|first| first.after.clone_from(&change.after))
                    .or_insert_with(|| change.clone());
            }
        }
        let value = |entry: &Option<Arc<Entry>>| entry.as_ref().map(|entry| entry.value.clone());
        let differs = |change: &Replaced| value(&change.before) != value(&change.after);
        let owned = |entry: Option<Arc<Entry>>| entry.map(Arc::unwrap_or_clone);
        Ok(changed
            .into_values()
            .filter(differs)
            .map(|Replaced { key, before, after }| {
                let (before, after) = if from <= to { (before, after) } else { (after, before) };
                Difference { key: text(&key), before: owned(before), after: owned(after) }
            })
            .collect())
    }

    fn check(&self, asked: CommitVersion) -> Result<(), HistoryError> {
        let (oldest, newest) = (self.floor(), self.version());
        if asked < oldest {
            Err(HistoryError::TooOld { asked, oldest })
        } else if asked > newest {
            Err(HistoryError::NotYet { asked, newest })
        } else {
            Ok(())
        }
    }
}
