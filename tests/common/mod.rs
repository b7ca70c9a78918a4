//! What the tests share: small agents, and the event log as data.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use guild::{Agent, Guild, TaskContext, TaskError};
use serde_json::Value;

/// Answers with its input.
pub(crate) struct Echo;

impl Agent for Echo {
    type Input = Value;
    type Output = Value;

    async fn perform(&mut self, input: Value, _: &mut TaskContext) -> Result<Value, TaskError> {
        Ok(input)
    }
}

/// Does what a closure says.
pub(crate) struct Acts<F>(pub(crate) F);

impl<F> Agent for Acts<F>
where
    F: AsyncFnMut(Value, &mut TaskContext) -> Result<Value, TaskError> + 'static,
{
    type Input = Value;
    type Output = Value;

    async fn perform(&mut self, input: Value, task: &mut TaskContext) -> Result<Value, TaskError> {
        (self.0)(input, task).await
    }
}

/// Returns the events so far as the lines that outsiders read.
pub(crate) fn events(guild: &Guild) -> Vec<Value> {
    let records = guild.events(1).available().unwrap();
    records.iter().map(|record| serde_json::from_str(&guild.event_line(record)).unwrap()).collect()
}

/// Counts the events of a kind.
pub(crate) fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["kind"] == kind).count()
}
