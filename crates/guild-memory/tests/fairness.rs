//! A slow transaction among quick ones gets its turn.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use common::World;
use guild_core::time::Timestamp;
use guild_memory::{CommitError, Owner, Transaction};

/// A slow session reads and writes the key; before each of its commits a quick one adds to it,
/// unless it has to wait. Returns how often the slow one has lost.
fn losses(world: &mut World, slow: Option<Owner>, rounds: u32) -> u32 {
    let quick = Owner::Caller(1);
    for lost in 0..rounds {
        let mut reading = world.begin();
        let seen = reading.get::<i64>("hot").unwrap().unwrap_or(0);
        reading.put("hot", &(seen + 100)).unwrap();
        let mut adding = world.begin();
        adding.add("hot", 1).unwrap();
        let adding = adding.into_parts();
        let now = world.now();
        if world.memory.must_wait(now, quick, &adding).is_none() {
            world.memory.transact_as(now, Some(quick), adding).unwrap();
        }
        let result = world.memory.transact_as(now, slow, reading.into_parts());
        world.memory.seal();
        match result {
            Ok(_) => return lost,
            Err(CommitError::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    rounds
}

#[test]
fn whoever_has_lost_three_times_wins_the_fourth_time() {
    let mut world = World::volatile();
    // The control: for nobody in particular nothing is reserved, and it would lose forever.
    assert_eq!(losses(&mut world, None, 1_000), 1_000);
    assert_eq!(world.value("hot"), Some(1_000));
    assert_eq!(losses(&mut world, Some(Owner::Caller(2)), 1_000), 3);
    assert_eq!(world.value("hot"), Some(1_103));
}

#[test]
fn a_reservation_ends_with_its_commit_with_its_owner_and_with_its_time() {
    let mut world = World::volatile();
    let (slow, other) = (Owner::Caller(2), Owner::Caller(3));
    let lose = |world: &mut World| {
        let mut until = None;
        for _ in 0..3 {
            let mut reading = world.begin();
            reading.get::<i64>("hot").unwrap();
            reading.put("seen", &1).unwrap();
            let mut t = world.begin();
            t.add("hot", 1).unwrap();
            let now = world.now();
            world.memory.transact(now, t.into_parts()).unwrap();
            let lost = world.memory.transact_as(now, Some(slow), reading.into_parts());
            let Err(CommitError::Conflict(conflict)) = lost else { panic!("{lost:?}") };
            until = conflict.reserved_until;
            world.memory.seal();
        }
        until.unwrap()
    };
    let waits = |world: &mut World, now: Timestamp| {
        let mut t = Transaction::begin(world.memory.snapshots());
        t.add("hot", 1).unwrap();
        world.memory.must_wait(now, other, &t.into_parts()).is_some()
    };
    let until = lose(&mut world);
    let now = world.now();
    assert!(waits(&mut world, now));
    assert!(!waits(&mut world, until), "it has run out");

    lose(&mut world);
    assert!(waits(&mut world, now));
    world.memory.give_up(slow);
    assert!(!waits(&mut world, now));

    lose(&mut world);
    assert!(waits(&mut world, now));
    let mut t = world.begin();
    t.put("seen", &2).unwrap();
    world.memory.transact_as(now, Some(slow), t.into_parts()).unwrap();
    assert!(!waits(&mut world, now));
}
