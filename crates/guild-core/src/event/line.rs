//! Writes events as outsiders read them: one JSON object per line, with names instead of numbers.

use serde_json::{Value, json};

use super::{Event, EventRecord};
use crate::id::{AgentId, QuotaId, RoleId, RunId, TaskId};

/// Knows the names of things.
pub trait Names {
    /// Returns the name of a run.
    fn run(&self, run: RunId) -> String;
    /// Returns the full name of a task within its run.
    fn task(&self, task: TaskId) -> String;
    /// Returns the name of a role.
    fn role(&self, role: RoleId) -> String;
    /// Returns the name of a quota.
    fn quota(&self, quota: QuotaId) -> String;
    /// Returns the name of an agent: its role and its number.
    fn agent(&self, agent: AgentId) -> String {
        format!("{}-{}", self.role(agent.role), agent.index)
    }
}

/// Writes one record as one line of the event log, without the line break.
pub fn line(record: &EventRecord, names: &dyn Names) -> String {
    let (kind, fields) = fields(&record.event, names);
    let mut text =
        format!("{{\"seq\":{},\"at_us\":{},\"kind\":\"{kind}\"", record.seq, record.at.0);
    for (name, value) in fields {
        text.push_str(&format!(",\"{name}\":{value}"));
    }
    text.push('}');
    text
}

type Fields = Vec<(&'static str, Value)>;

/// Puts the run of a task in front of its other fields.
fn of_task(task: TaskId, names: &dyn Names, more: Fields) -> Fields {
    let mut fields = vec![("run", json!(names.run(task.run))), ("task", json!(names.task(task)))];
    fields.extend(more);
    fields
}

fn fields(event: &Event, names: &dyn Names) -> (&'static str, Fields) {
    match event {
        Event::RunSubmitted { .. } | Event::RunCancelled { .. } | Event::RunEnded { .. } => {
            run_fields(event, names)
        }
        Event::AgentStarted { .. }
        | Event::AgentCrashed { .. }
        | Event::AgentRestarted { .. }
        | Event::AgentQuarantined { .. }
        | Event::AgentReleased { .. } => agent_fields(event, names),
        Event::TaskAdded { .. } | Event::TaskReady { .. } | Event::TaskEnded { .. } => {
            task_fields(event, names)
        }
        Event::TaskAssigned { .. }
        | Event::TaskCompleted { .. }
        | Event::TaskFailed { .. }
        | Event::StaleResult { .. } => attempt_fields(event, names),
        Event::IncidentOpened { .. } => incident_fields(event, names),
        Event::FaultInjected { .. }
        | Event::MemoryCommitted { .. }
        | Event::QuotaChanged { .. } => other_fields(event, names),
    }
}

fn run_fields(event: &Event, names: &dyn Names) -> (&'static str, Fields) {
    match event {
        Event::RunSubmitted { run, tasks, edges, seed } => (
            "run_submitted",
            vec![
                ("run", json!(names.run(*run))),
                ("tasks", json!(tasks)),
                ("edges", json!(edges)),
                ("seed", json!(seed)),
            ],
        ),
        Event::RunEnded { run, outcome, tally, makespan_us } => (
            "run_ended",
            vec![
                ("run", json!(names.run(*run))),
                ("outcome", json!(outcome)),
                ("completed", json!(tally.completed)),
                ("failed", json!(tally.failed)),
                ("skipped", json!(tally.skipped)),
                ("cancelled", json!(tally.cancelled)),
                ("makespan_us", json!(makespan_us)),
            ],
        ),
        Event::RunCancelled { run } => ("run_cancelled", vec![("run", json!(names.run(*run)))]),
        _ => unreachable!("only events of runs come here"),
    }
}

fn agent_fields(event: &Event, names: &dyn Names) -> (&'static str, Fields) {
    match event {
        Event::AgentStarted { agent, role, incarnation } => (
            "agent_started",
            vec![
                ("agent", json!(names.agent(*agent))),
                ("role", json!(names.role(*role))),
                ("incarnation", json!(incarnation)),
            ],
        ),
        Event::AgentCrashed { agent, incarnation, cause, message, task } => {
            let mut fields = vec![
                ("agent", json!(names.agent(*agent))),
                ("incarnation", json!(incarnation)),
                ("cause", json!(cause)),
                ("message", json!(message)),
            ];
            if let Some(task) = task {
                fields.push(("task", json!(names.task(*task))));
                fields.push(("run", json!(names.run(task.run))));
            }
            ("agent_crashed", fields)
        }
        Event::AgentRestarted { agent, incarnation, delay_us } => (
            "agent_restarted",
            vec![
                ("agent", json!(names.agent(*agent))),
                ("incarnation", json!(incarnation)),
                ("delay_us", json!(delay_us)),
            ],
        ),
        Event::AgentQuarantined { agent, reason, until } => (
            "agent_quarantined",
            vec![
                ("agent", json!(names.agent(*agent))),
                ("reason", json!(reason)),
                ("until_us", json!(until)),
            ],
        ),
        Event::AgentReleased { agent, reason } => (
            "agent_released",
            vec![
                ("agent", json!(names.agent(*agent))),
                ("reason", json!(reason)),
                ("until_us", Value::Null),
            ],
        ),
        _ => unreachable!("only events of agents come here"),
    }
}

fn task_fields(event: &Event, names: &dyn Names) -> (&'static str, Fields) {
    match event {
        Event::TaskAdded { task, role, after, spawned_by } => {
            let after: Vec<String> = after.iter().map(|task| names.task(*task)).collect();
            let mut more = vec![("role", json!(names.role(*role))), ("after", json!(after))];
            if let Some(parent) = spawned_by {
                more.push(("spawned_by", json!(names.task(*parent))));
            }
            ("task_added", of_task(*task, names, more))
        }
        Event::TaskReady { task } => ("task_ready", of_task(*task, names, Vec::new())),
        Event::TaskEnded { task, state } => {
            ("task_ended", of_task(*task, names, vec![("state", json!(state))]))
        }
        _ => unreachable!("only events of tasks come here"),
    }
}

fn attempt_fields(event: &Event, names: &dyn Names) -> (&'static str, Fields) {
    match event {
        Event::TaskAssigned { task, attempt, agent, incarnation, token } => {
            let more = vec![
                ("attempt", json!(attempt)),
                ("agent", json!(names.agent(*agent))),
                ("incarnation", json!(incarnation)),
                ("token", json!(token)),
            ];
            ("task_assigned", of_task(*task, names, more))
        }
        Event::TaskCompleted { task, attempt, agent, incarnation, token, version } => {
            let more = vec![
                ("attempt", json!(attempt)),
                ("agent", json!(names.agent(*agent))),
                ("incarnation", json!(incarnation)),
                ("token", json!(token)),
                ("version", json!(version)),
            ];
            ("task_completed", of_task(*task, names, more))
        }
        Event::TaskFailed { task, attempt, agent, incarnation, cause, message, retry_at } => {
            let more = vec![
                ("attempt", json!(attempt)),
                ("agent", json!(names.agent(*agent))),
                ("incarnation", json!(incarnation)),
                ("cause", json!(cause)),
                ("message", json!(message)),
                ("retry_at_us", json!(retry_at)),
            ];
            ("task_failed", of_task(*task, names, more))
        }
        Event::StaleResult { task, token, agent, incarnation } => {
            let more = vec![
                ("token", json!(token)),
                ("agent", json!(names.agent(*agent))),
                ("incarnation", json!(incarnation)),
            ];
            ("stale_result", of_task(*task, names, more))
        }
        _ => unreachable!("only events of attempts come here"),
    }
}

fn incident_fields(event: &Event, names: &dyn Names) -> (&'static str, Fields) {
    match event {
        Event::IncidentOpened {
            incident,
            severity,
            r#type,
            agent,
            task,
            attempt,
            fault,
            cause,
            message,
            location,
            action,
        } => {
            let mut fields = vec![
                ("incident", json!(incident)),
                ("severity", json!(severity)),
                ("type", json!(r#type)),
                ("agent", json!(agent.map(|agent| names.agent(agent)))),
                ("task", json!(task.map(|task| names.task(task)))),
                ("attempt", json!(attempt)),
            ];
            if let Some(fault) = fault {
                fields.push(("fault", json!(fault)));
            }
            if let Some(task) = task {
                fields.push(("run", json!(names.run(task.run))));
            }
            fields.push(("cause", json!(cause)));
            fields.push(("message", json!(message)));
            fields.push(("location", json!(location)));
            fields.push(("action", json!(action)));
            ("incident_opened", fields)
        }
        _ => unreachable!("only incidents come here"),
    }
}

fn other_fields(event: &Event, names: &dyn Names) -> (&'static str, Fields) {
    match event {
        Event::FaultInjected { fault, r#type, agent, task, attempt } => (
            "fault_injected",
            vec![
                ("fault", json!(fault)),
                ("type", json!(r#type)),
                ("agent", json!(names.agent(*agent))),
                ("run", json!(names.run(task.run))),
                ("task", json!(names.task(*task))),
                ("attempt", json!(attempt)),
            ],
        ),
        Event::MemoryCommitted { version, task, writes } => {
            let mut fields = vec![
                ("version", json!(version)),
                ("task", json!(task.map(|task| names.task(task)))),
                ("writes", json!(writes)),
            ];
            if let Some(task) = task {
                fields.push(("run", json!(names.run(task.run))));
            }
            ("memory_committed", fields)
        }
        Event::QuotaChanged { quota, in_use, limit } => (
            "quota_changed",
            vec![
                ("quota", json!(names.quota(*quota))),
                ("in_use", json!(in_use)),
                ("limit", json!(limit)),
            ],
        ),
        _ => unreachable!("every other event has a place above"),
    }
}
