//! A disk that fails when it is told to.

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_memory::store::{
    Crash, LargeValues, RamDisk, RamStore, Store, StoreStats, ValueId, Visit, WriteBatch,
};
use guild_memory::{Durability, StoreError};

/// How the disk fails the next time it is written to; the store above it is given up then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing is written.
    BeforeWrite,
    /// Everything is written and synced, and an error is reported all the same.
    AfterSync,
    /// Everything is written and nothing is synced.
    Unsynced,
    /// There is no room left.
    Full,
}

/// A simulated disk; every clone is the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ram: RamDisk,
    fault: Option<DiskFault>,
}

impl Disk {
    /// Opens the store on the disk.
    pub(super) fn open(&self) -> Box<dyn Store> {
        let inner = self.state().ram.open();
        Box::new(FailingStore { disk: self.clone(), inner })
    }

    /// Makes the next write fail, and all that follow until the process ends.
    pub fn fail(&self, fault: DiskFault) {
        self.state().fault = Some(fault);
    }

    /// Becomes what this crash leaves of it; a store that is still open writes into the void.
    pub(super) fn crash(&self, crash: Crash) {
        let mut state = self.state();
        state.ram = state.ram.after(crash);
        state.fault = None;
    }

    /// Returns how many batches a power cut could still lose.
    pub fn unsynced_batches(&self) -> usize {
        self.state().ram.unsynced_batches()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct FailingStore {
    disk: Disk,
    inner: RamStore,
}

impl FailingStore {
    fn refuse(&self, doing: &'static str) -> StoreError {
        let message = "injected error of the disk".to_owned();
        StoreError::Io { path: self.path().to_owned(), doing, message }
    }
}

impl Store for FailingStore {
    fn path(&self) -> &Path {
        Path::new("(simulated disk)")
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.inner.scan(from, to, each)
    }

    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let fault = self.disk.state().fault;
        match fault {
            Some(DiskFault::BeforeWrite) => Err(self.refuse("write rows")),
            Some(DiskFault::Full) => {
                Err(StoreError::DiskFull { path: self.path().to_owned(), doing: "write rows" })
            }
            Some(DiskFault::AfterSync | DiskFault::Unsynced) | None => self.inner.apply(batch),
        }
    }

    fn sync(&mut self, level: Durability) -> Result<(), StoreError> {
        let fault = self.disk.state().fault;
        match fault {
            None => self.inner.sync(level),
            Some(DiskFault::AfterSync) => {
                self.inner.sync(Durability::Disk)?;
                Err(self.refuse("sync"))
            }
            Some(_) => Err(self.refuse("sync")),
        }
    }

    fn large(&self) -> &dyn LargeValues {
        self
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Box::new(self.inner).close()
    }
}

impl LargeValues for FailingStore {
    fn put(&self, id: ValueId, value: &[u8]) -> Result<(), StoreError> {
        match self.disk.state().fault {
            Some(DiskFault::BeforeWrite | DiskFault::Full) => Err(self.refuse("write a value")),
            Some(DiskFault::AfterSync | DiskFault::Unsynced) | None => {
                self.inner.large().put(id, value)
            }
        }
    }

    fn get(&self, id: ValueId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.large().get(id)
    }

    fn remove(&self, id: ValueId) -> Result<(), StoreError> {
        self.inner.large().remove(id)
    }

    fn list(&self) -> Result<Vec<ValueId>, StoreError> {
        self.inner.large().list()
    }
}
