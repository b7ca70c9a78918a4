//! `guild run` on a disk on which nothing can be written for a while: the run waits for it, and nothing
//! is lost.
//!
//! The disk is a limit on the size of files, which the test sets on the process while it runs.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
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

/// Longest silence of the command.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command under a limit; killed when the test gives up.
struct Guild(Option<Child>);

impl Guild {
    /// Bounds the size of the files that it writes; returns what it was. The hard limit stays.
    fn limit(&self, bytes: Option<u64>) -> Option<u64> {
        let pid = Pid::from_raw(i32::try_from(self.0.as_ref().unwrap().id()).unwrap());
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap().current
    }

    fn end(mut self) -> Ended {
        Ended::from(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Guild {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Reads lines on a thread of its own, so that nobody waits for ever; the channel ends with them.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let read = BufReader::new(from).lines().map_while(Result::ok);
        read.take_while(|line| sender.send(format!("{line}\n")).is_ok()).for_each(drop);
    });
    lines
}

#[test]
fn a_run_outlives_a_disk_that_is_full_for_a_while() {
    let desk = Desk::new();
    desk.flow(FLOW);
    // Beyond the limit a write is to fail instead of ending the process.
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" run flow.toml --store store --format json"])
        .arg(env!("CARGO_BIN_EXE_guild"))
        .current_dir(desk.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = lines(child.stderr.take().unwrap());
    let guild = Guild(Some(child));
    let mut said = String::new();
    wait_until("the task runs", || desk.path("begun").exists());
    let before = guild.limit(Some(0));
    fs::write(desk.path("go"), "").unwrap();
    while !said.contains("store failed") {
        let line = log.recv_timeout(PATIENCE);
        said += &line.unwrap_or_else(|why| panic!("{why}, and it has said: {said}"));
    }
    guild.limit(before);
    loop {
        match log.recv_timeout(PATIENCE) {
            Ok(line) => said += &line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("it goes on, and has said: {said}"),
        }
    }

    let mut run = guild.end();
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
