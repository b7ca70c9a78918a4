//! `guild verify` on logs of real processes and of simulations, whole and doctored.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;
use support::{Desk, Ended};

const FLOW: &str = r#"
name = "verified"

[roles.tool]
kind = "exec"
agents = 4

[quotas.door]
permits = 1

[tasks.list]
command = ["true"]

[tasks.each]
for_each = "{{ range(12) }}"
after = ["list"]
command = ["true"]
quota = { door = 1 }
memory.add = { count = 1 }
retry = { attempts = 50, backoff = "1ms" }

[tasks.last]
command = ["true"]
after = ["each"]
"#;

/// A desk with the log of a run of a real process, under chaos and on a store.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.flow(FLOW);
    let run = desk.run(&[
        "--store",
        "store",
        "--events",
        "events.jsonl",
        "--chaos",
        "crash=0.2",
        "--seed",
        "3",
    ]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    desk
}

fn verify(desk: &Desk, file: &str, more: &[&str]) -> Ended {
    Ended::of(desk.guild().args(["verify", file]).args(more))
}

#[test]
fn log_of_a_real_run_is_clean() {
    let desk = desk();

    let verified = verify(&desk, "events.jsonl", &[]);

    assert_eq!(verified.code, Some(0), "{}\n{}", verified.stdout, verified.stderr);
    for part in ["I1 ", "no task is lost", "tasks ended", "no promise is broken", "not judged"] {
        assert!(verified.stdout.contains(part), "`{part}` is not in: {}", verified.stdout);
    }
    let json: Value =
        serde_json::from_str(&verify(&desk, "events.jsonl", &["--format", "json"]).stdout).unwrap();
    assert_eq!(json["clean"], true);
    assert_eq!(json["invariants"].as_array().unwrap().len(), 17);
    assert_eq!(json["invariants"][0]["verdict"], "holds");
    assert_eq!(json["lines"], desk.lines("events.jsonl").len() as u64);
}

#[test]
fn log_on_standard_input_and_compressed_is_read_too() {
    let desk = desk();
    let text = desk.read("events.jsonl");
    let file = fs::File::create(desk.path("events.jsonl.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap();
    assert_eq!(verify(&desk, "events.jsonl.gz", &[]).code, Some(0));

    let mut child = desk
        .guild()
        .args(["verify", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let verified = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert!(verified.stdout.contains("standard input:"), "{}", verified.stdout);

    let packed = fs::read(desk.path("events.jsonl.gz")).unwrap();
    fs::write(desk.path("cut.gz"), &packed[..packed.len() / 2]).unwrap();
    verify(&desk, "cut.gz", &[]).refused(2, &["cut.gz: line "]);
}

#[test]
fn violation_ends_with_3_and_names_its_line() {
    let desk = desk();
    let mut lines = desk.lines("events.jsonl");
    let end = lines.iter().position(|line| line.contains("\"task_completed\"")).unwrap();
    let ready = lines.iter().position(|line| line.contains("\"task_ready\"")).unwrap();
    let seq = format!("{{\"seq\":{},", end + 1);
    let at = lines[end].split(",\"kind\"").next().unwrap().split("\"at_us\":").nth(1).unwrap();
    let (_, rest) = lines[ready].split_once(",\"kind\"").unwrap();
    lines[end] = format!("{seq}\"at_us\":{at},\"kind\"{rest}");
    fs::write(desk.path("doctored.jsonl"), lines.join("\n")).unwrap();

    let verified = verify(&desk, "doctored.jsonl", &[]);

    assert_eq!(verified.code, Some(3), "{}\n{}", verified.stdout, verified.stderr);
    let named = format!("doctored.jsonl: line {} (seq {}): I", end + 1, end + 1);
    assert!(verified.stderr.contains(&named), "{}", verified.stderr);
    assert!(verified.stdout.contains("VIOLATED"), "{}", verified.stdout);
    let json: Value =
        serde_json::from_str(&verify(&desk, "doctored.jsonl", &["--format", "json"]).stdout)
            .unwrap();
    assert_eq!(json["clean"], false);
}

#[test]
fn what_is_no_event_log_ends_with_2_and_names_the_place() {
    let desk = desk();
    let lines = desk.lines("events.jsonl");
    let write = |name: &str, text: String| fs::write(desk.path(name), text).unwrap();
    write("cut.jsonl", format!("{}\n{}", lines[0], &lines[1][..lines[1].len() / 2]));
    write("gap.jsonl", format!("{}\n{}\n", lines[0], lines[2]));
    write("order.jsonl", format!("{}\n{}\n", lines[1], lines[0]));
    write("text.jsonl", "Dear reader,\n".to_owned());
    write("empty.jsonl", String::new());
    fs::write(desk.path("bytes.jsonl"), [0xff, 0xfe, b'\n']).unwrap();

    verify(&desk, "cut.jsonl", &[]).refused(2, &["cut.jsonl: line 2: column"]);
    verify(&desk, "gap.jsonl", &[]).refused(2, &["gap.jsonl: line 2: seq is 3, not 2"]);
    verify(&desk, "order.jsonl", &[]).refused(2, &["order.jsonl: line 1: seq is 2, not 1"]);
    verify(&desk, "text.jsonl", &[]).refused(2, &["text.jsonl: line 1: column 1: expected value"]);
    verify(&desk, "empty.jsonl", &[]).refused(2, &["empty.jsonl: it is empty"]);
    verify(&desk, "bytes.jsonl", &[]).refused(2, &["bytes.jsonl: line 1: no UTF-8 (byte 1)"]);
    verify(&desk, "absent.jsonl", &[]).refused(2, &["absent.jsonl: cannot read it"]);
    verify(&desk, ".", &[]).refused(2, &["cannot read it"]);
    let refused = verify(&desk, "cut.jsonl", &["--format", "json"]);
    assert_eq!(refused.stdout, "");
}

#[test]
fn simulation_is_validated_as_it_runs_and_its_log_is_clean() {
    let desk = Desk::new();
    desk.flow(FLOW);
    let simulate = |more: &[&str]| {
        let chaos = ["simulate", "flow.toml", "--validate", "--chaos", "crash=0.1,hang=0.02"];
        Ended::of(desk.guild().args(chaos).args(more))
    };

    let one = simulate(&["--events", "simulated.jsonl"]);
    assert_eq!(one.code, Some(0), "{}", one.stderr);
    let many = simulate(&["--seeds", "5", "--sweep", "agents=1,3"]);
    assert_eq!(many.code, Some(0), "{}", many.stderr);
    let verified = verify(&desk, "simulated.jsonl", &["--format", "json"]);

    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    let json = verified.json();
    assert_eq!(json["invariants"][12]["invariant"], "I13");
    assert_eq!(json["invariants"][12]["verdict"], "holds");
}

/// A desk with the history of a run of a real process, under chaos.
fn with_history() -> Desk {
    let desk = Desk::new();
    desk.flow(FLOW);
    let run = ["--history", "history.jsonl", "--chaos", "crash=0.2", "--seed", "3"];
    desk.run(&run).completed();
    desk
}

#[test]
fn history_of_a_real_run_is_serialisable() {
    let desk = with_history();

    let verified = verify(&desk, "history.jsonl", &[]);

    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert!(verified.stdout.contains("history.jsonl: strictly serialisable: 12 transactions"));
    let json = verify(&desk, "history.jsonl", &["--format", "json"]).json();
    assert_eq!((&json["serialisable"], &json["transactions"]), (&true.into(), &12.into()));
    assert_eq!(json["anomalies"], Value::Array(Vec::new()));
    let lines = desk.lines("history.jsonl");
    assert_eq!(lines.len(), 12);
    for line in &lines {
        let commit: Value = serde_json::from_str(line).unwrap();
        assert_eq!(commit["writes"], serde_json::json!(["count"]));
        assert!(commit["task"].as_str().unwrap().starts_with("verified/each["), "{line}");
    }
}

#[test]
fn history_that_no_order_explains_ends_with_3_and_names_the_line() {
    let desk = with_history();
    let lines = desk.lines("history.jsonl");
    let write = |name: &str, lines: Vec<String>| {
        fs::write(desk.path(name), format!("{}\n", lines.join("\n\n"))).unwrap();
    };
    let version = |line: usize| {
        serde_json::from_str::<Value>(&lines[line]).unwrap()["version"].as_u64().unwrap()
    };
    // The seventh commit claims to have seen what the first one had put, in a snapshot of the sixth.
    let mut commit: Value = serde_json::from_str(&lines[6]).unwrap();
    commit["snapshot"] = version(5).into();
    commit["reads"] = serde_json::json!([["count", version(0)]]);
    let mut stale = lines.clone();
    stale[6] = commit.to_string();
    write("stale.jsonl", stale);
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    write("swapped.jsonl", swapped);

    // Each second line is empty, so the seventh commit is in line 13.
    let stale = verify(&desk, "stale.jsonl", &[]);
    stale.refused(3, &["stale.jsonl: line ", "not strictly serialisable: G-single-item: T"]);
    let told = format!("commit {} saw version {} of `count`", version(6), version(0));
    assert!(stale.stdout.contains(&told), "{}", stale.stdout);
    let json = verify(&desk, "stale.jsonl", &["--format", "json"]).json();
    let unexpected = anomaly(&json, "unexpected-element");
    assert_eq!(
        (&unexpected["line"], &unexpected["transactions"][0]),
        (&13.into(), &version(6).into())
    );

    verify(&desk, "swapped.jsonl", &[]).refused(3, &["swapped.jsonl: line ", "not strictly"]);
    let json = verify(&desk, "swapped.jsonl", &["--format", "json"]).json();
    let order = anomaly(&json, "incompatible-order");
    assert_eq!(order["line"], 5);
    assert_eq!(order["transactions"], serde_json::json!([version(3), version(2)]));
}

/// Returns the first anomaly of a kind.
fn anomaly(verdict: &Value, kind: &str) -> Value {
    assert_eq!(verdict["serialisable"], false);
    let anomalies = verdict["anomalies"].as_array().unwrap();
    anomalies.iter().find(|found| found["type"] == kind).unwrap().clone()
}

#[test]
fn history_that_is_cut_ends_with_2_and_names_the_line() {
    let desk = with_history();
    let lines = desk.lines("history.jsonl");
    let half = &lines[4][..lines[4].len() / 2];
    fs::write(desk.path("cut.jsonl"), format!("{}\n{half}", lines[..4].join("\n"))).unwrap();
    let strange = lines[1].replacen("\"snapshot\"", "\"snapshots\"", 1);
    fs::write(desk.path("strange.jsonl"), format!("{}\n{strange}\n", lines[0])).unwrap();

    let cut = verify(&desk, "cut.jsonl", &[]);
    cut.refused(2, &["cut.jsonl: line 5: EOF while parsing"]);
    assert_eq!(cut.stdout, "");
    verify(&desk, "strange.jsonl", &[]).refused(2, &["strange.jsonl: line 2: unknown field"]);
    desk.run(&["--history", "no/such/file"]).refused(2, &["--history: cannot write no/such/file"]);
}
