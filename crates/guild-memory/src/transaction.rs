//! Collects what a task reads and writes until its completion commits all of it at once.
//!
//! Reads come from one stable snapshot and are remembered; writes stay here. Nothing is locked, so a
//! transaction may think for hours. The memory accepts it if everything it has read is still so.

mod error;
mod merging;
mod parts;
mod savepoint;
mod scan;
mod write;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use guild_core::id::{CommitVersion, RoleId};
use guild_core::payload::with_json;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::error::TransactionError;
pub use self::parts::TransactionParts;
pub(crate) use self::parts::{RangeRead, Tried};
use self::savepoint::Saved;
pub use self::savepoint::Savepoint;
pub(crate) use self::write::{Step, Write, run};
use crate::namespace::{Namespaces, Right};
use crate::range::KeyRange;
use crate::snapshot::{Key, Snapshot, Snapshots};

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
    isolation: Isolation,
    /// None: everything is allowed.
    access: Option<Access>,
    parts: TransactionParts,
    saved: Vec<Saved>,
}

/// What a role may do in a transaction.
#[derive(Clone, Debug)]
pub struct Access {
    /// The rules.
    pub namespaces: Arc<Namespaces>,
    /// The role.
    pub role: RoleId,
}

impl Access {
    /// Checks that the role may follow the changes of a range.
    ///
    /// # Errors
    /// `Denied`.
    pub fn check_watch(&self, range: &KeyRange) -> Result<(), TransactionError> {
        let checked = self.namespaces.check_range(self.role, Right::Watch, range);
        checked.map_err(TransactionError::Denied)
    }

    fn read_key(&self, key: &[u8]) -> Result<(), TransactionError> {
        let checked = self.namespaces.check_key(self.role, Right::Read, key);
        checked.map_err(TransactionError::Denied)
    }

    fn read_range(&self, range: &KeyRange) -> Result<(), TransactionError> {
        let checked = self.namespaces.check_range(self.role, Right::Read, range);
        checked.map_err(TransactionError::Denied)
    }
}

/// What a transaction is protected from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// From everything: the outcome is that of the transactions one after the other.
    #[default]
    Serializable,
    /// From seeing changes of others, and from overwriting them: a commit is refused if a key that it
    /// puts or deletes has changed since the snapshot. What it has only read may have changed; two
    /// transactions that each read what the other one writes both commit (write skew).
    Snapshot,
}

impl Transaction {
    /// Begins a transaction.
    pub fn begin(origin: impl Into<Origin>) -> Self {
        let origin = origin.into();
        let read_at = match &origin {
            Origin::Fixed(snapshot) => snapshot.version(),
            Origin::Newest(_) => CommitVersion::default(),
        };
        Self {
            origin,
            isolation: Isolation::default(),
            access: None,
            parts: TransactionParts { read_at, ..TransactionParts::default() },
            saved: Vec::new(),
        }
    }

    /// Lets the transaction read only what a role may read; the commit looks at what it writes.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Sets what the transaction is protected from, as a whole; may be called until it commits.
    pub fn set_isolation(&mut self, isolation: Isolation) {
        self.isolation = isolation;
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
        self.check_key(key)?;
        let key = Key::from(key);
        match self.parts.writes.get(&key) {
            Some(Write::Put(value)) => return Ok(Some(value.clone())),
            Some(Write::Delete) => return Ok(None),
            None if self.parts.cleared.contains(&key) => return Ok(None),
            Some(Write::Steps(_)) | None => {}
        }
        let base = self.track(&key);
        match self.parts.writes.get(&key) {
            Some(write) => write.view(&key, base.as_ref()),
            None => Ok(base),
        }
    }

    /// Returns the value of a key without watching over it: the transaction commits even if others
    /// change the key meanwhile. For hints; a decision by it may rest on what is no longer so.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_untracked<T: DeserializeOwned>(
        &mut self,
        key: impl AsRef<str>,
    ) -> Result<Option<T>, TransactionError> {
        let key = key.as_ref().as_bytes();
        self.check_key(key)?;
        let snapshot = self.snapshot().clone();
        let entry = snapshot.get(key);
        let base = entry.as_ref().map(|entry| &entry.value);
        let value = match self.parts.writes.get(key) {
            Some(write) => write.view(key, base)?,
            None => base.filter(|_| !self.parts.cleared.contains(key)).cloned(),
        };
        value.map(|value| decode(key, &value)).transpose()
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

    /// Returns how many keys would change.
    pub fn writes(&self) -> usize {
        self.parts.writes()
    }

    /// Ends the transaction and returns what is to be committed; none: it has neither read nor
    /// written.
    pub fn into_work(self) -> Option<Box<TransactionParts>> {
        let is_untouched = self.parts.is_read_only() && !self.parts.has_reads();
        (!is_untouched).then(|| Box::new(self.into_parts()))
    }

    /// Ends the transaction and returns what is to be committed.
    pub fn into_parts(mut self) -> TransactionParts {
        match self.isolation {
            Isolation::Serializable => {}
            Isolation::Snapshot => self.watch_writes_only(),
        }
        if let Origin::Fixed(snapshot) = self.origin {
            self.parts.snapshot = Some(snapshot);
        }
        self.parts
    }

    /// Replaces what was read by what is overwritten: that the first one to commit wins is all that
    /// snapshot isolation asks for (Berenson et al., "A Critique of ANSI SQL Isolation Levels", 1995).
    fn watch_writes_only(&mut self) {
        let Origin::Fixed(snapshot) = &self.origin else {
            return;
        };
        let parts = &mut self.parts;
        (parts.tried, parts.ranges) = (Vec::new(), Vec::new());
        let overwritten = parts.writes.iter().filter(|(_, write)| write.overwrites());
        parts.reads = overwritten
            .map(|(key, _)| (key.clone(), snapshot.get(key).map(|entry| entry.version)))
            .collect();
        for range in parts.cleared.iter() {
            let rows = snapshot.range(range.bounds()).count();
            parts.ranges.push(RangeRead { range: range.clone(), last: None, rows });
        }
    }

    /// Takes the snapshot if there is none yet.
    fn snapshot(&mut self) -> &Snapshot {
        if let Origin::Newest(snapshots) = &self.origin {
            let snapshot = snapshots.latest();
            self.parts.read_at = snapshot.version();
            self.origin = Origin::Fixed(snapshot);
        }
        match &self.origin {
            Origin::Fixed(snapshot) => snapshot,
            Origin::Newest(_) => unreachable!("the newest snapshot has just been taken"),
        }
    }

    fn check_key(&self, key: &[u8]) -> Result<(), TransactionError> {
        self.access.as_ref().map_or(Ok(()), |access| access.read_key(key))
    }

    /// Reads a key of the snapshot, and remembers that.
    fn track(&mut self, key: &Key) -> Option<Bytes> {
        let entry = self.snapshot().get(key);
        let (version, value) = entry.map(|entry| (entry.version, entry.value.clone())).unzip();
        self.parts.reads.insert(key.clone(), version);
        value
    }

    /// Puts or deletes, which nothing can refuse.
    fn write(&mut self, key: &str, step: Step) {
        self.step(key, step).expect("a put or a delete fits any value");
    }

    fn step(&mut self, key: &str, step: Step) -> Result<(), TransactionError> {
        match self.parts.writes.get_mut(key.as_bytes()) {
            Some(before) => before.then(key.as_bytes(), step),
            None => {
                let write = if self.parts.cleared.contains(key.as_bytes()) {
                    let mut write = Write::Delete;
                    write.then(key.as_bytes(), step)?;
                    write
                } else {
                    Write::first(step)
                };
                self.parts.writes.insert(Key::from(key.as_bytes()), write);
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
    // Keys are text; the way around for those that are not takes longer.
    str::from_utf8(key).map_or_else(|_| String::from_utf8_lossy(key).into_owned(), str::to_owned)
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &Bytes) -> Result<T, TransactionError> {
    serde_json::from_slice(value)
        .map_err(|error| TransactionError::Decode { key: text(key), message: error.to_string() })
}

fn encode<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Bytes, TransactionError> {
    with_json(value, Bytes::copy_from_slice).map_err(|error| TransactionError::encode(key, &error))
}
