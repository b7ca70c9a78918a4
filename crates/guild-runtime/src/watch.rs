//! Follows the changes of a part of the memory, commit by commit.
//!
//! A watch reads the history of the newest acknowledged snapshot: writers neither wait for it nor
//! know of it, and a version that it has told is durable, so that it can go on from there after a
//! restart. Whoever reads more slowly than the history is cut is told so.

use std::fmt;

use guild_core::id::CommitVersion;
use guild_core::time::Timestamp;
use guild_memory::{Entry, HistoryError, KeyRange, Snapshot, Writer};

use crate::signal::Signal;

/// What is acknowledged; every clone is the same.
#[derive(Clone)]
pub(crate) struct Acknowledged(Signal<State>);

#[derive(Clone)]
struct State {
    snapshot: Snapshot,
    closed: bool,
}

impl Acknowledged {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self(Signal::new(State { snapshot, closed: false }))
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.0.change(|state| {
            state.snapshot = snapshot;
            true
        });
    }

    /// Ends all watches once they have told everything.
    pub(crate) fn close(&self) {
        self.0.change(|state| {
            state.closed = true;
            true
        });
    }

    /// Waits until a version is acknowledged; false: it never will be.
    pub(crate) async fn reaches(&self, version: CommitVersion) -> bool {
        let find = |state: &State| match state.snapshot.version() >= version {
            true => Some(true),
            false => state.closed.then_some(false),
        };
        self.0.find(find).await
    }

    /// Returns a watch of the commits from now on.
    pub(crate) fn follow(&self, range: KeyRange) -> Watch {
        let seen = self.0.look(|state| state.snapshot.version());
        Watch { range, seen, source: self.0.clone() }
    }

    /// Returns a watch of the commits after a version.
    pub(crate) fn follow_after(
        &self,
        range: KeyRange,
        seen: CommitVersion,
    ) -> Result<Watch, HistoryError> {
        let (oldest, newest) =
            self.0.look(|state| (state.snapshot.oldest(), state.snapshot.version()));
        if seen > newest {
            Err(HistoryError::NotYet { asked: seen, newest })
        } else if seen < oldest {
            Err(HistoryError::TooOld { asked: seen, oldest })
        } else {
            Ok(Watch { range, seen, source: self.0.clone() })
        }
    }
}

/// A reader was too slow: commits that it has not seen are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the watch fell behind: commits after version {seen} are no longer kept; it goes on after version {oldest}, whose state is in the memory's snapshot"
)]
pub struct WatchLagged {
    /// The last version that the reader has seen.
    pub seen: CommitVersion,
    /// Where it goes on: the oldest version that can be read.
    pub oldest: CommitVersion,
}

/// A commit, as far as it has changed what is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryChange {
    /// Its version; watching after it goes on with the next one.
    pub version: CommitVersion,
    /// When it was made.
    pub at: Timestamp,
    /// Who made it; none: it came from outside of tasks.
    pub writer: Option<Writer>,
    /// The keys that changed and what is there now; none: the key was removed.
    pub keys: Vec<(String, Option<Entry>)>,
}

/// Follows a part of the memory: every commit that changes it, once, in order.
pub struct Watch {
    range: KeyRange,
    /// The newest version that was told, or changed nothing that is watched.
    seen: CommitVersion,
    source: Signal<State>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("range", &self.range)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Returns the next commit that changes what is watched; `None` when the guild has shut down
    /// and all were told.
    ///
    /// # Errors
    /// [`WatchLagged`]; the next call goes on with the oldest commit that is kept.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<MemoryChange, WatchLagged>> {
        loop {
            let seen = self.seen;
            let is_news = |state: &State| state.closed || state.snapshot.version() > seen;
            let find = |state: &State| is_news(state).then(|| state.clone());
            let State { snapshot, closed } = self.source.find(find).await;
            if let Some(change) = self.take(&snapshot) {
                return Some(change);
            }
            if closed {
                return None;
            }
        }
    }

    /// Returns the next commit that is there now, without waiting.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn available(&mut self) -> Option<Result<MemoryChange, WatchLagged>> {
        let snapshot = self.source.look(|state| state.snapshot.clone());
        self.take(&snapshot)
    }

    /// Returns the newest version that was told or did not matter; a later watch goes on after it.
    pub fn seen(&self) -> CommitVersion {
        self.seen
    }

    fn take(&mut self, snapshot: &Snapshot) -> Option<Result<MemoryChange, WatchLagged>> {
        let seen = self.seen;
        let commits = match snapshot.commits_after(seen) {
            Ok(commits) => commits,
            Err(_) => {
                let oldest = snapshot.oldest();
                self.seen = oldest;
                return Some(Err(WatchLagged { seen, oldest }));
            }
        };
        for commit in commits {
            let changes = commit.changes_in(&self.range);
            let keys: Vec<_> = changes.map(|(key, entry)| (key, entry.cloned())).collect();
            if !keys.is_empty() {
                self.seen = commit.version;
                let (version, at, writer) = (commit.version, commit.at, commit.writer);
                return Some(Ok(MemoryChange { version, at, writer, keys }));
            }
        }
        self.seen = self.seen.max(snapshot.version());
        None
    }
}

#[cfg(test)]
mod tests {
    use guild_core::limits::Limits;
    use guild_memory::{Commits, Durability, Memory, Transaction};
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_version_is_awaited_until_it_is_acknowledged_or_never_will_be() {
        let (mut memory, _) =
            Memory::open(None, Durability::Memory, Limits::default(), Commits::Driven).unwrap();
        let acknowledged = Acknowledged::new(memory.snapshots().latest());
        let mut transaction = Transaction::begin(memory.snapshots());
        transaction.put("key", &1).unwrap();
        let version = memory.transact(Timestamp(1), transaction.into_parts()).unwrap();
        memory.seal();
        let mut context = Context::from_waker(Waker::noop());

        let (mut known, mut next) =
            (pin!(acknowledged.reaches(CommitVersion(0))), pin!(acknowledged.reaches(version)));
        assert_eq!(known.as_mut().poll(&mut context), Poll::Ready(true));
        assert_eq!(next.as_mut().poll(&mut context), Poll::Pending, "shown, but not durable");
        acknowledged.publish(memory.snapshots().latest());
        assert_eq!(next.as_mut().poll(&mut context), Poll::Ready(true));

        let mut never = pin!(acknowledged.reaches(version.next()));
        assert_eq!(never.as_mut().poll(&mut context), Poll::Pending);
        acknowledged.close();
        assert_eq!(never.as_mut().poll(&mut context), Poll::Ready(false));
        let mut known = pin!(acknowledged.reaches(version));
        assert_eq!(known.as_mut().poll(&mut context), Poll::Ready(true), "it stays durable");
    }
}
