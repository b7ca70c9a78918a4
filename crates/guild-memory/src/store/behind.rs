//! Has an engine store what is in a journal, on a thread of its own, behind whoever commits.
//!
//! The engine gets many groups at once, whenever enough of them wait or somebody wants to read rows. How
//! many are enough it shows itself: it writes pages, and where rows of all over change it writes the same
//! ones time and again, so as much gathers as it had to write the last time. Its errors are told at the
//! next [`sync`](WriteBehind::sync): what was acknowledged is in the journal, and the store is opened again.

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::journal::{Full, Journal};
use super::{Durability, StoreError, WriteBatch};

/// The engine is given so much at once, at the least and at the most; a crash leaves about as much to be
/// done again.
const GATHERED_BYTES: RangeInclusive<usize> = 1 << 20..=32 << 20;
/// More may not wait for an engine that is slower than its callers.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What an engine has stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Bytes that it has written for that.
    pub(super) written_bytes: usize,
    /// Bytes of all that it holds now.
    pub(super) live_bytes: u64,
}

/// Stores the rows of batches in an engine, durably on return, together with their last number.
pub(super) type Storing = Box<dyn FnMut(&[&[u8]], u64) -> Result<Stored, StoreError> + Send>;

#[derive(Debug)]
struct State {
    journal: Journal,
    /// The engine is given so much at once.
    gathered_bytes: usize,
    /// Bytes of all that the engine holds; none: it has stored nothing yet.
    live_bytes: Option<u64>,
    /// Number of the last batch that the engine is about to store.
    storing: Option<u64>,
    /// Number of the last batch that it has stored since the open.
    stored: u64,
    /// Number of the last batch that it is to have without waiting for more.
    wanted: u64,
    /// Whether somebody reads what is stored, and no other batches may be stored meanwhile.
    is_read: bool,
    is_closing: bool,
    failure: Option<StoreError>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something to do for the thread.
    work: Condvar,
    /// Something done by the thread.
    progress: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for progress while `waits` holds and the engine works.
    fn wait_while<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        waits: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        while state.failure.is_none() && waits(&state) {
            self.work.notify_one();
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}

/// Until it is dropped the engine begins to store nothing.
struct Reading<'a>(&'a Shared);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.lock().is_read = false;
        self.0.work.notify_one();
    }
}

/// A journal with an engine behind it; dropped, it leaves to the next open what is not stored yet.
#[derive(Debug)]
pub(super) struct WriteBehind {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Files with batches that were not synced.
    unsynced: Vec<Arc<File>>,
    path: PathBuf,
}

impl WriteBehind {
    /// Starts the thread of a store.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start(
        path: &Path,
        journal: Journal,
        storing: Storing,
    ) -> Result<Self, StoreError> {
        let state = Mutex::new(State {
            journal,
            gathered_bytes: *GATHERED_BYTES.start(),
            live_bytes: None,
            storing: None,
            stored: 0,
            wanted: 0,
            is_read: false,
            is_closing: false,
            failure: None,
        });
        let (work, progress) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, work, progress });
        let path = path.to_owned();
        let thread = thread::Builder::new().name("guild-store".into()).spawn({
            let (shared, path) = (Arc::clone(&shared), path.clone());
            move || run(&shared, &path, storing)
        });
        let thread = thread
            .map_err(|error| StoreError::from_io(&path, "start the store's thread", &error))?;
        Ok(Self { shared, thread: Some(thread), unsynced: Vec::new(), path })
    }

    /// Hands a batch to the kernel; waits first while too much waits for the engine.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(super) fn append(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let state = self.shared.lock();
        let waits = |state: &State| state.journal.waiting_bytes() > WAITING_BYTES_MAX;
        let mut state = self.shared.wait_while(state, waits);
        let file = state
            .journal
            .append(batch)
            .map_err(|error| StoreError::from_io(&self.path, "write the journal", &error))?;
        if !self.unsynced.iter().any(|other| Arc::ptr_eq(other, file)) {
            self.unsynced.push(Arc::clone(file));
        }
        if state.journal.waiting_bytes() >= state.gathered_bytes {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Returns when all batches have reached a level.
    ///
    /// # Errors
    /// The journal cannot be synced, or the engine has failed.
    pub(super) fn sync(&mut self, level: Durability) -> Result<(), StoreError> {
        if level == Durability::Disk && !self.unsynced.is_empty() {
            let error = |error| StoreError::from_io(&self.path, "sync the journal", &error);
            self.unsynced.drain(..).try_for_each(|file| file.sync_data()).map_err(error)?;
            self.shared.lock().journal.synced().map_err(error)?;
        }
        self.shared.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Has the engine store everything so far without waiting for more; returns the number that
    /// [`read_stored`](Self::read_stored) asks for, of a batch that it gets in any case.
    pub(super) fn mark(&self) -> u64 {
        let mut state = self.shared.lock();
        state.wanted = match state.storing {
            _ if state.journal.waiting_bytes() > 0 => state.journal.last(),
            Some(number) => number,
            None => state.stored,
        };
        self.shared.work.notify_one();
        state.wanted
    }

    /// Calls `read` when the engine has durably stored everything up to a mark; none: it has not. It begins
    /// to store nothing else meanwhile, but may be about to store something.
    ///
    /// # Errors
    /// The engine has failed.
    pub(super) fn read_stored<T>(
        &self,
        mark: u64,
        read: impl FnOnce() -> T,
    ) -> Result<Option<T>, StoreError> {
        let mut state = self.shared.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.stored < mark {
            return Ok(None);
        }
        state.is_read = true;
        drop(state);
        let _reading = Reading(&self.shared);
        Ok(Some(read()))
    }

    /// Returns the bytes of all that the engine holds, if it has stored anything yet.
    pub(super) fn live_bytes(&self) -> Option<u64> {
        self.shared.lock().live_bytes
    }

    /// Returns when the engine has durably stored everything, and the journal takes no room on the disk.
    ///
    /// # Errors
    /// One of them has failed.
    pub(super) fn close(self) -> Result<(), StoreError> {
        self.settle()?;
        let emptied = self.shared.lock().journal.empty();
        emptied.map_err(|error| StoreError::from_io(&self.path, "empty the journal", &error))
    }

    /// Returns when the engine has durably stored everything.
    ///
    /// # Errors
    /// It has failed.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        let mark = self.mark();
        let state = self.shared.wait_while(self.shared.lock(), |state| state.stored < mark);
        state.failure.clone().map_or(Ok(()), Err)
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.work.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(path = %self.path.display(), "the thread of the store panicked");
        }
    }
}

fn run(shared: &Shared, path: &Path, mut storing: Storing) {
    loop {
        let full = {
            let mut state = shared.lock();
            loop {
                let waiting = state.journal.waiting_bytes();
                if state.is_closing {
                    return;
                }
                let is_wanted = waiting > 0 && state.stored < state.wanted;
                if !state.is_read && (waiting >= state.gathered_bytes || is_wanted) {
                    break;
                }
                state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let full = state.journal.turn();
            state.storing = Some(full.number);
            full
        };
        let result = store(path, &mut storing, &full);
        let mut state = shared.lock();
        state.storing = None;
        let has_failed = result.is_err();
        match result {
            Ok(Stored { written_bytes, live_bytes }) => {
                let (min, max) = GATHERED_BYTES.into_inner();
                state.gathered_bytes = written_bytes.clamp(min, max);
                state.stored = full.number;
                state.live_bytes = Some(live_bytes);
            }
            Err(error) => state.failure = Some(error),
        }
        drop(state);
        shared.progress.notify_all();
        if has_failed {
            return;
        }
    }
}

/// Nothing reaches the engine that is not durable in the journal.
fn store(path: &Path, storing: &mut Storing, full: &Full) -> Result<Stored, StoreError> {
    let synced = full.file.sync_data();
    synced.map_err(|error| StoreError::from_io(path, "sync the journal", &error))?;
    storing(&full.content.bodies(), full.number)
}
