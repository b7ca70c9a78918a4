//! The shared memory as tasks and outsiders use it, in a running guild.

#[expect(dead_code, reason = "these tests use a part of what the tests share")]
mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Acts, Echo, events};
use guild::{
    CommitVersion, Drain, Guild, HistoryError, IncidentKind, KeyRange, Limits, Namespace,
    OnConflict, Outcome, RetryPolicy, Rights, Storage, Task, TransactError, TransactionError,
};
use serde_json::json;

#[test]
fn a_stock_is_sold_out_exactly_and_the_rest_is_told_so() {
    let guild = Guild::builder()
        .role("buyer", 20, || {
            Acts(async |order, task: &mut guild::TaskContext| {
                let memory = task.memory();
                match memory.add_at_least("stock", -1, 0) {
                    Ok(()) => memory.append("sold", &order, 100)?,
                    Err(TransactionError::BelowFloor { .. }) => memory.add("declined", 1)?,
                    Err(error) => return Err(error.into()),
                }
                Ok(order)
            })
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let (memory, policy) = (guild.memory(), RetryPolicy::immediately(1));
        memory.transact(&policy, |memory| memory.put("stock", &7)).await.unwrap();
        let mut graph = guild.graph("sale");
        for number in 0..20 {
            graph.add(Task::new(format!("order-{number}"), "buyer").input(&number));
        }

        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Completed);
        let books = memory.snapshot();
        assert_eq!(books.value::<i64>("stock").unwrap(), Some(0));
        assert_eq!(books.value::<Vec<u32>>("sold").unwrap().unwrap().len(), 7);
        assert_eq!(books.value::<i64>("declined").unwrap(), Some(13));

        let refused = memory.transact(&policy, |memory| memory.add_at_least("stock", -1, 0)).await;
        let Err(TransactError::GivenUp(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(
            error.to_string(),
            "memory key `stock` holds 0: adding -1 would leave less than 0"
        );
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_task_that_passes_the_refusal_on_fails_as_often_as_its_policy_says() {
    let guild = Guild::builder()
        .role("buyer", 1, || {
            Acts(async |_, task: &mut guild::TaskContext| {
                task.memory().add_at_least("stock", -1, 0)?;
                Ok(json!(null))
            })
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("sale");
        graph.add(Task::new("order", "buyer").retry(RetryPolicy::immediately(3)));
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!(report.outcome(), Outcome::Failed);
        assert_eq!(guild.stats().attempts, 3);
        assert!(guild.incidents()[0].report.message.contains("`stock` holds 0"));
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_thousand_agents_on_one_hot_key_lose_nothing_and_nobody_starves() {
    const AGENTS: u32 = 1_000;
    let guild = Guild::builder()
        .role("counter", AGENTS, || {
            Acts(async |order, task: &mut guild::TaskContext| {
                let seen = task.memory().get::<i64>("hot")?.unwrap_or(0);
                task.sleep(Duration::from_millis(1)).await;
                task.memory().put("hot", &(seen + 1))?;
                Ok(order)
            })
        })
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("hot");
        for number in 0..AGENTS {
            graph.add(Task::new(format!("count-{number}"), "counter"));
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(guild.memory().snapshot().value::<u32>("hot").unwrap(), Some(AGENTS));
        let mut lost = BTreeMap::new();
        for event in events(&guild).iter().filter(|event| event["kind"] == "task_failed") {
            assert_eq!(event["cause"], "conflict");
            *lost.entry(event["task"].to_string()).or_insert(0) += 1;
        }
        let most = lost.values().max().copied().unwrap_or(0);
        assert!((1..=10).contains(&most), "some task lost {most} times");
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_watch_tells_every_commit_once_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let storage = Storage::Directory(folder.path().join("store"));
        Guild::builder().role("echo", 1, || Echo).store(storage).start().unwrap()
    };
    let policy = RetryPolicy::immediately(1);
    let put = |guild: &Guild, key: &str, value: i64| {
        let memory = guild.memory();
        memory.transact_blocking(&policy, |memory| memory.put(key, &value)).unwrap().1
    };
    let first = start();
    let mut watch = first.memory().watch(KeyRange::prefix("a/"), CommitVersion(0)).unwrap();
    for number in 1..=3 {
        put(&first, "a/x", number);
        put(&first, "b", number);
    }
    let mut told = Vec::new();
    while let Some(change) = watch.available() {
        let change = change.unwrap();
        told.push((change.version.0, change.keys[0].0.clone()));
    }
    assert_eq!(told, [(1, "a/x".into()), (3, "a/x".into()), (5, "a/x".into())]);
    guild::block_on(first.shutdown(Drain::Now)).unwrap();
    assert!(guild::block_on(watch.next()).is_none(), "it ends with the guild");

    let second = start();
    let mut watch = second.memory().watch(KeyRange::prefix("a/"), CommitVersion(3)).unwrap();
    let last = put(&second, "a/y", 9);
    guild::block_on(async {
        assert_eq!(watch.next().await.unwrap().unwrap().version, CommitVersion(5));
        let change = watch.next().await.unwrap().unwrap();
        assert_eq!((change.version, change.keys.len()), (last, 1));
        assert_eq!(change.keys[0].1.as_ref().unwrap().value, "9");
        assert!(watch.available().is_none());
        let not_yet = second.memory().watch(.., CommitVersion(99)).unwrap_err();
        assert!(matches!(not_yet, HistoryError::NotYet { .. }));
        // A pinned version can be read, and returned to.
        let pin = second.memory().pin(CommitVersion(1)).unwrap();
        let then = second.memory().snapshot().as_of(pin.version()).unwrap();
        assert_eq!(then.value::<i64>("a/x").unwrap(), Some(1));
        let version = second.memory().rollback(.., pin.version()).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().version, version);
        let now = second.memory().snapshot();
        assert_eq!((now.value::<i64>("a/x").unwrap(), now.len()), (Some(1), 1));
        second.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_slow_watch_is_told_so_and_blocks_nobody() {
    let mut limits = Limits::default();
    limits.history_bytes_max = 1_000;
    let guild = Guild::builder().role("echo", 1, || Echo).limits(limits).start().unwrap();
    let (memory, policy) = (guild.memory(), RetryPolicy::immediately(1));
    let mut watch = memory.watch(.., CommitVersion(0)).unwrap();
    for number in 1..=50 {
        memory.transact_blocking(&policy, |memory| memory.put("key", &number)).unwrap();
    }
    let lagged = watch.available().unwrap().unwrap_err();
    assert_eq!(lagged.seen, CommitVersion(0));
    let mut versions = Vec::new();
    while let Some(change) = watch.available() {
        versions.push(change.unwrap().version.0);
    }
    let expected: Vec<u64> = (lagged.oldest.0 + 1..=50).collect();
    assert_eq!(versions, expected);
    assert!(!expected.is_empty());
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
}

#[test]
fn a_role_gets_what_its_namespace_allows_and_no_more() {
    let board = Namespace::new("board/").allow("critic", Rights::MERGE_ONLY);
    let guild = Guild::builder()
        .role("critic", 1, || {
            Acts(async |order, task: &mut guild::TaskContext| {
                task.memory().add("board/votes", 1)?;
                if order == "peek" {
                    task.memory().get::<i64>("board/votes")?;
                }
                if order == "watch" {
                    drop(task.watch(KeyRange::prefix("board/"))?);
                }
                if order == "overwrite" {
                    task.memory().delete("board/votes");
                }
                Ok(order)
            })
        })
        .namespace(board)
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("votes");
        for order in ["vote", "peek", "overwrite", "watch"] {
            graph.add(Task::new(order, "critic").input(order));
        }
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!((report.tally().completed, report.tally().failed), (1, 3));
        let mut messages: Vec<_> = guild
            .incidents()
            .into_iter()
            .map(|incident| incident.report.message.into_string())
            .collect();
        messages.sort();
        let told = |right: &str, place: &str| {
            format!(
                "role `critic` may not {right} memory {place}: namespace `board/` allows it merge"
            )
        };
        let key = "key `board/votes`";
        let expected = [told("read", key), told("watch", "range `board/*`"), told("write", key)];
        assert_eq!(messages, expected);
        assert_eq!(guild.memory().snapshot().value::<i64>("board/votes").unwrap(), Some(1));
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_conflict_in_a_namespace_may_be_left_to_a_person() {
    let guild = Guild::builder()
        .role("editor", 1, || {
            Acts(async |order, task: &mut guild::TaskContext| {
                task.memory().get::<i64>("plan/a")?;
                // Others change it between the read and the commit.
                task.sleep(Duration::from_millis(50)).await;
                task.memory().put("plan/a", &1)?;
                Ok(order)
            })
        })
        .namespace(Namespace::new("plan/").on_conflict(OnConflict::Escalate))
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("plan");
        graph.add(Task::new("edit", "editor"));
        let run = guild.submit(graph.build().unwrap()).await.unwrap();
        let policy = RetryPolicy::immediately(1);
        let (memory, mut end) = (guild.memory(), None);
        while end.is_none() {
            memory.transact(&policy, |memory| memory.add("plan/a", 1)).await.unwrap();
            end = guild.events(1).available().unwrap().into_iter().find_map(|record| {
                matches!(record.event, guild::Event::RunEnded { .. }).then_some(record.seq)
            });
        }
        assert_eq!(run.wait().await.unwrap().tally().failed, 1);
        let incidents = guild.incidents();
        let conflict =
            incidents.iter().find(|it| it.report.kind == IncidentKind::MemoryConflict).unwrap();
        let conflict = &conflict.report;
        assert!(conflict.message.contains("memory key `plan/a`"), "{}", conflict.message);
        assert!(conflict.message.contains("leaves conflicts to a person"), "{}", conflict.message);
        assert_eq!(guild.stats().attempts, 1, "it was not tried again");
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn rules_that_name_what_does_not_exist_are_refused_at_the_start() {
    let start = |namespace: Namespace| {
        let started = Guild::builder().role("echo", 1, || Echo).namespace(namespace).start();
        started.map(drop).unwrap_err().to_string()
    };
    let role = start(Namespace::new("a").allow("nobody", Rights::ALL));
    assert!(role.contains("role `nobody`, which does not exist; roles: echo"), "{role}");
    let function = start(Namespace::new("a").on_conflict(OnConflict::Merge("union".into())));
    assert!(function.contains("merge function `union`, which is not registered"), "{function}");
}
