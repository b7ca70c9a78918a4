//! Damaged, foreign and busy stores: an error that says what and where, never wrong rows, no panic.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::work::open as on_sled;
use common::{World, task};
use guild_core::event::Event;
use guild_memory::reader;
use guild_memory::store::RamDisk;
use guild_memory::{Durability, OpenError, StoreError};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn store_error(result: Result<World, OpenError>) -> StoreError {
    match result {
        Err(OpenError::Store(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
}

/// Some runs with completed tasks, outputs, data and a large record.
fn fill(world: &mut World, tasks: u32) {
    world.memory.intern_roles(&["worker".into()]).unwrap();
    world.submit("run", tasks);
    for number in 0..tasks {
        world.complete(task(0, number), &format!("output of {number}"));
        world.memory.seal();
    }
}

#[test]
fn every_damage_to_a_row_is_found() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    fill(&mut world, 5);
    // A group of events alone: nothing but the gap in the log would show that it is gone.
    let now = world.now();
    world.memory.record(now, Event::TaskReady { task: task(0, 4) });
    world.memory.seal();
    let mut overwrite = world.begin();
    overwrite.put("done/0/0", "newer").unwrap();
    world.memory.barrier().unwrap();
    let image = || disk.after(guild_memory::store::Crash::Kill);
    let mut old_rows = Default::default();
    image().tamper(|rows| old_rows = rows.clone());
    world.commit(overwrite).unwrap();
    world.memory.close().unwrap();
    let mut rows = Rows::new();
    disk.tamper(|all| rows = all.clone());

    let opens = |change: &dyn Fn(&mut Rows)| {
        let damaged = image();
        damaged.tamper(|rows| change(rows));
        World::open(Some(Box::new(damaged.open())), Durability::Disk)
    };
    opens(&|_| {}).unwrap();
    for key in rows.keys() {
        let name = String::from_utf8_lossy(key).into_owned();
        let flipped = store_error(opens(&|rows| rows.get_mut(key).unwrap()[2] ^= 4));
        assert!(matches!(flipped, StoreError::Corrupt { .. }), "{name}: {flipped}");
        let cut = store_error(opens(&|rows| rows.get_mut(key).unwrap().truncate(3)));
        assert!(matches!(cut, StoreError::Corrupt { .. }), "{name}: {cut}");
        let emptied = store_error(opens(&|rows| rows.get_mut(key).unwrap().clear()));
        assert!(matches!(emptied, StoreError::Corrupt { .. }), "{name}: {emptied}");
        assert!(opens(&|rows| drop(rows.remove(key))).is_err(), "{name} removed");
        let moved = opens(&|rows| {
            let row = rows.remove(key).unwrap();
            rows.insert([key.as_slice(), b"x"].concat(), row);
        });
        assert!(moved.is_err(), "{name} moved");
    }
    // A row from the past, intact in itself.
    let outdated = opens(&|rows| {
        rows.insert(b"Ddone/0/0".to_vec(), old_rows[b"Ddone/0/0".as_slice()].clone());
    });
    assert!(matches!(store_error(outdated), StoreError::Corrupt { .. }));
}

#[test]
fn a_newer_format_is_named() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    fill(&mut world, 1);
    world.memory.close().unwrap();
    disk.tamper(|rows| drop(rows.insert(b"Mformat".to_vec(), format_row(99))));
    let error = store_error(World::open(Some(Box::new(disk.open())), Durability::Disk));
    assert!(matches!(error, StoreError::FormatVersion { found: 99, .. }), "{error}");
}

/// Until format 7 rows were not in pages, but in sled's own tree.
#[test]
fn an_older_format_is_named() {
    for key in ["Mformat", "stranger"] {
        let directory = tempfile::tempdir().unwrap();
        on_sled(directory.path()).unwrap().memory.close().unwrap();
        let sled = sled::Config::new().path(directory.path()).segment_size(8 << 20);
        // It lets go of its file a little later than it is closed.
        let older = std::iter::repeat_with(|| sled.open()).find_map(Result::ok).unwrap();
        older.insert(key, format_row(7)).unwrap();
        older.flush().unwrap();
        drop(older);
        let error = store_error(on_sled(directory.path()));
        let is_named = match key {
            "Mformat" => matches!(error, StoreError::FormatVersion { found: 7, .. }),
            _ => matches!(error, StoreError::Foreign { .. }),
        };
        assert!(is_named, "{error}");
    }
}

/// Checksum over the length of the key, the key and the content, as every row has it.
fn format_row(version: u8) -> Vec<u8> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&7u64.to_le_bytes());
    hasher.update(b"Mformat");
    hasher.update(&[version]);
    let mut row = hasher.finalize().to_le_bytes().to_vec();
    row.push(version);
    row
}

#[test]
fn rows_of_a_stranger_are_not_taken_for_a_store() {
    let disk = RamDisk::new();
    disk.tamper(|rows| drop(rows.insert(b"hello".to_vec(), b"world".to_vec())));
    let error = store_error(World::open(Some(Box::new(disk.open())), Durability::Disk));
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.tex"), "years of work").unwrap();
    let error = store_error(on_sled(directory.path()));
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("thesis.tex"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let file = directory.path().join("thesis.tex");
    assert!(matches!(store_error(on_sled(&file)), StoreError::Foreign { .. }));
}

#[test]
fn the_reader_makes_no_store() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("absent")] {
        let error = reader::read(&path).map(|_| ()).unwrap_err();
        assert_eq!(error, StoreError::Missing { path });
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_store_that_is_open_is_locked_and_free_again_at_once_when_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/store");
    for round in 0..2 {
        let mut world = on_sled(&path).unwrap();
        assert_eq!(world.recovered.epoch.0, round + 1);
        world.put_all(&[("round", i64::from(round))]);
        let error = store_error(on_sled(&path));
        assert_eq!(error, StoreError::Locked { path: path.clone(), pid: Some(std::process::id()) });
        assert!(reader::read(&path).is_err());
        world.memory.close().unwrap();
        let view = reader::read(&path).unwrap();
        assert_eq!(view.snapshot().get(b"round").unwrap().value, round.to_string());
    }
}

/// Every file of a store, cut or with a flipped bit at many places: either the store is refused, or
/// it opens with an intact prefix of what was written.
#[test]
fn cut_files_and_flipped_bits_never_give_wrong_rows() {
    const TASKS: u32 = 20;
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good");
    let mut world = on_sled(&good).unwrap();
    fill(&mut world, TASKS);
    world.memory.close().unwrap();
    drop(on_sled(&good).unwrap());

    let (mut refused, mut opened) = (0, 0);
    let mut check = |damaged: &Path| match on_sled(damaged) {
        Err(OpenError::Store(_)) => refused += 1,
        Err(other) => panic!("{other}"),
        Ok(world) => {
            opened += 1;
            let outputs = world.recovered.runs.first().map_or(&[][..], |run| &run.outputs);
            for (number, output) in outputs.iter().enumerate() {
                let expected = common::output(&format!("output of {number}"));
                assert!(output.as_ref().is_none_or(|output| *output == expected));
            }
            let data: Vec<(String, String)> = world.begin().scan_prefix("done/", 100).unwrap();
            assert_eq!(data.len(), outputs.iter().flatten().count());
            for (key, value) in data {
                assert_eq!(value, format!("output of {}", key.rsplit_once('/').unwrap().1));
            }
        }
    };
    let files = fs::read_dir(&good).unwrap().map(|entry| entry.unwrap());
    for file in files.filter(|entry| entry.file_type().unwrap().is_file()) {
        let content = fs::read(file.path()).unwrap();
        // The data file is sparse: damage what is used of it.
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for place in 0..8 {
            let at = used * place / 8;
            for flip in [true, false] {
                let damaged = directory.path().join("damaged");
                copy(&good, &damaged);
                let mut content = content.clone();
                match content.get_mut(at) {
                    Some(byte) if flip => *byte ^= 1 << place,
                    _ => content.truncate(at),
                }
                fs::write(damaged.join(file.file_name()), content).unwrap();
                check(&damaged);
                fs::remove_dir_all(&damaged).unwrap();
            }
        }
    }
    assert!(refused > 0 && opened > 0, "refused {refused}, opened {opened}");
}

/// The journal of a store that was killed, with a flipped bit anywhere: it is refused, or nothing that
/// was acknowledged is missing.
#[test]
fn a_flipped_bit_in_the_journal_never_drops_what_was_acknowledged() {
    const TASKS: u32 = 8;
    let directory = tempfile::tempdir().unwrap();
    let (live, killed) = (directory.path().join("live"), directory.path().join("killed"));
    let mut world = on_sled(&live).unwrap();
    world.memory.intern_roles(&["worker".into()]).unwrap();
    world.submit("run", TASKS);
    for number in 0..TASKS {
        world.complete(task(0, number), &format!("output of {number}"));
        world.memory.barrier().unwrap();
    }
    copy(&live, &killed);
    let (mut refused, mut opened) = (0, 0);
    let length = fs::metadata(killed.join("journal-0")).unwrap().len();
    for file in ["journal-0", "journal-1"] {
        let whole = fs::read(killed.join(file)).unwrap();
        for at in (0..whole.len()).step_by(length as usize / 6) {
            let damaged = directory.path().join("damaged");
            copy(&killed, &damaged);
            let mut content = whole.clone();
            content[at] ^= 1 << (at % 8);
            fs::write(damaged.join(file), content).unwrap();
            match on_sled(&damaged) {
                Err(OpenError::Store(StoreError::Corrupt { .. })) => refused += 1,
                Err(error) => panic!("{file}, byte {at}: {error}"),
                Ok(world) => {
                    opened += 1;
                    let done: Vec<(String, String)> =
                        world.begin().scan_prefix("done/", 100).unwrap();
                    assert_eq!(done.len(), TASKS as usize, "{file}, byte {at}");
                }
            }
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
    assert!(refused >= 3, "refused {refused}, opened {opened}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_store_whose_data_file_is_gone_or_unreadable_is_never_taken_for_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut world = on_sled(&path).unwrap();
    fill(&mut world, 3);
    world.memory.close().unwrap();

    let whole = fs::read(path.join("db")).unwrap();
    let mut flipped = whole.clone();
    flipped[..200].iter_mut().for_each(|byte| *byte ^= 0xff);
    for damaged in [None, Some(flipped), Some(Vec::new())] {
        match damaged {
            None => fs::remove_file(path.join("db")).unwrap(),
            Some(bytes) => fs::write(path.join("db"), bytes).unwrap(),
        }
        let error = store_error(on_sled(&path));
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        fs::write(path.join("db"), &whole).unwrap();
    }
    on_sled(&path).unwrap();
}

#[test]
fn a_torn_snapshot_file_is_removed_before_opening() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = on_sled(directory.path()).unwrap();
    world.put_all(&[("a", 1)]);
    world.memory.close().unwrap();
    let torn = directory.path().join("snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&torn, "half a snapsh").unwrap();
    assert_eq!(on_sled(directory.path()).unwrap().value("a"), Some(1));
    assert!(!torn.exists());
}

#[test]
fn a_guild_under_load_never_makes_blobs() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = on_sled(directory.path()).unwrap();
    world.submit("large", 100_000);
    for round in 0..20 {
        let mut transaction = world.begin();
        for number in 0..15 {
            let value = "x".repeat((64 << 10) - 100);
            transaction.put(format!("{number}"), &format!("{round}{value}")).unwrap();
        }
        world.commit(transaction).unwrap();
        world.memory.barrier().unwrap();
    }
    world.memory.close().unwrap();
    assert_eq!(fs::read_dir(directory.path().join("blobs")).unwrap().count(), 0);
}
