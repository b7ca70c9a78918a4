//! The messages between a guild and a process agent, one JSON object a line.
//!
//! The page `docs/process-agents.md` is their description; a change that an agent could notice is
//! another version of the protocol.

use std::time::Duration;

use guild_core::payload::Payload;
use guild_core::time::micros;
use guild_memory::Merge;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of the protocol that this guild speaks.
pub const PROTOCOL: u32 = 1;

/// Rows that one `scan` returns at most, and when it names no limit.
pub(super) const SCAN_ROWS_MAX: usize = 1_000;

/// From the guild to the process.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ToProcess<'a> {
    Hello {
        protocol: u32,
        guild: &'a str,
        role: &'a str,
        agent: &'a str,
        incarnation: String,
        line_bytes_max: usize,
    },
    Assign {
        token: &'a str,
        run: &'a str,
        task: &'a str,
        attempt: u32,
        input: &'a RawValue,
        idempotency_key: &'a str,
        timeout_ms: u64,
        heartbeat_ms: Option<u64>,
    },
    Value {
        id: u64,
        found: bool,
        value: Option<&'a RawValue>,
    },
    Rows {
        id: u64,
        rows: Vec<(String, Box<RawValue>)>,
    },
    Done {
        id: u64,
    },
    Refused {
        id: u64,
        message: String,
    },
    Cancel {
        token: &'a str,
    },
}

impl ToProcess<'_> {
    /// Returns the message as a line.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("messages have a JSON form");
        line.push(b'\n');
        line
    }
}

/// Returns a duration in whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    micros(duration) / 1_000
}

/// From the process to the guild.
#[derive(Debug)]
pub(super) enum FromProcess {
    Ready { protocol: u32 },
    Heartbeat { token: String },
    OfTask { token: String, say: Say },
}

/// What a process says about the task that it performs.
#[derive(Debug)]
pub(super) enum Say {
    Get { id: u64, key: String },
    Scan { id: u64, prefix: String, limit: usize },
    Write { id: Option<u64>, write: Write },
    Spawn { id: Option<u64>, spawn: Box<Spawn> },
    Result { output: Box<RawValue> },
    Error { message: String, retryable: bool, retry_after: Option<Duration> },
}

/// A change of the shared memory.
#[derive(Debug)]
pub(super) enum Write {
    Put { key: String, value: Box<RawValue> },
    Delete { key: String },
    Merge { key: String, merge: Merge },
}

/// A task that is to be added.
#[derive(Debug)]
pub(super) struct Spawn {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) input: Box<RawValue>,
    pub(super) after: Vec<String>,
    pub(super) priority: i32,
    pub(super) attempts: Option<u32>,
    pub(super) timeout: Option<Duration>,
    pub(super) heartbeat: Option<Duration>,
}

/// All fields of all messages: a tagged enum could not hold raw JSON values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    r#type: String,
    protocol: Option<u32>,
    token: Option<String>,
    id: Option<u64>,
    key: Option<String>,
    prefix: Option<String>,
    limit: Option<usize>,
    value: Option<Box<RawValue>>,
    amount: Option<i64>,
    floor: Option<i64>,
    operation: Option<String>,
    len_max: Option<usize>,
    name: Option<String>,
    role: Option<String>,
    input: Option<Box<RawValue>>,
    #[serde(default)]
    after: Vec<String>,
    priority: Option<i32>,
    attempts: Option<u32>,
    timeout_ms: Option<u64>,
    heartbeat_ms: Option<u64>,
    output: Option<Box<RawValue>>,
    message: Option<String>,
    retryable: Option<bool>,
    retry_after_ms: Option<u64>,
}

impl FromProcess {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no message; the text says why.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        let mut fields: Fields = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if fields.r#type == "ready" {
            let protocol = fields.protocol.ok_or("`ready` needs the field `protocol`")?;
            return Ok(Self::Ready { protocol });
        }
        let token = fields.token.take();
        let missing = || format!("a message of type `{}` needs the field `token`", fields.r#type);
        let token = token.ok_or_else(missing)?;
        if fields.r#type == "heartbeat" {
            return Ok(Self::Heartbeat { token });
        }
        Ok(Self::OfTask { token, say: Say::of(fields)? })
    }

    /// Returns the type of the message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Heartbeat { .. } => "heartbeat",
            Self::OfTask { say, .. } => match say {
                Say::Get { .. } => "get",
                Say::Scan { .. } => "scan",
                Say::Write { write: Write::Put { .. }, .. } => "put",
                Say::Write { write: Write::Delete { .. }, .. } => "delete",
                Say::Write { write: Write::Merge { merge: Merge::Add { .. }, .. }, .. }
                | Say::Write {
                    write: Write::Merge { merge: Merge::AddAtLeast { .. }, .. }, ..
                } => "add",
                Say::Write { write: Write::Merge { .. }, .. } => "merge",
                Say::Spawn { .. } => "spawn",
                Say::Result { .. } => "result",
                Say::Error { .. } => "error",
            },
        }
    }
}

impl Say {
    fn of(fields: Fields) -> Result<Self, String> {
        let kind = fields.r#type.as_str();
        let need = |found: Option<String>, name: &str| {
            found.ok_or_else(|| format!("a message of type `{kind}` needs the field `{name}`"))
        };
        let id = || fields.id.ok_or_else(|| format!("a message of type `{kind}` needs an `id`"));
        let value = |found: Option<Box<RawValue>>| found.unwrap_or_else(null);
        let millis = |found: Option<u64>| found.map(Duration::from_millis);
        let say = match kind {
            "get" => Say::Get { id: id()?, key: need(fields.key, "key")? },
            "scan" => {
                let limit = fields.limit.unwrap_or(SCAN_ROWS_MAX).min(SCAN_ROWS_MAX);
                Say::Scan { id: id()?, prefix: need(fields.prefix, "prefix")?, limit }
            }
            "put" => {
                let (key, value) = (need(fields.key, "key")?, value(fields.value));
                Say::Write { id: fields.id, write: Write::Put { key, value } }
            }
            "delete" => {
                let write = Write::Delete { key: need(fields.key, "key")? };
                Say::Write { id: fields.id, write }
            }
            "add" => {
                let amount = fields.amount.ok_or("`add` needs the field `amount`")?;
                let merge = match fields.floor {
                    None => Merge::Add { amount },
                    Some(floor) => Merge::AddAtLeast { amount, floor },
                };
                let write = Write::Merge { key: need(fields.key, "key")?, merge };
                Say::Write { id: fields.id, write }
            }
            "merge" => {
                let operation = need(fields.operation, "operation")?;
                let merge = merge(&operation, &value(fields.value), fields.len_max)?;
                let write = Write::Merge { key: need(fields.key, "key")?, merge };
                Say::Write { id: fields.id, write }
            }
            "spawn" => {
                let spawn = Box::new(Spawn {
                    name: need(fields.name, "name")?,
                    role: need(fields.role, "role")?,
                    input: value(fields.input),
                    after: fields.after,
                    priority: fields.priority.unwrap_or_default(),
                    attempts: fields.attempts,
                    timeout: millis(fields.timeout_ms),
                    heartbeat: millis(fields.heartbeat_ms),
                });
                Say::Spawn { id: fields.id, spawn }
            }
            "result" => Say::Result { output: value(fields.output) },
            "error" => Say::Error {
                message: need(fields.message, "message")?,
                retryable: fields.retryable.unwrap_or(true),
                retry_after: millis(fields.retry_after_ms),
            },
            unknown => return Err(format!("there is no message of type `{unknown}`")),
        };
        Ok(say)
    }
}

/// Reads an operation that changes a value without having read it.
fn merge(operation: &str, value: &RawValue, len_max: Option<usize>) -> Result<Merge, String> {
    let value = Payload::from_json(value.get());
    Ok(match operation {
        "max" => Merge::Max { value },
        "min" => Merge::Min { value },
        "set_add" => Merge::SetAdd { element: value },
        "set_remove" => Merge::SetRemove { element: value },
        "append" => {
            let len_max = len_max.ok_or("the operation `append` needs the field `len_max`")?;
            Merge::Append { element: value, len_max }
        }
        "put_if_absent" => Merge::PutIfAbsent { value },
        "patch" => Merge::Patch { patch: value },
        unknown => return Err(format!("there is no operation `{unknown}`")),
    })
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}
