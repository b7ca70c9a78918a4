//! Every interleaving of two or three sessions, judged by running the sessions one after the other.
//!
//! A hand-written anomaly test knows one order of steps; here each program is run in all orders. What
//! committed must be what the same sessions, alone and in the order of their commits, would have seen
//! and left behind. A session that only reads is where its snapshot is. Under snapshot isolation
//! exactly the programs that tempt write skew must fail that in some order.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::collections::BTreeMap;

use Step::{Add, AtLeast, Delete, DeleteRange, Get, Put, RollBack, Save, Scan, ScanFirst, Take};
use common::World;
use guild_memory::{
    CommitError, Condition, Isolation, KeyRange, Savepoint, Transaction, TransactionError,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Get(&'static str),
    Scan(&'static str),
    /// Scans the first keys of a prefix, so many.
    ScanFirst(&'static str, usize),
    /// Puts the sum of everything that the session has seen, plus this.
    Put(&'static str, i64),
    Add(&'static str, i64),
    Delete(&'static str),
    /// Removes all keys of a prefix.
    DeleteRange(&'static str),
    /// Checks that a key has this or more; the session sees whether that is so.
    AtLeast(&'static str, i64),
    /// Takes so much where 0 or more is left (escrow); the session sees whether it is.
    Take(&'static str, i64),
    Save,
    RollBack,
}

impl Step {
    fn reads(self) -> bool {
        matches!(self, Get(_) | Scan(_) | ScanFirst(..) | AtLeast(..) | Take(..))
    }

    fn writes(self) -> bool {
        matches!(self, Put(..) | Add(..) | Delete(_) | DeleteRange(_) | AtLeast(..) | Take(..))
    }
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
    Program {
        name: "two that look at the first key and each put one before it",
        sessions: &[&[ScanFirst("", 1), Put("A", 1)], &[ScanFirst("", 1), Put("B", 2)]],
        is_skewed: true,
    },
    Program {
        name: "the first keys, of which another one removes one and a third changes what is behind",
        sessions: &[&[ScanFirst("", 2), Put("sum", 0)], &[Delete("b")], &[Put("c", 1)]],
        is_skewed: false,
    },
    Program {
        name: "two that each look at a range and remove that of the other one",
        sessions: &[&[Scan("a"), DeleteRange("b")], &[Scan("b"), DeleteRange("a")]],
        is_skewed: true,
    },
    Program {
        name: "a range that is removed while others put something into it",
        sessions: &[
            &[DeleteRange("a"), Put("gone", 1)],
            &[Put("a/1", 1), Add("a", 1)],
            &[Put("a/2", 1), Put("gone", 2)],
        ],
        is_skewed: false,
    },
    Program {
        name: "a range that one sums up after it has removed a part of it and put one back",
        sessions: &[&[DeleteRange("b"), Put("b", 7), Scan(""), Put("sum", 0)], &[Put("bb", 5)]],
        is_skewed: false,
    },
    Program {
        name: "two withdrawals, each from one account while there is enough in the other one",
        sessions: &[&[AtLeast("a", 100), Add("b", -150)], &[AtLeast("b", 100), Add("a", -50)]],
        is_skewed: false,
    },
    Program {
        name: "two that put what they do because there is too little, and each puts more",
        sessions: &[&[AtLeast("a", 101), Put("b", 999)], &[AtLeast("b", 201), Put("a", 999)]],
        is_skewed: true,
    },
    Program {
        name: "three that take of one stock, which is enough for two",
        sessions: &[
            &[Take("a", 40), Put("x", 1)],
            &[Take("a", 40), Put("y", 1)],
            &[Take("a", 40), Put("z", 1)],
        ],
        is_skewed: false,
    },
    Program {
        name: "one who takes of a stock that another one empties and fills again",
        sessions: &[&[Take("a", 40), Put("x", 1)], &[Take("a", 100), Add("a", 30)]],
        is_skewed: false,
    },
    Program {
        name: "what is read before a rollback has steered what is put behind it",
        sessions: &[
            &[Save, Get("a"), Put("b", 7), RollBack, Put("c", 0)],
            &[Get("c"), Put("a", 1)],
        ],
        is_skewed: true,
    },
    Program {
        name: "a rollback brings back what was there, also what was removed by range and added",
        sessions: &[
            &[Add("a", 1), Save, DeleteRange(""), Add("a", 5), RollBack, Scan(""), Put("sum", 0)],
            &[Add("b", 1), Put("d", 5)],
        ],
        is_skewed: false,
    },
    Program {
        name: "a stock of which one takes, and gives back, and decides by whether there was enough",
        sessions: &[
            &[Save, Take("a", 60), RollBack, Put("x", 1)],
            &[Get("x"), Take("a", 60), Put("y", 1)],
        ],
        is_skewed: true,
    },
];

fn start() -> Rows {
    [("a", 100), ("b", 200), ("c", 300)].map(|(key, value)| (key.to_owned(), value)).into()
}

/// A session that has begun.
struct Begun {
    transaction: Transaction,
    saved: Option<Savepoint>,
    sum: i64,
}

/// A session that runs alone.
struct Alone<'a> {
    rows: &'a mut Rows,
    saved: Rows,
    sum: i64,
}

/// Returns what a session sees of a step that may be refused.
fn told(result: Result<(), TransactionError>) -> Vec<(String, i64)> {
    match result {
        Ok(()) => Vec::new(),
        Err(TransactionError::Unmet { .. } | TransactionError::BelowFloor { .. }) => refused(),
        Err(error) => panic!("{error}"),
    }
}

fn refused() -> Vec<(String, i64)> {
    vec![("refused".to_owned(), 1_000)]
}

impl Begun {
    /// Does a step in a transaction and returns what it saw.
    fn perform(&mut self, step: Step) -> Vec<(String, i64)> {
        let t = &mut self.transaction;
        let mut seen = Vec::new();
        match step {
            Get(key) => {
                let value = t.get::<i64>(key).unwrap();
                seen.extend(value.map(|value| (key.to_owned(), value)));
            }
            Scan(prefix) => seen = t.scan_prefix(prefix, usize::MAX).unwrap(),
            ScanFirst(prefix, limit) => seen = t.scan_prefix(prefix, limit).unwrap(),
            Put(key, plus) => t.put(key, &(self.sum + plus)).unwrap(),
            Add(key, amount) => t.add(key, amount).unwrap(),
            Delete(key) => t.delete(key),
            DeleteRange(prefix) => t.delete_range(KeyRange::prefix(prefix)),
            AtLeast(key, bound) => seen = told(t.check(key, Condition::AtLeast(bound))),
            Take(key, amount) => seen = told(t.add_at_least(key, -amount, 0)),
            Save => self.saved = Some(t.savepoint()),
            RollBack => t.rollback_to(self.saved.unwrap()).unwrap(),
        }
        self.sum += seen.iter().map(|(_, value)| value).sum::<i64>();
        seen
    }
}

impl Alone<'_> {
    /// Does the same on the rows themselves.
    fn perform(&mut self, step: Step) -> Vec<(String, i64)> {
        let mut seen = Vec::new();
        let within = |rows: &Rows, prefix: &str, limit: usize| -> Vec<(String, i64)> {
            let within = rows.iter().filter(|(key, _)| key.starts_with(prefix));
            within.map(|(key, value)| (key.clone(), *value)).take(limit).collect()
        };
        let rows = &mut *self.rows;
        match step {
            Get(key) => seen.extend(rows.get_key_value(key).map(|(k, v)| (k.clone(), *v))),
            Scan(prefix) => seen = within(rows, prefix, usize::MAX),
            ScanFirst(prefix, limit) => seen = within(rows, prefix, limit),
            Put(key, plus) => drop(rows.insert(key.to_owned(), self.sum + plus)),
            Add(key, amount) => *rows.entry(key.to_owned()).or_default() += amount,
            Delete(key) => drop(rows.remove(key)),
            DeleteRange(prefix) => rows.retain(|key, _| !key.starts_with(prefix)),
            AtLeast(key, bound) if rows.get(key).is_none_or(|value| *value < bound) => {
                seen = refused();
            }
            Take(key, amount) if rows.get(key).is_none_or(|value| *value < amount) => {
                seen = refused();
            }
            AtLeast(..) => {}
            Take(key, amount) => *rows.get_mut(key).unwrap() -= amount,
            Save => self.saved = rows.clone(),
            RollBack => rows.clone_from(&self.saved),
        }
        self.sum += seen.iter().map(|(_, value)| value).sum::<i64>();
        seen
    }
}

/// Runs the sessions in this order of steps; the last step of each is its commit. Returns whether
/// the outcome is serial, and how many sessions were refused.
fn run(sessions: &[Session], isolation: Isolation, order: &[usize]) -> (bool, usize) {
    let mut world = World::volatile();
    let rows: Vec<_> = start().into_iter().collect();
    world.put_all(&rows.iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>());
    let mut open: Vec<Option<Begun>> = sessions.iter().map(|_| None).collect();
    let mut seen: Vec<Seen> = vec![Seen::new(); sessions.len()];
    let mut begun_at = vec![0; sessions.len()];
    let mut committed = Vec::new();
    let mut refused = 0;
    for &session in order {
        let begun = open[session].get_or_insert_with(|| {
            begun_at[session] = committed.len();
            let mut transaction = world.begin();
            transaction.set_isolation(isolation);
            Begun { transaction, saved: None, sum: 0 }
        });
        match sessions[session].get(seen[session].len()) {
            Some(step) => {
                let result = begun.perform(*step);
                seen[session].push(result);
            }
            None => {
                let transaction = open[session].take().unwrap().transaction;
                let only_reads = !sessions[session].iter().any(|step| step.writes());
                match world.commit(transaction) {
                    Ok(_) if only_reads => committed.insert(begun_at[session], session),
                    Ok(_) => committed.push(session),
                    Err(CommitError::Conflict(_) | CommitError::Unmet(_)) => refused += 1,
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
            let mut session_alone = Alone { rows: &mut alone, saved: Rows::new(), sum: 0 };
            let mut steps = sessions[session].iter().zip(&seen[session]);
            steps.all(|(step, seen)| session_alone.perform(*step) == *seen)
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
            let reads = session.iter().any(|step| step.reads());
            let writes = session.iter().any(|step| step.writes());
            !(reads && writes)
        });
        if blind {
            assert_eq!(run_all(program, Isolation::Serializable).2, 0, "{}", program.name);
        }
    }
}
