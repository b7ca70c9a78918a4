//! Gives tasks to the process that an agent of kind `process` keeps.

use std::sync::Arc;

use guild::process::{ProcessAgent, ProcessSpec};
use guild::{Agent, TaskContext, TaskError};
use minijinja::context;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::agent::{Shared, program};
use crate::flow::template::TemplateError;
use crate::flow::{Input, Role};
use crate::reaper::MARK;

/// Returns what the agents of a role start; none for a role of another kind.
///
/// # Errors
/// A template of the role cannot be rendered.
pub(crate) fn spec(
    shared: &Shared,
    role: &Role,
) -> Result<Option<Arc<ProcessSpec>>, TemplateError> {
    let Some(process) = &role.process else {
        return Ok(None);
    };
    let values = context! { vars => shared.vars };
    let mut program = program(&process.command, role, None, &values)?;
    program.env.extend(shared.mark.as_ref().map(|mark| (MARK.into(), mark.into())));
    let (handshake, grace) = (process.handshake, process.grace);
    let line_bytes_max = process.line_max;
    Ok(Some(Arc::new(ProcessSpec { program, handshake, grace, line_bytes_max })))
}

/// Renders what the process gets for a task.
pub(crate) fn input(input: &Input, values: &minijinja::Value) -> Result<Value, TaskError> {
    let evaluate = |template: &crate::flow::template::Template| {
        let value = template.evaluate(values).map_err(TaskError::fatal)?;
        serde_json::to_value(value).map_err(TaskError::fatal)
    };
    match input {
        Input::Value(template) => evaluate(template),
        Input::Object(fields) => {
            let field = |(name, template): &(String, _)| Ok((name.clone(), evaluate(template)?));
            let fields: Result<Map<String, Value>, TaskError> = fields.iter().map(field).collect();
            Ok(Value::Object(fields?))
        }
    }
}

/// Has the process perform a task.
pub(crate) async fn perform(
    process: &mut ProcessAgent,
    input: Value,
    context: &mut TaskContext,
) -> Result<Value, TaskError> {
    let input = RawValue::from_string(input.to_string()).map_err(TaskError::fatal)?;
    let output = process.perform(input, context).await?;
    serde_json::from_str(output.get()).map_err(TaskError::fatal)
}
