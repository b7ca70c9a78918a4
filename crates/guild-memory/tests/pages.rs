//! Rows in pages on sled: whatever is written, removed and reopened, the store holds what a map would hold.
//!
//! The pages themselves, and crashes between any two writes of them, are tested beside
//! `src/store/page.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use guild_memory::Durability;
use guild_memory::store::{SledStore, Store, WriteBatch};
use proptest::collection::vec;
use proptest::prelude::*;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What happens to the store.
#[derive(Clone, Debug)]
enum Step {
    /// Single rows are written, with values of these lengths, or removed.
    Rows(Vec<(u16, Option<usize>)>),
    /// All rows between two are written or removed.
    Range(u16, u16, Option<usize>),
    /// The store is closed, and opened again.
    Close,
    /// The store goes without a word, as when its process is killed, and is opened again.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let row = || 0..400u16;
    let length = prop_oneof![5 => (0..900usize).prop_map(Some), 1 => (0..40_000usize).prop_map(Some), 3 => Just(None)];
    let short = proptest::option::weighted(0.4, 0..900usize);
    prop_oneof![
        4 => vec((row(), length), 0..80).prop_map(Step::Rows),
        3 => (row(), row(), short).prop_map(|(from, to, length)| Step::Range(from, to, length)),
        1 => Just(Step::Close),
        2 => Just(Step::Kill),
    ]
}

fn key(row: u16) -> Vec<u8> {
    if row == 0 {
        Vec::new()
    } else {
        format!("{:02}/{}", row / 10, "k".repeat(usize::from(row % 10))).into()
    }
}

fn change(store: &mut SledStore, model: &mut Map, rows: &[(u16, Option<usize>)], fill: u8) {
    let mut batch = WriteBatch::default();
    for (row, length) in rows {
        match length {
            Some(length) => {
                let value = vec![fill; *length];
                batch.put(key(*row), &value);
                model.insert(key(*row), value);
            }
            None => {
                batch.delete(key(*row));
                model.remove(&key(*row));
            }
        }
    }
    store.apply(&batch).unwrap();
    store.sync(Durability::Disk).unwrap();
}

fn rows(store: &SledStore, from: Bound<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut each = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(from, Bound::Unbounded, &mut each).unwrap();
    rows
}

fn reopen(store: SledStore, path: &Path, closes: bool) -> SledStore {
    if closes {
        Box::new(store).close().unwrap()
    } else {
        drop(store)
    }
    SledStore::open_existing(path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_holds_what_a_map_would_hold(steps in vec(step(), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SledStore::open(folder.path()).unwrap();
        let mut model = Map::new();
        for (number, step) in steps.iter().enumerate() {
            let fill = number as u8;
            match step {
                Step::Rows(rows) => change(&mut store, &mut model, rows, fill),
                Step::Range(from, to, length) => {
                    let rows: Vec<_> = (*from..=*to).map(|row| (row, *length)).collect();
                    change(&mut store, &mut model, &rows, fill);
                }
                Step::Close => store = reopen(store, folder.path(), true),
                Step::Kill => store = reopen(store, folder.path(), false),
            }
            prop_assert!(rows(&store, Bound::Unbounded).into_iter().eq(model.clone()));
        }
        let store = reopen(store, folder.path(), true);
        prop_assert!(rows(&store, Bound::Unbounded).into_iter().eq(model.clone()));
        for row in (0..400).step_by(7) {
            let key = key(row);
            prop_assert_eq!(store.get(&key).unwrap(), model.get(&key).cloned());
            let behind = model.range((Bound::Excluded(key.clone()), Bound::Unbounded));
            let behind = behind.map(|(key, value)| (key.clone(), value.clone()));
            prop_assert!(rows(&store, Bound::Excluded(&key)).into_iter().eq(behind));
        }
    }
}
