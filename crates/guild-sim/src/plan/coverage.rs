//! Counts over a batch of runs which faults struck and which branches of recovery were taken.
//!
//! A batch in which a kind of fault never struck, or a branch was never taken, has shown nothing
//! about it. All is read from event logs and from what strikers counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kind::{Kind, RULES, Site};
use super::{Method, Plan};

/// A branch of recovery, as it shows in an event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is described in `Branch::ALL`")]
pub enum Branch {
    RetriedAfterError,
    RetriedAfterPanic,
    RetriedAfterTimeout,
    RetriedAfterHeartbeat,
    RetriedAfterAgentLost,
    RetriedAfterConflict,
    HandedBack,
    StaleResult,
    Failed,
    DeadLettered,
    Skipped,
    Cancelled,
    Restarted,
    Quarantined,
    Released,
    Recovered,
    Quiet,
}

impl Branch {
    /// All branches, with what they look like in a log.
    pub const ALL: [(Self, &'static str); 17] = [
        (Self::RetriedAfterError, "task_failed with cause error and a retry"),
        (Self::RetriedAfterPanic, "task_failed with cause panic and a retry"),
        (Self::RetriedAfterTimeout, "task_failed with cause timeout and a retry"),
        (Self::RetriedAfterHeartbeat, "task_failed with cause heartbeat and a retry"),
        (Self::RetriedAfterAgentLost, "task_failed with cause agent_lost and a retry"),
        (Self::RetriedAfterConflict, "task_failed with cause conflict and a retry"),
        (Self::HandedBack, "task_assigned twice with one attempt"),
        (Self::StaleResult, "stale_result"),
        (Self::Failed, "task_ended with state failed"),
        (Self::DeadLettered, "task_ended with state dead_lettered"),
        (Self::Skipped, "task_ended with state skipped"),
        (Self::Cancelled, "task_ended with state cancelled"),
        (Self::Restarted, "agent_restarted"),
        (Self::Quarantined, "agent_quarantined"),
        (Self::Released, "agent_released"),
        (Self::Recovered, "guild_started for the second time"),
        (Self::Quiet, "phase_started with phase quiet"),
    ];

    /// Returns the branch's name.
    pub fn name(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|name| Some(name.as_str()?.to_owned()))
            .unwrap_or_default()
    }
}

/// What a batch has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// How many runs were counted.
    pub runs: u64,
    /// How often each fault of the plan struck, by its place.
    pub methods: Vec<u64>,
    /// How often each kind struck.
    pub kinds: BTreeMap<Kind, u64>,
    /// How often each branch was taken.
    pub branches: BTreeMap<Branch, u64>,
}

/// What a batch has not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Faults of the plan that never struck, by place.
    pub methods: Vec<usize>,
    /// Kinds that never struck.
    pub kinds: Vec<Kind>,
    /// Branches that were never taken.
    pub branches: Vec<Branch>,
}

/// The fields of a line that tell branches apart.
#[derive(Deserialize)]
struct Line {
    kind: String,
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    cause: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    phase: Option<String>,
    #[serde(default)]
    run: Option<String>,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    attempt: Option<u32>,
    #[serde(default)]
    retry_at_us: Option<Value>,
}

/// A line that is no event.
#[derive(Debug, thiserror::Error)]
#[error("line {number} of the event log is no event: {source}")]
pub struct LogError {
    /// The line, from 1.
    number: usize,
    source: serde_json::Error,
}

impl Coverage {
    /// Starts the count for a plan with so many faults.
    pub fn new(methods: usize) -> Self {
        Self { methods: vec![0; methods], ..Self::default() }
    }

    /// Counts one run: how often each fault of the plan struck, and its event log.
    ///
    /// # Errors
    /// A line is no event. What came before it is counted.
    pub fn add<'a>(
        &mut self,
        fired: &[u64],
        log: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), LogError> {
        self.runs += 1;
        for (n, count) in fired.iter().enumerate() {
            if n >= self.methods.len() {
                self.methods.push(0);
            }
            self.methods[n] += count;
        }
        let mut seen = Seen::default();
        for (n, line) in log.into_iter().enumerate() {
            let line: Line =
                serde_json::from_str(line).map_err(|source| LogError { number: n + 1, source })?;
            let fault = line.r#type.as_deref().filter(|_| line.kind == "fault_injected");
            if let Some(kind) = fault.and_then(Kind::from_name) {
                *self.kinds.entry(kind).or_default() += 1;
            }
            if let Some(branch) = seen.branch(line) {
                *self.branches.entry(branch).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Adds what other runs of the same plan have shown.
    pub fn join(&mut self, other: &Self) {
        let mut methods = std::mem::take(&mut self.methods);
        methods.resize(methods.len().max(other.methods.len()), 0);
        methods.iter_mut().zip(&other.methods).for_each(|(sum, count)| *sum += count);
        self.merge(other);
        self.methods = methods;
    }

    /// Adds what runs of another plan have shown: the counts of the faults of one plan are dropped.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.methods.clear();
        for (kind, count) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += count;
        }
        for (branch, count) in &other.branches {
            *self.branches.entry(*branch).or_default() += count;
        }
    }

    /// Returns for each fault that struck the branches of which one should have followed, where none
    /// was seen.
    pub fn unseen_branches(&self, plan: &Plan) -> Vec<(usize, &'static [Branch])> {
        let struck = plan.methods.iter().zip(&self.methods).enumerate();
        struck
            .filter(|(_, (_, count))| **count > 0)
            .map(|(n, (method, _))| (n, follows(method)))
            .filter(|(_, branches)| {
                let seen = |branch: &Branch| self.branches.contains_key(branch);
                !branches.is_empty() && !branches.iter().any(seen)
            })
            .collect()
    }

    /// Returns everything that was never seen.
    pub fn missing(&self) -> Missing {
        let unseen = |(n, count): (usize, &u64)| (*count == 0).then_some(n);
        let kinds = RULES.iter().map(|rule| rule.kind);
        let branches = Branch::ALL.into_iter().map(|(branch, _)| branch);
        Missing {
            methods: self.methods.iter().enumerate().filter_map(unseen).collect(),
            kinds: kinds.filter(|kind| !self.kinds.contains_key(kind)).collect(),
            branches: branches.filter(|branch| !self.branches.contains_key(branch)).collect(),
        }
    }
}

/// Returns the branches of which one follows when this fault strikes; none where it may be borne
/// without a trace.
fn follows(method: &Method) -> &'static [Branch] {
    match (method.kind, method.site) {
        (Kind::Crash, Site::Dropped) => &[],
        (Kind::Crash, _) => &[Branch::RetriedAfterPanic, Branch::DeadLettered],
        (Kind::Poison, _) => &[Branch::DeadLettered],
        (Kind::StartCrash, _) if method.permanent >= 1.0 => &[Branch::Quarantined],
        (Kind::CrashQueued, _) => &[Branch::Restarted, Branch::Quarantined],
        (Kind::Hang | Kind::Drop, _) => {
            &[Branch::RetriedAfterTimeout, Branch::RetriedAfterHeartbeat, Branch::DeadLettered]
        }
        (Kind::Exit | Kind::FullMailbox, _) => &[Branch::RetriedAfterAgentLost],
        (Kind::WrongResult, _) | (Kind::Duplicate, Site::HandIn) => &[Branch::StaleResult],
        (
            Kind::CommitBefore
            | Kind::CommitAfter
            | Kind::CommitUnknown
            | Kind::DiskFull
            | Kind::TornWrite
            | Kind::LostWrites
            | Kind::ControllerCrash
            | Kind::Kill,
            _,
        ) => &[Branch::Recovered],
        (
            Kind::StartCrash
            | Kind::Slow
            | Kind::Stall
            | Kind::Duplicate
            | Kind::Delay
            | Kind::Reorder
            | Kind::SlowSync
            | Kind::QuotaCut
            | Kind::Swizzle,
            _,
        ) => &[],
    }
}

/// What must be remembered of a log to know its later lines.
#[derive(Default)]
struct Seen {
    starts: u32,
    /// The newest attempt of each task.
    attempts: BTreeMap<(Option<String>, Option<String>), u32>,
}

impl Seen {
    fn branch(&mut self, line: Line) -> Option<Branch> {
        match line.kind.as_str() {
            "task_failed" => {
                line.retry_at_us.filter(|at| !at.is_null())?;
                Some(match line.cause.as_deref()? {
                    "error" => Branch::RetriedAfterError,
                    "panic" => Branch::RetriedAfterPanic,
                    "timeout" => Branch::RetriedAfterTimeout,
                    "heartbeat" => Branch::RetriedAfterHeartbeat,
                    "agent_lost" => Branch::RetriedAfterAgentLost,
                    "conflict" => Branch::RetriedAfterConflict,
                    _ => return None,
                })
            }
            "task_assigned" => {
                let attempt = line.attempt?;
                let before = self.attempts.insert((line.run, line.task), attempt);
                (before == Some(attempt)).then_some(Branch::HandedBack)
            }
            "task_ended" => match line.state.as_deref()? {
                "failed" => Some(Branch::Failed),
                "dead_lettered" => Some(Branch::DeadLettered),
                "skipped" => Some(Branch::Skipped),
                "cancelled" => Some(Branch::Cancelled),
                _ => None,
            },
            "guild_started" => {
                self.starts += 1;
                (self.starts > 1).then_some(Branch::Recovered)
            }
            "phase_started" => (line.phase? == "quiet").then_some(Branch::Quiet),
            "stale_result" => Some(Branch::StaleResult),
            "agent_restarted" => Some(Branch::Restarted),
            "agent_quarantined" => Some(Branch::Quarantined),
            "agent_released" => Some(Branch::Released),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(log: &[&str]) -> Coverage {
        let mut coverage = Coverage::new(0);
        coverage.add(&[], log.iter().copied()).unwrap();
        coverage
    }

    #[test]
    fn failure_is_a_retry_only_when_it_has_a_time() {
        let failed = |cause: &str, at: &str| {
            let line = format!(r#"{{"kind":"task_failed","cause":"{cause}","retry_at_us":{at}}}"#);
            cover(&[&line]).branches.into_keys().collect::<Vec<_>>()
        };

        assert_eq!(failed("panic", "5"), [Branch::RetriedAfterPanic]);
        assert_eq!(failed("heartbeat", "0"), [Branch::RetriedAfterHeartbeat]);
        assert_eq!(failed("panic", "null"), []);
    }

    #[test]
    fn assignment_with_the_same_attempt_was_handed_back() {
        let assigned = |task: &str, attempt: u32| {
            format!(r#"{{"kind":"task_assigned","run":"r","task":"{task}","attempt":{attempt}}}"#)
        };
        let log = [assigned("a", 1), assigned("b", 1), assigned("a", 2), assigned("b", 1)];

        let coverage = cover(&log.each_ref().map(String::as_str));

        assert_eq!(coverage.branches, BTreeMap::from([(Branch::HandedBack, 1)]));
    }

    #[test]
    fn only_the_second_start_is_a_recovery() {
        let start = r#"{"kind":"guild_started","epoch":1}"#;

        assert!(cover(&[start]).branches.is_empty());
        assert_eq!(cover(&[start, start]).branches, BTreeMap::from([(Branch::Recovered, 1)]));
    }

    #[test]
    fn what_was_never_seen_is_missing() {
        let mut coverage = Coverage::new(2);
        assert_eq!(coverage.missing().branches.len(), Branch::ALL.len());
        assert_eq!(coverage.missing().kinds.len(), RULES.len());

        let log = [r#"{"kind":"fault_injected","type":"torn_write","task":null,"agent":null}"#];
        coverage.add(&[0, 3], log).unwrap();

        let missing = coverage.missing();
        assert_eq!(missing.methods, [0]);
        assert_eq!(missing.kinds.len(), RULES.len() - 1);
        assert!(!missing.kinds.contains(&Kind::TornWrite));
    }

    #[test]
    fn merged_batches_have_shown_what_either_has() {
        let mut one = cover(&[r#"{"kind":"agent_released","task":"a"}"#]);
        let two = cover(&[r#"{"kind":"phase_started","phase":"quiet"}"#]);

        one.merge(&two);

        assert_eq!(one.runs, 2);
        assert_eq!(one.branches.into_keys().collect::<Vec<_>>(), [Branch::Released, Branch::Quiet]);
    }

    #[test]
    fn broken_line_is_named() {
        let error = Coverage::new(0).add(&[], [r#"{"kind":"run_ended"}"#, "{"]).unwrap_err();

        assert!(error.to_string().starts_with("line 2 of the event log is no event"), "{error}");
    }
}
