//! The rows of the history: one record for the commits of a group, with what was there before.
//!
//! What a commit put there is not stored twice: it is in the row of the value, or is what a later
//! commit found. Each record names the newest version before it, so a missing one is noticed; the
//! newest record is named by the group's events, and the version below the oldest by its own row.

use std::collections::VecDeque;
use std::sync::Arc;

use guild_core::id::CommitVersion;
use guild_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Commit, History, Log, LogGroup, Replaced};
use crate::commit::Writer;
use crate::key;
use crate::large::Entries;
use crate::record::{DataRow, as_bytes, chunks_of, decode, encode_onto};
use crate::rows::{each_record, optional_meta};
use crate::snapshot::{Key, Map};
use crate::store::{Store, StoreError};

/// The commits of one group.
#[derive(Debug, Serialize, Deserialize)]
struct LogRow<'a> {
    /// The newest commit before; of the oldest record: the oldest version that can be read.
    previous: CommitVersion,
    #[serde(borrow)]
    commits: Vec<CommitRow<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CommitRow<'a> {
    version: CommitVersion,
    at: Timestamp,
    writer: Option<Writer>,
    /// Each changed key, with what was there before.
    #[serde(borrow)]
    changes: Vec<ChangeRow<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ChangeRow<'a> {
    #[serde(borrow, serialize_with = "as_bytes")]
    key: &'a [u8],
    #[serde(borrow)]
    before: Option<DataRow<'a>>,
}

/// Appends the record of a group.
pub(crate) fn encode_log(content: &mut Vec<u8>, previous: CommitVersion, commits: &[Arc<Commit>]) {
    let commits = commits.iter().map(|commit| CommitRow {
        version: commit.version,
        at: commit.at,
        writer: commit.writer,
        changes: commit.changes.iter().map(before).collect(),
    });
    encode_onto(content, &LogRow { previous, commits: commits.collect() });
}

fn before(change: &Replaced) -> ChangeRow<'_> {
    ChangeRow { key: &change.key, before: change.before.as_deref().map(DataRow::from) }
}

/// Reads the history; `map` is the newest state and `newest` the newest commit that the log knows.
pub(crate) fn load_log(
    store: &dyn Store,
    entries: &mut Entries<'_>,
    map: &Map,
    newest: CommitVersion,
) -> Result<History, StoreError> {
    let floor: CommitVersion = optional_meta(store, key::FLOOR)?.unwrap_or_default();
    let mut found: Vec<Commit> = Vec::new();
    let mut groups: VecDeque<LogGroup> = VecDeque::new();
    each_record(store, key::LOG, "history", None, &mut |_, content| {
        let row: LogRow<'_> = decode(content)?;
        let known = groups.back().map_or(floor, |group| group.last);
        let (Some(first), Some(last)) = (row.commits.first(), row.commits.last()) else {
            return Err("a group without commits".into());
        };
        if row.previous != known || first.version <= known {
            return Err(format!("the commits between {known} and {} are missing", first.version));
        }
        let (first, last, chunks) = (first.version, last.version, chunks_of(content));
        let place = found.len();
        for row in row.commits {
            found.push(row.into_commit(entries)?);
        }
        let bytes = found[place..].iter().map(Commit::size_bytes).sum();
        groups.push_back(LogGroup { first, last, bytes, chunks });
        Ok(())
    })?;
    let last = groups.back().map_or(floor, |group| group.last);
    if last != newest {
        let what = format!("history: it ends at version {last} instead of {newest}");
        return Err(StoreError::corrupt(store.path(), what));
    }
    Ok(History::recovered(with_results(found, map), floor, groups))
}

/// Puts in what each commit left behind: what a later one found, or the newest state.
fn with_results(mut found: Vec<Commit>, map: &Map) -> Log {
    for place in 0..found.len() {
        let (earlier, rest) = found.split_at_mut(place);
        for Replaced { key, before, .. } in &rest[0].changes {
            if let Some(before) = before
                && let Ok(writer) = earlier.binary_search_by_key(&before.version, |it| it.version)
                && let changes = &mut earlier[writer].changes
                && let Ok(change) = changes.binary_search_by(|change| change.key.cmp(key))
            {
                changes[change].after = Some(Arc::clone(before));
            }
        }
    }
    for Commit { version, changes, .. } in &mut found {
        for change in changes.iter_mut().filter(|change| change.after.is_none()) {
            // An older entry was there before the commit, which has removed it.
            change.after = map.get(&change.key).filter(|entry| entry.version == *version);
        }
    }
    found.into_iter().collect()
}

impl CommitRow<'_> {
    fn into_commit(self, entries: &mut Entries<'_>) -> Result<Commit, String> {
        let mut changes = Vec::with_capacity(self.changes.len());
        for ChangeRow { key, before } in self.changes {
            let before =
                before.map(|row| entries.entry(Key::from(key), row, 0)).transpose()?.map(Arc::new);
            changes.push(Replaced { key: Key::from(key), before, after: None });
        }
        let changes = changes.into();
        Ok(Commit { version: self.version, at: self.at, writer: self.writer, changes })
    }
}
