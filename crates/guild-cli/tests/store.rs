//! Commands on a store, and stores that cannot be used: exit code 4, and what to do.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::fs;
use std::ops::{Bound, ControlFlow};
use std::process::Stdio;

use guild_memory::store::{SledStore, Store, WriteBatch};
use serde_json::json;
use support::{Desk, Ended, events, wait_until};

const FLOW: &str = r#"
[roles.tool]
kind = "exec"
[defaults]
retry = { attempts = 2, backoff = "1ms" }
[tasks.one]
command = ["echo", "1"]
parse = "json"
memory.add = { "totals/sum" = "{{ output }}" }
memory.put = { "totals/name" = "{{ task }}", other = [1, 2] }
[tasks.bad]
shell = "kill -9 $$"
[tasks.after]
command = ["true"]
after = ["bad"]
"#;

#[test]
fn status_shows_runs_and_their_tasks() {
    let desk = Desk::with_failed_run(FLOW);

    let table = desk.said(&["status"]);
    let json = desk.said_json(&["status"]);

    assert!(table.contains("flow") && table.contains("failed"), "{table}");
    let run = json!({"run": "flow", "state": "failed", "tasks": 3, "completed": 1, "failed": 1, "skipped": 1,
                     "cancelled": 0, "attempts": 3});
    assert_eq!(json, json!({ "runs": [run] }));
}

#[test]
fn events_are_those_of_the_run_from_any_number_on() {
    let desk = Desk::with_failed_run(FLOW);
    let log = desk.read("events.jsonl");
    assert!(!events(&desk.path("events.jsonl")).is_empty());

    assert_eq!(desk.said(&["events"]), log);
    let rest: String = log.lines().skip(4).map(|line| format!("{line}\n")).collect();
    assert_eq!(desk.said(&["events", "--since", "5"]), rest);
    assert_eq!(desk.said(&["events", "--since", "100000"]), "");
}

#[test]
fn reader_that_has_seen_enough_is_no_error() {
    let desk = Desk::with_failed_run(FLOW);
    for command in [&["events"][..], &["status"], &["memory", "scan"]] {
        let mut guild = desk.guild();
        guild.args(command).args(["--store", "store"]);
        let mut guild = guild.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

        drop(guild.stdout.take());
        let ended = Ended::from(guild.wait_with_output().unwrap());

        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn memory_is_read_by_key_and_by_prefix() {
    let desk = Desk::with_failed_run(FLOW);

    assert_eq!(desk.said(&["memory", "get", "totals/sum"]), "1\n");
    let table = desk.said(&["memory", "scan", "totals/"]);
    let rows: Vec<_> = table.lines().filter(|line| line.contains("totals/")).collect();
    assert!(rows[0].contains("totals/name") && rows[0].contains("\"one\""), "{table}");
    assert!(rows[1].contains("totals/sum") && rows[1].contains('1'), "{table}");
    let all = desk.said(&["memory", "scan", "--format", "json"]);
    assert_eq!(all, "{\"other\":[1,2],\"totals/name\":\"one\",\"totals/sum\":1}\n");
    desk.ask(&["memory", "get", "absent"]).refused(2, &["no key `absent`", "guild memory scan"]);
}

#[test]
fn missing_store_is_told() {
    let desk = Desk::new();
    for command in [&["status"][..], &["events"], &["incidents"], &["memory", "scan"]] {
        desk.ask(command).refused(4, &["store"]);
    }
    assert!(!desk.path("store").exists());
}

#[test]
fn store_in_use_is_refused_and_nothing_is_disturbed() {
    let desk = Desk::new();
    desk.flow("[roles.tool]\nkind = \"exec\"\n[tasks.a]\nshell = 'touch begun; while [ ! -e go ]; do sleep 0.01; done'\n");
    let guild = desk.start(&["--store", "store"]);
    wait_until("the task runs", || desk.path("begun").exists());

    desk.run(&["--store", "store", "--events", "second"]).refused(4, &["store", "in use"]);
    desk.ask(&["status"]).refused(4, &["store", "in use"]);
    assert!(!desk.path("second").exists());

    fs::write(desk.path("go"), "").unwrap();
    Ended::from(guild.wait_with_output().unwrap()).completed();
}

/// Changes a row of the store beneath everything that checks it.
fn tamper(desk: &Desk, wanted: &[u8], change: impl Fn(&[u8], &[u8]) -> Vec<u8>) {
    let mut store = SledStore::open_existing(desk.path("store")).unwrap();
    let mut batch = WriteBatch::default();
    let mut each = |key: &[u8], row: &[u8]| {
        if key.starts_with(wanted) {
            batch.put(key, change(key, row));
        }
        ControlFlow::Continue(())
    };
    store.scan(Bound::Unbounded, Bound::Unbounded, &mut each).unwrap();
    assert!(!batch.is_empty());
    store.apply(&batch).unwrap();
    Box::new(store).close().unwrap();
}

/// CRC-32 of the length of the key, the key and the content, as the rows of a store carry it.
fn checksum(key: &[u8], content: &[u8]) -> [u8; 4] {
    let bytes =
        (key.len() as u64).to_le_bytes().into_iter().chain(key.iter().chain(content).copied());
    let sum = bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
        })
    });
    (!sum).to_le_bytes()
}

#[test]
fn corrupt_store_is_refused() {
    let desk = Desk::with_failed_run(FLOW);
    tamper(&desk, b"Dtotals/sum", |_, row| {
        let mut row = row.to_vec();
        *row.last_mut().unwrap() ^= 1;
        row
    });

    desk.run(&["--store", "store", "--events", "second"]).refused(4, &["store", "corrupt"]);
    desk.ask(&["status"]).refused(4, &["store", "corrupt"]);
    assert!(!desk.path("second").exists());
}

#[test]
fn store_of_another_format_is_refused() {
    let desk = Desk::with_failed_run(FLOW);
    tamper(&desk, b"Mformat", |key, row| {
        assert_eq!(row, [&checksum(key, &[9])[..], &[9]].concat());
        [&checksum(key, &[99])[..], &[99]].concat()
    });

    desk.run(&["--store", "store"]).refused(4, &["store", "format version 99", "knows 9"]);
}

#[test]
fn store_without_permission_is_refused() {
    let desk = Desk::new();
    desk.flow(FLOW);
    // Nobody may make a directory there, not even root.
    desk.run(&["--store", "/proc/store"]).refused(4, &["/proc/store"]);
}

#[test]
fn directory_that_is_none_or_holds_something_else_is_refused() {
    let desk = Desk::new();
    desk.flow(FLOW);
    fs::write(desk.path("file"), "x").unwrap();
    desk.run(&["--store", "file"]).refused(4, &["file"]);
    fs::create_dir(desk.path("other")).unwrap();
    fs::write(desk.path("other/letter.txt"), "x").unwrap();
    desk.run(&["--store", "other"]).refused(4, &["other", "not a guild store"]);
    assert_eq!(fs::read_dir(desk.path("other")).unwrap().count(), 1);
}
