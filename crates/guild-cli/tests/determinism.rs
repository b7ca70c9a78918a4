//! One seed, one log: byte for byte, in two processes whose addresses and hash seeds differ.
//!
//! Two runs in one process would share both and prove little. The check itself is checked: an agent
//! that iterates a hash map must make the two logs differ.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::Command;

use guild::{Agent, Outcome, Task, TaskContext, TaskError};
use guild_sim::World;
use support::{Desk, Ended, guild};

/// Sizes of the environment in bytes: it lies above the stack and moves everything below it.
const ENVIRONMENTS: [usize; 2] = [10, 100_000];

/// Returns a workflow of layers, whose tasks take all kinds of times and many the same.
fn workflow() -> String {
    let (mut tasks, mut runtimes) = (Vec::new(), Vec::new());
    for place in 0..150 {
        let parents: Vec<String> = [31, 30, 29]
            .iter()
            .filter(|back| **back <= place)
            .map(|back| format!("t{}", place - back))
            .collect();
        tasks.push(
            serde_json::json!({ "id": format!("t{place}"), "name": "t", "parents": parents }),
        );
        runtimes.push(
            serde_json::json!({ "id": format!("t{place}"), "runtimeInSeconds": place * 7 % 5 }),
        );
    }
    serde_json::json!({
        "name": "layers", "schemaVersion": "1.5",
        "workflow": { "specification": { "tasks": tasks }, "execution": { "tasks": runtimes } },
    })
    .to_string()
}

/// Runs a command in an environment of each size and returns what each run left: the text on
/// standard output, and the file that it was to write.
fn in_both_environments(
    desk: &Desk,
    file: &str,
    command: impl Fn(&Path) -> Command,
) -> [(String, Vec<u8>); 2] {
    ENVIRONMENTS.map(|bytes| {
        let path = desk.path(&format!("{bytes}-{file}"));
        let ended = Ended::of(command(&path).env("PADDING", "x".repeat(bytes)));
        assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
        (ended.stdout, std::fs::read(&path).unwrap())
    })
}

fn simulate(desk: &Desk, arguments: &[&str], output: &'static str) -> [(String, Vec<u8>); 2] {
    std::fs::write(desk.path("workflow.json"), workflow()).unwrap();
    in_both_environments(desk, output, |path| {
        let mut command = guild();
        command.current_dir(desk.root()).args(["simulate", "workflow.json"]).args(arguments);
        command.arg(if output == "csv" { "--csv" } else { "--events" }).arg(path);
        command
    })
}

fn lines(log: &[u8], kind: &str) -> usize {
    let kind = format!("\"kind\":\"{kind}\"");
    String::from_utf8_lossy(log).lines().filter(|line| line.contains(&kind)).count()
}

#[test]
fn run_without_faults_is_the_same_in_two_processes() {
    let desk = Desk::new();
    for policy in ["critical-path", "fifo", "random"] {
        let arguments = ["--agents", "7", "--seed", "3", "--policy", policy, "--format", "json"];

        let [one, other] = simulate(&desk, &arguments, "events");

        assert_eq!(lines(&one.1, "task_completed"), 150);
        assert!(one == other, "{policy}: the logs differ");
    }
}

#[test]
fn run_with_chaos_is_the_same_in_two_processes() {
    let desk = Desk::new();
    let chaos = "crash=0.1,hang=0.03,slow=0.2";
    let arguments = ["--agents", "7", "--seed", "3", "--chaos", chaos, "--format", "json"];

    let [one, other] = simulate(&desk, &arguments, "events");

    assert!(lines(&one.1, "agent_crashed") > 10 && lines(&one.1, "fault_injected") > 30);
    assert!(one == other, "the logs differ");
    let [another, _] = simulate(
        &desk,
        &["--agents", "7", "--seed", "4", "--chaos", chaos, "--format", "json"],
        "events",
    );
    assert_ne!(one.1, another.1, "another seed is another log");
}

#[test]
fn recoveries_of_a_plan_are_the_same_in_two_processes() {
    let desk = Desk::new();
    let plan =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/chaos/memory_errors.toml");

    let [one, other] = in_both_environments(&desk, "events", |path| {
        let mut command = guild();
        // A part of a plan promises nothing: one seed need not show every fault.
        command.arg("chaos").arg(&plan).args(["--only", "methods=0,1,2,3,4,5,6,7,8"]);
        command.arg("--events").arg(path);
        command
    });

    assert!(lines(&one.1, "guild_started") > 3 && lines(&one.1, "fault_injected") > 5);
    assert!(one.1 == other.1, "the logs differ");
}

#[test]
fn sweep_on_all_cores_is_the_same_in_two_processes() {
    let desk = Desk::new();
    let arguments = ["--sweep", "agents=2,5", "--seeds", "4", "--chaos", "crash=0.1"];

    let [one, other] = simulate(&desk, &arguments, "csv");

    let table = String::from_utf8(one.1.clone()).unwrap();
    assert_eq!(table.lines().count(), 1 + 8, "{table}");
    assert!(one == other, "the tables differ");
}

/// Spawns a task for each of a hundred letters; careless, in the order in which a hash map has them.
struct Census {
    is_careless: bool,
}

impl Agent for Census {
    type Input = ();
    type Output = ();

    #[expect(clippy::disallowed_types, reason = "the leak that the check has to notice")]
    async fn perform(&mut self, (): (), context: &mut TaskContext) -> Result<(), TaskError> {
        if context.task() != "census" {
            return Ok(());
        }
        let counts: std::collections::HashMap<u32, u32> =
            (0..100).map(|letter| (letter, 1)).collect();
        let mut letters: Vec<u32> = counts.into_keys().collect();
        if !self.is_careless {
            letters.sort_unstable();
        }
        for letter in letters {
            context.spawn(Task::new(format!("letter-{letter}"), "census"));
        }
        Ok(())
    }
}

/// Tells a child of this test which agent to play and where to write its log.
const CARELESS: &str = "GUILD_TEST_CARELESS";
const LOG: &str = "GUILD_TEST_LOG";

/// The other process of the test below; by itself it plays the careful agent.
#[test]
fn census_completes() {
    let is_careless = std::env::var(CARELESS).is_ok_and(|value| value == "yes");
    let mut world = World::with_seed(1)
        .role("census", 4, move || Census { is_careless })
        .keep_log()
        .start()
        .unwrap();
    let mut graph = world.graph("census");
    graph.add(Task::new("census", "census"));

    let report = world.run(graph.build().unwrap()).unwrap();

    assert_eq!((report.outcome(), report.tally().completed), (Outcome::Completed, 101));
    if let Some(path) = std::env::var_os(LOG) {
        std::fs::write(path, world.log().join("\n")).unwrap();
    }
}

#[test]
fn comparison_notices_an_agent_that_iterates_a_hash_map() {
    let desk = Desk::new();
    let play = |careless: &'static str| {
        in_both_environments(&desk, careless, |path| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "census_completes", "--quiet"]);
            command.env(CARELESS, careless).env(LOG, path);
            command
        })
        .map(|(_, log)| log)
    };

    let [one, other] = play("no");
    assert_eq!(lines(&one, "task_completed"), 101);
    assert!(one == other, "the careful agent's logs differ");
    let [one, other] = play("yes");
    assert_eq!(lines(&one, "task_completed"), 101);
    assert_ne!(one, other, "a leak was not noticed");
}
