use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

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

/// A store whose engine gets batches later than they are applied.
#[derive(Debug)]
struct Late {
    rows: RamStore,
    engine: RamStore,
    waiting: VecDeque<WriteBatch>,
    applied: u64,
}

impl Late {
    fn change(&mut self, batch: WriteBatch) {
        self.rows.apply(&batch).unwrap();
        self.waiting.push_back(batch);
        self.applied += 1;
    }

    fn catch_up(&mut self, batches: usize) {
        for batch in self.waiting.drain(..batches.min(self.waiting.len())) {
            self.engine.apply(&batch).unwrap();
        }
    }
}

impl Store for Late {
    fn path(&self) -> &Path {
        self.rows.path()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.get(key)
    }

    fn scan(&self, _: Bound<&[u8]>, _: Bound<&[u8]>, _: Visit<'_>) -> Result<(), StoreError> {
        unreachable!("a copy waits for no engine")
    }

    fn mark(&self) -> u64 {
        self.applied
    }

    fn scan_stored(
        &self,
        mark: u64,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: Visit<'_>,
    ) -> Result<bool, StoreError> {
        let has_all = self.applied - self.waiting.len() as u64 >= mark;
        if has_all { self.engine.scan(from, to, each).map(|()| true) } else { Ok(false) }
    }

    fn apply(&mut self, _: &WriteBatch) -> Result<(), StoreError> {
        unreachable!("it is changed by the test")
    }

    fn sync(&mut self, _: Durability) -> Result<(), StoreError> {
        Ok(())
    }

    fn large(&self) -> &dyn LargeValues {
        self.rows.large()
    }

    fn stats(&self) -> StoreStats {
        self.rows.stats()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

fn all(store: &dyn Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut each = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(Bound::Unbounded, Bound::Unbounded, &mut each).unwrap();
    rows
}

/// Rows to put or to delete, as numbers; some of them have no key.
fn changes() -> impl Strategy<Value = Vec<(u8, bool)>> {
    vec((any::<u8>(), any::<bool>()), 1..30)
}

fn batch_of(changes: &[(u8, bool)], fill: u8) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (number, is_put) in changes {
        let key: &[u8] = if *number == 0 { &[] } else { &[*number] };
        if *is_put { batch.put(key, vec![fill; 20_000]) } else { batch.delete(key) }
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Slices, changes and what the engine gets of them, in any order.
    #[test]
    fn a_copy_is_whole_wherever_changes_are_while_it_is_made(
        before in vec(changes(), 0..8),
        during in vec((changes(), 0..3usize, 0..3usize), 0..20),
    ) {
        let [rows, engine, copied] = [(); 3].map(|()| RamDisk::new().open());
        let mut store = Late { rows, engine, waiting: VecDeque::new(), applied: 0 };
        for (fill, changes) in before.iter().enumerate() {
            store.change(batch_of(changes, fill as u8));
        }
        store.catch_up(before.len() / 2);
        let mut copy = Copy::of(&store, Target::Rewrite(Box::new(copied), None));
        let mut progress = Progress::NotYet;
        for (fill, (changes, stored, slices)) in during.iter().enumerate() {
            let batch = batch_of(changes, 100 + fill as u8);
            copy.follow(&batch).unwrap();
            store.change(batch);
            store.catch_up(*stored);
            for _ in 0..*slices {
                if progress != Progress::Complete {
                    progress = copy.next_slice(&store).unwrap();
                }
            }
            if progress == Progress::Complete {
                break;
            }
        }
        store.catch_up(usize::MAX);
        while progress != Progress::Complete {
            progress = copy.next_slice(&store).unwrap();
            prop_assert!(progress != Progress::NotYet);
        }
        let Target::Rewrite(copied, _) = copy.target else { unreachable!() };
        prop_assert_eq!(all(&*copied), all(&store.rows));
    }
}
