//! Prints the summary of a run: a table for people, or one JSON object.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::{Map, Value};

/// Items of a list in the result that people see; the JSON summary has all.
const LIST_SHOWN_MAX: usize = 50;

/// The summary; names and order are those of the published format.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) outcome: &'static str,
    pub(crate) tasks: Tasks,
    pub(crate) attempts: u64,
    pub(crate) agents: u64,
    pub(crate) incidents: u64,
    pub(crate) restarts: u64,
    pub(crate) makespan_s: f64,
    pub(crate) critical_path_s: f64,
    pub(crate) work_s: f64,
    pub(crate) messages_per_task: f64,
    pub(crate) events: u64,
    pub(crate) events_hash: String,
    pub(crate) seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Map<String, Value>>,
    /// Names of the result in the order of the flow file.
    #[serde(skip)]
    pub(crate) result_order: Vec<String>,
    /// Agents whose life ended with a failure.
    #[serde(skip)]
    pub(crate) crashes: u64,
    #[serde(skip)]
    pub(crate) faults: u64,
    /// Tasks of which the event log knows the end.
    #[serde(skip)]
    pub(crate) ended: u64,
}

/// How many tasks ended in which way.
#[derive(Debug, Serialize)]
pub(crate) struct Tasks {
    pub(crate) total: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) cancelled: u64,
}

impl Summary {
    /// Returns the summary for people.
    pub(crate) fn to_text(&self, run: &str) -> String {
        let mut text = String::new();
        let tasks = &self.tasks;
        let mut table =
            table(&["run", "outcome", "tasks", "completed", "failed", "skipped", "cancelled"]);
        table.add_row([
            run.to_owned(),
            self.outcome.to_owned(),
            tasks.total.to_string(),
            tasks.completed.to_string(),
            tasks.failed.to_string(),
            tasks.skipped.to_string(),
            tasks.cancelled.to_string(),
        ]);
        numbers_right(&mut table, 2);
        writeln!(text, "{table}").ok();
        writeln!(
            text,
            "{:.2} s on {} ({:.2} s of work, critical path {:.2} s), {}, {}",
            self.makespan_s,
            counted(self.agents, "agent"),
            self.work_s,
            self.critical_path_s,
            counted(self.attempts, "attempt"),
            counted(self.events, "event")
        )
        .ok();
        writeln!(text, "{}", self.losses()).ok();
        if let Some(result) = &self.result {
            text.push('\n');
            text.push_str(&result_text(result, &self.result_order));
        }
        text
    }

    fn losses(&self) -> String {
        let faults = match self.faults {
            0 => String::new(),
            1 => " (1 fault was injected)".to_owned(),
            faults => format!(" ({faults} faults were injected)"),
        };
        let crashes = match self.crashes {
            0 => "No agent crashed".to_owned(),
            crashes => format!("{} crashed", counted(crashes, "agent")),
        };
        let total = self.tasks.total;
        if self.ended == total {
            let tasks = if total == 1 { "the task" } else { &format!("each of {total} tasks") };
            format!("{crashes}{faults}; nothing was lost: {tasks} ended exactly once.")
        } else {
            format!("{crashes}{faults}; {} of {total} tasks have ended.", self.ended)
        }
    }
}

/// Returns `1 task`, `2 tasks`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn result_text(result: &Map<String, Value>, order: &[String]) -> String {
    let mut text = String::new();
    let width = result.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, value) in order.iter().filter_map(|name| result.get_key_value(name)) {
        match value {
            Value::Array(items) if items.iter().all(Value::is_object) && !items.is_empty() => {
                writeln!(text, "{name}").ok();
                writeln!(text, "{}", objects(items)).ok();
            }
            Value::String(line) => drop(writeln!(text, "{name:width$}  {line}")),
            value => drop(writeln!(text, "{name:width$}  {value}")),
        }
    }
    text
}

/// Returns a table with a column for each key.
fn objects(items: &[Value]) -> Table {
    let mut columns: Vec<&str> = Vec::new();
    for key in items.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    // The keys of an object come sorted; text reads best in front of numbers.
    columns.sort_by_key(|key| items.iter().all(|item| item[*key].is_number()));
    let mut table = table(&columns);
    for item in items.iter().take(LIST_SHOWN_MAX) {
        table.add_row(columns.iter().map(|key| cell(&item[*key])));
    }
    for (at, key) in columns.iter().enumerate() {
        if items.iter().all(|item| item[*key].is_number())
            && let Some(column) = table.column_mut(at)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Returns a value as the cell of a table: a text as it is, null as nothing.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    }
}

/// Returns an empty table with these heads.
pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(heads);
    table
}

/// Aligns the columns from this one on to the right.
pub(crate) fn numbers_right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
