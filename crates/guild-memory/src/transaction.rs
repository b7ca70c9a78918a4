//! Collects what a task reads and writes until its completion commits all of it at once.
//!
//! Reads come from one stable snapshot and are remembered; writes stay here. Nothing is locked, so a
//! transaction may think for hours. The memory accepts it if everything it has read is still so.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use guild_core::event::Reads;
use guild_core::id::CommitVersion;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::snapshot::{Key, Snapshot, Snapshots, scan};

/// A change of one key, as composed from all changes that the transaction made to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put(Bytes),
    Delete,
    /// Adds to whatever integer is there at the commit; absent counts as 0. Wide, so that only
    /// the result has to fit.
    Add(i128),
}

/// A prefix that was scanned, as far as the caller could see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeRead {
    pub(crate) prefix: Key,
    /// The last key that the caller saw; none: the scan ran dry and the whole prefix was seen.
    pub(crate) last: Option<Key>,
    /// How many keys of the snapshot lie in the range.
    pub(crate) rows: usize,
}

/// What a transaction hands to the memory.
#[derive(Clone, Debug, Default)]
pub struct TransactionParts {
    pub(crate) read_at: CommitVersion,
    /// The version that each key had when it was read; none: it was absent.
    pub(crate) reads: BTreeMap<Key, Option<CommitVersion>>,
    pub(crate) ranges: Vec<RangeRead>,
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
        !(self.reads.is_empty() && self.ranges.is_empty())
    }
}

/// Why a transaction cannot read or write what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The value of the key has another type.
    #[error("memory key `{key}` holds a value of another type: {message}")]
    Decode {
        /// The key.
        key: String,
        /// What the decoder said.
        message: String,
    },
    /// The value has no JSON form.
    #[error("value for memory key `{key}` has no JSON form: {message}")]
    Encode {
        /// The key.
        key: String,
        /// What the encoder said.
        message: String,
    },
    /// Something was added to a value that is no integer.
    #[error(
        "cannot add to memory key `{key}`: it holds no integer of 64 bits; put an integer there first"
    )]
    NotAnInteger {
        /// The key.
        key: String,
    },
    /// The sum does not fit.
    #[error("cannot add to memory key `{key}`: the sum does not fit 64 bits")]
    Overflow {
        /// The key.
        key: String,
    },
}

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
    /// `Decode`; `NotAnInteger` and `Overflow` after an `add` that cannot work.
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
    /// `NotAnInteger` and `Overflow` after an `add` that cannot work.
    pub fn get_bytes(&mut self, key: impl AsRef<str>) -> Result<Option<Bytes>, TransactionError> {
        let key = key.as_ref().as_bytes();
        match self.parts.writes.get(key) {
            Some(Write::Put(value)) => return Ok(Some(value.clone())),
            Some(Write::Delete) => return Ok(None),
            Some(Write::Add(_)) | None => {}
        }
        let snapshot = self.snapshot();
        let entry = snapshot.entry(key);
        let shared = match snapshot.map().get_key_value(key) {
            Some((shared, _)) => shared.clone(),
            None => Key::from(key),
        };
        self.parts.reads.insert(shared, entry.map(|entry| entry.version));
        let base = entry.map(|entry| &entry.value);
        match self.parts.writes.get(key) {
            Some(Write::Add(amount)) => sum(key, base, *amount).map(Some),
            Some(Write::Put(_) | Write::Delete) | None => Ok(base.cloned()),
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
            .range::<[u8], _>((std::ops::Bound::Included(&*prefix), std::ops::Bound::Unbounded))
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
                Some((_, Write::Put(value))) => Some(value.clone()),
                Some((_, Write::Delete)) => None,
                Some((key, Write::Add(amount))) => match sum(key, base, *amount) {
                    Ok(value) => Some(value),
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
        let text = serde_json::to_vec(value).map_err(|error| TransactionError::Encode {
            key: key.to_owned(),
            message: error.to_string(),
        })?;
        self.put_bytes(key, text);
        Ok(())
    }

    /// Sets a key to bytes that are one JSON text.
    pub fn put_bytes(&mut self, key: impl AsRef<str>, value: impl Into<Bytes>) {
        self.write(key.as_ref(), Write::Put(value.into()));
    }

    /// Removes a key; no error when it is absent.
    pub fn delete(&mut self, key: impl AsRef<str>) {
        self.write(key.as_ref(), Write::Delete);
    }

    /// Adds to the integer of a key; an absent key counts as 0. It reads nothing, so any number of
    /// transactions may add to one key without conflict.
    ///
    /// # Errors
    /// `NotAnInteger` and `Overflow` when this transaction itself has put a value that does not fit;
    /// it is unchanged then. For a value that others have put the commit answers.
    pub fn add(&mut self, key: impl AsRef<str>, amount: i64) -> Result<(), TransactionError> {
        let key = key.as_ref();
        let amount = i128::from(amount);
        let composed = match self.parts.writes.get(key.as_bytes()) {
            None => Write::Add(amount),
            Some(Write::Add(before)) => Write::Add(before.saturating_add(amount)),
            Some(Write::Delete) => Write::Put(sum(key.as_bytes(), None, amount)?),
            Some(Write::Put(value)) => Write::Put(sum(key.as_bytes(), Some(value), amount)?),
        };
        self.write(key, composed);
        Ok(())
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

    fn write(&mut self, key: &str, write: Write) {
        match self.parts.writes.get_mut(key.as_bytes()) {
            Some(before) => *before = write,
            None => {
                self.parts.writes.insert(Key::from(key.as_bytes()), write);
            }
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// Returns the integer `base + amount` as JSON.
pub(crate) fn sum(
    key: &[u8],
    base: Option<&Bytes>,
    amount: i128,
) -> Result<Bytes, TransactionError> {
    let base = match base {
        None => 0,
        Some(value) => serde_json::from_slice::<i64>(value)
            .map_err(|_| TransactionError::NotAnInteger { key: text(key) })?,
    };
    let total = i128::from(base).checked_add(amount).and_then(|total| i64::try_from(total).ok());
    let total = total.ok_or_else(|| TransactionError::Overflow { key: text(key) })?;
    Ok(total.to_string().into())
}

pub(crate) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &Bytes) -> Result<T, TransactionError> {
    serde_json::from_slice(value)
        .map_err(|error| TransactionError::Decode { key: text(key), message: error.to_string() })
}
