//! Writes events as outsiders read them: one JSON object per line, with names instead of numbers.

/// A key as it stands in a line, behind another field.
macro_rules! key {
    ($key:literal) => {
        concat!(",\"", $key, "\":")
    };
}

mod life;

use serde::Serialize;

use super::terms::{EXPECTED_DEFAULT, Pairs, Retry, Terms, timeout_default};
use super::{Event, EventRecord, QuotaTerms, Reads, kind};
use crate::graph::TaskSpec;
use crate::id::{AgentId, QuotaId, RoleId, RunId, TaskId};
use crate::incident::Incident;
use crate::retry::RetryPolicy;
use crate::time::micros;

/// Knows the names of things.
pub trait Names {
    /// Appends the name of a run.
    fn write_run(&self, run: RunId, text: &mut String);
    /// Appends the full name of a task within its run.
    fn write_task(&self, task: TaskId, text: &mut String);
    /// Returns the name of a role.
    fn role(&self, role: RoleId) -> &str;
    /// Returns the name of a quota.
    fn quota(&self, quota: QuotaId) -> &str;
    /// Returns what a task asks for, and the names of its quotas with their amounts; none for an
    /// unknown task.
    fn terms(&self, task: TaskId) -> Option<(&TaskSpec, Vec<(&str, u32)>)>;

    /// Appends the name of a run as a JSON string.
    fn write_quoted_run(&self, run: RunId, text: &mut String) {
        quoted(text, |text| self.write_run(run, text));
    }

    /// Returns the name of a run.
    fn run(&self, run: RunId) -> String {
        let mut text = String::new();
        self.write_run(run, &mut text);
        text
    }

    /// Returns the full name of a task within its run.
    fn task(&self, task: TaskId) -> String {
        let mut text = String::new();
        self.write_task(task, &mut text);
        text
    }

    /// Returns the name of an agent: its role and its number.
    fn agent(&self, agent: AgentId) -> String {
        format!("{}-{}", self.role(agent.role), agent.index)
    }
}

/// Returns one record as one line of the event log, without the line break.
pub fn line(record: &EventRecord, names: &dyn Names) -> String {
    let mut text = String::with_capacity(160);
    write_line(record, names, &mut text);
    text
}

/// Appends one record as one line of the event log, without the line break.
pub fn write_line(record: &EventRecord, names: &dyn Names, text: &mut String) {
    // Room for most lines: their parts are short and many.
    text.reserve(256);
    let mut line = Line { text, names };
    line.text.push_str("{\"seq\":");
    line.digits(record.seq);
    line.number(key!("at_us"), record.at.0);
    line.event(&record.event);
    line.text.push('}');
}

/// A line that is being written.
struct Line<'a> {
    text: &'a mut String,
    names: &'a dyn Names,
}

impl Line<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::GuildStarted { .. } | Event::PhaseStarted { .. } => self.guild(event),
            Event::RunSubmitted { .. }
            | Event::RunJoined { .. }
            | Event::RunCancelled { .. }
            | Event::RunEnded { .. } => self.run_event(event),
            Event::AgentStarted { .. }
            | Event::AgentCrashed { .. }
            | Event::AgentRestarted { .. }
            | Event::AgentQuarantined { .. }
            | Event::AgentReleased { .. }
            | Event::AgentStopped { .. }
            | Event::ThreadHeld { .. }
            | Event::RoleLost { .. } => self.agent_event(event),
            Event::TaskAdded { .. }
            | Event::TaskReady { .. }
            | Event::TaskEnded { .. }
            | Event::TaskPoisoned { .. } => self.task_event(event),
            Event::LetterRetried { .. } | Event::LetterDiscarded { .. } => self.letter(event),
            Event::TaskAssigned { .. }
            | Event::TaskReturned { .. }
            | Event::TaskCompleted { .. }
            | Event::TaskFailed { .. }
            | Event::StaleResult { .. } => self.attempt_event(event),
            Event::FaultInjected { .. }
            | Event::IncidentOpened(_)
            | Event::IncidentRecovered { .. }
            | Event::IncidentAcknowledged { .. } => self.failure(event),
            Event::MemoryCommitted { .. } | Event::QuotaChanged { .. } => self.shared(event),
        }
    }

    fn guild(&mut self, event: &Event) {
        match event {
            Event::GuildStarted { epoch, setup } => {
                self.kind(kind::GUILD_STARTED);
                self.number(key!("epoch"), u64::from(epoch.0));
                self.json(key!("clock"), &setup.clock);
                self.json(key!("order"), &setup.order);
                self.text(key!("durability"), &setup.durability);
                self.json(key!("roles"), &Pairs(&setup.roles));
                let terms = |(name, terms): &(Box<str>, QuotaTerms)| (name.clone(), Terms(*terms));
                self.json(
                    key!("quotas"),
                    &Pairs(&setup.quotas.iter().map(terms).collect::<Vec<_>>()),
                );
                self.number(key!("commits_in_flight_max"), setup.commits_in_flight_max as u64);
                self.number(key!("interruptions_max"), u64::from(setup.interruptions_max));
                self.json(key!("faults"), &setup.faults);
            }
            Event::PhaseStarted { phase } => {
                self.kind(kind::PHASE_STARTED);
                self.text(key!("phase"), phase);
            }
            _ => unreachable!("only events of the whole guild come here"),
        }
    }

    fn run_event(&mut self, event: &Event) {
        match event {
            Event::RunSubmitted { run, tasks, edges, seed } => {
                self.kind(kind::RUN_SUBMITTED);
                self.run(*run);
                self.number(key!("tasks"), u64::from(*tasks));
                self.number(key!("edges"), u64::from(*edges));
                self.number(key!("seed"), *seed);
            }
            Event::RunEnded { run, outcome, tally, makespan_us } => {
                self.kind(kind::RUN_ENDED);
                self.run(*run);
                self.json(key!("outcome"), outcome);
                self.number(key!("completed"), u64::from(tally.completed));
                self.number(key!("failed"), u64::from(tally.failed));
                self.number(key!("skipped"), u64::from(tally.skipped));
                self.number(key!("cancelled"), u64::from(tally.cancelled));
                self.number(key!("makespan_us"), *makespan_us);
            }
            Event::RunJoined { run } => {
                self.kind(kind::RUN_JOINED);
                self.run(*run);
            }
            Event::RunCancelled { run } => {
                self.kind(kind::RUN_CANCELLED);
                self.run(*run);
            }
            _ => unreachable!("only events of runs come here"),
        }
    }

    fn task_event(&mut self, event: &Event) {
        match event {
            Event::TaskAdded { task, role, after, spawned_by } => {
                self.kind(kind::TASK_ADDED);
                self.of_task(*task);
                let names = self.names;
                self.text(key!("role"), names.role(*role));
                self.key(key!("after"));
                self.text.push('[');
                for (place, before) in after.iter().enumerate() {
                    if place > 0 {
                        self.text.push(',');
                    }
                    self.task_name(*before);
                }
                self.text.push(']');
                if let Some(parent) = spawned_by {
                    self.task(key!("spawned_by"), *parent);
                }
                if let Some((spec, quotas)) = names.terms(*task) {
                    self.terms(spec, &quotas);
                }
            }
            Event::TaskReady { task } => {
                self.kind(kind::TASK_READY);
                self.of_task(*task);
            }
            Event::TaskEnded { task, state } => {
                self.kind(kind::TASK_ENDED);
                self.of_task(*task);
                self.json(key!("state"), state);
            }
            Event::TaskPoisoned { task, kills } => {
                self.kind(kind::TASK_POISONED);
                self.of_task(*task);
                self.number(key!("kills"), u64::from(*kills));
            }
            _ => unreachable!("only events of tasks come here"),
        }
    }

    /// What a task asks for, as far as it is not what every task gets.
    fn terms(&mut self, spec: &TaskSpec, quotas: &[(&str, u32)]) {
        let options = &*spec.options;
        if let Some(timeout) = options.timeout
            && timeout != timeout_default()
        {
            self.number(key!("timeout_us"), micros(timeout));
        }
        if let Some(heartbeat) = options.heartbeat {
            self.number(key!("heartbeat_us"), micros(heartbeat));
        }
        if options.priority != 0 {
            self.json(key!("priority"), &options.priority);
        }
        if !quotas.is_empty() {
            self.json(key!("quotas"), &Pairs(quotas));
        }
        if options.retry != RetryPolicy::default() {
            self.json(key!("retry"), &Retry::from(&options.retry));
        }
        if spec.expected != EXPECTED_DEFAULT {
            self.number(key!("expected_us"), micros(spec.expected));
        }
    }

    fn attempt_event(&mut self, event: &Event) {
        match event {
            Event::TaskAssigned { task, attempt, agent, incarnation, token }
            | Event::TaskReturned { task, attempt, agent, incarnation, token } => {
                let returned = matches!(event, Event::TaskReturned { .. });
                self.kind(if returned { kind::TASK_RETURNED } else { kind::TASK_ASSIGNED });
                self.of_task(*task);
                self.number(key!("attempt"), u64::from(*attempt));
                self.agent(*agent);
                self.number(key!("incarnation"), incarnation.0);
                self.number(key!("token"), token.0);
            }
            Event::TaskCompleted { task, attempt, agent, incarnation, token, version } => {
                self.kind(kind::TASK_COMPLETED);
                self.of_task(*task);
                self.number(key!("attempt"), u64::from(*attempt));
                self.agent(*agent);
                self.number(key!("incarnation"), incarnation.0);
                self.number(key!("token"), token.0);
                self.number(key!("version"), version.0);
            }
            Event::TaskFailed { task, attempt, agent, incarnation, cause, message, retry_at } => {
                self.kind(kind::TASK_FAILED);
                self.of_task(*task);
                self.number(key!("attempt"), u64::from(*attempt));
                self.agent(*agent);
                self.number(key!("incarnation"), incarnation.0);
                self.json(key!("cause"), cause);
                self.text(key!("message"), message);
                self.optional(key!("retry_at_us"), retry_at.map(|at| at.0));
            }
            Event::StaleResult { task, token, agent, incarnation } => {
                self.kind(kind::STALE_RESULT);
                self.of_task(*task);
                self.number(key!("token"), token.0);
                self.agent(*agent);
                self.number(key!("incarnation"), incarnation.0);
            }
            _ => unreachable!("only events of attempts come here"),
        }
    }

    fn failure(&mut self, event: &Event) {
        match event {
            Event::FaultInjected { fault, r#type, site, agent, task, attempt } => {
                self.kind(kind::FAULT_INJECTED);
                self.number(key!("fault"), *fault);
                self.text(key!("type"), r#type);
                self.text(key!("site"), site);
                self.optional_agent(*agent);
                if let Some(task) = task {
                    self.run(task.run);
                }
                self.optional_task(*task);
                self.optional(key!("attempt"), attempt.map(u64::from));
            }
            Event::IncidentOpened(incident) => self.incident(incident),
            Event::IncidentRecovered { incident, took_us, reassigned } => {
                self.kind(kind::INCIDENT_RECOVERED);
                self.number(key!("incident"), *incident);
                self.number(key!("took_us"), *took_us);
                self.optional_agent(reassigned.map(|(agent, _)| agent));
                self.optional(key!("attempt"), reassigned.map(|(_, attempt)| u64::from(attempt)));
            }
            Event::IncidentAcknowledged { incident, note } => {
                self.kind(kind::INCIDENT_ACKNOWLEDGED);
                self.number(key!("incident"), *incident);
                self.text(key!("note"), note);
            }
            _ => unreachable!("only failures come here"),
        }
    }

    fn incident(&mut self, incident: &Incident) {
        let report = &incident.report;
        let attempt = report.attempt.as_ref();
        self.kind(kind::INCIDENT_OPENED);
        self.number(key!("incident"), incident.number);
        self.json(key!("severity"), &report.severity);
        self.text(key!("type"), report.kind.name());
        self.optional_agent(report.agent.map(|(agent, _)| agent));
        self.optional_task(attempt.map(|attempt| attempt.task));
        self.optional(key!("attempt"), attempt.map(|attempt| u64::from(attempt.number)));
        if let Some(fault) = report.fault {
            self.number(key!("fault"), fault);
        }
        if let Some(attempt) = attempt {
            self.run(attempt.task.run);
        }
        self.json(key!("cause"), &report.cause);
        self.text(key!("message"), &report.message);
        self.json(key!("location"), &report.location);
        self.text(key!("action"), &report.action.to_string());
        self.text(key!("reason"), report.reason.name());
        self.json(key!("causes"), &report.causes);
        self.text(key!("fingerprint"), &format!("{:016x}", incident.fingerprint));
        if let Some((agent, incarnation)) = report.agent {
            let names = self.names;
            self.text(key!("role"), names.role(agent.role));
            self.number(key!("incarnation"), incarnation.0);
        }
        if let Some(attempt) = attempt {
            self.optional(key!("token"), attempt.token.map(|token| token.0));
            self.optional(key!("last_heartbeat_us"), attempt.last_heartbeat.map(|at| at.0));
            self.json(key!("discarded"), &attempt.discarded);
        }
        if let Some(backtrace) = &report.backtrace {
            self.text(key!("backtrace"), backtrace);
        }
    }

    fn shared(&mut self, event: &Event) {
        match event {
            Event::MemoryCommitted { version, task, writes, reads } => {
                self.kind(kind::MEMORY_COMMITTED);
                self.number(key!("version"), version.0);
                self.optional_task(*task);
                self.number(key!("writes"), u64::from(*writes));
                if let Some(task) = task {
                    self.run(task.run);
                }
                if let Some(reads) = reads {
                    let Reads { snapshot, keys, ranges, spans, written } = &**reads;
                    self.number(key!("snapshot"), snapshot.0);
                    self.json(key!("reads"), keys);
                    self.json(key!("ranges"), ranges);
                    self.json(key!("spans"), spans);
                    self.json(key!("keys"), written);
                }
            }
            Event::QuotaChanged { quota, in_use, limit } => {
                self.kind(kind::QUOTA_CHANGED);
                let names = self.names;
                self.text(key!("quota"), names.quota(*quota));
                self.number(key!("in_use"), u64::from(*in_use));
                self.number(key!("limit"), u64::from(*limit));
            }
            _ => unreachable!("only events of memory and quotas come here"),
        }
    }

    // What puts a constant in front of something is compiled into its callers: there a constant is a few
    // stores, and elsewhere it is a copy of any length.
    #[inline(always)]
    fn kind(&mut self, kind: &str) {
        self.text.push_str(concat!(key!("kind"), "\""));
        self.text.push_str(kind);
        self.text.push('"');
    }

    #[inline(always)]
    fn key(&mut self, key: &str) {
        self.text.push_str(key);
    }

    fn digits(&mut self, number: u64) {
        self.text.push_str(itoa::Buffer::new().format(number));
    }

    #[inline(always)]
    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.digits(number);
    }

    fn optional(&mut self, key: &str, number: Option<u64>) {
        match number {
            Some(number) => self.number(key, number),
            None => self.null(key),
        }
    }

    fn null(&mut self, key: &str) {
        self.key(key);
        self.text.push_str("null");
    }

    #[inline(always)]
    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        quote(self.text, text);
    }

    fn json(&mut self, key: &str, value: &impl Serialize) {
        self.key(key);
        let value = serde_json::to_string(value).expect("a field of an event has a JSON form");
        self.text.push_str(&value);
    }

    fn run(&mut self, run: RunId) {
        self.key(key!("run"));
        self.names.write_quoted_run(run, self.text);
    }

    /// Puts the run of a task in front of its other fields.
    fn of_task(&mut self, task: TaskId) {
        self.run(task.run);
        self.task(key!("task"), task);
    }

    #[inline(always)]
    fn task(&mut self, key: &str, task: TaskId) {
        self.key(key);
        self.task_name(task);
    }

    fn task_name(&mut self, task: TaskId) {
        let names = self.names;
        quoted(self.text, |text| names.write_task(task, text));
    }

    fn optional_task(&mut self, task: Option<TaskId>) {
        match task {
            Some(task) => self.task(key!("task"), task),
            None => self.null(key!("task")),
        }
    }

    fn agent(&mut self, agent: AgentId) {
        self.key(key!("agent"));
        let names = self.names;
        quoted(self.text, |text| {
            text.push_str(names.role(agent.role));
            text.push('-');
            text.push_str(itoa::Buffer::new().format(agent.index));
        });
    }

    fn optional_agent(&mut self, agent: Option<AgentId>) {
        match agent {
            Some(agent) => self.agent(agent),
            None => self.null(key!("agent")),
        }
    }
}

/// Appends what is written as a JSON string.
fn quoted(text: &mut String, write: impl FnOnce(&mut String)) {
    let start = text.len();
    text.push('"');
    write(text);
    if is_plain(&text.as_bytes()[start + 1..]) {
        text.push('"');
    } else {
        let name = text.split_off(start + 1);
        text.truncate(start);
        quote(text, &name);
    }
}

/// Returns whether a text is the same as a JSON string but for its quotes.
fn is_plain(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    // Eight bytes at a time, or twice four; the last ones overlap those before.
    match (text.last_chunk(), text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(last), ..) => text.as_chunks().0.iter().all(is_plain_chunk) && is_plain_chunk(last),
        (_, Some([a, b, c, d]), Some([e, f, g, h])) => {
            is_plain_chunk(&[*a, *b, *c, *d, *e, *f, *g, *h])
        }
        _ => text.iter().all(is_plain),
    }
}

/// Returns the same of eight bytes. A byte is below a bound when its subtraction borrows, and equal to
/// another when the difference of the two is below 1.
fn is_plain_chunk(chunk: &[u8; 8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = EACH << 7;
    let bytes = u64::from_ne_bytes(*chunk);
    let below = |bytes: u64, bound: u8| bytes.wrapping_sub(EACH * u64::from(bound)) & !bytes;
    let is = |byte: u8| below(bytes ^ (EACH * u64::from(byte)), 1);
    (below(bytes, b' ') | is(b'"') | is(b'\\')) & HIGH == 0
}

/// Appends a JSON string; most names need no escapes.
fn quote(line: &mut String, text: &str) {
    if is_plain(text.as_bytes()) {
        line.push('"');
        line.push_str(text);
        line.push('"');
    } else {
        line.push_str(&serde_json::to_string(text).expect("a text has a JSON form"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_of_a_text_is_quoted_as_json_has_it() {
        for length in 1..20 {
            for place in 0..length {
                for odd in (0..=u8::MAX).map(char::from) {
                    let mut text = "k".repeat(place);
                    text.push(odd);
                    text.extend(std::iter::repeat_n('~', length - place - 1));
                    let mut line = String::new();
                    quoted(&mut line, |line| line.push_str(&text));
                    assert_eq!(line, serde_json::to_string(&text).unwrap());
                }
            }
        }
    }
}
