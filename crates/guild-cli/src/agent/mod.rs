//! The agents that perform the tasks of a flow.
//!
//! All roles have one agent type: what a task does is said by the flow, which every agent shares
//! in compiled form. Memory writes are rendered after the work and commit with its output.

mod context;
mod exec;
mod expand;
mod result;

use std::fmt;
use std::sync::Arc;

use guild::process::ProcessObserver;
use guild::{Agent, Limits, TaskContext, TaskError};
use serde_json::{Map, Value};

use crate::agent::context::Variables;
use crate::flow::template::{Template, TemplateError};
use crate::flow::{Flow, FlowTask, RESULT_TASK, Work};

/// What all agents of a flow share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) flow: Arc<Flow>,
    pub(crate) limits: Limits,
    /// Learns of every process group.
    pub(crate) observer: Arc<dyn ProcessObserver>,
    /// What marks every process of this guild in its environment.
    pub(crate) mark: Option<String>,
    vars: minijinja::Value,
}

impl Shared {
    pub(crate) fn new(
        flow: Arc<Flow>,
        limits: Limits,
        observer: Arc<dyn ProcessObserver>,
        mark: Option<String>,
    ) -> Self {
        let vars = minijinja::Value::from_serialize(&flow.vars);
        Self { flow, limits, observer, mark, vars }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("flow", &self.flow.name).finish_non_exhaustive()
    }
}

/// Performs the tasks of a role of the flow.
#[derive(Debug)]
pub(crate) struct FlowAgent(pub(crate) Shared);

impl Agent for FlowAgent {
    type Input = Map<String, Value>;
    type Output = Value;

    async fn perform(
        &mut self,
        mut input: Map<String, Value>,
        context: &mut TaskContext,
    ) -> Result<Value, TaskError> {
        // Only there to make graphs of different flows different.
        input.remove("flow");
        let name = context.task();
        let task = self.task_of(&name)?;
        let mut variables = Variables::of_attempt(&self.0, &input, context, &name);
        let output = match &task.work {
            Work::Render(text) => {
                let text = text.render(&variables.to_value()).map_err(TaskError::fatal)?;
                task.parse.read(text.into_bytes()).map_err(|why| wrong_output(task, &why))?
            }
            Work::Exec { command, stdin } => {
                let spec = exec::Spec { shared: &self.0, task, command, stdin: stdin.as_ref() };
                spec.run(input, &variables, context).await?
            }
        };
        variables.set("output", minijinja::Value::from_serialize(&output));
        write_memory(task, &variables.to_value(), context)?;
        Ok(output)
    }
}

impl FlowAgent {
    /// Returns the task of the flow behind a task of the run: `count` for `count[3]`.
    fn task_of(&self, name: &str) -> Result<&FlowTask, TaskError> {
        task_of(&self.0.flow, name)
    }
}

fn task_of<'a>(flow: &'a Flow, name: &str) -> Result<&'a FlowTask, TaskError> {
    let base = name.split('[').next().unwrap_or(name);
    let at = flow.task(base);
    at.map(|at| &flow.tasks[at]).ok_or_else(|| {
        TaskError::fatal(format_args!("the flow {} has no task `{base}`", flow.file.display()))
    })
}

fn wrong_output(task: &FlowTask, why: &str) -> TaskError {
    TaskError::fatal(format_args!("tasks.{}.parse: {why}", task.name))
}

fn write_memory(
    task: &FlowTask,
    variables: &minijinja::Value,
    context: &mut TaskContext,
) -> Result<(), TaskError> {
    for (key, value) in &task.put {
        let key = key.render(variables).map_err(TaskError::fatal)?;
        let value = value.evaluate(variables).map_err(TaskError::fatal)?;
        context.memory().put(&key, &value).map_err(TaskError::fatal)?;
    }
    for (key, value) in &task.add {
        let key = key.render(variables).map_err(TaskError::fatal)?;
        let amount = integer(value, variables).map_err(TaskError::fatal)?;
        context.memory().add(&key, amount).map_err(TaskError::fatal)?;
    }
    Ok(())
}

fn integer(template: &Template, variables: &minijinja::Value) -> Result<i64, TemplateError> {
    let value = template.evaluate(variables)?;
    let number = value.is_number().then(|| i64::try_from(value.clone()).ok()).flatten();
    number.ok_or_else(|| {
        let kind = value.kind();
        template.error(format!(
            "`add` needs a whole number, but this is the {kind} {value:?}; text becomes one by \
             `| int`"
        ))
    })
}

/// Performs what a flow does for itself: expands `for_each` and makes the declared result.
#[derive(Debug)]
pub(crate) struct InnerAgent(pub(crate) Shared);

impl Agent for InnerAgent {
    type Input = Map<String, Value>;
    type Output = Value;

    async fn perform(
        &mut self,
        input: Map<String, Value>,
        context: &mut TaskContext,
    ) -> Result<Value, TaskError> {
        let name = context.task();
        let mut variables = Variables::of_run(&self.0, &input, context);
        if name == RESULT_TASK && !self.0.flow.result.is_empty() {
            return result::declare(&self.0.flow, &mut variables, context);
        }
        let task = task_of(&self.0.flow, &name)?;
        variables.set("task", minijinja::Value::from(name));
        expand::expand(&self.0, task, &input, &variables, context)
    }
}
