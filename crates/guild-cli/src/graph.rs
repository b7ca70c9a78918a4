//! Makes the graph of tasks of a flow.

use std::time::Duration;

use guild::{Expr, Graph, GraphBuilder, GraphError, Payload, RetryPolicy, Task, TaskRef};

use crate::flow::{FLOW_ROLE, Flow, FlowTask, RESULT_TASK};

/// Attempts at least for what a flow does for itself.
const INNER_ATTEMPTS_MIN: u32 = 5;

/// Adds the tasks of a flow to a builder and builds the graph.
pub(crate) fn build(flow: &Flow, mut builder: GraphBuilder) -> Result<Graph, GraphError> {
    for task in &flow.tasks {
        let role = match task.for_each {
            Some(_) => FLOW_ROLE,
            None => flow.roles[task.role].name.as_str(),
        };
        let inputs = task.inputs.union(&task.list_inputs).copied();
        let mut added = Task::new(&task.name, role).input_expr(input(flow, inputs));
        for after in &task.after {
            added = added.after(flow.tasks[*after].name.as_str());
        }
        added = match task.for_each {
            Some(_) => added.retry(inner_retry(flow)).priority(task.priority),
            None => prepare(flow, task, added),
        };
        builder.add(added);
    }
    if !flow.result.is_empty() {
        let inputs = input(flow, flow.result_inputs.iter().copied());
        let mut result = Task::new(RESULT_TASK, FLOW_ROLE).input_expr(inputs);
        for task in &flow.tasks {
            result = result.after(task.name.as_str());
        }
        builder.add(result.retry(inner_retry(flow)));
    }
    builder.build()
}

/// Gives a task what its description says about retries, time, priority and quotas.
pub(crate) fn prepare(flow: &Flow, task: &FlowTask, mut prepared: Task) -> Task {
    prepared = prepared.retry(task.retry.clone()).priority(task.priority);
    if let Some(timeout) = task.timeout {
        prepared = prepared.timeout(timeout);
    }
    if let Some(heartbeat) = task.heartbeat {
        prepared = prepared.heartbeat(heartbeat);
    }
    for (quota, amount) in &task.quotas {
        prepared = prepared.quota(flow.quotas[*quota].name.as_str(), *amount);
    }
    prepared
}

/// Returns when what a flow does for itself is tried again.
pub(crate) fn inner_retry(flow: &Flow) -> RetryPolicy {
    let attempts = flow.tasks.iter().map(|task| task.retry.attempts_max);
    let attempts_max = attempts.max().unwrap_or(0).max(INNER_ATTEMPTS_MIN);
    RetryPolicy { attempts_max, backoff_first: Duration::from_millis(1), ..RetryPolicy::default() }
}

/// Composes `{"flow": fingerprint, "tasks": {NAME: {"output": ...} or {"outputs": [...]}}}`.
///
/// With the fingerprint, a run of another flow under the same name is another graph, which the
/// memory refuses to resume.
fn input(flow: &Flow, tasks: impl Iterator<Item = usize>) -> Expr<TaskRef> {
    let output = |at: usize| {
        let task = &flow.tasks[at];
        let of = TaskRef::from(task.name.as_str());
        let (field, output) = match task.for_each {
            Some(_) => ("outputs", Expr::Spawned(of)),
            None => ("output", Expr::Output(of)),
        };
        (task.name.clone(), Expr::Object(vec![(field.to_owned(), output)]))
    };
    let fingerprint = Payload::from_json(format!("\"{:016x}\"", flow.digest));
    let mut fields = vec![("flow".to_owned(), Expr::Value(fingerprint))];
    let tasks: Vec<_> = tasks.map(output).collect();
    if !tasks.is_empty() {
        fields.push(("tasks".to_owned(), Expr::Object(tasks)));
    }
    Expr::Object(fields)
}
