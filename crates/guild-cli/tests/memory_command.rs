//! `guild memory` on a store: values, history, differences, the way back.

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Desk, Ended};

const FLOW: &str = r#"
[roles.tool]
kind = "exec"
[tasks.one]
command = ["echo", "1"]
parse = "json"
memory.put = { "board/a" = "{{ output }}", "board/gone" = "x" }
[tasks.two]
command = ["echo", "2"]
parse = "json"
after = ["one"]
memory.put = { "board/a" = "{{ output }}", "board/b" = [1, 2] }
[tasks.three]
command = ["echo", "3"]
parse = "json"
after = ["two"]
memory.add = { "total" = "{{ output }}" }
"#;

/// Returns a desk with a store in which the tasks were commits 1, 2 and 3.
fn with_store() -> Desk {
    Desk::with_completed_run(FLOW)
}

fn ask(desk: &Desk, arguments: &[&str]) -> Ended {
    desk.ask(&[&["memory"], arguments].concat())
}

fn said(desk: &Desk, arguments: &[&str]) -> String {
    desk.said(&[&["memory"], arguments].concat())
}

fn json_of(desk: &Desk, arguments: &[&str]) -> Value {
    desk.said_json(&[&["memory"], arguments].concat())
}

/// Returns the rows of a table, its heads first.
fn cells(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().filter(|line| line.starts_with('│'));
    rows.map(|row| row.trim_matches('│').split_whitespace().collect()).collect()
}

#[test]
fn values_can_be_read_as_of_a_version() {
    let desk = with_store();
    assert_eq!(said(&desk, &["get", "board/a"]), "2\n");
    assert_eq!(said(&desk, &["get", "board/a", "--at", "1"]), "1\n");
    assert_eq!(
        json_of(&desk, &["scan", "board/", "--at", "1"]),
        json!({"board/a": 1, "board/gone": "x"})
    );
    let table = said(&desk, &["scan", "--limit", "1"]);
    assert_eq!(cells(&table), [["key", "value"], ["board/a", "2"]]);
    let found = json_of(&desk, &["get", "board/a", "--at", "1"]);
    let agent = found["agent"].as_str().unwrap();
    assert!(agent.starts_with("tool-"), "{found}");
    let expected = json!({"key": "board/a", "version": 1, "run": "flow", "task": "one",
                          "agent": agent, "value": 1});
    assert_eq!(found, expected);
    ask(&desk, &["get", "board/b", "--at", "1"]).refused(2, &["no key `board/b` at version 1"]);
    ask(&desk, &["scan", "--at", "99"])
        .refused(2, &["version 99", "does not exist", "newest is 3"]);
}

#[test]
fn the_history_of_a_key_tells_versions_and_writers() {
    let desk = with_store();
    let history = json_of(&desk, &["history", "board/a"]);
    let told: Vec<_> = history["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| json!([row["version"], row["run"], row["task"], row["agent"], row["value"]]))
        .collect();
    assert_eq!(told[0], json!([2, "flow", "two", told[0][3], 2]));
    assert_eq!(told[1], json!([1, "flow", "one", told[1][3], 1]));
    assert!(told[0][3].as_str().unwrap().starts_with("tool-"), "{told:?}");
    let table = said(&desk, &["history", "board/a"]);
    assert!(table.contains("flow/two on tool-"), "{table}");
    ask(&desk, &["history", "nothing"]).refused(2, &["no key `nothing`", "since version 0"]);
}

#[test]
fn differences_go_both_ways() {
    let desk = with_store();
    let keys = json_of(&desk, &["diff", "1", "--prefix", "board/"])["keys"].clone();
    let expected = json!([
        {"key": "board/a", "before": 1, "after": 2, "added": false, "removed": false},
        {"key": "board/b", "before": null, "after": [1, 2], "added": true, "removed": false},
    ]);
    assert_eq!(keys, expected);
    let table = said(&desk, &["diff", "1", "--prefix", "board/"]);
    let rows =
        [["key", "before", "after"], ["board/a", "1", "2"], ["board/b", "(absent)", "[1,2]"]];
    assert_eq!(cells(&table), rows);
    assert_eq!(cells(&said(&desk, &["diff", "3", "2"]))[1..], [["total", "3", "(removed)"]]);
    assert_eq!(cells(&said(&desk, &["diff", "3"])).len(), 1, "nothing differs");
}

#[test]
fn a_rollback_is_a_new_commit_and_can_be_taken_back() {
    let desk = with_store();
    ask(&desk, &["rollback", "1"]).refused(2, &["--prefix", "--all"]);
    let told = json_of(&desk, &["rollback", "1", "--prefix", "board/"]);
    assert_eq!(told, json!({"to": 1, "version": 4, "keys": 2}));
    assert_eq!(json_of(&desk, &["scan"]), json!({"board/a": 1, "board/gone": "x", "total": 3}));
    let text = said(&desk, &["rollback", "3", "--all"]);
    assert_eq!(text, "2 keys are as they were at version 3; that is version 5 now\n");
    assert_eq!(json_of(&desk, &["diff", "3"])["keys"], json!([]), "all is as it was");
    assert!(said(&desk, &["rollback", "3", "--all"]).starts_with("nothing differs from version 3"));
    ask(&desk, &["rollback", "77", "--all"]).refused(2, &["version 77", "does not exist"]);
    // The run is untouched: it resumes as what it is, completed.
    desk.run(&["--store", "store"]).completed();
}

#[test]
fn changes_are_told_commit_by_commit_from_any_version_on() {
    let desk = with_store();
    let lines = said(&desk, &["watch", "board/", "--after", "0", "--once", "--format", "json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let versions: Vec<_> = lines.iter().map(|line| line["version"].clone()).collect();
    assert_eq!(versions, [1, 2]);
    assert_eq!(lines[1]["keys"][1], json!({"key": "board/b", "removed": false, "value": [1, 2]}));
    let text = said(&desk, &["watch", "--after", "2", "--once"]);
    assert!(text.starts_with("version 3 at ") && text.ends_with("  + total\t3\n"), "{text}");
    assert_eq!(said(&desk, &["watch", "--once"]), "", "from now on");
}

#[test]
fn history_is_forgotten_on_demand_and_values_stay() {
    let desk = with_store();
    let before = json_of(&desk, &["stats"]);
    assert_eq!((before["version"].clone(), before["oldest_version"].clone()), (json!(3), json!(0)));
    assert_eq!(before["prefixes"][1], json!({"prefix": "board/", "keys": 3, "bytes": 33}));

    assert_eq!(json_of(&desk, &["compact", "--before", "2"])["oldest_version"], 2);
    assert!(said(&desk, &["compact"]).contains("history goes back to version 2"));

    let after = json_of(&desk, &["stats"]);
    assert_eq!((after["keys"].clone(), after["oldest_version"].clone()), (json!(4), json!(2)));
    assert_eq!(after["history"]["commits"], 1);
    assert_eq!(said(&desk, &["get", "board/a", "--at", "2"]), "2\n");
    ask(&desk, &["get", "board/a", "--at", "1"])
        .refused(2, &["version 1", "no longer kept", "oldest is 2"]);
    ask(&desk, &["watch", "--after", "1", "--once"]).refused(2, &["no longer kept"]);
}

#[test]
fn a_store_is_changed_by_its_own_engine_or_not_at_all() {
    let desk = Desk::new();
    let names = |store: &str| {
        let files = std::fs::read_dir(desk.path(store)).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    if cfg!(feature = "redb") {
        desk.flow(FLOW);
        desk.run(&["--store", "old"]).completed();
        let migrate = ["memory", "migrate", "--store", "old", "--to", "store", "--engine", "redb"];
        assert_eq!(Ended::of(desk.guild().args(migrate)).code, Some(0));
        let before = names("store");
        let told = json_of(&desk, &["rollback", "1", "--all"]);
        assert_eq!(told, json!({"to": 1, "version": 4, "keys": 3}));
        assert_eq!(json_of(&desk, &["scan"]), json!({"board/a": 1, "board/gone": "x"}));
        assert_eq!(json_of(&desk, &["compact", "--before", "3"])["oldest_version"], 3);
        assert_eq!(json_of(&desk, &["stats"])["history"]["commits"], 1);
        assert_eq!(names("store"), before, "no other engine has been here");
        return;
    }
    std::fs::create_dir(desk.path("store")).unwrap();
    for file in ["guild.lock", "guild.used", "guild.redb"] {
        std::fs::write(desk.path("store").join(file), "").unwrap();
    }
    let before = names("store");
    for command in [&["rollback", "1", "--all"][..], &["compact"], &["checkpoint"], &["stats"]] {
        ask(&desk, command).refused(4, &["store", "engine redb", "--features redb"]);
        assert_eq!(names("store"), before, "{command:?}");
    }
}
