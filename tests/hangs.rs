//! Agents that block their thread: what is promised of loops without an await, and of work that blocks.

mod common;
#[path = "common/until.rs"]
mod until;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
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
        assert!(incidents[0].report.location.as_deref().unwrap().contains("hangs.rs"));
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
