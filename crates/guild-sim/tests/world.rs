//! A whole guild in virtual time: what a user of [`World`] sees.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::event::Outcome;
use guild_core::graph::{Graph, Task};
use guild_core::planner::ReadyOrder;
use guild_core::retry::RetryPolicy;
use guild_memory::store::Crash;
use guild_memory::{Durability, Transaction, TransactionError};
use guild_runtime::{Agent, RandomFaults, TaskContext, TaskError};
use guild_sim::checker::{Knowledge, Watch};
use guild_sim::world::{DiskFault, Medium, Perturbation, Resolution, RunName};
use guild_sim::{World, WorldBuilder, WorldError};

struct AlwaysPanics;

impl Agent for AlwaysPanics {
    type Input = ();
    type Output = ();

    async fn perform(&mut self, (): (), _: &mut TaskContext) -> Result<(), TaskError> {
        panic!("no luck");
    }
}

/// Waits, counts itself in the shared memory, and answers with its time.
struct Worker;

impl Agent for Worker {
    type Input = u64;
    type Output = u64;

    async fn perform(&mut self, us: u64, context: &mut TaskContext) -> Result<u64, TaskError> {
        context.sleep(Duration::from_micros(us)).await;
        context.memory().add("done", 1)?;
        Ok(us)
    }
}

/// Pays another trader, if it has the coins: the commit looks whether it has.
struct Trader;

impl Agent for Trader {
    type Input = (u32, u32, i64);
    type Output = bool;

    async fn perform(
        &mut self,
        (from, to, coins): (u32, u32, i64),
        context: &mut TaskContext,
    ) -> Result<bool, TaskError> {
        context.sleep(Duration::from_millis(1)).await;
        match context.memory().add_at_least(purse(from), -coins, 0) {
            Ok(()) => context.memory().add(purse(to), coins)?,
            Err(TransactionError::BelowFloor { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        context.memory().add("trades", 1)?;
        Ok(true)
    }
}

fn purse(trader: u32) -> String {
    format!("coins/{trader}")
}

fn one_task(world: &World, role: &str) -> Graph {
    let mut graph = world.graph("one");
    graph.add(Task::new("task", role).retry(RetryPolicy::immediately(10)));
    graph.build().unwrap()
}

fn chain(world: &World, name: &str, tasks: u32, us: u64) -> Graph {
    let mut graph = world.graph(name);
    let mut last = None;
    for number in 0..tasks {
        let mut task = Task::numbered(number, "worker").input(&us);
        if let Some(last) = last {
            task = task.after(last);
        }
        last = Some(graph.add(task));
    }
    graph.build().unwrap()
}

fn on_disk(seed: u64) -> WorldBuilder {
    let sync = (Duration::from_millis(1), Duration::from_millis(5));
    World::with_seed(seed)
        .role("worker", 4, || Worker)
        .medium(Medium::Disk { durability: Durability::Disk, sync })
        .keep_log()
        .validate(true)
}

#[test]
fn agent_that_exceeds_its_restart_intensity_is_quarantined() {
    let mut world = World::with_seed(7)
        .agent("flaky", || AlwaysPanics)
        .restarts_max(3)
        .within(Duration::from_secs(10))
        .start()
        .unwrap();

    let run = world.submit(one_task(&world, "flaky")).unwrap();
    world.run_for(Duration::from_secs(5));

    assert_eq!(world.crashes_of("flaky"), 4);
    assert_eq!(world.restarts_of("flaky"), 3);
    assert!(world.is_quarantined("flaky"));
    assert_eq!(world.incidents().len(), 4);

    // Released from its quarantine it fails the rest of the task's attempts.
    assert_eq!(world.run_until_ended(&run).unwrap().outcome(), Outcome::Failed);
    assert!(!world.is_quarantined("flaky-0") || world.fate_of("flaky-0").quarantines > 1);
}

#[test]
fn trouble_of_one_agent_is_not_that_of_its_role_or_of_another() {
    let mut world = World::with_seed(7)
        .role("flaky", 2, || AlwaysPanics)
        .role("worker", 2, || Worker)
        .start()
        .unwrap();

    assert_eq!(world.run(one_task(&world, "flaky")).unwrap().outcome(), Outcome::Failed);

    let (one, other) = (world.crashes_of("flaky-0"), world.crashes_of("flaky-1"));
    assert_eq!(one + other, 10);
    assert_eq!(world.crashes_of("flaky"), 10);
    assert_eq!(world.crashes_of("worker"), 0);
}

#[test]
#[should_panic(expected = "no agent `flakey`: its roles are flaky")]
fn misspelt_agent_is_not_taken_for_a_healthy_one() {
    let world = World::with_seed(7).agent("flaky", || AlwaysPanics).start().unwrap();

    assert_eq!(world.restarts_of("flakey"), 0);
}

#[test]
fn hours_pass_in_no_time_and_to_the_microsecond() {
    let mut world = World::with_seed(1)
        .role("worker", 1, || Worker)
        .resolution(Resolution::Microsecond)
        .start()
        .unwrap();

    let run = world.submit(chain(&world, "hours", 24, 599_000_007)).unwrap();
    let report = world.run_until_ended(&run).unwrap();

    assert_eq!(report.makespan_us(), 24 * 599_000_007);
}

#[test]
fn what_waits_for_ever_is_told_and_not_waited_for() {
    let mut world = World::with_seed(1)
        .role("worker", 1, || Worker)
        .time_limit(Duration::from_secs(60))
        .start()
        .unwrap();

    let run = world.submit(chain(&world, "long", 1, 500_000_000)).unwrap();

    assert!(matches!(world.run_until_ended(&run), Err(WorldError::Stuck(_))));
}

#[test]
fn run_goes_on_after_a_kill_at_any_event_and_counts_every_task_once() {
    let mut undisturbed = on_disk(3).start().unwrap();
    let run = undisturbed.submit(chain(&undisturbed, "chain", 8, 2_000)).unwrap();
    undisturbed.run_until_ended(&run).unwrap();
    for seq in 1..=undisturbed.counts().events {
        let mut world = on_disk(3).start().unwrap();
        let run = world.submit(chain(&world, "chain", 8, 2_000)).unwrap();
        world.run_until_event(seq).unwrap();

        world.crash(Crash::PowerCut { batches_kept: 0 }).unwrap();

        let report = world.run_until_ended(&run).unwrap();
        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(world.value::<i64>("done").unwrap(), Some(8), "killed at {seq}");
        check_order(&world.log());
    }
}

/// Fails the first attempt and asks for a long break.
struct Fails;

impl Agent for Fails {
    type Input = ();
    type Output = ();

    async fn perform(&mut self, (): (), task: &mut TaskContext) -> Result<(), TaskError> {
        match task.attempt() {
            1 => Err(TaskError::retryable("not now").with_retry_after(Duration::from_secs(100))),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_kill_does_not_end_the_backoff_of_a_task_that_failed() {
    let watch = Watch::default();
    let mut world = World::with_seed(1)
        .role("fails", 2, || Fails)
        .medium(Medium::Disk { durability: Durability::Disk, sync: <_>::default() })
        .validate(true)
        .reader(watch.clone())
        .start()
        .unwrap();
    let mut graph = world.graph("once more");
    graph.add(Task::new("only", "fails").input(&()));
    let graph = graph.build().unwrap();
    let run = world.submit(graph).unwrap();
    for _ in 0..2 {
        world.run_for(Duration::from_secs(30));
        world.crash(Crash::PowerCut { batches_kept: 0 }).unwrap();
    }

    let report = world.run_until_ended(&run).unwrap();

    assert_eq!(report.outcome(), Outcome::Completed);
    let makespan = Duration::from_micros(report.makespan_us());
    assert!((100..102).contains(&makespan.as_secs()), "{makespan:?}");
    world.end();
    let verdict = watch.finish_with(&Knowledge { is_complete: true, ..Knowledge::default() });
    assert!(verdict.is_clean(), "{:?}", verdict.first_violation());
}

fn check_order(log: &[String]) {
    let numbers: Vec<u64> = log.iter().map(|line| number(line, "seq")).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let times: Vec<u64> = log.iter().map(|line| number(line, "at_us")).collect();
    assert!(times.is_sorted(), "time goes on after a crash");
}

fn number(line: &str, field: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value[field].as_u64().unwrap()
}

const TRADERS: u32 = 6;

/// A market of few coins, in which agents crash now and then.
fn market(seed: u64) -> (World, RunName) {
    let faults = RandomFaults::parse("crash=0.05", Seed(seed)).unwrap();
    let sync = (Duration::from_millis(1), Duration::from_millis(5));
    let mut world = World::with_seed(seed)
        .role("trader", 8, || Trader)
        .restarts_max(u32::MAX)
        .faults(Arc::new(faults))
        .medium(Medium::Disk { durability: Durability::Disk, sync })
        .start()
        .unwrap();
    let fill = |memory: &mut Transaction| {
        (0..TRADERS).try_for_each(|trader| memory.put(purse(trader), &20))
    };
    world.transact(fill).unwrap();
    let mut graph = world.graph("day");
    for trade in 0..60 {
        let input = (trade % TRADERS, (trade * 5 + 1) % TRADERS, i64::from(trade % 13));
        let task = Task::new(format!("trade-{trade}"), "trader").input(&input);
        graph.add(task.retry(RetryPolicy::immediately(50)));
    }
    let day = world.submit(graph.build().unwrap()).unwrap();
    (world, day)
}

#[test]
fn coins_are_conserved_by_escrow_when_the_process_dies_at_any_event() {
    let (mut undisturbed, day) = market(4);
    undisturbed.run_until_ended(&day).unwrap();
    let events = undisturbed.counts().events;
    for seq in (events / 5..events).step_by(7) {
        let (mut world, day) = market(4);
        world.run_until_event(seq).unwrap();
        let batches_kept = usize::try_from(seq).unwrap() % (world.unsynced_batches() + 1);
        world.crash(Crash::PowerCut { batches_kept }).unwrap();

        let report = world.run_until_ended(&day).unwrap();

        let coins: Vec<i64> =
            (0..TRADERS).map(|trader| world.value(&purse(trader)).unwrap().unwrap()).collect();
        assert_eq!(coins.iter().sum::<i64>(), 20 * i64::from(TRADERS), "at {seq}: {coins:?}");
        assert!(coins.iter().all(|left| *left >= 0), "at {seq}: {coins:?}");
        let outputs =
            (0..60).map(|trade| report.output::<bool>(&format!("trade-{trade}")).unwrap());
        let paid = outputs.filter(|paid| *paid).count();
        assert_eq!(world.value::<usize>("trades").unwrap(), Some(paid), "at {seq}");
    }
}

#[test]
fn failing_disk_ends_the_guild_and_a_restart_goes_on() {
    for fault in
        [DiskFault::BeforeWrite, DiskFault::AfterSync, DiskFault::Unsynced, DiskFault::Full]
    {
        let mut world = on_disk(5).start().unwrap();
        let run = world.submit(chain(&world, "chain", 8, 2_000)).unwrap();
        world.run_for(Duration::from_millis(7));
        world.fail_disk(fault).unwrap();
        assert!(matches!(world.run_until_ended(&run), Err(WorldError::Run(_))), "{fault:?}");

        world.crash(Crash::PowerCut { batches_kept: 1 }).unwrap();

        assert_eq!(world.run_until_ended(&run).unwrap().outcome(), Outcome::Completed);
        assert_eq!(world.value::<i64>("done").unwrap(), Some(8), "{fault:?}");
    }
}

#[test]
fn same_seed_gives_the_same_log_and_another_seed_another_one() {
    let play = |seed| {
        let mut world = on_disk(seed).order(ReadyOrder::Random).start().unwrap();
        let run = world.submit(chain(&world, "chain", 8, 2_000)).unwrap();
        world.run_until_ended(&run).unwrap();
        (world.log(), world.log_hash())
    };

    assert_eq!(play(1), play(1));
    assert_ne!(play(1).1, play(2).1);
}

/// Names of the tasks in the order in which the log says that this happened to them.
fn order(log: &[String], kind: &str) -> Vec<String> {
    let lines = log.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter(|line| line["kind"] == kind)
        .map(|line| line["task"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn perturbed_world_sees_orders_that_no_other_does_and_repeats_them() {
    let play = |seed, perturbation: Option<Perturbation>| {
        let mut world = World::with_seed(seed).role("worker", 4, || Worker).keep_log();
        if let Some(perturbation) = perturbation {
            world = world.perturbed(perturbation);
        }
        let mut world = world.start().unwrap();
        let mut graph = world.graph("equals");
        for number in 0..12 {
            graph.add(Task::new(format!("t{number}"), "worker").input(&2_000));
        }
        assert_eq!(world.run(graph.build().unwrap()).unwrap().outcome(), Outcome::Completed);
        world.log()
    };
    let ties = Perturbation { latency_max: Duration::ZERO, shuffle_ties: true };
    let jitter = Perturbation { latency_max: Duration::from_millis(3), shuffle_ties: false };

    let plain = play(1, None);
    assert_eq!(plain[2..], play(2, None)[2..], "without draws a seed changes nothing");
    assert!(order(&plain, "task_completed") == order(&plain, "task_assigned"));
    for perturbation in [ties, jitter] {
        let [one, again, other] = [1, 1, 2].map(|seed| play(seed, Some(perturbation)));
        assert_eq!(one, again, "{perturbation:?}");
        for kind in ["task_assigned", "task_completed"] {
            let stays = kind == "task_assigned" && perturbation == jitter;
            assert_eq!(order(&one, kind) == order(&plain, kind), stays, "{kind} {perturbation:?}");
            assert_eq!(order(&one, kind) == order(&other, kind), stays, "{kind} {perturbation:?}");
        }
    }
}

#[test]
fn all_who_wait_for_one_run_are_told_in_the_order_in_which_they_asked() {
    let mut world = World::with_seed(1).role("worker", 1, || Worker).start().unwrap();
    let graph = chain(&world, "chain", 2, 2_000);
    let run = world.submit(graph).unwrap();
    let run = world.guild().run(&run.to_string()).unwrap();

    let told = world.block_on(async {
        let waits = futures_util::stream::FuturesUnordered::new();
        for number in 0..40 {
            let run = run.clone();
            waits.push(async move {
                run.wait().await.unwrap();
                number
            });
        }
        futures_util::StreamExt::collect::<Vec<i32>>(waits).await
    });

    assert_eq!(told, (0..40).collect::<Vec<_>>());
}
