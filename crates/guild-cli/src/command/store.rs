//! Shows what is in a store that no guild uses: runs, events, incidents.

use std::io::{BufWriter, Write};
use std::path::Path;

use guild::reader::{StoreView, read};
use guild::{EndState, Outcome, StoreError, event_line};
use guild_core::history::TaskEnd;
use guild_memory::RecoveredRun;
use serde_json::{Value, json};

use crate::args::Format;
use crate::command::print;
use crate::exit_code::CommandError;
use crate::render::{cell, numbers_right, table};

/// Time between two looks for new events.
const FOLLOW_PERIOD: std::time::Duration = std::time::Duration::from_millis(500);

/// Prints the runs of a store.
pub(crate) fn status(store: &Path, format: Format) -> Result<(), CommandError> {
    let view = read(store)?;
    let rows: Vec<Value> = view.runs().iter().map(run_status).collect();
    if format == Format::Json {
        return print(&format!("{}\n", json!({ "runs": rows })));
    }
    let heads =
        ["run", "state", "tasks", "completed", "failed", "skipped", "cancelled", "attempts"];
    let mut table = table(&heads);
    for row in &rows {
        table.add_row(heads.map(|head| cell(&row[head])));
    }
    numbers_right(&mut table, 2);
    print(&format!("{table}\n"))
}

fn run_status(run: &RecoveredRun) -> Value {
    let (mut completed, mut failed, mut skipped, mut cancelled, mut attempts) = (0, 0, 0, 0, 0);
    for task in &run.history.tasks {
        attempts += u64::from(task.attempts);
        match task.end {
            Some(TaskEnd::Completed(_)) => completed += 1,
            Some(TaskEnd::Ended(EndState::Failed | EndState::DeadLettered)) => failed += 1,
            Some(TaskEnd::Ended(EndState::Skipped)) => skipped += 1,
            Some(TaskEnd::Ended(EndState::Cancelled)) => cancelled += 1,
            None => {}
        }
    }
    let state = match run.history.ended {
        Some((outcome, ..)) => outcome_name(outcome),
        None if run.history.cancelled => "being cancelled",
        None => "unfinished",
    };
    json!({
        "run": &*run.name, "state": state, "tasks": run.tasks(), "completed": completed,
        "failed": failed, "skipped": skipped, "cancelled": cancelled, "attempts": attempts,
    })
}

/// Returns the name of an outcome in summaries.
pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
    }
}

/// Prints the event log from a sequence number on.
pub(crate) fn events(store: &Path, since: u64) -> Result<(), CommandError> {
    print_events(&read(store)?, since).map(drop)
}

/// Prints the event log and goes on with what comes, until it is interrupted.
pub(crate) fn follow(store: &Path, since: u64) -> Result<(), CommandError> {
    let mut next = since;
    loop {
        match read(store) {
            Ok(view) => next = print_events(&view, next)?,
            Err(StoreError::Locked { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        pause();
    }
}

/// Prints events; returns the number of the event after the last one.
fn print_events(view: &StoreView, since: u64) -> Result<u64, CommandError> {
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut next = since;
    for record in view.events(since) {
        let record = record?;
        next = record.seq + 1;
        writeln!(output, "{}", event_line(&record, view.names()))?;
    }
    output.flush()?;
    Ok(next)
}

/// Waits between two looks into a store.
#[expect(clippy::disallowed_methods, reason = "no runtime runs in this process")]
pub(super) fn pause() {
    std::thread::sleep(FOLLOW_PERIOD);
}
