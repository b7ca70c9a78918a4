//! Runs the process of an attempt: renders its command line, and judges how it ended.

use bytes::Bytes;
use guild::process::{ExecError, ExecSpec, run};
use guild::{TaskContext, TaskError};
use serde_json::{Map, Value};

use crate::agent::context::Variables;
use crate::agent::{Shared, program, wrong_output};
use crate::flow::template::{Template, TemplateError};
use crate::flow::{Arg, FlowTask};
use crate::reaper::MARK;

/// What an attempt of a task of kind `exec` needs.
pub(crate) struct Spec<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) task: &'a FlowTask,
    pub(crate) command: &'a [Arg],
    pub(crate) stdin: Option<&'a Template>,
}

impl Spec<'_> {
    /// Runs the process and reads its output.
    pub(crate) async fn run(
        &self,
        input: Map<String, Value>,
        variables: &Variables,
        context: &mut TaskContext,
    ) -> Result<Value, TaskError> {
        let values = variables.to_value();
        let mut spec = self.render(&values).map_err(TaskError::fatal)?;
        spec.stdin = match self.stdin {
            Some(template) => template.render(&values).map_err(TaskError::fatal)?.into(),
            None => Bytes::from(Value::Object(input).to_string()),
        };
        drop(values);
        let identity = [
            ("GUILD_RUN", context.run()),
            ("GUILD_TASK", context.task()),
            ("GUILD_ATTEMPT", context.attempt().to_string()),
            ("GUILD_IDEMPOTENCY_KEY", context.idempotency_key().to_owned()),
        ];
        spec.program.env.extend(identity.map(|(name, value)| (name.into(), value.into())));
        spec.program.env.extend(self.shared.mark.as_ref().map(|mark| (MARK.into(), mark.into())));
        match run(&spec, &*self.shared.observer).await {
            Ok(output) => {
                self.task.parse.read(output.stdout).map_err(|why| wrong_output(self.task, &why))
            }
            Err(error) => {
                let failed = match &error {
                    ExecError::Signal { .. } => TaskError::crashed(&error),
                    error if error.is_retryable() => TaskError::retryable(error),
                    error => TaskError::fatal(error),
                };
                Err(failed.with_reason(error.reason()))
            }
        }
    }

    fn render(&self, values: &minijinja::Value) -> Result<ExecSpec, TemplateError> {
        let role = &self.shared.flow.roles[self.task.role];
        Ok(ExecSpec {
            program: program(self.command, role, Some(self.task), values)?,
            stdin: Bytes::new(),
            stdout_bytes_max: role.stdout_max,
            stderr_bytes_max: role.stderr_max,
        })
    }
}
