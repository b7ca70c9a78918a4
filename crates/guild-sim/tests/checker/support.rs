//! Worlds whose logs the checkers judge, and the tools that doctor a log.

use std::sync::Arc;
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::graph::{Graph, Task};
use guild_core::quota::QuotaSpec;
use guild_core::restart::RestartPolicy;
use guild_core::retry::RetryPolicy;
use guild_memory::Durability;
use guild_runtime::{Agent, RandomFaults, TaskContext, TaskError};
use guild_sim::checker::{Checker, Invariant, Knowledge, Verdict};
use guild_sim::world::{Medium, Resolution};
use guild_sim::{World, WorldBuilder};
use serde_json::{Value, json};

/// Works for 10 ms, reads what the tasks before it wrote, counts itself, and writes its own key.
pub(crate) struct Worker;

impl Agent for Worker {
    type Input = Vec<String>;
    type Output = u64;

    async fn perform(
        &mut self,
        before: Vec<String>,
        context: &mut TaskContext,
    ) -> Result<u64, TaskError> {
        context.sleep(Duration::from_millis(10)).await;
        let own = format!("done/{}", context.task());
        let memory = context.memory();
        let mut sum = 1;
        for name in before {
            sum += memory.get::<u64>(format!("done/{name}"))?.unwrap_or_default();
        }
        let others = memory.scan_prefix::<u64>("done/", 100)?.len();
        memory.put(&own, &sum)?;
        memory.add("count", 1)?;
        Ok(sum + others as u64)
    }
}

/// Panics when it is told to.
pub(crate) struct Flaky;

impl Agent for Flaky {
    type Input = u32;
    type Output = ();

    async fn perform(&mut self, panics: u32, context: &mut TaskContext) -> Result<(), TaskError> {
        context.sleep(Duration::from_millis(10)).await;
        assert!(context.attempt() > panics, "not yet");
        Ok(())
    }
}

/// Adds two tasks.
pub(crate) struct Planter;

impl Agent for Planter {
    type Input = ();
    type Output = ();

    async fn perform(&mut self, (): (), context: &mut TaskContext) -> Result<(), TaskError> {
        context.sleep(Duration::from_millis(1)).await;
        for name in ["left", "right"] {
            context.spawn(Task::new(name, "worker").input(&Vec::<String>::new()));
        }
        Ok(())
    }
}

pub(crate) fn world(seed: u64) -> WorldBuilder {
    World::with_seed(seed)
        .role("worker", 4, || Worker)
        .role("flaky", 2, || Flaky)
        .role("planter", 1, || Planter)
        .quota("api", QuotaSpec::Permits(1))
        .quota("tokens", QuotaSpec::Rate { amount: 1, per: Duration::from_millis(20), burst: 2 })
        .resolution(Resolution::Microsecond)
        .record_histories(true)
        .keep_log()
        .validate(true)
}

pub(crate) fn on_disk(seed: u64) -> WorldBuilder {
    let sync = (Duration::from_millis(1), Duration::from_millis(3));
    world(seed).medium(Medium::Disk { durability: Durability::Disk, sync })
}

/// A world in which agents crash and hang.
pub(crate) fn stormy(seed: u64) -> WorldBuilder {
    let faults = RandomFaults::parse("crash=0.2,hang=0.05,slow=0.1", Seed(seed)).unwrap();
    let restart = RestartPolicy { intensity: u32::MAX, ..RestartPolicy::default() };
    world(seed).faults(Arc::new(faults)).restart(restart)
}

/// Roots that share quotas, a layer behind them, one that plants two more, and one behind all.
pub(crate) fn garden(world: &World, name: &str) -> Graph {
    grow(world, name, true)
}

/// A garden whose tasks wait for no rate.
pub(crate) fn orchard(world: &World, name: &str) -> Graph {
    grow(world, name, false)
}

fn grow(world: &World, name: &str, takes_tokens: bool) -> Graph {
    let mut graph = world.graph(name);
    let task = |name: String, before: &[String]| {
        Task::new(name, "worker")
            .input(&before)
            .timeout(Duration::from_secs(1))
            .retry(RetryPolicy { attempts_max: 20, ..RetryPolicy::default() })
    };
    let roots: Vec<_> = (0..4)
        .map(|n| {
            let task = task(format!("root-{n}"), &[]).quota("api", 1);
            graph.add(if takes_tokens { task.quota("tokens", 1) } else { task })
        })
        .collect();
    let names: Vec<String> = (0..4).map(|n| format!("root-{n}")).collect();
    let layer: Vec<_> = (0..8)
        .map(|n| {
            let task = task(format!("leaf-{n}"), &names);
            graph.add(task.after(roots[n % 4]).after(roots[(n + 1) % 4]))
        })
        .collect();
    let flaky = Task::new("flaky", "flaky").input(&2).timeout(Duration::from_secs(1));
    let flaky = graph.add(flaky.retry(RetryPolicy { attempts_max: 20, ..RetryPolicy::default() }));
    let planter = Task::new("planter", "planter")
        .timeout(Duration::from_secs(1))
        .retry(RetryPolicy { attempts_max: 20, ..RetryPolicy::default() });
    let planter = graph.add(planter.after(flaky));
    let last = layer.iter().fold(task("last".to_owned(), &[]), |last, leaf| last.after(*leaf));
    graph.add(last.after(planter));
    graph.build().unwrap()
}

/// A log of a garden that was left alone.
pub(crate) fn calm_log() -> Log {
    let mut world = world(1).start().unwrap();
    let run = world.submit(garden(&world, "garden")).unwrap();
    world.run_until_ended(&run).unwrap();
    world.run_until_quiet().unwrap();
    Log(world.log())
}

/// An event log that can be changed.
#[derive(Clone, Debug)]
pub(crate) struct Log(pub(crate) Vec<String>);

impl Log {
    /// Returns the place of the first event of a kind for which something is so.
    pub(crate) fn find(&self, kind: &str, is_so: impl Fn(&Value) -> bool) -> usize {
        let fits = |line: &String| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["kind"] == kind && is_so(&event)
        };
        self.0.iter().position(fits).unwrap_or_else(|| panic!("no {kind} in the log"))
    }

    /// Returns the place of the event of a kind about a task.
    pub(crate) fn of_task(&self, kind: &str, task: &str) -> usize {
        self.find(kind, |event| event["task"] == task)
    }

    pub(crate) fn event(&self, place: usize) -> Value {
        serde_json::from_str(&self.0[place]).unwrap()
    }

    /// Returns the log without an event.
    pub(crate) fn without(mut self, place: usize) -> Self {
        self.0.remove(place);
        self.numbered()
    }

    /// Returns the log with a copy of an event at another place.
    pub(crate) fn repeated(mut self, place: usize, before: usize) -> Self {
        self.0.insert(before, self.0[place].clone());
        self.numbered()
    }

    /// Returns the log with an event moved before another.
    pub(crate) fn moved(self, place: usize, before: usize) -> Self {
        assert!(before < place, "events move to earlier places");
        self.repeated(place, before).without(place + 1)
    }

    /// Returns the log with a field changed.
    pub(crate) fn with(mut self, place: usize, field: &str, value: Value) -> Self {
        let mut event = self.event(place);
        assert_ne!(event[field], value, "a change changes something");
        event[field] = value;
        self.0[place] = event.to_string();
        self
    }

    /// Returns the log with one more event before a place, at the time of the event there.
    pub(crate) fn with_event(mut self, before: usize, mut event: Value) -> Self {
        event["seq"] = json!(0);
        event["at_us"] = self.event(before)["at_us"].clone();
        self.0.insert(before, event.to_string());
        self.numbered()
    }

    /// Numbers the events and keeps their times in order.
    fn numbered(mut self) -> Self {
        let mut at = 0;
        for (seq, line) in (1_u64..).zip(&mut self.0) {
            let mut event: Value = serde_json::from_str(line).unwrap();
            at = event["at_us"].as_u64().unwrap().max(at);
            event["seq"] = json!(seq);
            event["at_us"] = json!(at);
            *line = event.to_string();
        }
        self
    }

    pub(crate) fn judged(&self) -> Verdict {
        self.judged_by(&Knowledge::default())
    }

    pub(crate) fn judged_by(&self, knowledge: &Knowledge) -> Verdict {
        let mut checker = Checker::new();
        self.0.iter().for_each(|line| checker.line(line));
        checker.finish_with(knowledge)
    }

    /// Asserts that the log violates an invariant, at a place and with a message like this.
    pub(crate) fn violates(&self, invariant: Invariant, place: usize, like: &str) {
        let verdict = self.judged();
        let ruling = verdict.ruling(invariant);
        let violation = verdict.violations().find(|(of, _)| *of == invariant);
        let (_, violation) = violation.unwrap_or_else(|| panic!("{invariant} {ruling}"));
        assert_eq!(violation.line, place as u64 + 1, "{ruling}");
        assert_eq!(violation.seq, violation.line, "{ruling}");
        assert!(violation.message.contains(like), "`{like}` is not in: {}", violation.message);
    }
}

/// Asserts that a log is whole and violates nothing.
pub(crate) fn assert_clean(verdict: &Verdict, of: &str) {
    assert_eq!(verdict.broken, None, "{of}");
    let violations: Vec<String> = verdict
        .rulings
        .iter()
        .filter(|(_, ruling)| ruling.is_violated())
        .map(|(invariant, ruling)| format!("{invariant} {ruling}"))
        .collect();
    assert!(violations.is_empty(), "{of}: {violations:#?}");
    assert!(verdict.is_clean());
}
