//! Agents that block their thread: what is promised of loops without an await, and of work that blocks.

#[path = "../common/mod.rs"]
mod common;
mod placement;
#[path = "../common/until.rs"]
mod until;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{Acts, Echo, count, events};
use guild::{
    Agent, Cause, Drain, Event, Fault, FaultPoint, Guild, GuildBuilder, Hit, IncidentKind, Limits,
    Outcome, RestartPolicy, RetryPolicy, RunError, Site, Strategy, Strike, SupervisorSpec, Task,
    TaskContext, TaskError,
};
use serde_json::{Value, json};
use until::until;

/// A loop that ends when the test says so, and is ended when the test fails.
#[derive(Default)]
struct Loop {
    ended: Arc<AtomicBool>,
    /// How often work was performed beside it, by whomever.
    performed: Arc<AtomicU32>,
}

impl Loop {
    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.end();
    }
}

fn limits(hold_hard: Duration) -> Limits {
    let mut limits = Limits::default();
    limits.hold_soft = Duration::from_millis(100);
    limits.hold_hard = hold_hard;
    limits
}

/// Agents on one thread; the first attempt of a task with the input "loop" never ends by itself.
fn loopers(agents: u32, limits: Limits) -> (GuildBuilder, Loop) {
    let endless = Loop::default();
    let (ended, performed) = (Arc::clone(&endless.ended), Arc::clone(&endless.performed));
    let guild = Guild::builder().agent_threads(1).limits(limits).validate(true).role(
        "worker",
        agents,
        move || {
            let (ended, performed) = (Arc::clone(&ended), Arc::clone(&performed));
            Acts(async move |input: Value, task: &mut TaskContext| {
                performed.fetch_add(u32::from(input == "work"), Ordering::Relaxed);
                if input == "loop" && task.attempt() == 1 {
                    while !ended.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                }
                Ok(json!(task.attempt()))
            })
        },
    );
    (guild, endless)
}

#[test]
fn ninety_nine_neighbours_of_an_endless_loop_complete_elsewhere_and_its_late_result_is_refused() {
    let (guild, endless) = loopers(100, limits(Duration::from_millis(800)));
    let guild = guild.start().unwrap();
    guild::block_on(async {
        let mut starts = guild.events(1);
        let mut started = 0;
        while started < 100 {
            let record = starts.next().await.unwrap().unwrap();
            started += u32::from(matches!(record.event, Event::AgentStarted { .. }));
        }
        let mut graph = guild.graph("hang");
        graph.add(Task::new("hog", "worker").input("loop").retry(RetryPolicy::immediately(3)));
        for number in 0..300 {
            graph.add(Task::new(format!("task-{number}"), "worker").input("work"));
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(report.output::<u32>("hog").unwrap(), 2, "another agent did it");
        assert_eq!(guild.stats().threads_hung, 1, "the loop still runs");
        let log = events(&guild);
        let of = |kind: &'static str| log.iter().filter(move |event| event["kind"] == kind);
        let guilty = of("agent_crashed").next().unwrap()["agent"].clone();
        assert_eq!(count(&log, "agent_crashed"), 1);
        assert!(of("thread_held").any(|event| event["agent"] == guilty));
        assert_eq!(of("agent_quarantined").next().unwrap()["agent"], guilty);
        let moved: BTreeSet<_> = of("agent_stopped").map(|event| event["agent"].as_str()).collect();
        assert_eq!(moved.len(), 99);
        let restarted: BTreeSet<_> =
            of("agent_restarted").map(|event| event["agent"].as_str()).collect();
        assert_eq!(restarted, moved, "all of them live again, and the guilty one does not");
        assert!(of("task_completed").all(|event| event["agent"] != guilty));
        let [incident] = &guild.incidents()[..] else { panic!("one incident") };
        let attempt = incident.report.attempt.unwrap();
        assert_eq!((attempt.task.index.0, attempt.number), (0, 1), "it says what was performed");
        let assigned = of("task_assigned").find(|event| event["task"] == "hog").unwrap();
        assert_eq!(assigned["token"].as_u64(), attempt.token.map(|token| token.0));

        endless.end();
        let mut news = guild.events(1);
        loop {
            let record = news.next().await.unwrap().unwrap();
            let line: Value = serde_json::from_str(&guild.event_line(&record)).unwrap();
            if line["kind"] == "stale_result" {
                assert_eq!((&line["task"], &line["agent"]), (&json!("hog"), &guilty));
                break;
            }
        }
        guild.shutdown(Drain::Now).await.unwrap();
        let performed = endless.performed.load(Ordering::Relaxed);
        assert_eq!(performed, 300, "what waits on the thread that was given up stays undone");
        let log = events(&guild);
        let hogs = log.iter().filter(|event| event["task"] == "hog");
        assert_eq!(hogs.filter(|event| event["kind"] == "task_completed").count(), 1);
    });
}

/// Blocks its thread in its end, once, until the test says so.
struct BlocksAtTheEnd {
    ended: Arc<AtomicBool>,
    has_blocked: Arc<AtomicBool>,
}

impl Agent for BlocksAtTheEnd {
    type Input = Value;
    type Output = Value;

    async fn perform(&mut self, input: Value, task: &mut TaskContext) -> Result<Value, TaskError> {
        if input == "hang" && task.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(input)
    }

    async fn end(&mut self) -> Result<(), TaskError> {
        tokio::task::yield_now().await;
        if !self.has_blocked.swap(true, Ordering::Relaxed) {
            while !self.ended.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }
}

#[test]
fn an_agent_that_blocks_its_thread_in_its_end_is_seen_and_the_others_live_on_elsewhere() {
    let endless = Loop::default();
    let (ended, has_blocked) = (Arc::clone(&endless.ended), Arc::default());
    let guild = Guild::builder()
        .agent_threads(1)
        .limits(limits(Duration::from_millis(500)))
        .validate(true)
        .role("worker", 5, move || BlocksAtTheEnd {
            ended: Arc::clone(&ended),
            has_blocked: Arc::clone(&has_blocked),
        })
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("end");
        let hang = Task::new("hang", "worker").input("hang").timeout(Duration::from_millis(100));
        let hang = graph.add(hang.retry(RetryPolicy::immediately(1_000)));
        for number in 0..20 {
            graph.add(Task::new(format!("task-{number}"), "worker").after(hang));
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Completed);
        let log = events(&guild);
        let of = |kind: &'static str| log.iter().find(move |event| event["kind"] == kind);
        let first = of("task_assigned").unwrap();
        let crashed = of("agent_crashed").unwrap();
        assert_eq!(crashed["agent"], first["agent"], "who hung is who blocks");
        let message = crashed["message"].as_str().unwrap();
        assert!(message.starts_with("it held its thread for"), "{message}");
        assert_eq!((count(&log, "agent_quarantined"), guild.stats().threads_hung), (1, 1));
        let [incident] = &guild.incidents()[..] else { panic!("one incident") };
        assert_eq!(incident.report.attempt.unwrap().number, 1);
        endless.end();
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

/// Makes the hosts of a role panic in front of their first assignments.
struct FirstBlows(AtomicU32);

impl FaultPoint for FirstBlows {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        let is_of_pair = hit.agent.is_some_and(|agent| agent.role.0 == 1);
        let is_due =
            hit.site == Site::Assign && is_of_pair && self.0.fetch_add(1, Ordering::Relaxed) < 2;
        is_due.then(|| Strike::new(Fault::CrashQueued, "crash_queued"))
    }
}

#[test]
fn a_host_that_panics_after_its_life_was_given_up_is_told_and_waits_for_its_next_life() {
    let endless = Loop::default();
    let (ended, holds) = (Arc::clone(&endless.ended), Arc::new(AtomicBool::new(false)));
    let is_held = Arc::clone(&holds);
    let second = Duration::from_secs(1);
    let restart = RestartPolicy { backoff_first: second, jitter: 0.0, ..RestartPolicy::default() };
    let spec = SupervisorSpec {
        strategy: Strategy::OneForAll,
        restart,
        shutdown: Duration::from_millis(50),
        ..SupervisorSpec::default()
    };
    let guild = Guild::builder()
        .agent_threads(2)
        .role("hog", 2, move || {
            let (ended, holds) = (Arc::clone(&ended), Arc::clone(&is_held));
            Acts(async move |input: Value, _: &mut TaskContext| {
                holds.store(true, Ordering::Relaxed);
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                Ok(input)
            })
        })
        .role("pair", 2, || Echo)
        .supervise("pair", spec)
        .limits(limits(Duration::ZERO))
        .faults(Arc::new(FirstBlows(AtomicU32::new(0))))
        .validate(true)
        .start()
        .unwrap();
    let submit = |name: &'static str, role: &str, tasks: u32| {
        let mut graph = guild.graph(name);
        for number in 0..tasks {
            graph.add(Task::numbered(number, role));
        }
        let graph = graph.build().unwrap();
        guild::block_on(guild.submit(graph)).unwrap()
    };
    // On a thread that is held nobody moves in.
    until("all agents live", || count(&events(&guild), "agent_started") == 4);
    let hog = submit("hog", "hog", 1);
    until("a thread is held", || holds.load(Ordering::Relaxed));
    // One of the pair panics; the other one cannot be stopped, and its own panic still waits for it.
    let pair = submit("pair", "pair", 2);
    until("one is left behind", || count(&events(&guild), "agent_stopped") == 1);
    endless.end();
    guild::block_on(async {
        assert_eq!(pair.wait().await.unwrap().outcome(), Outcome::Completed);
        assert_eq!(hog.wait().await.unwrap().outcome(), Outcome::Completed);
        guild.shutdown(Drain::Now).await.unwrap();
    });

    let log = events(&guild);
    let restarted = log.iter().filter(|event| event["kind"] == "agent_restarted");
    let delays: Vec<_> = restarted.map(|event| event["delay_us"].as_u64().unwrap()).collect();
    assert_eq!(delays.len(), 2);
    assert!(delays.iter().all(|delay| *delay > 0), "nobody lives again at once: {delays:?}");
    let told = guild.incidents().into_iter().map(|found| (found.report.kind, found.report.fault));
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    let kinds: Vec<_> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [IncidentKind::AgentCrashed, IncidentKind::HostPanicked]);
    let faults: BTreeSet<_> = told.iter().map(|(_, fault)| *fault).collect();
    assert_eq!(faults, BTreeSet::from([Some(1), Some(2)]), "each fault has its incident");
}

/// Stalls the thread of the first attempt.
struct StallsOnce(AtomicBool);

impl FaultPoint for StallsOnce {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        let strikes = hit.site == Site::BeforePerform && !self.0.swap(true, Ordering::Relaxed);
        strikes.then(|| Strike::new(Fault::Stall(Duration::from_secs(2)), "stall"))
    }
}

#[test]
fn a_stall_that_chaos_did_is_named_by_the_incident_of_the_blocked_thread() {
    let guild = Guild::builder()
        .agent_threads(1)
        .limits(limits(Duration::from_millis(500)))
        .role("worker", 3, || Echo)
        .faults(Arc::new(StallsOnce(AtomicBool::new(false))))
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("stall");
        for number in 0..10 {
            graph.add(Task::new(format!("task-{number}"), "worker"));
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Completed);
        let [incident] = &guild.incidents()[..] else { panic!("one incident") };
        assert_eq!((incident.report.fault, incident.report.cause), (Some(1), Cause::Timeout));
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_guild_with_an_endless_loop_shuts_down_before_and_after_it_was_noticed() {
    for hold_hard in [Duration::from_millis(300), Duration::ZERO] {
        let (guild, endless) = loopers(5, limits(hold_hard));
        let guild = guild.start().unwrap();
        guild::block_on(async {
            let mut graph = guild.graph("hang");
            graph.add(Task::new("hog", "worker").input("loop").retry(RetryPolicy::once()));
            let run = guild.submit(graph.build().unwrap()).await.unwrap();
            let mut news = guild.events(1);
            let awaited = if hold_hard.is_zero() { "thread_held" } else { "agent_crashed" };
            loop {
                let record = news.next().await.unwrap().unwrap();
                let line: Value = serde_json::from_str(&guild.event_line(&record)).unwrap();
                if line["kind"] == awaited {
                    break;
                }
            }
            let report = guild.shutdown(Drain::Now).await.unwrap();
            let left = if hold_hard.is_zero() { 5 } else { 0 };
            assert_eq!(report.agents_left, left, "those on the blocked thread cannot be asked");
            drop(run);
        });
        endless.end();
    }
}

#[test]
fn agents_that_block_more_threads_than_may_be_lost_end_the_guild_and_say_so() {
    let mut limits = limits(Duration::from_millis(200));
    limits.hung_threads_max = 0;
    let (guild, endless) = loopers(2, limits);
    let guild = guild.start().unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("hang");
        graph.add(Task::new("hog", "worker").input("loop"));
        let run = guild.submit(graph.build().unwrap()).await.unwrap();

        let ended = run.wait().await;

        assert!(matches!(&ended, Err(RunError::Failed(why)) if why.contains("block 1 threads")));
        endless.end();
        guild.shutdown(Drain::Now).await.unwrap();
    });
}
