//! Tells what the supervision tree has decided: to the log, and to the person who oversees.

use guild_core::event::{Cause, Event, Names, Severity};
use guild_core::id::{AgentId, Incarnation, RoleId, TaskId};
use guild_core::supervision::{Escalation, Verdict};
use guild_core::time::{Timestamp, micros};

use super::SupervisorActor;
use crate::incidents::Report;
use crate::message::{ChildDown, MemoryMessage};

/// A death that was one too many.
pub(super) struct Fatal {
    agent: AgentId,
    incarnation: Incarnation,
    cause: Cause,
    message: Box<str>,
    location: Option<Box<str>>,
    task: Option<(TaskId, u32)>,
    fault: Option<u64>,
}

impl SupervisorActor {
    /// Records a crash and opens its incident.
    pub(super) fn report_crash(
        &mut self,
        now: Timestamp,
        down: &ChildDown,
        cause: Cause,
        verdict: Option<Verdict>,
    ) {
        let (agent, incarnation) = (down.agent, down.incarnation);
        let counter = &self.surroundings.stats.crashes;
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.record(Event::AgentCrashed {
            agent,
            incarnation,
            cause,
            message: down.message.clone(),
            task: down.task.map(|(task, _)| task),
        });
        let (action, severity) = match verdict {
            Some(Verdict::Restart { at }) => {
                (format!("restarted after {} us", micros(at.since(now))), Severity::Warning)
            }
            Some(Verdict::Quarantine { until }) => {
                self.record(Event::AgentQuarantined {
                    agent,
                    reason: "it crashed more often than its restart policy allows".into(),
                    until: Some(until),
                });
                (format!("quarantined until {} us", until.0), Severity::Error)
            }
            Some(Verdict::Joined) => {
                ("restarted with the others that it belongs to".to_owned(), Severity::Warning)
            }
            Some(Verdict::Meltdown) => ("its supervisor gives up".to_owned(), Severity::Error),
            Some(Verdict::Gone) | None => ("not started again".to_owned(), Severity::Warning),
        };
        if verdict == Some(Verdict::Meltdown)
            && let Some(crew) = self.roles.get_mut(usize::from(agent.role.0))
        {
            crew.fatal = Some(Fatal {
                agent,
                incarnation,
                cause,
                message: down.message.clone(),
                location: down.location.clone(),
                task: down.task,
                fault: down.fault,
            });
        }
        self.open(
            now,
            Report {
                kind: "agent_crashed",
                severity,
                cause,
                message: down.message.clone(),
                location: down.location.clone(),
                agent: Some((agent, incarnation)),
                task: down.task,
                fault: down.fault,
                action: action.into(),
            },
        );
    }

    /// Opens the incident of supervisors that gave up, with the whole chain of causes.
    pub(super) fn report_escalation(&mut self, now: Timestamp, escalation: &Escalation) {
        let Escalation { chain, role, verdict } = escalation;
        let crew = role.and_then(|role| self.roles.get_mut(usize::from(role.0)));
        let fatal = crew.and_then(|crew| crew.fatal.take());
        let last = chain.last().map_or("", |link| &*link.supervisor);
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
            message.push_str(&format!(": `{agent}` died once too often: {}", fatal.message));
        }
        let action = match verdict {
            Verdict::Restart { at } => {
                format!("`{last}` is started again after {} us", micros(at.since(now)))
            }
            Verdict::Quarantine { until } => {
                format!("`{last}` is quarantined until {} us; the others serve on", until.0)
            }
            Verdict::Joined => format!("`{last}` is restarted with the others that it belongs to"),
            Verdict::Gone => format!("`{last}` is not started again; tasks that ask for it fail"),
            Verdict::Meltdown => {
                "the guild takes no more work; start it again on its store".to_owned()
            }
        };
        self.open(
            now,
            Report {
                kind: "supervisor_gave_up",
                severity: Severity::Error,
                cause: fatal.as_ref().map_or(Cause::AgentLost, |fatal| fatal.cause),
                message: message.into(),
                location: fatal.as_ref().and_then(|fatal| fatal.location.clone()),
                agent: fatal.as_ref().map(|fatal| (fatal.agent, fatal.incarnation)),
                task: fatal.as_ref().and_then(|fatal| fatal.task),
                fault: fatal.as_ref().and_then(|fatal| fatal.fault),
                action: action.into(),
            },
        );
    }

    /// Opens the incident of a role that has lost all its agents.
    pub(super) fn report_loss(&mut self, now: Timestamp, role: RoleId, reason: Box<str>) {
        let name = self.surroundings.named(|names| names.role(role).to_owned());
        self.open(
            now,
            Report {
                kind: "role_lost",
                severity: Severity::Error,
                cause: Cause::AgentLost,
                message: format!("the role `{name}` has no agents any more: {reason}").into(),
                location: None,
                agent: None,
                task: None,
                fault: None,
                action: "tasks that ask for it fail".into(),
            },
        );
    }

    fn open(&self, now: Timestamp, report: Report) {
        let event = self.surroundings.incidents.open(now, report);
        self.surroundings.memory.push(MemoryMessage::Record(event));
    }
}
