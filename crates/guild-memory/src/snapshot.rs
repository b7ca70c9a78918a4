//! Shows the shared memory as it was at one commit version.
//!
//! All snapshots read the same table, each at its version: an entry stays there as long as a snapshot
//! shows it. So a snapshot is a number; readers take the newest one without a lock, a mailbox or the
//! store, and hold it as long as they like. (Reed, "Naming and Synchronization in a Decentralized Computer
//! System", 1978: multiple versions.)

mod key;
mod map;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use guild_core::id::CommitVersion;
use serde::de::DeserializeOwned;

pub(crate) use self::key::Key;
pub(crate) use self::map::Map;
use self::map::View;
use crate::commit::Writer;
use crate::history::Log;
use crate::store::ValueId;
use crate::transaction::TransactionError;

/// A value of the shared memory.
///
/// Its parts lie in this order: what every look-up reads is in one line of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// The commit that wrote it.
    pub version: CommitVersion,
    pub(crate) key: Key,
    /// The value: one JSON text, when it was written through the typed interface.
    pub value: Bytes,
    /// Who wrote it; none: it came from outside.
    pub writer: Option<Writer>,
    /// The name of its file, where it is too large for a row.
    pub(crate) large: Option<Arc<ValueId>>,
    /// Checksum of its row; 0 without a store.
    pub(crate) checksum: u32,
}

impl Entry {
    /// Returns the key that it is found under.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// What other entries there were under some keys; none: the key was absent.
pub(crate) type Undone = BTreeMap<Key, Option<Arc<Entry>>>;

#[derive(Default)]
struct Inner {
    version: CommitVersion,
    keys: usize,
    state: State,
    /// The newest commits that led here, and maybe later ones.
    log: Log,
    /// The oldest version that they lead back to.
    floor: CommitVersion,
}

enum State {
    View(View),
    /// A snapshot without what some commits have done.
    Before(Snapshot, Undone),
}

impl Default for State {
    fn default() -> Self {
        Self::View(View::default())
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, keys, .. } = self;
        f.debug_struct("Snapshot").field("version", version).field("keys", keys).finish()
    }
}

/// The shared memory at one commit version; cloning is cheap.
///
/// A snapshot may be ahead of what is durable: it shows what was committed, not what was
/// acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Arc<Inner>);

/// The ends of a range of keys.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl Snapshot {
    pub(crate) fn new(
        map: &mut Map,
        version: CommitVersion,
        log: Log,
        floor: CommitVersion,
    ) -> Self {
        let view = map.view(version, floor);
        let (keys, state) = (view.keys(), State::View(view));
        Self(Arc::new(Inner { version, keys, state, log, floor }))
    }

    /// Returns the snapshot as it would be at a version if these keys had other entries.
    pub(crate) fn before(&self, version: CommitVersion, undone: Undone) -> Self {
        let mut keys = self.0.keys;
        for (key, entry) in &undone {
            let (is_here, was_there) = (self.get(key).is_some(), entry.is_some());
            keys = keys + usize::from(was_there) - usize::from(is_here);
        }
        let (log, floor) = (self.0.log.clone(), self.0.floor);
        let state = State::Before(self.clone(), undone);
        Self(Arc::new(Inner { version, keys, state, log, floor }))
    }

    /// Returns the newest commit that the snapshot shows.
    pub fn version(&self) -> CommitVersion {
        self.0.version
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        match &self.0.state {
            State::View(view) => view.get(key),
            State::Before(later, undone) => match undone.get(key) {
                Some(entry) => entry.clone(),
                None => later.get(key),
            },
        }
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
        let Some(entry) = self.get(key.as_bytes()) else {
            return Ok(None);
        };
        let decoded = serde_json::from_slice(&entry.value);
        decoded.map(Some).map_err(|error| TransactionError::Decode {
            key: key.to_owned(),
            message: error.to_string(),
        })
    }

    /// Visits the entries whose keys begin with a prefix, in ascending order of bytes.
    pub fn scan<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Arc<Entry>> + use<'a> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.range(from).take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// Visits the entries of a range, in ascending order of keys.
    pub(crate) fn range<'a>(
        &'a self,
        bounds: Bounds<'a>,
    ) -> Box<dyn Iterator<Item = Arc<Entry>> + 'a> {
        match &self.0.state {
            State::View(view) => Box::new(view.range(bounds)),
            State::Before(later, undone) => {
                let untouched =
                    later.range(bounds).filter(|entry| !undone.contains_key(&entry.key));
                let mut untouched = untouched.peekable();
                let there = undone.range::<[u8], _>(bounds);
                let mut there = there.filter_map(|(_, entry)| entry.clone()).peekable();
                Box::new(std::iter::from_fn(move || match (untouched.peek(), there.peek()) {
                    (Some(one), Some(other)) if one.key < other.key => untouched.next(),
                    (_, Some(_)) => there.next(),
                    (_, None) => untouched.next(),
                }))
            }
        }
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.0.keys
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the commits; later ones than the snapshot's may be among them.
    pub(crate) fn log(&self) -> &Log {
        &self.0.log
    }

    pub(crate) fn floor(&self) -> CommitVersion {
        self.0.floor
    }
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
