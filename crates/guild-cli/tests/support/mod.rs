//! What the tests of the command share: a directory, the built binary, and patience.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and none goes on without"
)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A directory of its own with flows, stores and effects; gone at the end of the test.
pub(crate) struct Desk(TempDir);

impl Desk {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Writes a flow file and returns its path.
    pub(crate) fn flow(&self, text: &str) -> PathBuf {
        let path = self.path("flow.toml");
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    pub(crate) fn guild(&self) -> Command {
        let mut command = guild();
        command.current_dir(self.root());
        command
    }

    /// Runs `guild run flow.toml --format json` with more arguments, to its end.
    pub(crate) fn run(&self, more: &[&str]) -> Ended {
        let mut command = self.guild();
        command.args(["run", "flow.toml", "--format", "json"]).args(more);
        Ended::of(&mut command)
    }

    /// Returns a desk with a store in which a run of a flow has completed.
    pub(crate) fn with_completed_run(flow: &str) -> Self {
        let desk = Self::new();
        desk.flow(flow);
        desk.run(&["--store", "store"]).completed();
        desk
    }

    /// Returns a desk with a store in which a run of a flow has ended badly.
    pub(crate) fn with_failed_run(flow: &str) -> Self {
        let desk = Self::new();
        desk.flow(flow);
        let run = desk.run(&["--store", "store", "--events", "events.jsonl"]);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        desk
    }

    /// Runs a command on the store.
    pub(crate) fn ask(&self, command: &[&str]) -> Ended {
        Ended::of(self.guild().args(command).args(["--store", "store"]))
    }

    /// Returns what a command on the store says; it must succeed.
    pub(crate) fn said(&self, command: &[&str]) -> String {
        let ended = self.ask(command);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stdout
    }

    /// Returns what a command on the store says in JSON.
    pub(crate) fn said_json(&self, command: &[&str]) -> Value {
        serde_json::from_str(&self.said(&[command, &["--format", "json"]].concat())).unwrap()
    }

    /// Starts the same and does not wait.
    pub(crate) fn start(&self, more: &[&str]) -> Child {
        self.guild()
            .args(["run", "flow.toml", "--format", "json"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // As its own group, so that no signal of a test reaches the test.
            .process_group(0)
            .spawn()
            .unwrap()
    }
}

/// The built binary.
pub(crate) fn guild() -> Command {
    Command::new(env!("CARGO_BIN_EXE_guild"))
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.stdin(Stdio::null()).output().unwrap())
    }

    /// Returns the JSON object on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?}\n{}", self.stdout, self.stderr))
    }

    /// Returns the JSON object of a run in which every task completed.
    pub(crate) fn completed(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        let json = self.json();
        assert_eq!(json["outcome"], "completed", "{json}");
        json
    }

    /// Asserts the exit code and that the message says all of this.
    pub(crate) fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in: {}", self.stderr);
        }
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Waits until something is so; panics after a minute.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if is_so() {
            return;
        }
        pause();
    }
    panic!("not within a minute: {what}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process is waited for, no runtime is blocked"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Tells whether a process runs; one that ended and was not reaped yet does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Sends a signal to a process.
pub(crate) fn send(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Reads an event log and asserts what is true of every one: numbers without a gap, and no task
/// that ends twice.
pub(crate) fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut ended = std::collections::BTreeSet::new();
    for (n, event) in (1_u64..).zip(&events) {
        assert_eq!(event["seq"], n, "{event}");
        if event["kind"] == "task_completed" || event["kind"] == "task_ended" {
            let task = (event["run"].to_string(), event["task"].to_string());
            assert!(ended.insert(task), "a task ended twice: {event}");
        }
    }
    events
}
