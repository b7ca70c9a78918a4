//! Checkpoints, the way back from them, and rewrites, all while the store serves.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::mpsc;

use common::World;
use common::work::{Work, open};
use guild_memory::checkpoint::{self, CheckpointError, CheckpointInfo};
use guild_memory::restore::{migrate, restore, write_checkpoint};
use guild_memory::store::{self, Engine};
use guild_memory::{OpenError, StoreError};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

const WORK: Work =
    Work { name: "upkeep", tasks: 2_000, group: 4, value_bytes: 4_000, keys: 50, large_every: 30 };

fn start(path: &Path) -> World {
    let mut world = open(path).unwrap();
    world.submit("run", WORK.tasks);
    world
}

/// Completes groups from `next` on until `done` says so; returns the next task.
fn work_until(world: &mut World, mut next: u32, mut done: impl FnMut(u32) -> bool) -> u32 {
    while !done(next) {
        next = WORK.complete_group(world, next).unwrap() + 1;
    }
    next
}

fn checkpoint_while_working(world: &mut World, next: u32) -> (CheckpointInfo, u32) {
    let (sender, receiver) = mpsc::channel();
    world.memory.checkpoint(move |result| sender.send(result).unwrap());
    let mut found = None;
    let next = work_until(world, next, |_| {
        found = receiver.try_recv().ok();
        found.is_some()
    });
    (found.unwrap().unwrap(), next)
}

fn damage(path: &Path) {
    let data = path.join("db");
    let mut bytes = fs::read(&data).unwrap();
    bytes[..200].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(data, bytes).unwrap();
}

#[test]
fn a_checkpoint_made_under_load_holds_all_that_was_acknowledged_before() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let mut world = start(&path);
    let next = work_until(&mut world, 0, |next| next >= 200);
    let (info, next) = checkpoint_while_working(&mut world, next);
    assert_eq!(checkpoint::verify(&info.path).unwrap(), info);
    let restored = restore(&copy, &info.path).unwrap();
    assert_eq!((restored.aside, restored.reason), (None, None));
    let held = WORK.judge(&copy, Some(199)).unwrap();
    assert!((200..=next).contains(&held), "{held}");
    world.memory.close().unwrap();
}

#[test]
fn a_store_that_does_not_open_is_kept_aside_and_a_checkpoint_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = start(&path);
    let next = work_until(&mut world, 0, |next| next >= 40);
    let (_, next) = checkpoint_while_working(&mut world, next);
    let (newest, next) = checkpoint_while_working(&mut world, next);
    let next = work_until(&mut world, next, |reached| reached >= next + 40);
    let epoch = world.recovered.epoch;
    world.memory.close().unwrap();
    damage(&path);
    // The newest checkpoint is damaged too: the one before must do.
    let whole = fs::read(&newest.path).unwrap();
    fs::write(&newest.path, &whole[..whole.len() - 9]).unwrap();

    let world = open(&path).unwrap();
    let restored = world.recovered.restored.clone().unwrap();
    assert!(matches!(restored.reason, Some(StoreError::Corrupt { .. })));
    assert!(restored.checkpoint.path < newest.path);
    assert!(restored.aside.unwrap().join("db").exists(), "the damaged data is kept");
    let held = WORK.judge_open(&world, Some(39)).unwrap();
    assert!(held < next);
    assert!(world.recovered.epoch > epoch, "old tokens do not come again");
    world.memory.close().unwrap();
    assert_eq!(WORK.judge(&path, Some(held - 1)), Ok(held));
}

/// The damaged data gets second names before the checkpoint takes its place, and its lasting name after.
#[test]
fn a_crash_in_the_middle_of_a_restore_never_loses_the_damaged_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = start(&path);
    let next = work_until(&mut world, 0, |next| next >= 40);
    world.memory.close().unwrap();
    write_checkpoint(&path, None).unwrap();
    damage(&path);
    let damaged = fs::read(path.join("db")).unwrap();
    let (kept, unsettled) = (path.join("damaged-1"), path.join("damaged-1.for-data-1"));
    // A crash before the switch: some files have second names.
    fs::create_dir(&unsettled).unwrap();
    fs::hard_link(path.join("db"), unsettled.join("db")).unwrap();
    let world = open(&path).unwrap();
    assert!(world.recovered.restored.is_some());
    assert!(fs::read(kept.join("db")).unwrap() == damaged);
    assert!(kept.join("journal-0").exists() && kept.join("values").exists());
    world.memory.close().unwrap();
    // A crash just after it: the old names are still there, and nothing has its lasting name.
    fs::rename(&kept, &unsettled).unwrap();
    fs::hard_link(unsettled.join("db"), path.join("db")).unwrap();
    assert_eq!(WORK.judge(&path, Some(next - 1)), Ok(next));
    assert!(fs::read(kept.join("db")).unwrap() == damaged);
    assert!(!path.join("db").exists() && !unsettled.exists());
}

#[test]
fn without_a_checkpoint_a_damaged_store_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = start(&path);
    work_until(&mut world, 0, |next| next >= 20);
    world.memory.close().unwrap();
    let whole = fs::read(path.join("db")).unwrap();
    damage(&path);
    for _ in 0..2 {
        let error = open(&path).map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Store(StoreError::Corrupt { .. })), "{error}");
    }
    fs::write(path.join("db"), whole).unwrap();
    WORK.judge(&path, Some(19)).unwrap();
}

#[test]
fn a_checkpoint_that_is_damaged_foreign_or_missing_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = start(&path);
    work_until(&mut world, 0, |next| next >= 20);
    world.memory.close().unwrap();
    let good = write_checkpoint(&path, None).unwrap();
    let file = folder.path().join("other");
    let refused = |bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            fs::write(&file, bytes).unwrap();
        }
        let error = restore(&path, &file).unwrap_err();
        WORK.judge(&path, Some(19)).unwrap();
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        error
    };
    assert!(matches!(refused(None), CheckpointError::Missing { .. }));
    assert!(matches!(refused(Some(b"{}")), CheckpointError::Foreign { .. }));
    let mut bytes = fs::read(&good.path).unwrap();
    bytes[100] ^= 1;
    assert!(matches!(refused(Some(&bytes)), CheckpointError::Damaged { .. }));
    assert!(restore(folder.path().join("other"), &good.path).is_err(), "a file is no directory");
    let restored = restore(&path, &good.path).unwrap();
    assert!(restored.aside.unwrap().join("db").exists());
    WORK.judge(&path, Some(19)).unwrap();
}

/// A checkpoint as `docs/checkpoint.md` has it, with all checksums, of whatever rows.
fn forged(head: &[u8], rows: &Rows, large: &[Vec<u8>]) -> Vec<u8> {
    let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    let mut file = head.to_vec();
    let mut block = |kind: u8, content: &[u8]| {
        let checksum = crc32fast::hash(&[&[kind], content].concat()).to_le_bytes();
        file.extend([&[kind], &length(content)[..], &checksum, content].concat());
    };
    for (key, value) in rows {
        block(1, &[&[1], &length(key)[..], key, &length(value), value].concat());
    }
    large.iter().for_each(|value| block(4, value));
    block(3, &[&(rows.len() as u64).to_le_bytes()[..], b"guildend"].concat());
    file
}

#[test]
fn a_checkpoint_that_is_whole_but_holds_no_whole_memory_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("store"), folder.path().join("file"));
    let mut world = start(&path);
    work_until(&mut world, 0, |next| next >= 40);
    world.memory.close().unwrap();
    let good = write_checkpoint(&path, None).unwrap().path;
    let head = fs::read(good).unwrap()[..16].to_vec();
    let mut rows = Rows::new();
    let store = store::open_existing(&path).unwrap();
    let mut each = |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    store.scan(Bound::Unbounded, Bound::Unbounded, &mut each).unwrap();
    let names = store.large().list().unwrap().into_iter();
    let large: Vec<_> = names.map(|id| store.large().get(id).unwrap().unwrap()).collect();
    store.close().unwrap();
    assert!(rows.contains_key(&b"Dcount"[..]) && !large.is_empty());

    let stranger = Rows::from([(b"hello".to_vec(), b"world".to_vec())]);
    let (mut lacks_a_row, mut has_a_damaged_one, mut has_one_more) =
        (rows.clone(), rows.clone(), rows.clone());
    lacks_a_row.remove(&b"Dcount"[..]).unwrap();
    has_a_damaged_one.get_mut(&b"Dcount"[..]).unwrap()[2] ^= 1;
    has_one_more.insert(b"Dother".to_vec(), rows[&b"Dcount"[..]].clone());
    let cases = [
        (&stranger, &large[..]),
        (&Rows::new(), &[]),
        (&lacks_a_row, &large),
        (&has_a_damaged_one, &large),
        (&has_one_more, &large),
    ];
    for (number, (rows, large)) in cases.into_iter().enumerate() {
        fs::write(&file, forged(&head, rows, large)).unwrap();
        let told = checkpoint::verify(&file).unwrap();
        assert_eq!(told.rows, rows.len() as u64, "case {number}");
        let error = restore(&path, &file).unwrap_err();
        assert!(matches!(error, CheckpointError::Unsound { .. }), "case {number}: {error}");
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        assert_eq!(WORK.judge(&path, Some(39)), Ok(40), "case {number}");
        assert!(path.join("db").exists() && !path.join("data-1").exists(), "case {number}");
    }
    // A store has nothing but its checkpoint to take large values from, if it is new.
    fs::write(&file, forged(&head, &rows, &[])).unwrap();
    let error = restore(folder.path().join("new"), &file).unwrap_err();
    assert!(matches!(error, CheckpointError::Unsound { .. }), "{error}");
    // The forger knows his trade.
    fs::write(&file, forged(&head, &rows, &large)).unwrap();
    restore(&path, &file).unwrap();
    assert_eq!(WORK.judge(&path, Some(39)), Ok(40));
}

#[test]
fn a_store_that_another_process_uses_is_not_touched_by_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = start(&path);
    work_until(&mut world, 0, |next| next >= 20);
    let (info, _) = checkpoint_while_working(&mut world, 20);
    let error = restore(&path, &info.path).unwrap_err();
    assert!(matches!(error, CheckpointError::Store(StoreError::Locked { .. })), "{error}");
    let error = write_checkpoint(&path, None).unwrap_err();
    assert!(matches!(error, CheckpointError::Store(StoreError::Locked { .. })), "{error}");
}

#[test]
fn a_store_is_rewritten_while_it_serves_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = start(&path);
    let mut next = work_until(&mut world, 0, |next| next >= 40);
    for round in 1..=2 {
        let (sender, receiver) = mpsc::channel();
        world.memory.rewrite(move |result| sender.send(result).unwrap());
        let mut result = None;
        next = work_until(&mut world, next, |_| {
            result = receiver.try_recv().ok();
            result.is_some()
        });
        assert_eq!(result, Some(Ok(())));
        let place = path.join(format!("data-{round}"));
        assert!(place.join("db").exists());
    }
    let next = work_until(&mut world, next, |reached| reached >= next + 40);
    world.memory.close().unwrap();
    assert!(!path.join("db").exists() && !path.join("data-1").exists());
    assert_eq!(WORK.judge(&path, Some(next - 1)), Ok(next));
}

#[test]
fn the_rest_of_an_unfinished_rewrite_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = start(&path);
    work_until(&mut world, 0, |next| next >= 20);
    world.memory.close().unwrap();
    fs::create_dir(path.join("data-1")).unwrap();
    fs::write(path.join("data-1/db"), "half a copy").unwrap();
    WORK.judge(&path, Some(19)).unwrap();
    assert!(!path.join("data-1").exists());
}

#[test]
fn large_values_are_in_checkpoints_and_stay_with_data_that_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = start(&path);
    let next = work_until(&mut world, 0, |next| next >= 60);
    let (info, next) = checkpoint_while_working(&mut world, next);
    world.memory.close().unwrap();
    let count = |path: &Path| fs::read_dir(path.join("values")).unwrap().count();
    let before = count(&path);
    assert!(before >= 2, "{before}");

    let copy = folder.path().join("copy");
    restore(&copy, &info.path).unwrap();
    let held = WORK.judge(&copy, Some(59)).unwrap();
    assert!(count(&copy) > 0 && held <= next);
    let moved = folder.path().join("moved");
    migrate(&copy, &moved, Engine::Sled).unwrap();
    assert_eq!(WORK.judge(&moved, Some(59)).unwrap(), held);

    // Back to before all values: the store needs none of them, the data aside does.
    let early = folder.path().join("early");
    start(&early).memory.close().unwrap();
    let first = write_checkpoint(&early, None).unwrap();
    let aside = restore(&path, &first.path).unwrap().aside.unwrap();
    open(&path).unwrap().memory.close().unwrap();
    assert_eq!((count(&path), count(&aside)), (0, before));
}
