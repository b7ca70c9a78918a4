//! I10: each disruptive fault has its incident, and no incident lacks a cause.
//!
//! A fault is disruptive when it ends a life of its agent: crash, start_crash, crash_queued, hang,
//! exit, poison. By the time that the agent lives again, an incident has named the fault. A fault
//! that came to nothing needs none: its attempt ended otherwise, or its process. An incident of an
//! agent follows a crash of that agent, one of a task an attempt that was the last, and a fault that
//! it names was injected.

use std::collections::BTreeMap;

use guild_core::event::{Cause, EndState, LineEvent, TaskText};

use super::board::{Board, Status};
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I10;
use crate::plan::Kind;

/// Judges incidents.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    /// Faults whose incident is still to come, by their agent.
    open: BTreeMap<String, Vec<OpenFault>>,
    /// Agents that crashed and whose incident is still to come.
    owed: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct OpenFault {
    number: u64,
    kind: String,
    /// Its run, its task and the attempt.
    at: Option<(String, String, u32)>,
}

impl Check for Incidents {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        match seen.event {
            LineEvent::GuildStarted { .. } => {
                self.open.clear();
                self.owed.clear();
            }
            LineEvent::FaultInjected { .. } => self.inject(seen.event),
            LineEvent::TaskCompleted { task, lease, .. } => {
                self.drop_faults(&lease.agent, task, Some(lease.attempt));
            }
            LineEvent::TaskFailed {
                task,
                attempt,
                agent,
                cause: Cause::Error | Cause::Conflict,
                ..
            } => self.drop_faults(agent, task, Some(*attempt)),
            LineEvent::TaskEnded { task, state: EndState::Cancelled } => {
                let lease = seen.task().and_then(|task| task.lease);
                if let Some(agent) = lease.and_then(|lease| board.agents().get(lease.agent)) {
                    self.drop_faults(&agent.name, task, None);
                }
            }
            LineEvent::AgentCrashed { agent, incarnation, .. } => {
                self.settle(agent, findings);
                self.owed.insert(agent.to_string(), *incarnation);
            }
            // What struck a life that ended otherwise came to nothing.
            LineEvent::AgentStopped { agent, .. } => drop(self.open.remove(&**agent)),
            LineEvent::AgentRestarted { agent, .. } => {
                self.settle(agent, findings);
                for fault in self.open.remove(&**agent).unwrap_or_default() {
                    findings.violate(I10, || {
                        let OpenFault { number, kind, .. } = fault;
                        format!("agent `{agent}` lives again after fault {number} ({kind}), and no incident names it")
                    });
                }
            }
            LineEvent::IncidentOpened { .. } => self.incident(seen, board, findings),
            _ => {}
        }
    }

    fn end(&mut self, end: &End<'_>, _: &Board, findings: &mut Findings) {
        if end.knowledge.is_complete && end.is_whole {
            let owed: Vec<String> = self.owed.keys().cloned().collect();
            owed.iter().for_each(|agent| self.settle(agent, findings));
        }
    }
}

impl Incidents {
    fn inject(&mut self, event: &LineEvent<'_>) {
        let LineEvent::FaultInjected { fault, r#type, site, agent: Some(agent), task, attempt } =
            event
        else {
            return;
        };
        // An agent that crashes while it is dropped is going down already.
        if !is_disruptive(r#type) || &**site == "dropped" {
            return;
        }
        let at = task.as_ref().zip(*attempt);
        self.open.entry(agent.to_string()).or_default().push(OpenFault {
            number: *fault,
            kind: r#type.to_string(),
            at: at.map(|(task, attempt)| (task.run.to_string(), task.task.to_string(), attempt)),
        });
    }

    fn incident(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        let LineEvent::IncidentOpened { incident, r#type, agent, attempt, fault, .. } = seen.event
        else {
            return;
        };
        findings.check(I10);
        if let Some(fault) = fault.filter(|fault| *fault == 0 || *fault > board.fault) {
            findings.violate(I10, || {
                format!("incident {incident} names fault {fault}, which was never injected")
            });
        }
        match (&**r#type, agent) {
            ("agent_crashed", Some(agent)) => {
                if self.owed.remove(&**agent).is_none() {
                    findings.violate(I10, || {
                        format!(
                            "incident {incident} says that agent `{agent}` crashed, and it did not"
                        )
                    });
                }
                // Of several faults at once the agent died of one.
                if fault.is_some() && self.open.remove(&**agent).is_some() {
                    findings.check(I10);
                }
            }
            ("task_failed", _) => {
                let is_so = seen.task().is_some_and(|task| {
                    let ended = [EndState::Failed, EndState::DeadLettered].map(Status::Ended);
                    ended.contains(&task.status) && Some(task.attempts) == *attempt
                });
                if !is_so {
                    findings.violate(I10, || {
                        format!(
                            "incident {incident} gives up {}, whose last attempt did not fail",
                            seen.task_name()
                        )
                    });
                }
            }
            _ => {}
        }
    }

    /// A crash has its incident before anything else becomes of the agent.
    fn settle(&mut self, agent: &str, findings: &mut Findings) {
        if self.owed.remove(agent).is_some() {
            findings.violate(I10, || format!("agent `{agent}` crashed and has no incident"));
        }
    }

    /// Faults of an attempt that ended otherwise came to nothing.
    fn drop_faults(&mut self, agent: &str, task: &TaskText<'_>, attempt: Option<u32>) {
        let Some(open) = self.open.get_mut(agent) else {
            return;
        };
        open.retain(|fault| {
            fault.at.as_ref().is_none_or(|(run, name, at)| {
                *run != *task.run || *name != *task.task || attempt.is_some_and(|of| of != *at)
            })
        });
        if open.is_empty() {
            self.open.remove(agent);
        }
    }
}

fn is_disruptive(kind: &str) -> bool {
    matches!(
        Kind::from_name(kind),
        Some(
            Kind::Crash
                | Kind::StartCrash
                | Kind::CrashQueued
                | Kind::Hang
                | Kind::Exit
                | Kind::Poison
        )
    )
}
