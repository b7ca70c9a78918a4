//! `guild run` on a disk on which nothing can be written for a while: the run waits for it, and nothing
//! is lost.
//!
//! The disk is a limit on the size of files, which the test sets on the process while it runs.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use support::{Desk, Ended, wait_until};

const FLOW: &str = r#"
name = "patient"
[roles.tool]
kind = "exec"
[tasks.one]
shell = 'touch begun; while [ ! -e go ]; do sleep 0.01; done; echo 1'
parse = "json"
memory.add = { sum = "{{ output }}" }
[tasks.two]
command = ["echo", "2"]
parse = "json"
after = ["one"]
memory.add = { sum = "{{ output }}" }
"#;

/// Bounds the size of the files that a process writes.
fn limit(child: &Child, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

#[test]
fn a_run_outlives_a_disk_that_is_full_for_a_while() {
    let desk = Desk::new();
    desk.flow(FLOW);
    // Beyond the limit a write is to fail instead of ending the process.
    let mut guild = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" run flow.toml --store store --format json"])
        .arg(env!("CARGO_BIN_EXE_guild"))
        .current_dir(desk.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the task runs", || desk.path("begun").exists());
    limit(&guild, Some(0));
    fs::write(desk.path("go"), "").unwrap();
    let mut log = BufReader::new(guild.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("store failed") {
        assert_ne!(log.read_line(&mut said).unwrap(), 0, "it has ended: {said}");
    }
    limit(&guild, None);
    log.read_to_string(&mut said).unwrap();

    let mut run = Ended::from(guild.wait_with_output().unwrap());
    run.stderr = said;
    let summary = run.completed();
    assert_eq!((&summary["tasks"]["completed"], &summary["attempts"]), (&json!(2), &json!(2)));
    assert_eq!(desk.said(&["memory", "get", "sum"]), "3\n");
    let incidents = desk.said_json(&["incidents"]);
    let incident = &incidents["incidents"][0];
    assert_eq!(incidents["incidents"].as_array().unwrap().len(), 1, "{incidents}");
    assert_eq!(
        (&incident["type"], &incident["state"]),
        (&json!("store_failed"), &json!("recovered"))
    );
}
