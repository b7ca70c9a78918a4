//! Tells what the supervision tree has decided: to the log, and to the person who oversees.

use std::sync::atomic::Ordering;

use guild_core::event::{Cause, Event, Names, Severity};
use guild_core::id::{AgentId, Incarnation, RoleId};
use guild_core::incident::{Action, Attempt, IncidentKind, Reason, Report};
use guild_core::supervision::{Escalation, Verdict};
use guild_core::time::{Timestamp, micros};

use tokio::sync::oneshot;

use super::SupervisorActor;
use crate::failure::Failure;
use crate::message::{ChildDown, Ended, Revive};

/// A life that ended with a failure.
#[derive(Clone)]
pub(super) struct Crash {
    pub(super) agent: AgentId,
    pub(super) incarnation: Incarnation,
    pub(super) failure: Failure,
    pub(super) attempt: Option<Attempt>,
    pub(super) fault: Option<u64>,
}

impl SupervisorActor {
    /// Records a crash and opens its incident.
    pub(super) fn report_crash(&mut self, now: Timestamp, crash: Crash, verdict: Option<Verdict>) {
        let (agent, incarnation) = (crash.agent, crash.incarnation);
        self.surroundings.stats.crashes.fetch_add(1, Ordering::Relaxed);
        self.surroundings.log(Event::AgentCrashed {
            agent,
            incarnation,
            cause: crash.failure.cause,
            message: crash.failure.message.clone(),
            task: crash.attempt.map(|attempt| attempt.task),
        });
        let (action, severity) = match verdict {
            Some(Verdict::Restart { at }) => {
                (Action::Restart { delay_us: micros(at.since(now)) }, Severity::Warning)
            }
            Some(Verdict::Quarantine { until }) => {
                self.surroundings.log(Event::AgentQuarantined {
                    agent,
                    reason: "it crashed more often than its restart policy allows".into(),
                    until: Some(until),
                });
                (Action::Quarantine { until }, Severity::Error)
            }
            Some(Verdict::Joined) => (Action::RestartTogether, Severity::Warning),
            Some(Verdict::Meltdown) => (Action::Escalate, Severity::Error),
            Some(Verdict::Gone) | None => (Action::LeaveDown, Severity::Warning),
        };
        if verdict == Some(Verdict::Meltdown)
            && let Some(crew) = self.roles.get_mut(usize::from(agent.role.0))
        {
            crew.fatal = Some(crash.clone());
        }
        let Crash { failure, attempt, fault, .. } = crash;
        let (kind, of) = (IncidentKind::AgentCrashed, Some((agent, incarnation)));
        self.surroundings
            .open_incident(now, failure.report(kind, severity, of, attempt, fault, action));
    }

    /// Lets a host go on that panicked in a life which had been given up, and tells a person. It begins
    /// no life, for that one is over; the next comes by its mailbox, when the tree has decided so.
    pub(super) fn let_go_on(
        &self,
        now: Timestamp,
        parked: oneshot::Sender<Revive>,
        down: ChildDown,
    ) {
        let (agent, incarnation) = (down.agent, down.incarnation);
        if let Ended::Failed(failure) = down.ended {
            let (kind, severity) = (IncidentKind::HostPanicked, Severity::Warning);
            let (of, action) = (Some((agent, incarnation)), Action::RestartActor);
            let report = failure.report(kind, severity, of, down.attempt, down.fault, action);
            self.surroundings.open_incident(now, report);
        }
        if parked.send(Revive { incarnation, probe: false }).is_err() {
            tracing::debug!(agent = agent.index, "a cell that was given up has ended");
        }
    }

    /// Opens the incident of supervisors that gave up, with the whole chain of causes.
    pub(super) fn report_escalation(&mut self, now: Timestamp, escalation: &Escalation) {
        let Escalation { chain, role, verdict } = escalation;
        let crew = role.and_then(|role| self.roles.get_mut(usize::from(role.0)));
        let fatal = crew.and_then(|crew| crew.fatal.take());
        let of: Box<str> = chain.last().map_or("", |link| &*link.supervisor).into();
        let mut message = String::new();
        for link in chain {
            match (&*link.supervisor, message.is_empty()) {
                (first, true) => message = format!("the supervisor of `{first}` gave up"),
                ("", false) => message.push_str(", and so did the root"),
                (next, false) => message.push_str(&format!(", and so did that of `{next}`")),
            }
        }
        if let Some(fatal) = &fatal {
            let agent = self.surroundings.named(|names| names.agent(fatal.agent));
            let why = &fatal.failure.message;
            message.push_str(&format!(": `{agent}` died once too often: {why}"));
        }
        let action = match verdict {
            Verdict::Restart { at } => {
                Action::RestartSubtree { of, delay_us: micros(at.since(now)) }
            }
            Verdict::Quarantine { until } => Action::QuarantineSubtree { of, until: *until },
            Verdict::Joined => Action::RestartSubtreeTogether { of },
            Verdict::Gone => Action::DropSubtree { of },
            Verdict::Meltdown => Action::StopGuild,
        };
        let mut report = Report::of_service(IncidentKind::SupervisorGaveUp, message, action);
        (report.cause, report.reason) = (Cause::AgentLost, Reason::AgentLost);
        if let Some(fatal) = fatal {
            let failure = fatal.failure;
            report = Report {
                cause: failure.cause,
                reason: failure.reason,
                causes: failure.causes,
                location: failure.location,
                backtrace: failure.backtrace,
                agent: Some((fatal.agent, fatal.incarnation)),
                attempt: fatal.attempt,
                fault: fatal.fault,
                ..report
            };
        }
        self.surroundings.open_incident(now, report);
    }

    /// Opens the incident of a role that has lost all its agents.
    pub(super) fn report_loss(&mut self, now: Timestamp, role: RoleId, reason: Box<str>) {
        let name = self.surroundings.named(|names| names.role(role).to_owned());
        let message = format!("the role `{name}` has no agents any more: {reason}");
        let report = Report::of_service(IncidentKind::RoleLost, message, Action::FailTasks);
        let (cause, reason) = (Cause::AgentLost, Reason::AgentLost);
        self.surroundings.open_incident(now, Report { cause, reason, ..report });
    }
}
