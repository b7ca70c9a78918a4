//! A store in RAM with a model of what a crash forgets.
//!
//! It is the store of simulations and crash tests: [`RamDisk::after`] returns the disk as a crash at
//! this moment would leave it. A guild that needs no store at all passes none (see
//! [`crate::Memory::open`]), which saves making rows that nobody reads.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Durability, LargeValues, Store, StoreError, StoreStats, ValueId, Visit, WriteBatch};

/// What happens to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: what was handed to the kernel stays.
    Kill,
    /// The power fails: what was synced stays, and this many of the batches after it.
    PowerCut {
        /// How many unsynced batches happened to reach the disk.
        batches_kept: usize,
    },
}

#[derive(Debug, Default)]
struct Disk {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    synced: BTreeMap<Vec<u8>, Vec<u8>>,
    unsynced: Vec<WriteBatch>,
    /// How many of the unsynced batches the kernel has.
    handed_over: usize,
    stats: StoreStats,
}

/// What a [`RamStore`] keeps its rows on; outlives the store.
#[derive(Clone, Debug, Default)]
pub struct RamDisk {
    disk: Arc<Mutex<Disk>>,
    /// Large values, durable as soon as they are stored. A lock of their own, because they are read
    /// in the middle of a scan.
    large: Arc<Mutex<BTreeMap<ValueId, Vec<u8>>>>,
}

impl RamDisk {
    /// Returns an empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the store on this disk.
    pub fn open(&self) -> RamStore {
        RamStore { disk: self.clone() }
    }

    /// Returns the disk as this crash would leave it now; the original goes on undisturbed.
    pub fn after(&self, crash: Crash) -> Self {
        let disk = self.lock();
        let kept = match crash {
            Crash::Kill => disk.handed_over,
            Crash::PowerCut { batches_kept } => batches_kept.min(disk.unsynced.len()),
        };
        let mut rows = disk.synced.clone();
        for batch in &disk.unsynced[..kept] {
            change(&mut rows, batch);
        }
        let disk = Disk { synced: rows.clone(), rows, ..Disk::default() };
        let large = self.values().clone();
        Self { disk: Arc::new(Mutex::new(disk)), large: Arc::new(Mutex::new(large)) }
    }

    /// Returns how many batches were applied since the last sync.
    pub fn unsynced_batches(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Changes large values behind the back of the store, as failing hardware would.
    pub fn tamper_large(&self, change: impl FnOnce(&mut BTreeMap<ValueId, Vec<u8>>)) {
        change(&mut self.values());
    }

    /// Changes rows behind the back of the store, as failing hardware would.
    pub fn tamper(&self, change: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>)) {
        let mut disk = self.lock();
        change(&mut disk.rows);
        disk.synced = disk.rows.clone();
        disk.unsynced.clear();
        disk.handed_over = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<ValueId, Vec<u8>>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LargeValues for RamDisk {
    fn put(&self, id: ValueId, value: &[u8]) -> Result<(), StoreError> {
        self.values().insert(id, value.to_vec());
        Ok(())
    }

    fn get(&self, id: ValueId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.values().get(&id).cloned())
    }

    fn remove(&self, id: ValueId) -> Result<(), StoreError> {
        self.values().remove(&id);
        Ok(())
    }

    fn list(&self) -> Result<Vec<ValueId>, StoreError> {
        Ok(self.values().keys().copied().collect())
    }
}

/// A store whose rows live as long as its [`RamDisk`].
#[derive(Debug, Default)]
pub struct RamStore {
    disk: RamDisk,
}

impl RamStore {
    /// Returns an empty store on a disk of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the disk below the store.
    pub fn disk(&self) -> RamDisk {
        self.disk.clone()
    }
}

impl Store for RamStore {
    fn path(&self) -> &Path {
        Path::new("(RAM)")
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.disk.lock().rows.get(key).cloned())
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
        for (key, value) in self.disk.lock().rows.range::<[u8], _>((from, to)) {
            if each(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut disk = self.disk.lock();
        change(&mut disk.rows, batch);
        disk.unsynced.push(batch.clone());
        disk.stats.batches += 1;
        Ok(())
    }

    fn sync(&mut self, level: Durability) -> Result<(), StoreError> {
        let mut disk = self.disk.lock();
        match level {
            Durability::Memory => {}
            Durability::Process => disk.handed_over = disk.unsynced.len(),
            Durability::Disk => {
                for batch in std::mem::take(&mut disk.unsynced) {
                    change(&mut disk.synced, &batch);
                }
                disk.handed_over = 0;
                disk.stats.syncs += 1;
            }
        }
        Ok(())
    }

    fn large(&self) -> &dyn LargeValues {
        &self.disk
    }

    fn stats(&self) -> StoreStats {
        let disk = self.disk.lock();
        let size = disk.rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        StoreStats { size_bytes: size as u64, ..disk.stats }
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        self.sync(Durability::Disk)
    }
}

fn change(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &WriteBatch) {
    for (key, value) in batch.rows() {
        match value {
            Some(value) => rows.insert(key.to_vec(), value.to_vec()),
            None => rows.remove(key),
        };
    }
}

/// `BTreeMap::range` panics on a range that is upside down; a store just finds nothing there.
pub(super) fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
    }
}
