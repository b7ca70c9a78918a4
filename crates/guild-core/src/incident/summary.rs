//! Tells which agent, role, task kind and cause fail most, and how long it takes to recover.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Incident;
use super::fingerprint::pattern;
use crate::event::Names;
use crate::time::micros;

/// Counts incidents.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    counts: BTreeMap<(Dimension, String), Count>,
}

/// By what incidents are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dimension {
    All,
    Agent,
    Role,
    TaskKind,
    Cause,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    incidents: u64,
    injected: u64,
    recovered: u64,
    acknowledged: u64,
    recovery_us: u64,
}

/// How often one agent, role, task kind or cause failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub name: String,
    /// Incidents.
    pub incidents: u64,
    /// Those of them that chaos did.
    pub injected: u64,
    /// Those that have recovered.
    pub recovered: u64,
    /// Those that a person has seen.
    pub acknowledged: u64,
    /// Mean time of those that recovered; none: no one has.
    pub mean_time_to_recover_us: Option<u64>,
}

impl Summary {
    /// Counts an incident, with what has become of it so far.
    pub fn add(&mut self, incident: &Incident, names: &dyn Names) {
        let report = &incident.report;
        let mut keys = vec![
            (Dimension::All, String::new()),
            (Dimension::Cause, report.reason.name().to_owned()),
        ];
        if let Some((agent, _)) = report.agent {
            keys.push((Dimension::Agent, names.agent(agent)));
            keys.push((Dimension::Role, names.role(agent.role).to_owned()));
        }
        if let Some(attempt) = &report.attempt {
            keys.push((Dimension::TaskKind, pattern(&names.task(attempt.task))));
        }
        let recovery = incident.time_to_recover();
        for key in keys {
            let count = self.counts.entry(key).or_default();
            count.incidents += 1;
            count.injected += u64::from(report.fault.is_some());
            count.recovered += u64::from(recovery.is_some());
            count.recovery_us += recovery.map_or(0, micros);
            count.acknowledged += u64::from(incident.acknowledgement.is_some());
        }
    }

    /// Returns all incidents in one row.
    pub fn total(&self) -> Row {
        let none = || row(String::new(), &Count::default());
        self.rows(Dimension::All).into_iter().next().unwrap_or_else(none)
    }

    /// Returns the agents, the one that failed most first.
    pub fn agents(&self) -> Vec<Row> {
        self.rows(Dimension::Agent)
    }

    /// Returns the roles, the one whose agents failed most first.
    pub fn roles(&self) -> Vec<Row> {
        self.rows(Dimension::Role)
    }

    /// Returns the kinds of tasks (names without their numbers), the one that failed most first.
    pub fn task_kinds(&self) -> Vec<Row> {
        self.rows(Dimension::TaskKind)
    }

    /// Returns the causes, the most frequent first.
    pub fn causes(&self) -> Vec<Row> {
        self.rows(Dimension::Cause)
    }

    fn rows(&self, dimension: Dimension) -> Vec<Row> {
        let counts = self.counts.iter().filter(|((found, _), _)| *found == dimension);
        let mut rows: Vec<Row> =
            counts.map(|((_, name), count)| row(name.clone(), count)).collect();
        rows.sort_by(|a, b| b.incidents.cmp(&a.incidents).then_with(|| a.name.cmp(&b.name)));
        rows
    }
}

fn row(name: String, count: &Count) -> Row {
    Row {
        name,
        incidents: count.incidents,
        injected: count.injected,
        recovered: count.recovered,
        acknowledged: count.acknowledged,
        mean_time_to_recover_us: count.recovery_us.checked_div(count.recovered),
    }
}
