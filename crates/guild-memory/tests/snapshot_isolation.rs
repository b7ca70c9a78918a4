//! The Hermitage suite once more, under the weaker level that a transaction may choose.
//!
//! Of its anomalies two must be *seen*: if write skew were refused, the opt-out would be none, and
//! the tests of the stronger level would prove nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use common::World;
use guild_memory::{CommitError, Isolation, KeyRange, Transaction};

fn two_rows() -> World {
    let mut world = World::volatile();
    world.put_all(&[("test/1", 10), ("test/2", 20)]);
    world
}

fn begin(world: &World) -> Transaction {
    let mut transaction = world.begin();
    transaction.set_isolation(Isolation::Snapshot);
    transaction
}

fn rows(transaction: &mut Transaction) -> Vec<(String, i64)> {
    transaction.scan_prefix("test/", 10).unwrap()
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(result: Result<T, CommitError>) {
    assert!(matches!(result, Err(CommitError::Conflict(_))), "{result:?}");
}

#[test]
fn g0_writes_of_two_sessions_do_not_interleave() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    a.put("test/1", &11).unwrap();
    b.put("test/1", &12).unwrap();
    a.put("test/2", &21).unwrap();
    b.put("test/2", &22).unwrap();
    world.commit(a).unwrap();
    assert_conflict(world.commit(b));
    assert_eq!((world.value("test/1"), world.value("test/2")), (Some(11), Some(21)));
}

#[test]
fn g1a_and_g1b_neither_aborted_nor_intermediate_values_are_read() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    a.put("test/1", &101).unwrap();
    assert_eq!(b.get::<i64>("test/1").unwrap(), Some(10));
    a.put("test/1", &11).unwrap();
    drop(a);
    assert_eq!(begin(&world).get::<i64>("test/1").unwrap(), Some(10));
    world.commit(b).unwrap();
}

#[test]
fn g1c_information_does_not_flow_in_a_circle() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    a.put("test/1", &11).unwrap();
    b.put("test/2", &22).unwrap();
    assert_eq!(a.get::<i64>("test/2").unwrap(), Some(20));
    assert_eq!(b.get::<i64>("test/1").unwrap(), Some(10));
    world.commit(a).unwrap();
    world.commit(b).unwrap();
}

#[test]
fn otv_an_observed_transaction_does_not_vanish() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    a.put("test/1", &11).unwrap();
    a.put("test/2", &19).unwrap();
    b.put("test/1", &12).unwrap();
    world.commit(a).unwrap();
    let mut c = begin(&world);
    assert_eq!(c.get::<i64>("test/1").unwrap(), Some(11));
    assert_conflict(world.commit(b));
    assert_eq!(c.get::<i64>("test/2").unwrap(), Some(19));
}

#[test]
fn pmp_a_predicate_read_twice_finds_the_same_rows() {
    let mut world = two_rows();
    let mut a = begin(&world);
    assert_eq!(rows(&mut a).len(), 2);
    world.put_all(&[("test/3", 30)]);
    assert_eq!(rows(&mut a).len(), 2);
    // By a predicate it writes to a row that another one has moved.
    for (key, value) in rows(&mut a) {
        a.put(key, &(value + 10)).unwrap();
    }
    world.put_all(&[("test/2", 21)]);
    assert_conflict(world.commit(a));
}

#[test]
fn p4_no_update_is_lost() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    for session in [&mut a, &mut b] {
        let seen = session.get::<i64>("test/1").unwrap().unwrap();
        session.put("test/1", &(seen + 1)).unwrap();
    }
    world.commit(a).unwrap();
    assert_conflict(world.commit(b));
    assert_eq!(world.value("test/1"), Some(11));
}

#[test]
fn g_single_a_reader_sees_both_writes_or_none() {
    let mut world = two_rows();
    let mut a = begin(&world);
    assert_eq!(a.get::<i64>("test/1").unwrap(), Some(10));
    world.put_all(&[("test/1", 12), ("test/2", 18)]);
    assert_eq!(a.get::<i64>("test/2").unwrap(), Some(20));
    a.delete("test/2");
    assert_conflict(world.commit(a));
}

#[test]
fn g2_item_write_skew_is_seen() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    for session in [&mut a, &mut b] {
        session.get::<i64>("test/1").unwrap();
        session.get::<i64>("test/2").unwrap();
    }
    a.put("test/1", &11).unwrap();
    b.put("test/2", &21).unwrap();
    world.commit(a).unwrap();
    world.commit(b).unwrap();
}

#[test]
fn g2_phantoms_are_seen() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    for session in [&mut a, &mut b] {
        assert_eq!(rows(session).len(), 2);
    }
    a.put("test/3", &30).unwrap();
    b.put("test/4", &42).unwrap();
    world.commit(a).unwrap();
    world.commit(b).unwrap();
}

#[test]
fn removing_a_range_is_a_write_to_all_of_it() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    a.delete_range(KeyRange::prefix("test/"));
    b.delete_range("test/1".."test/2");
    assert_eq!((rows(&mut a).len(), rows(&mut b).len()), (0, 1));
    world.put_all(&[("test/3", 30)]);
    assert_conflict(world.commit(a));
    world.commit(b).unwrap();
}

#[test]
fn merges_do_not_conflict_here_either() {
    let mut world = two_rows();
    let (mut a, mut b) = (begin(&world), begin(&world));
    for session in [&mut a, &mut b] {
        session.get::<i64>("test/1").unwrap();
        session.add("test/1", 1).unwrap();
    }
    world.commit(a).unwrap();
    world.commit(b).unwrap();
    assert_eq!(world.value("test/1"), Some(12));
}
