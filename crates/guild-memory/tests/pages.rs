//! Rows in pages on sled: whatever is written, removed and reopened, the store holds what a map would hold.
//!
//! The pages themselves, and crashes between any two writes of them, are tested beside
//! `src/store/page.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeBounds};
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
    rows_between(store, from, Bound::Unbounded, usize::MAX)
}

/// Returns the first rows of a range.
fn rows_between(
    store: &SledStore,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    rows_max: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut each = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        if rows.len() < rows_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    store.scan(from, to, &mut each).unwrap();
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

/// Megabytes of pages, and changes all over them that sled has not been given yet: a scan waits until it has.
#[test]
fn scans_see_the_changes_that_wait_wherever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let key = |row: usize| format!("{row:05}").into_bytes();
    let mut store = SledStore::open(folder.path()).unwrap();
    let (mut batch, mut model) = (WriteBatch::default(), Map::new());
    for row in 0..5_000 {
        batch.put(key(row), [1; 1_000]);
        model.insert(key(row), vec![1; 1_000]);
    }
    store.apply(&batch).unwrap();
    let mut store = reopen(store, folder.path(), true);
    let mut batch = WriteBatch::default();
    for row in 0..5_000 {
        let (key, new) = (key(row), [key(row).as_slice(), b"+"].concat());
        match row % 7 {
            0 => {
                batch.delete(key.clone());
                model.remove(&key);
            }
            1 => {
                batch.put(key.clone(), b"changed");
                model.insert(key, b"changed".to_vec());
            }
            2 => {
                batch.put(new.clone(), b"new");
                model.insert(new, b"new".to_vec());
            }
            _ => {}
        }
    }
    for outside in ["", "z"] {
        batch.put(outside, b"outside");
        model.insert(outside.into(), b"outside".to_vec());
    }
    store.apply(&batch).unwrap();

    let ends = [0, 1, 1_234, 2_500, 4_999, 6_000].map(key);
    let mut froms = vec![Bound::Unbounded];
    froms.extend(ends.iter().map(|key| Bound::Included(&**key)));
    froms.extend(ends.iter().map(|key| Bound::Excluded(&**key)));
    for (from, to) in froms.iter().flat_map(|from| froms.iter().map(move |to| (*from, *to))) {
        let is_within = |key: &[u8]| RangeBounds::<[u8]>::contains(&(from, to), key);
        let wanted = model.iter().filter(|(key, _)| is_within(key));
        for rows_max in [1, 3_000, usize::MAX] {
            let found = rows_between(&store, from, to, rows_max);
            let mut wanted = wanted.clone().take(rows_max);
            let is_next = |(key, value): &(Vec<u8>, Vec<u8>)| wanted.next() == Some((key, value));
            let is_same = found.iter().all(is_next) && wanted.next().is_none();
            assert!(is_same, "{from:?} to {to:?}, at most {rows_max}: {} rows", found.len());
        }
    }
}

/// The mark of a copy is not put off by what comes later, also where the last number in the journal is that
/// of no rows.
#[test]
fn what_is_stored_up_to_a_mark_stays_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(folder.path()).unwrap();
    let each = &mut |_: &[u8], _: &[u8]| ControlFlow::Continue(());
    let mut batch = WriteBatch::default();
    batch.put("row", "value");
    for _ in 0..3 {
        store.apply(&batch).unwrap();
        store.get(b"row").unwrap();
        store.sync(Durability::Disk).unwrap();
        let mark = store.mark();
        for _ in 0..2 {
            let (from, to) = (Bound::Unbounded, Bound::Unbounded);
            assert!(store.scan_stored(mark, from, to, each).unwrap());
            store.apply(&batch).unwrap();
        }
        let mark = store.mark();
        while !store.scan_stored(mark, Bound::Unbounded, Bound::Unbounded, each).unwrap() {
            std::thread::yield_now();
        }
        store = reopen(store, folder.path(), true);
    }
}
