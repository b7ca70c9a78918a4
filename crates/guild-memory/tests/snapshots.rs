//! Snapshots that are held while the memory changes: each shows its version, to every thread, and what
//! no snapshot shows is gone.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use common::World;
use guild_core::id::CommitVersion;
use guild_core::limits::Limits;
use guild_memory::{Snapshot, Snapshots, Transaction};
use proptest::prelude::*;

type Model = BTreeMap<String, i64>;

/// Some are kept in place, some on the heap.
fn key(number: u8) -> String {
    let tail = if number.is_multiple_of(3) { "/a-key-that-is-longer-than-others" } else { "" };
    format!("{}/{number:02}{tail}", number / 8)
}

const KEYS: u8 = 24;

#[derive(Clone, Debug)]
enum Step {
    /// One commit: puts and removals.
    Commit(Vec<(u8, Option<i64>)>),
    DeleteRange(u8, u8),
    /// Publishes what was committed.
    Seal,
    Hold,
    /// Drops one of the snapshots that are held.
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..KEYS, prop::option::weighted(0.7, -9..9i64));
    prop_oneof![
        6 => prop::collection::vec(change, 1..6).prop_map(Step::Commit),
        1 => (0..KEYS, 0..KEYS).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        3 => Just(Step::Seal),
        3 => Just(Step::Hold),
        3 => (0..8usize).prop_map(Step::Drop),
    ]
}

/// Compares all ways to read a snapshot with the state that it should show.
fn shows(snapshot: &Snapshot, model: &Model) {
    let number = |bytes: &Bytes| serde_json::from_slice::<i64>(bytes).unwrap();
    for place in 0..KEYS {
        let entry = snapshot.get(key(place).as_bytes());
        let found = entry.map(|entry| number(&entry.value));
        assert_eq!(found, model.get(&key(place)).copied(), "{}", key(place));
    }
    assert_eq!((snapshot.len(), snapshot.is_empty()), (model.len(), model.is_empty()));
    for prefix in ["", "0/", "1/", "2/16", "9"] {
        let entries = snapshot.scan(prefix.as_bytes());
        let found: Vec<(String, i64)> = entries
            .map(|entry| (String::from_utf8(entry.key().to_vec()).unwrap(), number(&entry.value)))
            .collect();
        let rows = model.iter().filter(|(key, _)| key.starts_with(prefix));
        let expected: Vec<_> = rows.map(|(key, value)| (key.clone(), *value)).collect();
        assert_eq!(found, expected, "`{prefix}`");
    }
    let mut transaction = Transaction::begin(snapshot.clone());
    let rows = transaction.scan::<i64>(key(3)..key(19), usize::MAX).unwrap();
    let expected = model.range(key(3)..key(19)).map(|(key, value)| (key.clone(), *value));
    assert_eq!(rows, expected.collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_snapshot_shows_its_version_whatever_comes_after(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::volatile();
        let mut model = Model::new();
        // What is visible, and the state at every version.
        let mut sealed = Model::new();
        let mut states = vec![Model::new()];
        let mut held: Vec<(Snapshot, Model)> = Vec::new();
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    let mut transaction = Transaction::begin(world.memory.snapshots());
                    for (place, value) in changes {
                        match value {
                            Some(value) => {
                                transaction.put(key(place), &value).unwrap();
                                model.insert(key(place), value);
                            }
                            None => {
                                transaction.delete(key(place));
                                model.remove(&key(place));
                            }
                        }
                    }
                    let now = world.now();
                    let version = world.memory.transact(now, transaction.into_parts()).unwrap();
                    states.resize(version.0 as usize, states.last().unwrap().clone());
                    states.push(model.clone());
                }
                Step::DeleteRange(from, to) => {
                    let mut transaction = Transaction::begin(world.memory.snapshots());
                    transaction.delete_range(key(from)..key(to));
                    model.retain(|other, _| *other < key(from) || *other >= key(to));
                    let now = world.now();
                    let version = world.memory.transact(now, transaction.into_parts()).unwrap();
                    states.resize(version.0 as usize + 1, model.clone());
                }
                Step::Seal => {
                    world.memory.seal();
                    sealed = model.clone();
                }
                Step::Hold => held.push((world.memory.snapshots().latest(), sealed.clone())),
                Step::Drop(place) => {
                    if place < held.len() {
                        held.swap_remove(place);
                    }
                }
            }
            shows(&world.memory.snapshots().latest(), &sealed);
            for (snapshot, model) in &held {
                shows(snapshot, model);
            }
        }
        for (snapshot, _) in &held {
            for version in 0..=snapshot.version().0 {
                let then = snapshot.as_of(CommitVersion(version)).unwrap();
                shows(&then, &states[version as usize]);
                let half = CommitVersion(version / 2);
                shows(&then.as_of(half).unwrap(), &states[half.0 as usize]);
            }
        }
    }
}

const ACCOUNTS: i64 = 50;
const READERS: usize = 3;

fn account(number: i64) -> String {
    format!("accounts/{:02}", number % ACCOUNTS)
}

/// Sums up the accounts of the newest snapshot, and of one that was held for a while, until it is over.
fn audit(snapshots: &Snapshots, looks: &AtomicUsize, is_over: &AtomicBool, holds: usize) {
    let mut held = snapshots.latest();
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..holds {
            let number = |bytes: &Bytes| serde_json::from_slice::<i64>(bytes).unwrap();
            let scanned: i64 = held.scan(b"accounts/").map(|entry| number(&entry.value)).sum();
            let value = |of: i64| held.value::<i64>(account(of)).unwrap().unwrap_or(0);
            let read: i64 = (0..ACCOUNTS).map(value).sum();
            assert_eq!((scanned, read), (100 * ACCOUNTS, 100 * ACCOUNTS));
            looks.fetch_add(1, Ordering::Relaxed);
        }
        held = snapshots.latest();
    }
}

#[test]
fn threads_that_read_while_one_writes_see_whole_commits() {
    let mut world = World::volatile();
    let mut transaction = world.begin();
    for number in 0..ACCOUNTS {
        transaction.put(account(number), &100).unwrap();
    }
    world.commit(transaction).unwrap();
    let (snapshots, is_over) = (world.memory.snapshots(), AtomicBool::new(false));
    let looks = [const { AtomicUsize::new(0) }; READERS];
    std::thread::scope(|scope| {
        let audit = |reader: usize| audit(&snapshots, &looks[reader], &is_over, 1 + 4 * reader);
        let readers: Vec<_> =
            (0..READERS).map(|reader| scope.spawn(move || audit(reader))).collect();
        let goes_on = || looks.iter().any(|looks| looks.load(Ordering::Relaxed) < 200);
        let mut number = 0;
        while goes_on() && !readers.iter().any(|reader| reader.is_finished()) {
            number += 1;
            let (from, to) = (account(number * 7), account(number * 13 + 1));
            let mut transaction = world.begin();
            let mut value = |key: &str| transaction.get::<i64>(key).unwrap().unwrap_or(0);
            let (one, other) = (value(&from), value(&to));
            if from == to {
                continue;
            }
            // Some accounts are closed.
            let amount = if number % 3 == 0 { one } else { one / 2 };
            if amount == one {
                transaction.delete(from);
            } else {
                transaction.put(from, &(one - amount)).unwrap();
            }
            transaction.put(to, &(other + amount)).unwrap();
            world.commit(transaction).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// Values that tell how many of them are still there.
struct Counted(Arc<[u8; 1]>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &*self.0
    }
}

/// A memory that keeps no history beyond its newest group, and a count of its values.
struct Kept {
    world: World,
    count: Arc<[u8; 1]>,
}

impl Kept {
    fn new() -> Self {
        let mut limits = Limits::default();
        limits.history_bytes_max = 0;
        Self { world: World::with_limits(limits), count: Arc::new(*b"1") }
    }

    /// Puts new values under keys, each in a group of its own.
    fn put(&mut self, keys: std::ops::Range<u32>) {
        for number in keys {
            let mut transaction = self.world.begin();
            let value = Bytes::from_owner(Counted(Arc::clone(&self.count)));
            transaction.put_bytes(format!("keys/{number}"), value);
            self.world.commit(transaction).unwrap();
        }
    }

    /// Returns how many values there are.
    fn values(&self) -> usize {
        Arc::strong_count(&self.count) - 1
    }
}

#[test]
fn what_was_replaced_is_released_when_no_snapshot_shows_it() {
    let mut kept = Kept::new();
    kept.put(0..100);
    let newest = 100;
    // The newest group of the history keeps what it has replaced.
    let with_history = newest + 1;
    for _ in 0..20 {
        kept.put(0..100);
        assert!(kept.values() <= with_history, "{} values of 100 keys", kept.values());
    }

    let first = kept.world.memory.snapshots().latest();
    kept.put(0..100);
    let second = kept.world.memory.snapshots().latest();
    for _ in 0..20 {
        kept.put(0..50);
    }
    // Of each key what the two show and the newest one; the first one has a history of its own.
    let histories = 2;
    assert!(kept.values() <= 100 + 100 + 50 + histories, "{} values", kept.values());
    drop(second);
    kept.put(0..1);
    assert!(kept.values() <= 100 + 100 + histories, "{} values", kept.values());
    drop(first);
    kept.put(0..1);
    assert!(kept.values() <= with_history, "{} values", kept.values());

    let mut transaction = kept.world.begin();
    transaction.delete_range("keys/"..);
    kept.world.commit(transaction).unwrap();
    kept.world.put_all(&[("other", 1)]);
    assert_eq!((kept.values(), kept.world.memory.snapshots().latest().len()), (0, 1));
}

#[test]
fn a_snapshot_that_is_held_keeps_its_own_history_and_no_later_one() {
    let mut kept = Kept::new();
    kept.put(0..10);
    let held = kept.world.memory.snapshots().latest();
    for _ in 0..50 {
        kept.put(0..10);
    }
    // What it shows, its newest commit, which has replaced nothing, and the newest state and commit.
    assert!(kept.values() <= 10 + 10 + 1, "{} values", kept.values());
    assert_eq!(held.history_size().commits, 1);
    assert_eq!(held.history("keys/9").len(), 1);
    let before = held.as_of(held.oldest()).unwrap();
    assert_eq!((before.len(), before.get(b"keys/9")), (9, None));
    drop(held);
    assert_eq!(before.scan(b"").count(), 9, "it holds what it goes back from");
    kept.put(0..1);
    assert!(kept.values() <= 9 + 10 + 2, "{} values", kept.values());
    drop(before);
    kept.put(0..1);
    assert!(kept.values() <= 10 + 1, "{} values", kept.values());
}
