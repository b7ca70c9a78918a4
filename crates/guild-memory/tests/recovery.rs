//! What was acknowledged is there after a restart, all of it and nothing else.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::sync::Arc;

use common::{World, bindings, completion, graph, output, task};
use guild_core::event::{EndState, Event, Names, Outcome, Tally};
use guild_core::graph::{Graph, TaskName};
use guild_core::history::TaskEnd;
use guild_core::id::{BootEpoch, FencingToken, RunId, TaskIndex};
use guild_core::payload::Payload;
use guild_memory::reader::StoreView;
use guild_memory::store::{Crash, RamDisk};
use guild_memory::{CommitError, Durability, SubmitError, Submitted};

/// Spawned tasks `[0]`, `[1]`, ...
fn map_of(tasks: u32) -> Arc<Graph> {
    let mut map = (*graph("", tasks)).clone();
    for (number, task) in (0..).zip(&mut map.tasks) {
        task.name = TaskName::Number(number);
    }
    Arc::new(map)
}

fn complete_with_map(world: &mut World, parent: guild_core::id::TaskId, tasks: u32) {
    let token = world.grant(parent);
    let mut handed_in = completion(parent, token, Default::default());
    handed_in.spawned = Some(Box::new((map_of(tasks), bindings())));
    let now = world.now();
    world.memory.complete(now, handed_in).unwrap();
}

#[test]
fn an_empty_store_is_epoch_one_and_every_start_is_a_new_one() {
    let disk = RamDisk::new();
    for epoch in 1..4 {
        let world = World::on(&disk);
        assert_eq!(world.recovered.epoch, BootEpoch(epoch));
        assert!(world.recovered.runs.is_empty());
        // Durable before anything is served: a power cut right now does not give it away again.
        let after = World::on(&disk.after(Crash::PowerCut { batches_kept: 0 }));
        assert_eq!(after.recovered.epoch, BootEpoch(epoch + 1));
    }
}

#[test]
fn everything_comes_back_after_a_restart() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    let roles = world.memory.intern_roles(&["worker".into(), "sorter".into()]).unwrap();
    let run = world.submit("first", 3);
    world.complete(task(0, 0), "zero");
    complete_with_map(&mut world, task(0, 1), 2);
    world.complete(task(0, 4), "spawned");
    let now = world.now();
    let ended = Event::TaskEnded { task: task(0, 2), state: EndState::Skipped };
    world.memory.record(now, ended);
    world.put_all(&[("a", 1), ("b", 2)]);
    let mut transaction = world.begin();
    transaction.delete("a");
    transaction.add("b", 40).unwrap();
    world.commit(transaction).unwrap();
    let (values, records) = (world.begin(), world.memory.take_records());
    let values = { values }.scan_prefix_bytes("", 100).unwrap();
    world.memory.close().unwrap();

    let mut world = World::on(&disk);
    let recovered = world.recovered.clone();
    assert_eq!(recovered.roles, ["worker", "sorter"]);
    assert_eq!(recovered.last_seq, records.len() as u64);
    assert_eq!(recovered.last_at, now.after(std::time::Duration::from_micros(2)));
    assert_eq!(recovered.runs.len(), 1);
    let first = &recovered.runs[0];
    assert_eq!((first.id, &*first.name, &first.graph), (run, "first", &graph("first", 3)));
    assert_eq!(first.spawned, [(TaskIndex(1), map_of(2), bindings())]);
    assert_eq!(
        first.outputs,
        [Some(output("zero")), Some(Payload::NULL), None, None, Some(output("spawned"))]
    );
    let ends: Vec<_> = first.history.tasks.iter().map(|task| task.end).collect();
    assert!(matches!(ends[0], Some(TaskEnd::Completed(_))));
    assert_eq!((ends[2], ends[3]), (Some(TaskEnd::Ended(EndState::Skipped)), None));
    assert_eq!(world.begin().scan_prefix_bytes("", 100).unwrap(), values);
    assert_eq!(world.value("b"), Some(42));
    assert_eq!(world.memory.intern_roles(&["sorter".into()]).unwrap(), [roles[1]]);

    // Commits go on where they ended, and what is done stays done.
    let next = world.complete(task(0, 3), "late");
    assert_eq!(next.0, 6);
    let token = world.grant(task(0, 0));
    let again = completion(task(0, 0), token, Default::default());
    let now = world.now();
    assert_eq!(world.memory.complete(now, again), Err(CommitError::StaleToken));
}

#[test]
fn the_reader_shows_what_the_guild_wrote() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    world.memory.intern_roles(&["worker".into()]).unwrap();
    let mut records = Vec::new();
    world.submit("first", 40_000);
    world.memory.seal();
    complete_with_map(&mut world, task(0, 7), 2);
    world.memory.seal();
    complete_with_map(&mut world, task(0, 40_001), 3);
    records.append(&mut world.memory.take_records());
    world.memory.close().unwrap();

    let view = StoreView::of(Box::new(disk.open())).unwrap();
    let read: Vec<_> = view.events(0).map(Result::unwrap).collect();
    assert_eq!(read, records);
    let seq = view.last_seq();
    let tail: Vec<_> = view.events(seq - 1).map(|record| record.unwrap().seq).collect();
    assert_eq!(tail, [seq - 1, seq]);
    assert_eq!(view.epoch(), Some(BootEpoch(1)));
    let name = |index| view.names().task(task(0, index));
    assert_eq!(
        (name(7), name(40_001), name(40_003)),
        ("t7".into(), "t7[1]".into(), "t7[1][1]".into())
    );
    assert_eq!(view.names().find_task(RunId(0), "t7[1][1]"), Some(TaskIndex(40_003)));
    assert_eq!(view.names().find_run("first"), Some(RunId(0)));
}

#[test]
fn a_power_cut_keeps_whole_groups_in_order() {
    let disk = RamDisk::new();
    // At level Memory nothing is synced, so that every prefix of the groups is a possible image.
    let mut world = World::open(Some(Box::new(disk.open())), Durability::Memory).unwrap();
    world.submit("run", 50);
    for number in 0..50 {
        world.complete(task(0, number), "done");
        world.memory.barrier().unwrap();
    }
    let batches = disk.unsynced_batches();
    assert!(batches >= 50, "{batches}");
    for kept in 0..=batches {
        let image = disk.after(Crash::PowerCut { batches_kept: kept });
        let after = World::on(&image);
        let completed = after.recovered.runs.first().map_or(0, |run| {
            let count = run.outputs.iter().filter(|output| output.is_some()).count();
            // Exactly the first ones, each with its data.
            assert!(run.outputs[..count].iter().all(Option::is_some));
            count
        });
        assert_eq!(after.begin().scan_prefix_bytes("done/", 100).unwrap().len(), completed);
        assert!(completed <= kept);
    }
}

#[test]
fn a_group_is_acknowledged_only_after_its_sync() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    world.submit("run", 100);
    for number in 0..100 {
        world.complete(task(0, number), "done");
        let group = world.memory.seal();
        while world.memory.acknowledged() < group {
            std::thread::yield_now();
        }
        let after = World::on(&disk.after(Crash::PowerCut { batches_kept: 0 }));
        assert!(after.recovered.runs[0].outputs[number as usize].is_some());
    }
}

#[test]
fn a_run_is_submitted_once_per_name() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    world.submit("run", 2);
    for _ in 0..2 {
        let now = world.now();
        let same = world.memory.submit(now, "run", graph("run", 2), &bindings(), 9).unwrap();
        assert_eq!(same, Submitted::Existing(RunId(0)));
        let other = world.memory.submit(now, "run", graph("run", 3), &bindings(), 0);
        assert!(matches!(other, Err(SubmitError::RunExists { .. })), "{other:?}");
        world.memory.close().unwrap();
        world = World::on(&disk);
    }
    assert_eq!(world.submit("second", 1), RunId(1));
}

#[test]
fn only_the_newest_token_of_a_task_commits_and_only_once() {
    let mut world = World::volatile();
    world.submit("run", 2);
    let try_with = |world: &mut World, token| {
        let mut transaction = world.begin();
        transaction.add("effects", 1).unwrap();
        let now = world.now();
        let handed_in = completion(task(0, 0), token, transaction.into_parts());
        let result = world.memory.complete(now, handed_in);
        world.memory.seal();
        result
    };
    let stale = Err(CommitError::StaleToken);
    assert_eq!(try_with(&mut world, FencingToken(0)), stale);
    assert_eq!(try_with(&mut world, FencingToken(u64::MAX)), stale);
    let old = world.grant(task(0, 0));
    let new = world.grant(task(0, 0));
    world.memory.grant(task(0, 0), old);
    assert_eq!(try_with(&mut world, old), stale);
    assert_eq!(try_with(&mut world, new).map(|version| version.0), Ok(1));
    assert_eq!(try_with(&mut world, new), stale);
    assert_eq!(try_with(&mut world, FencingToken(u64::MAX)), stale);
    let later = world.grant(task(0, 0));
    assert_eq!(try_with(&mut world, later), stale);
    assert_eq!(world.value("effects"), Some(1));
}

#[test]
fn a_task_that_ended_or_is_unknown_does_not_complete() {
    let mut world = World::volatile();
    world.submit("run", 2);
    let token = world.grant(task(0, 0));
    let now = world.now();
    world.memory.record(now, Event::TaskEnded { task: task(0, 0), state: EndState::Cancelled });
    let run_ended = Event::RunEnded {
        run: RunId(0),
        outcome: Outcome::Cancelled,
        tally: Tally::default(),
        makespan_us: 0,
    };
    let try_complete = |world: &mut World, task, token| {
        world.memory.complete(now, completion(task, token, Default::default()))
    };
    let stale = Err(CommitError::StaleToken);
    assert_eq!(try_complete(&mut world, task(0, 0), token), stale);
    assert_eq!(try_complete(&mut world, task(0, 9), token), stale);
    assert_eq!(try_complete(&mut world, task(3, 0), token), stale);
    let token = world.grant(task(0, 1));
    world.memory.record(now, run_ended);
    assert_eq!(try_complete(&mut world, task(0, 1), token), stale);
}

#[test]
fn a_conflict_leaves_nothing_behind_and_the_token_valid() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    world.submit("run", 1);
    let token = world.grant(task(0, 0));
    let mut transaction = world.begin();
    transaction.get::<i64>("a").unwrap();
    transaction.put("b", &1).unwrap();
    let mut handed_in = completion(task(0, 0), token, transaction.into_parts());
    handed_in.spawned = Some(Box::new((map_of(3), bindings())));
    handed_in.output = output("x");
    world.put_all(&[("a", 1)]);
    let (now, events) = (world.now(), world.memory.take_records().len());
    let refused = world.memory.complete(now, handed_in.clone());
    assert!(matches!(refused, Err(CommitError::Conflict(_))), "{refused:?}");
    assert_eq!((events, world.memory.take_records().len()), (3, 0));

    handed_in.transaction = None;
    assert_eq!(world.memory.complete(now, handed_in).unwrap().0, 2);
    assert_eq!(world.memory.take_records().len(), 4);
    world.memory.close().unwrap();
    let world = World::on(&disk);
    assert_eq!((world.value("a"), world.value("b")), (Some(1), None));
    assert_eq!(world.recovered.runs[0].outputs.len(), 4);
}

#[test]
fn a_turn_that_was_not_sealed_is_given_up() {
    let disk = RamDisk::new();
    let mut world = World::on(&disk);
    world.submit("sealed", 1);
    world.memory.seal();
    world.submit("torn", 1);
    drop(world);
    let world = World::on(&disk);
    let names: Vec<_> = world.recovered.runs.iter().map(|run| run.name.to_string()).collect();
    assert_eq!(names, ["sealed"]);
}
