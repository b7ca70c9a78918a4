//! Knows which large values rows refer to, so that a file is removed with its last reference.
//!
//! A value is referred to while some state that can still be read has it: the newest one, or an
//! earlier one of the history.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::{DataRow, ValueRow};
use crate::snapshot::{Entry, Key};
use crate::store::{Store, StoreError, ValueId, WriteBatch};

/// Larger values would leave sled's pages (see `store/sled.rs`).
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;

/// A block of a checkpoint takes no more (see `checkpoint.rs`).
pub(crate) const STORED_BYTES_MAX: usize = 1 << 30;

/// How many entries refer to each large value.
#[derive(Debug, Default)]
pub(crate) struct References(BTreeMap<ValueId, u64>);

impl References {
    /// Names the value of a new entry if it is too large for a row, and stores it.
    pub(crate) fn add(&mut self, entry: &mut Entry, batch: &mut WriteBatch) {
        if entry.value.len() <= INLINE_BYTES_MAX {
            return;
        }
        let id = ValueId::of(&entry.value);
        entry.large = Some(Arc::new(id));
        let count = self.0.entry(id).or_default();
        *count += 1;
        if *count == 1 {
            batch.put_large(id, entry.value.clone());
        }
    }

    /// Forgets an entry that no state has any more, and its value with the last one.
    pub(crate) fn remove(&mut self, entry: &Entry, batch: &mut WriteBatch) {
        let Some(id) = &entry.large else {
            return;
        };
        let Some(count) = self.0.get_mut(&**id) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&**id);
            batch.remove_large(**id);
        }
    }

    /// Returns the values of a store that nothing refers to.
    pub(crate) fn orphans(&self, store: &dyn Store) -> Result<Vec<ValueId>, StoreError> {
        let mut orphans = store.large().list()?;
        orphans.retain(|id| !self.0.contains_key(id));
        Ok(orphans)
    }
}

/// Makes entries out of rows: reads each large value once and counts who refers to it.
pub(crate) struct Entries<'a> {
    store: &'a dyn Store,
    known: BTreeMap<ValueId, Bytes>,
    references: References,
}

impl<'a> Entries<'a> {
    pub(crate) fn of(store: &'a dyn Store) -> Self {
        Self { store, known: BTreeMap::new(), references: References::default() }
    }

    pub(crate) fn entry(
        &mut self,
        key: Key,
        row: DataRow<'_>,
        checksum: u32,
    ) -> Result<Entry, String> {
        let (value, large) = match row.value {
            ValueRow::Inline(value) => (value.to_vec().into(), None),
            ValueRow::Large(id) => (self.large(id)?, Some(Arc::new(id))),
        };
        Ok(Entry { key, value, version: row.version, writer: row.writer, large, checksum })
    }

    /// Returns how many of the entries that were made refer to each large value.
    pub(crate) fn into_references(self) -> References {
        self.references
    }

    fn large(&mut self, id: ValueId) -> Result<Bytes, String> {
        *self.references.0.entry(id).or_default() += 1;
        if let Some(value) = self.known.get(&id) {
            return Ok(value.clone());
        }
        let value = self.store.large().get(id).map_err(|error| error.to_string())?;
        let value = value.ok_or_else(|| format!("the file of the large value {id} is missing"))?;
        if ValueId::of(&value) != id {
            return Err(format!("the file of the large value {id} holds something else"));
        }
        let value = Bytes::from(value);
        self.known.insert(id, value.clone());
        Ok(value)
    }
}
