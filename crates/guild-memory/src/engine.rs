//! Writes groups to a store, copies the store while it serves, and brings it back after an error.
//!
//! An error of a write or a sync says nothing about what is on the disk, and a sync that is repeated
//! may succeed without having written a thing (fsyncgate). So the store is opened again and every
//! group that was not acknowledged is written once more, which is harmless: rows are absolute. After a
//! failed sync even the rows that can be read may exist in the page cache alone; then all of them are
//! copied to a new place first. What was acknowledged is checked to be there before anything goes on.

mod absent;
mod copy;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use self::absent::Absent;
pub(crate) use self::copy::copy_rows;
use self::copy::{Copy, Progress, Target, give_up};
use crate::checkpoint::{self, CheckpointError, CheckpointInfo, Writer};
use crate::recovery::load_without_log;
use crate::seeded::{self, Bug};
use crate::store::{Durability, Reopen, Store, StoreError, WriteBatch};

/// A smaller store is not worth a rewrite.
const REWRITE_BYTES_MIN: u64 = 256 << 20;
/// Bytes on the disk for each byte of a row; beyond, the store is rewritten.
const AMPLIFICATION_MAX: u64 = 4;
/// The first and the longest pause before a store that failed is opened again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Takes the result of a job; called on the thread that does it.
pub(crate) struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    pub(crate) fn new(reply: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(reply))
    }

    fn send(self, result: T) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(result))).is_err() {
            tracing::error!("whoever waited for a job panicked");
        }
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

/// What is done beside the groups.
#[derive(Debug)]
pub(crate) enum Job {
    /// Write a checkpoint of the store in its directory.
    Checkpoint(Reply<Result<CheckpointInfo, CheckpointError>>),
    /// Copy the store to a new place, where it takes no more space than it needs.
    Rewrite(Reply<Result<(), StoreError>>),
}

/// Where a write failed.
#[derive(Debug)]
struct Failure {
    error: StoreError,
    at_sync: bool,
}

/// A store with what keeps it well.
#[derive(Debug)]
pub(crate) struct Engine {
    store: Box<dyn Store>,
    level: Durability,
    /// How often a store that failed is opened again; a simulation decides that itself.
    reopens_max: u32,
    copy: Option<Copy>,
    /// Size of the store when it was rewritten last, or should have been.
    rewritten_at_bytes: u64,
}

impl Engine {
    pub(crate) fn new(store: Box<dyn Store>, level: Durability, reopens_max: u32) -> Self {
        Self { store, level, reopens_max, copy: None, rewritten_at_bytes: 0 }
    }

    /// Makes a group durable at the level; `failed` hears of an error that may be overcome.
    ///
    /// # Errors
    /// The store failed and could not be brought back.
    pub(crate) fn write(
        &mut self,
        batch: &WriteBatch,
        failed: &mut dyn FnMut(&StoreError),
    ) -> Result<(), StoreError> {
        if let Err(failure) = attempt(&mut *self.store, batch, self.level) {
            tracing::error!(error = %failure.error, "store failed");
            self.end_copy(&failure.error);
            self.heal(failure, batch, failed)?;
        }
        self.follow(batch);
        self.remove_large(batch);
        self.watch_size();
        Ok(())
    }

    /// Removes large values that no row refers to any more. While rows may come back after a power
    /// cut they stay; like those that cannot be removed now, they are found again at the next open.
    fn remove_large(&mut self, batch: &WriteBatch) {
        if self.level < Durability::Disk {
            return;
        }
        for (id, _) in batch.large().iter().filter(|(_, value)| value.is_none()) {
            if let Err(error) = self.store.large().remove(*id) {
                tracing::warn!(%error, "a large value that is no longer needed was not removed");
            }
        }
    }

    /// Begins a job; one at a time.
    pub(crate) fn begin(&mut self, job: Job) {
        let target = match job {
            Job::Checkpoint(reply) => {
                let begun = checkpoint::next_path(self.store.path()).and_then(Writer::begin);
                match begun {
                    Ok(writer) => Target::Checkpoint(Box::new(writer), reply),
                    Err(error) => return reply.send(Err(error)),
                }
            }
            Job::Rewrite(reply) => match self.store.sibling() {
                Ok(Some(sibling)) => Target::Rewrite(sibling, Some(reply)),
                Ok(None) => return reply.send(Ok(())),
                Err(error) => return reply.send(Err(error)),
            },
        };
        self.copy = Some(Copy::of(&*self.store, target));
    }

    /// Returns whether a copy is under way.
    pub(crate) fn is_copying(&self) -> bool {
        self.copy.is_some()
    }

    /// Copies the next rows; returns whether there is a copy whose time has not come yet.
    pub(crate) fn advance(&mut self) -> bool {
        let Some(mut copy) = self.copy.take() else {
            return false;
        };
        match copy.next_slice(&*self.store) {
            Ok(Progress::Complete) => self.finish(copy.target),
            Ok(progress) => {
                self.copy = Some(copy);
                return progress == Progress::NotYet;
            }
            Err(error) => give_up(copy.target, error),
        }
        false
    }

    /// Gives up what is only for the sake of space.
    pub(crate) fn end_upkeep(&mut self) {
        if let Some(Copy { target: Target::Rewrite(..), .. }) = &self.copy {
            let path = self.store.path().to_owned();
            let (doing, message) = ("rewrite it", "the store is being closed".to_owned());
            self.end_copy(&StoreError::Io { path, doing, message });
        }
    }

    /// Syncs everything and closes the store.
    ///
    /// # Errors
    /// As [`Store::close`].
    pub(crate) fn close(self) -> Result<(), StoreError> {
        self.store.close()
    }

    /// Lets go of a store that failed; its own shutdown may panic and must not hide the first error.
    pub(crate) fn abandon(self) {
        abandon(self.store);
    }

    fn heal(
        &mut self,
        failure: Failure,
        batch: &WriteBatch,
        failed: &mut dyn FnMut(&StoreError),
    ) -> Result<(), StoreError> {
        let path = self.store.path().to_owned();
        // Below `Process` acknowledged groups may exist in the memory of the engine alone.
        let can_heal = self.reopens_max > 0 && self.level >= Durability::Process;
        let Some(mut reopen) = self.store.reopen().filter(|_| can_heal) else {
            return Err(failure.error);
        };
        failed(&failure.error);
        abandon(std::mem::replace(&mut self.store, Box::new(Absent(path.clone()))));
        let mut last = failure.error;
        for number in 0..self.reopens_max {
            std::thread::park_timeout(PAUSE_MIN.saturating_mul(1 << number.min(10)).min(PAUSE_MAX));
            let redone = redo(&mut reopen, batch, self.level, failure.at_sync);
            match redone {
                Ok(store) => {
                    tracing::warn!(path = %path.display(), tries = number + 1, "store is back");
                    self.store = store;
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(%error, "store could not be brought back");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Tells a copy under way what has changed.
    fn follow(&mut self, batch: &WriteBatch) {
        if let Some(copy) = &mut self.copy
            && let Err(error) = copy.follow(batch)
            && let Some(copy) = self.copy.take()
        {
            give_up(copy.target, error);
        }
    }

    /// Begins to rewrite a store that takes too much space, unless it was rewritten at half its size.
    fn watch_size(&mut self) {
        let Some(live) = self.store.live_bytes().filter(|_| self.copy.is_none()) else {
            return;
        };
        let size = self.store.stats().size_bytes;
        let size_min = REWRITE_BYTES_MIN.max(2 * self.rewritten_at_bytes);
        if size < size_min || size <= AMPLIFICATION_MAX * live {
            return;
        }
        self.rewritten_at_bytes = size;
        match self.store.sibling() {
            Ok(Some(sibling)) => {
                tracing::info!(live, size, "store is being rewritten");
                self.copy = Some(Copy::of(&*self.store, Target::Rewrite(sibling, None)));
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "store could not be rewritten"),
        }
    }

    fn end_copy(&mut self, error: &StoreError) {
        if let Some(copy) = self.copy.take() {
            give_up(copy.target, error.clone().into());
        }
    }

    fn finish(&mut self, target: Target) {
        match target {
            Target::Checkpoint(writer, reply) => {
                let info = writer.finish();
                let pruned = checkpoint::prune(self.store.path());
                reply.send(info.and_then(|info| pruned.map(|()| info)));
            }
            Target::Rewrite(sibling, reply) => {
                let result = self.replace(sibling);
                self.rewritten_at_bytes = self.store.stats().size_bytes;
                match reply {
                    Some(reply) => reply.send(result),
                    None if result.is_err() => tracing::error!(?result, "rewrite failed"),
                    None => {}
                }
            }
        }
    }

    /// Goes on with a complete copy. When it cannot take over, both hold everything, and what the
    /// directory names is opened again; if that fails too, the next group finds no store.
    fn replace(&mut self, mut sibling: Box<dyn Store>) -> Result<(), StoreError> {
        let reopen = self.store.reopen();
        let path = self.store.path().to_owned();
        let old = std::mem::replace(&mut self.store, Box::new(Absent(path)));
        let result = sibling.sync(Durability::Disk).and_then(|()| sibling.take_over(old));
        if result.is_ok() {
            self.store = sibling;
        } else {
            abandon(sibling);
            if let Some(store) = reopen.and_then(|mut reopen| reopen().ok()) {
                self.store = store;
            }
        }
        result
    }
}

/// Applies and syncs; a panic of the engine is an error of the sync, where nothing is known.
fn attempt(store: &mut dyn Store, batch: &WriteBatch, level: Durability) -> Result<(), Failure> {
    let path = store.path().to_owned();
    catch_unwind(AssertUnwindSafe(|| {
        apply(store, batch).map_err(|error| Failure { error, at_sync: false })?;
        let is_lazy = seeded::is(Bug::FlushWithoutFdatasync);
        let level = if is_lazy { level.min(Durability::Process) } else { level };
        store.sync(level).map_err(|error| Failure { error, at_sync: true })
    }))
    .unwrap_or_else(|_| {
        let error = StoreError::corrupt(&path, "the engine panicked while it wrote");
        Err(Failure { error, at_sync: true })
    })
}

/// Applies a batch after the large values that its rows refer to.
pub(crate) fn apply(store: &mut dyn Store, batch: &WriteBatch) -> Result<(), StoreError> {
    for (id, value) in batch.large() {
        if let Some(value) = value {
            store.large().put(*id, value)?;
        }
    }
    store.apply(batch)
}

/// Opens a store again, writes once more what was not acknowledged, and checks that all is there.
fn redo(
    reopen: &mut Reopen,
    batch: &WriteBatch,
    level: Durability,
    after_sync: bool,
) -> Result<Box<dyn Store>, StoreError> {
    let mut store = reopen()?;
    if after_sync && let Some(mut sibling) = store.sibling()? {
        copy_rows(&*store, &mut *sibling)?;
        apply(&mut *sibling, batch)?;
        sibling.sync(Durability::Disk)?;
        load_without_log(&*sibling)?;
        sibling.take_over(store)?;
        return Ok(sibling);
    }
    attempt(&mut *store, batch, level).map_err(|failure| failure.error)?;
    load_without_log(&*store)?;
    Ok(store)
}

fn abandon(store: Box<dyn Store>) {
    if catch_unwind(AssertUnwindSafe(|| drop(store))).is_err() {
        tracing::warn!("store panicked when it was dropped after a failure");
    }
}

#[cfg(test)]
mod tests;
