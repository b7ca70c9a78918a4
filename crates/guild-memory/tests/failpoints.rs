//! sled's own failpoints: each place where it writes fails in turn, and the store comes back.
//!
//! They are switches of the whole process, so all of this is one test in a binary of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use common::World;
use common::work::{Work, open};
use guild_memory::Durability;
use guild_memory::store::{SledStore, Store, WriteBatch};

/// Enough for the journal to be handed to sled several times.
const WORK: Work = Work {
    name: "failpoints",
    tasks: 120,
    group: 4,
    value_bytes: 30_000,
    keys: 20,
    large_every: 0,
};

/// Where sled writes rows, and how many times all goes well before.
const WHILE_SERVING: [(&str, u32); 5] = [
    ("buffer write", 0),
    ("buffer write", 1),
    ("buffer write", 3),
    ("buffer write post", 0),
    ("buffer write post", 2),
];

/// What sled writes when it makes its files.
const AT_THE_FIRST_START: [&str; 3] =
    ["write_config bytes", "write_config crc", "write_config post"];

/// What it writes when it opens files that it has made. The last one takes a second such start.
const AT_A_LATER_START: [&str; 7] = [
    "snap write",
    "snap write len",
    "snap write crc",
    "snap write post",
    "snap write mv",
    "snap write mv post",
    "snap write rm old",
];

/// What it does at a start with segments that nothing is in any more.
///
/// Of sled's other points no test can count on "file truncation", which takes the last segment of the file
/// to be such a one (sled's threads decide that), nor on "segment initial free zero", which takes a torn
/// segment and a later one that has begun, as only a power cut leaves them (`power_cut`). The four of blobs
/// take a page above a quarter of a segment, which the store never writes
/// (`large_rows_never_leave_the_data_file_of_sled`).
const AT_A_START_WITH_FREE_SEGMENTS: &str = "zero garbage segment SA";

/// Has a point fail once, and insists that it was reached and what is opened says so.
fn assert_fails<T>(point: &'static str, open: impl FnOnce() -> Result<T, String>) {
    sled::fail::set(point, 1);
    let opened = open().map(|_| ());
    // A point that was reached is off.
    assert!(!sled::fail::is_active(point), "{point} was not reached: {opened:?}");
    let error = opened.expect_err(point);
    assert!(error.contains("Fail point"), "{point}: {error}");
}

fn open_memory(path: &Path) -> Result<World, String> {
    open(path).map_err(|error| error.to_string())
}

fn open_store(path: &Path) -> Result<SledStore, String> {
    SledStore::open(path).map_err(|error| error.to_string())
}

/// A store of one row, most of whose file is of rows that were removed.
fn shrunk(path: &Path) {
    let mut store = SledStore::open(path).unwrap();
    let key = |number: u32| format!("{number:05}");
    for number in 0..800 {
        let mut batch = WriteBatch::default();
        batch.put(key(number), vec![7; 60_000]);
        store.apply(&batch).unwrap();
        if number % 100 == 99 {
            // sled gets them before they are removed, however slow it is.
            store.get(b"00000").unwrap();
        }
    }
    store.sync(Durability::Disk).unwrap();
    for number in 1..800 {
        let mut batch = WriteBatch::default();
        batch.delete(key(number));
        store.apply(&batch).unwrap();
    }
    Box::new(store).close().unwrap();
}

#[test]
fn whatever_write_of_sled_fails_nothing_that_was_acknowledged_is_lost() {
    for (point, good) in WHILE_SERVING {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut world = open(&path).unwrap();
        world.submit("run", WORK.tasks);
        world.memory.barrier().unwrap();
        sled::fail::set(point, 1 << good);
        let (mut next, mut troubles) = (0, Vec::new());
        while next < WORK.tasks {
            next = WORK.complete_group(&mut world, next).unwrap() + 1;
            troubles.extend(world.memory.take_troubles());
        }
        let trouble = format!("{troubles:?}");
        assert!(trouble.contains("Fail point"), "{point} after {good}: {trouble}");
        world.memory.close().unwrap();
        WORK.judge(&path, Some(WORK.tasks - 1)).unwrap();
    }
    // A first start that fails leaves a directory that the next one can use.
    for point in AT_THE_FIRST_START {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        assert_fails(point, || open_memory(&path));
        let mut world = open(&path).unwrap();
        world.submit("run", WORK.tasks);
        let last = WORK.complete_group(&mut world, 0).unwrap();
        world.memory.close().unwrap();
        assert_eq!(WORK.judge(&path, Some(last)), Ok(WORK.group), "{point}");
    }
    // So does a later one.
    for point in AT_A_LATER_START {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut world = open(&path).unwrap();
        world.submit("run", WORK.tasks);
        let last = WORK.complete_group(&mut world, 0).unwrap();
        world.memory.close().unwrap();
        open(&path).unwrap().memory.close().unwrap();
        assert_fails(point, || open_memory(&path));
        assert_eq!(WORK.judge(&path, Some(last)), Ok(WORK.group), "{point}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    shrunk(&path);
    assert_fails(AT_A_START_WITH_FREE_SEGMENTS, || open_store(&path));
    let (store, mut rows) = (open_store(&path).unwrap(), 0);
    let mut each = |key: &[u8], value: &[u8]| {
        assert!(key == b"00000" && value == [7; 60_000]);
        rows += 1;
        ControlFlow::Continue(())
    };
    store.scan(Bound::Unbounded, Bound::Unbounded, &mut each).unwrap();
    assert_eq!(rows, 1);
}
