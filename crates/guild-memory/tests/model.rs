//! Random transactions and crashes against a serial model: a `BTreeMap`.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;

use common::World;
use guild_memory::store::{Crash, RamDisk};
use guild_memory::{CommitError, Savepoint, Transaction, TransactionError};
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
    /// Takes from a key what may leave nothing below zero.
    Take(usize, u8, i64),
    /// From one key on and below another.
    DeleteRange(usize, u8, u8),
    ScanRange(usize, u8, u8, usize),
    Savepoint(usize),
    /// Back to the newest savepoint.
    Rollback(usize),
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
        3 => (session.clone(), number.clone()).prop_map(|(s, k)| Step::Delete(s, k)),
        3 => (session.clone(), number.clone(), -9..9i64).prop_map(|(s, k, v)| Step::Take(s, k, v)),
        1 => (session.clone(), number.clone(), number.clone())
            .prop_map(|(s, a, b)| Step::DeleteRange(s, a, b)),
        2 => (session.clone(), number.clone(), number, 0..4usize)
            .prop_map(|(s, a, b, n)| Step::ScanRange(s, a, b, n)),
        1 => session.clone().prop_map(Step::Savepoint),
        1 => session.clone().prop_map(Step::Rollback),
        4 => session.prop_map(Step::Commit),
        1 => Just(Step::Crash),
    ]
}

/// What a session sees: the model with its own writes, now and at each savepoint.
#[derive(Clone)]
struct View {
    now: Model,
    saved: Vec<Model>,
}

impl View {
    fn of(model: &Model) -> Self {
        Self { now: model.clone(), saved: Vec::new() }
    }
}

/// One session: the real transaction beside what it saw and did, to be replayed at its commit.
struct Session {
    real: Transaction,
    savepoints: Vec<Savepoint>,
    view: View,
    log: Vec<(Step, Vec<(String, i64)>)>,
}

impl Session {
    fn new(world: &World, model: &Model) -> Self {
        let (real, view) = (world.begin(), View::of(model));
        Self { real, savepoints: Vec::new(), view, log: Vec::new() }
    }

    fn run(&mut self, step: Step) {
        let seen = perform(&mut self.view, &step);
        let real = self.run_real(&step);
        assert_eq!(real, seen, "{step:?}");
        self.log.push((step, seen));
    }

    fn run_real(&mut self, step: &Step) -> Vec<(String, i64)> {
        let nothing = Vec::new();
        match step {
            Step::Get(_, k) => {
                let value = self.real.get::<i64>(key(*k)).unwrap();
                return value.map(|value| (key(*k), value)).into_iter().collect();
            }
            Step::Scan(_, prefix, limit) => {
                return self.real.scan_prefix(scan_prefix(*prefix), *limit).unwrap();
            }
            Step::ScanRange(_, from, to, limit) => {
                return self.real.scan(key(*from)..key(*to), *limit).unwrap();
            }
            Step::Put(_, k, value) => self.real.put(key(*k), value).unwrap(),
            Step::Add(_, k, value) => self.real.add(key(*k), *value).unwrap(),
            Step::Take(_, k, amount) => match self.real.add_at_least(key(*k), *amount, 0) {
                Ok(()) => {}
                Err(TransactionError::BelowFloor { .. }) => return refused(),
                Err(error) => panic!("{error}"),
            },
            Step::Delete(_, k) => self.real.delete(key(*k)),
            Step::DeleteRange(_, from, to) => self.real.delete_range(key(*from)..key(*to)),
            Step::Savepoint(_) => self.savepoints.push(self.real.savepoint()),
            Step::Rollback(_) => {
                if let Some(savepoint) = self.savepoints.last() {
                    self.real.rollback_to(*savepoint).unwrap();
                }
            }
            Step::Begin(_) | Step::Commit(_) | Step::Crash => unreachable!(),
        }
        nothing
    }
}

/// What a session sees that could not take.
fn refused() -> Vec<(String, i64)> {
    vec![("refused".into(), 0)]
}

/// Prefix 2 is the empty one: everything.
fn scan_prefix(prefix: u8) -> String {
    if prefix == 2 { String::new() } else { format!("{prefix}/") }
}

/// Runs a step on the model and returns what it sees.
fn perform(view: &mut View, step: &Step) -> Vec<(String, i64)> {
    let model = &mut view.now;
    match step {
        Step::Get(_, k) => {
            return model
                .get_key_value(&key(*k))
                .map(|(k, v)| (k.clone(), *v))
                .into_iter()
                .collect();
        }
        Step::Scan(_, prefix, limit) => {
            let prefix = scan_prefix(*prefix);
            let rows = model.range((Bound::Included(prefix.clone()), Bound::Unbounded));
            let rows = rows.filter(|(key, _)| key.starts_with(&prefix)).take(*limit);
            return rows.map(|(key, value)| (key.clone(), *value)).collect();
        }
        Step::ScanRange(_, from, to, limit) => {
            let rows = model.iter().filter(|(k, _)| **k >= key(*from) && **k < key(*to));
            return rows.take(*limit).map(|(key, value)| (key.clone(), *value)).collect();
        }
        Step::Put(_, k, value) => {
            model.insert(key(*k), *value);
        }
        Step::Add(_, k, value) => *model.entry(key(*k)).or_default() += value,
        Step::Take(_, k, amount) => {
            let value = model.get(&key(*k)).copied().unwrap_or(0);
            if value + amount < 0 {
                return refused();
            }
            model.insert(key(*k), value + amount);
        }
        Step::Delete(_, k) => {
            model.remove(&key(*k));
        }
        Step::DeleteRange(_, from, to) => {
            model.retain(|k, _| *k < key(*from) || *k >= key(*to));
        }
        Step::Savepoint(_) => view.saved.push(view.now.clone()),
        Step::Rollback(_) => {
            if let Some(saved) = view.saved.last() {
                view.now = saved.clone();
            }
        }
        Step::Begin(_) | Step::Commit(_) | Step::Crash => {}
    }
    Vec::new()
}

/// What is accepted must be what the same session, run alone at the moment of its commit, would see
/// and do. What is refused must have a reason: it would have seen something else (or something
/// that was changed and changed back, which versions tell apart and values do not).
fn commit(world: &mut World, model: &mut Model, touched: &[u64], session: Session) -> bool {
    let mut replayed = View::of(model);
    let same = session.log.iter().all(|(step, seen)| perform(&mut replayed, step) == *seen);
    let parts = session.real.into_parts();
    let writes = parts.writes() > 0;
    let now = world.now();
    let result = world.memory.transact(now, parts);
    world.memory.seal();
    let read_at = match result {
        Ok(_) if !writes => return false,
        Ok(_) => {
            assert!(same, "accepted, but it is not serialisable");
            *model = replayed.now;
            return true;
        }
        Err(CommitError::Conflict(conflict)) => conflict.read_at,
        Err(CommitError::Unmet(unmet)) => unmet.read_at,
        Err(error) => panic!("{error}"),
    };
    let unchanged = touched.iter().all(|version| *version <= read_at.0);
    assert!(!unchanged, "refused, but nothing has changed since version {read_at}");
    false
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

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
                | Step::Delete(s, _) | Step::Take(s, ..) | Step::DeleteRange(s, ..)
                | Step::ScanRange(s, ..) | Step::Savepoint(s) | Step::Rollback(s) => {
                    sessions[s].run(step);
                }
            }
            prop_assert_eq!(world.values(), model.clone().into_iter().collect::<Vec<_>>());
        }
    }
}
