//! What every store must keep, checked on RAM, on sled, and with the feature `redb` on redb; also through the
//! wrapper with which other tests let stores fail, so that what they find is not its doing.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use common::failing::Failing;
use guild_memory::Durability;
use guild_memory::store::{Crash, RamDisk, RamStore, SledStore, Store, ValueId, WriteBatch};

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

type Open<'a> = Box<dyn Fn() -> Box<dyn Store> + 'a>;

/// What opens each store that lasts, in a directory or on a disk in RAM.
fn lasting<'a>(disk: &'a RamDisk, directory: &'a Path) -> Vec<Open<'a>> {
    let wrapped = directory.join("wrapped");
    vec![
        Box::new(|| Box::new(disk.open())),
        Box::new(|| Box::new(SledStore::open(directory.join("sled")).unwrap())),
        Box::new(move || {
            Box::new(Failing::never(Box::new(SledStore::open(wrapped.clone()).unwrap())))
        }),
        #[cfg(feature = "redb")]
        Box::new(|| {
            let path = directory.join("redb");
            Box::new(guild_memory::store::RedbStore::open(path).unwrap())
        }),
    ]
}

fn on_every_store(contract: impl Fn(&mut dyn Store)) {
    contract(&mut RamStore::new());
    contract(&mut Failing::never(Box::new(RamStore::new())));
    let (disk, directory) = (RamDisk::new(), tempfile::tempdir().unwrap());
    for open in lasting(&disk, directory.path()) {
        contract(&mut *open());
    }
}

fn batch(rows: &[(&str, Option<&str>)]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (key, value) in rows {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}

fn scan(store: &dyn Store, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows {
    let mut rows = Rows::new();
    let mut each = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(from, to, &mut each).unwrap();
    rows
}

fn all(store: &dyn Store) -> Rows {
    scan(store, Bound::Unbounded, Bound::Unbounded)
}

fn row(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

#[test]
fn a_batch_is_read_back_in_key_order() {
    on_every_store(|store| {
        store.apply(&batch(&[("b", Some("2")), ("a", Some("1")), ("c", Some("3"))])).unwrap();
        assert_eq!(all(store), [row("a", "1"), row("b", "2"), row("c", "3")]);
        assert_eq!(store.get(b"b").unwrap(), Some(b"2".to_vec()));
        assert_eq!(store.get(b"x").unwrap(), None);
    });
}

#[test]
fn of_two_changes_of_one_row_the_later_one_counts() {
    on_every_store(|store| {
        store
            .apply(&batch(&[("a", Some("1")), ("a", None), ("b", None), ("b", Some("2"))]))
            .unwrap();
        assert_eq!(all(store), [row("b", "2")]);
        store.apply(&batch(&[("b", Some("3")), ("a", Some("4"))])).unwrap();
        store.apply(&batch(&[("b", None), ("nothing", None)])).unwrap();
        assert_eq!(all(store), [row("a", "4")]);
    });
}

#[test]
fn scans_keep_to_their_bounds() {
    on_every_store(|store| {
        store
            .apply(&batch(&[("a", Some("")), ("b", Some("")), ("ba", Some("")), ("c", Some(""))]))
            .unwrap();
        let keys = |from, to| -> Vec<String> {
            let rows = scan(store, from, to);
            rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
        };
        use Bound::{Excluded, Included, Unbounded};
        assert_eq!(keys(Included(b"b"), Excluded(b"c")), ["b", "ba"]);
        assert_eq!(keys(Excluded(b"b"), Included(b"c")), ["ba", "c"]);
        assert_eq!(keys(Unbounded, Included(b"a")), ["a"]);
        assert_eq!(keys(Included(b"d"), Unbounded), [""; 0]);
        assert_eq!(keys(Included(b"b"), Excluded(b"b")), [""; 0]);
    });
}

#[test]
fn a_scan_stops_when_it_is_told_to() {
    on_every_store(|store| {
        store.apply(&batch(&[("a", Some("")), ("b", Some("")), ("c", Some(""))])).unwrap();
        let mut seen = 0;
        let mut each = |_: &[u8], _: &[u8]| {
            seen += 1;
            if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.scan(Bound::Unbounded, Bound::Unbounded, &mut each).unwrap();
        assert_eq!(seen, 2);
    });
}

#[test]
fn empty_keys_values_and_batches_are_rows_like_others() {
    on_every_store(|store| {
        store.apply(&WriteBatch::default()).unwrap();
        store.apply(&batch(&[("", Some("")), ("\0", Some("zero"))])).unwrap();
        store.sync(Durability::Disk).unwrap();
        assert_eq!(all(store), [row("", ""), row("\0", "zero")]);
    });
}

#[test]
fn every_level_can_be_synced_at_any_time() {
    on_every_store(|store| {
        for level in [Durability::Memory, Durability::Process, Durability::Disk] {
            store.sync(level).unwrap();
            store.apply(&batch(&[("a", Some("1"))])).unwrap();
            store.sync(level).unwrap();
        }
        assert_eq!(store.stats().batches, 3);
        assert!(store.stats().syncs >= 2);
    });
}

#[test]
fn a_closed_store_opens_again_with_all_rows() {
    let (disk, directory) = (RamDisk::new(), tempfile::tempdir().unwrap());
    for open in lasting(&disk, directory.path()) {
        let mut store = open();
        store.apply(&batch(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
        store.close().unwrap();
        let mut store = open();
        store.apply(&batch(&[("a", None)])).unwrap();
        store.sync(Durability::Process).unwrap();
        drop(store);
        assert_eq!(all(&*open()), [row("b", "2")]);
    }
}

/// What was in the journal of a closed store is in its pages, and takes no room beside them.
#[test]
fn the_journal_of_a_closed_store_is_empty_and_what_follows_is_found_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let journals = || {
        ["journal-0", "journal-1"].map(|name| {
            std::fs::metadata(directory.path().join(name)).map(|file| file.len()).unwrap()
        })
    };
    for time in 0..3 {
        let mut store = SledStore::open(directory.path()).unwrap();
        assert_eq!(all(&store).len(), 2 * time);
        store.apply(&batch(&[(&format!("{time} closed"), Some("1"))])).unwrap();
        store.sync(Durability::Disk).unwrap();
        assert!(journals().iter().any(|bytes| *bytes > 0));
        Box::new(store).close().unwrap();
        assert_eq!(journals(), [0, 0]);
        let mut store = SledStore::open(directory.path()).unwrap();
        store.apply(&batch(&[(&format!("{time} left"), Some("1"))])).unwrap();
        store.sync(Durability::Disk).unwrap();
        // As a process that is killed leaves it: the engine has not been given the last batch.
        drop(store);
    }
}

#[test]
fn a_crash_forgets_only_what_was_not_synced() {
    let disk = RamDisk::new();
    let mut store = disk.open();
    store.apply(&batch(&[("1", Some("synced"))])).unwrap();
    store.sync(Durability::Disk).unwrap();
    store.apply(&batch(&[("2", Some("handed over"))])).unwrap();
    store.sync(Durability::Process).unwrap();
    store.apply(&batch(&[("3", Some("in RAM"))])).unwrap();

    let rows_after = |crash| all(&disk.after(crash).open()).len();
    assert_eq!(rows_after(Crash::PowerCut { batches_kept: 0 }), 1);
    assert_eq!(rows_after(Crash::Kill), 2);
    assert_eq!(rows_after(Crash::PowerCut { batches_kept: 9 }), 3);
    assert_eq!(all(&store).len(), 3);
}

#[test]
fn large_rows_never_leave_the_data_file_of_sled() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(directory.path()).unwrap();
    for round in 0..10u8 {
        let mut batch = WriteBatch::default();
        for number in 0..100u8 {
            batch.put([b'D', number], vec![round; 64 << 10]);
        }
        store.apply(&batch).unwrap();
        store.sync(Durability::Disk).unwrap();
    }
    let blobs = directory.path().join("blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[test]
fn large_values_are_kept_by_their_content_also_in_the_middle_of_a_scan() {
    on_every_store(|store| {
        let (one, two) = (vec![1; 100_000], vec![2; 200_000]);
        let (first, second) = (ValueId::of(&one), ValueId::of(&two));
        assert_eq!(store.large().get(first).unwrap(), None);
        store.large().put(first, &one).unwrap();
        store.large().put(first, &one).unwrap();
        store.large().put(second, &two).unwrap();
        let mut names = vec![first, second];
        names.sort();
        assert_eq!(store.large().list().unwrap(), names);
        store.apply(&batch(&[("row", Some("x"))])).unwrap();
        let mut seen = None;
        let mut each = |_: &[u8], _: &[u8]| {
            seen = store.large().get(first).unwrap();
            ControlFlow::Continue(())
        };
        store.scan(Bound::Unbounded, Bound::Unbounded, &mut each).unwrap();
        assert_eq!(seen, Some(one));
        store.large().remove(first).unwrap();
        store.large().remove(first).unwrap();
        assert_eq!(store.large().list().unwrap(), [second]);
    });
}
