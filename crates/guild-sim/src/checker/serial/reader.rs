//! Reads history files: Elle's list-append histories in JSON, and Guild's own.
//!
//! Elle's form is an array of operations, or one operation per line; each has a `type` (invoke, ok,
//! fail, info), a `process` and a `value`, a list of `["append", key, element]` and `["r", key, list]`.
//! What a history of Jepsen tells of its nemesis and of other functions is passed over.
//! Guild's form is one commit per line, see [`Commit`]. Which one it is shows in the first line.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Verdict;
use super::graph::number;
use super::list_append::{self, History, Operation, Outcome, Transaction};
use super::versions::{self, Commit};

/// A history file.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// Appends to lists and reads of them.
    Lists(History),
    /// Commits with the versions that they read and wrote.
    Versions(Vec<Commit>),
}

impl Recorded {
    /// Checks whether the history is strictly serialisable.
    pub fn check(&self) -> Verdict {
        match self {
            Self::Lists(history) => list_append::check(history),
            Self::Versions(commits) => versions::check(commits),
        }
    }
}

/// Why a history cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// There is nothing in it.
    #[error("the history is empty")]
    Empty,
    /// All that is in it is of a nemesis or of other functions.
    #[error("the history has no operation whose `f` is absent or `txn`: it is none of list-append")]
    NoLists,
    /// It is no JSON, or not of the form that it seems to have.
    #[error("line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// An operation does not fit those before it.
    #[error("operation {index}: {message}")]
    Sequence {
        /// Its index.
        index: u64,
        /// What is wrong.
        message: String,
    },
}

/// Returns whether a text looks like a history of either form, by its first object.
pub fn is_history(text: &str) -> bool {
    let start = text.trim_start();
    let line = start.lines().next().unwrap_or_default();
    start.starts_with('[')
        || (line.contains("\"value\"") && line.contains("\"type\""))
        || is_commit(line)
}

fn is_commit(line: &str) -> bool {
    line.contains("\"snapshot\"") && line.contains("\"version\"")
}

/// Reads a history.
///
/// # Errors
/// See [`HistoryError`]; the place is named.
pub fn read(text: &str) -> Result<Recorded, HistoryError> {
    let start = text.trim_start();
    let first = start.lines().next().ok_or(HistoryError::Empty)?;
    if start.starts_with('[') {
        let operations: Vec<&RawValue> = parse(text, 1)?;
        let (mut lines, mut at) = (Vec::new(), 0);
        for operation in operations {
            // Nothing but separators is between one operation and the next.
            at += text[at..].find(operation.get()).unwrap_or_default();
            let line = || 1 + text[..at].bytes().filter(|byte| *byte == b'\n').count();
            lines.extend(operation_of(operation.get(), line)?);
            at += operation.get().len();
        }
        return pair(lines).map(Recorded::Lists);
    }
    if is_commit(first) {
        let commits = each_line(text).map(|(content, line)| parse(content, line));
        return commits.collect::<Result<Vec<Commit>, _>>().map(Recorded::Versions);
    }
    let operations =
        each_line(text).filter_map(|(content, line)| operation_of(content, || line).transpose());
    pair(operations.collect::<Result<_, _>>()?).map(Recorded::Lists)
}

/// Returns a commit as one line of Guild's form, without a line break.
pub fn line(commit: &Commit) -> String {
    serde_json::json!(commit).to_string()
}

fn each_line(text: &str) -> impl Iterator<Item = (&str, usize)> {
    text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty())
}

/// Parses a text that begins in this line.
fn parse<'a, T: Deserialize<'a>>(text: &'a str, line: usize) -> Result<T, HistoryError> {
    serde_json::from_str(text).map_err(|error| {
        let line = line + error.line().saturating_sub(1);
        HistoryError::Syntax { line, message: error.to_string() }
    })
}

/// Returns an operation on lists; none: it is one of something else.
fn operation_of(text: &str, line: impl Fn() -> usize) -> Result<Option<Line>, HistoryError> {
    let found = parse(text, 1).and_then(|head: Head| match head.is_of_lists() {
        true => parse(text, 1).map(Some),
        false => Ok(None),
    });
    found.map_err(|error| match error {
        HistoryError::Syntax { line: within, message } => {
            HistoryError::Syntax { line: line() + within - 1, message }
        }
        other => other,
    })
}

/// What tells an operation on lists from one of the nemesis or of another function.
#[derive(Debug, Deserialize)]
struct Head {
    process: Option<Value>,
    f: Option<Value>,
}

impl Head {
    fn is_of_lists(&self) -> bool {
        let is = |value: &Option<Value>, name: &str| {
            let text = value.as_ref().and_then(Value::as_str);
            text.is_some_and(|text| text.trim_start_matches(':') == name)
        };
        !is(&self.process, "nemesis") && (self.f.is_none() || is(&self.f, "txn"))
    }
}

#[derive(Debug, Deserialize)]
struct Line {
    index: Option<u64>,
    r#type: Kind,
    process: Option<Value>,
    value: Option<Vec<Step>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

#[derive(Debug)]
enum Step {
    Append(Name, Name),
    Read(Name, Option<Vec<Name>>),
}

/// A key or an element: a number, or any other value by its text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Name {
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Steps;
        impl<'de> Visitor<'de> for Steps {
            type Value = Step;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[\"append\", key, element] or [\"r\", key, list or null]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Step, A::Error> {
                let missing = |at| de::Error::invalid_length(at, &self);
                let name: String = seq.next_element()?.ok_or_else(|| missing(0))?;
                let key = seq.next_element()?.ok_or_else(|| missing(1))?;
                let step = match name.as_str() {
                    "append" | ":append" => {
                        Step::Append(key, seq.next_element()?.ok_or_else(|| missing(2))?)
                    }
                    "r" | ":r" => Step::Read(key, seq.next_element()?.ok_or_else(|| missing(2))?),
                    other => return Err(de::Error::unknown_variant(other, &["append", "r"])),
                };
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(step),
                    Some(_) => Err(missing(4)),
                }
            }
        }
        deserializer.deserialize_seq(Steps)
    }
}

#[derive(Default)]
struct Builder {
    history: History,
    keys: BTreeMap<String, u32>,
    elements: BTreeMap<String, i64>,
    /// The open transaction of each process: its place and its steps.
    open: BTreeMap<String, u32>,
}

/// Puts invocations and completions together.
fn pair(lines: Vec<Line>) -> Result<History, HistoryError> {
    if lines.is_empty() {
        return Err(HistoryError::NoLists);
    }
    let mut builder = Builder::default();
    for (line, place) in lines.into_iter().zip(0..) {
        let index = line.index.unwrap_or(place);
        let process = line.process.as_ref().map(Value::to_string).unwrap_or_default();
        let operations = line.value.unwrap_or_default();
        let operations = operations.into_iter().map(|step| builder.operation(step)).collect();
        if line.r#type == Kind::Invoke {
            builder.invoke(index, process, operations)?;
        } else {
            builder.complete(index, &process, line.r#type, operations);
        }
    }
    builder.history.keys = vec![String::new(); builder.keys.len()];
    for (name, key) in builder.keys {
        builder.history.keys[key as usize] = name;
    }
    Ok(builder.history)
}

impl Builder {
    fn invoke(
        &mut self,
        index: u64,
        process: String,
        operations: Vec<Operation>,
    ) -> Result<(), HistoryError> {
        let place = number(self.history.transactions.len());
        if self.open.contains_key(&process) {
            let message = format!("process {process} begins before its last transaction has ended");
            return Err(HistoryError::Sequence { index, message });
        }
        self.open.insert(process, place);
        self.history.moments.push((place, false));
        // Until it is known how it ended: its appends may be there, its reads say nothing.
        self.history.transactions.push(Transaction {
            index,
            operations,
            outcome: Outcome::Unknown,
        });
        Ok(())
    }

    fn complete(&mut self, index: u64, process: &str, kind: Kind, operations: Vec<Operation>) {
        let outcome = match kind {
            Kind::Ok => Outcome::Committed,
            Kind::Fail => Outcome::Failed,
            Kind::Info | Kind::Invoke => Outcome::Unknown,
        };
        let place = match self.open.remove(process) {
            Some(place) => place,
            // A history of completions alone has no order in real time.
            None => {
                self.history.transactions.push(Transaction { index, operations, outcome });
                return;
            }
        };
        let transaction = &mut self.history.transactions[place as usize];
        transaction.index = index;
        transaction.outcome = outcome;
        if !operations.is_empty() {
            transaction.operations = operations;
        }
        if outcome != Outcome::Unknown {
            self.history.moments.push((place, true));
        }
    }

    fn operation(&mut self, step: Step) -> Operation {
        match step {
            Step::Append(key, element) => {
                Operation::Append { key: self.key(key), element: self.element(element) }
            }
            Step::Read(key, elements) => {
                let key = self.key(key);
                let elements = elements
                    .map(|elements| elements.into_iter().map(|e| self.element(e)).collect());
                Operation::Read { key, elements }
            }
        }
    }

    fn key(&mut self, name: Name) -> u32 {
        let name = match name {
            Name::Number(number) => number.to_string(),
            Name::Text(text) => text,
        };
        let next = number(self.keys.len());
        *self.keys.entry(name).or_insert(next)
    }

    /// Numbers stay as they are; texts are counted down from the smallest number.
    fn element(&mut self, element: Name) -> i64 {
        match element {
            Name::Number(number) => number,
            Name::Text(text) => {
                let known = i64::try_from(self.elements.len()).unwrap_or(i64::MAX);
                *self.elements.entry(text).or_insert(i64::MIN + known)
            }
        }
    }
}
