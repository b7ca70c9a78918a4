//! A failure stays in its agent: what is promised of crashes, hangs and panicking destructors.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Acts, count, events};
use guild::{
    Agent, Drain, Guild, Outcome, RandomFaults, RestartPolicy, RetryPolicy, Seed, Task,
    TaskContext, TaskError,
};
use serde_json::{Value, json};

fn patient() -> RestartPolicy {
    RestartPolicy { intensity: 1_000_000, ..RestartPolicy::default() }
}

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
    let hangs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&hangs);
    let guild = Guild::builder()
        .role("worker", 2, move || {
            let hangs = Arc::clone(&counted);
            Acts(async move |input, _: &mut TaskContext| {
                if hangs.fetch_add(1, Ordering::Relaxed) == 0 {
                    std::future::pending::<()>().await;
                }
                Ok(input)
            })
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("hang");
        graph.add(Task::new("only", "worker").timeout(Duration::from_millis(30)));
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
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
        let mut graph = guild.graph("heartbeats");
        graph.add(Task::new("only", "worker").heartbeat(Duration::from_millis(250)));
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!(report.outcome(), Outcome::Completed);
        guild.shutdown(Drain::Now).await.unwrap();

        let log = events(&guild);
        assert_eq!(count(&log, "task_assigned"), 2, "the silent one lost it, the other kept it");
        let failed = log.iter().find(|event| event["kind"] == "task_failed").unwrap();
        assert_eq!(failed["cause"], "heartbeat");
    });
}

/// Panics when it is dropped, after a panic while it performed.
struct Bomb {
    armed: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.armed, "panic in drop");
    }
}

impl Agent for Bomb {
    type Input = Value;
    type Output = Value;

    async fn perform(&mut self, input: Value, task: &mut TaskContext) -> Result<Value, TaskError> {
        self.armed = true;
        if task.attempt() == 1 {
            panic!("panic in perform");
        }
        self.armed = false;
        Ok(input)
    }
}

#[test]
fn an_agent_that_panics_in_drop_after_a_panic_does_not_take_the_process_down() {
    let guild = Guild::builder()
        .role("bomb", 2, || Bomb { armed: false })
        .restart(patient())
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("bombs");
        for number in 0..20 {
            let task = Task::new(format!("bomb-{number}"), "bomb");
            graph.add(task.retry(RetryPolicy::immediately(5)));
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
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
        let mut graph = guild.graph("late");
        graph.add(Task::new("only", "late"));
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
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
        let mut graph = guild.graph("flaky");
        graph.add(Task::new("only", "flaky").retry(RetryPolicy::immediately(10)));
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
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
