//! A failure stays in its agent: what is promised of crashes, hangs and panicking destructors.

mod common;
#[path = "common/faulty.rs"]
mod faulty;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{Acts, count, events};
use faulty::{Bomb, HangsOnce, patient, run};
use guild::{
    Agent, Drain, Fault, FaultPoint, Guild, Hit, Limits, Outcome, RandomFaults, RestartPolicy,
    RetryPolicy, Seed, Site, Strategy, Strike, SupervisorSpec, Task, TaskContext, TaskError,
};
use guild_sim::World;
use serde_json::{Value, json};

#[test]
fn every_task_completes_once_while_agents_crash_before_and_after_the_effect() {
    let faults = RandomFaults::parse("crash=0.3", Seed(3)).unwrap();
    let guild = Guild::builder()
        .role("counter", 20, || {
            Acts(async |input, task: &mut TaskContext| {
                task.memory().add("completions", 1)?;
                Ok(input)
            })
        })
        .restart(patient())
        .faults(Arc::new(faults))
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("storm");
        for number in 0..500 {
            let task = Task::new(format!("task-{number}"), "counter");
            graph.add(task.input(&number).retry(RetryPolicy::immediately(1_000)));
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(guild.memory().snapshot().value::<i64>("completions").unwrap(), Some(500));
        guild.shutdown(Drain::Now).await.unwrap();
        let log = events(&guild);
        assert_eq!(count(&log, "task_completed"), 500);
        let injected = count(&log, "fault_injected");
        assert!(injected > 100, "{injected} faults");
        assert_eq!(count(&log, "agent_crashed"), injected);
        let incidents: Vec<_> =
            log.iter().filter(|event| event["kind"] == "incident_opened").collect();
        assert_eq!(incidents.len(), injected, "one incident for each fault");
        for (incident, fault) in incidents.iter().zip(1..) {
            assert_eq!(incident["cause"], "panic");
            assert!(incident["message"].as_str().unwrap().starts_with("injected crash"));
            assert!(incident["location"].as_str().unwrap().contains(".rs:"), "{fault}");
            assert!(incident["fault"].is_u64());
        }
    });
}

#[test]
fn an_agent_that_hangs_at_an_await_loses_its_task_to_another_one() {
    let guild =
        Guild::builder().role("worker", 2, HangsOnce::factory()).validate(true).start().unwrap();
    guild::block_on(async {
        let task = Task::new("only", "worker").timeout(Duration::from_millis(30));
        let report = run(&guild, [task]).await;
        assert_eq!(report.outcome(), Outcome::Completed);
        guild.shutdown(Drain::Now).await.unwrap();

        let log = events(&guild);
        let agents: Vec<_> = log
            .iter()
            .filter(|event| event["kind"] == "task_assigned")
            .map(|event| event["agent"].clone())
            .collect();
        assert_eq!(agents.len(), 2);
        assert_ne!(agents[0], agents[1], "the task goes to another agent");
        let failed = log.iter().find(|event| event["kind"] == "task_failed").unwrap();
        assert_eq!(failed["cause"], "timeout");
        assert_eq!(guild.incidents().len(), 1);
    });
}

#[test]
fn a_task_that_failed_waits_for_another_agent_while_the_one_it_failed_on_is_free() {
    let mut world = World::with_seed(1)
        .role("worker", 2, || {
            Acts(async |input: Value, task: &mut TaskContext| {
                if input == "slow" {
                    task.sleep(Duration::from_secs(5)).await;
                } else if task.attempt() == 1 {
                    return Err(TaskError::retryable("not with me"));
                }
                Ok(input)
            })
        })
        .validate(true)
        .keep_log()
        .start()
        .unwrap();
    let mut graph = world.graph("two");
    graph.add(Task::new("slow", "worker").input("slow"));
    graph.add(Task::new("picky", "worker").retry(RetryPolicy::immediately(2)));
    let graph = graph.build().unwrap();
    assert_eq!(world.run(graph).unwrap().outcome(), Outcome::Completed);

    let log = world.log();
    let log = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let picky = log.filter(|event| event["kind"] == "task_assigned" && event["task"] == "picky");
    let picky: Vec<_> =
        picky.map(|event| (event["agent"].clone(), event["at_us"].clone())).collect();
    let [(first, _), (second, at)] = &picky[..] else { panic!("two attempts: {picky:?}") };
    assert_ne!(first, second);
    assert!(at.as_u64().unwrap() >= 5_000_000, "the other one has to become free first");
    world.end();
}

#[test]
fn heartbeats_keep_a_lease_and_silence_loses_it() {
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let guild = Guild::builder()
        .role("worker", 2, move || {
            let attempts = Arc::clone(&counted);
            Acts(async move |input, task: &mut TaskContext| {
                let talks = attempts.fetch_add(1, Ordering::Relaxed) > 0;
                for _ in 0..20 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if talks {
                        task.heartbeat();
                    }
                }
                Ok(input)
            })
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let task = Task::new("only", "worker").heartbeat(Duration::from_millis(250));
        let report = run(&guild, [task]).await;
        assert_eq!(report.outcome(), Outcome::Completed);
        guild.shutdown(Drain::Now).await.unwrap();

        let log = events(&guild);
        assert_eq!(count(&log, "task_assigned"), 2, "the silent one lost it, the other kept it");
        let failed = log.iter().find(|event| event["kind"] == "task_failed").unwrap();
        assert_eq!(failed["cause"], "heartbeat");
    });
}

#[test]
fn an_agent_that_panics_in_drop_after_a_panic_does_not_take_the_process_down() {
    let guild = Guild::builder()
        .role("bomb", 2, Bomb::default)
        .restart(patient())
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let task = |number| Task::new(format!("bomb-{number}"), "bomb");
        let tasks = (0..20).map(|number| task(number).retry(RetryPolicy::immediately(5)));
        let report = run(&guild, tasks).await;
        assert_eq!(report.tally().completed, 20);
        guild.shutdown(Drain::Now).await.unwrap();
        assert_eq!(count(&events(&guild), "agent_crashed"), 20);
    });
}

#[test]
fn a_factory_that_panics_is_tried_again_and_its_incident_says_where() {
    let built = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&built);
    let guild = Guild::builder()
        .role("late", 1, move || {
            assert!(counted.fetch_add(1, Ordering::Relaxed) >= 3, "the factory is not ready");
            Acts(async |input, _: &mut TaskContext| Ok(input))
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let report = run(&guild, [Task::new("only", "late")]).await;
        assert_eq!(report.outcome(), Outcome::Completed);
        let incidents = guild.incidents();
        assert_eq!(incidents.len(), 3);
        assert!(incidents[0].report.location.as_deref().unwrap().contains("isolation.rs"));
        assert_eq!(&*incidents[0].report.message, "the factory is not ready");
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn an_agent_that_exceeds_its_restart_intensity_is_quarantined_and_released_later() {
    let guild = Guild::builder()
        .role("flaky", 1, || {
            Acts(async |input, task: &mut TaskContext| {
                assert!(task.attempt() > 4, "attempt {} goes wrong", task.attempt());
                Ok(input)
            })
        })
        .restart(RestartPolicy {
            intensity: 3,
            quarantine: Duration::from_millis(50),
            ..RestartPolicy::default()
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let task = Task::new("only", "flaky").retry(RetryPolicy::immediately(10));
        let report = run(&guild, [task]).await;
        assert_eq!(report.outcome(), Outcome::Completed);
        guild.shutdown(Drain::Now).await.unwrap();

        let log = events(&guild);
        assert_eq!(count(&log, "agent_crashed"), 4);
        assert_eq!(count(&log, "agent_quarantined"), 1);
        assert_eq!(count(&log, "agent_released"), 1);
        let incarnations: Vec<_> = log
            .iter()
            .filter(|e| e["kind"] == "agent_started" || e["kind"] == "agent_restarted")
            .map(|event| event["incarnation"].as_u64().unwrap())
            .collect();
        assert!(incarnations.is_sorted_by(|a, b| a < b), "{incarnations:?}");
        assert_eq!(incarnations.len(), 5);
    });
}

#[test]
fn a_task_that_takes_its_agents_down_is_dead_lettered_and_others_go_on() {
    let guild = Guild::builder()
        .role("worker", 4, || {
            Acts(async |input: Value, _: &mut TaskContext| {
                assert_ne!(input, json!("poison"), "poison");
                Ok(input)
            })
        })
        .restart(patient())
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("poison");
        let retry = RetryPolicy::immediately(3);
        graph.add(Task::new("poison", "worker").input("poison").retry(retry));
        for number in 0..50 {
            graph.add(Task::new(format!("task-{number}"), "worker").input(&number));
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!((report.tally().completed, report.tally().failed), (50, 1));
        guild.shutdown(Drain::Now).await.unwrap();
        let log = events(&guild);
        let ended = log.iter().find(|event| event["kind"] == "task_ended").unwrap();
        assert_eq!((&ended["task"], &ended["state"]), (&json!("poison"), &json!("dead_lettered")));
    });
}

#[test]
fn messages_per_task_are_the_same_for_ten_agents_and_for_ten_thousand() {
    let per_task = |agents: u32| {
        let guild = Guild::builder().role("echo", agents, || common::Echo).start().unwrap();
        guild::block_on(async {
            let run = |name: &'static str, tasks: u32| {
                let guild = guild.clone();
                async move {
                    let mut graph = guild.graph(name);
                    for number in 0..tasks {
                        graph.add(Task::new(format!("t{number}"), "echo"));
                    }
                    guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
                    guild.stats().messages
                }
            };
            let before = run("warm", 1).await;
            let after = run("measured", 20_000).await;
            guild.shutdown(Drain::Now).await.unwrap();
            (after - before) as f64 / 20_000.0
        })
    };

    // The agents' start is a message each; 20,000 tasks make that small beside their own.
    let (few, many) = (per_task(10), per_task(10_000));

    assert!(few < 12.0, "{few} messages per task");
    assert!((many - few).abs() < 2.5, "{few} messages per task with 10 agents, {many} with 10,000");
}

/// Panics once, and takes a second to end.
struct SlowToEnd;

impl Agent for SlowToEnd {
    type Input = Value;
    type Output = Value;

    async fn perform(&mut self, input: Value, task: &mut TaskContext) -> Result<Value, TaskError> {
        assert!(task.task() != "first" || task.attempt() > 1, "panic in perform");
        Ok(input)
    }

    async fn end(&mut self) -> Result<(), TaskError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }
}

/// Makes the host panic in front of the second assignment.
struct SecondBlow(AtomicU32);

impl FaultPoint for SecondBlow {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        let is_due = hit.site == Site::Assign && self.0.fetch_add(1, Ordering::Relaxed) == 1;
        is_due.then(|| Strike::new(Fault::CrashQueued, "crash_queued"))
    }
}

#[test]
fn a_host_that_panics_while_its_agent_has_no_life_goes_on_and_is_told() {
    // The other agent is ending, with the one that it belongs to, when it is given the task.
    let strategy = Strategy::OneForAll;
    let spec = SupervisorSpec { strategy, restart: patient(), ..SupervisorSpec::default() };
    let mut world = World::with_seed(1)
        .role("pair", 2, || SlowToEnd)
        .supervise("pair", spec)
        .validate(true)
        .faults(Arc::new(SecondBlow(AtomicU32::new(0))))
        .keep_log()
        .start()
        .unwrap();
    let mut graph = world.graph("work");
    let first = Task::new("first", "pair").retry(RetryPolicy::immediately(10));
    let first = graph.add(first);
    for number in 0..6 {
        graph.add(Task::new(format!("later-{number}"), "pair").after(first));
    }
    let graph = graph.build().unwrap();
    let report = world.run(graph).unwrap();

    assert_eq!(report.tally().completed, 7);
    let lines = world.log().into_iter();
    let log: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    let told = log.iter().filter(|event| event["kind"] == "incident_opened");
    let told: Vec<_> =
        told.map(|event| (event["type"].as_str().unwrap(), &event["fault"])).collect();
    assert_eq!(told, [("agent_crashed", &Value::Null), ("host_panicked", &json!(1))]);
    let done = log.iter().filter(|event| event["kind"] == "task_completed");
    let by: BTreeSet<_> = done.map(|event| event["agent"].as_str().unwrap()).collect();
    assert_eq!(by, BTreeSet::from(["pair-0", "pair-1"]), "both live on");
    world.end();
}

/// Panics before it returns the future by which it ends.
struct BadEnd;

impl Agent for BadEnd {
    type Input = Value;
    type Output = Value;

    async fn perform(&mut self, input: Value, task: &mut TaskContext) -> Result<Value, TaskError> {
        if task.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(input)
    }

    fn end(&mut self) -> impl Future<Output = Result<(), TaskError>> {
        assert!(std::hint::black_box(false), "panic in end");
        std::future::ready(Ok(()))
    }
}

#[test]
fn an_agent_that_panics_when_it_is_to_end_is_told_and_lives_again() {
    let mut world =
        World::with_seed(1).role("bad", 1, || BadEnd).validate(true).keep_log().start().unwrap();
    let mut graph = world.graph("bad");
    graph.add(Task::new("only", "bad").timeout(Duration::from_secs(5)));
    let graph = graph.build().unwrap();

    assert_eq!(world.run(graph).unwrap().outcome(), Outcome::Completed);

    let [incident] = &world.incidents()[..] else { panic!("one incident") };
    assert_eq!(incident.report.causes, ["it panicked while it ended: panic in end".into()]);
    world.end();
}

#[test]
fn agents_beside_a_storm_without_pause_are_not_restarted_and_lose_no_attempt() {
    let calm = Arc::new(AtomicBool::new(false));
    let is_calm = Arc::clone(&calm);
    let mut limits = Limits::default();
    limits.kills_max = u32::MAX;
    let guild = Guild::builder()
        .role("stormy", 4, move || {
            let is_calm = Arc::clone(&is_calm);
            Acts(async move |input, _: &mut TaskContext| {
                assert!(is_calm.load(Ordering::Relaxed), "the storm goes on");
                Ok(input)
            })
        })
        .role("healthy", 8, || common::Echo)
        .agent_threads(1)
        .restart(patient())
        .limits(limits)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("storm");
        for number in 0..4 {
            graph.add(Task::numbered(number, "stormy").retry(RetryPolicy::immediately(u32::MAX)));
        }
        let storm = guild.submit(graph.build().unwrap()).await.unwrap();
        let mut crashes = 0;
        while crashes < 1_000 {
            let tasks = (0..200).map(|number| Task::numbered(number, "healthy"));
            let mut graph = guild.graph(format!("healthy-{crashes}"));
            for task in tasks {
                graph.add(task);
            }
            let run = guild.submit(graph.build().unwrap()).await.unwrap();
            assert_eq!(run.wait().await.unwrap().tally().completed, 200);
            crashes = guild.stats().crashes;
        }
        calm.store(true, Ordering::Relaxed);
        storm.wait().await.unwrap();
        guild.shutdown(Drain::Now).await.unwrap();

        let log = events(&guild);
        let of_healthy = |event: &&Value| {
            event["agent"].as_str().is_some_and(|agent| agent.starts_with("healthy"))
        };
        let kinds: BTreeSet<_> =
            log.iter().filter(of_healthy).map(|event| event["kind"].as_str().unwrap()).collect();
        let expected = ["agent_started", "task_assigned", "task_completed"];
        assert_eq!(kinds, BTreeSet::from(expected), "nothing else happens to the others");
        let first = log.iter().filter(of_healthy).all(|event| match &event["attempt"] {
            Value::Null => true,
            attempt => *attempt == 1,
        });
        assert!(first, "each is done with its first attempt");
    });
}
