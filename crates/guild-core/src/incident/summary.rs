//! Tells which agent, role, task kind and cause fail most, and how long it takes to recover.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Incident;
use super::fingerprint::pattern;
use crate::event::{Event, EventRecord, Names};

/// Counts the incidents of an event log.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    counts: BTreeMap<(Dimension, String), Count>,
    /// What each incident counts for.
    keys: BTreeMap<u64, Vec<(Dimension, String)>>,
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
    /// Takes the next event of the log.
    pub fn take(&mut self, record: &EventRecord, names: &dyn Names) {
        match &record.event {
            Event::IncidentOpened(incident) => self.opened(incident, names),
            Event::IncidentRecovered { incident, took_us, .. } => {
                self.count(*incident, |count| {
                    count.recovered += 1;
                    count.recovery_us += took_us;
                });
            }
            Event::IncidentAcknowledged { incident, .. } => {
                self.count(*incident, |count| count.acknowledged += 1);
            }
            _ => {}
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

    fn opened(&mut self, incident: &Incident, names: &dyn Names) {
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
        self.keys.insert(incident.number, keys);
        let injected = u64::from(report.fault.is_some());
        self.count(incident.number, |count| {
            count.incidents += 1;
            count.injected += injected;
        });
    }

    fn count(&mut self, incident: u64, change: impl Fn(&mut Count)) {
        for key in self.keys.get(&incident).into_iter().flatten() {
            match self.counts.get_mut(key) {
                Some(count) => change(count),
                None => change(self.counts.entry(key.clone()).or_default()),
            }
        }
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
