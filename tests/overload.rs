//! Too much of everything: what is refused, what stays bounded, and that nothing waits in a circle.

#[path = "common/until.rs"]
mod until;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guild::{
    Agent, Drain, Event, Guild, GuildBuilder, Limits, Outcome, RestartPolicy, RetryPolicy, Storage,
    Strategy, SubmitError, SupervisorSpec, Task, TaskContext, TaskError,
};
use guild_sim::World;
use guild_sim::checker::{Knowledge, Watch};
use serde_json::Value;
use until::until;

/// Takes a second for each task.
struct Slow;

impl Agent for Slow {
    type Input = Value;
    type Output = ();

    async fn perform(&mut self, _: Value, task: &mut TaskContext) -> Result<(), TaskError> {
        task.sleep(Duration::from_secs(1)).await;
        Ok(())
    }
}

#[test]
fn ten_times_the_sustainable_load_for_a_minute_is_refused_and_forgotten_at_once() {
    const OPEN_MAX: u32 = 100;
    let mut limits = Limits::default();
    limits.tasks_open_max = u64::from(OPEN_MAX);
    let watch = Watch::default();
    let mut world = World::with_seed(5)
        .role("slow", 10, || Slow)
        .limits(limits)
        .reader(watch.clone())
        .start()
        .unwrap();
    let single = |world: &World, name: String| {
        let mut graph = world.graph(name);
        graph.add(Task::new("only", "slow"));
        graph.build().unwrap()
    };
    let (mut taken, mut refused, mut most) = (Vec::new(), 0, 0);
    // Ten agents do ten tasks a second; a hundred are offered.
    for number in 0..6_000 {
        let graph = single(&world, format!("run-{number}"));
        let guild = world.guild().clone();
        match world.block_on(async move { guild.submit(graph).await }) {
            Ok(run) => taken.push(run),
            Err(SubmitError::Overloaded { open, open_max }) => {
                assert!(open >= open_max && open_max == u64::from(OPEN_MAX));
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        let guild = world.guild().clone();
        let under_way = world.block_on(async move { guild.under_way().await }).unwrap();
        most = most.max(under_way.runs);
        world.run_for(Duration::from_millis(10));
    }
    assert!(most <= OPEN_MAX as usize, "{most} runs at once");
    assert!((600..=710).contains(&taken.len()), "{} were taken", taken.len());
    assert_eq!(taken.len() + refused, 6_000);

    // What was taken is done in the ten seconds that it takes, and nothing of the rest is left.
    let after = world.now();
    for run in taken {
        let report = world.block_on(async move { run.wait().await }).unwrap();
        assert_eq!(report.outcome(), Outcome::Completed);
    }
    assert!(world.now().since(after) <= Duration::from_secs(11));
    let graph = single(&world, "afterwards".to_owned());
    let before = world.now();
    assert_eq!(world.run(graph).unwrap().outcome(), Outcome::Completed);
    assert_eq!(world.now().since(before), Duration::from_secs(1), "it waits for nobody");
    world.end();
    let verdict = watch.finish_with(&Knowledge { is_complete: true, ..Knowledge::default() });
    assert!(verdict.is_clean(), "{:?}", verdict.first_violation());
}

#[test]
fn an_order_for_which_a_mailbox_has_no_room_waits_and_the_agent_is_not_lost() {
    let mut limits = Limits::default();
    limits.mailbox_messages_max = 1;
    limits.hold_hard = Duration::ZERO;
    let (blocks, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_blocking, has_ended) = (Arc::clone(&blocks), Arc::clone(&ended));
    let guild = Guild::builder()
        .role("hog", 1, move || Hog(Arc::clone(&is_blocking), Arc::clone(&has_ended)))
        .role("worker", 1, || Slow)
        .agent_threads(1)
        .limits(limits)
        .validate(true)
        .start()
        .unwrap();
    let submit = |name: &str, role: &str| {
        let mut graph = guild.graph(name);
        graph.add(Task::new("only", role));
        let graph = graph.build().unwrap();
        guild::block_on(guild.submit(graph)).unwrap()
    };
    let count = |is: &dyn Fn(&Event) -> bool| {
        guild.events(1).available().unwrap().iter().filter(|record| is(&record.event)).count()
    };
    // On a thread that is held nobody moves in.
    until("both agents live", || count(&|event| matches!(event, Event::AgentStarted { .. })) == 2);
    let hog = submit("hog", "hog");
    until("the thread is held", || blocks.load(Ordering::Relaxed));
    // The assignment takes the only place in the mailbox, and nobody reads it.
    let cancelled = submit("cancelled", "worker");
    let assigned = || count(&|event| matches!(event, Event::TaskAssigned { .. }));
    until("its task is assigned", || assigned() == 2);
    cancelled.cancel();
    assert_eq!(guild::block_on(cancelled.wait()).unwrap().outcome(), Outcome::Cancelled);
    ended.store(true, Ordering::Relaxed);

    submit("next", "worker");
    until("the agent that was revoked is given another task", || assigned() == 3);
    guild::block_on(async {
        assert_eq!(hog.wait().await.unwrap().outcome(), Outcome::Completed);
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

/// Holds its thread until it is told to go on.
struct Hog(Arc<AtomicBool>, Arc<AtomicBool>);

impl Agent for Hog {
    type Input = Value;
    type Output = ();

    async fn perform(&mut self, _: Value, _: &mut TaskContext) -> Result<(), TaskError> {
        self.0.store(true, Ordering::Relaxed);
        while !self.1.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        Ok(())
    }
}

/// Spawns, reads and writes, dies now and then, and now and then takes its time.
struct Busy;

impl Agent for Busy {
    type Input = u32;
    type Output = u32;

    async fn perform(&mut self, depth: u32, task: &mut TaskContext) -> Result<u32, TaskError> {
        let (index, attempt) = (task.task_id().index.0, task.attempt());
        assert!(!(index % 7 == 3 && attempt == 1), "the first attempt of every seventh");
        if index % 11 == 5 && attempt == 1 {
            return Err(TaskError::retryable("not now"));
        }
        let seen: i64 = task.memory().get("shared")?.unwrap_or(0);
        task.memory().put("shared", &(seen + 1))?;
        task.heartbeat();
        tokio::task::yield_now().await;
        if depth > 0 {
            for number in 0..3 {
                let below = Task::numbered(number, "busy").input(&(depth - 1));
                task.spawn(below.retry(RetryPolicy::immediately(1_000)));
            }
        }
        Ok(depth)
    }
}

/// Every queue that has a bound has room for one.
fn ones() -> Limits {
    let mut limits = Limits::default();
    limits.mailbox_messages_max = 1;
    limits.requests_waiting_max = 1;
    limits.commits_in_flight_max = 1;
    limits.blocking_threads_max = 1;
    limits.incidents_in_memory_max = 1;
    limits.dead_letters_max = 1;
    limits.interruptions_max = 1_000_000;
    limits
}

fn busy(builder: GuildBuilder) -> GuildBuilder {
    let restart = RestartPolicy { intensity: 1_000_000, ..RestartPolicy::default() };
    let spec = |strategy| SupervisorSpec {
        strategy,
        restart: restart.clone(),
        ..SupervisorSpec::default()
    };
    builder
        .role("busy", 12, || Busy)
        .role("pair", 2, || Busy)
        .supervise("busy", spec(Strategy::OneForOne))
        .supervise("pair", spec(Strategy::OneForAll))
        .limits(ones())
        .validate(true)
}

#[test]
fn with_room_for_one_message_in_every_mailbox_nothing_waits_in_a_circle() {
    let directory = tempfile::tempdir().unwrap();
    let on_disk = |name| Storage::Directory(directory.path().join(name));
    let cases = [(Storage::Ram, 0), (Storage::Ram, 2), (on_disk("one"), 0), (on_disk("other"), 2)];
    for (storage, threads) in cases {
        let guild = busy(Guild::builder()).store(storage).agent_threads(threads).start().unwrap();
        guild::block_on(async {
            let mut graph = guild.graph("ones");
            for number in 0..30 {
                let role = if number % 5 == 0 { "pair" } else { "busy" };
                let depth = if role == "busy" { 2 } else { 0 };
                let task = Task::new(format!("task-{number}"), role).input(&depth);
                graph.add(task.retry(RetryPolicy::immediately(1_000)));
            }
            let graph = graph.build().unwrap();
            let run = loop {
                match guild.submit(graph.clone()).await {
                    Ok(run) => break run,
                    // The events of the start have taken the room.
                    Err(SubmitError::Busy(1)) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            };
            // Whoever asks from outside meanwhile is served or refused, and waits for nobody.
            let (mut served, mut busy) = (0, 0);
            let (memory, once) = (guild.memory(), RetryPolicy::once());
            for _ in 0..200 {
                let transaction = memory.transact(&once, |memory| memory.add("outside", 1));
                match transaction.await {
                    Ok(_) => served += 1,
                    Err(guild::TransactError::Busy(1)) => busy += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            let report = run.wait().await.unwrap();
            assert_eq!(report.outcome(), Outcome::Completed);
            // 24 trees of 1 + 3 + 9, and six that spawn nothing.
            assert_eq!(report.tally().completed, 24 * 13 + 6);
            let snapshot = guild.memory().snapshot();
            assert_eq!(snapshot.value::<i64>("shared").unwrap(), Some(24 * 13 + 6));
            let outside = snapshot.value::<i64>("outside").unwrap().unwrap_or(0);
            assert_eq!((outside, served + busy), (served, 200), "refused means not done");
            guild.shutdown(Drain::Until(Duration::from_secs(10))).await.unwrap();
        });
    }
}
