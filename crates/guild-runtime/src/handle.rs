//! The shared memory, seen from outside of tasks: transactions, history, changes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::id::CommitVersion;
use guild_core::retry::RetryPolicy;
use guild_memory::checkpoint::{CheckpointError, CheckpointInfo};
use guild_memory::{
    CommitError, HistoryError, KeyRange, Pin, RollbackError, Snapshot, Transaction,
};
use tokio::sync::oneshot;

use crate::context::Surroundings;
use crate::guild::ENDED;
use crate::message::MemoryMessage;
use crate::watch::Watch;

/// Why a transaction from outside was not committed; nothing of it is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError<E = std::convert::Infallible> {
    /// The memory refused it, after all retries where it was a conflict.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The closure answered with an error.
    #[error("the transaction was given up: {0}")]
    GivenUp(E),
    /// Too many transactions wait; try again later.
    #[error("{0} messages wait for the memory already: try again later")]
    Busy(usize),
    /// The guild has shut down, or its store failed.
    #[error("the memory takes no transactions: {0}")]
    Unavailable(String),
}

/// The shared memory, seen from outside of tasks.
#[derive(Clone)]
pub struct MemoryHandle {
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) seed: Seed,
}

impl fmt::Debug for MemoryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryHandle").finish_non_exhaustive()
    }
}

impl MemoryHandle {
    /// Returns the newest snapshot; it never changes and blocks nobody.
    pub fn snapshot(&self) -> Snapshot {
        self.surroundings.snapshots.latest()
    }

    /// Runs `work` on a transaction and commits it; after a conflict it is run again on a newer
    /// snapshot, at most as often as `policy` says. After three conflicts what it has read is kept
    /// for it until it has run again, so that it does not lose forever. Work that changes nothing never
    /// conflicts and waits for nobody else's: it holds at the version that it has read, once that is durable.
    ///
    /// # Errors
    /// `work` gave up, the memory refused the commit, or the guild is shutting down.
    pub async fn transact<R, E>(
        &self,
        policy: &RetryPolicy,
        mut work: impl FnMut(&mut Transaction) -> Result<R, E>,
    ) -> Result<(R, CommitVersion), TransactError<E>> {
        let mut failures = 0;
        let mut caller = Caller::new(&self.surroundings);
        loop {
            let mut transaction = Transaction::begin(&self.surroundings.snapshots);
            let result = work(&mut transaction).map_err(TransactError::GivenUp)?;
            if transaction.writes() == 0 {
                let version = transaction.read_version();
                return match self.surroundings.acknowledged.reaches(version).await {
                    true => Ok((result, version)),
                    false => Err(TransactError::Unavailable(ENDED.into())),
                };
            }
            match self.commit(caller.number, transaction).await {
                Ok(version) => {
                    caller.holds = false;
                    return Ok((result, version));
                }
                Err(TransactError::Commit(error)) if error.is_retryable() => {
                    failures += 1;
                    caller.holds |= error.is_reserved();
                    if failures >= policy.attempts_max {
                        return Err(TransactError::Commit(error));
                    }
                    if error.is_reserved() {
                        continue;
                    }
                    let entity = self.snapshot().version().0;
                    let draw = self.seed.unit(Stream::Transact, entity, u64::from(failures));
                    self.pause(policy.delay_after(failures, draw)).await;
                }
                Err(TransactError::Commit(error)) => return Err(TransactError::Commit(error)),
                Err(TransactError::Busy(waiting)) => return Err(TransactError::Busy(waiting)),
                Err(TransactError::Unavailable(why)) => {
                    return Err(TransactError::Unavailable(why));
                }
                Err(TransactError::GivenUp(never)) => match never {},
            }
        }
    }

    /// Does what [`transact`](Self::transact) does, for callers without a runtime: blocks the thread.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub fn transact_blocking<R, E>(
        &self,
        policy: &RetryPolicy,
        work: impl FnMut(&mut Transaction) -> Result<R, E>,
    ) -> Result<(R, CommitVersion), TransactError<E>> {
        pollster::block_on(self.transact(policy, work))
    }

    /// Gives all keys of a range the values that they had at an earlier version, as a new commit,
    /// whatever others do; nothing is forgotten.
    ///
    /// # Errors
    /// The version cannot be read, or the guild is shutting down.
    pub async fn rollback(
        &self,
        range: impl Into<KeyRange>,
        version: CommitVersion,
    ) -> Result<CommitVersion, TransactError<RollbackError>> {
        let (reply, answer) = oneshot::channel();
        let range = range.into();
        let waiting_max = self.surroundings.catalog.limits.requests_waiting_max;
        self.surroundings
            .memory
            .try_push(MemoryMessage::Rollback { range, version, reply }, waiting_max)
            .map_err(|_| TransactError::Busy(waiting_max))?;
        answer.await.unwrap_or_else(|_| Err(TransactError::Unavailable(ENDED.into())))
    }

    /// Follows a part of the memory: every commit after a version that changes it, once, in order.
    /// It tells what is durable, so that it goes on after a restart where it was.
    ///
    /// # Errors
    /// Commits after the version are no longer kept, or it does not exist.
    pub fn watch(
        &self,
        range: impl Into<KeyRange>,
        after: CommitVersion,
    ) -> Result<Watch, HistoryError> {
        self.surroundings.acknowledged.follow_after(range.into(), after)
    }

    /// Keeps a version, and all after it, readable until the pin is dropped.
    ///
    /// # Errors
    /// `TooOld`: it is no longer kept.
    pub fn pin(&self, version: CommitVersion) -> Result<Pin, HistoryError> {
        self.surroundings.pins.pin(version)
    }

    /// Writes a checkpoint of the store into its directory, while it goes on serving. It holds at
    /// least everything that was committed before the call.
    ///
    /// # Errors
    /// The checkpoint could not be written, or there is no store; nothing has changed then.
    pub async fn checkpoint(&self) -> Result<CheckpointInfo, CheckpointError> {
        let (reply, answer) = oneshot::channel();
        self.surroundings.memory.push(MemoryMessage::Checkpoint { reply });
        answer.await.unwrap_or(Err(CheckpointError::NoStore))
    }

    async fn commit(
        &self,
        caller: u64,
        transaction: Transaction,
    ) -> Result<CommitVersion, TransactError> {
        let (reply, answer) = oneshot::channel();
        let parts = Box::new(transaction.into_parts());
        let waiting_max = self.surroundings.catalog.limits.requests_waiting_max;
        self.surroundings
            .memory
            .try_push(MemoryMessage::Transact { caller, parts, reply }, waiting_max)
            .map_err(|_| TransactError::Busy(waiting_max))?;
        answer.await.unwrap_or_else(|_| Err(TransactError::Unavailable(ENDED.into())))
    }

    /// Waits on the guild's own clock, so that the caller needs no runtime.
    fn pause(&self, delay: Duration) -> impl Future<Output = ()> + use<> {
        let (done, waited) = oneshot::channel();
        if delay.is_zero() {
            // Dropping `done` ends the wait at once.
        } else {
            self.surroundings.memory.push(MemoryMessage::Pause { delay, done });
        }
        async move {
            if waited.await.is_err() {
                tracing::trace!("nothing to wait for");
            }
        }
    }
}

/// A call that tries again after conflicts. When it ends without a commit, what was reserved for it
/// is free again.
struct Caller<'a> {
    surroundings: &'a Surroundings,
    number: u64,
    holds: bool,
}

impl<'a> Caller<'a> {
    fn new(surroundings: &'a Surroundings) -> Self {
        let number = surroundings.stats.callers.fetch_add(1, Ordering::Relaxed);
        Self { surroundings, number, holds: false }
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if self.holds {
            self.surroundings.memory.push(MemoryMessage::GiveUp { caller: self.number });
        }
    }
}
