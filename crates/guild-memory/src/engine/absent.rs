//! What stands where a store was that has failed.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::store::{
    Durability, LargeValues, Store, StoreError, StoreStats, ValueId, Visit, WriteBatch,
};

/// Stands where a store was that is being opened again.
#[derive(Debug)]
pub(super) struct Absent(pub(super) PathBuf);

impl Absent {
    fn error<T>(&self) -> Result<T, StoreError> {
        let message = "it has failed and is not open".to_owned();
        Err(StoreError::Io { path: self.0.clone(), doing: "use it", message })
    }
}

impl Store for Absent {
    fn path(&self) -> &Path {
        &self.0
    }

    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.error()
    }

    fn scan(&self, _: Bound<&[u8]>, _: Bound<&[u8]>, _: Visit<'_>) -> Result<(), StoreError> {
        self.error()
    }

    fn apply(&mut self, _: &WriteBatch) -> Result<(), StoreError> {
        self.error()
    }

    fn sync(&mut self, _: Durability) -> Result<(), StoreError> {
        self.error()
    }

    fn large(&self) -> &dyn LargeValues {
        self
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.error()
    }
}

impl LargeValues for Absent {
    fn put(&self, _: ValueId, _: &[u8]) -> Result<(), StoreError> {
        self.error()
    }

    fn get(&self, _: ValueId) -> Result<Option<Vec<u8>>, StoreError> {
        self.error()
    }

    fn remove(&self, _: ValueId) -> Result<(), StoreError> {
        self.error()
    }

    fn list(&self) -> Result<Vec<ValueId>, StoreError> {
        self.error()
    }
}
