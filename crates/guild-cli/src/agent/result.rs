//! Makes the declared result of a flow from task outputs and memory.
//!
//! It is a task of its own, so that the result is computed from one snapshot and recorded with the
//! run: a resumed or repeated command shows what was recorded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use guild::{TaskContext, TaskError};
use minijinja::Value;
use minijinja::value::Object;
use serde_json::Value as Json;

use crate::agent::context::Variables;
use crate::flow::Flow;

/// Keys that one `scan` returns at most.
const SCAN_MAX: usize = 100_000;

/// Evaluations of all templates until no new key is asked for. A template asks for a key that it
/// computes from another key one evaluation later.
const ROUNDS_MAX: usize = 32;

/// What a template asked the memory for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Key(String),
    Prefix(String),
}

/// The part of the memory that was asked for so far.
///
/// A template can only see values that are there already, and the memory is read between two
/// evaluations: the transaction belongs to the attempt and cannot be lent to a template.
#[derive(Debug, Default)]
struct Asked {
    answers: Mutex<BTreeMap<Question, Option<Value>>>,
}

impl Asked {
    /// Returns the answer; notes the question when there is none yet.
    fn ask(&self, question: Question) -> Option<Value> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entry(question).or_default().clone().filter(|value| !value.is_undefined())
    }

    /// Reads what was asked for and not answered; returns whether there was anything.
    fn answer(&self, context: &mut TaskContext) -> Result<bool, TaskError> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = false;
        for (question, answer) in answers.iter_mut().filter(|(_, answer)| answer.is_none()) {
            open = true;
            let memory = context.memory();
            *answer = Some(match question {
                Question::Key(key) => match memory.get::<Json>(&key).map_err(TaskError::fatal)? {
                    Some(value) => Value::from_serialize(value),
                    None => Value::UNDEFINED,
                },
                Question::Prefix(prefix) => {
                    let rows = memory.scan_prefix::<Json>(&prefix, SCAN_MAX);
                    let rows = rows.map_err(TaskError::fatal)?;
                    rows.into_iter()
                        .map(|(key, value)| (key, Value::from_serialize(value)))
                        .collect()
                }
            });
        }
        Ok(open)
    }
}

/// The variable `memory`.
#[derive(Debug)]
struct MemoryVariable(Arc<Asked>);

impl Object for MemoryVariable {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.ask(Question::Key(key.as_str()?.to_owned()))
    }
}

/// Evaluates `[result]`.
pub(crate) fn declare(
    flow: &Flow,
    variables: &mut Variables,
    context: &mut TaskContext,
) -> Result<Json, TaskError> {
    let asked = Arc::new(Asked::default());
    variables.set("memory", Value::from_object(MemoryVariable(asked.clone())));
    let scanned = asked.clone();
    let scan = move |prefix: String| {
        let none = || std::iter::empty::<(String, Value)>().collect();
        scanned.ask(Question::Prefix(prefix)).unwrap_or_else(none)
    };
    variables.set("scan", Value::from_function(scan));
    let values = variables.to_value();
    for _ in 0..ROUNDS_MAX {
        let evaluate = |(name, template): &(String, crate::flow::template::Template)| {
            Ok((name.clone(), template.evaluate(&values)?))
        };
        let result: Result<Vec<_>, crate::flow::template::TemplateError> =
            flow.result.iter().map(evaluate).collect();
        if !asked.answer(context)? {
            let result = result.map_err(TaskError::fatal)?;
            let to_json = |(name, value)| Ok((name, serde_json::to_value::<Value>(value)?));
            let result: Result<serde_json::Map<_, _>, serde_json::Error> =
                result.into_iter().map(to_json).collect();
            return result.map(Json::Object).map_err(TaskError::fatal);
        }
    }
    Err(TaskError::fatal("[result] asks for ever new memory keys"))
}
