//! Runs the process of an attempt: renders its command line, and judges how it ended.

use bytes::Bytes;
use guild::process::{ExecError, ExecSpec, run};
use guild::{TaskContext, TaskError};
use serde_json::{Map, Value};

use crate::agent::context::Variables;
use crate::agent::{Shared, command_words, wrong_output};
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
        spec.env.extend(identity.map(|(name, value)| (name.into(), value.into())));
        spec.env.extend(self.shared.mark.as_ref().map(|mark| (MARK.into(), mark.into())));
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
        let words = command_words(self.command, values)?;
        let mut words = words.into_iter();
        let mut spec = ExecSpec::new(words.next().unwrap_or_default());
        spec.args = words.collect();
        let role = &self.shared.flow.roles[self.task.role];
        for (name, value) in role.env.iter().chain(&self.task.env) {
            spec.env.push((name.into(), value.render(values)?.into()));
        }
        let cwd = self.task.cwd.as_ref().or(role.cwd.as_ref());
        spec.cwd = cwd.map(|cwd| cwd.render(values)).transpose()?.map(Into::into);
        spec.stdout_bytes_max = role.stdout_max;
        spec.stderr_bytes_max = role.stderr_max;
        spec.resources = role.resources.clone();
        Ok(spec)
    }
}
