//! Composes the input of a task from values and the outputs of earlier tasks.

use super::Expr;
use crate::id::TaskIndex;
use crate::payload::Payload;

/// An input that cannot be composed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// A task that the input refers to has no output.
    #[error("the input needs the output of task number {0}, which has none")]
    Missing(u32),
}

impl<R> Expr<R> {
    /// Replaces each reference.
    pub(crate) fn resolve<S, E>(
        self,
        find: &mut impl FnMut(&R) -> Result<S, E>,
    ) -> Result<Expr<S>, E> {
        Ok(match self {
            Self::Value(value) => Expr::Value(value),
            Self::Output(task) => Expr::Output(find(&task)?),
            Self::Spawned(task) => Expr::Spawned(find(&task)?),
            Self::List(parts) => {
                let mut resolved = Vec::with_capacity(parts.len());
                for part in parts {
                    resolved.push(part.resolve(find)?);
                }
                Expr::List(resolved)
            }
            Self::Object(parts) => {
                let mut resolved = Vec::with_capacity(parts.len());
                for (name, part) in parts {
                    resolved.push((name, part.resolve(find)?));
                }
                Expr::Object(resolved)
            }
        })
    }
}

impl Expr<TaskIndex> {
    /// Composes the input. `output` gives the output of a completed task, `spawned` the tasks that
    /// a task spawned, in order.
    ///
    /// # Errors
    /// A task has no output; a task whose dependencies completed never meets this.
    pub fn compose(
        &self,
        output: &dyn Fn(TaskIndex) -> Option<Payload>,
        spawned: &dyn Fn(TaskIndex) -> Vec<TaskIndex>,
    ) -> Result<Payload, ComposeError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Output(task) => output(*task).ok_or(ComposeError::Missing(task.0)),
            Self::Spawned(_) | Self::List(_) | Self::Object(_) => {
                let mut text = String::new();
                self.write(&mut text, output, spawned)?;
                Ok(Payload::from_json(text))
            }
        }
    }

    fn write(
        &self,
        text: &mut String,
        output: &dyn Fn(TaskIndex) -> Option<Payload>,
        spawned: &dyn Fn(TaskIndex) -> Vec<TaskIndex>,
    ) -> Result<(), ComposeError> {
        match self {
            Self::Value(value) => text.push_str(value.as_str()),
            Self::Output(task) => {
                let value = output(*task).ok_or(ComposeError::Missing(task.0))?;
                text.push_str(value.as_str());
            }
            Self::Spawned(task) => {
                text.push('[');
                for (place, child) in spawned(*task).into_iter().enumerate() {
                    if place > 0 {
                        text.push(',');
                    }
                    let value = output(child).ok_or(ComposeError::Missing(child.0))?;
                    text.push_str(value.as_str());
                }
                text.push(']');
            }
            Self::List(parts) => {
                text.push('[');
                for (place, part) in parts.iter().enumerate() {
                    if place > 0 {
                        text.push(',');
                    }
                    part.write(text, output, spawned)?;
                }
                text.push(']');
            }
            Self::Object(parts) => {
                text.push('{');
                for (place, (name, part)) in parts.iter().enumerate() {
                    if place > 0 {
                        text.push(',');
                    }
                    text.push_str(&serde_json::Value::from(name.as_str()).to_string());
                    text.push(':');
                    part.write(text, output, spawned)?;
                }
                text.push('}');
            }
        }
        Ok(())
    }
}
