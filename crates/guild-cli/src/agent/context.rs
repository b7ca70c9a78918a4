//! The variables that templates see.

use guild::TaskContext;
use minijinja::Value;
use serde_json::{Map, Value as Json};

use crate::agent::Shared;

/// Names and values for one rendering; values are shared, so a change is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Variables(Vec<(&'static str, Value)>);

impl Variables {
    /// Returns what every template of a run sees: `vars`, `run` and the outputs in the input.
    pub(crate) fn of_run(
        shared: &Shared,
        input: &Map<String, Json>,
        context: &TaskContext,
    ) -> Self {
        let mut variables =
            Self(vec![("vars", shared.vars.clone()), ("run", Value::from(context.run()))]);
        for name in ["tasks", "item", "index"] {
            if let Some(value) = input.get(name) {
                variables.set(name, Value::from_serialize(value));
            }
        }
        variables
    }

    /// Returns what the templates of an attempt see.
    pub(crate) fn of_attempt(
        shared: &Shared,
        input: &Map<String, Json>,
        context: &TaskContext,
        task: &str,
    ) -> Self {
        let mut variables = Self::of_run(shared, input, context);
        variables.set("task", Value::from(task));
        variables.set("attempt", Value::from(context.attempt()));
        variables
    }

    /// Adds or replaces a variable.
    pub(crate) fn set(&mut self, name: &'static str, value: Value) {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value));
    }

    /// Returns all of them as one value.
    pub(crate) fn to_value(&self) -> Value {
        self.0.iter().map(|(name, value)| (*name, value.clone())).collect()
    }
}
