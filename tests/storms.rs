//! Storms: a thousand agents and ten thousand panics, hangs and exits at every site, in simulation and
//! for real. Every task ends exactly once, every fault has exactly one incident, nobody lacks a cause,
//! and the root lives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guild::{
    Agent, Drain, Fault, FaultPoint, Graph, GraphBuilder, Guild, Hit, Limits, Outcome,
    RestartPolicy, RetryPolicy, Seed, Site, Strike, Task, TaskContext, TaskError,
};
use guild_core::draw::Stream;
use guild_sim::World;
use guild_sim::checker::{Knowledge, Watch};
use guild_sim::world::Resolution;
use serde_json::Value;

const AGENTS: u32 = 1_000;
const TASKS: u32 = 6_000;
const FAULTS: u64 = 10_000;

/// What strikes where, by the name that the log gives it.
const EVERYWHERE: [(&str, &str); 12] = [
    ("after_perform", "crash"),
    ("after_perform", "exit"),
    ("after_perform", "hang"),
    ("assign", "crash_queued"),
    ("before_perform", "crash"),
    ("before_perform", "exit"),
    ("before_perform", "hang"),
    ("dropped", "crash"),
    ("in_perform", "crash"),
    ("in_perform", "exit"),
    ("in_perform", "hang"),
    ("started", "start_crash"),
];

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

impl Storm {
    /// Draws from what is struck, so that equal hits of a simulation are struck alike.
    fn draw(&self, hit: &Hit<'_>, nth: u64) -> f64 {
        let agent = hit.agent.map_or(0, |agent| u64::from(agent.index));
        let task = hit.task.map_or(0, |task| u64::from(task.index.0) << 8);
        let n = u64::from(hit.attempt.unwrap_or(0)) << 4 | hit.site as u64;
        self.seed.unit(Stream::Fault, agent << 40 | task, n ^ nth << 20)
    }
}

impl FaultPoint for Storm {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        let nth = self.struck.load(Ordering::Relaxed);
        if nth >= FAULTS {
            return None;
        }
        let of_agent = [
            (0.14, Fault::Crash, "crash"),
            (0.04, Fault::Hang, "hang"),
            (0.06, Fault::Exit, "exit"),
        ];
        let shares: &[(f64, Fault, &'static str)] = match hit.site {
            Site::Started => &[(0.2, Fault::Crash, "start_crash")],
            Site::BeforePerform | Site::InPerform | Site::AfterPerform => &of_agent,
            Site::Assign => &[(0.1, Fault::CrashQueued, "crash_queued")],
            Site::Dropped => &[(0.1, Fault::Crash, "crash")],
            Site::HandIn | Site::Commit | Site::Sync => &[],
        };
        let mut draw = self.draw(hit, nth);
        for (share, fault, kind) in shares {
            if draw < *share {
                return Some(Strike::new(*fault, kind));
            }
            draw -= share;
        }
        None
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

/// Rounds of independent tasks, until the storm is over. Whoever hangs loses its lease after `timeout`.
fn round(mut graph: GraphBuilder, timeout: Duration) -> Graph {
    for number in 0..TASKS {
        let task = Task::new(format!("task-{number}"), "counter").input(&number).timeout(timeout);
        graph.add(task.retry(RetryPolicy::immediately(10_000)));
    }
    graph.build().unwrap()
}

#[test]
fn ten_thousand_faults_at_every_site_lose_nothing_in_simulation() {
    let (storm, watch) = (Storm::new(), Watch::default());
    let mut world = World::with_seed(3)
        .role("counter", AGENTS, || Counter)
        .limits(limits())
        .restart(restart())
        .resolution(Resolution::Microsecond)
        .faults(Arc::clone(&storm) as Arc<dyn FaultPoint>)
        .reader(watch.clone())
        .keep_log()
        .start()
        .unwrap();
    let mut rounds = 0;
    let mut is_over = false;
    while !is_over {
        // One more round than the storm lasts: the guild works on.
        is_over = storm.struck.load(Ordering::Relaxed) >= FAULTS;
        let graph = round(world.graph(format!("round-{rounds}")), Duration::from_secs(1));
        let report = world.run(graph).unwrap();
        assert_eq!(report.tally().completed, TASKS, "{:?}", report.tally());
        rounds += 1;
    }
    let effects: Option<i64> = world.value("effects").unwrap();
    assert_eq!(effects, Some(i64::from(TASKS) * i64::from(rounds)), "each effect happened once");
    world.end();
    let log = world.log();
    judge(log.iter().map(|line| serde_json::from_str(line).unwrap()), rounds);
    let verdict = watch.finish_with(&Knowledge { is_complete: true, ..Knowledge::default() });
    assert!(verdict.is_clean(), "{:?}", verdict.first_violation());
}

#[test]
fn ten_thousand_faults_at_every_site_lose_nothing_for_real() {
    let storm = Storm::new();
    let guild = Guild::builder()
        .role("counter", AGENTS, || Counter)
        .limits(limits())
        .restart(restart())
        .faults(Arc::clone(&storm) as Arc<dyn FaultPoint>)
        .start()
        .unwrap();
    guild::block_on(async {
        let (mut rounds, mut is_over) = (0, false);
        while !is_over {
            is_over = storm.struck.load(Ordering::Relaxed) >= FAULTS;
            let graph = round(guild.graph(format!("round-{rounds}")), Duration::from_millis(250));
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
        judge(lines.map(|line| serde_json::from_str(&line).unwrap()), rounds);
    });
}

/// Every task ended once, every fault has one incident, none lacks a cause, and no control actor failed.
fn judge(log: impl Iterator<Item = Value>, rounds: u32) {
    let mut ends: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut struck: BTreeSet<(String, String)> = BTreeSet::new();
    let mut open: BTreeMap<u64, Value> = BTreeMap::new();
    let mut told: BTreeMap<u64, u32> = BTreeMap::new();
    for event in log {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        match &*text("kind") {
            "task_completed" => *ends.entry((text("run"), text("task"))).or_default() += 1,
            "fault_injected" => {
                struck.insert((text("site"), text("type")));
                open.insert(event["fault"].as_u64().unwrap(), event);
            }
            "incident_opened" => {
                assert!(!text("cause").is_empty() && !text("message").is_empty(), "{event}");
                let kinds = ["agent_crashed", "drop_panicked"];
                assert!(kinds.contains(&&*text("type")), "the root and the tasks live: {event}");
                if let Some(fault) = event["fault"].as_u64() {
                    *told.entry(fault).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    assert_eq!(ends.len(), (TASKS * rounds) as usize);
    assert!(ends.values().all(|count| *count == 1), "a task ended twice");
    let everywhere = EVERYWHERE.map(|(site, kind)| (site.to_owned(), kind.to_owned()));
    assert_eq!(struck, BTreeSet::from(everywhere));
    assert!(open.len() as u64 >= FAULTS);
    let twice = told.iter().find(|(_, count)| **count != 1);
    assert_eq!(twice, None, "a fault has two incidents");
    let silent: Vec<_> = open.iter().filter(|(fault, _)| !told.contains_key(fault)).collect();
    assert!(silent.is_empty(), "{} have no incident, {:?}", silent.len(), silent.first());
}
