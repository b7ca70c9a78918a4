//! Decides whether a transaction may commit, and applies it: one serial step without I/O.
//!
//! A transaction that writes may commit if all that it read is still so: each key has the version
//! that was read (or is still absent), and each range holds no newer key and as many keys as were
//! seen there. That compares states, not histories, so there is no window that a slow transaction
//! could fall out of. A transaction that writes nothing is serialised at its snapshot and always
//! commits. (Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981, backward
//! validation; phantoms by range as in FoundationDB.)

mod error;

use std::sync::Arc;

use bytes::Bytes;
use guild_core::id::CommitVersion;
use guild_core::limits::Limits;

pub use self::error::{CommitError, Conflict, Unmet, Violation, Writer};

use crate::snapshot::{Entry, Key, Map, Snapshot};
use crate::transaction::{RangeRead, Step, TransactionParts, Tried, Write, run, text};

/// The data of the shared memory and the version of its newest commit.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) map: Map,
    pub(crate) version: CommitVersion,
    /// Version of the newest commit that changed data: a transaction that read at it or later
    /// need not be validated.
    pub(crate) changed_at: CommitVersion,
}

/// A checked change: the key and its new value, or none to remove it.
pub(crate) type Change = (Key, Option<Bytes>);

impl Data {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.version, self.map.clone())
    }

    /// Checks a transaction and returns what it changes; changes nothing.
    pub(crate) fn prepare(
        &self,
        parts: TransactionParts,
        limits: &Limits,
    ) -> Result<Vec<Change>, CommitError> {
        if parts.is_read_only() {
            return Ok(Vec::new());
        }
        if parts.read_at < self.changed_at {
            self.validate(&parts).map_err(CommitError::Conflict)?;
        }
        self.resolve(parts, limits)
    }

    /// Applies checked changes as the next commit; tells `each` the old and the new entry.
    pub(crate) fn apply(
        &mut self,
        changes: Vec<Change>,
        writer: Option<Writer>,
        mut each: impl FnMut(&Key, Option<&Entry>, Option<&mut Entry>),
    ) -> CommitVersion {
        self.version = self.version.next();
        if !changes.is_empty() {
            self.changed_at = self.version;
        }
        for (key, value) in changes {
            match value {
                Some(value) => {
                    let mut new = Entry { value, version: self.version, writer, checksum: 0 };
                    let old = self.map.get(&*key).map(|entry| &**entry);
                    each(&key, old, Some(&mut new));
                    self.map.insert(key, Arc::new(new));
                }
                None => {
                    if let Some(old) = self.map.remove(&*key) {
                        each(&key, Some(&old), None);
                    }
                }
            }
        }
        self.version
    }

    fn validate(&self, parts: &TransactionParts) -> Result<(), Box<Conflict>> {
        for (key, seen) in &parts.reads {
            let now = self.map.get(&**key);
            if now.map(|entry| entry.version) != *seen {
                return Err(changed(key, *seen, now, parts.read_at));
            }
        }
        for Tried { key, steps, refused } in &parts.tried {
            let now = self.map.get(&**key);
            let result = run(key, now.map(|entry| &entry.value), steps);
            if result.is_err_and(|error| error.depends_on_others()) != *refused {
                return Err(changed(key, None, now, parts.read_at));
            }
        }
        parts.ranges.iter().try_for_each(|range| self.validate_range(range, parts.read_at))
    }

    /// No entry of the range is newer than the snapshot, so all of them were there; if there are
    /// as many as were seen, none was removed either.
    fn validate_range(
        &self,
        read: &RangeRead,
        read_at: CommitVersion,
    ) -> Result<(), Box<Conflict>> {
        let conflict = |key: Option<&Key>, entry: Option<&Entry>| {
            Box::new(Conflict {
                key: key.map(|key| text(key)),
                range: Some(read.range.clone()),
                read_at,
                seen_at: None,
                now_at: entry.map(|entry| entry.version),
                writer: entry.and_then(|entry| entry.writer),
            })
        };
        let mut rows = 0;
        for (key, entry) in self.map.range::<_, [u8]>(read.range.bounds_to(read.last.as_ref())) {
            if entry.version > read_at {
                return Err(conflict(Some(key), Some(entry)));
            }
            rows += 1;
        }
        if rows == read.rows { Ok(()) } else { Err(conflict(None, None)) }
    }

    fn resolve(
        &self,
        parts: TransactionParts,
        limits: &Limits,
    ) -> Result<Vec<Change>, CommitError> {
        let writes =
            parts.writes.values().map(Write::operations).sum::<usize>() + parts.cleared.len();
        let writes_max = limits.writes_per_transaction_max;
        if writes > writes_max {
            return Err(CommitError::Invalid(Violation::TooManyWrites { writes, writes_max }));
        }
        let mut changes = self.clear(&parts, limits).map_err(CommitError::Invalid)?;
        changes.reserve(parts.writes.len());
        let mut bytes = 0;
        for (key, write) in parts.writes {
            bytes += key.len() + write.size_bytes();
            let value = match write {
                Write::Put(value) => Some(value),
                Write::Delete => None,
                Write::Steps(steps) => match self.run(&key, &steps, parts.read_at)? {
                    Some(value) => value,
                    None => continue,
                },
            };
            check_size(&key, value.as_ref(), limits).map_err(CommitError::Invalid)?;
            changes.push((key, value));
        }
        let bytes_max = limits.transaction_bytes_max;
        if bytes > bytes_max {
            return Err(CommitError::Invalid(Violation::TransactionTooLarge { bytes, bytes_max }));
        }
        Ok(changes)
    }

    /// Returns the removals of all keys in the cleared ranges that are not written to afterwards.
    fn clear(&self, parts: &TransactionParts, limits: &Limits) -> Result<Vec<Change>, Violation> {
        let keys_max = limits.range_deletes_per_transaction_max;
        let keys = parts
            .cleared
            .iter()
            .map(|range| self.map.range::<_, [u8]>(range.bounds()).count())
            .sum();
        if keys > keys_max {
            return Err(Violation::TooManyDeletes { keys, keys_max });
        }
        let cleared =
            parts.cleared.iter().flat_map(|range| self.map.range::<_, [u8]>(range.bounds()));
        let untouched = cleared.filter(|(key, _)| !parts.writes.contains_key(&**key));
        Ok(untouched.map(|(key, _)| (key.clone(), None)).collect())
    }

    /// Runs steps on what is there; none: they change nothing.
    fn run(
        &self,
        key: &[u8],
        steps: &[Step],
        read_at: CommitVersion,
    ) -> Result<Option<Option<Bytes>>, CommitError> {
        let entry = self.map.get(key);
        let base = entry.map(|entry| &entry.value);
        match run(key, base, steps) {
            Ok(value) => Ok((value.as_ref() != base).then_some(value)),
            Err(error) if error.depends_on_others() => Err(CommitError::Unmet(Box::new(Unmet {
                error,
                read_at,
                now_at: entry.map(|entry| entry.version),
                writer: entry.and_then(|entry| entry.writer),
            }))),
            Err(error) => Err(CommitError::Invalid(Violation::Merge(error))),
        }
    }
}

fn changed(
    key: &[u8],
    seen_at: Option<CommitVersion>,
    now: Option<&Arc<Entry>>,
    read_at: CommitVersion,
) -> Box<Conflict> {
    Box::new(Conflict {
        key: Some(text(key)),
        range: None,
        read_at,
        seen_at,
        now_at: now.map(|entry| entry.version),
        writer: now.and_then(|entry| entry.writer),
    })
}

fn check_size(key: &Key, value: Option<&Bytes>, limits: &Limits) -> Result<(), Violation> {
    if key.len() > limits.key_bytes_max {
        let (bytes, bytes_max) = (key.len(), limits.key_bytes_max);
        let start: String = text(key).chars().take(64).collect();
        return Err(Violation::KeyTooLong { key: format!("{start}..."), bytes, bytes_max });
    }
    match value {
        Some(value) if value.len() > limits.value_bytes_max => {
            let (bytes, bytes_max) = (value.len(), limits.value_bytes_max);
            Err(Violation::ValueTooLarge { key: text(key), bytes, bytes_max })
        }
        Some(_) | None => Ok(()),
    }
}
