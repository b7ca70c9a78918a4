//! Collects what a task reads and writes until its completion commits all of it at once.
//!
//! Reads come from one stable snapshot and are remembered; writes stay here. Nothing is locked, so a
//! transaction may think for hours. The memory accepts it if everything it has read is still so.

mod error;
mod merging;
mod parts;
mod write;

use std::fmt;
use std::ops::Bound;

use bytes::Bytes;
use guild_core::id::CommitVersion;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::error::TransactionError;
pub use self::parts::TransactionParts;
pub(crate) use self::parts::{RangeRead, Refused};
pub(crate) use self::write::{Step, Write, run};
use crate::snapshot::{Key, Snapshot, Snapshots, scan};

/// Where a transaction takes its snapshot from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// This snapshot.
    Fixed(Snapshot),
    /// The newest one at the time of the first read.
    Newest(Snapshots),
}

impl From<Snapshot> for Origin {
    fn from(snapshot: Snapshot) -> Self {
        Self::Fixed(snapshot)
    }
}

impl From<Snapshots> for Origin {
    fn from(snapshots: Snapshots) -> Self {
        Self::Newest(snapshots)
    }
}

impl From<&Snapshots> for Origin {
    fn from(snapshots: &Snapshots) -> Self {
        Self::Newest(snapshots.clone())
    }
}

/// A transaction on the shared memory.
///
/// # Examples
/// ```
/// use guild_memory::{Snapshots, Transaction};
///
/// let mut transaction = Transaction::begin(Snapshots::default());
/// transaction.put("greeting", "hello")?;
/// transaction.add("visits", 2)?;
/// transaction.add("visits", 3)?;
///
/// assert_eq!(transaction.get::<String>("greeting")?, Some("hello".to_owned()));
/// assert_eq!(transaction.get::<i64>("visits")?, Some(5));
/// assert_eq!(transaction.get::<i64>("absent")?, None);
/// # Ok::<(), guild_memory::TransactionError>(())
/// ```
pub struct Transaction {
    origin: Origin,
    parts: TransactionParts,
}

impl Transaction {
    /// Begins a transaction.
    pub fn begin(origin: impl Into<Origin>) -> Self {
        let origin = origin.into();
        let read_at = match &origin {
            Origin::Fixed(snapshot) => snapshot.version(),
            Origin::Newest(_) => CommitVersion::default(),
        };
        Self { origin, parts: TransactionParts { read_at, ..TransactionParts::default() } }
    }

    /// Returns the value of a key as this transaction would leave it; none when it is absent.
    ///
    /// # Errors
    /// `Decode`; what a merge operation before it is answered with, when it cannot work.
    pub fn get<T: DeserializeOwned>(
        &mut self,
        key: impl AsRef<str>,
    ) -> Result<Option<T>, TransactionError> {
        let key = key.as_ref();
        self.get_bytes(key)?.map(|value| decode(key.as_bytes(), &value)).transpose()
    }

    /// Returns the bytes of a key as this transaction would leave them; none when it is absent.
    ///
    /// # Errors
    /// What a merge operation before it is answered with, when it cannot work.
    pub fn get_bytes(&mut self, key: impl AsRef<str>) -> Result<Option<Bytes>, TransactionError> {
        let key = key.as_ref().as_bytes();
        match self.parts.writes.get(key) {
            Some(Write::Put(value)) => return Ok(Some(value.clone())),
            Some(Write::Delete) => return Ok(None),
            Some(Write::Steps(_)) | None => {}
        }
        let base = self.track(key);
        match self.parts.writes.get(key) {
            Some(write) => write.view(key, base.as_ref()),
            None => Ok(base),
        }
    }

    /// Returns up to `limit` keys that begin with a prefix, in ascending order, with their values as
    /// this transaction would leave them.
    ///
    /// The range up to the last key returned counts as read, absent keys included; when fewer than
    /// `limit` were found, the whole prefix.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn scan_prefix<T: DeserializeOwned>(
        &mut self,
        prefix: impl AsRef<str>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, TransactionError> {
        let rows = self.scan_prefix_bytes(prefix, limit)?;
        rows.into_iter()
            .map(|(key, value)| decode(key.as_bytes(), &value).map(|value| (key, value)))
            .collect()
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
        if limit == 0 {
            return Ok(Vec::new());
        }
        let prefix = Key::from(prefix.as_ref().as_bytes());
        let snapshot = self.snapshot();
        let mut theirs = scan(snapshot.map(), &prefix).peekable();
        let mut ours = self
            .parts
            .writes
            .range::<[u8], _>((Bound::Included(&*prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&prefix))
            .peekable();
        let mut found: Vec<(Key, Bytes)> = Vec::new();
        let mut rows = 0;
        let mut broken = None;
        while found.len() < limit {
            let next = match (theirs.peek(), ours.peek()) {
                (None, None) => break,
                (Some((key, _)), None) | (None, Some((key, _))) => *key,
                (Some((theirs, _)), Some((ours, _))) => (*theirs).min(*ours),
            };
            let base = theirs.next_if(|(key, _)| *key == next).map(|(_, entry)| &entry.value);
            rows += usize::from(base.is_some());
            let value = match ours.next_if(|(key, _)| *key == next) {
                Some((key, write)) => match write.view(key, base) {
                    Ok(value) => value,
                    Err(error) => {
                        broken = Some((next.clone(), error));
                        break;
                    }
                },
                None => base.cloned(),
            };
            found.extend(value.map(|value| (next.clone(), value)));
        }
        // The error, too, tells the caller something about what was read.
        let last = match &broken {
            Some((key, _)) => Some(key.clone()),
            None => (found.len() == limit).then(|| found[limit - 1].0.clone()),
        };
        self.parts.ranges.push(RangeRead { prefix: prefix.clone(), last, rows });
        if let Some((_, error)) = broken {
            return Err(error);
        }
        Ok(found.into_iter().map(|(key, value)| (text(&key), value)).collect())
    }

    /// Sets a key to a value.
    ///
    /// # Errors
    /// `Encode`; the transaction is unchanged then.
    pub fn put<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<str>,
        value: &T,
    ) -> Result<(), TransactionError> {
        let key = key.as_ref();
        let text = encode(key, value)?;
        self.write(key, Step::Put(text));
        Ok(())
    }

    /// Sets a key to bytes that are one JSON text.
    pub fn put_bytes(&mut self, key: impl AsRef<str>, value: impl Into<Bytes>) {
        self.write(key.as_ref(), Step::Put(value.into()));
    }

    /// Removes a key; no error when it is absent.
    pub fn delete(&mut self, key: impl AsRef<str>) {
        self.write(key.as_ref(), Step::Delete);
    }

    /// Returns the version that the transaction reads at; takes the snapshot if there is none yet.
    pub fn read_version(&mut self) -> CommitVersion {
        self.snapshot().version()
    }

    /// Ends the transaction and returns what is to be committed.
    pub fn into_parts(self) -> TransactionParts {
        self.parts
    }

    fn snapshot(&mut self) -> Snapshot {
        match &self.origin {
            Origin::Fixed(snapshot) => snapshot.clone(),
            Origin::Newest(snapshots) => {
                let snapshot = snapshots.latest();
                self.parts.read_at = snapshot.version();
                self.origin = Origin::Fixed(snapshot.clone());
                snapshot
            }
        }
    }

    /// Reads a key of the snapshot, and remembers that.
    fn track(&mut self, key: &[u8]) -> Option<Bytes> {
        let snapshot = self.snapshot();
        let entry = snapshot.entry(key);
        let shared = match snapshot.map().get_key_value(key) {
            Some((shared, _)) => shared.clone(),
            None => Key::from(key),
        };
        self.parts.reads.insert(shared, entry.map(|entry| entry.version));
        entry.map(|entry| entry.value.clone())
    }

    /// Puts or deletes, which nothing can refuse.
    fn write(&mut self, key: &str, step: Step) {
        self.step(key, step).expect("a put or a delete fits any value");
    }

    fn step(&mut self, key: &str, step: Step) -> Result<(), TransactionError> {
        match self.parts.writes.get_mut(key.as_bytes()) {
            Some(before) => before.then(key.as_bytes(), step),
            None => {
                self.parts.writes.insert(Key::from(key.as_bytes()), Write::first(step));
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("parts", &self.parts).finish_non_exhaustive()
    }
}

pub(crate) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &Bytes) -> Result<T, TransactionError> {
    serde_json::from_slice(value)
        .map_err(|error| TransactionError::Decode { key: text(key), message: error.to_string() })
}

fn encode<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Bytes, TransactionError> {
    let text = serde_json::to_vec(value).map_err(|error| TransactionError::Encode {
        key: key.to_owned(),
        message: error.to_string(),
    })?;
    Ok(text.into())
}
