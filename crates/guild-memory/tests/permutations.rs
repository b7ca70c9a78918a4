//! Every interleaving of two or three sessions, judged by running the sessions one after the other.
//!
//! A hand-written anomaly test knows one order of steps; here each program is run in all orders. What
//! committed must be what the same sessions, alone and in the order of their commits, would have seen
//! and left behind. A session that only reads is where its snapshot is. Under snapshot isolation
//! exactly the programs that tempt write skew must fail that in some order.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;

use Step::{Add, Delete, Get, Put, Scan};
use common::World;
use guild_memory::{CommitError, Isolation, Transaction};

#[derive(Clone, Copy, Debug)]
enum Step {
    Get(&'static str),
    Scan(&'static str),
    /// Puts the sum of everything that the session has seen, plus this.
    Put(&'static str, i64),
    Add(&'static str, i64),
    Delete(&'static str),
}

type Session = &'static [Step];
type Rows = BTreeMap<String, i64>;
/// What a session saw, step by step.
type Seen = Vec<Vec<(String, i64)>>;

struct Program {
    name: &'static str,
    sessions: &'static [Session],
    /// Whether snapshot isolation lets an order through that is not serial.
    is_skewed: bool,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "two withdrawals from two accounts, each covered by the sum",
        sessions: &[&[Get("a"), Get("b"), Put("a", -50)], &[Get("a"), Get("b"), Put("b", -50)]],
        is_skewed: true,
    },
    Program {
        name: "two updates of one key",
        sessions: &[&[Get("a"), Put("a", 1)], &[Get("a"), Put("a", 2)]],
        is_skewed: false,
    },
    Program {
        name: "three updates of one key",
        sessions: &[&[Get("a"), Put("a", 1)], &[Get("a"), Put("a", 2)], &[Get("a"), Put("a", 4)]],
        is_skewed: false,
    },
    Program {
        name: "two sums of a range, each added to it",
        sessions: &[&[Scan(""), Put("sum/1", 0)], &[Scan(""), Put("sum/2", 0)]],
        is_skewed: true,
    },
    Program {
        name: "a sum of a range from which another one removes",
        sessions: &[&[Scan(""), Put("sum", 0)], &[Get("a"), Delete("a"), Delete("b")]],
        is_skewed: false,
    },
    Program {
        name: "writes of two keys in opposite orders",
        sessions: &[
            &[Put("a", 1), Put("b", 1)],
            &[Put("b", 2), Put("a", 2)],
            &[Get("a"), Get("b")],
        ],
        is_skewed: false,
    },
    Program {
        name: "additions that never conflict, and one who reads them",
        sessions: &[
            &[Add("a", 1), Add("b", 1)],
            &[Add("b", 2), Add("a", 2)],
            &[Get("a"), Get("b")],
        ],
        is_skewed: false,
    },
    Program {
        name: "a transfer, and one who adds up the accounts to a new key",
        sessions: &[&[Get("a"), Put("a", -10), Add("b", 10)], &[Get("a"), Get("b"), Put("sum", 0)]],
        is_skewed: false,
    },
    Program {
        name: "three that each read what the next one writes",
        sessions: &[&[Get("b"), Put("a", 1)], &[Get("c"), Put("b", 2)], &[Get("a"), Put("c", 4)]],
        is_skewed: true,
    },
    Program {
        name: "the read-only anomaly of Fekete, O'Neil and O'Neil",
        sessions: &[
            &[Get("a"), Get("b"), Put("a", -11)],
            &[Get("b"), Put("b", 20)],
            &[Get("a"), Get("b")],
        ],
        is_skewed: true,
    },
    Program {
        name: "an absent key that two create",
        sessions: &[&[Get("new"), Put("new", 1)], &[Get("new"), Put("new", 2)]],
        is_skewed: false,
    },
];

fn start() -> Rows {
    [("a", 100), ("b", 200), ("c", 300)].map(|(key, value)| (key.to_owned(), value)).into()
}

/// Does a step in a transaction and returns what it saw.
fn perform(transaction: &mut Transaction, step: Step, sum: &mut i64) -> Vec<(String, i64)> {
    let seen = match step {
        Get(key) => {
            let value = transaction.get::<i64>(key).unwrap();
            value.map(|value| (key.to_owned(), value)).into_iter().collect()
        }
        Scan(prefix) => transaction.scan_prefix(prefix, usize::MAX).unwrap(),
        Put(key, plus) => {
            transaction.put(key, &(*sum + plus)).unwrap();
            Vec::new()
        }
        Add(key, amount) => {
            transaction.add(key, amount).unwrap();
            Vec::new()
        }
        Delete(key) => {
            transaction.delete(key);
            Vec::new()
        }
    };
    *sum += seen.iter().map(|(_, value)| value).sum::<i64>();
    seen
}

/// Does the same on the rows themselves.
fn perform_alone(rows: &mut Rows, step: Step, sum: &mut i64) -> Vec<(String, i64)> {
    let seen: Vec<(String, i64)> = match step {
        Get(key) => rows.get_key_value(key).map(|(k, v)| (k.clone(), *v)).into_iter().collect(),
        Scan(prefix) => {
            let within = rows.iter().filter(|(key, _)| key.starts_with(prefix));
            within.map(|(key, value)| (key.clone(), *value)).collect()
        }
        Put(key, plus) => {
            rows.insert(key.to_owned(), *sum + plus);
            Vec::new()
        }
        Add(key, amount) => {
            *rows.entry(key.to_owned()).or_default() += amount;
            Vec::new()
        }
        Delete(key) => {
            rows.remove(key);
            Vec::new()
        }
    };
    *sum += seen.iter().map(|(_, value)| value).sum::<i64>();
    seen
}

/// Runs the sessions in this order of steps; the last step of each is its commit. Returns whether
/// the outcome is serial, and how many sessions were refused.
fn run(sessions: &[Session], isolation: Isolation, order: &[usize]) -> (bool, usize) {
    let mut world = World::volatile();
    let rows: Vec<_> = start().into_iter().collect();
    world.put_all(&rows.iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>());
    let mut open: Vec<Option<Transaction>> = sessions.iter().map(|_| None).collect();
    let mut seen: Vec<Seen> = vec![Seen::new(); sessions.len()];
    let mut sums = vec![0; sessions.len()];
    let mut begun_at = vec![0; sessions.len()];
    let mut committed = Vec::new();
    let mut refused = 0;
    for &session in order {
        let transaction = open[session].get_or_insert_with(|| {
            begun_at[session] = committed.len();
            let mut transaction = world.begin();
            transaction.set_isolation(isolation);
            transaction
        });
        match sessions[session].get(seen[session].len()) {
            Some(step) => {
                let result = perform(transaction, *step, &mut sums[session]);
                seen[session].push(result);
            }
            None => {
                let transaction = open[session].take().unwrap();
                let only_reads = sessions[session].iter().all(|s| matches!(s, Get(_) | Scan(_)));
                match world.commit(transaction) {
                    Ok(_) if only_reads => committed.insert(begun_at[session], session),
                    Ok(_) => committed.push(session),
                    Err(CommitError::Conflict(_)) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                // What began before keeps its place behind a reader that was put before it.
                if only_reads {
                    let place = begun_at[session];
                    begun_at.iter_mut().filter(|at| **at > place).for_each(|at| *at += 1);
                }
            }
        }
    }
    let left = world.values();
    let explains = |order: &[usize]| {
        let mut alone = start();
        let same = order.iter().all(|&session| {
            let mut sum = 0;
            let mut steps = sessions[session].iter().zip(&seen[session]);
            steps.all(|(step, seen)| perform_alone(&mut alone, *step, &mut sum) == *seen)
        });
        same && left == alone.into_iter().collect::<Vec<_>>()
    };
    let is_serial = match isolation {
        Isolation::Serializable => explains(&committed),
        // It promises less: some order, not that of the commits.
        Isolation::Snapshot => {
            let mut found = false;
            let mut places = vec![1; committed.len()];
            orders(&mut places, &mut Vec::new(), &mut |order| {
                found |= explains(&order.iter().map(|at| committed[*at]).collect::<Vec<_>>());
            });
            found
        }
    };
    (is_serial, refused)
}

/// Calls `each` with every order in which the sessions can take their steps.
fn orders(left: &mut [usize], order: &mut Vec<usize>, each: &mut dyn FnMut(&[usize])) {
    if left.iter().all(|steps| *steps == 0) {
        return each(order);
    }
    for session in 0..left.len() {
        if left[session] > 0 {
            left[session] -= 1;
            order.push(session);
            orders(left, order, each);
            order.pop();
            left[session] += 1;
        }
    }
}

/// Returns how many orders there are, how many were not serial, and how many refused somebody.
fn run_all(program: &Program, isolation: Isolation) -> (usize, usize, usize) {
    let mut left: Vec<usize> = program.sessions.iter().map(|steps| steps.len() + 1).collect();
    let (mut all, mut wrong, mut refused) = (0, 0, 0);
    orders(&mut left, &mut Vec::new(), &mut |order| {
        let (is_serial, conflicts) = run(program.sessions, isolation, order);
        all += 1;
        wrong += usize::from(!is_serial);
        refused += usize::from(conflicts > 0);
        assert!(conflicts < program.sessions.len(), "{}: nobody came through", program.name);
    });
    (all, wrong, refused)
}

#[test]
fn every_order_of_every_program_is_serial() {
    let mut orders = 0;
    for program in PROGRAMS {
        let (all, wrong, _) = run_all(program, Isolation::Serializable);
        assert_eq!(wrong, 0, "{}: {wrong} of {all} orders", program.name);
        orders += all;
    }
    assert!(orders > 5_000, "{orders}");
}

#[test]
fn under_snapshot_isolation_write_skew_is_seen_and_nothing_else() {
    for program in PROGRAMS {
        let (all, wrong, _) = run_all(program, Isolation::Snapshot);
        assert_eq!(wrong > 0, program.is_skewed, "{}: {wrong} of {all} orders", program.name);
    }
}

#[test]
fn blind_writes_and_additions_are_never_refused() {
    for program in PROGRAMS {
        let blind = program.sessions.iter().all(|session| {
            let reads = session.iter().any(|step| matches!(step, Get(_) | Scan(_)));
            let writes = session.iter().any(|step| !matches!(step, Get(_) | Scan(_)));
            !(reads && writes)
        });
        if blind {
            assert_eq!(run_all(program, Isolation::Serializable).2, 0, "{}", program.name);
        }
    }
}
