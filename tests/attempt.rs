//! What an attempt can rely on: its identity, its memory, its time, and what it spawns.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Acts, Echo, count, events};
use guild::{
    Drain, Guild, Outcome, OutputError, RestartPolicy, RetryPolicy, Storage, Task, TaskContext,
    TaskError,
};
use serde_json::{Value, json};

/// Runs one graph in a guild with one role, `worker`, and shuts the guild down.
fn run_to_its_end(guild: &Guild, name: &str, tasks: Vec<Task>) -> Arc<guild::RunReport> {
    guild::block_on(async {
        let mut graph = guild.graph(name);
        for task in tasks {
            graph.add(task);
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        guild.shutdown(Drain::Now).await.unwrap();
        report
    })
}

#[test]
fn the_idempotency_key_is_that_of_the_task_over_attempts_and_starts() {
    let directory = tempfile::tempdir().unwrap();
    let keys = Arc::new(Mutex::new(Vec::new()));
    let start = |attempts: u32| {
        let keys = Arc::clone(&keys);
        let worker = move || {
            let keys = Arc::clone(&keys);
            Acts(async move |_, task: &mut TaskContext| {
                keys.lock().unwrap().push((task.task(), task.idempotency_key().to_owned()));
                if task.attempt() < attempts {
                    Err(TaskError::retryable("again"))
                } else {
                    Ok(json!(1))
                }
            })
        };
        let store = Storage::Directory(directory.path().join("store"));
        Guild::builder().role("worker", 2, worker).store(store).validate(true).start().unwrap()
    };
    let task = |name: &str| Task::new(name, "worker").retry(RetryPolicy::immediately(10));
    let tasks = || vec![task("one"), task("two")];

    run_to_its_end(&start(3), "run", tasks());
    run_to_its_end(&start(1), "other", tasks());

    let keys = keys.lock().unwrap();
    let of = |name: &str| -> Vec<_> { keys.iter().filter(|key| key.0 == name).collect() };
    let (one, two) = (of("one"), of("two"));
    assert_eq!((one.len(), two.len()), (4, 4));
    assert!(one[..3].iter().all(|key| key.1 == one[0].1), "{one:?}");
    assert_ne!(one[0].1, two[0].1, "another task has another key");
    assert_ne!(one[0].1, one[3].1, "the same task of another run has another key");
}

#[test]
fn tasks_whose_names_share_their_slashes_do_not_share_an_idempotency_key() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&keys);
    let worker = move || {
        let keys = Arc::clone(&noted);
        Acts(async move |_, task: &mut TaskContext| {
            keys.lock().unwrap().push(task.idempotency_key().to_owned());
            Ok(json!(1))
        })
    };
    let guild = Guild::builder().role("worker", 1, worker).start().unwrap();
    guild::block_on(async {
        for (run, task) in [("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c")] {
            let mut graph = guild.graph(run);
            graph.add(Task::new(task, "worker"));
            guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        }
        guild.shutdown(Drain::Now).await.unwrap();
    });

    assert_eq!(*keys.lock().unwrap(), ["a%2Fb/c", "a/b/c", "a%252Fb/c"]);
}

#[test]
fn a_run_is_submitted_once_also_after_a_restart_on_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let attempts = Arc::new(AtomicU32::new(0));
    let start = || {
        let attempts = Arc::clone(&attempts);
        let worker = move || {
            let attempts = Arc::clone(&attempts);
            Acts(async move |input, _: &mut TaskContext| {
                attempts.fetch_add(1, Ordering::Relaxed);
                Ok(input)
            })
        };
        let store = Storage::Directory(directory.path().join("store"));
        Guild::builder().role("worker", 1, worker).store(store).validate(true).start().unwrap()
    };
    let tasks = || vec![Task::new("only", "worker").input("answer")];

    let first = run_to_its_end(&start(), "once", tasks());
    let second = run_to_its_end(&start(), "once", tasks());

    assert_eq!(first.id(), second.id());
    assert_eq!(second.output::<String>("only").unwrap(), "answer");
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
}

#[test]
fn writes_and_spawned_tasks_of_a_failed_attempt_never_were() {
    let worker = || {
        Acts(async |input: Value, task: &mut TaskContext| {
            if input == json!("parent") {
                task.memory().add("parents", 1)?;
                let first = task.spawn(Task::new("first", "worker").input("child"));
                task.spawn(Task::new("second", "worker").input("child").after(first));
                assert!(task.attempt() > 2, "attempt {} goes wrong", task.attempt());
            } else {
                task.memory().add("children", 1)?;
            }
            Ok(input)
        })
    };
    let restart = RestartPolicy { intensity: 100, ..RestartPolicy::default() };
    let guild =
        Guild::builder().role("worker", 3, worker).restart(restart).validate(true).start().unwrap();
    let memory = guild.memory();
    let parent = Task::new("parent", "worker").input("parent").retry(RetryPolicy::immediately(5));
    let last = Task::new("last", "worker").input("last").after("parent");

    let report = run_to_its_end(&guild, "spawning", vec![parent, last]);

    assert_eq!(report.tally().completed, 4);
    assert_eq!(report.spawned_payloads("parent").unwrap().len(), 2);
    let snapshot = memory.snapshot();
    assert_eq!(snapshot.value::<i64>("parents").unwrap(), Some(1));
    assert_eq!(snapshot.value::<i64>("children").unwrap(), Some(3), "`last` came after them");
    let log = events(&guild);
    let added: Vec<_> = log.iter().filter(|event| event["kind"] == "task_added").collect();
    assert_eq!(added.len(), 4);
    assert_eq!(added[2]["spawned_by"], "parent");
    assert_eq!(added[3]["after"], json!(["parent/first"]));
}

#[test]
fn an_attempt_reads_one_snapshot_and_a_conflict_costs_none_of_its_attempts() {
    let (to_agent, from_test) = mpsc::channel::<()>();
    let (to_test, from_agent) = mpsc::channel::<i64>();
    let from_test = Arc::new(Mutex::new(from_test));
    let worker = move || {
        let (to_test, from_test) = (to_test.clone(), Arc::clone(&from_test));
        Acts(async move |_, task: &mut TaskContext| {
            let before: i64 = task.memory().get("balance")?.unwrap_or(0);
            to_test.send(before).unwrap();
            from_test.lock().unwrap().recv().unwrap();
            let after: i64 = task.memory().get("balance")?.unwrap_or(0);
            task.memory().put("balance", &(after + 1))?;
            Ok(json!(before == after))
        })
    };
    let guild = Guild::builder().role("worker", 1, worker).validate(true).start().unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("conflict");
        graph.add(Task::new("only", "worker").retry(RetryPolicy::once()));
        let run = guild.submit(graph.build().unwrap()).await.unwrap();

        assert_eq!(from_agent.recv().unwrap(), 0);
        let deposit = RetryPolicy::default();
        guild.memory().transact(&deposit, |memory| memory.put("balance", &10)).await.unwrap();
        to_agent.send(()).unwrap();
        assert_eq!(from_agent.recv().unwrap(), 10, "the second attempt reads a newer snapshot");
        to_agent.send(()).unwrap();
        let report = run.wait().await.unwrap();

        assert!(report.output::<bool>("only").unwrap(), "a snapshot does not change");
        assert_eq!(guild.memory().snapshot().value::<i64>("balance").unwrap(), Some(11));
        let log = events(&guild);
        let failed: Vec<_> = log.iter().filter(|event| event["kind"] == "task_failed").collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0]["cause"], "conflict");
        assert!(failed[0]["message"].as_str().unwrap().contains("balance"), "{}", failed[0]);
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn an_attempt_knows_its_deadline_and_who_it_is() {
    let worker = || {
        Acts(async |_, task: &mut TaskContext| {
            let left = task.deadline().duration_since(tokio::time::Instant::now());
            let in_time = left > Duration::ZERO && left <= Duration::from_secs(3_600);
            Ok(json!([in_time, task.run(), task.task(), task.agent(), task.attempt()]))
        })
    };
    let guild = Guild::builder().role("worker", 1, worker).validate(true).start().unwrap();
    let task = Task::new("only", "worker").timeout(Duration::from_secs(3_600));

    let report = run_to_its_end(&guild, "times", vec![task]);

    let said: Value = report.output("only").unwrap();
    assert_eq!(said, json!([true, "times", "only", "worker-0", 1]));
    assert!(matches!(report.output::<u32>("only"), Err(OutputError::Type { .. })));
}

#[test]
fn work_on_another_thread_learns_that_its_attempt_timed_out() {
    let (ended, end) = mpsc::channel();
    let worker = move || {
        let ended = ended.clone();
        Acts(async move |input, task: &mut TaskContext| {
            if task.attempt() == 1 {
                let (cancellation, ended) = (task.cancellation(), ended.clone());
                assert!(!cancellation.is_cancelled());
                std::thread::spawn(move || {
                    while !cancellation.is_cancelled() {
                        std::thread::yield_now();
                    }
                    ended.send(()).unwrap();
                });
                std::future::pending::<()>().await;
            }
            Ok(input)
        })
    };
    let guild = Guild::builder().role("worker", 2, worker).validate(true).start().unwrap();
    let task = Task::new("only", "worker").timeout(Duration::from_millis(20));

    let report = run_to_its_end(&guild, "threads", vec![task]);

    assert_eq!(report.outcome(), Outcome::Completed);
    end.recv().unwrap();
}

#[test]
fn a_loop_without_an_await_ends_when_its_run_is_cancelled_and_its_agent_works_on() {
    let (began, begin) = mpsc::channel();
    let worker = move || {
        let began = began.clone();
        Acts(async move |input: Value, task: &mut TaskContext| {
            if input == json!("spin") {
                began.send(()).unwrap();
                while !task.is_cancelled() {
                    std::thread::yield_now();
                }
            }
            Ok(input)
        })
    };
    let guild = Guild::builder().role("worker", 1, worker).validate(true).start().unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("spins");
        graph.add(Task::new("only", "worker").input("spin"));
        let run = guild.submit(graph.build().unwrap()).await.unwrap();
        begin.recv().unwrap();

        run.cancel();

        assert_eq!(run.wait().await.unwrap().outcome(), Outcome::Cancelled);
        let mut graph = guild.graph("works");
        graph.add(Task::new("only", "worker").input("work"));
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!(report.outcome(), Outcome::Completed);
        guild.shutdown(Drain::Now).await.unwrap();
        assert_eq!(count(&events(&guild), "stale_result"), 1, "what the loop answered is refused");
    });
}

#[test]
fn events_are_read_from_any_number_on_and_a_slow_reader_is_told_what_it_missed() {
    let mut limits = guild::Limits::default();
    limits.events_in_memory_max = 10;
    let guild = Guild::builder().role("echo", 1, || Echo).limits(limits).start().unwrap();
    let tasks = (0..20).map(|number| Task::new(format!("t{number}"), "echo")).collect();
    run_to_its_end(&guild, "many", tasks);

    guild::block_on(async {
        let mut late = guild.events(1);
        let lagged = late.next().await.unwrap().unwrap_err();
        let mut seen = Vec::new();
        while let Some(record) = late.next().await {
            seen.push(record.unwrap().seq);
        }
        assert_eq!(seen[0], lagged.next);
        assert_eq!(seen.len(), 10);
        assert!(seen.is_sorted_by(|a, b| a + 1 == *b));

        let from = seen[4];
        let mut in_time = guild.events(from);
        assert_eq!(in_time.next().await.unwrap().unwrap().seq, from);
    });
}

#[test]
fn what_is_wrong_with_a_guild_is_said_before_it_starts() {
    let refused = |builder: guild::GuildBuilder| builder.start().unwrap_err().to_string();
    let one = || Guild::builder().role("echo", 1, || Echo);

    assert!(refused(Guild::builder()).contains("needs a role"));
    assert!(refused(one().role("echo", 1, || Echo)).contains("declared twice"));
    assert!(refused(one().role("none", 0, || Echo)).contains("1 to 1000000"));
    assert!(refused(one().role("", 1, || Echo)).contains("0 characters"));
    assert!(refused(one().quota("q", guild::QuotaSpec::Permits(0))).contains("allows nothing"));
    let guild = one().start().unwrap();
    guild::block_on(async {
        guild.shutdown(Drain::Now).await.unwrap();
        let again = guild.shutdown(Drain::Now).await;
        assert!(matches!(again, Err(guild::ShutdownError::Ended)), "{again:?}");
    });
}
