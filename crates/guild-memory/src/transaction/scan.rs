//! Reads of ranges, and their removal.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{RangeRead, Step, Transaction, TransactionError, decode, text};
use crate::range::KeyRange;
use crate::seeded::{self, Bug};
use crate::snapshot::Key;

/// What a look at a range found.
struct Found {
    rows: Vec<(Key, Bytes)>,
    read: RangeRead,
    broken: Option<TransactionError>,
}

impl Transaction {
    /// Returns up to `limit` keys of a range, in ascending order, with their values as this
    /// transaction would leave them.
    ///
    /// The range up to the last key returned counts as read, absent keys included; when fewer than
    /// `limit` were found, the whole range.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Examples
    /// ```
    /// use guild_memory::{KeyRange, Snapshots, Transaction};
    ///
    /// let mut transaction = Transaction::begin(Snapshots::default());
    /// for key in ["a/1", "a/2", "b/1"] {
    ///     transaction.put(key, key)?;
    /// }
    /// let rows = transaction.scan::<String>("a/2".., 10)?;
    /// assert_eq!(rows.len(), 2);
    /// assert_eq!(transaction.scan::<String>(KeyRange::prefix("a/"), 1)?[0].0, "a/1");
    /// # Ok::<(), guild_memory::TransactionError>(())
    /// ```
    pub fn scan<T: DeserializeOwned>(
        &mut self,
        range: impl Into<KeyRange>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, TransactionError> {
        decoded(self.scan_bytes(range, limit)?)
    }

    /// Returns what [`scan`](Self::scan) returns, as bytes.
    ///
    /// # Errors
    /// As [`get_bytes`](Self::get_bytes).
    pub fn scan_bytes(
        &mut self,
        range: impl Into<KeyRange>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, TransactionError> {
        let range = range.into();
        self.check_range(&range)?;
        if limit == 0 {
            return Ok(Vec::new());
        }
        let found = self.look(range, limit);
        // An error, too, tells the caller something about what was read.
        if seeded::is(Bug::OnlyYieldedKeysTracked) {
            found.rows.iter().for_each(|(key, _)| drop(self.track(key)));
        } else {
            self.parts.ranges.push(found.read);
        }
        named(found.rows, found.broken)
    }

    /// Returns up to `limit` keys that begin with a prefix; see [`scan`](Self::scan).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn scan_prefix<T: DeserializeOwned>(
        &mut self,
        prefix: impl AsRef<str>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, TransactionError> {
        self.scan(KeyRange::prefix(prefix), limit)
    }

    /// Returns what [`scan_prefix`](Self::scan_prefix) returns, as bytes.
    ///
    /// # Errors
    /// As [`get_bytes`](Self::get_bytes).
    pub fn scan_prefix_bytes(
        &mut self,
        prefix: impl AsRef<str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, TransactionError> {
        self.scan_bytes(KeyRange::prefix(prefix), limit)
    }

    /// Returns what [`scan`](Self::scan) returns without watching over it: the transaction commits
    /// even if others change the range meanwhile.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn scan_untracked<T: DeserializeOwned>(
        &mut self,
        range: impl Into<KeyRange>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, TransactionError> {
        let range = range.into();
        self.check_range(&range)?;
        let found = self.look(range, limit);
        decoded(named(found.rows, found.broken)?)
    }

    /// Removes all keys of a range, those too that others put there before the commit. It is no
    /// read and never conflicts; what this transaction writes to the range afterwards stays.
    pub fn delete_range(&mut self, range: impl Into<KeyRange>) {
        let range = range.into();
        let written = self.parts.writes.range::<[u8], _>(range.bounds());
        let written: Vec<Key> = written.map(|(key, _)| key.clone()).collect();
        for key in written {
            let must_stay = self.parts.writes.get_mut(&key).is_some_and(|write| {
                write.can_be_refused() && write.then(&key, Step::Delete).is_ok()
            });
            if !must_stay {
                self.parts.writes.remove(&key);
            }
        }
        self.parts.cleared.insert(range);
    }

    fn check_range(&self, range: &KeyRange) -> Result<(), TransactionError> {
        self.access.as_ref().map_or(Ok(()), |access| access.read_range(range))
    }

    /// Looks at a range of the snapshot under what the transaction has written.
    fn look(&mut self, range: KeyRange, limit: usize) -> Found {
        let snapshot = self.snapshot().clone();
        let cleared = &self.parts.cleared;
        let mut theirs = snapshot.range(range.bounds()).peekable();
        let mut ours = self.parts.writes.range::<[u8], _>(range.bounds()).peekable();
        let mut found: Vec<(Key, Bytes)> = Vec::new();
        let (mut rows, mut broken) = (0, None);
        while found.len() < limit {
            let next = match (theirs.peek(), ours.peek()) {
                (None, None) => break,
                (Some(entry), None) => entry.key.clone(),
                (None, Some((key, _))) => (*key).clone(),
                (Some(entry), Some((ours, _))) => (&entry.key).min(*ours).clone(),
            };
            let entry = theirs.next_if(|entry| entry.key == next);
            let base = entry.as_ref().map(|entry| &entry.value);
            rows += usize::from(base.is_some());
            let value = match ours.next_if(|(key, _)| **key == next) {
                // Steps begin on what is there: a removal of their range is one of them.
                Some((key, write)) => match write.view(key, base) {
                    Ok(value) => value,
                    Err(error) => {
                        broken = Some((next, error));
                        break;
                    }
                },
                None => base.filter(|_| cleared.is_empty() || !cleared.contains(&next)).cloned(),
            };
            found.extend(value.map(|value| (next, value)));
        }
        let last = match &broken {
            Some((key, _)) => Some(key.clone()),
            None => found.last().filter(|_| found.len() == limit).map(|(key, _)| key.clone()),
        };
        let broken = broken.map(|(_, error)| error);
        drop(theirs);
        Found { rows: found, read: RangeRead { range, last, rows }, broken }
    }
}

fn named(
    rows: Vec<(Key, Bytes)>,
    broken: Option<TransactionError>,
) -> Result<Vec<(String, Bytes)>, TransactionError> {
    match broken {
        Some(error) => Err(error),
        None => Ok(rows.into_iter().map(|(key, value)| (text(&key), value)).collect()),
    }
}

fn decoded<T: DeserializeOwned>(
    rows: Vec<(String, Bytes)>,
) -> Result<Vec<(String, T)>, TransactionError> {
    rows.into_iter()
        .map(|(key, value)| decode(key.as_bytes(), &value).map(|value| (key, value)))
        .collect()
}
