//! A store that fails on command.

use std::ops::Bound;
use std::path::Path;

use guild_memory::store::{LargeValues, Store, StoreStats, Visit, WriteBatch};
use guild_memory::{Durability, StoreError};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    Apply,
    Sync,
    Panic,
}

/// Fails with the n-th call of `apply` or `sync`.
#[derive(Debug)]
pub(crate) struct Failing {
    inner: Box<dyn Store>,
    fault: Fault,
    /// Calls until the fault.
    calls_left: u64,
}

impl Failing {
    /// Wraps a store that fails after so many good calls.
    pub(crate) fn after(calls_left: u64, fault: Fault, inner: Box<dyn Store>) -> Self {
        Self { inner, fault, calls_left }
    }

    /// Wraps a store without a fault.
    pub(crate) fn never(inner: Box<dyn Store>) -> Self {
        Self::after(u64::MAX, Fault::Apply, inner)
    }

    fn due(&mut self) -> bool {
        let left = self.calls_left;
        self.calls_left = left.saturating_sub(1);
        left == 0
    }

    fn error(&self) -> StoreError {
        StoreError::DiskFull { path: self.path().to_owned(), doing: "write rows" }
    }
}

impl Store for Failing {
    fn path(&self) -> &Path {
        self.inner.path()
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

    fn mark(&self) -> u64 {
        self.inner.mark()
    }

    fn scan_stored(
        &self,
        mark: u64,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<bool, StoreError> {
        self.inner.scan_stored(mark, from, to, each)
    }

    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        if self.fault != Fault::Sync && self.due() {
            assert_ne!(self.fault, Fault::Panic, "the engine panics");
            return Err(self.error());
        }
        self.inner.apply(batch)
    }

    fn sync(&mut self, level: Durability) -> Result<(), StoreError> {
        if self.fault == Fault::Sync && self.due() {
            return Err(self.error());
        }
        self.inner.sync(level)
    }

    fn large(&self) -> &dyn LargeValues {
        self.inner.large()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.inner.disk_bytes()
    }

    fn live_bytes(&self) -> Option<u64> {
        self.inner.live_bytes()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.close()
    }
}
