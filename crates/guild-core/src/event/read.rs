//! Reads lines of the event log as outsiders do: names instead of numbers, and nothing else known.
//!
//! [`parse_line`] is the counterpart of [`write_line`](super::write_line); a test writes every kind
//! of event and reads it back. What a line says beyond what is known here is passed over, as the
//! log may grow: unknown fields, and unknown kinds as [`LineEvent::Other`]. What is known must be
//! whole: a line that is cut, or lacks a field of its kind, is refused.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

use super::terms::{EXPECTED_DEFAULT, Retry, TermsRead, timeout_default};
use super::told::{EventLine, HistoryText, LeaseText, LineEvent, SpanText, TaskText, Terms, Text};
use super::{Cause, ClockKind, EndState, Outcome, Severity, Tally, kind};
use crate::retry::RetryPolicy;

/// Why a line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// It is no JSON object, or a field has another type.
    #[error("column {column}: {message}")]
    Json {
        /// Where, from 1.
        column: usize,
        /// What the JSON reader says.
        message: String,
    },
    /// A field of its kind is missing.
    #[error("the event `{kind}` lacks the field `{field}`")]
    Missing {
        /// The kind.
        kind: String,
        /// The field.
        field: &'static str,
    },
}

/// Reads one line of the event log, without its line break.
///
/// # Errors
/// The line is no JSON object, is cut, or lacks a field of its kind.
pub fn parse_line(line: &str) -> Result<EventLine<'_>, LineError> {
    let mut raw: Raw<'_> = serde_json::from_str(line).map_err(json_error)?;
    let seq = raw.seq;
    let at_us = raw.at_us;
    raw.event().map(|event| EventLine { seq, at_us, event })
}

fn json_error(error: serde_json::Error) -> LineError {
    let text = error.to_string();
    // The line number is always 1 here: who reads a file knows the number of the line.
    let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
    LineError::Json { column: error.column(), message }
}

/// All fields of all kinds: one flat object is read several times faster than a tagged enum.
#[derive(Deserialize)]
struct Raw<'a> {
    seq: u64,
    at_us: u64,
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    run: Option<Text<'a>>,
    #[serde(borrow)]
    task: Option<Text<'a>>,
    #[serde(borrow)]
    agent: Option<Text<'a>>,
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow)]
    spawned_by: Option<Text<'a>>,
    #[serde(borrow)]
    after: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    message: Option<Text<'a>>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    #[serde(borrow)]
    action: Option<Text<'a>>,
    #[serde(borrow)]
    quota: Option<Text<'a>>,
    #[serde(borrow)]
    phase: Option<Text<'a>>,
    #[serde(borrow)]
    durability: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    of_type: Option<Text<'a>>,
    #[serde(borrow)]
    site: Option<Text<'a>>,
    #[serde(borrow)]
    note: Option<Text<'a>>,
    took_us: Option<u64>,
    attempt: Option<u32>,
    incarnation: Option<u64>,
    token: Option<u64>,
    kills: Option<u32>,
    held_us: Option<u64>,
    #[serde(borrow)]
    retry_run: Option<Text<'a>>,
    version: Option<u64>,
    retry_at_us: Option<u64>,
    delay_us: Option<u64>,
    until_us: Option<u64>,
    tasks: Option<u32>,
    edges: Option<u32>,
    seed: Option<u64>,
    completed: Option<u32>,
    failed: Option<u32>,
    skipped: Option<u32>,
    cancelled: Option<u32>,
    makespan_us: Option<u64>,
    fault: Option<u64>,
    incident: Option<u64>,
    writes: Option<u32>,
    in_use: Option<u32>,
    limit: Option<u32>,
    epoch: Option<u64>,
    commits_in_flight_max: Option<u64>,
    interruptions_max: Option<u32>,
    faults: Option<bool>,
    clock: Option<ClockKind>,
    cause: Option<Cause>,
    /// Of a task that ended.
    state: Option<EndState>,
    outcome: Option<Outcome>,
    severity: Option<Severity>,
    timeout_us: Option<u64>,
    heartbeat_us: Option<u64>,
    expected_us: Option<u64>,
    priority: Option<i32>,
    retry: Option<Retry>,
    /// Amounts of a task, or the quotas of the guild.
    #[serde(borrow)]
    quotas: Option<&'a RawValue>,
    #[serde(borrow)]
    roles: Option<&'a RawValue>,
    snapshot: Option<u64>,
    #[serde(borrow)]
    reads: Option<Vec<(Text<'a>, Option<u64>)>>,
    #[serde(borrow)]
    ranges: Option<Vec<(Text<'a>, Option<Text<'a>>, u64)>>,
    #[serde(borrow)]
    spans: Option<Vec<SpanText<'a>>>,
    #[serde(borrow)]
    keys: Option<Vec<Text<'a>>>,
}

impl<'a> Raw<'a> {
    fn event(&mut self) -> Result<LineEvent<'a>, LineError> {
        match &*self.kind.clone() {
            kind::TASK_READY
            | kind::TASK_ASSIGNED
            | kind::TASK_RETURNED
            | kind::TASK_COMPLETED
            | kind::TASK_FAILED
            | kind::TASK_ENDED
            | kind::TASK_POISONED
            | kind::STALE_RESULT => self.task_event(),
            kind::TASK_ADDED => self.added(),
            kind::AGENT_STARTED
            | kind::AGENT_CRASHED
            | kind::AGENT_RESTARTED
            | kind::AGENT_QUARANTINED
            | kind::AGENT_RELEASED
            | kind::AGENT_STOPPED
            | kind::THREAD_HELD => self.agent_event(),
            kind::LETTER_RETRIED | kind::LETTER_DISCARDED => self.letter(),
            kind::ROLE_LOST => {
                let role = self.role.take();
                Ok(LineEvent::RoleLost { role: self.need(role, "role")?, reason: self.reason()? })
            }
            kind::MEMORY_COMMITTED | kind::QUOTA_CHANGED => self.shared(),
            kind::FAULT_INJECTED | kind::INCIDENT_OPENED => self.failure(),
            kind::INCIDENT_RECOVERED | kind::INCIDENT_ACKNOWLEDGED => self.incident_over(),
            kind::RUN_SUBMITTED | kind::RUN_JOINED | kind::RUN_CANCELLED | kind::RUN_ENDED => {
                self.run_event()
            }
            kind::GUILD_STARTED => self.guild_started(),
            kind::PHASE_STARTED => {
                let phase = self.phase.take();
                Ok(LineEvent::PhaseStarted { phase: self.need(phase, "phase")? })
            }
            _ => Ok(LineEvent::Other { kind: self.kind.clone() }),
        }
    }

    fn task_event(&mut self) -> Result<LineEvent<'a>, LineError> {
        let task = self.task()?;
        Ok(match &*self.kind.clone() {
            kind::TASK_READY => LineEvent::TaskReady { task },
            kind::TASK_ASSIGNED => LineEvent::TaskAssigned { task, lease: self.lease()? },
            kind::TASK_RETURNED => LineEvent::TaskReturned { task, lease: self.lease()? },
            kind::TASK_COMPLETED => LineEvent::TaskCompleted {
                task,
                lease: self.lease()?,
                version: self.need(self.version, "version")?,
            },
            kind::TASK_FAILED => LineEvent::TaskFailed {
                task,
                attempt: self.need(self.attempt, "attempt")?,
                agent: self.agent()?,
                incarnation: self.need(self.incarnation, "incarnation")?,
                cause: self.need(self.cause, "cause")?,
                message: self.message()?,
                retry_at_us: self.retry_at_us,
            },
            kind::TASK_POISONED => {
                LineEvent::TaskPoisoned { task, kills: self.need(self.kills, "kills")? }
            }
            kind::TASK_ENDED => {
                LineEvent::TaskEnded { task, state: self.need(self.state, "state")? }
            }
            _ => LineEvent::StaleResult {
                task,
                token: self.need(self.token, "token")?,
                agent: self.agent()?,
                incarnation: self.need(self.incarnation, "incarnation")?,
            },
        })
    }

    fn added(&mut self) -> Result<LineEvent<'a>, LineError> {
        let (role, after) = (self.role.take(), self.after.take());
        Ok(LineEvent::TaskAdded {
            task: self.task()?,
            role: self.need(role, "role")?,
            after: self.need(after, "after")?,
            spawned_by: self.spawned_by.take(),
            terms: Box::new(self.terms()?),
        })
    }

    fn terms(&mut self) -> Result<Terms, LineError> {
        let duration = |us: Option<u64>| us.map(Duration::from_micros);
        Ok(Terms {
            timeout: duration(self.timeout_us).unwrap_or_else(timeout_default),
            heartbeat: duration(self.heartbeat_us),
            priority: self.priority.unwrap_or(0),
            quotas: self.quotas.map_or(Ok(Vec::new()), pairs)?,
            retry: self.retry.take().map_or_else(RetryPolicy::default, RetryPolicy::from),
            expected: duration(self.expected_us).unwrap_or(EXPECTED_DEFAULT),
        })
    }

    fn agent_event(&mut self) -> Result<LineEvent<'a>, LineError> {
        let agent = self.agent()?;
        Ok(match &*self.kind.clone() {
            kind::AGENT_STARTED => {
                let role = self.role.take();
                LineEvent::AgentStarted {
                    agent,
                    role: self.need(role, "role")?,
                    incarnation: self.need(self.incarnation, "incarnation")?,
                }
            }
            kind::AGENT_CRASHED => LineEvent::AgentCrashed {
                agent,
                incarnation: self.need(self.incarnation, "incarnation")?,
                cause: self.need(self.cause, "cause")?,
                message: self.message()?,
                task: self.optional_task()?,
            },
            kind::AGENT_RESTARTED => LineEvent::AgentRestarted {
                agent,
                incarnation: self.need(self.incarnation, "incarnation")?,
                delay_us: self.need(self.delay_us, "delay_us")?,
            },
            kind::AGENT_QUARANTINED => LineEvent::AgentQuarantined {
                agent,
                reason: self.reason()?,
                until_us: self.until_us,
            },
            kind::THREAD_HELD => {
                LineEvent::ThreadHeld { agent, held_us: self.need(self.held_us, "held_us")? }
            }
            kind::AGENT_STOPPED => LineEvent::AgentStopped {
                agent,
                incarnation: self.need(self.incarnation, "incarnation")?,
                reason: self.reason()?,
            },
            _ => LineEvent::AgentReleased { agent, reason: self.reason()? },
        })
    }

    fn letter(&mut self) -> Result<LineEvent<'a>, LineError> {
        let task = self.task()?;
        if &*self.kind == kind::LETTER_RETRIED {
            let retry_run = self.retry_run.take();
            let retry_run = self.need(retry_run, "retry_run")?;
            return Ok(LineEvent::LetterRetried { task, retry_run });
        }
        let note = self.note.take();
        Ok(LineEvent::LetterDiscarded { task, note: self.need(note, "note")? })
    }

    fn shared(&mut self) -> Result<LineEvent<'a>, LineError> {
        if &*self.kind == kind::QUOTA_CHANGED {
            let quota = self.quota.take();
            return Ok(LineEvent::QuotaChanged {
                quota: self.need(quota, "quota")?,
                in_use: self.need(self.in_use, "in_use")?,
                limit: self.need(self.limit, "limit")?,
            });
        }
        let history = self.snapshot.map(|snapshot| {
            Box::new(HistoryText {
                snapshot,
                reads: self.reads.take().unwrap_or_default(),
                ranges: self.ranges.take().unwrap_or_default(),
                spans: self.spans.take().unwrap_or_default(),
                keys: self.keys.take().unwrap_or_default(),
            })
        });
        Ok(LineEvent::MemoryCommitted {
            version: self.need(self.version, "version")?,
            task: self.optional_task()?,
            writes: self.need(self.writes, "writes")?,
            history,
        })
    }

    fn failure(&mut self) -> Result<LineEvent<'a>, LineError> {
        let of_type = self.of_type.take();
        let of_type = self.need(of_type, "type")?;
        let task = self.optional_task()?;
        let (agent, attempt) = (self.agent.take(), self.attempt);
        if &*self.kind == kind::FAULT_INJECTED {
            let (fault, site) = (self.need(self.fault, "fault")?, self.site.take());
            let site = self.need(site, "site")?;
            return Ok(LineEvent::FaultInjected {
                fault,
                r#type: of_type,
                site,
                agent,
                task,
                attempt,
            });
        }
        let action = self.action.take();
        Ok(LineEvent::IncidentOpened {
            incident: self.need(self.incident, "incident")?,
            severity: self.need(self.severity, "severity")?,
            r#type: of_type,
            agent,
            task,
            attempt,
            fault: self.fault,
            cause: self.need(self.cause, "cause")?,
            message: self.message()?,
            action: self.need(action, "action")?,
        })
    }

    fn incident_over(&mut self) -> Result<LineEvent<'a>, LineError> {
        let incident = self.need(self.incident, "incident")?;
        if &*self.kind == kind::INCIDENT_ACKNOWLEDGED {
            let note = self.note.take();
            return Ok(LineEvent::IncidentAcknowledged {
                incident,
                note: self.need(note, "note")?,
            });
        }
        Ok(LineEvent::IncidentRecovered {
            incident,
            took_us: self.need(self.took_us, "took_us")?,
            agent: self.agent.take(),
            attempt: self.attempt,
        })
    }

    fn run_event(&mut self) -> Result<LineEvent<'a>, LineError> {
        let run = self.run()?;
        Ok(match &*self.kind.clone() {
            kind::RUN_SUBMITTED => LineEvent::RunSubmitted {
                run,
                tasks: self.need(self.tasks, "tasks")?,
                edges: self.need(self.edges, "edges")?,
                seed: self.need(self.seed, "seed")?,
            },
            kind::RUN_JOINED => LineEvent::RunJoined { run },
            kind::RUN_CANCELLED => LineEvent::RunCancelled { run },
            _ => LineEvent::RunEnded {
                run,
                outcome: self.need(self.outcome, "outcome")?,
                tally: Tally {
                    completed: self.need(self.completed, "completed")?,
                    failed: self.need(self.failed, "failed")?,
                    skipped: self.need(self.skipped, "skipped")?,
                    cancelled: self.need(self.cancelled, "cancelled")?,
                },
                makespan_us: self.need(self.makespan_us, "makespan_us")?,
            },
        })
    }

    fn guild_started(&mut self) -> Result<LineEvent<'a>, LineError> {
        let durability = self.durability.take();
        let quotas = pairs::<TermsRead>(self.need(self.quotas, "quotas")?)?;
        Ok(LineEvent::GuildStarted {
            epoch: self.need(self.epoch, "epoch")?,
            clock: self.need(self.clock, "clock")?,
            durability: self.need(durability, "durability")?,
            roles: pairs(self.need(self.roles, "roles")?)?,
            quotas: quotas.into_iter().map(|(name, text)| (name, text.into())).collect(),
            commits_in_flight_max: self
                .need(self.commits_in_flight_max, "commits_in_flight_max")?,
            interruptions_max: self.need(self.interruptions_max, "interruptions_max")?,
            faults: self.need(self.faults, "faults")?,
        })
    }

    fn need<T>(&self, value: Option<T>, field: &'static str) -> Result<T, LineError> {
        value.ok_or_else(|| LineError::Missing { kind: self.kind.to_string(), field })
    }

    fn run(&mut self) -> Result<Text<'a>, LineError> {
        let run = self.run.take();
        self.need(run, "run")
    }

    fn agent(&mut self) -> Result<Text<'a>, LineError> {
        let agent = self.agent.take();
        self.need(agent, "agent")
    }

    fn message(&mut self) -> Result<Text<'a>, LineError> {
        let message = self.message.take();
        self.need(message, "message")
    }

    fn reason(&mut self) -> Result<Text<'a>, LineError> {
        let reason = self.reason.take();
        self.need(reason, "reason")
    }

    fn task(&mut self) -> Result<TaskText<'a>, LineError> {
        let task = self.task.take();
        Ok(TaskText { run: self.run()?, task: self.need(task, "task")? })
    }

    fn optional_task(&mut self) -> Result<Option<TaskText<'a>>, LineError> {
        if self.task.is_some() { self.task().map(Some) } else { Ok(None) }
    }

    fn lease(&mut self) -> Result<LeaseText<'a>, LineError> {
        Ok(LeaseText {
            attempt: self.need(self.attempt, "attempt")?,
            agent: self.agent()?,
            incarnation: self.need(self.incarnation, "incarnation")?,
            token: self.need(self.token, "token")?,
        })
    }
}

/// Reads an object as pairs in their order.
fn pairs<T: for<'de> Deserialize<'de>>(raw: &RawValue) -> Result<Vec<(String, T)>, LineError> {
    struct InOrder<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
        type Value = Vec<(String, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    deserializer.deserialize_map(InOrder(std::marker::PhantomData)).map_err(json_error)
}
