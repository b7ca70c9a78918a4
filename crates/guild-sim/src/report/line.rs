//! Reads of a line of the event log what a report needs.

use serde::Deserialize;

/// The fields of all kinds that a report looks at; those of other kinds are absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    pub(super) kind: String,
    pub(super) at_us: u64,
    pub(super) run: Option<String>,
    pub(super) task: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) after: Vec<String>,
    pub(super) spawned_by: Option<String>,
    pub(super) attempt: Option<u32>,
    pub(super) cause: Option<String>,
    pub(super) message: Option<String>,
    pub(super) state: Option<String>,
    pub(super) incident: Option<u64>,
    pub(super) severity: Option<String>,
    pub(super) r#type: Option<String>,
    pub(super) fault: Option<u64>,
    pub(super) location: Option<String>,
    pub(super) action: Option<String>,
    pub(super) quota: Option<String>,
    /// Of `guild_started` the terms of each quota; of `task_added` what a task needs.
    pub(super) quotas: Option<serde_json::Map<String, serde_json::Value>>,
    pub(super) in_use: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) outcome: Option<String>,
    pub(super) phase: Option<String>,
    pub(super) clock: Option<String>,
    pub(super) order: Option<String>,
    pub(super) seed: Option<u64>,
    pub(super) edges: Option<u64>,
}

impl Line {
    pub(super) fn read(text: &str) -> Result<Self, serde_json::Error> {
        let line: Self = serde_json::from_str(text)?;
        if line.kind.is_empty() {
            return Err(serde::de::Error::missing_field("kind"));
        }
        Ok(line)
    }
}
