//! The entries of the memory, each as long as some snapshot shows it.
//!
//! A key is found by its hash: a tree of as many keys costs a dozen wrong guesses of the processor and
//! as many lines of its cache for each look-up, and a tree of which every snapshot has its own is copied
//! along the way to each change. Nothing is ever listed in the order of hashes. A list of the keys in
//! their own order serves scans; it changes only when a key comes or goes.

#![expect(
    clippy::disallowed_types,
    reason = "the keys are others' choice, and nothing is listed by its hash"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::RandomState;
use guild_core::id::CommitVersion;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::{Entry, Key};

/// Keys are spread over so many locks, so that who changes one stops hardly anyone who reads others.
const SHARDS: usize = 64;

/// Keys that a scan takes from the list at a time: few at first, as most scans end soon.
const KEYS_AT_ONCE_MIN: usize = 16;
const KEYS_AT_ONCE_MAX: usize = 512;

/// The entries of the memory; one thread changes them, others read.
pub(super) struct Table {
    /// Agents choose the keys, and may choose those of one hash: the hashes of each table are its own.
    hasher: RandomState,
    shards: [Shard; SHARDS],
    keys: RwLock<BTreeSet<Key>>,
    /// Versions of snapshots that are gone, for whoever changes the entries.
    ended: Mutex<Vec<CommitVersion>>,
}

/// A lock has a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    newest: HashTable<Arc<Entry>>,
    /// Entries that are no longer the newest ones and that some snapshot shows.
    older: BTreeMap<(Key, CommitVersion), Older>,
}

struct Older {
    entry: Arc<Entry>,
    /// The commit that has replaced or removed it.
    until: CommitVersion,
}

/// A lock that a thread has poisoned holds good data: the entries are whole after every step.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Table {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: std::array::from_fn(|_| Shard::default()),
            keys: RwLock::default(),
            ended: Mutex::default(),
        }
    }
}

impl Table {
    /// Makes a table of entries that are in the order of their keys.
    pub(super) fn from_sorted(entries: Vec<Arc<Entry>>) -> Self {
        let mut table = Self::default();
        // A list that is made at once takes less room than one that grows.
        let keys = entries.iter().map(|entry| entry.key.clone()).collect();
        table.keys = RwLock::new(keys);
        let hasher = table.hasher.clone();
        let hash = |entry: &Arc<Entry>| hash(&hasher, &entry.key);
        for shard in &table.shards {
            write(&shard.0).newest.reserve(entries.len() / SHARDS, hash);
        }
        for entry in entries {
            let of_key = hash(&entry);
            write(table.shard(of_key)).newest.insert_unique(of_key, entry, hash);
        }
        table
    }

    /// Returns what a key has at a version.
    #[inline]
    pub(super) fn get(&self, key: &[u8], at: CommitVersion) -> Option<Arc<Entry>> {
        let hash = hash(&self.hasher, key);
        let entries = read(self.shard(hash));
        match entries.newest.find(hash, |entry| *entry.key == *key) {
            Some(entry) if entry.version <= at => Some(Arc::clone(entry)),
            Some(_) | None => entries.older(key, at),
        }
    }

    /// Adds the first keys of a range that have an entry at some version.
    fn keys_of(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, keys: &mut Vec<Key>, max: usize) {
        let listed = read(&self.keys);
        keys.extend(listed.range::<[u8], _>((from, to)).take(max).cloned());
    }

    /// Puts an entry in the place of the newest one, which is returned and stays if `keeps` says so.
    pub(super) fn put(
        &self,
        entry: Arc<Entry>,
        keeps: impl FnOnce(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let of_key = hash(&self.hasher, &entry.key);
        let mut entries = write(self.shard(of_key));
        let Entries { newest, older } = &mut *entries;
        let is_same = |other: &Arc<Entry>| other.key == entry.key;
        match newest.entry(of_key, is_same, |other| hash(&self.hasher, &other.key)) {
            Slot::Occupied(mut slot) => {
                let until = entry.version;
                let before = std::mem::replace(slot.get_mut(), entry);
                if keeps(&before) {
                    let entry = Arc::clone(&before);
                    older.insert((before.key.clone(), before.version), Older { entry, until });
                }
                Some(before)
            }
            Slot::Vacant(slot) => {
                let key = entry.key.clone();
                slot.insert(entry);
                write(&self.keys).insert(key);
                None
            }
        }
    }

    /// Removes the newest entry of a key at a version; it is returned and stays if `keeps` says so.
    pub(super) fn remove(
        &self,
        key: &[u8],
        until: CommitVersion,
        keeps: impl FnOnce(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let hash = hash(&self.hasher, key);
        let mut entries = write(self.shard(hash));
        let slot = entries.newest.find_entry(hash, |entry| *entry.key == *key).ok()?;
        let (before, _) = slot.remove();
        if keeps(&before) {
            let entry = Arc::clone(&before);
            let place = (before.key.clone(), before.version);
            entries.older.insert(place, Older { entry, until });
        } else if !entries.has_older(&before.key) {
            write(&self.keys).remove(key);
        }
        Some(before)
    }

    /// Drops an entry that is not the newest one and that no snapshot shows any more.
    pub(super) fn forget(&self, entry: &Entry) {
        let hash = hash(&self.hasher, &entry.key);
        let mut entries = write(self.shard(hash));
        entries.older.remove(&(entry.key.clone(), entry.version));
        let is_newest = |other: &Arc<Entry>| other.key == entry.key;
        if !entries.has_older(&entry.key) && entries.newest.find(hash, is_newest).is_none() {
            write(&self.keys).remove(&entry.key);
        }
    }

    /// Says that a snapshot of a version is gone.
    pub(super) fn end(&self, version: CommitVersion) {
        self.ended().push(version);
    }

    /// Returns the versions of the snapshots that are gone, to be emptied.
    pub(super) fn ended(&self) -> MutexGuard<'_, Vec<CommitVersion>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, hash: u64) -> &RwLock<Entries> {
        // A table of hashes uses the bits at both ends.
        &self.shards[(hash >> 32) as usize % SHARDS].0
    }
}

#[inline]
fn hash(hasher: &RandomState, key: &[u8]) -> u64 {
    hasher.hash_one(key)
}

impl Entries {
    /// Returns what a key had at a version, if something else took its place later.
    #[inline(never)]
    fn older(&self, key: &[u8], at: CommitVersion) -> Option<Arc<Entry>> {
        if self.older.is_empty() {
            return None;
        }
        let key = Key::from(key);
        let until_then = (key.clone(), CommitVersion::default())..=(key, at);
        let (_, older) = self.older.range(until_then).next_back()?;
        (at < older.until).then(|| Arc::clone(&older.entry))
    }

    fn has_older(&self, key: &Key) -> bool {
        let all = (key.clone(), CommitVersion::default())..=(key.clone(), CommitVersion(u64::MAX));
        self.older.range(all).next().is_some()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("keys", &read(&self.keys).len()).finish_non_exhaustive()
    }
}

/// The entries of a range at one version, in the order of their keys.
pub(super) struct Range<'a> {
    table: &'a Table,
    at: CommitVersion,
    to: Bound<&'a [u8]>,
    /// Where the next keys begin; none: there are no more.
    from: Option<Bound<&'a [u8]>>,
    /// Keys of the range, and how many of them were looked at.
    keys: Vec<Key>,
    place: usize,
}

impl<'a> Range<'a> {
    pub(super) fn of(
        table: &'a Table,
        at: CommitVersion,
        (from, to): (Bound<&'a [u8]>, Bound<&'a [u8]>),
    ) -> Self {
        Self { table, at, to, from: Some(from), keys: Vec::new(), place: 0 }
    }

    /// Takes the next keys from the list; there are none at the end.
    fn refill(&mut self) {
        let max = (2 * self.keys.len()).clamp(KEYS_AT_ONCE_MIN, KEYS_AT_ONCE_MAX);
        let mut keys = Vec::with_capacity(max);
        match (self.from.take(), self.keys.last()) {
            (Some(from), _) => self.table.keys_of(from, self.to, &mut keys, max),
            (None, Some(last)) => {
                self.table.keys_of(Bound::Excluded(last), self.to, &mut keys, max);
            }
            (None, None) => {}
        }
        (self.keys, self.place) = (keys, 0);
    }
}

impl Iterator for Range<'_> {
    type Item = Arc<Entry>;

    fn next(&mut self) -> Option<Arc<Entry>> {
        loop {
            while let Some(key) = self.keys.get(self.place) {
                self.place += 1;
                if let Some(entry) = self.table.get(key, self.at) {
                    return Some(entry);
                }
            }
            self.refill();
            if self.keys.is_empty() {
                return None;
            }
        }
    }
}
