//! Decides whether a transaction may commit, and applies it: one serial step without I/O.
//!
//! A transaction that writes may commit if all that it read is still so: each key has the version
//! that was read (or is still absent), and each range holds no newer key and as many keys as were
//! seen there. That compares states, not histories, so there is no window that a slow transaction
//! could fall out of. A transaction that writes nothing is serialised at its snapshot and always
//! commits. (Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981, backward
//! validation; phantoms by range as in FoundationDB.)

mod error;
mod resolve;
mod validate;

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use guild_core::id::{CommitVersion, RoleId};
use guild_core::limits::Limits;
use guild_core::time::Timestamp;

pub use self::error::{CommitError, Conflict, Unmet, Violation, Writer};
use crate::history::{Commit, Cut, History, Replaced};
use crate::namespace::{Namespaces, Usage};
use crate::snapshot::{Entry, Key, Map, Snapshot};
use crate::transaction::TransactionParts;

/// The data of the shared memory and the version of its newest commit.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) map: Map,
    pub(crate) version: CommitVersion,
    /// Version of the newest commit that changed data: a transaction that read at it or later
    /// need not be validated.
    pub(crate) changed_at: CommitVersion,
    pub(crate) history: History,
    namespaces: Arc<Namespaces>,
    /// What there is in each namespace.
    usage: Vec<Usage>,
}

/// A checked change: the key and its new value, or none to remove it.
pub(crate) type Change = (Key, Option<Bytes>);

impl Data {
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let History { floor, .. } = self.history;
        Snapshot::new(&mut self.map, self.version, self.history.log().clone(), floor)
    }

    /// Lets go of what only snapshots have shown that are gone.
    pub(crate) fn release(&mut self) {
        self.map.release(self.history.log());
    }

    /// Cuts the history; what some snapshot sees of the commits stays for it.
    pub(crate) fn cut(&mut self, cut: impl FnOnce(&mut History) -> Cut) -> Cut {
        let cut = cut(&mut self.history);
        for commit in cut.commits.iter().filter(|commit| !self.map.keeps_commit(commit.version)) {
            self.history.log().remove(commit.version);
        }
        cut
    }

    /// Sets the rules from now on; what is there stays, whatever they say.
    pub(crate) fn set_namespaces(&mut self, namespaces: Arc<Namespaces>) {
        let mut usage = vec![Usage::default(); namespaces.len()];
        if !namespaces.is_empty() {
            for entry in self.map.range((Bound::Unbounded, Bound::Unbounded)) {
                if let Some(place) = namespaces.find(&entry.key) {
                    usage[place].add(&entry.key, &entry.value);
                }
            }
        }
        (self.namespaces, self.usage) = (namespaces, usage);
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Checks that all that a transaction has seen is still so, where that matters. Returns the keys
    /// where it has met another one and both values are to be kept or made one.
    pub(crate) fn check(&self, parts: &TransactionParts) -> Result<Vec<Key>, CommitError> {
        if parts.is_read_only() || parts.read_at >= self.changed_at {
            return Ok(Vec::new());
        }
        self.validate(parts)
    }

    /// Returns what a checked transaction changes; changes nothing. Without a role it comes from
    /// outside of tasks and may do everything.
    pub(crate) fn prepare(
        &self,
        parts: TransactionParts,
        clashes: &[Key],
        role: Option<RoleId>,
        limits: &Limits,
    ) -> Result<Vec<Change>, CommitError> {
        if parts.is_read_only() {
            return Ok(Vec::new());
        }
        if let Some(role) = role
            && !self.namespaces.is_empty()
        {
            self.check_rights(&parts, role)?;
        }
        let changes = self.resolve(parts, clashes, limits)?;
        if !self.namespaces.is_empty() {
            self.check_quotas(&changes)?;
        }
        Ok(changes)
    }

    /// Applies checked changes as the next commit. Each new entry goes through `each` before others
    /// see it, and none for a key that is removed; what it has replaced is told by the commit.
    pub(crate) fn apply(
        &mut self,
        at: Timestamp,
        changes: Vec<Change>,
        writer: Option<Writer>,
        mut each: impl FnMut(&Key, Option<&mut Entry>),
    ) -> (CommitVersion, Option<Arc<Commit>>) {
        self.version = self.version.next();
        if changes.is_empty() {
            return (self.version, None);
        }
        self.changed_at = self.version;
        if !self.namespaces.is_empty() {
            self.usage = self.usage_after(&changes);
        }
        let mut replaced = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            let (before, after) = match value {
                Some(value) => {
                    let mut new = Entry {
                        key: key.clone(),
                        value,
                        version: self.version,
                        writer,
                        large: None,
                        checksum: 0,
                    };
                    each(&key, Some(&mut new));
                    let new = Arc::new(new);
                    (self.map.insert(Arc::clone(&new)), Some(new))
                }
                None => {
                    let Some(old) = self.map.remove(&key, self.version) else {
                        continue;
                    };
                    each(&key, None);
                    (Some(old), None)
                }
            };
            replaced.push(Replaced { key, before, after });
        }
        if replaced.is_empty() {
            return (self.version, None);
        }
        replaced.sort_by(|one, other| one.key.cmp(&other.key));
        let (version, changes) = (self.version, replaced.into());
        let commit = self.history.push(Commit { version, at, writer, changes });
        (self.version, Some(commit))
    }

    /// Returns what one would see in the middle of the newest commit, if one could.
    pub(crate) fn half_applied(&mut self, commit: &Commit) -> Snapshot {
        let undone = commit.changes.iter().skip(1);
        let undone = undone.map(|change| (change.key.clone(), change.before.clone())).collect();
        self.snapshot().before(self.version, undone)
    }

    /// Returns what there would be in each namespace after these changes.
    fn usage_after(&self, changes: &[Change]) -> Vec<Usage> {
        let mut usage = self.usage.clone();
        for (key, value) in changes {
            let Some(place) = self.namespaces.find(key) else {
                continue;
            };
            if let Some(old) = self.map.get(key) {
                usage[place].remove(key, &old.value);
            }
            if let Some(value) = value {
                usage[place].add(key, value);
            }
        }
        usage
    }
}
