//! Random transactions and crashes against a serial model: a `BTreeMap`.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;

use common::World;
use guild_memory::store::{Crash, RamDisk};
use guild_memory::{CommitError, Transaction};
use proptest::prelude::*;

type Model = BTreeMap<String, i64>;

#[derive(Clone, Debug)]
enum Step {
    /// A session starts over.
    Begin(usize),
    Get(usize, u8),
    Scan(usize, u8, usize),
    Put(usize, u8, i64),
    Add(usize, u8, i64),
    Delete(usize, u8),
    Commit(usize),
    Crash,
}

const SESSIONS: usize = 3;

fn key(number: u8) -> String {
    format!("{}/{}", number / 4, number % 4)
}

fn step() -> impl Strategy<Value = Step> {
    let (session, number) = (0..SESSIONS, 0..8u8);
    prop_oneof![
        2 => session.clone().prop_map(Step::Begin),
        4 => (session.clone(), number.clone()).prop_map(|(s, k)| Step::Get(s, k)),
        3 => (session.clone(), 0..3u8, 0..4usize).prop_map(|(s, p, n)| Step::Scan(s, p, n)),
        4 => (session.clone(), number.clone(), -9..9i64).prop_map(|(s, k, v)| Step::Put(s, k, v)),
        3 => (session.clone(), number.clone(), -9..9i64).prop_map(|(s, k, v)| Step::Add(s, k, v)),
        3 => (session.clone(), number).prop_map(|(s, k)| Step::Delete(s, k)),
        4 => session.prop_map(Step::Commit),
        1 => Just(Step::Crash),
    ]
}

/// One session: the real transaction beside what it saw and did, to be replayed at its commit.
struct Session {
    real: Transaction,
    /// The model as of the snapshot, with the session's own writes.
    view: Model,
    log: Vec<(Step, Vec<(String, i64)>)>,
}

impl Session {
    fn new(world: &World, model: &Model) -> Self {
        Self { real: world.begin(), view: model.clone(), log: Vec::new() }
    }

    fn run(&mut self, step: Step) {
        let seen = perform(&mut self.view, &step);
        let real = match &step {
            Step::Get(_, k) => {
                let value = self.real.get::<i64>(key(*k)).unwrap();
                value.map(|value| (key(*k), value)).into_iter().collect()
            }
            Step::Scan(_, prefix, limit) => {
                self.real.scan_prefix::<i64>(scan_prefix(*prefix), *limit).unwrap()
            }
            Step::Put(_, k, value) => {
                self.real.put(key(*k), value).unwrap();
                Vec::new()
            }
            Step::Add(_, k, value) => {
                self.real.add(key(*k), *value).unwrap();
                Vec::new()
            }
            Step::Delete(_, k) => {
                self.real.delete(key(*k));
                Vec::new()
            }
            Step::Begin(_) | Step::Commit(_) | Step::Crash => unreachable!(),
        };
        assert_eq!(real, seen, "{step:?}");
        self.log.push((step, seen));
    }

    fn writes(&self) -> bool {
        self.log
            .iter()
            .any(|(step, _)| matches!(step, Step::Put(..) | Step::Add(..) | Step::Delete(..)))
    }
}

/// Prefix 2 is the empty one: everything.
fn scan_prefix(prefix: u8) -> String {
    if prefix == 2 { String::new() } else { format!("{prefix}/") }
}

/// Runs a step on the model and returns what it sees.
fn perform(model: &mut Model, step: &Step) -> Vec<(String, i64)> {
    match step {
        Step::Get(_, k) => {
            model.get_key_value(&key(*k)).map(|(k, v)| (k.clone(), *v)).into_iter().collect()
        }
        Step::Scan(_, prefix, limit) => {
            let prefix = scan_prefix(*prefix);
            let rows = model.range((Bound::Included(prefix.clone()), Bound::Unbounded));
            let rows = rows.filter(|(key, _)| key.starts_with(&prefix)).take(*limit);
            rows.map(|(key, value)| (key.clone(), *value)).collect()
        }
        Step::Put(_, k, value) => {
            model.insert(key(*k), *value);
            Vec::new()
        }
        Step::Add(_, k, value) => {
            *model.entry(key(*k)).or_default() += value;
            Vec::new()
        }
        Step::Delete(_, k) => {
            model.remove(&key(*k));
            Vec::new()
        }
        Step::Begin(_) | Step::Commit(_) | Step::Crash => Vec::new(),
    }
}

/// What is accepted must be what the same session, run alone at the moment of its commit, would see
/// and do. What is refused must have a reason: it would have seen something else (or something
/// that was changed and changed back, which versions tell apart and values do not).
fn commit(world: &mut World, model: &mut Model, touched: &[u64], session: Session) -> bool {
    let writes = session.writes();
    let mut replayed = model.clone();
    let same = session.log.iter().all(|(step, seen)| perform(&mut replayed, step) == *seen);
    let read_at = { session.real.into_parts() };
    let now = world.now();
    let result = world.memory.transact(now, read_at);
    world.memory.seal();
    match result {
        Ok(_) if !writes => false,
        Ok(_) => {
            assert!(same, "accepted, but it is not serialisable");
            *model = replayed;
            true
        }
        Err(CommitError::Conflict(conflict)) => {
            let unchanged = touched.iter().all(|version| *version <= conflict.read_at.0);
            assert!(!unchanged, "refused, but nothing has changed: {conflict}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_transactions_and_crashes_are_serial(steps in prop::collection::vec(step(), 1..120)) {
        let mut disk = RamDisk::new();
        let mut world = World::on(&disk);
        let mut model = Model::new();
        let mut touched = Vec::new();
        let mut sessions: Vec<_> = (0..SESSIONS).map(|_| Session::new(&world, &model)).collect();
        for step in steps {
            match step {
                Step::Begin(s) => sessions[s] = Session::new(&world, &model),
                Step::Commit(s) => {
                    let fresh = Session::new(&world, &model);
                    let session = std::mem::replace(&mut sessions[s], fresh);
                    if commit(&mut world, &mut model, &touched, session) {
                        touched.push(world.memory.snapshots().latest().version().0);
                    }
                    sessions[s] = Session::new(&world, &model);
                }
                Step::Crash => {
                    world.memory.barrier().unwrap();
                    disk = disk.after(Crash::PowerCut { batches_kept: 0 });
                    world = World::on(&disk);
                    sessions = (0..SESSIONS).map(|_| Session::new(&world, &model)).collect();
                }
                Step::Get(s, _) | Step::Scan(s, ..) | Step::Put(s, ..) | Step::Add(s, ..)
                | Step::Delete(s, _) => sessions[s].run(step),
            }
            prop_assert_eq!(world.values(), model.clone().into_iter().collect::<Vec<_>>());
        }
    }
}
