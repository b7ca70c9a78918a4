use std::ops::Bound;
use std::path::Path;

use super::*;
use crate::store::{LargeValues, RamDisk, RamStore, StoreStats, Visit};

/// A store that says how large it is, and whose copies take no more than they need.
#[derive(Debug)]
struct Sized {
    rows: RamStore,
    size_bytes: u64,
    live_bytes: Option<u64>,
}

impl Store for Sized {
    fn path(&self) -> &Path {
        self.rows.path()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.get(key)
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.rows.scan(from, to, each)
    }

    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.rows.apply(batch)
    }

    fn sync(&mut self, level: Durability) -> Result<(), StoreError> {
        self.rows.sync(level)
    }

    fn large(&self) -> &dyn LargeValues {
        self.rows.large()
    }

    fn stats(&self) -> StoreStats {
        StoreStats { size_bytes: self.size_bytes, ..self.rows.stats() }
    }

    fn live_bytes(&self) -> Option<u64> {
        self.live_bytes
    }

    fn sibling(&mut self) -> Result<Option<Box<dyn Store>>, StoreError> {
        let size_bytes = self.live_bytes.unwrap_or_default();
        Ok(Some(Box::new(Self { rows: RamDisk::new().open(), size_bytes, ..*self })))
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Writes a row to a store of this size, lets the engine do what it begins, and returns the size then.
fn size_after_a_write(size_bytes: u64, live_bytes: Option<u64>) -> u64 {
    let store = Sized { rows: RamDisk::new().open(), size_bytes, live_bytes };
    let mut engine = Engine::new(Box::new(store), Durability::Memory, 0);
    let mut batch = WriteBatch::default();
    batch.put("key", "value");
    engine.write(&batch, &mut |error| panic!("{error}")).unwrap();
    while engine.is_copying() {
        engine.advance();
    }
    assert_eq!(engine.store.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    engine.store.stats().size_bytes
}

#[test]
fn a_store_is_rewritten_when_it_takes_four_times_what_it_holds() {
    let live = REWRITE_BYTES_MIN;
    let bound = AMPLIFICATION_MAX * live;
    assert_eq!(size_after_a_write(bound, Some(live)), bound);
    assert_eq!(size_after_a_write(bound + 1, Some(live)), live);
    assert_eq!(size_after_a_write(bound + 1, None), bound + 1, "nobody knows what it holds");
    assert_eq!(size_after_a_write(REWRITE_BYTES_MIN - 1, Some(1)), REWRITE_BYTES_MIN - 1);
}

#[test]
fn a_store_that_is_large_even_when_it_is_new_is_not_rewritten_time_and_again() {
    let (rows, size_bytes) = (RamDisk::new().open(), REWRITE_BYTES_MIN);
    let store = Sized { rows, size_bytes, live_bytes: Some(1) };
    let mut engine = Engine::new(Box::new(store), Durability::Memory, 0);
    engine.rewritten_at_bytes = REWRITE_BYTES_MIN - 1;
    engine.watch_size();
    assert!(!engine.is_copying());
    engine.rewritten_at_bytes = REWRITE_BYTES_MIN / 2;
    engine.watch_size();
    assert!(engine.is_copying());
}
