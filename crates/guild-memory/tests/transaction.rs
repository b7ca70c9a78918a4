//! Ranges, savepoints and reads that are not watched over.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use common::World;
use guild_core::event::Event;
use guild_core::id::{AgentId, CommitVersion, RoleId};
use guild_core::limits::Limits;
use guild_memory::{
    CommitError, Condition, Conflict, KeyRange, TransactionError, Violation, Writer,
};

fn letters() -> World {
    let mut world = World::volatile();
    world.put_all(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    world
}

fn keys(rows: &[(String, i64)]) -> String {
    rows.iter().map(|(key, _)| key.as_str()).collect()
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(result: Result<T, CommitError>) {
    assert!(matches!(result, Err(CommitError::Conflict(_))), "{result:?}");
}

#[test]
fn a_history_tells_every_range_that_was_scanned() {
    let mut world = World::volatile();
    world.put_all(&[("a", 1), ("b/1", 1), ("b/2", 1), ("c", 1)]);
    world.memory.record_histories(true);
    world.memory.take_records();
    let mut transaction = world.begin();
    transaction.scan::<i64>(KeyRange::prefix("b/"), 10).unwrap();
    transaction.scan::<i64>("b/2".."d", 10).unwrap();
    transaction.scan::<i64>("b".., 2).unwrap();
    transaction.put("x", &1).unwrap();
    world.commit(transaction).unwrap();
    let told = world.memory.take_records().into_iter().find_map(|record| match record.event {
        Event::MemoryCommitted { reads, .. } => reads,
        _ => None,
    });
    let (told, text) = (told.unwrap(), str::to_owned);
    assert_eq!(told.ranges, [(text("b/"), None, 2)]);
    let spans = [(text("b/2"), Some(text("d")), None, 2), (text("b"), None, Some(text("b/2")), 2)];
    assert_eq!(told.spans, spans);
}

#[test]
fn a_scan_watches_over_the_range_that_was_asked_for_and_no_more() {
    for (outside, is_outside) in [("a", true), ("bb", false), ("c", false), ("cc", true)] {
        let mut world = letters();
        let mut t = world.begin();
        assert_eq!(keys(&t.scan("b"..="c", 10).unwrap()), "bc");
        t.put("sum", &5).unwrap();
        world.put_all(&[(outside, 9)]);
        let result = world.commit(t);
        assert_eq!(result.is_ok(), is_outside, "{outside}: {result:?}");
    }
}

#[test]
fn a_conflict_in_a_range_names_key_range_versions_and_writer() {
    let mut world = letters();
    world.submit("run", 1);
    let mut t = world.begin();
    t.scan::<i64>(KeyRange::prefix("done/"), 10).unwrap();
    t.get::<i64>("a").unwrap();
    t.put("sum", &5).unwrap();
    let version = world.complete(common::task(0, 0), "text");
    world.memory.seal();
    let Err(CommitError::Conflict(conflict)) = world.commit(t) else { panic!("accepted") };
    let writer = conflict.writer.unwrap();
    assert_eq!(
        conflict.to_string(),
        "memory key `done/0/0` in the range `done/*`, read at version 1, was changed at version 2",
    );
    assert_eq!((conflict.seen_at, conflict.now_at), (None, Some(version)));
    assert_eq!((writer.task, writer.agent.index), (common::task(0, 0), 0));
}

fn conflict(result: Result<CommitVersion, CommitError>) -> Conflict {
    match result {
        Err(CommitError::Conflict(conflict)) => *conflict,
        other => panic!("{other:?}"),
    }
}

/// A task removes a key as part of its completion.
fn remove_by_task(world: &mut World, index: u32, key: &str) -> (CommitVersion, Writer) {
    let mut t = world.begin();
    t.delete(key);
    let task = common::task(0, index);
    let version = world.complete_with(task, t).unwrap();
    (version, Writer { task, agent: AgentId { role: RoleId(0), index: 0 } })
}

#[test]
fn a_conflict_with_the_removal_of_a_key_names_its_version_and_who_removed_it() {
    let mut world = letters();
    world.submit("run", 2);
    let mut t = world.begin();
    t.get::<i64>("b").unwrap();
    t.put("sum", &2).unwrap();
    let mut of_refusal = world.begin();
    of_refusal.check("b", Condition::Absent).unwrap_err();
    of_refusal.put("sum", &2).unwrap();
    // Changed first: what is told is the removal.
    world.put_all(&[("b", 7)]);
    let (version, writer) = remove_by_task(&mut world, 0, "b");
    world.put_all(&[("unrelated", 7)]);
    let told = conflict(world.commit(t));
    assert_eq!(told.to_string(), "memory key `b`, read at version 1, was removed at version 3");
    assert_eq!((told.seen_at, told.now_at), (Some(CommitVersion(1)), Some(version)));
    assert_eq!((told.writer, told.is_removed), (Some(writer), true));
    let told = conflict(world.commit(of_refusal));
    assert_eq!((told.key.as_deref(), told.now_at), (Some("b"), Some(version)));
    assert_eq!((told.writer, told.is_removed), (Some(writer), true));
}

#[test]
fn a_conflict_with_a_removal_from_a_range_names_key_version_and_who_removed_it() {
    let mut world = letters();
    world.submit("run", 2);
    let mut t = world.begin();
    assert_eq!(keys(&t.scan("b".., 2).unwrap()), "bc");
    t.put("sum", &5).unwrap();
    // Not what was read: before the range, behind the last key, and come and gone meanwhile.
    world.put_all(&[("bb", 9)]);
    for key in ["a", "d", "bb"] {
        let mut other = world.begin();
        other.delete(key);
        world.commit(other).unwrap();
    }
    let (version, writer) = remove_by_task(&mut world, 0, "c");
    let told = conflict(world.commit(t));
    assert_eq!(
        told.to_string(),
        "memory key `c` in the range `b`.., read at version 1, was removed at version 6",
    );
    assert_eq!((told.now_at, told.writer), (Some(version), Some(writer)));
    assert!(told.is_removed);
}

#[test]
fn a_removal_that_the_history_has_forgotten_is_told_without_version_and_writer() {
    let mut world = letters();
    world.submit("run", 1);
    let reading = |world: &World| {
        let (mut one, mut all) = (world.begin(), world.begin());
        one.get::<i64>("b").unwrap();
        all.scan::<i64>(.."e", 10).unwrap();
        one.put("sum", &5).unwrap();
        all.put("sum", &5).unwrap();
        [one, all]
    };
    let [one, all] = reading(&world);
    let (version, _) = remove_by_task(&mut world, 0, "b");
    world.put_all(&[("unrelated", 7)]);
    assert_eq!(world.memory.forget_before(version), version);
    // The newest snapshot still sees it; the next ones do not.
    (0..2).for_each(|_| world.put_all(&[("unrelated", 7)]));
    let told = conflict(world.commit(one));
    assert_eq!(told.to_string(), "memory key `b`, read at version 1, was removed since");
    assert_eq!((told.now_at, told.writer, told.is_removed), (None, None, true));
    let told = conflict(world.commit(all));
    assert_eq!((told.key, told.now_at, told.writer), (None, None, None));
    assert!(told.is_removed);
}

#[test]
fn a_put_that_a_held_snapshot_keeps_is_not_told_as_the_removal_after_it() {
    let mut world = letters();
    world.submit("run", 1);
    let mut reading = world.begin();
    reading.get::<i64>("b").unwrap();
    reading.put("sum", &5).unwrap();
    world.put_all(&[("b", 9)]);
    let held = world.memory.snapshots().latest();
    let (version, _) = remove_by_task(&mut world, 0, "b");
    world.put_all(&[("unrelated", 7)]);
    assert_eq!(world.memory.forget_before(version), version);
    (0..2).for_each(|_| world.put_all(&[("unrelated", 7)]));
    let told = conflict(world.commit(reading));
    assert_eq!((told.now_at, told.writer, told.is_removed), (None, None, true));
    drop(held);
}

#[test]
fn reads_that_are_not_watched_over_do_not_conflict() {
    let mut world = letters();
    let mut t = world.begin();
    t.put("d", &40).unwrap();
    assert_eq!(t.get_untracked::<i64>("a").unwrap(), Some(1));
    assert_eq!(t.get_untracked::<i64>("d").unwrap(), Some(40));
    assert_eq!(keys(&t.scan_untracked(.., 3).unwrap()), "abc");
    world.put_all(&[("a", 9), ("aa", 9)]);
    world.commit(t).unwrap();
}

#[test]
fn a_range_is_removed_with_what_others_put_there_meanwhile() {
    let mut world = letters();
    let mut t = world.begin();
    t.put("b", &20).unwrap();
    t.delete_range("b".."d");
    t.add("c", 7).unwrap();
    assert_eq!(t.scan::<i64>(.., 10).unwrap(), [("a".into(), 1), ("c".into(), 7), ("d".into(), 4)]);
    assert_eq!(t.get::<i64>("b").unwrap(), None);
    let mut blind = world.begin();
    blind.delete_range("b".."d");
    blind.add("c", 7).unwrap();
    world.put_all(&[("bb", 9), ("c", 100)]);
    world.commit(blind).unwrap();
    assert_eq!(keys(&world.values()), "acd");
    assert_eq!(world.value("c"), Some(7));
    assert_conflict(world.commit(t));
}

#[test]
fn removing_too_many_keys_by_range_is_refused_as_a_whole() {
    let mut limits = Limits::default();
    limits.range_deletes_per_transaction_max = 3;
    let mut world = World::with_limits(limits);
    world.put_all(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    let mut t = world.begin();
    t.delete_range(..);
    match world.commit(t) {
        Err(CommitError::Invalid(Violation::TooManyDeletes { keys: 4, keys_max: 3 })) => {}
        other => panic!("{other:?}"),
    }
    let mut t = world.begin();
    t.delete_range(.."d");
    world.commit(t).unwrap();
    assert_eq!(keys(&world.values()), "d");
}

#[test]
fn a_savepoint_takes_back_writes_and_never_reads() {
    let mut world = letters();
    let mut t = world.begin();
    t.put("kept", &1).unwrap();
    let mark = t.savepoint();
    t.get::<i64>("a").unwrap();
    t.put("dropped", &1).unwrap();
    t.delete_range("b"..);
    let later = t.savepoint();
    t.rollback_to(mark).unwrap();
    assert_eq!(t.rollback_to(later), Err(TransactionError::NoSavepoint));
    t.add("kept", 1).unwrap();
    t.rollback_to(mark).unwrap();
    let mut same = world.begin();
    same.put("kept", &1).unwrap();
    let mark = same.savepoint();
    same.get::<i64>("a").unwrap();
    same.put("dropped", &1).unwrap();
    same.rollback_to(mark).unwrap();
    world.commit(t).unwrap();
    assert_eq!(world.value("kept"), Some(1));
    assert_eq!((world.value("dropped"), world.value("b")), (None, Some(2)));
    world.put_all(&[("a", 9)]);
    assert_conflict(world.commit(same));
}

#[test]
fn a_condition_that_was_looked_at_counts_after_it_was_taken_back() {
    let mut world = letters();
    let mut t = world.begin();
    let mark = t.savepoint();
    t.add_at_least("a", -1, 0).unwrap();
    t.check("b", Condition::AtMost(2)).unwrap();
    t.rollback_to(mark).unwrap();
    t.put("there is something", &1).unwrap();
    let mut still = world.begin();
    let mark = still.savepoint();
    still.add_at_least("a", -1, 0).unwrap();
    still.rollback_to(mark).unwrap();
    still.put("there is something", &1).unwrap();
    world.put_all(&[("a", 5), ("b", 3)]);
    assert_conflict(world.commit(t));
    world.commit(still).unwrap();
}
