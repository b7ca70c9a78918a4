//! `guild incidents`: lists, filters, groups, sums up, shows and acknowledges what went wrong.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Desk, Ended, wait_until};

const FLOW: &str = r#"
[roles.tool]
kind = "exec"
agents = 2
[roles.other]
kind = "exec"
[defaults]
retry = { attempts = 2, backoff = "1ms" }
[tasks.crash]
role = "tool"
for_each = ["a", "b"]
shell = "kill -SEGV $$"
[tasks.error]
role = "other"
shell = "echo disk is full >&2; exit 3"
[tasks.late]
role = "other"
shell = "[ $GUILD_ATTEMPT = 2 ] || sleep 1000"
timeout = "200ms"
"#;

fn ask(desk: &Desk, arguments: &[&str]) -> Ended {
    desk.ask(&[&["incidents"], arguments].concat())
}

fn said(desk: &Desk, arguments: &[&str]) -> String {
    desk.said(&[&["incidents"], arguments].concat())
}

fn said_json(desk: &Desk, arguments: &[&str]) -> Value {
    desk.said_json(&[&["incidents"], arguments].concat())
}

fn rows(desk: &Desk, filter: &[&str]) -> Vec<Value> {
    said_json(desk, filter)["incidents"].as_array().unwrap().clone()
}

#[test]
fn incidents_are_listed_with_all_that_is_known_and_filtered_by_each_of_it() {
    let desk = Desk::with_failed_run(FLOW);
    let all = rows(&desk, &[]);

    // Two crashes and an end of each of two tasks, the end of the error, and the timeout.
    assert_eq!(all.len(), 4 + 2 + 1 + 1);
    let count = |filter: &[&str]| rows(&desk, filter).len();
    assert_eq!(count(&["--role", "tool"]), 6);
    assert_eq!(count(&["--agent", "other-0"]), 2);
    assert_eq!(count(&["--task", "crash[0]"]), 3);
    assert_eq!(count(&["--task", "crash[*]"]), 6);
    assert_eq!(count(&["--cause", "segfault"]), 6);
    assert_eq!(count(&["--cause", "panic"]), 6, "the coarse cause is one, too");
    assert_eq!(count(&["--cause", "timeout", "--role", "other"]), 1);
    assert_eq!(count(&["--cause", "timeout", "--role", "tool"]), 0);
    assert_eq!(count(&["--since", "1h"]), all.len());
    assert_eq!(count(&["--state", "open"]), count(&[]) - count(&["--state", "recovered"]));
    let late = &rows(&desk, &["--cause", "timeout"])[0];
    assert_eq!((&late["type"], &late["role"]), (&json!("agent_crashed"), &json!("other")));
    assert_eq!((&late["task"], &late["attempt"]), (&json!("late"), &json!(1)));
    assert!(late["token"].is_u64() && late["fingerprint"].is_string());
    let crash = &rows(&desk, &["--task", "crash[1]"])[0];
    assert!(crash["message"].as_str().unwrap().contains("killed by signal 11 (SIGSEGV"));
    let table = said(&desk, &["--role", "tool"]);
    assert!(table.contains("segfault") && table.contains("crash[0]"), "{table}");
}

#[test]
fn one_mistake_is_one_group() {
    let desk = Desk::with_failed_run(FLOW);

    let groups = said_json(&desk, &["--groups"]);

    let groups = groups["groups"].as_array().unwrap();
    let counts: Vec<_> =
        groups.iter().map(|group| (group["type"].as_str(), group["count"].as_u64())).collect();
    assert_eq!(counts[0], (Some("agent_crashed"), Some(4)));
    assert_eq!(counts[1], (Some("task_failed"), Some(2)));
    assert!(said(&desk, &["--groups"]).contains("segfault"));
}

#[test]
fn the_summary_says_what_fails_most() {
    let desk = Desk::with_failed_run(FLOW);

    let json = said_json(&desk, &["--summary"]);
    let table = said(&desk, &["--summary"]);

    assert_eq!(json["total"]["incidents"], 8);
    assert_eq!(
        (&json["roles"][0]["name"], &json["roles"][0]["incidents"]),
        (&json!("tool"), &json!(6))
    );
    assert_eq!(json["task_kinds"][0]["name"], "crash[*]");
    assert_eq!(json["causes"][0]["name"], "segfault");
    assert!(json["total"]["mean_time_to_recover_us"].as_u64().is_some());
    assert!(table.contains("8 incidents") && table.contains("mean time to recover"), "{table}");
    let of_one = said_json(&desk, &["--summary", "--role", "other"]);
    assert_eq!(of_one["total"]["incidents"], 2);
}

#[test]
fn one_incident_is_shown_and_acknowledged_with_a_note_that_stays() {
    let desk = Desk::with_failed_run(FLOW);
    let number = rows(&desk, &["--task", "error"])[0]["incident"].to_string();

    let shown = said(&desk, &["show", &number]);
    assert!(shown.contains("disk is full") && shown.contains("given up"), "{shown}");
    said(&desk, &["ack", &number, "--note", "made room"]);
    said(&desk, &["ack", &number, "--note", "made more room"]);

    let row = said_json(&desk, &["show", &number]);
    assert_eq!((&row["state"], &row["note"]), (&json!("acknowledged"), &json!("made more room")));
    assert_eq!(rows(&desk, &["--state", "acknowledged"]).len(), 1);
    // The store is as good as before: the run that has ended shows what came of it.
    let again = desk.run(&["--store", "store"]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
}

#[test]
fn wrong_numbers_filters_and_stores_are_refused_and_nothing_is_written() {
    let desk = Desk::with_failed_run(FLOW);
    let before = said(&desk, &[]);

    ask(&desk, &["show", "99"]).refused(2, &["no incident 99", "8 were opened"]);
    ask(&desk, &["ack", "99"]).refused(2, &["no incident 99"]);
    ask(&desk, &["ack", "1", "--note", &"x".repeat(10_000)]).refused(2, &["--note", "8192 bytes"]);
    ask(&desk, &["--cause", "segfalt"]).refused(2, &["--cause", "did you mean `segfault`?"]);
    ask(&desk, &["--since", "soon"]).refused(2, &["--since", "no duration"]);
    ask(&desk, &["--state", "shut"]).refused(2, &["--state", "acknowledged"]);
    Ended::of(desk.guild().args(["incidents"])).refused(2, &["--store"]);
    Ended::of(desk.guild().args(["incidents", "ack", "1", "--store", "none"]))
        .refused(4, &["none"]);

    assert_eq!(said(&desk, &[]), before);
    assert!(!desk.path("none").exists());
}

#[test]
fn a_store_in_use_is_not_acknowledged() {
    let desk = Desk::new();
    desk.flow("[roles.tool]\nkind = \"exec\"\n[tasks.a]\nshell = 'touch begun; while [ ! -e go ]; do sleep 0.01; done'\n");
    let guild = desk.start(&["--store", "store"]);
    wait_until("the task runs", || desk.path("begun").exists());

    ask(&desk, &["ack", "1"]).refused(4, &["store", "in use"]);

    fs::write(desk.path("go"), "").unwrap();
    Ended::from(guild.wait_with_output().unwrap()).completed();
}
