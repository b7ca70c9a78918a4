//! What a graph builder refuses, how inputs are composed, and how events are written.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use guild_core::event::{
    Cause, ClockKind, EndState, Event, EventRecord, LineEvent, Names, Outcome, QuotaTerms, Setup,
    Severity, Tally, line, parse_line,
};
use guild_core::graph::{
    Catalog, Expr, Graph, GraphBuilder, GraphError, Task, TaskName, TaskOptions, TaskSpec,
};
use guild_core::id::{
    AgentId, BootEpoch, CommitVersion, FencingToken, Incarnation, QuotaId, RoleId, RunId, TaskId,
    TaskIndex,
};
use guild_core::incident::{Action, Attempt, Discarded, Incident, IncidentKind, Reason, Report};
use guild_core::limits::Limits;
use guild_core::payload::Payload;
use guild_core::planner::ReadyOrder;
use guild_core::retry::RetryPolicy;
use guild_core::time::Timestamp;
use serde_json::{Value, json};

fn incident(task: TaskId, agent: AgentId, incarnation: Incarnation) -> Incident {
    let attempt = Attempt {
        task,
        number: 1,
        token: Some(FencingToken(1)),
        last_heartbeat: None,
        discarded: Discarded::default(),
    };
    let report = Report {
        kind: IncidentKind::AgentCrashed,
        severity: Severity::Error,
        cause: Cause::Panic,
        reason: Reason::Panic,
        message: "x".into(),
        causes: vec!["y".into()],
        location: None,
        backtrace: Some("z".into()),
        agent: Some((agent, incarnation)),
        attempt: Some(attempt),
        fault: Some(1),
        action: Action::Nothing,
    };
    let (at, fingerprint) = (Timestamp(0), 7);
    Incident { number: 1, at, report, fingerprint, recovery: None, acknowledgement: None }
}

fn catalog() -> Catalog {
    let mut limits = Limits::default();
    limits.tasks_per_run_max = 5;
    limits.name_chars_max = 10;
    let quotas = vec![("api".into(), QuotaId(0), 4)];
    Catalog { roles: vec![("worker".into(), RoleId(0))], quotas, limits }
}

fn refusal(tasks: impl IntoIterator<Item = Task>) -> GraphError {
    let mut graph = GraphBuilder::for_catalog("run", catalog());
    for task in tasks {
        graph.add(task);
    }
    graph.build().unwrap_err()
}

fn task(name: &str) -> Task {
    Task::new(name, "worker")
}

#[test]
fn every_bad_graph_is_refused_with_its_place_and_rule() {
    let says = |error: GraphError, part: &str| {
        let text = error.to_string();
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    };

    says(refusal([]), "has no task");
    says(refusal([task("a"), task("a")]), "two tasks are named `a`");
    says(refusal([task("")]), "1 to 10 are allowed");
    says(refusal([task("a name too long")]), "15 characters");
    says(refusal([task("a").after("b")]), "`a` refers to the unknown task `b`");
    says(refusal([task("a").after(TaskIndex(7))]), "unknown task `number 7`");
    says(refusal([Task::new("a", "ghost")]), "unknown role `ghost`: the guild has worker");
    says(refusal([task("a").quota("gpu", 1)]), "unknown quota `gpu`: the guild has api");
    says(refusal([task("a").quota("api", 3).quota("api", 2)]), "needs 5 of the quota `api`");
    says(refusal([task("a").quota("api", 0)]), "above zero");
    says(refusal((0..6).map(|n| task(&n.to_string()))), "6 tasks, more than the 5 allowed");
    says(refusal([task("a").timeout(Duration::ZERO)]), "timeout must be above zero");
    says(refusal([task("a").heartbeat(Duration::ZERO)]), "heartbeat interval");
    let retry = |change: fn(&mut RetryPolicy)| {
        let mut policy = RetryPolicy::default();
        change(&mut policy);
        refusal([task("a").retry(policy)])
    };
    says(retry(|policy| policy.attempts_max = 0), "at least 1 attempt");
    says(retry(|policy| policy.factor = 0.5), "factor must be at least 1");
    says(retry(|policy| policy.factor = f64::NAN), "factor must be at least 1");
    says(retry(|policy| policy.jitter = 1.5), "jitter must be within 0 and 1");
    let no_json = std::collections::BTreeMap::from([((1, 2), 3)]);
    says(refusal([task("a").input(&no_json)]), "input of the task `a` has no JSON form");
}

#[test]
fn a_cycle_is_named_from_task_to_task() {
    let error = refusal([
        task("a").after("c"),
        task("b").after("a"),
        task("c").after("b"),
        task("d").after("c"),
    ]);

    let GraphError::Cycle(path) = error else { panic!("{error}") };
    let mut names: Vec<&str> = path.split(" -> ").collect();
    assert_eq!(names.first(), names.last());
    names.pop();
    let start = names.iter().position(|name| *name == "a").unwrap();
    names.rotate_left(start);
    assert_eq!(names, ["a", "b", "c"], "each waits for the one before it");
}

#[test]
fn an_input_waits_for_the_tasks_that_it_refers_to() {
    let mut graph = GraphBuilder::new("run");
    let first = graph.add(task("first"));
    let list = Expr::List(vec![Expr::Output(first.into()), Expr::Spawned("map".into())]);
    graph.add(task("last").input_expr(list));
    graph.add(task("map"));

    let graph: Graph = graph.build().unwrap();

    assert_eq!(*graph.tasks[1].after, [TaskIndex(0), TaskIndex(2)]);
    assert_eq!(graph.edges(), 2);
    assert_eq!(graph.critical_path(), Duration::from_secs(2));
    assert_eq!(graph.work(), Duration::from_secs(3));
}

#[test]
fn inputs_are_composed_from_values_outputs_and_spawned_outputs() {
    let output = |task: TaskIndex| Some(Payload::from_json(format!("\"out {}\"", task.0)));
    let spawned = |_| vec![TaskIndex(5), TaskIndex(6)];
    let expr = Expr::Object(vec![
        ("a \"quoted\" name".to_owned(), Expr::Value(Payload::encode(&1).unwrap())),
        (
            "list".to_owned(),
            Expr::List(vec![Expr::Output(TaskIndex(0)), Expr::Spawned(TaskIndex(1))]),
        ),
    ]);

    let composed: Value = expr.compose(&output, &spawned).unwrap().decode().unwrap();

    let list = json!(["out 0", ["out 5", "out 6"]]);
    assert_eq!(composed, json!({"a \"quoted\" name": 1, "list": list}));
    assert!(Expr::Output(TaskIndex(3)).compose(&|_| None, &spawned).is_err());
}

struct Plain(TaskSpec);

impl Names for Plain {
    fn write_run(&self, _: RunId, text: &mut String) {
        text.push_str("run");
    }
    fn write_task(&self, task: TaskId, text: &mut String) {
        text.push_str(&format!("t\"{}", task.index.0));
    }
    fn role(&self, _: RoleId) -> &str {
        "worker"
    }
    fn quota(&self, _: QuotaId) -> &str {
        "api"
    }
    fn terms(&self, _: TaskId) -> Option<(&TaskSpec, Vec<(&str, u32)>)> {
        Some((&self.0, vec![("api", 2)]))
    }
}

/// Fields that some lines of their kind do not have.
const OPTIONAL: [&str; 21] = [
    "spawned_by",
    "timeout_us",
    "heartbeat_us",
    "priority",
    "quotas",
    "retry",
    "expected_us",
    "retry_at_us",
    "until_us",
    "task",
    "run",
    "agent",
    "attempt",
    "fault",
    "snapshot",
    "reads",
    "ranges",
    "spans",
    "keys",
    "location",
    "order",
];

/// Fields that incidents in the log of an earlier version do not have.
const LATER: [&str; 9] = [
    "reason",
    "causes",
    "fingerprint",
    "role",
    "incarnation",
    "token",
    "last_heartbeat_us",
    "discarded",
    "backtrace",
];

/// The reader knows the kind, reads what was written, and refuses a line that lacks a field.
fn check_reader(text: &str, mut fields: serde_json::Map<String, Value>) {
    if fields["kind"] == "incident_opened" {
        fields.retain(|field, _| !LATER.contains(&field.as_str()));
    }
    let read = parse_line(text).unwrap();
    assert!(!matches!(read.event, LineEvent::Other { .. }), "{text}");
    let shown = format!("{read:?}");
    for value in fields.values().filter_map(Value::as_str).filter(|value| value.contains('"')) {
        assert!(shown.contains(&format!("{value:?}")), "{value} of {text} in {shown}");
    }
    for field in fields.keys().filter(|field| !OPTIONAL.contains(&field.as_str())) {
        let mut cut = fields.clone();
        cut.remove(field);
        let cut = Value::Object(cut).to_string();
        assert!(parse_line(&cut).is_err(), "{cut} lacks {field}");
    }
}

/// Each kind with the fields that outsiders rely on, in their order.
#[test]
#[expect(clippy::too_many_lines, reason = "one table with a row for each kind")]
fn event_lines_have_the_fields_that_outsiders_rely_on() {
    let run = RunId(0);
    let task = TaskId { run, index: TaskIndex(1) };
    let agent = AgentId { role: RoleId(0), index: 7 };
    let (incarnation, token) = (Incarnation(3), FencingToken(9));
    let (attempt, version, cause) = (2, CommitVersion(4), Cause::Panic);
    let at = Timestamp(5);
    let message: Box<str> = "no".into();
    let tally = Tally { completed: 1, failed: 2, skipped: 3, cancelled: 4 };
    let setup = Setup {
        clock: ClockKind::Virtual,
        order: ReadyOrder::Fifo,
        durability: "disk".into(),
        roles: vec![("worker".into(), 8)],
        quotas: vec![
            ("api".into(), QuotaTerms::Permits { permits: 4 }),
            ("calls".into(), QuotaTerms::Rate { amount: 6, per_us: 7, burst: 8 }),
        ],
        commits_in_flight_max: 1,
        interruptions_max: 1,
        faults: true,
    };
    let events = [
        (
            Event::GuildStarted { epoch: BootEpoch(1), setup: Box::new(setup) },
            "guild_started: epoch clock order durability roles quotas commits_in_flight_max interruptions_max faults",
        ),
        (Event::PhaseStarted { phase: "quiet".into() }, "phase_started: phase"),
        (
            Event::RunSubmitted { run, tasks: 2, edges: 1, seed: 3 },
            "run_submitted: run tasks edges seed",
        ),
        (
            Event::AgentStarted { agent, role: RoleId(0), incarnation },
            "agent_started: agent role incarnation",
        ),
        (
            Event::TaskAdded {
                task,
                role: RoleId(0),
                after: Box::new([task]),
                spawned_by: Some(task),
            },
            "task_added: run task role after spawned_by timeout_us heartbeat_us priority quotas retry expected_us",
        ),
        (Event::TaskReady { task }, "task_ready: run task"),
        (
            Event::TaskAssigned { task, attempt, agent, incarnation, token },
            "task_assigned: run task attempt agent incarnation token",
        ),
        (
            Event::TaskCompleted { task, attempt, agent, incarnation, token, version },
            "task_completed: run task attempt agent incarnation token version",
        ),
        (
            Event::TaskFailed {
                task,
                attempt,
                agent,
                incarnation,
                cause,
                message: message.clone(),
                retry_at: None,
            },
            "task_failed: run task attempt agent incarnation cause message retry_at_us",
        ),
        (Event::TaskEnded { task, state: EndState::DeadLettered }, "task_ended: run task state"),
        (
            Event::AgentCrashed {
                agent,
                incarnation,
                cause,
                message: message.clone(),
                task: Some(task),
            },
            "agent_crashed: agent incarnation cause message task run",
        ),
        (
            Event::AgentRestarted { agent, incarnation, delay_us: 1 },
            "agent_restarted: agent incarnation delay_us",
        ),
        (
            Event::AgentQuarantined { agent, reason: message.clone(), until: Some(at) },
            "agent_quarantined: agent reason until_us",
        ),
        (
            Event::AgentReleased { agent, reason: message.clone() },
            "agent_released: agent reason until_us",
        ),
        (
            Event::AgentStopped { agent, incarnation, reason: message.clone() },
            "agent_stopped: agent incarnation reason",
        ),
        (Event::ThreadHeld { agent, held_us: 5 }, "thread_held: agent held_us"),
        (Event::TaskPoisoned { task, kills: 3 }, "task_poisoned: run task kills"),
        (Event::LetterRetried { task, run: task.run }, "letter_retried: run task retry_run"),
        (Event::LetterDiscarded { task, note: message.clone() }, "letter_discarded: run task note"),
        (Event::RoleLost { role: agent.role, reason: message.clone() }, "role_lost: role reason"),
        (
            Event::StaleResult { task, token, agent, incarnation },
            "stale_result: run task token agent incarnation",
        ),
        (
            Event::FaultInjected {
                fault: 1,
                r#type: "crash".into(),
                site: "before_perform".into(),
                agent: Some(agent),
                task: Some(task),
                attempt: Some(attempt),
            },
            "fault_injected: fault type site agent run task attempt",
        ),
        (
            Event::IncidentOpened(Box::new(incident(task, agent, incarnation))),
            "incident_opened: incident severity type agent task attempt fault run cause message \
             location action reason causes fingerprint role incarnation token last_heartbeat_us \
             discarded backtrace",
        ),
        (
            Event::IncidentRecovered { incident: 1, took_us: 2, reassigned: Some((agent, 2)) },
            "incident_recovered: incident took_us agent attempt",
        ),
        (
            Event::IncidentAcknowledged { incident: 1, note: message.clone() },
            "incident_acknowledged: incident note",
        ),
        (
            Event::MemoryCommitted {
                version,
                task: Some(task),
                writes: 1,
                reads: Some(Box::default()),
            },
            "memory_committed: version task writes run snapshot reads ranges spans keys",
        ),
        (
            Event::QuotaChanged { quota: QuotaId(0), in_use: 1, limit: 2 },
            "quota_changed: quota in_use limit",
        ),
        (
            Event::RunEnded { run, outcome: Outcome::Failed, tally, makespan_us: 1 },
            "run_ended: run outcome completed failed skipped cancelled makespan_us",
        ),
        (Event::RunCancelled { run }, "run_cancelled: run"),
        (Event::RunJoined { run }, "run_joined: run"),
        (
            Event::TaskReturned { task, attempt, agent, incarnation, token },
            "task_returned: run task attempt agent incarnation token",
        ),
    ];
    let options = TaskOptions {
        role: 0,
        retry: RetryPolicy::once(),
        timeout: Some(Duration::from_secs(1)),
        heartbeat: Some(Duration::from_secs(2)),
        priority: -1,
        quotas: vec![(0, 2)],
    };
    let plain = Plain(TaskSpec {
        name: TaskName::Number(0),
        options: Arc::new(options),
        after: Box::default(),
        input: Expr::Value(Payload::NULL),
        expected: Duration::from_secs(3),
    });
    for (event, expected) in events {
        let stored = postcard::to_stdvec(&event).unwrap();
        let read: Event = postcard::from_bytes(&stored).expect("a store reads back what it wrote");
        assert_eq!(read, event);
        let text = line(&EventRecord { seq: 1, at, event }, &plain);
        let parsed: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        let (kind, fields) = expected.split_once(": ").unwrap();
        assert_eq!(parsed["kind"], kind);
        if kind == "guild_started" {
            let quotas = r#"{"api":{"permits":4},"calls":{"amount":6,"per_us":7,"burst":8}}"#;
            assert!(text.contains(quotas), "{text}");
        }
        let mut place = 0;
        for field in ["seq", "at_us", "kind"].into_iter().chain(fields.split(' ')) {
            let key = format!("\"{field}\":");
            place += text[place..].find(&key).unwrap_or_else(|| panic!("{field} in {text}"));
        }
        assert_eq!(parsed.len(), fields.split(' ').count() + 3, "{text}");
        check_reader(&text, parsed);
    }
}
