//! A process is killed over and over while it works on one store; each time everything that it had
//! acknowledged is there, and nothing by half: at level `Disk`, and at `Process`, which promises the same
//! for a kill.
//!
//! 30 kills at `Disk` and 10 at `Process` by default. The soak of a release: `GUILD_KILLS=1000 cargo test -p guild-memory --test
//! kill_loop`.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::World;
use common::work::{Work, open};
use guild_core::draw::{Seed, Stream};
use guild_memory::{Durability, OpenError, StoreError};

const CHILD_STORE: &str = "GUILD_TEST_STORE";
/// Set where the child works at level `Process`.
const CHILD_LEVEL: &str = "GUILD_TEST_PROCESS";
const CHILD_TASKS: &str = "GUILD_TEST_TASKS";

const SIGKILL: i32 = 9;

/// `tasks` are more than the lives of all children can complete.
fn work(tasks: u32) -> Work {
    Work { name: "kills", tasks, group: 3, value_bytes: 2_000, keys: 100, large_every: 25 }
}

fn kills(default: u64) -> u64 {
    std::env::var("GUILD_KILLS").map_or(default, |kills| kills.parse().unwrap())
}

/// No test of its own: the body of the child process.
#[test]
fn child_works_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_STORE) else {
        return;
    };
    let tasks = std::env::var(CHILD_TASKS).unwrap().parse().unwrap();
    let level = match std::env::var_os(CHILD_LEVEL) {
        Some(_) => Durability::Process,
        None => Durability::Disk,
    };
    let mut world = World::in_directory(Path::new(&path), level).unwrap();
    let work = work(tasks);
    world.submit("run", work.tasks);
    let outputs = world.recovered.runs.first().map_or(&[][..], |run| &run.outputs);
    let mut next = u32::try_from(outputs.iter().flatten().count()).unwrap();
    println!("opened");
    loop {
        let last = work.complete_group(&mut world, next).unwrap();
        // A pipe takes 64 KiB: with long lines nobody is far ahead of who reads them.
        println!("{:900} acknowledged {last}", "");
        next = last + 1;
    }
}

fn start(path: &Path, level: Durability, tasks: u32) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if level == Durability::Process {
        command.env(CHILD_LEVEL, "1");
    }
    command
        .args(["child_works_until_it_is_killed", "--exact", "--nocapture"])
        .env(CHILD_STORE, path)
        .env(CHILD_TASKS, tasks.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills processes that work on one store at a level, and judges it after each; `begun` sees the first one
/// at work.
fn kill_over_and_over(level: Durability, kills: u64, tasks: u32, begun: impl Fn(&Path, &Child)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut acknowledged = None;
    for kill in 0..kills {
        let mut child = start(&path, level, tasks);
        // Every fifth life ends while the store is being opened; the others after some groups.
        let lines = match Seed(7).unit(Stream::Transact, 0, kill) {
            draw if kill % 5 == 4 => usize::from(draw > 0.5),
            draw => 2 + (draw * 30.0) as usize,
        };
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut note = |line: String| {
            if let Some((_, number)) = line.rsplit_once("acknowledged ") {
                acknowledged = Some(number.parse::<u32>().unwrap());
            }
        };
        let told = |line: &String| line.contains("opened") || line.contains("acknowledged");
        output.by_ref().filter(told).take(lines).for_each(&mut note);
        if kill == 0 {
            begun(&path, &child);
        }
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(SIGKILL), "kill {kill}: the work was done before");
        // What is still in the pipe was acknowledged too; the last line may be torn.
        let rest: Vec<_> = output.collect();
        rest.into_iter().for_each(note);
        work(tasks)
            .judge(&path, acknowledged)
            .unwrap_or_else(|wrong| panic!("kill {kill}: {wrong}"));
    }
    let world = open(&path).unwrap();
    assert!(u64::from(world.recovered.epoch.0) > kills, "every start and every look is an epoch");
    assert!(acknowledged.unwrap() > 100);
}

#[test]
fn what_a_killed_process_had_acknowledged_is_there_kill_after_kill() {
    let kills = kills(30);
    // In the first life the look at the lock gives it half a second more.
    let tasks = u32::try_from(6_000 + kills * 200).unwrap();
    kill_over_and_over(Durability::Disk, kills, tasks, |path, child| {
        let locked = open(path).map(|_| ()).unwrap_err();
        let holder = StoreError::Locked { path: path.to_owned(), pid: Some(child.id()) };
        assert_eq!(locked, OpenError::Store(holder));
    });
}

#[test]
fn what_was_acknowledged_at_level_process_survives_kill_after_kill() {
    let kills = kills(10);
    let tasks = u32::try_from(10_000 + kills * 1_000).unwrap();
    kill_over_and_over(Durability::Process, kills, tasks, |_, _| {});
}
