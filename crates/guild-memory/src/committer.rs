//! Makes groups durable, on a thread of its own: whatever came in meanwhile is one batch.
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

/// Where groups are made durable.
pub enum Commits {
    /// On a thread of its own; the closure is called there whenever a group has become durable or
    /// the store has failed.
    OnThread(Box<dyn Fn() + Send>),
    /// By whoever calls [`crate::Memory::drive`]: for simulations, where nothing may happen behind
    /// the back of the caller.
    Driven,
}

impl std::fmt::Debug for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OnThread(_) => "OnThread",
            Self::Driven => "Driven",
        })
    }
}

#[derive(Debug)]
enum Worker {
    Thread(Option<JoinHandle<Result<(), StoreError>>>),
    /// The store and its level; without the store when it is closed or has failed.
    Driven(Option<Box<dyn Store>>, Durability),
}

/// The handle of whoever makes groups durable.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    worker: Worker,
    path: PathBuf,
}

impl Committer {
    /// Starts a committer for a store.
    pub(crate) fn start(
        store: Box<dyn Store>,
        level: Durability,
        commits: Commits,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let path = store.path().to_owned();
        let worker = match commits {
            Commits::Driven => Worker::Driven(Some(store), level),
            Commits::OnThread(notify) => {
                let shared = shared.clone();
                let thread = thread::Builder::new()
                    .name("guild-committer".into())
                    .spawn(move || run(&shared, store, level, &*notify))
                    .map_err(|error| {
                        StoreError::from_io(&path, "start the committer thread", &error)
                    })?;
                Worker::Thread(Some(thread))
            }
        };
        Ok(Self { shared, worker, path })
    }

    /// Hands over a group; waits first while too many bytes wait.
    pub(crate) fn push(&mut self, group: GroupNo, batch: WriteBatch) {
        if self.shared.lock().batch.size_bytes() > WAITING_BYTES_MAX {
            self.drive();
        }
        let mut queue =
            self.shared.wait_while(|queue| queue.batch.size_bytes() > WAITING_BYTES_MAX);
        if self.shared.failure.get().is_some() {
            return;
        }
        queue.batch.append(batch);
        queue.newest = group;
        drop(queue);
        self.shared.work.notify_one();
    }

    /// Returns whether groups wait that no thread will take.
    pub(crate) fn needs_driving(&self) -> bool {
        matches!(&self.worker, Worker::Driven(Some(_), _))
            && self.failure().is_none()
            && self.shared.lock().newest > self.stored()
    }

    /// Makes what waits durable, unless a thread does that.
    pub(crate) fn drive(&mut self) {
        if self.needs_driving()
            && let Worker::Driven(store, level) = &mut self.worker
            && let Some(engine) = store
        {
            let (batch, newest) = {
                let mut queue = self.shared.lock();
                (std::mem::take(&mut queue.batch), queue.newest)
            };
            if make_durable(&self.shared, engine, *level, &batch, newest).is_err() {
                abandon(store.take());
            }
        }
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
    pub(crate) fn wait(&mut self, group: GroupNo) -> Result<(), StoreError> {
        self.drive();
        drop(self.shared.wait_while(|_| self.stored() < group));
        match self.failure() {
            Some(error) if self.stored() < group => Err(error.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// Stores what waits, closes the store and ends the thread.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.drive();
        match &mut self.worker {
            Worker::Driven(store, _) => match (self.shared.failure.get(), store.take()) {
                (Some(error), _) => Err(error.clone()),
                (None, Some(store)) => store.close(),
                (None, None) => Ok(()),
            },
            Worker::Thread(thread) => {
                let Some(thread) = thread.take() else {
                    return Ok(());
                };
                self.shared.lock().is_closing = true;
                self.shared.work.notify_one();
                thread.join().unwrap_or_else(|_| Err(panicked(&self.path)))
            }
        }
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
        let result = make_durable(shared, &mut store, level, &batch, newest);
        // Taking the lock orders this after a waiter's last look at the queue.
        drop(shared.lock());
        shared.progress.notify_all();
        if catch_unwind(AssertUnwindSafe(notify)).is_err() {
            tracing::error!("the committer's notification panicked");
        }
        if result.is_err() {
            abandon(Some(store));
            return result;
        }
    }
}

/// Stores one batch; an error is final.
fn make_durable(
    shared: &Shared,
    store: &mut Box<dyn Store>,
    level: Durability,
    batch: &WriteBatch,
    newest: GroupNo,
) -> Result<(), StoreError> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        store.apply(batch)?;
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
    result
}

/// Lets go of a store that failed; its own shutdown may panic and must not hide the first error.
fn abandon(store: Option<Box<dyn Store>>) {
    if catch_unwind(AssertUnwindSafe(|| drop(store))).is_err() {
        tracing::warn!("store panicked when it was dropped after a failure");
    }
}

fn panicked(path: &std::path::Path) -> StoreError {
    StoreError::corrupt(path, "the engine panicked while it wrote")
}
