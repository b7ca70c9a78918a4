//! The store on disk: sled 0.34, and all that has to be known to live with it.
//!
//! Only this file names sled. `flush()` ends in `sync_file_range`, which is no barrier, so
//! [`Durability::Disk`] adds an fdatasync on a descriptor of our own (sled#1351, #1452). One batch
//! per group, because sled pays per batch since the last flush, not per row. `flush_async`,
//! `transaction` and `watch_prefix` can deadlock or block writers and are not used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::{Durability, Store, StoreError, StoreStats, Visit, WriteBatch};

/// Pages above a quarter of a segment go to `blobs/`, which sled never syncs: segments large
/// enough that no page of ours does. Fixed when the directory is created.
const SEGMENT_BYTES: usize = 8 << 20;
const CACHE_BYTES: u64 = 64 << 20;
/// Turning the flusher off would turn garbage collection off with it.
const FLUSH_EVERY_MS: u64 = 500;
/// Marks a directory as ours, names the process that uses it, and is what that process locks.
const LOCK_FILE: &str = "guild.lock";
/// There once rows were stored.
const MARK_FILE: &str = "guild.used";
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// A store that this process has just closed: sled lets go of its file a little later (sled#1289).
const RETRIES_OWN: u32 = 250;
/// A process that was just killed may need a moment to die.
const RETRIES_OTHER: u32 = 25;

/// A store in a directory.
#[derive(Debug)]
pub struct SledStore {
    db: sled::Db,
    /// `<dir>/db` once more, for the real fdatasync.
    data: File,
    path: PathBuf,
    stats: StoreStats,
    /// Whether [`MARK_FILE`] says that rows were stored here.
    is_marked: bool,
    /// Last field: unlocked after sled has let go.
    _lock: File,
}

impl SledStore {
    /// Opens the store in a directory; makes both when the directory is absent or empty.
    ///
    /// # Errors
    /// All variants of [`StoreError`] except `Missing` and `FormatVersion`. Nothing in a directory
    /// that is not a guild store is touched.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let is_new = !has_store(path)?;
        if is_new {
            fs::create_dir_all(path)
                .map_err(|e| StoreError::from_io(path, "create the directory", &e))?;
        }
        Self::open_locked(path, is_new)
    }

    /// Opens the store in a directory that must have one.
    ///
    /// # Errors
    /// As [`SledStore::open`], and [`StoreError::Missing`].
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if !has_store(path)? {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        Self::open_locked(path, false)
    }

    fn open_locked(path: &Path, is_new: bool) -> Result<Self, StoreError> {
        let lock = take_lock(path)?;
        remove_torn_snapshots(path)?;
        let db = open_sled(path)?;
        let data = OpenOptions::new()
            .write(true)
            .open(path.join("db"))
            .map_err(|e| StoreError::from_io(path, "open the data file", &e))?;
        let is_marked = path.join(MARK_FILE).exists();
        if is_marked && db.is_empty() {
            // sled takes a file that it cannot read for a new one; never silently empty.
            let what = "rows were stored here, and the data file is gone or holds none of them";
            return Err(StoreError::corrupt(path, what));
        }
        let stats = StoreStats::default();
        let mut store = Self { db, data, path: path.to_owned(), stats, is_marked, _lock: lock };
        if is_new {
            store.sync(Durability::Disk)?;
            store.sync_directories()?;
        }
        Ok(store)
    }

    /// Notes, once, that rows were stored: from now on an empty database is a damaged one.
    fn mark(&mut self) -> Result<(), StoreError> {
        File::create(self.path.join(MARK_FILE))
            .and_then(|file| file.sync_all())
            .map_err(|e| StoreError::from_io(&self.path, "mark the store as used", &e))?;
        self.sync_directories()?;
        self.is_marked = true;
        Ok(())
    }

    /// Makes the names of the new files durable, and that of the directory itself.
    fn sync_directories(&self) -> Result<(), StoreError> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        for directory in [Some(self.path.as_path()), Some(parent.unwrap_or(Path::new(".")))] {
            let Some(directory) = directory else { continue };
            File::open(directory)
                .and_then(|file| file.sync_all())
                .map_err(|e| StoreError::from_io(&self.path, "sync the directory", &e))?;
        }
        Ok(())
    }

    /// Runs an operation of sled; a panic inside it is what a damaged file can lead to.
    fn guarded<T>(
        &self,
        doing: &'static str,
        operation: impl FnOnce() -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        guarded(&self.path, doing, operation)
    }
}

impl Store for SledStore {
    fn path(&self) -> &Path {
        &self.path
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.guarded("read a row", || self.db.get(key))?;
        Ok(row.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.guarded("read rows", || {
            for row in self.db.range::<&[u8], _>((from, to)) {
                let (key, value) = row?;
                if each(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.rows() {
            match value {
                Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                None => changes.remove(key.as_slice()),
            }
        }
        self.guarded("write rows", || self.db.apply_batch(changes))?;
        self.stats.batches += 1;
        Ok(())
    }

    fn sync(&mut self, level: Durability) -> Result<(), StoreError> {
        if level == Durability::Memory {
            return Ok(());
        }
        self.guarded("flush", || self.db.flush())?;
        if level == Durability::Disk {
            self.data
                .sync_data()
                .map_err(|e| StoreError::from_io(&self.path, "sync the data file", &e))?;
            self.stats.syncs += 1;
            if !self.is_marked && !self.db.is_empty() {
                self.mark()?;
            }
        }
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        let size_bytes = self.data.metadata().map_or(0, |data| data.len());
        StoreStats { size_bytes, ..self.stats }
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        self.sync(Durability::Disk)
    }
}

/// Tells an existing store from a place for a new one.
fn has_store(path: &Path) -> Result<bool, StoreError> {
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(StoreError::Foreign { path: path.to_owned(), what: "it is a file".into() });
        }
        Err(error) => return Err(StoreError::from_io(path, "list the directory", &error)),
    };
    if path.join(LOCK_FILE).exists() {
        return Ok(true);
    }
    match entries.next() {
        None => Ok(false),
        Some(Err(error)) => Err(StoreError::from_io(path, "list the directory", &error)),
        Some(Ok(entry)) => Err(StoreError::Foreign {
            path: path.to_owned(),
            what: format!(
                "it holds `{}` but no `{LOCK_FILE}`",
                entry.file_name().to_string_lossy()
            ),
        }),
    }
}

/// Locks the directory for this process; the lock ends with the returned file, or the process.
fn take_lock(path: &Path) -> Result<File, StoreError> {
    let io_error = |e: io::Error| StoreError::from_io(path, "lock the directory", &e);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_FILE))
        .map_err(io_error)?;
    let mut tries = 0;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = holder(&mut file);
                tries += 1;
                if tries > RETRIES_OTHER {
                    return Err(StoreError::Locked { path: path.to_owned(), pid });
                }
                thread::park_timeout(LOCK_RETRY);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io_error(error.into())),
        }
    }
    file.set_len(0).map_err(io_error)?;
    file.rewind().map_err(io_error)?;
    writeln!(file, "{}", std::process::id()).map_err(io_error)?;
    Ok(file)
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A crash while sled writes a snapshot leaves this file, which it may take for the newest one and
/// then call the store corrupt (sled#1527, #1533).
fn remove_torn_snapshots(path: &Path) -> Result<(), StoreError> {
    let io_error = |e: io::Error| StoreError::from_io(path, "remove a torn snapshot", &e);
    for entry in fs::read_dir(path).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(io_error)?;
        }
    }
    Ok(())
}

fn open_sled(path: &Path) -> Result<sled::Db, StoreError> {
    let mut tries = 0;
    loop {
        let opened = guarded(path, "open", || {
            sled::Config::new()
                .path(path)
                .segment_size(SEGMENT_BYTES)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(Some(FLUSH_EVERY_MS))
                .open()
        });
        match opened {
            // We hold the lock of the directory: it can only be our own last store, still closing.
            Err(StoreError::Locked { .. }) if tries < RETRIES_OWN => {
                tries += 1;
                thread::park_timeout(LOCK_RETRY);
            }
            opened => return opened,
        }
    }
}

fn guarded<T>(
    path: &Path,
    doing: &'static str,
    operation: impl FnOnce() -> sled::Result<T>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(result) => result.map_err(|error| typed(path, doing, error)),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(StoreError::corrupt(path, format!("sled panicked during {doing}: {message}")))
        }
    }
}

fn typed(path: &Path, doing: &'static str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock") => {
            StoreError::Locked { path: path.to_owned(), pid: None }
        }
        sled::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::corrupt(path, format!("could not {doing}: {error}"))
        }
        sled::Error::Io(error) => StoreError::from_io(path, doing, &error),
        sled::Error::Corruption { .. }
        | sled::Error::ReportableBug(_)
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_) => {
            StoreError::corrupt(path, format!("could not {doing}: {error}"))
        }
    }
}
