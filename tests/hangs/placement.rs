//! Where agents and their work are placed, so that one that blocks or hogs a thread harms few others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use guild::{
    Agent, Drain, Guild, Limits, Outcome, RestartPolicy, RetryPolicy, Task, TaskContext, TaskError,
};
use serde_json::{Value, json};

use crate::common::{Acts, Echo, count, events};
use crate::until::until;
use crate::{Loop, limits, loopers};

/// Tells on which thread it lives; dies of a first attempt.
struct Tells;

impl Agent for Tells {
    type Input = ();
    type Output = (String, String);

    async fn perform(
        &mut self,
        (): (),
        task: &mut TaskContext,
    ) -> Result<(String, String), TaskError> {
        assert!(task.attempt() > 1, "it moves only between two lives");
        Ok((task.agent(), format!("{:?}", std::thread::current().id())))
    }
}

#[test]
fn agents_that_are_restarted_leave_a_thread_that_another_one_keeps_busy() {
    let endless = Loop::default();
    let ended = Arc::clone(&endless.ended);
    let hog = move || {
        let ended = Arc::clone(&ended);
        Acts(async move |_: Value, task: &mut TaskContext| {
            task.memory().put("busy", &format!("{:?}", std::thread::current().id()))?;
            while !ended.load(Ordering::Relaxed) {
                for _ in 0..100_000 {
                    std::hint::spin_loop();
                }
                tokio::task::yield_now().await;
            }
            Ok(json!(format!("{:?}", std::thread::current().id())))
        })
    };
    let guild = Guild::builder()
        .agent_threads(2)
        .role("hog", 1, hog)
        .role("worker", 4, || Tells)
        .restart(RestartPolicy { intensity: 1_000_000, ..RestartPolicy::default() })
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("hog");
        graph.add(Task::new("hog", "hog"));
        let hog = guild.submit(graph.build().unwrap()).await.unwrap();
        let (mut lives_on, mut before) = (BTreeMap::new(), BTreeMap::new());
        for round in 0.. {
            let mut graph = guild.graph(format!("round-{round}"));
            for number in 0..8 {
                let task = Task::numbered(number, "worker").input(&());
                graph.add(task.retry(RetryPolicy::immediately(10)));
            }
            let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
            for number in 0..8_usize {
                let output = report.payloads()[number].as_ref().unwrap();
                let (agent, thread): (String, String) = output.decode().unwrap();
                before.entry(agent.clone()).or_insert_with(|| thread.clone());
                lives_on.insert(agent, thread);
            }
            let threads: BTreeSet<&String> = lives_on.values().collect();
            if lives_on.len() == 4 && threads.len() == 1 {
                break;
            }
        }
        assert_eq!(before.values().collect::<BTreeSet<_>>().len(), 2, "they began on both");
        endless.end();
        let hog = hog.wait().await.unwrap().output::<String>("hog").unwrap();
        assert!(lives_on.values().all(|thread| *thread != hog), "not where the hog lives");
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_role_behind_a_bulkhead_works_on_while_the_threads_of_others_are_blocked() {
    let (guild, endless) = loopers(2, limits(Duration::ZERO));
    let guild = guild.role("other", 2, || Echo).bulkhead("other", 1).start().unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("hang");
        graph.add(Task::new("hog", "worker").input("loop"));
        let hang = guild.submit(graph.build().unwrap()).await.unwrap();
        let mut graph = guild.graph("others");
        for number in 0..100 {
            graph.add(Task::new(format!("task-{number}"), "other"));
        }
        let others = guild.submit(graph.build().unwrap()).await.unwrap();

        assert_eq!(others.wait().await.unwrap().outcome(), Outcome::Completed);
        endless.end();
        assert_eq!(hang.wait().await.unwrap().outcome(), Outcome::Completed);
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

/// Counts who comes, and lets work wait for that on whatever thread it is.
#[derive(Default)]
struct Meeting {
    there: Mutex<u32>,
    changed: Condvar,
}

impl Meeting {
    fn come(&self) {
        *self.there.lock().expect("nobody panics here") += 1;
        self.changed.notify_all();
    }

    fn there(&self) -> u32 {
        *self.there.lock().expect("nobody panics here")
    }

    fn wait_for(&self, count: u32) {
        let there = self.there.lock().expect("nobody panics here");
        let met = self.changed.wait_while(there, |there| *there < count);
        drop(met.expect("nobody panics here"));
    }
}

/// Who asks for the pool, who gets in, and what lets them out.
#[derive(Default)]
struct Pool {
    asked: Meeting,
    inside: Meeting,
    open: Meeting,
}

#[test]
fn work_that_blocks_goes_to_a_bounded_pool_and_its_panic_is_that_of_its_agent() {
    let mut limits = Limits::default();
    limits.blocking_threads_max = 2;
    let pool = Arc::new(Pool::default());
    let of_agents = Arc::clone(&pool);
    let guild = Guild::builder()
        .agent_threads(1)
        .limits(limits)
        .role("worker", 8, move || {
            let pool = Arc::clone(&of_agents);
            Acts(async move |input: Value, task: &mut TaskContext| {
                let (pool, panics) = (Arc::clone(&pool), input == "panic" && task.attempt() == 1);
                pool.asked.come();
                let work = move || {
                    pool.inside.come();
                    pool.open.wait_for(1);
                    assert!(!panics, "a panic on the pool");
                };
                task.blocking(work).await;
                Ok(input)
            })
        })
        .role("probe", 1, || {
            Acts(async |input: Value, _: &mut TaskContext| {
                #[expect(clippy::disallowed_methods, reason = "it passes by the pool")]
                tokio::task::spawn_blocking(|| ()).await.expect("it does nothing");
                Ok(input)
            })
        })
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("blocking");
        for number in 0..20 {
            let input = if number == 7 { "panic" } else { "work" };
            graph.add(Task::new(format!("task-{number}"), "worker").input(input));
        }
        let run = guild.submit(graph.build().unwrap()).await.unwrap();
        until("all have asked and two are in", || {
            pool.asked.there() == 8 && pool.inside.there() >= 2
        });
        // Threads begin work in the order in which it comes, so by its end whoever may has begun.
        let mut graph = guild.graph("probe");
        graph.add(Task::new("probe", "probe"));
        guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!(pool.inside.there(), 2, "two at a time, and no more");
        pool.open.come();
        let report = run.wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(pool.inside.there(), 21, "one of them twice");
        let incidents = guild.incidents();
        assert_eq!(incidents.len(), 1);
        assert_eq!(&*incidents[0].report.message, "a panic on the pool");
        assert!(incidents[0].report.location.as_deref().unwrap().contains("placement.rs"));
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn an_agent_that_hogs_its_thread_below_the_soft_limit_shows_in_the_loads() {
    let guild = Guild::builder()
        .agent_threads(1)
        .role("hog", 1, || {
            Acts(async |input: Value, _: &mut TaskContext| {
                let mut sum = 0_u64;
                for n in 0..30_000_000_u64 {
                    sum = std::hint::black_box(sum.wrapping_add(n * n));
                    if n % 1_000_000 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                assert_ne!(sum, 1);
                Ok(input)
            })
        })
        .role("quiet", 9, || Acts(async |input, _: &mut TaskContext| Ok(input)))
        .start()
        .unwrap();
    guild::block_on(async {
        let hog = || {
            let loads = guild.threads();
            let hogs = loads.first().map(|load| load.hogs.clone()).unwrap_or_default();
            hogs.into_iter().find(|hog| hog.agent.role.0 == 0)
        };
        let mut runs = 0;
        while hog().is_none() {
            let mut graph = guild.graph(format!("run-{runs}"));
            graph.add(Task::new("hog", "hog"));
            guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
            runs += 1;
        }
        let [load] = &guild.threads()[..] else { panic!("one thread") };
        assert!(load.busy > 0.0 && !load.is_hung);
        let hog = hog().unwrap();
        assert!(hog.share > 0.0 && hog.share <= 1.0, "{hog:?}");
        assert_eq!(count(&events(&guild), "thread_held"), 0, "it is below the limit");
        guild.shutdown(Drain::Now).await.unwrap();
    });
}
