//! Keeps the store behind the memory well: opening it whatever happened, checkpoints, rewrites.

use std::path::Path;

use guild_core::limits::Limits;

use super::{Memory, OpenError, Recovered, check_limits};
use crate::checkpoint::{CheckpointError, CheckpointInfo};
use crate::committer::Commits;
use crate::engine::{Job, Reply};
use crate::restore::open_or_restore;
use crate::store::{Durability, StoreError};

impl Memory {
    /// Opens the memory whose store is in a directory, and makes both when there is nothing.
    ///
    /// A store that cannot be read is kept under another name, and the newest checkpoint takes its
    /// place; [`Recovered::restored`] says so, and a person should be told. Without a checkpoint
    /// the store stays as it is: it is never taken for an empty one.
    ///
    /// # Errors
    /// As [`Memory::open`].
    pub fn open_directory(
        path: impl AsRef<Path>,
        durability: Durability,
        limits: Limits,
        commits: Commits,
    ) -> Result<(Self, Recovered), OpenError> {
        check_limits(&limits)?;
        let (store, loaded, restored) = open_or_restore(path.as_ref(), &limits)?;
        Self::boot(store, loaded, restored, durability, limits, commits)
    }

    /// Writes a checkpoint beside the groups that come in meanwhile; it holds at least what is
    /// sealed now. `reply` is called on the thread that does it; it is dropped uncalled when there is
    /// no store, or the store has failed.
    pub fn checkpoint(
        &mut self,
        reply: impl FnOnce(Result<CheckpointInfo, CheckpointError>) + Send + 'static,
    ) {
        self.begin(Job::Checkpoint(Reply::new(reply)));
    }

    /// Copies the store to a new place, where it takes no more space than it needs, while it goes on
    /// serving; a store that grows far beyond its rows does so by itself. `reply` is called as that
    /// of [`checkpoint`](Self::checkpoint).
    pub fn rewrite(&mut self, reply: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.begin(Job::Rewrite(Reply::new(reply)));
    }

    /// Returns whether the store has failed and is being brought back: nothing is acknowledged
    /// meanwhile.
    pub fn is_suspended(&self) -> bool {
        self.committer.as_ref().is_some_and(crate::committer::Committer::is_suspended)
    }

    /// Returns the errors of the store since the last call from which it may come back.
    pub fn take_troubles(&mut self) -> Vec<StoreError> {
        self.committer.as_ref().map(crate::committer::Committer::take_troubles).unwrap_or_default()
    }

    fn begin(&mut self, job: Job) {
        self.seal();
        if let Some(committer) = &mut self.committer {
            committer.begin(job);
        }
    }
}
