//! A guild whose store fails while it serves: it stops acknowledging, tells a person, opens the store
//! again, and goes on.
//!
//! What fails are sled's own failpoints. They are switches of the whole process, so all of this is one
//! test in a binary of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Acts, Echo, count, events};
use guild::{
    Action, Drain, Event, Guild, IncidentKind, Limits, Outcome, Recovery, RetryPolicy, Storage,
    Task, TransactError, Transaction,
};

/// Enough for the journal to be handed to sled several times.
const TASKS: u32 = 200;
const VALUE_BYTES: usize = 30_000;

/// Where sled writes rows, and how many times all goes well before.
const POINTS: [(&str, u32); 3] =
    [("buffer write", 0), ("buffer write", 2), ("buffer write post", 1)];

/// Returns a guild on a directory whose agents each write a large value of their own.
fn start(path: &std::path::Path) -> Guild {
    let mut limits = Limits::default();
    limits.events_in_memory_max = 1_000_000;
    Guild::builder()
        .role("writer", 8, || {
            Acts(async |number, task: &mut guild::TaskContext| {
                let memory = task.memory();
                let value = format!("{number}/{}", "x".repeat(VALUE_BYTES));
                memory.put(format!("values/{number}"), &value)?;
                memory.add("tasks", 1)?;
                Ok(number)
            })
        })
        .role("echo", 1, || Echo)
        .store(Storage::Directory(path.to_owned()))
        .limits(limits)
        .validate(true)
        .start()
        .unwrap()
}

/// Counts from outside until the run has ended and the store has failed, and returns how often it was
/// told that a count is durable.
fn count_until_the_end(guild: &Guild) -> i64 {
    let (memory, mut acknowledged) = (guild.memory(), 0);
    let (mut events, mut has_failed, mut has_ended) = (guild.events(1), false, false);
    while !(has_failed && has_ended) {
        for record in events.available().unwrap() {
            has_failed |= matches!(record.event, Event::IncidentOpened(_));
            has_ended |= matches!(record.event, Event::RunEnded { .. });
        }
        let value = "y".repeat(VALUE_BYTES);
        let counted = memory.transact_blocking(&RetryPolicy::once(), |memory| {
            memory.put("filler", &value)?;
            memory.add("outside", 1)
        });
        match counted {
            Ok(_) => acknowledged += 1,
            // The store is being opened again, and nothing of it is kept.
            Err(TransactError::Unavailable(why)) => assert!(why.contains("try again"), "{why}"),
            Err(error) => panic!("{error}"),
        }
        // Who only reads is not refused meanwhile, and sees what was acknowledged and no more.
        let read = |memory: &mut Transaction| memory.get::<i64>("outside");
        let (seen, _) = memory.transact_blocking(&RetryPolicy::once(), read).unwrap();
        assert_eq!(seen.unwrap_or(0), acknowledged);
    }
    acknowledged
}

#[test]
fn a_store_that_fails_under_a_guild_is_opened_again_and_nothing_acknowledged_is_lost() {
    for (point, good) in POINTS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let guild = start(&path);
        let mut graph = guild.graph("work");
        for number in 0..TASKS {
            graph.add(Task::new(format!("task-{number}"), "writer").input(&number));
        }
        sled::fail::set(point, 1 << good);
        let run = guild::block_on(guild.submit(graph.build().unwrap())).unwrap();
        let outside = count_until_the_end(&guild);

        let report = guild::block_on(run.wait()).unwrap();
        assert_eq!(report.outcome(), Outcome::Completed, "{point} after {good}");
        let incidents = guild.incidents();
        assert_eq!(incidents.len(), 1, "{point} after {good}: {incidents:?}");
        let incident = &incidents[0];
        assert_eq!(incident.report.kind, IncidentKind::StoreFailed);
        assert_eq!(incident.report.action, Action::ReopenStore);
        assert!(incident.report.message.contains("Fail point"), "{}", incident.report.message);
        assert!(matches!(incident.recovery, Some(Recovery { .. })), "{incident:?}");
        // It takes new work as before.
        let mut graph = guild.graph("after");
        graph.add(Task::new("echo", "echo").input(&1));
        let report = guild::block_on(async {
            guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap()
        });
        assert_eq!(report.outcome(), Outcome::Completed);
        guild::block_on(guild.shutdown(Drain::Now)).unwrap();

        let guild = start(&path);
        let memory = guild.memory().snapshot();
        for number in 0..TASKS {
            let value = memory.value::<String>(format!("values/{number}")).unwrap();
            let expected = format!("{number}/{}", "x".repeat(VALUE_BYTES));
            assert!(value == Some(expected), "{point} after {good}: values/{number}");
        }
        assert_eq!(memory.value::<u32>("tasks").unwrap(), Some(TASKS), "each once");
        assert_eq!(memory.value::<i64>("outside").unwrap(), Some(outside), "{point} after {good}");
        let log = events(&guild);
        assert_eq!(count(&log, "task_completed"), TASKS as usize + 1);
        assert_eq!(count(&log, "run_ended"), 2);
        assert_eq!(count(&log, "incident_recovered"), 1);
        guild::block_on(guild.shutdown(Drain::Now)).unwrap();
    }
}
