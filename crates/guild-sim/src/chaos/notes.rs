//! Reads the log of a run along: what struck, what was noticed, and which branches were taken.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::event::{Event, EventRecord};
use guild_core::id::CommitVersion;
use guild_core::time::Timestamp;
use serde::Deserialize;

use super::point::PlanFaults;
use crate::plan::{FaultId, FiredFault, IncidentNote};
use crate::world::LogReader;

/// What the log of a run told; every clone is the same.
#[derive(Clone)]
pub(super) struct Notes(Arc<Mutex<Told>>, PlanFaults);

/// What was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) faults: Vec<FiredFault>,
    pub(super) incidents: Vec<IncidentNote>,
    /// The lines that tell branches of recovery apart.
    pub(super) branches: Vec<String>,
    pub(super) completed: u64,
    pub(super) tasks: u64,
    /// When the newest event happened.
    pub(super) last: Timestamp,
    /// The version of the newest completion: the memory may never be older again.
    version: CommitVersion,
    /// The strikes of which the log tells.
    strikes: BTreeSet<FaultId>,
    /// Whether it tells of the quiet phase.
    is_quiet: bool,
}

/// The names in a line.
#[derive(Deserialize)]
struct Names {
    r#type: String,
    #[serde(default)]
    site: String,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    task: Option<String>,
}

impl Notes {
    /// Returns an empty notebook of a run that these faults strike.
    pub(super) fn new(point: PlanFaults) -> Self {
        Self(Arc::default(), point)
    }

    /// Returns what was told so far.
    pub(super) fn told(&self) -> Told {
        self.lock().clone()
    }

    /// Tells whether the log shows that this fault has struck.
    pub(super) fn show(&self, fault: FaultId) -> bool {
        self.lock().strikes.contains(&fault)
    }

    /// Returns the version of the memory at the newest completion that was told.
    pub(super) fn version(&self) -> CommitVersion {
        self.lock().version
    }

    /// Tells whether the log shows the quiet phase.
    pub(super) fn show_quiet(&self) -> bool {
        self.lock().is_quiet
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, record: &EventRecord, line: &str) {
        let mut told = self.lock();
        told.last = record.at;
        match &record.event {
            Event::FaultInjected { fault, .. } => {
                let Some((names, id)) = names(line).zip(self.1.fault_of(*fault)) else { return };
                told.strikes.insert(id);
                told.faults.push(FiredFault {
                    fault: *fault,
                    r#type: names.r#type,
                    site: names.site,
                    method: id.method,
                    event: record.seq,
                    agent: names.agent.and_then(|agent| agent.parse().ok()),
                    task: names.task,
                });
                told.branches.push(line.to_owned());
            }
            Event::IncidentOpened(incident) => {
                told.incidents.push(IncidentNote {
                    incident: incident.number,
                    r#type: incident.report.kind.name().to_owned(),
                    event: record.seq,
                    fault: incident.report.fault,
                });
            }
            Event::TaskAdded { .. } => told.tasks += 1,
            Event::PhaseStarted { phase } => {
                told.is_quiet |= &**phase == QUIET;
                told.branches.push(line.to_owned());
            }
            Event::TaskCompleted { version, .. } => {
                told.completed += 1;
                told.version = told.version.max(*version);
            }
            Event::GuildStarted { .. }
            | Event::TaskAssigned { .. }
            | Event::TaskFailed { .. }
            | Event::TaskEnded { .. }
            | Event::AgentRestarted { .. }
            | Event::AgentQuarantined { .. }
            | Event::AgentReleased { .. }
            | Event::StaleResult { .. } => told.branches.push(line.to_owned()),
            _ => {}
        }
    }
}

/// Name of the phase without new faults.
pub(super) const QUIET: &str = "quiet";

fn names(line: &str) -> Option<Names> {
    serde_json::from_str(line).ok()
}

impl LogReader for Notes {
    fn record(&mut self, record: &EventRecord, line: &str) {
        self.note(record, line);
    }
}
