//! Takes the log from before a start, so that an open incident goes on waiting for what it has waited
//! for: its agent, its task, or both.
//!
//! What ended an incident is in the log; nothing is decided twice.

use super::IncidentBook;
use crate::event::{Event, EventRecord};
use crate::incident::{Action, IncidentKind};
use crate::time::Timestamp;

impl IncidentBook {
    /// Takes the next event from before this start.
    pub fn recall(&mut self, record: &EventRecord) {
        match &record.event {
            Event::IncidentOpened(incident) => {
                self.opened = self.opened.max(incident.number);
                let waiting = self.waits_for(&incident.report);
                self.watch(incident.number, waiting);
                self.keep((**incident).clone());
            }
            Event::IncidentRecovered { incident, took_us, reassigned } => {
                self.recovered(*incident, *took_us, *reassigned);
            }
            Event::IncidentAcknowledged { incident, note } => {
                self.acknowledged(record.at, *incident, note.clone());
            }
            Event::AgentStarted { agent, .. } | Event::AgentRestarted { agent, .. } => {
                self.heard_of(*agent);
            }
            event => {
                self.note_task(event);
            }
        }
    }

    /// Recovers the incidents that the start of a guild ends: it has new control actors, its store
    /// has been opened, and agents that were to stay down are started like all others. Returns their
    /// events.
    pub fn guild_started(&mut self, at: Timestamp) -> Vec<Event> {
        self.recover_all(at, |report| {
            matches!(report.kind, IncidentKind::ControllerFailed | IncidentKind::StoreFailed)
                || report.action == Action::LeaveDown
        })
    }
}
