//! The same store on redb: one file, copy-on-write B-trees, no threads of its own.
//!
//! Built with the feature `redb`. It is here to keep the seam honest: whatever the memory relies on,
//! two engines of different kinds keep. redb knows no level between RAM and the disk, so `Process`
//! costs as much as `Disk`.
#![expect(clippy::result_large_err, reason = "errors of redb become ours where they arise")]

use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableTable, TableDefinition};

use super::directory::{Directory, Leaving, REDB_FILE};
use super::ram::is_empty;
use super::{
    Durability, LargeValues, Reopen, Store, StoreError, StoreStats, Visit, WriteBatch, caught,
};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const CACHE_BYTES: usize = 64 << 20;

/// A store in a directory, kept by redb.
pub struct RedbStore {
    db: Database,
    place: PathBuf,
    stats: StoreStats,
    /// Bytes of all keys and values.
    live_bytes: u64,
    is_marked: bool,
    leaving: Leaving,
    /// Last field: unlocked after redb has let go.
    directory: Directory,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens the store in a directory; makes both when the directory is absent or empty.
    ///
    /// # Errors
    /// As [`super::SledStore::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_in(Directory::lock(path.as_ref(), false)?)
    }

    pub(super) fn open_in(directory: Directory) -> Result<Self, StoreError> {
        let place = directory.place()?;
        let is_marked = directory.is_marked();
        if is_marked && !place.join(REDB_FILE).exists() {
            return Err(StoreError::corrupt(directory.path(), "the data file is gone"));
        }
        let db = match open_redb(directory.path(), &place) {
            Err(StoreError::Corrupt { what, .. }) if !is_marked => {
                let path = directory.path().display();
                tracing::warn!(%path, what, "store was never finished; made anew");
                directory.remove_unfinished()?;
                open_redb(directory.path(), &place)?
            }
            opened => opened?,
        };
        let store = Self::with(db, place, is_marked, directory)?;
        if is_marked && store.has_no_row()? {
            let what = "rows were stored here, and the data file holds none of them";
            return Err(StoreError::corrupt(store.directory.path(), what));
        }
        if !is_marked {
            store.directory.sync_place(&store.place)?;
        }
        Ok(store)
    }

    /// Opens an empty store at another place of a directory than the current one.
    pub(super) fn open_at(directory: Directory, place: PathBuf) -> Result<Self, StoreError> {
        let db = open_redb(directory.path(), &place)?;
        Self::with(db, place, true, directory)
    }

    fn with(
        db: Database,
        place: PathBuf,
        is_marked: bool,
        directory: Directory,
    ) -> Result<Self, StoreError> {
        let live_bytes = caught(directory.path(), "read rows", typed, || {
            // Reading a table that was never written is an error, so it is made at once.
            let transaction = db.begin_write()?;
            transaction.open_table(ROWS)?;
            transaction.commit()?;
            let mut bytes = 0;
            for row in db.begin_read()?.open_table(ROWS)?.iter()? {
                let (key, value) = row?;
                bytes += size_bytes(key.value(), value.value());
            }
            Ok(bytes)
        })?;
        let (stats, leaving) = (StoreStats::default(), Leaving::default());
        Ok(Self { db, place, stats, live_bytes, is_marked, leaving, directory })
    }

    fn has_no_row(&self) -> Result<bool, StoreError> {
        self.guarded("read rows", || {
            let rows = self.db.begin_read()?.open_table(ROWS)?;
            Ok(rows.first()?.is_none())
        })
    }

    fn guarded<T>(
        &self,
        doing: &'static str,
        operation: impl FnOnce() -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        caught(self.directory.path(), doing, typed, operation)
    }
}

impl Store for RedbStore {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded("read a row", || {
            let rows = self.db.begin_read()?.open_table(ROWS)?;
            Ok(rows.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<(), StoreError> {
        if is_empty(from, to) {
            return Ok(());
        }
        self.guarded("read rows", || {
            let rows = self.db.begin_read()?.open_table(ROWS)?;
            for row in rows.range::<&[u8]>((from, to))? {
                let (key, value) = row?;
                if each(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut live_bytes = self.live_bytes;
        self.guarded("write rows", || {
            let mut transaction = self.db.begin_write()?;
            transaction.set_durability(redb::Durability::None);
            let mut rows = transaction.open_table(ROWS)?;
            for (key, value) in batch.rows() {
                let replaced = match value {
                    Some(value) => rows.insert(key, value)?,
                    None => rows.remove(key)?,
                };
                live_bytes += value.map_or(0, |value| size_bytes(key, value));
                live_bytes -= replaced.map_or(0, |old| size_bytes(key, old.value()));
            }
            drop(rows);
            Ok(transaction.commit()?)
        })?;
        self.live_bytes = live_bytes;
        self.stats.batches += 1;
        Ok(())
    }

    fn sync(&mut self, level: Durability) -> Result<(), StoreError> {
        if level == Durability::Memory {
            return Ok(());
        }
        self.guarded("sync", || {
            let mut transaction = self.db.begin_write()?;
            transaction.set_durability(redb::Durability::Immediate);
            Ok(transaction.commit()?)
        })?;
        self.stats.syncs += 1;
        if !self.is_marked && !self.has_no_row()? {
            self.directory.mark()?;
            self.is_marked = true;
        }
        Ok(())
    }

    fn large(&self) -> &dyn LargeValues {
        &self.directory
    }

    fn stats(&self) -> StoreStats {
        let size_bytes = self.place.join(REDB_FILE).metadata().map_or(0, |file| file.len());
        StoreStats { size_bytes, ..self.stats }
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.directory.disk_bytes(&self.place)
    }

    fn live_bytes(&self) -> Option<u64> {
        Some(self.live_bytes)
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
        self.sync(Durability::Disk)
    }
}

fn size_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

fn open_redb(path: &Path, place: &Path) -> Result<Database, StoreError> {
    caught(path, "open", typed, || {
        let file = place.join(REDB_FILE);
        Ok(Database::builder().set_cache_size(CACHE_BYTES).create(file)?)
    })
}

fn typed(path: &Path, doing: &'static str, error: redb::Error) -> StoreError {
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_owned(), pid: None },
        redb::Error::Io(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::from_io(path, doing, &error)
        }
        other => StoreError::corrupt(path, format!("could not {doing}: {other}")),
    }
}
