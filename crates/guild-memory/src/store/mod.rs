//! The seam below the memory: an ordered set of rows that changes in atomic batches.
//!
//! Transactions, versions and fences live above it, once; an engine only has to keep rows. The
//! trait is small enough that a wrapper which fails or forgets on command is an ordinary test.

mod aside;
mod batch;
mod behind;
mod directory;
mod journal;
mod large;
mod page;
mod ram;
#[cfg(feature = "redb")]
mod redb;
mod sled;

use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use self::directory::Directory;

pub(crate) use self::aside::Place;
pub use self::batch::{Rows, WriteBatch};
pub use self::large::ValueId;
pub use self::ram::{Crash, RamDisk, RamStore};
#[cfg(feature = "redb")]
pub use self::redb::RedbStore;
pub use self::sled::SledStore;

/// What keeps the rows of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// sled 0.34, what a new store gets.
    #[default]
    Sled,
    /// redb, where the program was built with its feature.
    Redb,
}

impl Engine {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }

    /// Finds out by its files which engine keeps a place.
    fn of(place: &Path) -> Self {
        if place.join(directory::REDB_FILE).exists() { Self::Redb } else { Self::Sled }
    }

    fn open_in(self, directory: Directory) -> Result<Box<dyn Store>, StoreError> {
        match self {
            Self::Sled => Ok(Box::new(SledStore::open_in(directory)?)),
            #[cfg(feature = "redb")]
            Self::Redb => Ok(Box::new(RedbStore::open_in(directory)?)),
            #[cfg(not(feature = "redb"))]
            Self::Redb => Err(self.missing(&directory)),
        }
    }

    /// Opens an empty store at a place.
    fn open_at(self, directory: Directory, place: PathBuf) -> Result<Box<dyn Store>, StoreError> {
        match self {
            Self::Sled => Ok(Box::new(SledStore::open_at(directory, place)?)),
            #[cfg(feature = "redb")]
            Self::Redb => Ok(Box::new(RedbStore::open_at(directory, place)?)),
            #[cfg(not(feature = "redb"))]
            Self::Redb => Err(self.missing(&directory)),
        }
    }

    #[cfg(not(feature = "redb"))]
    fn missing(self, directory: &Directory) -> StoreError {
        StoreError::EngineMissing { path: directory.path().to_owned(), engine: self.name() }
    }
}

/// Opens the store in a directory with the engine that it has; makes a store of the default engine
/// when the directory is absent or empty.
///
/// # Errors
/// As [`SledStore::open`], and [`StoreError::EngineMissing`].
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Store>, StoreError> {
    let directory = Directory::lock(path.as_ref(), false)?;
    Engine::of(&directory.current()?).open_in(directory)
}

/// Opens the store in a directory that must have one.
///
/// # Errors
/// As [`open`], and [`StoreError::Missing`].
pub fn open_existing(path: impl AsRef<Path>) -> Result<Box<dyn Store>, StoreError> {
    let directory = Directory::lock(path.as_ref(), true)?;
    Engine::of(&directory.current()?).open_in(directory)
}

/// Makes a store in a directory that must be absent or empty.
///
/// # Errors
/// As [`open`], and [`StoreError::Foreign`] when there is a store already.
pub fn create(path: impl AsRef<Path>, engine: Engine) -> Result<Box<dyn Store>, StoreError> {
    let directory = Directory::lock(path.as_ref(), false)?;
    if directory.is_marked() {
        let what = "it holds a store already".to_owned();
        return Err(StoreError::Foreign { path: path.as_ref().to_owned(), what });
    }
    engine.open_in(directory)
}

/// Runs an operation of an engine; a panic inside it is what a damaged file can lead to.
fn caught<T, E>(
    path: &Path,
    doing: &'static str,
    typed: impl FnOnce(&Path, &'static str, E) -> StoreError,
    operation: impl FnOnce() -> Result<T, E>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(result) => result.map_err(|error| typed(path, doing, error)),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(StoreError::corrupt(path, format!("the engine panicked during {doing}: {message}")))
        }
    }
}

/// How far a commit has come when it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Applied in RAM: lost when the process ends badly.
    Memory,
    /// Handed to the kernel: survives the end of the process, not a power cut.
    Process,
    /// Synced to the disk: survives a power cut.
    #[default]
    Disk,
}

impl Durability {
    /// Returns the level's name in the event log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}

/// What a store has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Batches applied.
    pub batches: u64,
    /// Barriers that reached the disk.
    pub syncs: u64,
    /// Bytes of the engine's data file, which a rewrite makes smaller; all of the files are
    /// [`Store::disk_bytes`].
    pub size_bytes: u64,
}

/// Called with the key and the value of each row of a scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Opens a store that failed once more, as often as it is called.
pub type Reopen = Box<dyn FnMut() -> Result<Box<dyn Store>, StoreError> + Send>;

/// An ordered set of rows, owned by one thread.
///
/// After any error of [`apply`](Self::apply) or [`sync`](Self::sync) the state of the store is
/// unknown: stop acknowledging and open it again (a failed sync is never repeated with success).
pub trait Store: fmt::Debug + Send + 'static {
    /// Returns where the store is, for messages.
    fn path(&self) -> &Path;

    /// Returns a row.
    ///
    /// # Errors
    /// The engine cannot read it.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the rows between two keys in ascending order until `each` breaks.
    ///
    /// # Errors
    /// The engine cannot read them.
    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, each: Visit<'_>)
    -> Result<(), StoreError>;

    /// Has the engine keep all that was applied so far where [`scan_stored`](Self::scan_stored) finds it, without
    /// waiting for that.
    fn mark(&self) -> u64 {
        0
    }

    /// Visits the rows between two keys in ascending order until `each` breaks, without those changes
    /// since a mark that the engine would have to be waited for. Returns whether it has all up to the mark;
    /// nothing is visited otherwise.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    fn scan_stored(
        &self,
        mark: u64,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<bool, StoreError> {
        let _ = mark;
        self.scan(from, to, each).map(|()| true)
    }

    /// Applies a batch: all or nothing after a crash, and never without the batches before it.
    ///
    /// # Errors
    /// The engine cannot write; part of the batch may be there.
    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError>;

    /// Returns when all earlier batches have reached `level`.
    ///
    /// # Errors
    /// The engine cannot write; nothing is known about any batch since the last barrier.
    fn sync(&mut self, level: Durability) -> Result<(), StoreError>;

    /// Returns what keeps the large values of this store.
    fn large(&self) -> &dyn LargeValues;

    /// Returns what the store has done so far.
    fn stats(&self) -> StoreStats;

    /// Syncs everything to the disk and lets go of the store.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    fn close(self: Box<Self>) -> Result<(), StoreError>;

    /// Returns what opens this place again after the store has failed and was dropped; none: it
    /// stays closed. The place stays locked meanwhile.
    fn reopen(&self) -> Option<Reopen> {
        None
    }

    /// Returns the bytes of all files that are this store's: those of the engine, the journals, and the
    /// large values. Checkpoints and data that is kept aside are not part of it.
    ///
    /// # Errors
    /// They cannot be listed.
    fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.stats().size_bytes + self.large().size_bytes()?)
    }

    /// Returns the bytes of what is stored, which a copy of it would take; none: they are not known.
    fn live_bytes(&self) -> Option<u64> {
        None
    }

    /// Opens an empty store beside this one, for a copy of its rows; none: the engine has no use
    /// for that. A sibling that does not take over leaves no trace at the next start.
    ///
    /// # Errors
    /// The engine cannot make it.
    fn sibling(&mut self) -> Result<Option<Box<dyn Store>>, StoreError> {
        Ok(None)
    }

    /// Takes the place of `old`, whose sibling this is: a crash leaves the one or the other. What `old`
    /// had on the disk is gone when this store is dropped, at the latest.
    ///
    /// # Errors
    /// The engine cannot write; which of them has the place is unknown.
    fn take_over(&mut self, old: Box<dyn Store>) -> Result<(), StoreError> {
        drop(old);
        Ok(())
    }
}

/// The large values of a store, each under a name that its content gives it. They may be asked for in
/// the middle of a scan.
pub trait LargeValues {
    /// Stores a large value, durably on return. Equal values have one name; to store one that is
    /// there already changes nothing.
    ///
    /// # Errors
    /// It cannot be written; no row may refer to it then.
    fn put(&self, id: ValueId, value: &[u8]) -> Result<(), StoreError>;

    /// Returns a large value; none: it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    fn get(&self, id: ValueId) -> Result<Option<Vec<u8>>, StoreError>;

    /// Removes a large value that no durable row refers to.
    ///
    /// # Errors
    /// It cannot be removed; it is found again at the next open.
    fn remove(&self, id: ValueId) -> Result<(), StoreError>;

    /// Returns the names of all large values, in their order.
    ///
    /// # Errors
    /// They cannot be listed.
    fn list(&self) -> Result<Vec<ValueId>, StoreError>;

    /// Returns the bytes of all large values.
    ///
    /// # Errors
    /// They cannot be listed, or read.
    fn size_bytes(&self) -> Result<u64, StoreError> {
        let sizes = self.list()?.into_iter().map(|id| self.get(id));
        sizes.map(|value| Ok(value?.map_or(0, |value| value.len() as u64))).sum()
    }
}

/// Why a store cannot be used: what, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another guild of this one, has it open.
    #[error(
        "store {} is in use by {}; stop that process or choose another directory",
        .path.display(), Holder(*.pid)
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that has it open, where known.
        pid: Option<u32>,
    },
    /// What was read is not what was written.
    #[error(
        "store {} is corrupt: {what}; restore the directory from a backup, or move it aside and start over",
        .path.display()
    )]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It was written by a Guild with another format.
    #[error(
        "store {} has format version {found}, this program knows {known}; use the program that wrote it, or another directory",
        .path.display()
    )]
    FormatVersion {
        /// The directory.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that this program reads and writes.
        known: u32,
    },
    /// It is kept by an engine that this program does not have.
    #[error(
        "store {} is kept by the engine {engine}, which this program was built without; build it with `--features {engine}`",
        .path.display()
    )]
    EngineMissing {
        /// The directory.
        path: PathBuf,
        /// The engine.
        engine: &'static str,
    },
    /// The directory holds something else.
    #[error("{} is not a guild store ({what}); choose an empty or a new directory", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// There is no store.
    #[error("no guild store at {}; check the path, or create it with `guild run --store`", .path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The process may not read or write it.
    #[error("no permission to {doing} in store {}; change its owner or mode, or choose another directory", .path.display())]
    Permission {
        /// The directory.
        path: PathBuf,
        /// What was refused.
        doing: &'static str,
    },
    /// The disk has no room left.
    #[error("disk full: could not {doing} in store {}; free some space and start again", .path.display())]
    DiskFull {
        /// The directory.
        path: PathBuf,
        /// What failed.
        doing: &'static str,
    },
    /// The operating system or the engine refused.
    #[error("could not {doing} in store {}: {message}; check the disk and start again", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What failed.
        doing: &'static str,
        /// What the operating system or the engine said.
        message: String,
    },
}

impl StoreError {
    /// Returns the error of a store whose content is not what was written.
    pub fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.into() }
    }

    /// Returns the error of an operation that the operating system refused.
    pub fn from_io(path: &Path, doing: &'static str, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { path, doing }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, doing }
            }
            _ => Self::Io { path, doing, message: error.to_string() },
        }
    }
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) if pid == std::process::id() => f.write_str("another guild of this process"),
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_operating_system_name_the_place_and_the_remedy() {
        let path = Path::new("/some/store");
        let typed = |kind: io::ErrorKind| StoreError::from_io(path, "write rows", &kind.into());
        assert!(matches!(typed(io::ErrorKind::PermissionDenied), StoreError::Permission { .. }));
        assert!(matches!(typed(io::ErrorKind::ReadOnlyFilesystem), StoreError::Permission { .. }));
        assert!(matches!(typed(io::ErrorKind::StorageFull), StoreError::DiskFull { .. }));
        assert!(matches!(typed(io::ErrorKind::Other), StoreError::Io { .. }));
        let missing = StoreError::Missing { path: path.to_owned() };
        let foreign = StoreError::Foreign { path: path.to_owned(), what: "other files".into() };
        for error in [typed(io::ErrorKind::PermissionDenied), missing, foreign] {
            let message = error.to_string();
            assert!(message.contains("/some/store") && message.contains("; "), "{message}");
        }
    }
}
