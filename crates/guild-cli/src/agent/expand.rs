//! Expands a task with `for_each`: spawns one task per item of its list.
//!
//! The tasks are committed together with the expansion, so a list is expanded exactly once.

use guild::{Expr, Payload, TaskContext, TaskError, TaskRef};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::agent::Shared;
use crate::agent::context::Variables;
use crate::flow::{FlowTask, items};
use crate::graph::prepare;

/// Bytes of other tasks' outputs that the tasks of one map may carry in all.
const SHARED_BYTES_MAX: usize = 1 << 30;

#[derive(Serialize)]
struct ItemInput<'a> {
    index: u32,
    item: &'a minijinja::Value,
}

/// Spawns the tasks; returns how many there are.
pub(crate) fn expand(
    shared: &Shared,
    task: &FlowTask,
    input: &Map<String, Value>,
    variables: &Variables,
    context: &mut TaskContext,
) -> Result<Value, TaskError> {
    let Some(list) = &task.for_each else {
        return Err(TaskError::fatal(format_args!("tasks.{} has no `for_each`", task.name)));
    };
    let list_value = list.evaluate(&variables.to_value()).map_err(TaskError::fatal)?;
    let items = items(&list_value, shared.limits.tasks_per_run_max)
        .map_err(|message| TaskError::fatal(list.error(message)))?;
    drop(list_value);
    let outputs = shared_outputs(shared, task, input)?;
    if outputs.as_ref().map_or(0, Payload::size_bytes).saturating_mul(items.len())
        > SHARED_BYTES_MAX
    {
        return Err(TaskError::fatal(format_args!(
            "tasks.{}: each of {} tasks would carry the outputs of other tasks that its templates \
             name, more than {SHARED_BYTES_MAX} bytes in all; put what they share in files",
            task.name,
            items.len()
        )));
    }
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
    for (index, item) in (0..count).zip(items) {
        let input = item_input(index, &item, outputs.as_ref()).map_err(TaskError::fatal)?;
        let child = guild::Task::numbered(index, shared.flow.roles[task.role].name.as_str());
        context.spawn(prepare(&shared.flow, task, child).input_expr(input));
    }
    Ok(Value::from(count))
}

/// Returns the outputs that every task of the map refers to; none when there are none.
fn shared_outputs(
    shared: &Shared,
    task: &FlowTask,
    input: &Map<String, Value>,
) -> Result<Option<Payload>, TaskError> {
    if task.inputs.is_empty() {
        return Ok(None);
    }
    let named = |at: &usize| shared.flow.tasks[*at].name.as_str();
    let outputs = input.get("tasks").and_then(Value::as_object);
    let picked: Map<String, Value> = outputs
        .into_iter()
        .flatten()
        .filter(|(name, _)| task.inputs.iter().any(|at| named(at) == name.as_str()))
        .map(|(name, output)| (name.clone(), output.clone()))
        .collect();
    Payload::encode(&picked).map(Some).map_err(TaskError::fatal)
}

fn item_input(
    index: u32,
    item: &minijinja::Value,
    outputs: Option<&Payload>,
) -> Result<Expr<TaskRef>, serde_json::Error> {
    let Some(outputs) = outputs else {
        return Ok(Expr::Value(Payload::encode(&ItemInput { index, item })?));
    };
    Ok(Expr::Object(vec![
        ("index".to_owned(), Expr::Value(Payload::encode(&index)?)),
        ("item".to_owned(), Expr::Value(Payload::encode(item)?)),
        ("tasks".to_owned(), Expr::Value(outputs.clone())),
    ]))
}
