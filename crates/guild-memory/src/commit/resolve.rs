//! Works out what a transaction changes, and holds it against limits, rights and quotas.

use bytes::Bytes;
use guild_core::id::{CommitVersion, RoleId};
use guild_core::limits::Limits;

use super::validate::Newest;
use super::{Change, CommitError, Data, Unmet, Violation};
use crate::large::INLINE_BYTES_MAX;
use crate::namespace::{Clash, OnConflict, Right};
use crate::seeded::{self, Bug};
use crate::snapshot::{Key, Snapshot};
use crate::transaction::{Step, TransactionParts, Write, run, text};

impl Data {
    /// Returns what the transaction changes; `clashes` are keys where it has met another one.
    pub(super) fn resolve(
        &self,
        parts: TransactionParts,
        clashes: &[Key],
        limits: &Limits,
    ) -> Result<Vec<Change>, CommitError> {
        let operations = parts.writes.values().map(Write::operations);
        let writes = operations.sum::<usize>() + parts.cleared.len();
        let writes_max = limits.writes_per_transaction_max;
        if writes > writes_max {
            return Err(CommitError::Invalid(Violation::TooManyWrites { writes, writes_max }));
        }
        let mut changes = self.clear(&parts, limits).map_err(CommitError::Invalid)?;
        changes.reserve(parts.writes.len());
        let (mut bytes, mut large_bytes) = (0, 0);
        for (key, write) in parts.writes {
            let size = write.size_bytes();
            let value = match write {
                Write::Put(value) => Some(value),
                Write::Delete => None,
                Write::Steps(steps) => match self.run(&key, &steps, parts.read_at)? {
                    Some(value) => value,
                    None => continue,
                },
            };
            let (key, value) = if clashes.is_empty() || !clashes.contains(&key) {
                (key, value)
            } else {
                self.meet(key, value, parts.read_at, parts.snapshot.as_ref())?
            };
            check_size(&key, value.as_ref(), limits).map_err(CommitError::Invalid)?;
            bytes += key.len();
            // Large values are committed by reference.
            match &value {
                Some(value) if value.len() > INLINE_BYTES_MAX => large_bytes += value.len(),
                Some(_) | None => bytes += size,
            }
            changes.push((key, value));
        }
        let (bytes_max, large_max) = (limits.transaction_bytes_max, limits.value_bytes_max);
        if bytes > bytes_max {
            return Err(CommitError::Invalid(Violation::TransactionTooLarge { bytes, bytes_max }));
        }
        if large_bytes > large_max {
            let (bytes, bytes_max) = (large_bytes, large_max);
            return Err(CommitError::Invalid(Violation::LargeValuesTooLarge { bytes, bytes_max }));
        }
        Ok(changes)
    }

    /// Returns the removals of all keys in the cleared ranges that are not written to afterwards.
    fn clear(&self, parts: &TransactionParts, limits: &Limits) -> Result<Vec<Change>, Violation> {
        let keys_max = limits.range_deletes_per_transaction_max;
        let ranges = || parts.cleared.iter().map(|range| self.map.range(range.bounds()));
        let keys = ranges().map(Iterator::count).sum();
        if keys > keys_max {
            return Err(Violation::TooManyDeletes { keys, keys_max });
        }
        let untouched = ranges().flatten().filter(|old| !parts.writes.contains_key(&old.key));
        Ok(untouched.map(|old| (old.key.clone(), None)).collect())
    }

    /// Runs steps on what is there; none: they change nothing.
    fn run(
        &self,
        key: &Key,
        steps: &[Step],
        read_at: CommitVersion,
    ) -> Result<Option<Option<Bytes>>, CommitError> {
        let entry = self.map.get(key);
        let base = entry.as_ref().map(|entry| &entry.value);
        let mut result = run(key, base, steps);
        if seeded::is(Bug::MergeReplayedTwice)
            && let Ok(Some(once)) = &result
        {
            result = run(key, Some(once), steps);
        }
        match result {
            Ok(value) => Ok((value.as_ref() != base).then_some(value)),
            Err(error) if error.depends_on_others() => {
                let Newest { at: now_at, writer, is_removed } = self.newest(key, read_at);
                let unmet = Unmet { error, read_at, now_at, writer, is_removed };
                Err(CommitError::Unmet(Box::new(unmet)))
            }
            Err(error) => Err(CommitError::Invalid(Violation::Merge(error))),
        }
    }

    /// Returns what becomes of a value that meets another one, as the namespace says.
    fn meet(
        &self,
        key: Key,
        mine: Option<Bytes>,
        read_at: CommitVersion,
        snapshot: Option<&Snapshot>,
    ) -> Result<Change, CommitError> {
        let base = snapshot.and_then(|snapshot| snapshot.get(&key));
        let theirs = self.map.get(&key);
        match self.namespaces.on_conflict(&key) {
            OnConflict::Merge(_) => {}
            _ => {
                let beside = format!("{}@{}", text(&key), self.version.next());
                return Ok((Key::from(beside.as_bytes()), mine));
            }
        }
        let json =
            |value: Option<&Bytes>| value.map(|value| serde_json::from_slice(value)).transpose();
        let merged = match (
            json(base.as_ref().map(|entry| &entry.value)),
            json(theirs.as_ref().map(|entry| &entry.value)),
            json(mine.as_ref()),
        ) {
            (Ok(base), Ok(theirs), Ok(mine)) => {
                self.namespaces.merge(&key, Clash { key: &text(&key), base, theirs, mine })
            }
            _ => Err("a value is no JSON".to_owned()),
        };
        merged.map(|value| (key.clone(), value)).map_err(|why| {
            tracing::debug!(key = text(&key), why, "two values of a memory key were not merged");
            let seen_at = base.map(|entry| entry.version);
            CommitError::Conflict(self.changed(Some(&key), None, seen_at, read_at))
        })
    }

    pub(super) fn check_rights(
        &self,
        parts: &TransactionParts,
        role: RoleId,
    ) -> Result<(), CommitError> {
        let keys = parts.writes.iter().try_for_each(|(key, write)| {
            let right = if write.overwrites() { Right::Write } else { Right::Merge };
            self.namespaces.check_key(role, right, key)
        });
        let mut ranges = parts.cleared.iter();
        keys.and_then(|()| {
            ranges.try_for_each(|range| self.namespaces.check_range(role, Right::Write, range))
        })
        .map_err(|denied| CommitError::Invalid(Violation::Denied(denied)))
    }

    pub(super) fn check_quotas(&self, changes: &[Change]) -> Result<(), CommitError> {
        let after = self.usage_after(changes);
        self.namespaces.check_usage(&self.usage, &after).map_err(CommitError::Invalid)
    }
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
