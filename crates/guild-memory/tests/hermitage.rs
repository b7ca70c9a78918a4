//! The anomalies of the Hermitage suite (Kleppmann), none of which may happen.
//!
//! Each test interleaves two or three sessions step by step. Reads come from the snapshot that a
//! session began with; commits are validated in the order in which they arrive.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use common::World;
use guild_memory::CommitError;

fn two_rows() -> World {
    let mut world = World::volatile();
    world.put_all(&[("test/1", 10), ("test/2", 20)]);
    world
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(result: Result<T, CommitError>) {
    assert!(matches!(result, Err(CommitError::Conflict(_))), "{result:?}");
}

#[test]
fn g0_writes_of_two_sessions_do_not_interleave() {
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    a.put("test/1", &11).unwrap();
    b.put("test/1", &12).unwrap();
    a.put("test/2", &21).unwrap();
    world.commit(a).unwrap();
    assert_eq!((world.value("test/1"), world.value("test/2")), (Some(11), Some(21)));
    b.put("test/2", &22).unwrap();
    world.commit(b).unwrap();
    assert_eq!((world.value("test/1"), world.value("test/2")), (Some(12), Some(22)));
}

#[test]
fn g1a_an_aborted_write_is_never_read() {
    let mut world = two_rows();
    let mut a = world.begin();
    a.put("test/1", &101).unwrap();
    let mut b = world.begin();
    assert_eq!(b.get::<i64>("test/1").unwrap(), Some(10));
    drop(a);
    assert_eq!(b.get::<i64>("test/1").unwrap(), Some(10));
    // A commit that is refused is an abort too.
    let mut c = world.begin();
    c.get::<i64>("test/2").unwrap();
    c.put("test/1", &101).unwrap();
    world.put_all(&[("test/2", 21)]);
    assert_conflict(world.commit(c));
    assert_eq!(world.value("test/1"), Some(10));
}

#[test]
fn g1b_an_intermediate_value_is_never_read() {
    let mut world = two_rows();
    let mut a = world.begin();
    a.put("test/1", &101).unwrap();
    let mut b = world.begin();
    assert_eq!(b.get::<i64>("test/1").unwrap(), Some(10));
    a.put("test/1", &11).unwrap();
    world.commit(a).unwrap();
    assert_eq!(b.get::<i64>("test/1").unwrap(), Some(10));
    assert_eq!(world.value("test/1"), Some(11));
}

#[test]
fn g1c_information_does_not_flow_in_a_circle() {
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    a.put("test/1", &11).unwrap();
    b.put("test/2", &22).unwrap();
    assert_eq!(a.get::<i64>("test/2").unwrap(), Some(20));
    assert_eq!(b.get::<i64>("test/1").unwrap(), Some(10));
    world.commit(a).unwrap();
    assert_conflict(world.commit(b));
}

#[test]
fn otv_an_observed_transaction_does_not_vanish() {
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    a.put("test/1", &11).unwrap();
    a.put("test/2", &19).unwrap();
    b.put("test/1", &12).unwrap();
    world.commit(a).unwrap();
    let mut c = world.begin();
    assert_eq!(c.get::<i64>("test/1").unwrap(), Some(11));
    b.put("test/2", &18).unwrap();
    world.commit(b).unwrap();
    assert_eq!(c.get::<i64>("test/2").unwrap(), Some(19));
    assert_eq!(c.get::<i64>("test/1").unwrap(), Some(11));
}

#[test]
fn pmp_a_predicate_read_twice_finds_the_same_rows() {
    let mut world = two_rows();
    let mut a = world.begin();
    assert_eq!(a.scan_prefix::<i64>("test/3", 10).unwrap(), []);
    world.put_all(&[("test/3", 30)]);
    assert_eq!(a.scan_prefix::<i64>("test/3", 10).unwrap(), []);
    a.put("seen", &0).unwrap();
    assert_conflict(world.commit(a));
}

#[test]
fn pmp_a_write_by_predicate_meets_the_row_that_another_one_moved() {
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    for (key, value) in a.scan_prefix::<i64>("test/", 10).unwrap() {
        a.put(key, &(value + 10)).unwrap();
    }
    for (key, value) in b.scan_prefix::<i64>("test/", 10).unwrap() {
        if value == 20 {
            b.delete(key);
        }
    }
    world.commit(a).unwrap();
    assert_conflict(world.commit(b));
    assert_eq!(world.values(), [("test/1".into(), 20), ("test/2".into(), 30)]);
}

#[test]
fn p4_no_update_is_lost() {
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    let seen_a = a.get::<i64>("test/1").unwrap().unwrap();
    let seen_b = b.get::<i64>("test/1").unwrap().unwrap();
    a.put("test/1", &(seen_a + 1)).unwrap();
    b.put("test/1", &(seen_b + 1)).unwrap();
    world.commit(a).unwrap();
    let Err(CommitError::Conflict(conflict)) = world.commit(b) else { panic!("lost update") };
    assert_eq!(conflict.key.as_deref(), Some("test/1"));
    assert_eq!((conflict.read_at.0, conflict.now_at.map(|at| at.0)), (1, Some(2)));
    assert_eq!(world.value("test/1"), Some(11));
}

#[test]
fn g_single_a_reader_sees_both_writes_or_none() {
    let mut world = two_rows();
    let mut a = world.begin();
    assert_eq!(a.get::<i64>("test/1").unwrap(), Some(10));
    world.put_all(&[("test/1", 12), ("test/2", 18)]);
    assert_eq!(a.get::<i64>("test/2").unwrap(), Some(20));
    world.commit(a).unwrap();
}

#[test]
fn g_single_a_decision_on_an_old_row_does_not_commit() {
    let mut world = two_rows();
    let mut a = world.begin();
    assert_eq!(a.get::<i64>("test/1").unwrap(), Some(10));
    world.put_all(&[("test/1", 12), ("test/2", 18)]);
    a.delete("test/2");
    assert_conflict(world.commit(a));
}

#[test]
fn g2_item_there_is_no_write_skew() {
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    for session in [&mut a, &mut b] {
        session.get::<i64>("test/1").unwrap();
        session.get::<i64>("test/2").unwrap();
    }
    a.put("test/1", &11).unwrap();
    b.put("test/2", &21).unwrap();
    world.commit(a).unwrap();
    assert_conflict(world.commit(b));
}

#[test]
fn g2_item_write_skew_is_seen_when_reads_are_not_tracked() {
    // The control: the same steps with reads past the transaction. If this refused, the test
    // above would prove nothing.
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    assert_eq!((world.value("test/1"), world.value("test/2")), (Some(10), Some(20)));
    a.put("test/1", &11).unwrap();
    b.put("test/2", &21).unwrap();
    world.commit(a).unwrap();
    world.commit(b).unwrap();
}

#[test]
fn g2_there_are_no_phantoms_in_a_range() {
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    for session in [&mut a, &mut b] {
        assert_eq!(session.scan_prefix::<i64>("test/", 10).unwrap().len(), 2);
    }
    a.put("test/3", &30).unwrap();
    b.put("test/4", &42).unwrap();
    world.commit(a).unwrap();
    assert_conflict(world.commit(b));
}

#[test]
fn g2_a_row_removed_from_a_range_is_a_phantom_too() {
    let mut world = two_rows();
    let mut a = world.begin();
    a.scan_prefix::<i64>("test/", 10).unwrap();
    a.put("sum", &30).unwrap();
    let mut b = world.begin();
    b.delete("test/2");
    world.commit(b).unwrap();
    assert_conflict(world.commit(a));
}

#[test]
fn g2_a_phantom_behind_the_last_row_of_a_full_scan_does_not_matter() {
    let mut world = two_rows();
    world.put_all(&[("test/5", 50)]);
    let (mut limited, mut dry) = (world.begin(), world.begin());
    assert_eq!(limited.scan_prefix::<i64>("test/", 2).unwrap().len(), 2);
    assert_eq!(dry.scan_prefix::<i64>("test/", 4).unwrap().len(), 3);
    limited.put("limited", &1).unwrap();
    dry.put("dry", &1).unwrap();
    world.put_all(&[("test/6", 60)]);
    world.commit(limited).unwrap();
    assert_conflict(world.commit(dry));
}

#[test]
fn g2_a_phantom_between_the_rows_of_a_full_scan_matters() {
    let mut world = two_rows();
    let mut a = world.begin();
    assert_eq!(a.scan_prefix::<i64>("test/", 2).unwrap().len(), 2);
    a.put("sum", &30).unwrap();
    world.put_all(&[("test/15", 15)]);
    assert_conflict(world.commit(a));
}

#[test]
fn g2_a_phantom_hidden_by_an_own_write_matters() {
    let mut world = two_rows();
    let mut a = world.begin();
    a.put("test/3", &1).unwrap();
    assert_eq!(a.scan_prefix::<i64>("test/", 10).unwrap().len(), 3);
    world.put_all(&[("test/3", 2)]);
    assert_conflict(world.commit(a));
}

#[test]
fn reading_an_absent_key_is_a_read() {
    let mut world = two_rows();
    let mut a = world.begin();
    assert_eq!(a.get::<i64>("test/9").unwrap(), None);
    a.put("first", &1).unwrap();
    world.put_all(&[("test/9", 9)]);
    assert_conflict(world.commit(a));
}

#[test]
fn a_key_removed_and_put_again_is_another_value() {
    let mut world = two_rows();
    let mut a = world.begin();
    a.get::<i64>("test/1").unwrap();
    a.put("seen", &10).unwrap();
    let mut b = world.begin();
    b.delete("test/1");
    world.commit(b).unwrap();
    world.put_all(&[("test/1", 10)]);
    assert_conflict(world.commit(a));
}

#[test]
fn additions_never_conflict_with_each_other() {
    let mut world = World::volatile();
    let sessions: Vec<_> = (0..100)
        .map(|_| {
            let mut session = world.begin();
            session.add("sum", 2).unwrap();
            session.add("sum", -1).unwrap();
            session
        })
        .collect();
    for session in sessions {
        world.commit(session).unwrap();
    }
    assert_eq!(world.value("sum"), Some(100));
}

#[test]
fn reading_what_one_has_added_to_is_a_read() {
    let mut world = two_rows();
    let (mut a, mut b) = (world.begin(), world.begin());
    a.add("test/1", 5).unwrap();
    assert_eq!(a.get::<i64>("test/1").unwrap(), Some(15));
    b.add("test/1", 1).unwrap();
    world.commit(b).unwrap();
    assert_conflict(world.commit(a));
}
