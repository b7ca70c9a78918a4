//! The agents that perform the tasks of a flow.
//!
//! All roles have one agent type: what a task does is said by the flow, which every agent shares
//! in compiled form. Memory writes are rendered after the work and commit with its output.

mod context;
mod exec;
mod expand;
mod process;
mod result;

pub(crate) use process::spec as process_spec;

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use guild::process::{ProcessAgent, ProcessObserver, Program};
use guild::{Agent, Limits, TaskContext, TaskError};
use serde_json::{Map, Value};

use crate::agent::context::Variables;
use crate::flow::output::decode_path;
use crate::flow::template::{Template, TemplateError};
use crate::flow::{Arg, Flow, FlowTask, RESULT_TASK, Role, Work};

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
pub(crate) struct FlowAgent {
    pub(crate) shared: Shared,
    /// Only of kind `process`.
    pub(crate) process: Option<ProcessAgent>,
}

impl Agent for FlowAgent {
    type Input = Value;
    type Output = Value;

    async fn perform(
        &mut self,
        input: Value,
        context: &mut TaskContext,
    ) -> Result<Value, TaskError> {
        let name = context.task();
        // The names of a flow's own tasks have no slash.
        if name.contains('/') {
            return self.perform_spawned(&name, input, context).await;
        }
        let Value::Object(mut input) = input else {
            return Err(TaskError::fatal("the input of a task of a flow is an object"));
        };
        // Only there to make graphs of different flows different.
        input.remove("flow");
        let shared = &self.shared;
        let task = task_of(&shared.flow, &name)?;
        let mut variables = Variables::of_attempt(shared, &input, context, &name);
        let output = match &task.work {
            Work::Render(text) => {
                let text = text.render(&variables.to_value()).map_err(TaskError::fatal)?;
                task.parse.read(text.into_bytes()).map_err(|why| wrong_output(task, &why))?
            }
            Work::Exec { command, stdin } => {
                let spec = exec::Spec { shared, task, command, stdin: stdin.as_ref() };
                spec.run(input, &variables, context).await?
            }
            Work::Process { input: template } => {
                let input = match template {
                    Some(template) => process::input(template, &variables.to_value())?,
                    None => Value::Object(input),
                };
                let process = self.process.as_mut();
                let process = process.ok_or_else(|| TaskError::fatal("the role has no process"))?;
                process::perform(process, input, context).await?
            }
        };
        variables.set("output", minijinja::Value::from_serialize(&output));
        write_memory(task, &variables.to_value(), context)?;
        Ok(output)
    }

    async fn end(&mut self) -> Result<(), TaskError> {
        match &mut self.process {
            Some(process) => process.end().await,
            None => Ok(()),
        }
    }
}

impl FlowAgent {
    /// Performs a task that another process agent has spawned: the flow knows nothing of it.
    async fn perform_spawned(
        &mut self,
        name: &str,
        input: Value,
        context: &mut TaskContext,
    ) -> Result<Value, TaskError> {
        let Some(process) = &mut self.process else {
            return Err(TaskError::fatal(format_args!(
                "the task `{name}` was spawned for a role whose tasks are described by the flow; \
                 spawn tasks for roles of kind \"process\""
            )));
        };
        process::perform(process, input, context).await
    }
}

/// Returns the task of the flow behind a task of the run: `count` for `count[3]`.
fn task_of<'a>(flow: &'a Flow, name: &str) -> Result<&'a FlowTask, TaskError> {
    let base = name.split('[').next().unwrap_or(name);
    let at = flow.task(base);
    at.map(|at| &flow.tasks[at]).ok_or_else(|| {
        TaskError::fatal(format_args!("the flow {} has no task `{base}`", flow.file.display()))
    })
}

/// Renders what is started for an agent of a role: for one task, or for all of them.
fn program(
    command: &[Arg],
    role: &Role,
    task: Option<&FlowTask>,
    values: &minijinja::Value,
) -> Result<Program, TemplateError> {
    let word = |Arg { template, is_path }: &Arg| {
        let text = template.render(values)?;
        Ok(if *is_path { decode_path(&text) } else { OsString::from(text) })
    };
    let mut words = command.iter().map(word);
    let mut program = Program::new(words.next().transpose()?.unwrap_or_default());
    program.args = words.collect::<Result<_, TemplateError>>()?;
    for (name, value) in role.env.iter().chain(task.into_iter().flat_map(|task| &task.env)) {
        program.env.push((name.into(), value.render(values)?.into()));
    }
    let cwd = task.and_then(|task| task.cwd.as_ref()).or(role.cwd.as_ref());
    program.cwd = cwd.map(|cwd| cwd.render(values)).transpose()?.map(Into::into);
    program.resources = role.resources.clone();
    Ok(program)
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
