//! sled's own failpoints: each place where it writes fails in turn, and the store comes back.
//!
//! They are switches of the whole process, so all of this is one test in a binary of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use common::work::{Work, open};

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

/// What sled writes when it opens.
const AT_OPEN: [&str; 10] = [
    "write_config bytes",
    "write_config crc",
    "write_config post",
    "snap write",
    "snap write len",
    "snap write crc",
    "snap write post",
    "snap write mv",
    "snap write mv post",
    "zero garbage segment SA",
];

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
    for point in AT_OPEN {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        // A first start that fails leaves a directory that the next one can use.
        sled::fail::set(point, 1);
        drop(open(&path));
        sled::fail::reset();
        let mut world = open(&path).unwrap();
        world.submit("run", WORK.tasks);
        let last = WORK.complete_group(&mut world, 0).unwrap();
        world.memory.close().unwrap();
        // So does a later one, which may need several tries.
        sled::fail::set(point, 0b111);
        drop(open(&path));
        sled::fail::reset();
        assert_eq!(WORK.judge(&path, Some(last)), Ok(WORK.group), "{point}");
    }
}
