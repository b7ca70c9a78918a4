//! Holds the rest of a plan: what runs, with which knobs, how far faults may go, and what holds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use guild_core::planner::ReadyOrder;
use serde_json::{Map, Value};

use super::knob::Knob;
use super::reader::{Raw, Section};

/// The role of all agents of a generated workload.
pub const WORKER: &str = "worker";
/// The ids of all invariants.
const INVARIANTS: [&str; 17] = [
    "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13", "I14", "I15",
    "I16", "I17",
];

/// What runs while faults strike.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Where its tasks come from.
    pub source: Source,
    /// How many agents there are; of a flow, in each role.
    pub agents: Option<Knob<u32>>,
    /// In which order ready tasks go.
    pub policy: Policy,
    /// How much a commit survives, where the plan says it.
    pub durability: Option<&'static str>,
    /// Which effects each task has, in the memory and outside.
    pub effects: TaskEffects,
    /// How often tasks answer with an error.
    pub errors: Errors,
    /// When the run is cancelled, if it is.
    pub cancel_at: Option<Knob<Duration>>,
}

/// How often the attempts of a generated workload answer with an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    /// The probability of one after which another attempt may succeed.
    pub retryable: Option<Knob<f64>>,
    /// The probability of one that says not to try again.
    pub fatal: Option<Knob<f64>>,
    /// The pattern of the tasks that do; none: all.
    pub tasks: Option<String>,
}

/// Which effects the tasks of a workload have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskEffects {
    /// None.
    #[default]
    None,
    /// Each adds to counters in the memory, and has an effect outside under its idempotency key.
    Keyed,
    /// The same, but every attempt has its effect outside anew: this breaks I3, so that one can see
    /// what is said then.
    Careless,
}

/// Where the tasks of a workload come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// They are generated.
    Shape {
        /// The shape of the graph.
        shape: Setting,
        /// How many.
        tasks: Knob<u32>,
        /// How long each takes.
        duration: Option<Setting>,
        /// What they share.
        quotas: Option<Setting>,
    },
    /// A flow file.
    Flow(PathBuf),
    /// A workflow in WfFormat.
    Workflow(PathBuf),
}

/// A value that the reader of workloads understands: a name, or a table with a name's parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// A text.
    Text(String),
    /// A table.
    Table(Map<String, Value>),
}

/// In which order ready tasks go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The longest path to the end first.
    #[default]
    CriticalPath,
    /// The first that became ready first.
    Fifo,
    /// Any, by seed.
    Random,
}

impl Policy {
    /// All policies with their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("critical-path", Self::CriticalPath), ("fifo", Self::Fifo), ("random", Self::Random)];

    /// Returns the policy's name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// Returns the order that the policy stands for.
    pub fn order(self) -> ReadyOrder {
        match self {
            Self::CriticalPath => ReadyOrder::CriticalPath,
            Self::Fifo => ReadyOrder::Fifo,
            Self::Random => ReadyOrder::Random,
        }
    }
}

/// Settings of the guild that a plan fixes or draws; absent ones keep their defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Knobs {
    /// Time limit of an attempt, which is its lease.
    pub timeout: Option<Knob<Duration>>,
    /// How often an attempt must show that it lives.
    pub heartbeat: Option<Knob<Duration>>,
    /// Attempts of a task in all.
    pub attempts_max: Option<Knob<u32>>,
    /// Restarts of an agent in a row before it is quarantined.
    pub restarts_max: Option<Knob<u32>>,
    /// How many messages an agent's mailbox takes.
    pub mailbox: Option<Knob<u32>>,
    /// How many commits may wait for the store.
    pub commits_in_flight: Option<Knob<u32>>,
    /// How long a sync of the store takes.
    pub sync: Option<Knob<Duration>>,
    /// By how much each message may be late at most.
    pub jitter: Option<Knob<Duration>>,
}

/// How far the faults of a plan may go: its blast radius.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Share of all agents that may be struck in the whole run.
    pub agents_max_percent: u32,
    /// Strikes in all, repeated ones of permanent faults included.
    pub faults_max: Option<u64>,
}

/// What holds before the first fault and after the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SteadyState {
    /// The invariants that are checked; empty for all.
    pub invariants: Vec<String>,
    /// Share of the tasks that must complete.
    pub completed_min_percent: u32,
}

/// The second phase of a run: no new faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// When it begins, after the start of the run.
    pub after: Duration,
    /// Time within which everything must have ended then; the bound of I12 when absent.
    pub within: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { agents_max_percent: 100, faults_max: None }
    }
}

impl Default for Quiet {
    fn default() -> Self {
        Self { after: Duration::from_secs(60), within: None }
    }
}

impl Workload {
    /// Reads the table `workload`; paths are relative to the file of the plan.
    pub(super) fn read(table: &Section<'_, '_>, file: &Path) -> Option<Self> {
        let shape = table.raw("shape").and_then(|raw| setting(table, &raw));
        let tasks = table.knob("tasks", |table, raw| table.as_count(raw, 1..=10_000_000));
        let agents = table.knob("agents", |table, raw| table.as_count(raw, 1..=1_000_000));
        let duration = table.raw("duration").and_then(|raw| duration(table, &raw));
        let quotas = table.raw("quotas").and_then(|raw| {
            let Value::Object(map) = table.as_section(&raw).and_then(|_| table.as_json(&raw))?
            else {
                return None;
            };
            Some(Setting::Table(map))
        });
        let here = file.parent().unwrap_or(Path::new(""));
        let path = |key| table.text(key).map(|path| here.join(path.value));
        let (flow, workflow) = (path("flow"), path("workflow"));
        let policy = table.name("policy", Policy::ALL).map(|policy| policy.value);
        let durable = ["memory", "process", "disk"].map(|name| (name, name));
        let durability = table.name("durability", durable).map(|name| name.value);
        let effects = table.raw("effects").and_then(|raw| effects(table, &raw));
        let errors = table.section("errors").map(|table| Errors::read(&table));
        let cancel_at = table.knob("cancel_at", Section::as_duration);
        let named = ["shape", "flow", "workflow"].map(|key| table.has(key));
        if named.iter().filter(|named| **named).count() != 1 {
            table.wrong_here("needs one of shape, flow, workflow");
        }
        for key in ["tasks", "duration", "quotas", "effects", "errors"] {
            match table.raw(key) {
                Some(raw) if !named[0] => table.wrong(&raw, "belongs to a generated `shape`"),
                _ => {}
            }
        }
        for key in ["tasks", "agents"] {
            if named[0] && !table.has(key) {
                table.wrong_here(format!("needs `{key}`: how many"));
            }
        }
        table.finish();
        let source = match (flow, workflow) {
            (Some(flow), _) => Source::Flow(flow),
            (None, Some(workflow)) => Source::Workflow(workflow),
            (None, None) => Source::Shape { shape: shape?, tasks: tasks?, duration, quotas },
        };
        Some(Self {
            source,
            agents,
            policy: policy.unwrap_or_default(),
            durability,
            effects: effects.unwrap_or_default(),
            errors: errors.unwrap_or_default(),
            cancel_at,
        })
    }
}

impl Errors {
    /// Reads the table `workload.errors`.
    fn read(table: &Section<'_, '_>) -> Self {
        let probability = |key| table.knob(key, Section::as_probability);
        let errors = Self {
            retryable: probability("retryable"),
            fatal: probability("fatal"),
            tasks: table.text("tasks").map(|tasks| tasks.value),
        };
        if !table.has("retryable") && !table.has("fatal") {
            table.wrong_here("needs `retryable` or `fatal`: how often");
        }
        let most = |knob: Option<Knob<f64>>| knob.map_or(0.0, |knob| knob.max());
        // What people write adds up to 1 although its binary fractions may not.
        if most(errors.retryable) + most(errors.fatal) > 1.0 + f64::EPSILON {
            table.wrong_here(
                "`retryable` and `fatal` add up to more than 1, and an attempt has one answer: \
                 lower one of them",
            );
        }
        table.finish();
        errors
    }
}

impl Knobs {
    /// Reads the table `knobs`.
    pub(super) fn read(table: &Section<'_, '_>) -> Self {
        let count = |key, max| table.knob(key, move |table, raw| table.as_count(raw, 1..=max));
        let knobs = Self {
            timeout: table.knob("timeout", Section::as_duration_above_zero),
            heartbeat: table.knob("heartbeat", Section::as_duration_above_zero),
            attempts_max: count("attempts_max", 1_000),
            restarts_max: count("restarts_max", 1_000_000),
            mailbox: count("mailbox", 1_000_000),
            commits_in_flight: count("commits_in_flight", 1_000_000),
            sync: table.knob("sync", Section::as_duration),
            jitter: table.knob("jitter", Section::as_duration),
        };
        table.finish();
        knobs
    }
}

impl Limits {
    /// Reads the table `limits`.
    pub(super) fn read(table: &Section<'_, '_>) -> Self {
        let percent = table.raw("agents_max_percent");
        let percent = percent.and_then(|raw| Some(table.as_count(&raw, 1..=100)?.value));
        let faults = table.integer("faults_max", 1..=1_000_000_000).map(|faults| faults.value);
        table.finish();
        Self { agents_max_percent: percent.unwrap_or(100), faults_max: faults }
    }

    /// Returns how many of so many agents may be struck.
    pub fn agents_max(&self, agents: u64) -> u64 {
        agents * u64::from(self.agents_max_percent) / 100
    }
}

impl SteadyState {
    /// Reads the table `steady_state`.
    pub(super) fn read(table: &Section<'_, '_>) -> Self {
        let read = |raw: Raw<'_, '_>| {
            let text = table.as_text(&raw)?;
            if !INVARIANTS.contains(&text.value.as_str()) {
                table.wrong(&raw, format!("unknown invariant `{}`: I1 to I17", text.value));
            }
            Some(text.value)
        };
        let invariants = table.list("invariants").unwrap_or_default();
        let percent = table.raw("completed_min_percent");
        let percent = percent.and_then(|raw| Some(table.as_count(&raw, 0..=100)?.value));
        table.finish();
        Self {
            invariants: invariants.into_iter().filter_map(read).collect(),
            completed_min_percent: percent.unwrap_or(0),
        }
    }
}

impl Quiet {
    /// Reads the table `quiet`.
    pub(super) fn read(table: &Section<'_, '_>) -> Self {
        let after = table.duration("after").unwrap_or(Self::default().after);
        let within = table.raw("within").and_then(|raw| table.as_duration_above_zero(&raw));
        table.finish();
        Self { after, within: within.map(|within| within.value) }
    }
}

/// Reads `effects`: true, false or `"careless"`.
fn effects(table: &Section<'_, '_>, raw: &Raw<'_, '_>) -> Option<TaskEffects> {
    match (raw.value.as_bool(), raw.value.as_str()) {
        (Some(true), _) => Some(TaskEffects::Keyed),
        (Some(false), _) => Some(TaskEffects::None),
        (None, Some("careless")) => Some(TaskEffects::Careless),
        (None, _) => {
            table.wrong(raw, "must be true, false or \"careless\"");
            None
        }
    }
}

fn setting(table: &Section<'_, '_>, raw: &Raw<'_, '_>) -> Option<Setting> {
    if !raw.value.is_table() {
        return table.as_text(raw).map(|text| Setting::Text(text.value));
    }
    match table.as_json(raw)? {
        Value::Object(map) => Some(Setting::Table(map)),
        _ => None,
    }
}

/// Reads a duration that is fixed, which is checked here, or a distribution, which is not.
fn duration(table: &Section<'_, '_>, raw: &Raw<'_, '_>) -> Option<Setting> {
    if !raw.value.is_table() {
        table.as_duration(raw)?;
    }
    setting(table, raw)
}
