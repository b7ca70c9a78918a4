//! What is promised of agents that are processes: whatever one does wrong stays with it, has an
//! incident that says why, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod examples;
mod failures;
mod lives;
#[path = "../common/until.rs"]
mod until;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Echo, events};
use guild::process::ProcessSpec;
use guild::{
    Drain, Guild, GuildBuilder, Incident, IncidentState, Outcome, Reason, RestartPolicy,
    RetryPolicy, RunReport, Task,
};
use serde_json::{Value, json};
use until::until;

/// Begins every script: greets, takes a task, and keeps its token.
const TAKE: &str = r#"
read -r hello
echo '{"type":"ready","protocol":1}'
take() { read -r assign || exit 0; token=$(echo "$assign" | sed 's/.*"token":"\([0-9]*\)".*/\1/'); }
result() { echo "{\"type\":\"result\",\"token\":\"$token\",\"output\":$1}"; }
take
"#;

fn script(text: &str) -> ProcessSpec {
    ProcessSpec::new("sh").arg("-c").arg(format!("{TAKE}\n{text}"))
}

/// Marks the processes of one test in their environment.
fn marked(mut spec: ProcessSpec) -> (ProcessSpec, String) {
    static TESTS: AtomicU32 = AtomicU32::new(0);
    let number = TESTS.fetch_add(1, Ordering::Relaxed);
    let mark = format!("{}-{number}", std::process::id());
    spec.program.env.push(("GUILD_TEST_MARK".into(), mark.clone().into()));
    (spec, format!("GUILD_TEST_MARK={mark}"))
}

/// Returns the processes that carry a mark and have not ended.
fn living(mark: &str) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let carries = |path: &PathBuf| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    processes.map(|entry| entry.path()).filter(carries).collect()
}

/// A role `bad` with one agent, beside a role `good`.
fn guild_of(spec: ProcessSpec) -> GuildBuilder {
    Guild::builder()
        .role("good", 2, || Echo)
        .process_role("bad", 1, spec)
        .restart(RestartPolicy { intensity: 1_000, ..RestartPolicy::default() })
        .validate(true)
}

/// Runs the tasks beside five of the role `good`, which have to complete whatever the others do.
fn run(guild: &Guild, name: &str, tasks: Vec<Task>) -> Arc<RunReport> {
    let mut graph = guild.graph(name);
    for number in 0..5 {
        graph.add(Task::new(format!("good-{number}"), "good").input(&number));
    }
    for task in tasks {
        graph.add(task);
    }
    let graph = graph.build().unwrap();
    let report =
        guild::block_on(async { guild.submit(graph).await.unwrap().wait().await.unwrap() });
    (0..5).for_each(|n| assert_eq!(report.output::<i32>(&format!("good-{n}")).unwrap(), n));
    report
}

fn task() -> Task {
    Task::new("bad", "bad").input(&json!({"n": 1})).retry(RetryPolicy::once())
}

/// What came of one task of a process that does something wrong.
struct Story {
    report: Arc<RunReport>,
    crash: Incident,
    log: Vec<Value>,
}

/// Has the process perform one task; there must be one crash, recovered, and no process left.
fn story_of(spec: ProcessSpec, task: Task) -> Story {
    let (spec, mark) = marked(spec);
    let guild = guild_of(spec).start().unwrap();
    let report = run(&guild, "story", vec![task]);
    let crashes = || -> Vec<Incident> {
        let is_crash = |found: &Incident| found.report.kind.name() == "agent_crashed";
        guild.incidents().into_iter().filter(is_crash).collect()
    };
    until("the agent has recovered", || {
        crashes().first().is_some_and(|crash| crash.state() == IncidentState::Recovered)
    });
    until("nothing of the process runs", || living(&mark).is_empty());
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
    let [crash] = <[Incident; 1]>::try_from(crashes()).unwrap();
    Story { report, crash, log: events(&guild) }
}

/// Asserts that a script makes its only task fail for this reason, and what the incident says. A
/// process of which nobody takes notice is told apart by the timeout.
fn fails(spec: ProcessSpec, reason: Reason, says: &str) -> Story {
    let story = story_of(spec, task().timeout(Duration::from_secs(20)));
    assert_eq!(story.report.outcome(), Outcome::Failed);
    assert_eq!(story.crash.report.reason, reason, "{:?}", story.crash);
    let message = &story.crash.report.message;
    assert!(message.contains(says), "`{says}` is not in: {message}");
    let attempt = story.crash.report.attempt.unwrap();
    assert_eq!(attempt.number, 1);
    assert!(attempt.token.is_some());
    let opened = story.log.iter().find(|event| event["kind"] == "incident_opened").unwrap();
    assert_eq!(opened["reason"], reason.name());
    assert_eq!((&opened["role"], &opened["task"]), (&json!("bad"), &json!("bad")));
    story
}
