//! Makes groups durable on a thread of its own: whatever came in meanwhile is one batch.
//!
//! There is no timer: under load the group is what arrived during the last sync, without load it is
//! one turn. Any error is final (a sync that failed once must never be believed again, see
//! fsyncgate): from then on nothing is acknowledged and every caller is told so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use crate::store::{Durability, Store, StoreError, WriteBatch};

/// Numbers the sealed groups: 1, 2, 3, ...; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupNo(pub u64);

/// Bytes of rows that may wait for the disk; beyond that, sealing waits.
const WAITING_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Default)]
struct Queue {
    batch: WriteBatch,
    newest: GroupNo,
    is_closing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something to do for the thread.
    work: Condvar,
    /// Something done by the thread.
    progress: Condvar,
    stored: AtomicU64,
    failure: OnceLock<StoreError>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for progress while `waits` holds and the store works.
    fn wait_while(&self, waits: impl Fn(&Queue) -> bool) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        while self.failure.get().is_none() && waits(&queue) {
            queue = self.progress.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue
    }
}

/// The handle of the committer thread.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
    path: PathBuf,
}

impl Committer {
    /// Starts the thread; `notify` is called there after every sync and after a failure.
    pub(crate) fn start(
        store: Box<dyn Store>,
        level: Durability,
        notify: Box<dyn Fn() + Send>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let path = store.path().to_owned();
        let thread = thread::Builder::new()
            .name("guild-committer".into())
            .spawn({
                let shared = shared.clone();
                move || run(&shared, store, level, &*notify)
            })
            .map_err(|error| StoreError::from_io(&path, "start the committer thread", &error))?;
        Ok(Self { shared, thread: Some(thread), path })
    }

    /// Hands over a group; waits first while too many bytes wait.
    pub(crate) fn push(&self, group: GroupNo, batch: WriteBatch) {
        let mut queue =
            self.shared.wait_while(|queue| queue.batch.size_bytes() > WAITING_BYTES_MAX);
        if self.failure().is_some() {
            return;
        }
        queue.batch.append(batch);
        queue.newest = group;
        drop(queue);
        self.shared.work.notify_one();
    }

    /// Returns the newest group that has reached the level.
    pub(crate) fn stored(&self) -> GroupNo {
        GroupNo(self.shared.stored.load(Ordering::Acquire))
    }

    /// Returns what ended the service.
    pub(crate) fn failure(&self) -> Option<&StoreError> {
        self.shared.failure.get()
    }

    /// Waits until a group has reached the level.
    pub(crate) fn wait(&self, group: GroupNo) -> Result<(), StoreError> {
        drop(self.shared.wait_while(|_| self.stored() < group));
        match self.failure() {
            Some(error) if self.stored() < group => Err(error.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// Stores what waits, closes the store and ends the thread.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.shared.lock().is_closing = true;
        self.shared.work.notify_one();
        thread.join().unwrap_or_else(|_| Err(panicked(&self.path)))
    }
}

fn run(
    shared: &Shared,
    mut store: Box<dyn Store>,
    level: Durability,
    notify: &dyn Fn(),
) -> Result<(), StoreError> {
    loop {
        let (batch, newest) = {
            let mut queue = shared.lock();
            while queue.newest.0 == shared.stored.load(Ordering::Relaxed) && !queue.is_closing {
                queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            (std::mem::take(&mut queue.batch), queue.newest)
        };
        if newest.0 == shared.stored.load(Ordering::Relaxed) {
            return store.close();
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            store.apply(&batch)?;
            store.sync(level)
        }))
        .unwrap_or_else(|_| Err(panicked(store.path())));
        match &result {
            Ok(()) => shared.stored.store(newest.0, Ordering::Release),
            Err(error) => {
                tracing::error!(%error, "store failed");
                shared.failure.get_or_init(|| error.clone());
            }
        }
        // Taking the lock orders this after a waiter's last look at the queue.
        drop(shared.lock());
        shared.progress.notify_all();
        if catch_unwind(AssertUnwindSafe(notify)).is_err() {
            tracing::error!("the committer's notification panicked");
        }
        if result.is_err() {
            return abandon(store, result);
        }
    }
}

/// Lets go of a store that failed; its own shutdown may panic and must not hide the first error.
fn abandon(store: Box<dyn Store>, result: Result<(), StoreError>) -> Result<(), StoreError> {
    if catch_unwind(AssertUnwindSafe(|| drop(store))).is_err() {
        tracing::warn!("store panicked when it was dropped after a failure");
    }
    result
}

fn panicked(path: &std::path::Path) -> StoreError {
    StoreError::corrupt(path, "the engine panicked while it wrote")
}
