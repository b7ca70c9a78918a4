//! Checkpoints of a guild that serves, and the way back from a store that cannot be read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;

use common::{Acts, Echo, count, events};
use guild::{
    Action, Drain, Guild, IncidentKind, Outcome, RetryPolicy, Severity, Storage, Task,
    checkpoint::{self, CheckpointError},
};
use serde_json::json;

fn start(path: &Path) -> Result<Guild, guild::StartError> {
    Guild::builder()
        .role("echo", 1, || Echo)
        .role("writer", 2, || {
            Acts(async |number, task: &mut guild::TaskContext| {
                task.memory().put(format!("values/{number}"), &number)?;
                Ok(number)
            })
        })
        .store(Storage::Directory(path.to_owned()))
        .validate(true)
        .start()
}

fn put(guild: &Guild, key: &str, value: i64) {
    let memory = guild.memory();
    memory
        .transact_blocking(&RetryPolicy::immediately(1), |memory| memory.put(key, &value))
        .unwrap();
}

/// Runs a graph of ten tasks of which each puts a value; the same name is the same run.
fn run(guild: &Guild) {
    let mut graph = guild.graph("work");
    for number in 0..10 {
        graph.add(Task::new(format!("task-{number}"), "writer").input(&number));
    }
    guild::block_on(async {
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!(report.outcome(), Outcome::Completed);
    });
}

fn stop(guild: &Guild) {
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
}

/// Makes what the engine has written unreadable.
fn damage(path: &Path) {
    let data = path.join("db");
    let length = fs::metadata(&data).unwrap().len();
    fs::write(data, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
}

/// Returns the files of a store that are Guild's own. Those of sled it changes itself: what it takes for
/// garbage it clears.
fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_of_sled = ["db", "conf", "blobs"].contains(&&*name) || name.starts_with("snap.");
        if !is_of_sled && name != "guild.lock" {
            files.push((name, fs::read(&path).unwrap_or_default()));
        }
    }
    files.sort();
    files
}

#[test]
fn a_damaged_store_is_kept_aside_and_the_checkpoint_takes_its_place_loudly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let first = start(&path).unwrap();
    run(&first);
    put(&first, "before", 1);
    let written = guild::block_on(first.memory().checkpoint()).unwrap();
    assert_eq!(checkpoint::list(&path).unwrap(), std::slice::from_ref(&written.path));
    put(&first, "later", 2);
    stop(&first);
    damage(&path);

    let second = start(&path).unwrap();

    let memory = second.memory().snapshot();
    for number in 0..10 {
        assert_eq!(memory.value::<i64>(format!("values/{number}")).unwrap(), Some(number));
    }
    assert_eq!(memory.value::<i64>("before").unwrap(), Some(1));
    assert_eq!(memory.value::<i64>("later").unwrap(), None, "it came after the checkpoint");
    let incidents = second.incidents();
    let restored =
        incidents.iter().find(|it| it.report.kind == IncidentKind::StoreRestored).unwrap();
    let Action::RestoreStore { checkpoint, kept } = &restored.report.action else {
        panic!("{restored:?}");
    };
    assert_eq!(Path::new(&**checkpoint), written.path);
    assert!(Path::new(&**kept).join("db").exists(), "{kept}");
    assert!(restored.report.message.contains("corrupt"), "{}", restored.report.message);
    assert_eq!(restored.report.severity, Severity::Error);
    assert!(restored.recovery.is_some(), "a store serves again");
    // The run is what it was, and the store serves.
    run(&second);
    assert_eq!(second.stats().attempts, 0);
    put(&second, "later", 3);
    stop(&second);
    let third = start(&path).unwrap();
    assert_eq!(third.memory().snapshot().value::<i64>("later").unwrap(), Some(3));
    let log = events(&third);
    let opened: Vec<_> = log.iter().filter(|event| event["kind"] == "incident_opened").collect();
    assert_eq!((opened.len(), &opened[0]["type"]), (1, &json!("store_restored")));
    assert_eq!(count(&log, "task_completed"), 10);
    stop(&third);
}

#[test]
fn a_damaged_store_without_a_checkpoint_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let guild = start(&path).unwrap();
    put(&guild, "key", 1);
    stop(&guild);
    damage(&path);
    let before = files(&path);

    // Not even the second time is it taken for an empty one.
    for _ in 0..2 {
        let refused = start(&path).unwrap_err().to_string();
        assert!(refused.contains("corrupt"), "{refused}");
        assert!(refused.contains("restore the directory from a backup"), "{refused}");
        assert!(files(&path) == before, "nothing has changed");
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_an_incident_until_one_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let guild = start(&path).unwrap();
    put(&guild, "key", 1);
    // A file is where the checkpoints would be.
    fs::write(path.join("checkpoints"), "").unwrap();

    for _ in 0..2 {
        let refused = guild::block_on(guild.memory().checkpoint()).unwrap_err();
        assert!(matches!(refused, CheckpointError::Io { .. }), "{refused:?}");
    }

    put(&guild, "key", 2);
    let incidents = guild.incidents();
    assert!(!incidents.is_empty());
    for incident in &incidents {
        assert_eq!(incident.report.kind, IncidentKind::CheckpointFailed);
        assert_eq!(incident.report.action, Action::SkipCheckpoint);
        assert!(incident.report.message.contains("checkpoints"), "{}", incident.report.message);
        assert!(incident.recovery.is_none());
    }
    fs::remove_file(path.join("checkpoints")).unwrap();
    let written = guild::block_on(guild.memory().checkpoint()).unwrap();
    assert!(checkpoint::verify(&written.path).is_ok());
    assert!(guild.incidents().iter().all(|incident| incident.recovery.is_some()));
    stop(&guild);
}

#[test]
fn a_memory_in_ram_has_no_checkpoint() {
    let guild = Guild::builder().role("echo", 1, || Echo).start().unwrap();
    let refused = guild::block_on(guild.memory().checkpoint());
    assert_eq!(refused, Err(CheckpointError::NoStore));
    stop(&guild);
}
