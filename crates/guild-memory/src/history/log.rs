//! The list of commits that all snapshots share.
//!
//! Each snapshot sees those after its floor and up to its version. What is cut from the history stays in
//! the list until no snapshot sees it any more.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use guild_core::id::CommitVersion;

use super::Commit;

type Commits = BTreeMap<CommitVersion, Arc<Commit>>;

/// Commits by version; every clone is the same list. One thread changes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<RwLock<Commits>>);

impl Log {
    pub(super) fn push(&self, commit: Arc<Commit>) {
        self.write().insert(commit.version, commit);
    }

    pub(crate) fn remove(&self, version: CommitVersion) {
        let removed = self.write().remove(&version);
        // Nobody has to wait while its values are freed.
        drop(removed);
    }

    /// Visits the commits after one version and up to another, the earliest one first.
    pub(crate) fn between(
        &self,
        after: CommitVersion,
        until: CommitVersion,
    ) -> impl Iterator<Item = Arc<Commit>> {
        let next = move |after: CommitVersion| {
            let range = (Bound::Excluded(after), Bound::Included(until.max(after)));
            self.read().range(range).next().map(|(_, commit)| Arc::clone(commit))
        };
        std::iter::successors(next(after), move |commit| next(commit.version))
    }

    /// Visits the commits after one version and up to another, the latest one first.
    pub(crate) fn back_between(
        &self,
        after: CommitVersion,
        until: CommitVersion,
    ) -> impl Iterator<Item = Arc<Commit>> {
        let next = move |until: CommitVersion| {
            let range = (Bound::Excluded(after), Bound::Included(until.max(after)));
            self.read().range(range).next_back().map(|(_, commit)| Arc::clone(commit))
        };
        let before = |commit: &Arc<Commit>| CommitVersion(commit.version.0 - 1);
        std::iter::successors(next(until), move |commit| next(before(commit)))
    }

    /// The list is whole after every operation on it, so a poisoned lock holds good data.
    fn read(&self) -> RwLockReadGuard<'_, Commits> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Commits> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<Commit> for Log {
    fn from_iter<I: IntoIterator<Item = Commit>>(commits: I) -> Self {
        let commits = commits.into_iter().map(|commit| (commit.version, Arc::new(commit)));
        Self(Arc::new(RwLock::new(commits.collect())))
    }
}
