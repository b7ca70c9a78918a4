//! Storms: a thousand agents and ten thousand panics at every site, in simulation and for real. Every
//! task ends exactly once, every fault has exactly one incident, and nobody lacks a cause.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guild::{
    Agent, Drain, Fault, FaultPoint, Graph, GraphBuilder, Guild, Hit, Limits, Outcome,
    RestartPolicy, RetryPolicy, Seed, Site, Strike, Task, TaskContext, TaskError,
};
use guild_sim::World;
use guild_sim::checker::{Knowledge, Watch};
use guild_sim::world::Resolution;
use serde_json::Value;

const AGENTS: u32 = 1_000;
const TASKS: u32 = 6_000;
const FAULTS: u64 = 10_000;

/// Counts itself in the shared memory: an effect that must happen once.
struct Counter;

impl Agent for Counter {
    type Input = u32;
    type Output = u32;

    async fn perform(&mut self, number: u32, task: &mut TaskContext) -> Result<u32, TaskError> {
        // Some take long enough to be struck in the middle.
        if number.is_multiple_of(8) {
            task.sleep(Duration::from_millis(2)).await;
        }
        task.memory().add("effects", 1)?;
        Ok(number)
    }
}

/// Strikes everywhere until it has struck often enough; whom is drawn from what it strikes.
struct Storm {
    seed: Seed,
    struck: AtomicU64,
}

impl Storm {
    fn new() -> Arc<Self> {
        Arc::new(Self { seed: Seed(11), struck: AtomicU64::new(0) })
    }
}

impl FaultPoint for Storm {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        let (share, fault, kind) = match hit.site {
            Site::Started => (0.2, Fault::Crash, "start_crash"),
            Site::BeforePerform => (0.25, Fault::Crash, "crash"),
            Site::InPerform => (0.15, Fault::Crash, "crash"),
            Site::AfterPerform => (0.3, Fault::Crash, "crash"),
            Site::Assign => (0.1, Fault::CrashQueued, "crash_queued"),
            Site::Dropped => (0.1, Fault::Crash, "crash"),
            Site::HandIn | Site::Commit | Site::Sync => return None,
        };
        let nth = self.struck.load(Ordering::Relaxed);
        if nth >= FAULTS {
            return None;
        }
        let agent = hit.agent.map_or(0, |agent| u64::from(agent.index));
        let task = hit.task.map_or(0, |task| u64::from(task.index.0) << 8);
        let n = u64::from(hit.attempt.unwrap_or(0)) << 4 | hit.site as u64;
        let draw =
            self.seed.unit(guild_core::draw::Stream::Fault, agent << 40 | task, n ^ nth << 20);
        (draw < share).then(|| Strike::new(fault, kind))
    }

    fn struck(&self, _: u64, _: u64) {
        self.struck.fetch_add(1, Ordering::Relaxed);
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.incidents_in_memory_max = 100_000;
    limits.kills_max = u32::MAX;
    limits
}

fn restart() -> RestartPolicy {
    RestartPolicy { intensity: u32::MAX, ..RestartPolicy::default() }
}

/// Rounds of independent tasks, until the storm is over.
fn round(mut graph: GraphBuilder) -> Graph {
    for number in 0..TASKS {
        let task = Task::new(format!("task-{number}"), "counter").input(&number);
        graph.add(task.retry(RetryPolicy::immediately(10_000)));
    }
    graph.build().unwrap()
}

#[test]
fn ten_thousand_panics_at_every_site_lose_nothing_in_simulation() {
    let (storm, watch) = (Storm::new(), Watch::default());
    let mut world = World::with_seed(3)
        .role("counter", AGENTS, || Counter)
        .limits(limits())
        .restart(restart())
        .resolution(Resolution::Microsecond)
        .faults(Arc::clone(&storm) as Arc<dyn FaultPoint>)
        .reader(watch.clone())
        .start()
        .unwrap();
    let mut rounds = 0;
    while storm.struck.load(Ordering::Relaxed) < FAULTS {
        let graph = round(world.graph(format!("round-{rounds}")));
        let report = world.run(graph).unwrap();
        assert_eq!(report.tally().completed, TASKS, "{:?}", report.tally());
        rounds += 1;
    }
    let effects: Option<i64> = world.value("effects").unwrap();
    assert_eq!(effects, Some(i64::from(TASKS) * i64::from(rounds)), "each effect happened once");
    assert!(world.counts().faults >= FAULTS);
    world.end();
    let verdict = watch.finish_with(&Knowledge { is_complete: true, ..Knowledge::default() });
    assert!(verdict.is_clean(), "{:?}", verdict.first_violation());
}

#[test]
fn ten_thousand_panics_at_every_site_lose_nothing_for_real() {
    let storm = Storm::new();
    let guild = Guild::builder()
        .role("counter", AGENTS, || Counter)
        .limits(limits())
        .restart(restart())
        .faults(Arc::clone(&storm) as Arc<dyn FaultPoint>)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut rounds = 0;
        while storm.struck.load(Ordering::Relaxed) < FAULTS {
            let graph = round(guild.graph(format!("round-{rounds}")));
            let report = guild.submit(graph).await.unwrap().wait().await.unwrap();
            assert_eq!(report.outcome(), Outcome::Completed);
            assert_eq!(report.tally().completed, TASKS);
            rounds += 1;
        }
        let effects = guild.memory().snapshot().value::<i64>("effects").unwrap();
        assert_eq!(effects, Some(i64::from(TASKS) * i64::from(rounds)));
        guild.shutdown(Drain::Until(Duration::from_secs(10))).await.unwrap();
        let records = guild.events(1).available().unwrap();
        let lines = records.iter().map(|record| guild.event_line(record));
        let log: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
        judge(&log);
    });
}

/// Every task ended once; every fault that ended a life has one incident; none lacks a cause.
fn judge(log: &[Value]) {
    let mut ends: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let mut sites: BTreeSet<&str> = BTreeSet::new();
    let mut open: BTreeMap<u64, &Value> = BTreeMap::new();
    let mut told: BTreeMap<u64, u32> = BTreeMap::new();
    for event in log {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        match text("kind") {
            "task_completed" => *ends.entry((text("run"), text("task"))).or_default() += 1,
            "fault_injected" => {
                sites.insert(text("site"));
                open.insert(event["fault"].as_u64().unwrap(), event);
            }
            "incident_opened" => {
                assert!(!text("cause").is_empty() && !text("message").is_empty(), "{event}");
                if let Some(fault) = event["fault"].as_u64() {
                    *told.entry(fault).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    assert!(ends.values().all(|count| *count == 1), "a task ended twice");
    let all = ["after_perform", "assign", "before_perform", "dropped", "in_perform", "started"];
    assert_eq!(sites, BTreeSet::from(all));
    assert!(told.values().all(|count| *count == 1), "a fault has two incidents");
    let silent: Vec<_> = open.iter().filter(|(fault, _)| !told.contains_key(fault)).collect();
    // A blow to a cell whose life was over already ends nothing; work that was done is spared.
    let is_spared = |event: &Value| matches!(event["site"].as_str(), Some("assign" | "in_perform"));
    assert!(silent.iter().all(|(_, event)| is_spared(event)), "{:?}", silent.first());
}
