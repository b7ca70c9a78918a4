//! A store that fails: from that moment nothing is acknowledged, and everybody is told.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use common::failing::{Failing, Fault};
use common::{World, bindings, completion, graph, task};
use guild_memory::store::{Crash, RamDisk, Store};
use guild_memory::{CommitError, Durability, SubmitError};

fn failing(disk: &RamDisk, fault: Fault, calls_left: u64) -> Box<dyn Store> {
    Box::new(Failing::after(calls_left, fault, Box::new(disk.open())))
}

#[test]
fn after_an_error_nothing_is_acknowledged_and_everything_is_refused() {
    for fault in [Fault::Apply, Fault::Sync, Fault::Panic] {
        let disk = RamDisk::new();
        // The boot is one call, the first group another one.
        let mut world = World::open(Some(failing(&disk, fault, 2)), Durability::Disk).unwrap();
        world.submit("run", 3);
        world.memory.barrier().unwrap();
        let good = world.memory.acknowledged();

        world.complete(task(0, 0), "lost");
        let group = world.memory.seal();
        let error = world.memory.barrier().unwrap_err();
        assert_eq!(world.memory.failure(), Some(&error), "{fault:?}");
        assert_eq!(world.memory.acknowledged(), good);
        assert!(good < group);

        let token = world.grant(task(0, 1));
        let now = world.now();
        let refused = world.memory.complete(now, completion(task(0, 1), token, Default::default()));
        assert!(matches!(refused, Err(CommitError::Unavailable { .. })), "{refused:?}");
        let refused = world.memory.transact(now, Default::default());
        assert!(matches!(refused, Err(CommitError::Unavailable { .. })), "{refused:?}");
        let refused = world.memory.submit(now, "other", graph("other", 1), &bindings(), 0);
        assert!(matches!(refused, Err(SubmitError::Unavailable { .. })), "{refused:?}");
        world.memory.seal();
        assert_eq!(world.memory.acknowledged(), good);
        assert_eq!(world.memory.close(), Err(error));

        let after = World::on(&disk.after(Crash::PowerCut { batches_kept: 0 }));
        assert_eq!(after.recovered.runs[0].outputs, [None, None, None]);
    }
}

#[test]
fn at_level_memory_a_failure_shows_soon_although_all_was_acknowledged() {
    let disk = RamDisk::new();
    let mut world = World::open(Some(failing(&disk, Fault::Apply, 1)), Durability::Memory).unwrap();
    world.submit("run", 1);
    let group = world.memory.seal();
    assert_eq!(world.memory.acknowledged(), group);
    world.memory.barrier().unwrap_err();
    let now = world.now();
    let refused = world.memory.transact(now, Default::default());
    assert!(matches!(refused, Err(CommitError::Unavailable { .. })), "{refused:?}");
}

#[test]
fn a_boot_that_cannot_be_made_durable_does_not_serve() {
    for fault in [Fault::Apply, Fault::Sync] {
        let disk = RamDisk::new();
        assert!(World::open(Some(failing(&disk, fault, 0)), Durability::Memory).is_err());
    }
}

#[test]
fn the_owner_is_notified_of_progress_and_of_failure() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let disk = RamDisk::new();
    let notify = guild_memory::Commits::OnThread(Box::new(move || sender.send(()).unwrap_or(())));
    let (mut memory, _) = guild_memory::Memory::open(
        Some(failing(&disk, Fault::Sync, 2)),
        Durability::Disk,
        guild_core::limits::Limits::default(),
        notify,
    )
    .unwrap();
    let now = guild_core::time::Timestamp(1);
    memory.submit(now, "a", graph("a", 1), &bindings(), 0).unwrap();
    let group = memory.seal();
    receiver.recv().unwrap();
    assert_eq!(memory.acknowledged(), group);
    memory.submit(now, "b", graph("b", 1), &bindings(), 0).unwrap();
    memory.seal();
    receiver.recv().unwrap();
    assert!(memory.failure().is_some());
}
