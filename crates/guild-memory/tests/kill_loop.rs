//! A process is killed over and over while it works on one store; each time everything that it had
//! acknowledged is there, and nothing by half.
//!
//! 30 kills by default. The soak of a release: `GUILD_KILLS=1000 cargo test -p guild-memory --test
//! kill_loop`.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::work::{Work, open};
use guild_core::draw::{Seed, Stream};
use guild_memory::{OpenError, StoreError};

const CHILD_STORE: &str = "GUILD_TEST_STORE";

/// More tasks than the lives of this many kills can complete.
fn work(kills: u64) -> Work {
    // In the first life the look at the lock gives it half a second more.
    let tasks = u32::try_from(6_000 + kills * 200).unwrap();
    Work { name: "kills", tasks, group: 3, value_bytes: 2_000, keys: 100, large_every: 25 }
}

fn kills() -> u64 {
    std::env::var("GUILD_KILLS").map_or(30, |kills| kills.parse().unwrap())
}

/// No test of its own: the body of the child process.
#[test]
fn child_works_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_STORE) else {
        return;
    };
    let mut world = open(Path::new(&path)).unwrap();
    let work = work(kills());
    world.submit("run", work.tasks);
    let outputs = world.recovered.runs.first().map_or(&[][..], |run| &run.outputs);
    let mut next = u32::try_from(outputs.iter().flatten().count()).unwrap();
    println!("opened");
    loop {
        let last = work.complete_group(&mut world, next).unwrap();
        println!("acknowledged {last}");
        next = last + 1;
    }
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child_works_until_it_is_killed", "--exact", "--nocapture"])
        .env(CHILD_STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn what_a_killed_process_had_acknowledged_is_there_kill_after_kill() {
    let kills = kills();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut acknowledged = None;
    for kill in 0..kills {
        let mut child = start(&path);
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
            let locked = open(&path).map(|_| ()).unwrap_err();
            let holder = StoreError::Locked { path: path.clone(), pid: Some(child.id()) };
            assert_eq!(locked, OpenError::Store(holder));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What is still in the pipe was acknowledged too; the last line may be torn.
        let rest: Vec<_> = output.collect();
        rest.into_iter().for_each(note);
        work(kills)
            .judge(&path, acknowledged)
            .unwrap_or_else(|wrong| panic!("kill {kill}: {wrong}"));
    }
    let world = open(&path).unwrap();
    assert!(u64::from(world.recovered.epoch.0) > kills, "every start and every look is an epoch");
    assert!(acknowledged.unwrap() > 100);
}
