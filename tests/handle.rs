//! The handle works wherever it is used, and means the same thing everywhere.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Acts, Echo, count, events};
use guild::{
    Drain, Guild, Outcome, QuotaSpec, RetryPolicy, RunError, Storage, SubmitError, Task, TaskError,
};
use serde_json::json;

fn echo_guild() -> Guild {
    Guild::builder().role("echo", 4, || Echo).validate(true).start().unwrap()
}

async fn greets(guild: &Guild) {
    let mut graph = guild.graph("greeting");
    let hello = graph.add(Task::new("hello", "echo").input("hello"));
    graph.add(Task::new("again", "echo").input_from(hello));
    let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
    assert_eq!(report.outcome(), Outcome::Completed);
    assert_eq!(report.output::<String>("again").unwrap(), "hello");
    guild.shutdown(Drain::Now).await.unwrap();
}

#[test]
fn the_handle_works_from_a_plain_main() {
    let guild = echo_guild();
    guild::block_on(greets(&guild));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handle_works_from_a_multi_threaded_tokio_runtime() {
    let guild = echo_guild();
    tokio::spawn(async move { greets(&guild).await }).await.unwrap();
}

#[test]
fn the_handle_works_from_an_actix_system() {
    actix::System::new().block_on(async {
        let guild = echo_guild();
        actix_rt::spawn(async move { greets(&guild).await }).await.unwrap();
    });
}

#[test]
fn the_handle_is_clone_send_and_sync() {
    fn is_shareable<T: Clone + Send + Sync>() {}
    is_shareable::<Guild>();
    is_shareable::<guild::Run>();
}

#[test]
fn the_same_graph_under_the_same_name_is_one_run() {
    let guild = echo_guild();
    guild::block_on(async {
        let graph = |input: &str| {
            let mut graph = guild.graph("once");
            graph.add(Task::new("only", "echo").input(input));
            graph.build().unwrap()
        };
        let first = guild.submit(graph("a")).await.unwrap();
        first.wait().await.unwrap();

        let second = guild.submit(graph("a")).await.unwrap();
        let other = guild.submit(graph("b")).await;

        assert_eq!(first.id(), second.id());
        assert_eq!(second.wait().await.unwrap().output::<String>("only").unwrap(), "a");
        assert!(matches!(other, Err(SubmitError::Refused(_))), "{other:?}");
        assert_eq!(guild.run("once").unwrap().id(), first.id());
        assert_eq!(count(&events(&guild), "task_completed"), 1);
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_cancelled_run_ends_and_its_agents_work_on_for_others() {
    let guild = Guild::builder()
        .role("stuck", 2, || Acts(async |_, _: &mut _| std::future::pending().await))
        .role("echo", 1, || Echo)
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("stuck");
        for number in 0..5 {
            graph.add(Task::new(format!("stuck-{number}"), "stuck"));
        }
        graph.add(Task::new("after", "echo").after("stuck-0"));
        let run = guild.submit(graph.build().unwrap()).await.unwrap();
        let mut log = guild.events(1);
        while let Some(record) = log.next().await {
            if matches!(record.unwrap().event, guild::Event::TaskAssigned { .. }) {
                break;
            }
        }

        run.cancel();
        let report = run.wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Cancelled);
        assert_eq!(report.tally().cancelled, 6);
        assert!(guild.incidents().is_empty(), "a cancellation is nobody's failure");
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn progress_and_events_tell_the_life_of_a_task_in_order() {
    let guild = echo_guild();
    guild::block_on(async {
        let mut graph = guild.graph("story");
        graph.add(Task::new("only", "echo"));
        guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        let story: Vec<_> = events(&guild)
            .into_iter()
            .filter(|event| event.get("run").is_some())
            .map(|event| event["kind"].as_str().unwrap().to_owned())
            .collect();
        let expected = [
            "run_submitted",
            "task_added",
            "task_ready",
            "task_assigned",
            "task_completed",
            "run_ended",
        ];
        assert_eq!(story, expected);
        let numbers: Vec<_> = events(&guild).iter().map(|event| event["seq"].clone()).collect();
        let contiguous: Vec<_> = (1..=numbers.len()).map(|number| json!(number)).collect();
        assert_eq!(numbers, contiguous);
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn shutdown_lets_work_under_way_finish_and_tells_waiters_of_the_rest() {
    let guild = Guild::builder()
        .role("slow", 1, || {
            Acts(async |input, _: &mut _| {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(input)
            })
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("two");
        graph.add(Task::new("first", "slow").priority(1));
        graph.add(Task::new("second", "slow"));
        let run = guild.submit(graph.build().unwrap()).await.unwrap();
        let mut log = guild.events(1);
        while let Some(record) = log.next().await {
            if matches!(record.unwrap().event, guild::Event::TaskAssigned { .. }) {
                break;
            }
        }

        let report = guild.shutdown(Drain::Until(Duration::from_secs(10))).await.unwrap();

        assert_eq!(report.attempts_dropped, 0);
        assert_eq!(run.wait().await.unwrap_err(), RunError::ShutDown);
        let log = events(&guild);
        assert_eq!(count(&log, "task_completed"), 1, "the first one was under way");
        assert_eq!(count(&log, "task_assigned"), 1, "the second one was not begun");
        let mut graph = guild.graph("late");
        graph.add(Task::new("late", "slow"));
        let late = guild.submit(graph.build().unwrap()).await;
        assert!(matches!(late, Err(SubmitError::Unavailable(_))), "{late:?}");
    });
}

#[test]
fn an_error_says_whether_to_retry_and_its_dependants_are_skipped() {
    let guild = Guild::builder()
        .role("fails", 3, || {
            Acts(async |input: serde_json::Value, _: &mut _| match input.as_str() {
                Some("fatal") => Err(TaskError::fatal("no use")),
                _ => Err(TaskError::retryable("try again")),
            })
        })
        .role("echo", 1, || Echo)
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("errors");
        let retry = RetryPolicy::immediately(3);
        graph.add(Task::new("fatal", "fails").input("fatal").retry(retry.clone()));
        graph.add(Task::new("retryable", "fails").input("again").retry(retry));
        graph.add(Task::new("skipped", "echo").after("fatal"));
        graph.add(Task::new("done", "echo"));

        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Failed);
        let tally = report.tally();
        assert_eq!((tally.completed, tally.failed, tally.skipped), (1, 2, 1));
        let log = events(&guild);
        let failures = |task: &str| {
            log.iter().filter(|e| e["kind"] == "task_failed" && e["task"] == task).count()
        };
        assert_eq!((failures("fatal"), failures("retryable")), (1, 3));
        assert_eq!(guild.incidents().len(), 2, "one for each task that was given up");
        assert!(
            report
                .output::<String>("skipped")
                .unwrap_err()
                .to_string()
                .contains("did not complete")
        );
        assert!(report.output::<String>("nobody").unwrap_err().to_string().contains("no task"));
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn tokens_of_a_rate_that_were_spent_before_a_restart_stay_spent() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let per = Duration::from_secs(24 * 3_600);
        Guild::builder()
            .role("echo", 4, || Echo)
            .quota("calls", QuotaSpec::Rate { amount: 1, per, burst: 2 })
            .store(Storage::Directory(directory.path().join("store")))
            .validate(true)
            .start()
            .unwrap()
    };
    let calls = |guild: &Guild| {
        let mut graph = guild.graph("calls");
        for number in 0..3 {
            graph.add(Task::new(format!("call-{number}"), "echo").quota("calls", 1));
        }
        graph.build().unwrap()
    };
    guild::block_on(async {
        let guild = start();
        guild.submit(calls(&guild)).await.unwrap();
        let mut log = guild.events(1);
        let mut completed = 0;
        while completed < 2 {
            let record = log.next().await.unwrap().unwrap();
            completed += u32::from(matches!(record.event, guild::Event::TaskCompleted { .. }));
        }
        guild.shutdown(Drain::Now).await.unwrap();

        let guild = start();
        let mut graph = guild.graph("free");
        graph.add(Task::new("only", "echo"));
        guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        let log = events(&guild);
        let assigned = log.iter().filter(|e| e["kind"] == "task_assigned" && e["run"] == "calls");
        assert_eq!(assigned.count(), 2, "the third call waits for tomorrow");
        guild.shutdown(Drain::Now).await.unwrap();
    });
}
