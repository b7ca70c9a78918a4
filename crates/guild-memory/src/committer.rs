//! Makes groups durable, on a thread of its own: whatever came in meanwhile is one batch.
//!
//! There is no timer: under load the group is what arrived during the last sync, without load it is
//! one turn. After an error nothing is acknowledged until the store is back (see `engine.rs`); when
//! it does not come back that is final, and every caller is told so.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::engine::{Engine, Job};
use crate::store::{Durability, Store, StoreError, WriteBatch};

/// Numbers the sealed groups: 1, 2, 3, ...; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupNo(pub u64);

/// After so long it is seen whether the store is ready for a copy.
const EARLY: Duration = Duration::from_millis(1);
/// Bytes of rows that may wait for the disk; beyond that, sealing waits.
const WAITING_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Default)]
struct Queue {
    batch: WriteBatch,
    newest: GroupNo,
    jobs: VecDeque<Job>,
    /// Errors that the owner has not heard of yet.
    troubles: Vec<StoreError>,
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
    /// Whether the store has failed and is being brought back.
    is_suspended: AtomicBool,
    /// Whether there are errors that the owner has not heard of yet.
    has_troubles: AtomicBool,
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
    /// None when the store is closed or has failed.
    Driven(Option<Engine>),
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
        reopens_max: u32,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let path = store.path().to_owned();
        let worker = match commits {
            Commits::Driven => Worker::Driven(Some(Engine::new(store, level, 0))),
            Commits::OnThread(notify) => {
                let shared = shared.clone();
                let engine = Engine::new(store, level, reopens_max);
                let thread = thread::Builder::new()
                    .name("guild-committer".into())
                    .spawn(move || run(&shared, engine, &*notify))
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
        matches!(&self.worker, Worker::Driven(Some(_)))
            && self.failure().is_none()
            && self.shared.lock().newest > self.stored()
    }

    /// Makes what waits durable, unless a thread does that.
    pub(crate) fn drive(&mut self) {
        if self.needs_driving()
            && let Worker::Driven(slot) = &mut self.worker
            && let Some(mut engine) = slot.take()
        {
            let (batch, newest) = {
                let mut queue = self.shared.lock();
                (std::mem::take(&mut queue.batch), queue.newest)
            };
            match make_durable(&self.shared, &mut engine, &batch, newest, &|| {}) {
                Ok(()) => *slot = Some(engine),
                Err(_) => engine.abandon(),
            }
        }
    }

    /// Has a job done beside the groups: on the thread, or at once where there is none.
    pub(crate) fn begin(&mut self, job: Job) {
        self.drive();
        match &mut self.worker {
            Worker::Driven(Some(engine)) => {
                engine.begin(job);
                while engine.is_copying() {
                    if engine.advance() {
                        thread::park_timeout(EARLY);
                    }
                }
            }
            // Dropping the job tells whoever waits for it.
            Worker::Driven(None) => {}
            Worker::Thread(_) => {
                self.shared.lock().jobs.push_back(job);
                self.shared.work.notify_one();
            }
        }
    }

    /// Returns whether the store has failed and is being brought back.
    pub(crate) fn is_suspended(&self) -> bool {
        self.shared.is_suspended.load(Ordering::Acquire)
    }

    /// Returns the errors since the last call that were or may be overcome.
    pub(crate) fn take_troubles(&self) -> Vec<StoreError> {
        // Every turn asks; the lock is for the rare answer.
        if !self.shared.has_troubles.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.shared.lock().troubles)
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
            Worker::Driven(engine) => match (self.shared.failure.get(), engine.take()) {
                (Some(error), _) => Err(error.clone()),
                (None, Some(engine)) => engine.close(),
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

fn run(shared: &Shared, mut engine: Engine, notify: &dyn Fn()) -> Result<(), StoreError> {
    let mut is_early = false;
    loop {
        let (batch, newest, is_closing) = {
            let has_groups =
                |queue: &Queue| queue.newest.0 != shared.stored.load(Ordering::Relaxed);
            let mut queue = shared.lock();
            if is_early && !has_groups(&queue) {
                let waited = shared.work.wait_timeout(queue, EARLY);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            while !(has_groups(&queue) || queue.is_closing || engine.is_copying())
                && queue.jobs.is_empty()
            {
                queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if !engine.is_copying()
                && let Some(job) = queue.jobs.pop_front()
            {
                engine.begin(job);
            }
            (std::mem::take(&mut queue.batch), queue.newest, queue.is_closing)
        };
        if newest.0 != shared.stored.load(Ordering::Relaxed) {
            let result = make_durable(shared, &mut engine, &batch, newest, notify);
            // Taking the lock orders this after a waiter's last look at the queue.
            drop(shared.lock());
            shared.progress.notify_all();
            tell(notify);
            if result.is_err() {
                engine.abandon();
                return result;
            }
        } else if is_closing {
            engine.end_upkeep();
            if !engine.is_copying() && shared.lock().jobs.is_empty() {
                return engine.close();
            }
        }
        is_early = engine.advance();
    }
}

fn tell(notify: &dyn Fn()) {
    if catch_unwind(AssertUnwindSafe(notify)).is_err() {
        tracing::error!("the committer's notification panicked");
    }
}

/// Stores one batch; an error is final.
fn make_durable(
    shared: &Shared,
    engine: &mut Engine,
    batch: &WriteBatch,
    newest: GroupNo,
    notify: &dyn Fn(),
) -> Result<(), StoreError> {
    let result = engine.write(batch, &mut |error| {
        shared.lock().troubles.push(error.clone());
        shared.has_troubles.store(true, Ordering::Release);
        shared.is_suspended.store(true, Ordering::Release);
        tell(notify);
    });
    match &result {
        Ok(()) => {
            shared.stored.store(newest.0, Ordering::Release);
            shared.is_suspended.store(false, Ordering::Release);
        }
        Err(error) => {
            shared.failure.get_or_init(|| error.clone());
        }
    }
    result
}

fn panicked(path: &std::path::Path) -> StoreError {
    StoreError::corrupt(path, "the committer panicked while it wrote")
}
