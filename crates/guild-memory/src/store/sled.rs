//! The store on disk: sled 0.34 behind a journal, and all that has to be known to live with it.
//!
//! Only this file names sled. Its flush costs about 0.13 ms for each batch and each insert some 12,000
//! instructions; so groups wait for the journal (`journal.rs`) alone, sled gets the rows of many of them at
//! once, and what it takes for a row is a page of them (`page.rs`).
//!
//! A flush ends in `sync_file_range`, which is no barrier (sled#1351, #1452), and each segment that sled begins
//! says that what is written is on the disk: where a power cut leaves such a segment and not all before it,
//! sled reads over the holes as if nothing had ever been there. What a segment says is true when everything
//! before the last one was synced. So sled writes only what we have it write, an fdatasync comes before it can
//! have filled a second segment, and the thread with which it flushes now and then is not started. That
//! thread would also collect garbage, which is left to the rewrite of the whole store (`engine.rs`).
//!
//! `flush_async`, `transaction` and `watch_prefix` can deadlock or block writers and are not used. The file
//! `conf` is written once and never synced by sled; without it nothing opens, so it is synced here.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::behind::{Stored, Storing, WriteBehind};
use super::directory::{Directory, LOCK_RETRY, Leaving};
use super::journal::Journal;
use super::page::{self, Exchanged, Pages, newest};
use super::{
    Durability, LargeValues, Reopen, Rows, Store, StoreError, StoreStats, Visit, WriteBatch, caught,
};
use crate::key;
use crate::rows::format_of;

/// Pages above a quarter of a segment go to `blobs/`, which sled never syncs: segments large
/// enough that no page of ours does. Fixed when the directory is created.
const SEGMENT_BYTES: usize = 8 << 20;
const CACHE_BYTES: u64 = 64 << 20;
/// Written pages are synced after so many bytes, of which sled makes up to seventeen times as many: it now and
/// then writes all of a node to change a page. With pages of at most 16 KiB that is half a segment.
/// A commit that syncs the journal waits for what is on its way to the disk, the less the better.
const SYNC_BYTES: usize = 128 << 10;
/// A page counts as so much at the least.
const PAGE_BYTES_MIN: usize = 8 << 10;
/// The file of all of sled's trees.
const DATA_FILE: &str = "db";
/// The tree of the rows, in pages. Until format 7 they were in sled's own tree, one by one.
const PAGES: &[u8] = b"pages";
/// A tree beside it: what of the journal is in them.
const JOURNAL: &[u8] = b"journal";
/// Number of the last batch.
const STORED: &[u8] = b"stored";
/// What the checksums of the journal begin with.
const SALT: &[u8] = b"salt";
/// A store that this process has just closed: sled lets go of its file a little later (sled#1289).
const RETRIES_OWN: u32 = 250;

/// A store in a directory.
#[derive(Debug)]
pub struct SledStore {
    /// Lets go of sled before `db` does.
    behind: WriteBehind,
    pages: PageTree,
    /// Last of sled.
    _db: sled::Db,
    /// Where sled's files are.
    place: PathBuf,
    stats: StoreStats,
    /// Whether rows were written since the store was opened.
    has_rows: bool,
    /// Whether the directory says that rows were stored here.
    is_marked: bool,
    leaving: Leaving,
    /// Last field: unlocked after sled has let go.
    directory: Directory,
}

impl SledStore {
    /// Opens the store in a directory; makes both when the directory is absent or empty.
    ///
    /// # Errors
    /// All variants of [`StoreError`] except `Missing` and `FormatVersion`. Nothing in a directory
    /// that is not a guild store is touched.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_in(Directory::lock(path.as_ref(), false)?)
    }

    /// Opens the store in a directory that must have one.
    ///
    /// # Errors
    /// As [`SledStore::open`], and [`StoreError::Missing`].
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_in(Directory::lock(path.as_ref(), true)?)
    }

    pub(super) fn open_in(directory: Directory) -> Result<Self, StoreError> {
        let place = directory.place()?;
        let is_marked = directory.is_marked();
        let had_files = place.join("conf").exists();
        remove_torn_snapshots(directory.path(), &place)?;
        sync_left(directory.path(), &place)?;
        let db = match open_sled(directory.path(), &place) {
            Err(StoreError::Corrupt { what, .. }) if !is_marked && had_files => {
                // A power cut during the first start; whatever is there was never acknowledged.
                let path = directory.path().display();
                tracing::warn!(%path, what, "store was never finished; made anew");
                directory.remove_unfinished()?;
                open_sled(directory.path(), &place)?
            }
            opened => opened?,
        };
        check_format(directory.path(), &db)?;
        let mut store = Self::with(db, directory, place, is_marked, is_marked)?;
        if !is_marked {
            store.sync(Durability::Disk)?;
            store.directory.sync_place(&store.place)?;
        }
        Ok(store)
    }

    /// Opens an empty store at another place of a directory than the current one.
    pub(super) fn open_at(directory: Directory, place: PathBuf) -> Result<Self, StoreError> {
        let db = open_sled(directory.path(), &place)?;
        // The mark is that of the directory, and speaks of its current place.
        Self::with(db, directory, place, true, false)
    }

    /// Puts into sled what of the journal it does not have, and goes on from there.
    fn with(
        db: sled::Db,
        directory: Directory,
        place: PathBuf,
        is_marked: bool,
        has_journal: bool,
    ) -> Result<Self, StoreError> {
        let path = directory.path();
        let data = OpenOptions::new()
            .write(true)
            .open(place.join(DATA_FILE))
            .map_err(|e| StoreError::from_io(path, "open the data file", &e))?;
        let trees = || Ok((db.open_tree(PAGES)?, db.open_tree(JOURNAL)?));
        let (tree, journal) = caught(path, "open", typed, trees)?;
        let pages = PageTree { tree, data: Arc::new(data), unsynced: 0 };
        if has_journal && caught(path, "open", typed, || pages.is_empty())? {
            // sled takes a file that it cannot read for a new one; never silently empty.
            let what = "rows were stored here, and the data file is gone or holds none of them";
            return Err(StoreError::corrupt(path, what));
        }
        let stored = number(path, &journal, STORED)?.unwrap_or_default();
        let salt = match number(path, &journal, SALT)? {
            Some(salt) => salt,
            None if has_journal => {
                return Err(StoreError::corrupt(path, "the salt of its journal is gone"));
            }
            None => {
                // Durable with the first rows, and before anything is written to the journal.
                let salt = drawn();
                let put = || journal.insert(SALT, &salt.to_be_bytes());
                caught(path, "write rows", typed, put)?;
                salt
            }
        };
        let mut trees = Trees { pages: pages.clone(), journal };
        let (journal, found) = Journal::open(path, &place, salt, stored, has_journal)?;
        // Also when there is nothing to store: the journal is about to be written anew.
        trees.store(path, &[&found.rows], found.number)?;
        let behind = WriteBehind::start(path, journal, storing(path.to_owned(), trees))?;
        let stats = StoreStats::default();
        Ok(Self {
            behind,
            pages,
            _db: db,
            place,
            stats,
            has_rows: false,
            is_marked,
            leaving: Leaving::default(),
            directory,
        })
    }

    fn guarded<T>(
        &self,
        doing: &'static str,
        operation: impl FnOnce() -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        caught(self.directory.path(), doing, typed, operation)
    }
}

impl Store for SledStore {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.behind.settle()?;
        self.guarded("read a row", || page::get(&self.pages, key))
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.behind.settle()?;
        self.guarded("read rows", || page::scan(&self.pages, from, to, each))
    }

    fn mark(&self) -> u64 {
        self.behind.mark()
    }

    fn scan_stored(
        &self,
        mark: u64,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<bool, StoreError> {
        let read = || self.guarded("read rows", || page::scan(&self.pages, from, to, each));
        let found = self.behind.read_stored(mark, read)?;
        found.map_or(Ok(false), |read| read.map(|()| true))
    }

    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        if !batch.as_bytes().is_empty() {
            self.behind.append(batch)?;
            self.has_rows = true;
        }
        self.stats.batches += 1;
        Ok(())
    }

    fn sync(&mut self, level: Durability) -> Result<(), StoreError> {
        self.behind.sync(level)?;
        if level == Durability::Disk {
            self.stats.syncs += 1;
            let has_pages = || Ok(!self.pages.is_empty()?);
            if !self.is_marked && (self.has_rows || self.guarded("read rows", has_pages)?) {
                // The mark promises that sled has pages, and once it has any it always has.
                self.behind.settle()?;
                if self.guarded("read rows", has_pages)? {
                    self.directory.mark()?;
                    self.is_marked = true;
                }
            }
        }
        Ok(())
    }

    fn large(&self) -> &dyn LargeValues {
        &self.directory
    }

    fn stats(&self) -> StoreStats {
        let size_bytes = self.pages.data.metadata().map_or(0, |data| data.len());
        StoreStats { size_bytes, ..self.stats }
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.directory.disk_bytes(&self.place)
    }

    fn live_bytes(&self) -> Option<u64> {
        self.behind.live_bytes()
    }

    fn reopen(&self) -> Option<Reopen> {
        let directory = self.directory.clone();
        Some(Box::new(move || Ok(Box::new(Self::open_in(directory.clone())?))))
    }

    fn sibling(&mut self) -> Result<Option<Box<dyn Store>>, StoreError> {
        self.leaving.wait();
        let place = self.directory.new_place()?;
        Ok(Some(Box::new(Self::open_at(self.directory.clone(), place)?)))
    }

    fn take_over(&mut self, old: Box<dyn Store>) -> Result<(), StoreError> {
        self.sync(Durability::Disk)?;
        self.directory.switch_to(&self.place)?;
        self.leaving = self.directory.leave(old, &self.place);
        Ok(())
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        self.sync(Durability::Disk)?;
        self.behind.close()
    }
}

/// The tree of the pages, and the file it is in.
#[derive(Clone, Debug)]
struct PageTree {
    tree: sled::Tree,
    data: Arc<File>,
    unsynced: usize,
}

impl PageTree {
    /// Returns whether there is no page; `is_empty` of sled takes an error for a page.
    fn is_empty(&self) -> sled::Result<bool> {
        Ok(self.tree.first()?.is_none())
    }

    fn wrote(&mut self, bytes: usize) -> sled::Result<()> {
        self.unsynced += bytes.max(PAGE_BYTES_MIN);
        if self.unsynced < SYNC_BYTES { Ok(()) } else { self.sync() }
    }

    /// Returns when everything that was written, also to other trees, is on the disk.
    fn sync(&mut self) -> sled::Result<()> {
        self.unsynced = 0;
        self.tree.flush()?;
        Ok(self.data.sync_data()?)
    }
}

impl Pages for PageTree {
    type Bytes = sled::IVec;
    type Error = sled::Error;

    fn at(&self, key: &[u8]) -> sled::Result<Option<(sled::IVec, sled::IVec)>> {
        self.tree.range::<&[u8], _>(..=key).next_back().transpose()
    }

    fn after(&self, key: &[u8]) -> sled::Result<Option<(sled::IVec, sled::IVec)>> {
        self.tree.get_gt(key)
    }

    fn put(&mut self, key: &[u8], rows: &[u8]) -> sled::Result<()> {
        self.tree.insert(key, rows)?;
        self.wrote(rows.len())
    }

    fn remove(&mut self, key: &[u8]) -> sled::Result<()> {
        self.tree.remove(key)?;
        self.wrote(0)
    }
}

/// Draws a number that nobody can know.
#[expect(clippy::disallowed_types, reason = "that it differs each time is what it is for")]
fn drawn() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// Returns a number that is kept beside the rows.
fn number(path: &Path, tree: &sled::Tree, key: &[u8]) -> Result<Option<u64>, StoreError> {
    let number = caught(path, "read a row", typed, || tree.get(key))?;
    Ok(number.and_then(|number| number.as_ref().try_into().ok()).map(u64::from_be_bytes))
}

/// Returns what stores rows of the journal.
fn storing(path: PathBuf, mut trees: Trees) -> Storing {
    let mut live_bytes = None;
    Box::new(move |batches, number| {
        let Exchanged { written, replaced } = trees.store(&path, batches, number)?;
        let now = match live_bytes {
            // A page that is written anew after a crash replaces what was there before.
            Some(before) => before + written as u64 - replaced as u64,
            None => caught(&path, "read rows", typed, || page::size_bytes(&trees.pages))?,
        };
        live_bytes = Some(now);
        Ok(Stored { written_bytes: written, live_bytes: now })
    })
}

/// What the thread of the store writes to.
struct Trees {
    pages: PageTree,
    journal: sled::Tree,
}

impl Trees {
    /// Stores rows of the journal, and then how far the journal is stored: after a crash in between all of
    /// them are stored once more.
    fn store(
        &mut self,
        path: &Path,
        batches: &[&[u8]],
        number: u64,
    ) -> Result<Exchanged, StoreError> {
        caught(path, "write rows", typed, || {
            // Each page by itself, because a batch of sled keeps all that it replaces in RAM until its
            // end. The journal makes them whole, and sled keeps their order.
            let changes = newest(batches.iter().flat_map(|rows| Rows(rows)));
            let exchanged = page::store(&mut self.pages, &changes)?;
            self.journal.insert(STORED, &number.to_be_bytes())?;
            self.pages.sync()?;
            Ok(exchanged)
        })
    }
}

/// Refuses rows that an older program has put into sled's own tree.
fn check_format(path: &Path, db: &sled::Db) -> Result<(), StoreError> {
    let row = caught(path, "read a row", typed, || db.get(key::FORMAT))?;
    if let Some(row) = row {
        let found = format_of(&row).map_err(|what| StoreError::corrupt(path, what))?;
        let (path, known) = (path.to_owned(), key::FORMAT_VERSION);
        return Err(StoreError::FormatVersion { path, found, known });
    }
    if caught(path, "read a row", typed, || db.first())?.is_some() {
        let what = "sled has rows that are not ours".to_owned();
        return Err(StoreError::Foreign { path: path.to_owned(), what });
    }
    Ok(())
}

/// A crash while sled writes a snapshot leaves this file, which it may take for the newest one and
/// then call the store corrupt (sled#1527, #1533).
fn remove_torn_snapshots(path: &Path, place: &Path) -> Result<(), StoreError> {
    let io_error = |e: io::Error| StoreError::from_io(path, "remove a torn snapshot", &e);
    if !place.exists() {
        return Err(StoreError::corrupt(path, "the place of its data is gone"));
    }
    for entry in fs::read_dir(place).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(io_error)?;
        }
    }
    Ok(())
}

/// Makes durable what a killed process has left to the kernel, before sled says that it is.
fn sync_left(path: &Path, place: &Path) -> Result<(), StoreError> {
    match File::open(place.join(DATA_FILE)).and_then(|data| data.sync_data()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::from_io(path, "sync the data file", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn open_sled(path: &Path, place: &Path) -> Result<sled::Db, StoreError> {
    let mut tries = 0;
    loop {
        let opened = caught(path, "open", typed, || {
            sled::Config::new()
                .path(place)
                .segment_size(SEGMENT_BYTES)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
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
        // Corruption, bugs, and what a failpoint of a test injects.
        other => StoreError::corrupt(path, format!("could not {doing}: {other}")),
    }
}
