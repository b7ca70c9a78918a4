//! Values that are too large for a row: files that live exactly as long as something refers to them.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::fs;

use common::World;
use guild_core::id::CommitVersion;
use guild_core::limits::Limits;
use guild_memory::store::{Crash, RamDisk, SledStore};
use guild_memory::{CommitError, Durability, OpenError, StoreError, Violation};

const LARGE: usize = 100_000;

fn put(world: &mut World, key: &str, letter: u8, bytes: usize) {
    let mut t = world.begin();
    t.put_bytes(key, vec![letter; bytes]);
    world.commit(t).unwrap();
}

fn files(disk: &RamDisk) -> usize {
    let mut count = 0;
    disk.tamper_large(|values| count = values.len());
    count
}

fn value(world: &World, key: &str) -> Vec<u8> {
    world.memory.snapshots().latest().get(key.as_bytes()).unwrap().value.to_vec()
}

#[test]
fn a_large_value_is_one_file_however_often_it_is_put() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    put(&mut world, "small", b's', 64 << 10);
    put(&mut world, "one", b'x', LARGE);
    put(&mut world, "two", b'x', LARGE);
    put(&mut world, "other", b'y', LARGE);
    world.memory.barrier().unwrap();
    assert_eq!(files(&disk), 2);
    disk.tamper(|rows| assert!(rows.values().all(|row| row.len() < 70_000)));

    let world = World::on(&disk.after(Crash::PowerCut { batches_kept: 0 }));
    assert_eq!(value(&world, "two"), vec![b'x'; LARGE]);
    assert_eq!(value(&world, "other"), vec![b'y'; LARGE]);
    assert_eq!(value(&world, "small").len(), 64 << 10);
}

#[test]
fn a_file_goes_with_the_last_state_that_refers_to_it() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    put(&mut world, "one", b'x', LARGE);
    put(&mut world, "two", b'x', LARGE);
    put(&mut world, "one", b'1', 1);
    let mut t = world.begin();
    t.delete("two");
    world.commit(t).unwrap();
    world.put_all(&[("later", 1)]);
    world.memory.barrier().unwrap();
    assert_eq!(files(&disk), 1, "history still has it");
    let then = world.memory.snapshots().latest().as_of(CommitVersion(1)).unwrap();
    assert_eq!(then.get(b"one").unwrap().value, vec![b'x'; LARGE]);

    world.memory.forget_before(CommitVersion(3));
    world.memory.barrier().unwrap();
    assert_eq!(files(&disk), 1, "version 3 has `two`");
    world.memory.close().unwrap();
    let mut world = World::on(&disk);
    world.memory.forget_before(CommitVersion(4));
    world.memory.barrier().unwrap();
    assert_eq!(files(&disk), 0);
    put(&mut world, "one", b'x', LARGE);
    world.memory.barrier().unwrap();
    assert_eq!(files(&disk), 1, "it can come back");
    world.memory.close().unwrap();
    assert_eq!(value(&World::on(&disk), "one").len(), LARGE);
}

#[test]
fn what_a_crash_has_left_over_is_removed_at_the_next_open() {
    let disk = RamDisk::new();
    World::on(&disk).memory.close().unwrap();
    let other = RamDisk::new();
    let mut world = World::on(&other);
    put(&mut world, "one", b'x', LARGE);
    world.memory.barrier().unwrap();
    // As if the file had been written, and the power had gone before the commit.
    let mut orphans = Default::default();
    other.tamper_large(|values| orphans = values.clone());
    disk.tamper_large(|values| *values = orphans);
    assert_eq!(files(&disk), 1);
    let world = World::on(&disk);
    assert_eq!((files(&disk), world.values()), (0, vec![]));
}

#[test]
fn a_damaged_or_missing_file_is_named() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    put(&mut world, "one", b'x', LARGE);
    world.memory.close().unwrap();
    let refused = |disk: &RamDisk| match World::open(Some(Box::new(disk.open())), Durability::Disk)
    {
        Err(OpenError::Store(error @ StoreError::Corrupt { .. })) => error.to_string(),
        Ok(_) => panic!("it was opened"),
        Err(error) => panic!("{error}"),
    };
    disk.tamper_large(|values| values.values_mut().for_each(|value| value[7] ^= 1));
    assert!(refused(&disk).contains("holds something else"));
    disk.tamper_large(|values| values.clear());
    assert!(refused(&disk).contains("is missing"));
}

#[test]
fn large_values_have_limits_of_their_own() {
    let mut limits = Limits::default();
    limits.value_bytes_max = 3 * LARGE;
    let mut world = World::with_limits(limits);
    let put_many = |world: &mut World, count: usize, bytes: usize| {
        let mut t = world.begin();
        (0..count).for_each(|number| t.put_bytes(number.to_string(), vec![b'x'; bytes]));
        world.commit(t)
    };
    put_many(&mut world, 3, LARGE).unwrap();
    match put_many(&mut world, 4, LARGE) {
        Err(CommitError::Invalid(Violation::LargeValuesTooLarge { bytes, bytes_max })) => {
            assert_eq!((bytes, bytes_max), (4 * LARGE, 3 * LARGE));
        }
        other => panic!("{other:?}"),
    }
    let refused = put_many(&mut world, 1, 3 * LARGE + 1);
    assert!(matches!(refused, Err(CommitError::Invalid(Violation::ValueTooLarge { .. }))));
    assert_eq!(world.memory.snapshots().latest().len(), 3);
}

#[test]
fn on_disk_they_are_files_beside_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let open = || World::open(Some(Box::new(SledStore::open(&path).unwrap())), Durability::Disk);
    let mut world = open().unwrap();
    put(&mut world, "one", b'x', LARGE);
    put(&mut world, "one", b'y', LARGE);
    world.memory.close().unwrap();
    let count = || fs::read_dir(path.join("values")).unwrap().count();
    assert_eq!(count(), 2);
    fs::write(path.join("values/left.draft"), "half").unwrap();
    let mut world = open().unwrap();
    assert_eq!(value(&world, "one"), vec![b'y'; LARGE]);
    world.memory.forget_before(CommitVersion(2));
    world.put_all(&[("two", 2)]);
    world.memory.forget_before(CommitVersion(3));
    world.memory.close().unwrap();
    assert_eq!(count(), 1);
    let blobs = fs::read_dir(path.join("blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "sled syncs none of its own");
    fs::remove_dir_all(path.join("values")).unwrap();
    assert!(matches!(open(), Err(OpenError::Store(StoreError::Corrupt { .. }))));
}
