//! Keeps what the newest commits have changed, so that earlier versions can be read, compared,
//! followed and returned to.
//!
//! Each commit remembers what it put in the place of what. From the newest state backwards that
//! gives every earlier one, as far as the commits are kept: within a bound of bytes, and never cut
//! below a version that somebody has pinned. All snapshots share the list, and what one of them still
//! sees of it stays.

mod log;
mod pin;
mod read;
mod row;

use std::collections::VecDeque;
use std::sync::Arc;

use guild_core::id::CommitVersion;
use guild_core::time::Timestamp;

pub(crate) use self::log::Log;
pub use self::pin::{Pin, Pins};
pub use self::read::{Difference, HistoryError, HistorySize, Revision};
pub(crate) use self::row::{encode_log, load_log};
use crate::commit::Writer;
use crate::snapshot::{Entry, Key};

/// A commit that has changed the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its version.
    pub version: CommitVersion,
    /// When it was made.
    pub at: Timestamp,
    /// Who made it; none: it came from outside of tasks.
    pub writer: Option<Writer>,
    /// What it has changed, by key.
    pub(crate) changes: Box<[Replaced]>,
}

/// A key of a commit, with what was there before and after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Entry>>,
    pub(crate) after: Option<Arc<Entry>>,
}

/// What is known of a group of commits that share rows in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogGroup {
    pub(crate) first: CommitVersion,
    pub(crate) last: CommitVersion,
    pub(crate) bytes: usize,
    /// Rows in the store.
    pub(crate) chunks: u32,
}

/// What was cut from the history.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) groups: Vec<LogGroup>,
    pub(crate) commits: Vec<Arc<Commit>>,
}

/// The part of the history that is dropped at once when it is full: one of so many.
const CUT_SHARE: usize = 64;

/// The newest commits, and the bound of how many they are.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Those that are kept, and earlier ones that some snapshot sees.
    log: Log,
    /// The oldest version that can be read.
    pub(crate) floor: CommitVersion,
    /// The groups of all kept commits but the fresh ones.
    pub(crate) groups: VecDeque<LogGroup>,
    pub(crate) bytes: usize,
    /// Commits since the last group, in order.
    fresh: Vec<Arc<Commit>>,
    pins: Pins,
}

impl History {
    /// Returns the history that a store holds.
    pub(crate) fn recovered(log: Log, floor: CommitVersion, groups: VecDeque<LogGroup>) -> Self {
        let bytes = groups.iter().map(|group| group.bytes).sum();
        Self { log, floor, groups, bytes, fresh: Vec::new(), pins: Pins::from(floor) }
    }

    pub(crate) fn push(&mut self, commit: Commit) -> Arc<Commit> {
        let commit = Arc::new(commit);
        self.log.push(Arc::clone(&commit));
        self.fresh.push(Arc::clone(&commit));
        commit
    }

    /// Returns the newest commit of an ended group.
    pub(crate) fn newest(&self) -> CommitVersion {
        self.groups.back().map_or(self.floor, |group| group.last)
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn pins(&self) -> Pins {
        self.pins.clone()
    }

    /// Ends a group; returns its commits and the newest version before them.
    pub(crate) fn end_group(&mut self) -> Option<(CommitVersion, Vec<Arc<Commit>>)> {
        let fresh = std::mem::take(&mut self.fresh);
        let (first, last) = (fresh.first()?.version, fresh.last()?.version);
        let previous = self.newest();
        let bytes = fresh.iter().map(|commit| commit.size_bytes()).sum();
        self.bytes += bytes;
        self.groups.push_back(LogGroup { first, last, bytes, chunks: 0 });
        Some((previous, fresh))
    }

    /// Says how many rows of the store hold the newest group.
    pub(crate) fn stored(&mut self, chunks: u32) {
        if let Some(group) = self.groups.back_mut() {
            group.chunks = chunks;
        }
    }

    /// Drops the oldest groups beyond a bound of bytes, except the newest one and what is pinned;
    /// returns them. Once at it, it drops some more.
    pub(crate) fn cut(&mut self, bytes_max: usize) -> Cut {
        if self.bytes <= bytes_max {
            return Cut::default();
        }
        let kept = bytes_max - bytes_max / CUT_SHARE;
        self.drop_while(|history, _| history.bytes > kept)
    }

    /// Drops all groups up to a version, except the newest one and what is pinned; returns them.
    pub(crate) fn cut_below(&mut self, version: CommitVersion) -> Cut {
        self.drop_while(|_, group| group.last <= version)
    }

    fn drop_while(&mut self, drops: impl Fn(&Self, LogGroup) -> bool) -> Cut {
        let mut cut = Cut::default();
        while let Some(group) = self.groups.front().copied()
            && self.groups.len() > 1
            && drops(self, group)
            && self.pins.raise_floor(group.last)
        {
            self.groups.pop_front();
            self.bytes -= group.bytes;
            cut.commits.extend(self.log.between(self.floor, group.last));
            self.floor = group.last;
            cut.groups.push(group);
        }
        cut
    }
}

impl Commit {
    /// Returns what the commit has made of a key, if anything.
    pub(crate) fn change_of(&self, key: &[u8]) -> Option<&Replaced> {
        let place = self.changes.binary_search_by(|change| (*change.key).cmp(key)).ok()?;
        self.changes.get(place)
    }

    /// Returns the entries that the commit has replaced.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = &Entry> {
        self.changes.iter().filter_map(|change| change.before.as_deref())
    }

    /// Returns the bytes that the commit keeps alive, roughly.
    pub(crate) fn size_bytes(&self) -> usize {
        /// Of a commit or a change, beside keys and values.
        const OVERHEAD: usize = 96;
        let size = |change: &Replaced| {
            OVERHEAD + change.key.len() + change.before.as_ref().map_or(0, |old| old.value.len())
        };
        OVERHEAD + self.changes.iter().map(size).sum::<usize>()
    }
}
