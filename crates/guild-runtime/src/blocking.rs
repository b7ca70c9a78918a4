//! Runs work that blocks on a bounded pool of threads that all agents share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::panics::{caught, rethrow};

/// The pool; every clone is the same. On the stage of a simulation there is none, and work that
/// blocks is done at once.
#[derive(Clone, Debug)]
pub(crate) struct BlockingPool(Option<Arc<Semaphore>>);

impl BlockingPool {
    /// Returns a pool of this many threads; none: work is done where it is asked for.
    pub(crate) fn new(threads: Option<usize>) -> Self {
        Self(threads.map(|threads| Arc::new(Semaphore::new(threads.max(1)))))
    }

    /// Does work that blocks. Whoever comes when all threads are busy waits, in order. Its panic is
    /// that of the caller.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> R {
        let Some(threads) = &self.0 else {
            return work();
        };
        let Ok(permit) = Arc::clone(threads).acquire_owned().await else {
            unreachable!("nobody closes the pool");
        };
        let guarded = move || {
            // Held until the work is over, also when nobody waits for it any more.
            let _permit = permit;
            caught(work)
        };
        #[expect(clippy::disallowed_methods, reason = "a stage has no pool")]
        let done = tokio::task::spawn_blocking(guarded).await;
        match done {
            Ok(Ok(result)) => result,
            Ok(Err(report)) => rethrow(report),
            Err(error) => panic!("the pool for blocking work ended: {error}"),
        }
    }
}
