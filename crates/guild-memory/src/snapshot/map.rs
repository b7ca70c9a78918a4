//! The newest entries, and which earlier ones have to stay for the snapshots that are held.
//!
//! An entry that was replaced is listed with the newest snapshot that shows it. When that one is gone
//! the entry goes on to the newest earlier snapshot that shows it, or is dropped: nothing stays that nobody
//! can see, and nothing is searched for. (ZFS keeps blocks of its snapshots so, in "dead lists".)

use std::collections::VecDeque;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use guild_core::id::CommitVersion;

use super::table::{Range, Table};
use super::{Entry, Key};
use crate::history::Log;

/// The entries that the next commit finds, changed by one thread.
#[derive(Debug, Default)]
pub(crate) struct Map {
    table: Arc<Table>,
    keys: usize,
    /// The versions of which there are snapshots, in ascending order.
    held: VecDeque<Held>,
    /// Room for a list.
    ended: Vec<CommitVersion>,
}

/// A version of which there are snapshots.
#[derive(Debug)]
struct Held {
    version: CommitVersion,
    /// The oldest version that they lead back to.
    floor: CommitVersion,
    snapshots: usize,
    /// Entries that no newer snapshot shows.
    superseded: Vec<Arc<Entry>>,
    /// Commits that were cut from the history and that no older snapshot sees.
    cut: Vec<CommitVersion>,
}

/// The entries at one version, which are kept until it is dropped.
pub(super) struct View {
    table: Arc<Table>,
    version: CommitVersion,
    keys: usize,
}

/// Newer than everything.
const NEWEST: CommitVersion = CommitVersion(u64::MAX);

impl Map {
    /// Makes a map of entries that are in the order of their keys.
    pub(crate) fn from_sorted(entries: Vec<Arc<Entry>>) -> Self {
        let keys = entries.len();
        Self { table: Arc::new(Table::from_sorted(entries)), keys, ..Self::default() }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.table.get(key, NEWEST)
    }

    /// Visits the entries of a range, in the order of their keys.
    pub(crate) fn range<'a>(
        &'a self,
        bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>),
    ) -> impl Iterator<Item = Arc<Entry>> + use<'a> {
        Range::of(&self.table, NEWEST, bounds)
    }

    /// Puts an entry; returns the one whose place it takes.
    pub(crate) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let shown = self.shown();
        let before = self.table.put(entry, |before| before.version <= shown);
        match &before {
            Some(before) => self.supersede(before),
            None => self.keys += 1,
        }
        before
    }

    /// Removes a key with a commit; returns its entry.
    pub(crate) fn remove(&mut self, key: &Key, version: CommitVersion) -> Option<Arc<Entry>> {
        let shown = self.shown();
        let before = self.table.remove(key, version, |before| before.version <= shown)?;
        self.keys -= 1;
        self.supersede(&before);
        Some(before)
    }

    /// Holds the entries as they are at a version, the newest one, from where the history leads back to
    /// a floor.
    pub(super) fn view(&mut self, version: CommitVersion, floor: CommitVersion) -> View {
        match self.held.back_mut() {
            Some(held) if held.version == version => held.snapshots += 1,
            _ => {
                let (superseded, cut) = (Vec::new(), Vec::new());
                self.held.push_back(Held { version, floor, snapshots: 1, superseded, cut });
            }
        }
        View { table: Arc::clone(&self.table), version, keys: self.keys }
    }

    /// Drops the entries and the commits of the history that only snapshots have shown that are gone.
    pub(crate) fn release(&mut self, log: &Log) {
        let mut ended = std::mem::take(&mut self.ended);
        std::mem::swap(&mut *self.table.ended(), &mut ended);
        for version in ended.drain(..) {
            let Ok(place) = self.held.binary_search_by_key(&version, |held| held.version) else {
                continue;
            };
            self.held[place].snapshots -= 1;
            if self.held[place].snapshots > 0 {
                continue;
            }
            let Some(gone) = self.held.remove(place) else {
                continue;
            };
            for commit in gone.cut.into_iter().filter(|commit| !self.keeps_commit(*commit)) {
                log.remove(commit);
            }
            let mut earlier = place.checked_sub(1).map(|place| &mut self.held[place]);
            for entry in gone.superseded {
                match &mut earlier {
                    Some(held) if entry.version <= held.version => held.superseded.push(entry),
                    Some(_) | None => self.table.forget(&entry),
                }
            }
        }
        self.ended = ended;
    }

    /// Returns whether some snapshot sees a commit that was cut from the history; it is released with
    /// the last one that does.
    pub(crate) fn keeps_commit(&mut self, version: CommitVersion) -> bool {
        // Of the snapshots that are new enough the first one leads back the farthest.
        let first = self.held.partition_point(|held| held.version < version);
        let seen = self.held.get_mut(first).filter(|held| held.floor < version);
        seen.map(|held| held.cut.push(version)).is_some()
    }

    /// Returns the version of the newest snapshot; later entries have been shown to nobody.
    fn shown(&self) -> CommitVersion {
        // Version 0 is the empty memory and has no entries.
        self.held.back().map(|held| held.version).unwrap_or_default()
    }

    fn supersede(&mut self, before: &Arc<Entry>) {
        if let Some(held) = self.held.back_mut()
            && before.version <= held.version
        {
            held.superseded.push(Arc::clone(before));
        }
    }
}

impl View {
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.table.get(key, self.version)
    }

    pub(super) fn range<'a>(
        &'a self,
        bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>),
    ) -> impl Iterator<Item = Arc<Entry>> + use<'a> {
        Range::of(&self.table, self.version, bounds)
    }
}

impl Default for View {
    fn default() -> Self {
        Map::default().view(CommitVersion::default(), CommitVersion::default())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.table.end(self.version);
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("version", &self.version)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
