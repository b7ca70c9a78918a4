//! Shows the shared memory as it was at one commit version.
//!
//! The values live in a persistent ordered map, so a snapshot is a pointer: readers take the
//! newest one without a lock, a mailbox or the store, and hold it as long as they like.

mod key;

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use guild_core::id::CommitVersion;
use imbl::OrdMap;
use serde::de::DeserializeOwned;

pub(crate) use self::key::Key;
use crate::commit::Writer;
use crate::history::Commits;
use crate::store::ValueId;
use crate::transaction::TransactionError;

pub(crate) type Map = OrdMap<Key, Arc<Entry>>;

/// A value of the shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value: one JSON text, when it was written through the typed interface.
    pub value: Bytes,
    /// The commit that wrote it.
    pub version: CommitVersion,
    /// Who wrote it; none: it came from outside.
    pub writer: Option<Writer>,
    /// The name of its file, where it is too large for a row.
    pub(crate) large: Option<Arc<ValueId>>,
    /// Checksum of its row; 0 without a store.
    pub(crate) checksum: u32,
}

#[derive(Default)]
struct Inner {
    version: CommitVersion,
    map: Map,
    /// The newest commits that led here.
    commits: Commits,
    /// The oldest version that they lead back to.
    floor: CommitVersion,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.map.len();
        f.debug_struct("Snapshot").field("version", &self.version).field("keys", &keys).finish()
    }
}

/// The shared memory at one commit version; cloning is cheap.
///
/// A snapshot may be ahead of what is durable: it shows what was committed, not what was
/// acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Arc<Inner>);

impl Snapshot {
    pub(crate) fn new(
        version: CommitVersion,
        map: Map,
        commits: Commits,
        floor: CommitVersion,
    ) -> Self {
        Self(Arc::new(Inner { version, map, commits, floor }))
    }

    /// Returns the newest commit that the snapshot shows.
    pub fn version(&self) -> CommitVersion {
        self.0.version
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entry(key)
    }

    /// Returns the value of a key as this type.
    ///
    /// # Errors
    /// `Decode`: the value is of another type.
    pub fn value<T: DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
    ) -> Result<Option<T>, TransactionError> {
        let key = key.as_ref();
        let Some(entry) = self.entry(key.as_bytes()) else {
            return Ok(None);
        };
        let decoded = serde_json::from_slice(&entry.value);
        decoded.map(Some).map_err(|error| TransactionError::Decode {
            key: key.to_owned(),
            message: error.to_string(),
        })
    }

    /// Visits the keys that begin with a prefix, in ascending order of bytes.
    pub fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Entry)> + use<'a> {
        scan(&self.0.map, prefix).map(|(key, entry)| (&**key, &**entry))
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.0.map.len()
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.map.is_empty()
    }

    pub(crate) fn entry(&self, key: &[u8]) -> Option<&Entry> {
        let map = &self.0.map;
        // Keys are compared faster than bytes.
        let entry = Key::short(key).map_or_else(|| map.get(key), |key| map.get(&key));
        entry.map(|entry| &**entry)
    }

    pub(crate) fn map(&self) -> &Map {
        &self.0.map
    }

    pub(crate) fn commits(&self) -> &Commits {
        &self.0.commits
    }

    pub(crate) fn floor(&self) -> CommitVersion {
        self.0.floor
    }
}

/// Visits the entries of a map whose keys begin with a prefix.
pub(crate) fn scan<'a>(
    map: &'a Map,
    prefix: &'a [u8],
) -> impl Iterator<Item = (&'a Key, &'a Arc<Entry>)> + use<'a> {
    map.range::<_, [u8]>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
}

/// Where the newest snapshot is found; `Clone + Send + Sync`.
#[derive(Clone, Debug, Default)]
pub struct Snapshots(Arc<ArcSwap<Inner>>);

impl Snapshots {
    /// Returns the newest snapshot.
    pub fn latest(&self) -> Snapshot {
        Snapshot(self.0.load_full())
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.0.store(snapshot.0);
    }
}
