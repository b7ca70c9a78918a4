//! Two transactions that meet in a running guild: who is told, who tries again, what becomes of both.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "these tests use a part of what the tests share")]
mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use common::{Acts, Echo};
use guild::{
    CommitError, CommitVersion, Drain, Guild, KeyRange, Limits, MemoryHandle, Namespace,
    OnConflict, Outcome, RetryPolicy, Task, TransactError, TransactionError,
};
use serde_json::{Value, json};
use tokio::sync::Barrier;

fn start() -> Guild {
    Guild::builder().role("echo", 1, || Echo).start().unwrap()
}

fn stop(guild: &Guild) {
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
}

fn put(memory: &MemoryHandle, key: &str, value: &Value) -> CommitVersion {
    memory.transact_blocking(&RetryPolicy::once(), |memory| memory.put(key, value)).unwrap().1
}

#[test]
fn who_meets_another_commit_from_outside_runs_again_on_what_is_there_now() {
    let guild = start();
    let memory = guild.memory();
    put(&memory, "key", &json!(1));
    // Without a pause, and with one.
    for policy in [RetryPolicy::immediately(2), RetryPolicy::default()] {
        let mut seen = Vec::new();
        let (result, version) = memory
            .transact_blocking(&policy, |transaction| {
                seen.push(transaction.get::<i64>("key")?.unwrap());
                if seen.len() == 1 {
                    put(&memory, "key", &json!(10));
                }
                transaction.put("key", &(seen[seen.len() - 1] + 1))?;
                Ok::<_, TransactionError>(seen.len())
            })
            .unwrap();

        assert_eq!((result, &seen[1..]), (2, &[10][..]), "the second try saw what the first met");
        let now = memory.snapshot();
        assert_eq!((now.value::<i64>("key").unwrap(), now.version()), (Some(11), version));
    }
    stop(&guild);
}

#[test]
fn who_meets_others_too_often_is_told_of_the_conflict_as_data() {
    let guild = start();
    let memory = guild.memory();
    let first = put(&memory, "list/a", &json!(1));
    let mut calls = 0;
    let refused = memory.transact_blocking(&RetryPolicy::immediately(2), |transaction| {
        calls += 1;
        transaction.get::<i64>("list/a")?;
        put(&memory, "list/a", &json!(calls));
        transaction.put("mine", &calls)
    });
    let Err(TransactError::Commit(CommitError::Conflict(conflict))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(calls, 2);
    assert_eq!((conflict.key.as_deref(), &conflict.range), (Some("list/a"), &None));
    assert_eq!(conflict.seen_at, Some(CommitVersion(first.0 + 1)), "what the second try read");
    assert_eq!(conflict.now_at, Some(CommitVersion(first.0 + 2)));
    assert_eq!((conflict.writer, conflict.reserved_until), (None, None));
    assert_eq!(memory.snapshot().value::<i64>("mine").unwrap(), None);

    let refused = memory.transact_blocking(&RetryPolicy::once(), |transaction| {
        let rows = transaction.scan::<i64>(KeyRange::prefix("list/"), 10)?.len();
        put(&memory, "list/b", &json!(0));
        transaction.put("mine", &rows)
    });
    let Err(TransactError::Commit(CommitError::Conflict(conflict))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(conflict.key.as_deref(), Some("list/b"));
    assert_eq!(conflict.range, Some(KeyRange::prefix("list/")));
    stop(&guild);
}

#[test]
fn who_has_lost_three_times_has_what_it_read_for_itself() {
    let guild = start();
    let memory = guild.memory();
    let (mut calls, mut waiting) = (0, None);
    let (_, version) = memory
        .transact_blocking(&RetryPolicy::immediately(10), |transaction| {
            calls += 1;
            let seen = transaction.get::<i64>("key")?.unwrap_or(0);
            if calls <= 3 {
                put(&memory, "key", &json!(calls));
            } else {
                // This one has to wait until the reservation has been used.
                let other = memory.clone();
                waiting = Some(std::thread::spawn(move || put(&other, "key", &json!("late"))));
            }
            transaction.put("key", &(seen + 100))
        })
        .unwrap();
    assert_eq!(calls, 4, "the fourth try cannot lose");
    let late = waiting.unwrap().join().unwrap();
    assert!(version < late);
    let then = memory.snapshot().as_of(version).unwrap();
    assert_eq!(then.value::<i64>("key").unwrap(), Some(103));
    assert_eq!(memory.snapshot().value::<String>("key").unwrap().as_deref(), Some("late"));
    stop(&guild);
}

#[test]
fn work_that_gives_up_after_a_conflict_leaves_nothing() {
    let guild = start();
    let memory = guild.memory();
    let mut calls = 0;
    let given_up = memory.transact_blocking(&RetryPolicy::immediately(5), |transaction| {
        calls += 1;
        let seen = transaction.get::<i64>("key").unwrap();
        transaction.put("mine", &calls).unwrap();
        if seen.is_some() {
            return Err("it is taken");
        }
        put(&memory, "key", &json!(1));
        Ok(())
    });
    assert!(matches!(given_up, Err(TransactError::GivenUp("it is taken"))), "{given_up:?}");
    assert_eq!(calls, 2);
    assert_eq!(memory.snapshot().value::<i64>("mine").unwrap(), None);
    stop(&guild);
}

#[test]
fn who_only_reads_is_never_refused() {
    let mut limits = Limits::default();
    // No room for anything that has to wait for the memory.
    limits.requests_waiting_max = 0;
    let guild = Guild::builder().role("echo", 1, || Echo).limits(limits).start().unwrap();
    let memory = guild.memory();
    let once = RetryPolicy::once();
    let refused = memory.transact_blocking(&once, |memory| memory.put("key", &1));
    assert!(matches!(refused, Err(TransactError::Busy(0))), "{refused:?}");
    let read = || memory.transact_blocking(&once, |memory| memory.get::<i64>("key"));
    assert_eq!(read().unwrap(), (None, CommitVersion(0)));
    // What is required, or taken back, is no read.
    let required =
        memory.transact_blocking(&once, |memory| memory.check("key", guild::Condition::Absent));
    assert!(matches!(required, Err(TransactError::Busy(0))), "{required:?}");
    let taken_back = memory.transact_blocking(&once, |memory| {
        let begin = memory.savepoint();
        memory.put("key", &1)?;
        memory.rollback_to(begin)
    });
    assert_eq!(taken_back.unwrap().1, CommitVersion(0));
    stop(&guild);
}

#[test]
fn who_only_reads_holds_at_the_version_that_it_has_read() {
    let guild = start();
    let memory = guild.memory();
    let before = put(&memory, "key", &json!(1));
    let mut calls = 0;
    let (seen, version) = memory
        .transact_blocking(&RetryPolicy::once(), |transaction| {
            calls += 1;
            let first = transaction.get::<i64>("key")?;
            put(&memory, "key", &json!(2));
            assert_eq!(transaction.get::<i64>("key")?, first, "one snapshot");
            Ok::<_, TransactionError>(first)
        })
        .unwrap();
    assert_eq!((calls, seen, version), (1, Some(1), before));
    stop(&guild);
}

/// How two tasks have met: what is there now, and how many attempts that took.
struct Meeting {
    memory: guild::Snapshot,
    attempts: u64,
    /// What the merge function was asked, as `[base, theirs, mine]`.
    asked: Vec<Value>,
}

/// Lets two tasks read one list before one of them commits, and each put it back with its own number
/// added.
fn meet(policy: OnConflict) -> Meeting {
    let (both, begun) = (Arc::new(Barrier::new(2)), Arc::new(AtomicU32::new(0)));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&asked);
    let guild = Guild::builder()
        .role("member", 2, move || {
            let (both, begun) = (Arc::clone(&both), Arc::clone(&begun));
            Acts(async move |number, task: &mut guild::TaskContext| {
                let mut list = task.memory().get::<Vec<Value>>("board/list")?.unwrap_or_default();
                if begun.fetch_add(1, Ordering::SeqCst) < 2 {
                    both.wait().await;
                }
                list.push(number);
                task.memory().put("board/list", &list)?;
                Ok(json!(null))
            })
        })
        .namespace(Namespace::new("board/").on_conflict(policy))
        .merge_function("union", move |clash| {
            assert_eq!(clash.key, "board/list");
            record.lock().unwrap().push(json!([clash.base, clash.theirs, clash.mine]));
            let mut union = Vec::new();
            for list in [clash.theirs, clash.mine].into_iter().flatten() {
                for element in list.as_array().ok_or("it is no list")? {
                    if !union.contains(element) {
                        union.push(element.clone());
                    }
                }
            }
            Ok(Some(Value::Array(union)))
        })
        .merge_function("refuses", |_| Err("these two do not go together".to_owned()))
        .validate(true)
        .start()
        .unwrap();
    let memory = guild.memory();
    put(&memory, "board/list", &json!([0]));
    let mut graph = guild.graph("meeting");
    for number in [1, 2] {
        graph.add(Task::new(format!("member-{number}"), "member").input(&number));
    }
    let report = guild::block_on(async {
        guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap()
    });
    assert_eq!(report.outcome(), Outcome::Completed);
    let attempts = guild.stats().attempts;
    stop(&guild);
    let asked = asked.lock().unwrap().clone();
    Meeting { memory: memory.snapshot(), attempts, asked }
}

impl Meeting {
    fn list(&self) -> Vec<u32> {
        self.memory.value("board/list").unwrap().unwrap()
    }
}

#[test]
fn tasks_that_meet_are_run_again_unless_their_namespace_says_otherwise() {
    let meeting = meet(OnConflict::Retry);
    assert_eq!(meeting.attempts, 3, "one of them was run again");
    let mut list = meeting.list();
    list.sort_unstable();
    assert_eq!(list, [0, 1, 2]);
}

#[test]
fn a_registered_function_makes_one_value_of_two_that_meet() {
    let meeting = meet(OnConflict::Merge("union".into()));
    assert_eq!(meeting.attempts, 2, "nobody was run again");
    let list = meeting.list();
    assert!(list == [0, 1, 2] || list == [0, 2, 1], "{list:?}");
    let (theirs, mine) = (list[1], list[2]);
    assert_eq!(meeting.asked, [json!([[0], [0, theirs], [0, mine]])]);
}

#[test]
fn a_function_that_cannot_merge_has_the_transaction_run_again() {
    let meeting = meet(OnConflict::Merge("refuses".into()));
    assert_eq!(meeting.attempts, 3);
    assert_eq!(meeting.list().len(), 3);
    assert!(meeting.asked.is_empty());
}

#[test]
fn the_last_writer_wins_where_its_namespace_says_so() {
    let meeting = meet(OnConflict::LastWriterWins);
    assert_eq!(meeting.attempts, 2);
    let list = meeting.list();
    assert!(list == [0, 1] || list == [0, 2], "{list:?}");
    assert_eq!(meeting.memory.len(), 1);
}

#[test]
fn both_values_are_kept_where_their_namespace_says_so() {
    let meeting = meet(OnConflict::KeepBoth);
    assert_eq!(meeting.attempts, 2);
    let (first, version) = (meeting.list()[1], meeting.memory.version());
    let beside = format!("board/list@{version}");
    let second: Vec<u32> = meeting.memory.value(beside).unwrap().unwrap();
    assert_eq!(meeting.list(), [0, first]);
    assert_eq!(second, [0, 3 - first]);
    assert_eq!(meeting.memory.len(), 2);
}
