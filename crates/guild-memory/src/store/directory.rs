//! The directory of a store: who may use it, and where in it the rows are.
//!
//! `guild.lock` marks a directory as ours, names the process that uses it and is what that process
//! locks. `guild.used` says that rows were made durable here, so an empty database is a damaged one.
//! `guild.current` names the place of the data: a subdirectory, or the directory itself while the
//! file is absent. A store that is rewritten, restored or given up changes its place by one rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::{LargeValues as _, Store, StoreError, journal};

const LOCK_FILE: &str = "guild.lock";
const MARK_FILE: &str = "guild.used";
const CURRENT_FILE: &str = "guild.current";
/// The file of the engine redb, by which it is known.
pub(super) const REDB_FILE: &str = "guild.redb";
/// Places other than the directory itself: this and a number.
const PLACE: &str = "data-";
/// How long to wait for a lock before the next try.
pub(super) const LOCK_RETRY: Duration = Duration::from_millis(20);
/// What is removed at a time of a file beside which commits are synced, and how often.
const SHRUNK_BYTES: u64 = 4 << 20;
const SHRINK_EVERY: Duration = Duration::from_millis(10);
/// A process that was just killed may need a moment to die.
const RETRIES_OTHER: u32 = 25;

/// A locked directory; unlocked when the last clone is gone.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: Arc<File>,
}

impl Directory {
    /// Locks the directory of a store; makes it when it is absent or empty, unless it must exist.
    pub(super) fn lock(path: &Path, must_exist: bool) -> Result<Self, StoreError> {
        if !has_store(path)? {
            if must_exist {
                return Err(StoreError::Missing { path: path.to_owned() });
            }
            fs::create_dir_all(path)
                .map_err(|e| StoreError::from_io(path, "create the directory", &e))?;
        }
        let lock = Arc::new(take_lock(path)?);
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether rows were ever made durable here.
    pub(super) fn is_marked(&self) -> bool {
        self.path.join(MARK_FILE).exists()
    }

    /// Notes, once, that rows were made durable.
    pub(super) fn mark(&self) -> Result<(), StoreError> {
        File::create(self.path.join(MARK_FILE))
            .and_then(|file| file.sync_all())
            .map_err(|e| StoreError::from_io(&self.path, "mark the store as used", &e))?;
        self.sync()
    }

    /// Returns where the data is. Removes what an unfinished rewrite left elsewhere, but nothing that was
    /// about to be put aside.
    pub(super) fn place(&self) -> Result<PathBuf, StoreError> {
        let current = self.current()?;
        self.settle_asides(&current)?;
        self.remove_strays(&current)?;
        Ok(current)
    }

    pub(super) fn current(&self) -> Result<PathBuf, StoreError> {
        match fs::read_to_string(self.path.join(CURRENT_FILE)) {
            Ok(name) if number(name.trim()).is_some() => Ok(self.path.join(name.trim())),
            Ok(name) => Err(StoreError::corrupt(
                &self.path,
                format!("{CURRENT_FILE} names no place: {name:?}"),
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.path.clone()),
            Err(error) => {
                Err(StoreError::from_io(&self.path, "read the place of the data", &error))
            }
        }
    }

    /// Returns the bytes of all files of the data at a place, with the large values.
    pub(super) fn disk_bytes(&self, place: &Path) -> Result<u64, StoreError> {
        let files = if place == self.path { self.data_files()? } else { vec![place.to_owned()] };
        let sum: io::Result<u64> = files.iter().map(|file| size_bytes(file)).sum();
        let sum = sum.map_err(|e| StoreError::from_io(&self.path, "measure the data", &e))?;
        Ok(sum + self.size_bytes()?)
    }

    /// Makes an empty place beside the current one.
    pub(super) fn new_place(&self) -> Result<PathBuf, StoreError> {
        let current = self.current()?;
        let next = current
            .file_name()
            .and_then(|name| number(&name.to_string_lossy()))
            .map_or(1, |n| n + 1);
        let place = self.path.join(format!("{PLACE}{next}"));
        let made = remove_all(&place).and_then(|()| fs::create_dir(&place));
        made.map_err(|e| StoreError::from_io(&self.path, "make a new place for the data", &e))?;
        Ok(place)
    }

    /// Makes a place the current one; a crash leaves the old one or this.
    pub(super) fn switch_to(&self, place: &Path) -> Result<(), StoreError> {
        let io_error =
            |e: io::Error| StoreError::from_io(&self.path, "switch to the new place", &e);
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = self.path.join(format!("{CURRENT_FILE}.new"));
        self.sync_place(place)?;
        File::create(&aside)
            .and_then(|mut file| {
                writeln!(file, "{name}")?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&aside, self.path.join(CURRENT_FILE)))
            .map_err(io_error)?;
        if self.is_marked() { self.sync() } else { self.mark() }
    }

    /// Makes all files of a place durable, also those that an engine writes once and never syncs,
    /// and their names.
    pub(super) fn sync_place(&self, place: &Path) -> Result<(), StoreError> {
        let io_error = |e: io::Error| StoreError::from_io(&self.path, "list the directory", &e);
        for entry in fs::read_dir(place).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            sync_file(&self.path, &path, "sync the files of the engine")?;
        }
        sync_file(&self.path, place, "sync the directory")?;
        self.sync()
    }

    /// Removes data that is not at the current place.
    pub(super) fn remove_strays(&self, current: &Path) -> Result<(), StoreError> {
        self.strays(current)?.iter().try_for_each(|path| remove_all(path)).map_err(|e| self.old(&e))
    }

    /// Removes data that is not at the current place bit by bit, until somebody is in a hurry.
    fn remove_strays_slowly(&self, current: &Path, hurries: &AtomicBool) -> Result<(), StoreError> {
        let shrunk = self.strays(current)?.iter().try_for_each(|path| shrink(path, hurries));
        self.remove_strays(current)?;
        shrunk.map_err(|e| self.old(&e))
    }

    /// Returns data that is not at the current place.
    fn strays(&self, current: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let mut strays = if current == self.path { Vec::new() } else { self.data_files()? };
        for entry in fs::read_dir(&self.path).map_err(|e| self.old(&e))? {
            let path = entry.map_err(|e| self.old(&e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if number(&name).is_some() && path != current {
                strays.push(path);
            }
        }
        Ok(strays)
    }

    fn old(&self, error: &io::Error) -> StoreError {
        StoreError::from_io(&self.path, "remove old data", error)
    }

    /// Ends a store in whose place is another one, and removes what it had on the disk.
    pub(super) fn leave(&self, old: Box<dyn Store>, current: &Path) -> Leaving {
        let (directory, current) = (self.clone(), current.to_owned());
        let hurries = Arc::new(AtomicBool::new(false));
        let is_hurried = Arc::clone(&hurries);
        let end = move || {
            if catch_unwind(AssertUnwindSafe(|| drop(old))).is_err() {
                tracing::error!("a store whose rows are in another one panicked at its end");
            }
            if let Err(error) = directory.remove_strays_slowly(&current, &is_hurried) {
                tracing::error!(%error, "old data is left until the store is opened again");
            }
        };
        match thread::Builder::new().name("guild-old-store".into()).spawn(end) {
            Ok(thread) => Leaving(Some((thread, hurries))),
            Err(error) => {
                tracing::error!(%error, "no thread; old data is left until the store is opened again");
                Leaving::default()
            }
        }
    }

    /// Removes what an engine made of a store in which nothing was ever durable.
    pub(super) fn remove_unfinished(&self) -> Result<(), StoreError> {
        let io_error =
            |e: io::Error| StoreError::from_io(&self.path, "remove an unfinished store", &e);
        self.data_files()?.iter().try_for_each(|path| remove_all(path)).map_err(io_error)
    }

    /// Makes the names of new files durable, and that of the directory itself.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        [self.path.as_path(), parent.unwrap_or(Path::new("."))]
            .into_iter()
            .try_for_each(|directory| sync_file(&self.path, directory, "sync the directory"))
    }

    /// Returns the files of an engine that lie in the directory itself.
    pub(super) fn data_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let io_error = |e: io::Error| StoreError::from_io(&self.path, "list the directory", &e);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_data = matches!(&*name, "conf" | "db" | "blobs" | REDB_FILE);
            if is_data || name.starts_with("snap.") || journal::FILES.contains(&&*name) {
                files.push(entry.path());
            }
        }
        Ok(files)
    }
}

/// A store that ends on a thread of its own: an engine takes its time, and commits go on meanwhile.
#[derive(Debug, Default)]
pub(super) struct Leaving(Option<(JoinHandle<()>, Arc<AtomicBool>)>);

impl Leaving {
    /// Returns when it has ended.
    pub(super) fn wait(&mut self) {
        if let Some((thread, hurries)) = self.0.take() {
            hurries.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that ends a store panicked");
            }
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Syncs a file or a directory by its name.
pub(super) fn sync_file(store: &Path, file: &Path, doing: &'static str) -> Result<(), StoreError> {
    sync_path(file).map_err(|e| StoreError::from_io(store, doing, &e))
}

/// Makes a file, or the names in a directory, durable.
pub(super) fn sync_path(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Returns the number of a place by its name.
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_prefix(PLACE)?.parse().ok()
}

/// Takes from files piece by piece what they hold: a file system that tells its disk what is free would have
/// every sync beside it wait until the disk knows it of all of a large one.
fn shrink(path: &Path, hurries: &AtomicBool) -> io::Result<()> {
    if path.is_dir() {
        return fs::read_dir(path)?.try_for_each(|entry| shrink(&entry?.path(), hurries));
    }
    let file = fs::metadata(path)?;
    if file.nlink() > 1 {
        // It is kept aside under its other name.
        return Ok(());
    }
    let mut left = file.len();
    while left > SHRUNK_BYTES && !hurries.load(Ordering::Relaxed) {
        left -= SHRUNK_BYTES;
        OpenOptions::new().write(true).open(path)?.set_len(left)?;
        thread::park_timeout(SHRINK_EVERY);
    }
    Ok(())
}

/// Returns the bytes of a file, or of all files in a directory; one that vanishes meanwhile has none.
fn size_bytes(path: &Path) -> io::Result<u64> {
    if path.is_dir() {
        return fs::read_dir(path)?.map(|entry| size_bytes(&entry?.path())).sum();
    }
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        file => Ok(file?.len()),
    }
}

pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else if path.exists() {
        fs::remove_file(path)
    } else {
        Ok(())
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
