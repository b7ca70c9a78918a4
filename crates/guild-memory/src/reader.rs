//! Reads a store that no guild has open: for `guild status`, `events`, `incidents` and `memory`.
//!
//! It takes the same lock and makes the same checks as a guild that starts, but writes no row and
//! starts no epoch; only [`append`] does.

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use guild_core::event::{Event, EventRecord};
use guild_core::id::BootEpoch;
use guild_core::limits::Limits;
use guild_core::time::Timestamp;

use crate::committer::Commits;
use crate::key;
use crate::memory::{Memory, OpenError};
use crate::names::NameTable;
use crate::record::{Assembler, decode_group};
use crate::recovery::{Loaded, RecoveredRun, load_without_log};
use crate::snapshot::Snapshot;
use crate::store::{self, Durability, Store, StoreError};

/// Everything in a store; holds its lock.
#[derive(Debug)]
pub struct StoreView {
    store: Box<dyn Store>,
    loaded: Loaded,
    names: NameTable,
    snapshot: Snapshot,
}

/// Reads the store in a directory.
///
/// # Errors
/// See [`StoreError`]; `Missing` when there is none, `Locked` while a process uses it.
pub fn read(path: impl AsRef<Path>) -> Result<StoreView, StoreError> {
    StoreView::of(store::open_existing(path)?)
}

/// What a store costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows of all kinds.
    pub rows: u64,
    /// Bytes of the keys and values of all rows, and of the large values that they refer to.
    pub live_bytes: u64,
    /// Bytes of all files of the store, as [`Store::disk_bytes`] counts them.
    pub disk_bytes: u64,
}

impl Size {
    /// Returns the bytes on the disk for each live one.
    pub fn disk_per_live_byte(&self) -> f64 {
        self.disk_bytes as f64 / self.live_bytes.max(1) as f64
    }
}

/// Adds an event to the log of the store in a directory, as its newest; durable when this returns.
///
/// # Errors
/// The store cannot be used, or another process uses it; it is unchanged then.
pub fn append(path: impl AsRef<Path>, event: Event) -> Result<(), OpenError> {
    let store = store::open_existing(path)?;
    let commits = Commits::OnThread(Box::new(|| {}));
    let (mut memory, recovered) =
        Memory::open(Some(store), Durability::Disk, Limits::default(), commits)?;
    memory.record(recovered.last_at, event);
    Ok(memory.close()?)
}

impl StoreView {
    /// Counts all rows, and measures all files.
    ///
    /// # Errors
    /// The engine cannot read the rows, or the files cannot be listed.
    pub fn size(&self) -> Result<Size, StoreError> {
        let (live_bytes, disk_bytes) = (self.store.large().size_bytes()?, self.store.disk_bytes()?);
        let mut size = Size { rows: 0, live_bytes, disk_bytes };
        self.store.scan(Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            size.rows += 1;
            size.live_bytes += (key.len() + value.len()) as u64;
            ControlFlow::Continue(())
        })?;
        Ok(size)
    }

    /// Reads an open store.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn of(store: Box<dyn Store>) -> Result<Self, StoreError> {
        let mut loaded = load_without_log(&*store)?;
        let (names, snapshot) = (loaded.names(), loaded.data.snapshot());
        Ok(Self { store, loaded, names, snapshot })
    }

    /// Returns where the store is.
    pub fn path(&self) -> &Path {
        self.store.path()
    }

    /// Returns the number of the format of the rows; a store of another one is not read.
    pub fn format_version(&self) -> u32 {
        key::FORMAT_VERSION
    }

    /// Returns the last start of a guild on this store; none: there was none.
    pub fn epoch(&self) -> Option<BootEpoch> {
        self.loaded.epoch
    }

    /// Returns all runs, by id.
    pub fn runs(&self) -> &[RecoveredRun] {
        &self.loaded.runs
    }

    /// Returns the names of everything.
    pub fn names(&self) -> &NameTable {
        &self.names
    }

    /// Returns the shared memory.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns the sequence number of the newest event; 0: there is none.
    pub fn last_seq(&self) -> u64 {
        self.loaded.last_seq
    }

    /// Returns when the newest event happened.
    pub fn last_at(&self) -> Timestamp {
        self.loaded.last_at
    }

    /// Returns the events from a sequence number on, in order. Reads group by group.
    pub fn events(&self, from_seq: u64) -> Events<'_> {
        let next = key::events(0);
        Events { store: &*self.store, from_seq, next, group: Vec::new().into_iter() }
    }
}

/// The events of a store, in order; see [`StoreView::events`].
#[derive(Debug)]
pub struct Events<'a> {
    store: &'a dyn Store,
    from_seq: u64,
    /// Where the next group begins, at the earliest; empty: at the end.
    next: Vec<u8>,
    group: std::vec::IntoIter<EventRecord>,
}

impl Events<'_> {
    /// Reads the next group; false at the end.
    fn read_group(&mut self) -> Result<bool, StoreError> {
        let corrupt = |what| StoreError::corrupt(self.store.path(), format!("events: {what}"));
        let mut assembler = Assembler::default();
        let mut found = Ok(None);
        let to = [key::EVENTS + 1];
        self.store.scan(Bound::Included(&self.next), Bound::Excluded(&to), &mut |key, row| {
            match assembler.push(key, row) {
                Ok((None, _)) => ControlFlow::Continue(()),
                Ok((Some((_, content)), _)) => {
                    found = decode_group(&content).map(Some);
                    ControlFlow::Break(())
                }
                Err(what) => {
                    found = Err(what);
                    ControlFlow::Break(())
                }
            }
        })?;
        let Some((header, records)) = found.map_err(corrupt)? else {
            assembler.finish().map_err(corrupt)?;
            return Ok(false);
        };
        self.next = key::events(header.first_seq + u64::from(header.count));
        self.group = records.into_iter();
        Ok(true)
    }
}

impl Iterator for Events<'_> {
    type Item = Result<EventRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.group.next() {
                Some(record) if record.seq >= self.from_seq => return Some(Ok(record)),
                Some(_) => continue,
                None => {}
            }
            if self.next.is_empty() {
                return None;
            }
            match self.read_group() {
                Ok(true) => {}
                Ok(false) => self.next.clear(),
                Err(error) => {
                    self.next.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}
