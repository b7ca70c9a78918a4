//! One store through all that may become of it, on each engine: rewritten, restored, moved to another
//! engine and back. With the feature `redb` also on redb.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use common::World;
use common::work::{Work, open};
use guild_memory::restore::{migrate, restore, write_checkpoint};
use guild_memory::store::{self, Engine};
use guild_memory::{StoreError, reader};

const WORK: Work =
    Work { name: "engines", tasks: 2_000, group: 4, value_bytes: 4_000, keys: 50, large_every: 30 };

/// Each engine with the file by which it is known.
#[cfg(feature = "redb")]
const ENGINES: &[(Engine, &str)] = &[(Engine::Sled, "db"), (Engine::Redb, "guild.redb")];
#[cfg(not(feature = "redb"))]
const ENGINES: &[(Engine, &str)] = &[(Engine::Sled, "db")];

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn made(path: &Path, engine: Engine) -> World {
    store::create(path, engine).unwrap().close().unwrap();
    let mut world = open(path).unwrap();
    world.submit("run", WORK.tasks);
    world
}

fn work(world: &mut World, mut next: u32, groups: u32) -> u32 {
    for _ in 0..groups {
        next = WORK.complete_group(world, next).unwrap() + 1;
    }
    next
}

fn rewritten_while_working(world: &mut World, mut next: u32) -> u32 {
    let (sender, receiver) = mpsc::channel();
    world.memory.rewrite(move |result| sender.send(result).unwrap());
    loop {
        next = work(world, next, 1);
        if let Ok(result) = receiver.try_recv() {
            result.unwrap();
            return next;
        }
    }
}

fn rows(path: &Path) -> Rows {
    let store = store::open_existing(path).unwrap();
    let mut rows = Rows::new();
    let mut each = |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    store.scan(Bound::Unbounded, Bound::Unbounded, &mut each).unwrap();
    store.close().unwrap();
    rows
}

#[test]
fn a_store_on_any_engine_is_rewritten_restored_and_moved_with_all_that_it_holds() {
    for &(engine, file) in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut world = made(&path, engine);
        let next = work(&mut world, 0, 20);
        assert!(path.join(file).exists(), "{engine:?}");
        world.memory.close().unwrap();
        assert_eq!(WORK.judge(&path, Some(next - 1)), Ok(next), "{engine:?}");

        let mut world = open(&path).unwrap();
        let next = rewritten_while_working(&mut world, next);
        let next = work(&mut world, next, 5);
        world.memory.close().unwrap();
        assert!(path.join("data-1").join(file).exists() && !path.join(file).exists(), "{engine:?}");
        assert_eq!(WORK.judge(&path, Some(next - 1)), Ok(next), "{engine:?}");

        let checkpoint = write_checkpoint(&path, None).unwrap().path;
        let mut world = open(&path).unwrap();
        work(&mut world, next, 5);
        world.memory.close().unwrap();
        let aside = restore(&path, &checkpoint).unwrap().aside.unwrap();
        assert!(aside.join(file).exists() && path.join("data-2").join(file).exists());
        assert_eq!(WORK.judge(&path, Some(next - 1)), Ok(next), "{engine:?}");

        let before = rows(&path);
        for &(other, other_file) in ENGINES {
            let moved = folder.path().join(format!("{}-{}", engine.name(), other.name()));
            let back = moved.with_extension("back");
            let count = migrate(&path, &moved, other).unwrap();
            assert_eq!(count, before.len() as u64);
            assert!(moved.join(other_file).exists(), "{engine:?} to {other:?}");
            assert_eq!(migrate(&moved, &back, engine).unwrap(), count);
            assert!(back.join(file).exists(), "{other:?} to {engine:?}");
            for place in [&moved, &back] {
                assert_eq!(rows(place), before, "{engine:?} to {other:?}");
                assert_eq!(WORK.judge(place, Some(next - 1)), Ok(next), "{engine:?} to {other:?}");
            }
        }
    }
}

#[test]
fn a_damaged_store_on_any_engine_is_kept_aside_and_a_checkpoint_takes_its_place() {
    for &(engine, file) in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut world = made(&path, engine);
        let next = work(&mut world, 0, 20);
        world.memory.close().unwrap();
        write_checkpoint(&path, None).unwrap();
        let mut damaged = fs::read(path.join(file)).unwrap();
        damaged[..200].iter_mut().for_each(|byte| *byte ^= 0xff);
        fs::write(path.join(file), &damaged).unwrap();

        let world = open(&path).unwrap();
        let restored = world.recovered.restored.clone().unwrap();
        assert!(matches!(restored.reason, Some(StoreError::Corrupt { .. })), "{engine:?}");
        assert!(fs::read(restored.aside.unwrap().join(file)).unwrap() == damaged, "{engine:?}");
        assert_eq!(WORK.judge_open(&world, Some(next - 1)), Ok(next), "{engine:?}");
        world.memory.close().unwrap();
        assert_eq!(WORK.judge(&path, Some(next - 1)), Ok(next), "{engine:?}");
    }
}

/// All files below a directory, with their sizes.
fn files(path: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    found
}

#[test]
fn the_size_of_a_store_is_that_of_all_its_files() {
    for &(engine, file) in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut world = made(&path, engine);
        let next = work(&mut world, 0, 20);
        world.memory.close().unwrap();
        let of_store = |is_in: &dyn Fn(&Path) -> bool| {
            let names = ["guild.lock", "guild.used", "guild.current"].map(|name| path.join(name));
            let found = files(&path).into_iter().filter(|(file, _)| !names.contains(file));
            found.filter(|(file, _)| is_in(file)).map(|(_, bytes)| bytes).sum::<u64>()
        };
        // Opened once to read, so that opening changes nothing more.
        reader::read(&path).unwrap();
        let size = reader::read(&path).unwrap().size().unwrap();
        let values = of_store(&|file| file.starts_with(path.join("values")));
        assert_eq!(size.disk_bytes, of_store(&|_| true), "{engine:?}");
        if engine == Engine::Sled {
            let more = size.disk_bytes - values - of_store(&|found| found.ends_with(file));
            assert!(more > 0, "the journals are in it");
        }
        assert!(values > 0 && size.live_bytes > values);
        let in_rows: usize = rows(&path).iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(size.live_bytes, in_rows as u64 + values, "{engine:?}");

        // What is kept beside it is no part of it, wherever it is.
        let mut world = open(&path).unwrap();
        rewritten_while_working(&mut world, next);
        world.memory.close().unwrap();
        let checkpoint = write_checkpoint(&path, None).unwrap().path;
        restore(&path, &checkpoint).unwrap();
        reader::read(&path).unwrap();
        let size = reader::read(&path).unwrap().size().unwrap();
        let kept = |file: &Path| {
            ["checkpoints", "replaced-1"].iter().any(|name| file.starts_with(path.join(name)))
        };
        assert_eq!(size.disk_bytes, of_store(&|file| !kept(file)), "{engine:?}");
    }
}
