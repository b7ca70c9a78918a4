//! Bugs that other supervisors have published, each as a test under its name: none of them is ours.
//!
//! | bug | what happened |
//! |---|---|
//! | kameo#387 | the factory built the next incarnation while the old one was still there |
//! | kameo#392 | a handle belonged to one incarnation and was dead after a restart |
//! | rust-srec#898 | time spent waiting for a restart counted as running, so the backoff began anew |
//! | firstmate#2942 | a start that succeeded cleared the streak, so a crash loop never backed off |
//! | grappa-irc#2005 | one outage killed all children at once, and their number melted the supervisor down |
//! | actix#567 | a supervised actor that panics is dropped with its address and its queue |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use guild::{
    Agent, Ceiling, Fault, FaultPoint, Outcome, RestartPolicy, RetryPolicy, Site, Strategy,
    SupervisorSpec, Task, TaskContext, TaskError,
};
use guild_sim::{World, WorldBuilder};
use serde_json::Value;

/// Does what its input says, and counts how many of its kind there are at once.
struct Worker(Arc<AtomicI32>);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Agent for Worker {
    type Input = String;
    type Output = ();

    async fn perform(&mut self, input: String, task: &mut TaskContext) -> Result<(), TaskError> {
        let first = task.attempt() == 1;
        match &*input {
            "panic once" if first => panic!("once"),
            "panic six times" if task.attempt() <= 6 => panic!("six times"),
            "hang once" if first => std::future::pending().await,
            "exit once" if first => Err(TaskError::crashed("it is over")),
            "work for five seconds" => {
                task.sleep(Duration::from_secs(5)).await;
                Ok(())
            }
            "work for eleven seconds" => {
                task.sleep(Duration::from_secs(11)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn world(agents: u32, restart: RestartPolicy) -> WorldBuilder {
    World::with_seed(1).keep_log().validate(true).restart(restart).role("worker", agents, {
        let alive = Arc::new(AtomicI32::new(0));
        move || {
            alive.fetch_add(1, Ordering::SeqCst);
            Worker(Arc::clone(&alive))
        }
    })
}

fn run(world: &mut World, name: &str, inputs: &[&str]) -> Outcome {
    let mut graph = world.graph(name);
    let mut last = None;
    for (number, input) in inputs.iter().enumerate() {
        let mut task = Task::new(format!("task-{number}"), "worker").input(input);
        task = task.retry(RetryPolicy::immediately(100)).timeout(Duration::from_secs(20));
        last = Some(graph.add(match last {
            Some(before) => task.after(before),
            None => task,
        }));
    }
    let graph = graph.build().unwrap();
    world.run(graph).unwrap().outcome()
}

fn lines(world: &World, kind: &str) -> Vec<Value> {
    let lines = world.log().into_iter();
    let events = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    events.filter(|event| event["kind"] == kind).collect()
}

/// The delays of all restarts, in seconds.
fn delays(world: &World) -> Vec<u64> {
    let restarts = lines(world, "agent_restarted");
    restarts.iter().map(|event| event["delay_us"].as_u64().unwrap() / 1_000_000).collect()
}

fn backing_off() -> RestartPolicy {
    RestartPolicy {
        intensity: 100,
        backoff_first: Duration::from_secs(1),
        backoff_max: Duration::from_secs(1_000),
        jitter: 0.0,
        sustained: Duration::from_secs(10),
        ..RestartPolicy::default()
    }
}

#[test]
fn kameo_387_the_old_incarnation_is_gone_before_the_factory_builds_the_next() {
    let alive = Arc::new(AtomicI32::new(0));
    let most = Arc::new(AtomicI32::new(0));
    let (counted, highest) = (Arc::clone(&alive), Arc::clone(&most));
    let mut world = World::with_seed(1)
        .validate(true)
        .role("worker", 1, move || {
            highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Worker(Arc::clone(&counted))
        })
        .start()
        .unwrap();

    let outcome = run(&mut world, "all", &["panic once", "hang once", "exit once", "work"]);

    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(world.restarts_of("worker"), 3, "by a panic, a hang and an exit");
    assert_eq!(most.load(Ordering::SeqCst), 1, "two incarnations were there at once");
    world.end();
}

#[test]
fn kameo_392_a_handle_from_before_a_restart_reaches_the_agent_after_it() {
    let mut world = world(1, RestartPolicy::default()).start().unwrap();
    // Taken before the first death: the handle of the guild, and by it the scheduler's of the agent.
    let guild = world.guild().clone();

    assert_eq!(
        run(&mut world, "die", &["panic once", "exit once", "hang once"]),
        Outcome::Completed
    );

    let mut graph = guild.graph("later");
    graph.add(Task::new("later", "worker").input("work"));
    let graph = graph.build().unwrap();
    let report =
        world.block_on(async move { guild.submit(graph).await.unwrap().wait().await.unwrap() });
    assert_eq!(report.outcome(), Outcome::Completed);
    let done = lines(&world, "task_completed");
    assert!(done.iter().all(|event| event["agent"] == "worker-0"), "one agent, four lives");
    world.end();
}

#[test]
fn rust_srec_898_time_spent_waiting_for_a_restart_does_not_clear_the_streak() {
    let mut world = world(1, backing_off()).start().unwrap();

    assert_eq!(run(&mut world, "loop", &["panic six times"]), Outcome::Completed);

    assert_eq!(delays(&world), [1, 2, 4, 8, 16, 32], "waiting for 16 s is not running for 10 s");
    world.end();
}

#[test]
fn firstmate_2942_a_successful_start_does_not_clear_the_streak_and_sustained_running_does() {
    let mut world = world(1, backing_off()).start().unwrap();
    let loops = ["panic once", "work for five seconds", "panic once", "work", "panic once"];

    assert_eq!(run(&mut world, "loop", &loops), Outcome::Completed);
    assert_eq!(delays(&world), [1, 2, 4], "it started well each time, and worked for a while");

    let sustained = ["work for eleven seconds", "panic once"];
    assert_eq!(run(&mut world, "sustained", &sustained), Outcome::Completed);
    assert_eq!(delays(&world), [1, 2, 4, 1]);
    world.end();
}

#[test]
fn grappa_irc_2005_one_outage_that_kills_all_agents_at_once_does_not_melt_the_supervisor_down() {
    let ceiling = Ceiling { deaths_max: 3, ..Ceiling::default() };
    let spec = SupervisorSpec { ceiling, ..SupervisorSpec::default() };
    let mut world = world(100, RestartPolicy::default()).supervise("worker", spec).start().unwrap();
    let mut graph = world.graph("outage");
    for number in 0..100 {
        graph.add(Task::new(format!("task-{number}"), "worker").input("panic once"));
    }
    let graph = graph.build().unwrap();

    assert_eq!(world.run(graph).unwrap().outcome(), Outcome::Completed);

    assert_eq!(world.crashes_of("worker"), 100);
    let incidents = lines(&world, "incident_opened");
    assert!(incidents.iter().all(|incident| incident["type"] == "agent_crashed"));
    world.end();
}

/// Makes the cell of an agent panic in front of an assignment that is queued behind, three times.
struct BlowsInFront(AtomicU32);

impl FaultPoint for BlowsInFront {
    fn strike(&self, hit: &guild::Hit<'_>) -> Option<guild::Strike> {
        let strikes = hit.site == Site::Assign && self.0.fetch_add(1, Ordering::SeqCst) < 3;
        strikes.then(|| guild::Strike::new(Fault::CrashQueued, "crash_queued"))
    }
}

#[test]
fn actix_567_an_actor_that_panics_keeps_its_address_and_what_is_queued_behind() {
    let spec = SupervisorSpec { strategy: Strategy::OneForOne, ..SupervisorSpec::default() };
    let mut world = world(1, RestartPolicy::default())
        .supervise("worker", spec)
        .faults(Arc::new(BlowsInFront(AtomicU32::new(0))))
        .start()
        .unwrap();

    assert_eq!(run(&mut world, "queued", &["work", "work"]), Outcome::Completed);

    assert_eq!(world.restarts_of("worker"), 3);
    let done = lines(&world, "task_completed");
    assert!(done.iter().all(|event| event["agent"] == "worker-0"), "behind the same address");
    let returned = lines(&world, "task_returned").len();
    let assigned = lines(&world, "task_assigned").len();
    assert_eq!(
        assigned,
        2 + returned + lines(&world, "task_failed").len(),
        "each is accounted for"
    );
    world.end();
}
