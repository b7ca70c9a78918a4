//! Earlier versions can be read, compared and returned to, also after a restart.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;

use common::{World, task};
use guild_core::id::CommitVersion;
use guild_core::limits::Limits;
use guild_memory::store::{Crash, RamDisk};
use guild_memory::{CommitError, HistoryError, KeyRange, RollbackError, Snapshot, Transaction};
use proptest::prelude::*;

type Model = BTreeMap<String, i64>;

fn version(number: u64) -> CommitVersion {
    CommitVersion(number)
}

fn values(snapshot: &Snapshot) -> Model {
    let mut t = Transaction::begin(snapshot.clone());
    t.scan(.., usize::MAX).unwrap().into_iter().collect()
}

fn latest(world: &World) -> Snapshot {
    world.memory.snapshots().latest()
}

/// `a` is 1, 2, absent, 3 at versions 1 to 4; `b` is 9 from version 2 on.
fn story(world: &mut World) {
    world.put_all(&[("a", 1)]);
    world.put_all(&[("a", 2), ("b", 9)]);
    let mut t = world.begin();
    t.delete("a");
    world.commit(t).unwrap();
    world.put_all(&[("a", 3)]);
}

fn rollback(world: &mut World, range: KeyRange, to: u64) -> Result<CommitVersion, RollbackError> {
    let now = world.now();
    let result = world.memory.rollback(now, &range, version(to));
    world.memory.seal();
    result
}

#[test]
fn every_version_can_be_read_and_every_change_of_a_key_is_listed() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    story(&mut world);
    for restarted in [false, true] {
        if restarted {
            world.memory.close().unwrap();
            world = World::on(&disk);
        }
        let snapshot = latest(&world);
        let expected = [None, Some(1), Some(2), None, Some(3)];
        for (number, expected) in (0..).zip(expected) {
            let then = snapshot.as_of(version(number)).unwrap();
            assert_eq!(then.value::<i64>("a").unwrap(), expected, "version {number}");
            assert_eq!(then.version(), version(number));
        }
        let history = snapshot.history("a");
        let told: Vec<_> = history
            .iter()
            .map(|revision| {
                let value = revision.value.as_ref().map(|value| value.to_vec());
                (revision.version.0, value.map(|value| String::from_utf8(value).unwrap()))
            })
            .collect();
        let expected =
            [(4, Some("3".into())), (3, None), (2, Some("2".into())), (1, Some("1".into()))];
        assert_eq!(told, expected);
        assert!(history.iter().all(|revision| revision.at.is_some() && revision.writer.is_none()));
        assert_eq!(snapshot.as_of(version(2)).unwrap().history("a").len(), 2);
        assert!(snapshot.history("nothing").is_empty());
        let not_yet = HistoryError::NotYet { asked: version(5), newest: version(4) };
        assert_eq!(snapshot.as_of(version(5)).unwrap_err(), not_yet);
    }
}

#[test]
fn a_difference_has_what_is_not_the_same_in_both_directions() {
    let mut world = World::volatile();
    story(&mut world);
    let snapshot = latest(&world);
    let told = |from, to, range: KeyRange| -> Vec<(String, Option<i64>, Option<i64>)> {
        let number = |entry: Option<guild_memory::Entry>| {
            entry.map(|entry| serde_json::from_slice(&entry.value).unwrap())
        };
        let differences = snapshot.difference(version(from), version(to), &range).unwrap();
        differences
            .into_iter()
            .map(|found| (found.key, number(found.before), number(found.after)))
            .collect()
    };
    let (a, b) = (|x, y| ("a".to_owned(), x, y), |x, y| ("b".to_owned(), x, y));
    assert_eq!(told(1, 4, KeyRange::all()), [a(Some(1), Some(3)), b(None, Some(9))]);
    assert_eq!(told(4, 1, KeyRange::all()), [a(Some(3), Some(1)), b(Some(9), None)]);
    assert_eq!(told(1, 3, KeyRange::prefix("a")), [a(Some(1), None)]);
    assert_eq!(told(0, 3, KeyRange::prefix("a")), [], "it came and went");
    assert_eq!(told(2, 2, KeyRange::all()), []);
}

#[test]
fn who_wrote_what_is_in_the_history() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    world.submit("run", 2);
    let made = world.complete(task(0, 1), "text");
    world.memory.close().unwrap();
    let world = World::on(&disk);
    let history = latest(&world).history("done/0/1");
    assert_eq!(history[0].version, made);
    assert_eq!(history[0].writer.unwrap().task, task(0, 1));
}

#[test]
fn a_rollback_is_a_new_commit_of_a_range_or_of_everything() {
    let mut world = World::volatile();
    story(&mut world);
    let before = values(&latest(&world));
    assert_eq!(rollback(&mut world, KeyRange::prefix("a"), 1).unwrap(), version(5));
    assert_eq!((world.value("a"), world.value("b")), (Some(1), Some(9)));
    assert_eq!(rollback(&mut world, KeyRange::all(), 0).unwrap(), version(6));
    assert_eq!(world.values(), []);
    assert_eq!(rollback(&mut world, KeyRange::all(), 0).unwrap(), version(6), "nothing differs");
    assert_eq!(rollback(&mut world, KeyRange::all(), 4).unwrap(), version(7));
    assert_eq!(values(&latest(&world)), before, "nothing was forgotten");
    let refused = rollback(&mut world, KeyRange::all(), 8);
    assert!(matches!(refused, Err(RollbackError::History(_))), "{refused:?}");
    // Whoever has read what it changes conflicts with it as with any other commit.
    let mut t = world.begin();
    t.get::<i64>("b").unwrap();
    t.put("seen", &1).unwrap();
    rollback(&mut world, KeyRange::all(), 1).unwrap();
    assert!(matches!(world.commit(t), Err(CommitError::Conflict(_))));
}

/// A memory that keeps about four commits of one small value.
fn short_memory(disk: &RamDisk) -> World {
    let mut limits = Limits::default();
    limits.history_bytes_max = 600;
    World::on_with(disk, limits)
}

#[test]
fn what_is_beyond_the_bound_is_forgotten_and_named() {
    let disk = RamDisk::new();
    let mut world = short_memory(&disk);
    for number in 1..=20 {
        world.put_all(&[("a", number)]);
    }
    for restarted in [false, true] {
        if restarted {
            world.memory.close().unwrap();
            world = short_memory(&disk);
        }
        let snapshot = latest(&world);
        let oldest = snapshot.oldest();
        assert!(oldest > version(10) && oldest < version(20), "{oldest}");
        assert_eq!(values(&snapshot.as_of(oldest).unwrap())["a"], oldest.0 as i64);
        let asked = version(oldest.0 - 1);
        let refused = snapshot.as_of(asked).unwrap_err();
        assert_eq!(refused, HistoryError::TooOld { asked, oldest });
        assert_eq!(snapshot.commits_after(asked).map(drop).unwrap_err(), refused);
        assert_eq!(snapshot.commits_after(oldest).unwrap().count() as u64, 20 - oldest.0);
        let history = snapshot.history("a");
        let last = history.last().unwrap();
        assert_eq!((last.version, last.at), (oldest, None), "what was there before the kept part");
    }
    let mut rows = 0;
    disk.tamper(|all| rows = all.keys().filter(|key| key[0] == b'L').count() as u64);
    assert_eq!(rows, 20 - latest(&world).oldest().0, "the store has forgotten them too");
}

#[test]
fn history_is_never_cut_below_a_pinned_version() {
    let disk = RamDisk::new();
    let mut world = short_memory(&disk);
    for number in 1..=3 {
        world.put_all(&[("a", number)]);
    }
    let pin = world.memory.pins().pin(version(2)).unwrap();
    for number in 4..=20 {
        world.put_all(&[("a", number)]);
    }
    assert_eq!(world.memory.forget_before(version(20)), version(2));
    assert_eq!(values(&latest(&world).as_of(pin.version()).unwrap())["a"], 2);
    drop(pin);
    world.put_all(&[("a", 21)]);
    assert!(latest(&world).oldest() > version(10));
    let too_old = world.memory.pins().pin(version(2)).unwrap_err();
    assert!(matches!(too_old, HistoryError::TooOld { .. }));
}

#[test]
fn a_held_snapshot_keeps_its_own_history() {
    let mut world = short_memory(&RamDisk::new());
    world.put_all(&[("a", 1)]);
    world.put_all(&[("a", 2)]);
    let held = latest(&world);
    for number in 3..=20 {
        world.put_all(&[("a", number)]);
    }
    assert_eq!(values(&held.as_of(version(1)).unwrap())["a"], 1);
}

#[test]
fn what_is_forgotten_on_demand_stays_forgotten() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    story(&mut world);
    assert_eq!(world.memory.forget_before(version(2)), version(2));
    assert_eq!(world.memory.forget_before(version(9)), version(3), "the newest group stays");
    world.memory.close().unwrap();
    let world = World::on(&disk);
    assert_eq!(latest(&world).oldest(), version(3));
    assert_eq!(values(&latest(&world).as_of(version(3)).unwrap()), [("b".into(), 9)].into());
}

#[test]
fn a_transaction_may_begin_at_an_earlier_version() {
    let mut world = World::volatile();
    story(&mut world);
    let then = latest(&world).as_of(version(2)).unwrap();
    let (mut same, mut other) = (Transaction::begin(then.clone()), Transaction::begin(then));
    assert_eq!(same.get::<i64>("b").unwrap(), Some(9));
    same.put("seen", &1).unwrap();
    assert_eq!(other.get::<i64>("a").unwrap(), Some(2));
    other.put("seen", &1).unwrap();
    world.commit(same).unwrap();
    assert!(matches!(world.commit(other), Err(CommitError::Conflict(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn earlier_versions_are_as_they_were(
        commits in prop::collection::vec(
            (prop::collection::btree_map(0..5u8, prop::option::of(0..3i64), 1..4), prop::bool::weighted(0.1)),
            1..30,
        ),
        pair in (0..30usize, 0..30usize),
    ) {
        let mut disk = RamDisk::new();
        let mut world = World::on(&disk);
        let mut states = vec![Model::new()];
        for (changes, crashes) in commits {
            let mut t = world.begin();
            let mut state = states.last().unwrap().clone();
            for (key, value) in changes {
                let key = key.to_string();
                match value {
                    Some(value) => {
                        t.put(&key, &value).unwrap();
                        state.insert(key, value);
                    }
                    None => {
                        t.delete(&key);
                        state.remove(&key);
                    }
                }
            }
            prop_assert_eq!(world.commit(t).unwrap().0, states.len() as u64);
            states.push(state);
            if crashes {
                world.memory.barrier().unwrap();
                disk = disk.after(Crash::PowerCut { batches_kept: 0 });
                world = World::on(&disk);
            }
        }
        let snapshot = latest(&world);
        for (number, state) in (0..).zip(&states) {
            prop_assert_eq!(&values(&snapshot.as_of(version(number)).unwrap()), state);
        }
        let (from, to) = (pair.0 % states.len(), pair.1 % states.len());
        let told = snapshot.difference(version(from as u64), version(to as u64), &KeyRange::all());
        let mut replayed = states[from].clone();
        for difference in told.unwrap() {
            match difference.after {
                Some(entry) => {
                    let value = serde_json::from_slice(&entry.value).unwrap();
                    prop_assert_ne!(replayed.insert(difference.key, value), Some(value));
                }
                None => prop_assert!(replayed.remove(&difference.key).is_some()),
            }
        }
        prop_assert_eq!(&replayed, &states[to]);
        let now = world.now();
        world.memory.rollback(now, &KeyRange::all(), version(from as u64)).unwrap();
        world.memory.seal();
        prop_assert_eq!(&values(&latest(&world)), &states[from]);
    }
}
