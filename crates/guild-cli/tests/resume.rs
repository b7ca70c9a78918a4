//! `kill -9` at any moment, the same command again: what has completed does not run again, the rest
//! does, the result is right, and no process of the killed guild is left.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Desk, events, is_alive, send, wait_until};

const TASKS: usize = 30;

/// Each task leaves a line outside of Guild when it begins, which is its effect.
const FLOW: &str = r#"
[roles.tool]
kind = "exec"
agents = 4
[quotas.slots]
permits = 3
[quotas.calls]
rate = "600/min"
[defaults]
retry = { attempts = 10, backoff = "1ms" }
[tasks.each]
for_each = "{{ range(30) }}"
shell = 'echo "$GUILD_TASK" >> effects; sleep 0.01; echo "$1"'
args = ["{{ item }}"]
parse = "json"
memory.add = { sum = "{{ output }}" }
[tasks.last]
command = ["sort", "-n"]
stdin = "{{ tasks.each.outputs | join('\n') }}"
parse = "lines"
[result]
sum = "{{ memory.sum }}"
lines = "{{ tasks.last.output | length }}"
"#;

/// Reads the event log through a named pipe, so that the moment of the kill can be chosen.
struct Pipe(BufReader<File>);

impl Pipe {
    fn at(path: &Path) -> Self {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
        // Open for writing too: the reader must not see an end before the writer comes.
        Self(BufReader::new(File::options().read(true).write(true).open(path).unwrap()))
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

fn count(lines: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

/// Kills the run when this many events have come; returns the tasks that completed before.
fn kill_at(desk: &Desk, event: usize) -> BTreeSet<String> {
    let pipe = desk.path("pipe");
    let mut log = Pipe::at(&pipe);
    let mut guild = desk.start(&["--store", "store", "--events", "pipe"]);
    let mut completed = BTreeSet::new();
    for _ in 0..event {
        let event = log.next();
        if event["kind"] == "task_completed" {
            completed.insert(event["task"].as_str().unwrap().to_owned());
        }
        if event["kind"] == "run_ended" {
            break;
        }
    }
    guild.kill().unwrap();
    guild.wait().unwrap();
    std::fs::remove_file(pipe).unwrap();
    completed
}

fn killed_run_is_resumed(event: usize) {
    let desk = Desk::new();
    desk.flow(FLOW);
    let before = kill_at(&desk, event);
    let effects_before = count(desk.lines("effects"));

    let resumed = desk.run(&["--store", "store", "--events", "events.jsonl"]).completed();

    let sum = TASKS * (TASKS - 1) / 2;
    assert_eq!(resumed["result"], json!({ "sum": sum, "lines": TASKS }));
    assert_eq!(resumed["tasks"]["completed"], TASKS + 3);
    let effects = count(desk.lines("effects"));
    assert_eq!(effects.len(), TASKS);
    for task in before.iter().filter(|task| task.contains('[')) {
        assert_eq!(effects[task], 1, "{task} had completed at event {event} and ran again");
        assert_eq!(effects_before[task], 1);
    }
    // What was under way, or not on disk yet, runs a second time and no third.
    assert!(effects.values().all(|times| *times <= 2), "{effects:?}");
    let log = events(&desk.path("events.jsonl"));
    assert_eq!(resumed["events"], log.len());
    let kinds = |kind: &str| log.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((kinds("run_submitted"), kinds("run_ended")), (1, 1));
    assert_eq!(kinds("task_completed"), TASKS + 3);
}

#[test]
fn run_killed_before_it_began_is_resumed() {
    killed_run_is_resumed(1);
}

#[test]
fn run_killed_while_a_map_is_expanded_is_resumed() {
    killed_run_is_resumed(12);
    killed_run_is_resumed(40);
}

#[test]
fn run_killed_in_the_middle_is_resumed() {
    killed_run_is_resumed(90);
    killed_run_is_resumed(120);
    killed_run_is_resumed(151);
}

#[test]
fn run_killed_near_its_end_is_resumed() {
    killed_run_is_resumed(190);
    killed_run_is_resumed(10_000);
}

#[test]
fn run_that_has_ended_shows_its_recorded_result_and_does_nothing() {
    let desk = Desk::new();
    desk.flow(FLOW);
    let first = desk.run(&["--store", "store"]).completed();
    let effects = desk.read("effects");

    let second = desk.run(&["--store", "store"]).completed();

    assert_eq!(second["result"], first["result"]);
    assert_eq!(second["attempts"], first["attempts"]);
    assert_eq!(second["makespan_s"], first["makespan_s"]);
    assert_eq!(desk.read("effects"), effects);
}

#[test]
fn other_names_are_other_runs_of_one_store() {
    let desk = Desk::new();
    desk.flow(&FLOW.replace("{ sum =", "{ \"{{ run }}\" =").replace("memory.sum", "memory[run]"));

    let first = desk.run(&["--store", "store", "--run", "first"]).completed();
    let second = desk.run(&["--store", "store", "--run", "second"]).completed();

    assert_eq!(first["result"], second["result"]);
    assert_eq!(first["tasks"], second["tasks"]);
    assert_eq!(desk.lines("effects").len(), 2 * TASKS);
}

#[test]
fn changed_flow_does_not_resume_a_run() {
    let desk = Desk::new();
    desk.flow(FLOW);
    desk.run(&["--store", "store"]).completed();
    desk.flow(&FLOW.replace("sleep 0.01", "sleep 0.02"));

    desk.run(&["--store", "store"]).refused(2, &["another version of the flow", "--run"]);
}

#[test]
fn unfinished_run_of_another_name_is_not_touched() {
    let desk = Desk::new();
    desk.flow(FLOW);
    kill_at(&desk, 60);

    let other = desk.run(&["--store", "store", "--run", "other"]);

    other.refused(2, &["unfinished run `flow`"]);
    desk.run(&["--store", "store"]).completed();
}

/// The first attempt hangs with children; every attempt notes its processes, and whether one of an
/// earlier attempt is still alive.
const ORPHANS: &str = r#"
[roles.tool]
kind = "exec"
agents = 3
[defaults]
retry = { attempts = 10, backoff = "1ms" }
[tasks.each]
for_each = "{{ range(3) }}"
shell = '''
for pid in $(cat pids."$1" 2>/dev/null); do
  case $(cat "/proc/$pid/stat" 2>/dev/null) in "" | *") Z "*) ;; *) echo "$pid" >> alive ;; esac
done
[ -e again ] && exit
sleep 1000 &
child=$!
sh -c 'sleep 1000 & echo $! >> "$0"; wait' pids."$1" &
echo "$$ $child $!" >> pids."$1"
wait
'''
args = ["{{ item }}"]
"#;

fn pids(desk: &Desk) -> Vec<i32> {
    let files = (0..3).map(|item| desk.read(&format!("pids.{item}")));
    let text: String = files.collect();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn no_orphan_survives_a_kill_or_runs_beside_the_resumed_run() {
    let desk = Desk::new();
    desk.flow(ORPHANS);
    let mut guild = desk.start(&["--store", "store"]);
    wait_until("all processes have begun", || pids(&desk).len() == 12);
    let orphans = pids(&desk);
    assert!(orphans.iter().all(|pid| is_alive(*pid)));

    File::create(desk.path("again")).unwrap();
    guild.kill().unwrap();
    guild.wait().unwrap();
    desk.run(&["--store", "store"]).completed();

    assert_eq!(desk.read("alive"), "");
    wait_until("no orphan is left", || !orphans.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn no_orphan_survives_a_kill_without_a_store() {
    let desk = Desk::new();
    desk.flow(ORPHANS);
    let mut guild = desk.start(&[]);
    wait_until("all processes have begun", || pids(&desk).len() == 12);
    let orphans = pids(&desk);

    guild.kill().unwrap();
    guild.wait().unwrap();

    wait_until("no orphan is left", || !orphans.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn no_orphan_survives_a_timeout() {
    let desk = Desk::new();
    let flow = ORPHANS.replace("args = [", "timeout = \"1s\"\nargs = [");
    desk.flow(&flow.replace("attempts = 10", "attempts = 1"));

    let run = desk.run(&[]);

    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let orphans = pids(&desk);
    assert_eq!(orphans.len(), 12);
    wait_until("no orphan is left", || !orphans.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn reaper_finds_a_process_that_was_not_announced_yet() {
    let sleeper = |mark: &str| {
        let mut sleeper = Command::new("sleep");
        sleeper.arg("1000").env("GUILD_PROCESS_MARK", mark).process_group(0);
        sleeper.spawn().unwrap()
    };
    let (mut ours, mut another) = (sleeper("mark-1"), sleeper("mark-11"));

    let reaper = support::Ended::of(support::guild().args(["__reaper", "mark-1"]));

    assert_eq!(reaper.code, Some(0), "{}", reaper.stderr);
    assert_eq!(ours.wait().unwrap().signal(), Some(9));
    assert_eq!(another.try_wait().unwrap(), None, "a process of another guild was killed");
    another.kill().unwrap();
    another.wait().unwrap();
}

/// Runs until it is told to go on.
const PATIENT: &str = r#"
[roles.tool]
kind = "exec"
agents = 2
[tasks.each]
for_each = "{{ range(6) }}"
shell = 'echo "$GUILD_TASK $$" >> effects; while [ ! -e go ]; do sleep 0.01; done'
"#;

#[test]
fn interrupt_lets_running_tasks_finish_and_the_run_can_be_resumed() {
    let desk = Desk::new();
    desk.flow(PATIENT);
    let mut guild = desk.start(&["--store", "store"]);
    wait_until("two tasks run", || desk.lines("effects").len() == 2);

    send(&guild, Signal::INT);
    let mut said = String::new();
    BufReader::new(guild.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("interrupted; 2 running tasks") && said.contains("resumes"), "{said}");
    File::create(desk.path("go")).unwrap();
    let interrupted = support::Ended::from(guild.wait_with_output().unwrap());

    assert_eq!(interrupted.code, Some(130), "{}", interrupted.stderr);
    assert_eq!(interrupted.json()["outcome"], "interrupted");
    assert_eq!(desk.lines("effects").len(), 2);
    let resumed = desk.run(&["--store", "store"]).completed();
    assert_eq!(resumed["tasks"]["completed"], 7);
    assert_eq!(desk.lines("effects").len(), 6, "what had finished ran again");
}

#[test]
fn second_interrupt_ends_at_once_and_leaves_no_orphan() {
    for signal in [Signal::INT, Signal::TERM] {
        let desk = Desk::new();
        desk.flow(PATIENT);
        let mut guild = desk.start(&["--store", "store"]);
        wait_until("two tasks run", || desk.lines("effects").len() == 2);
        let pid = |line: String| line.split(' ').nth(1).unwrap().parse::<i32>().unwrap();
        let orphans: Vec<i32> = desk.lines("effects").into_iter().map(pid).collect();

        send(&guild, signal);
        let mut said = String::new();
        let mut stderr = BufReader::new(guild.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        send(&guild, signal);

        assert_eq!(guild.wait().unwrap().code(), Some(130));
        wait_until("no orphan is left", || !orphans.iter().any(|pid| is_alive(*pid)));
        File::create(desk.path("go")).unwrap();
        desk.run(&["--store", "store"]).completed();
    }
}
