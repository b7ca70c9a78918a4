//! Histories: `guild run --history` records what every commit read and wrote, and `guild verify`
//! decides whether it is strictly serialisable.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use guild::EventRecord;
use guild_memory::NameTable;
use guild_sim::checker::serial::reader::{self, Recorded};
use guild_sim::checker::serial::{Anomaly, Recorder, Verdict};
use serde_json::json;

use crate::args::Format;
use crate::command::print;
use crate::exit_code::{CommandError, Exit};
use crate::render::table;

/// A history file that is being written; every clone is the same file.
#[derive(Clone, Debug)]
pub(crate) struct HistoryFile {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    recorder: Recorder,
    failed: Option<io::Error>,
}

impl HistoryFile {
    /// Creates the file.
    pub(crate) fn create(path: &Path) -> Result<Self, CommandError> {
        let file = crate::tail::create(path)?;
        let state = State { file, recorder: Recorder::default(), failed: None };
        Ok(Self { path: path.to_owned(), state: Arc::new(Mutex::new(state)) })
    }

    /// Writes the commit that an event tells of, if it tells of one.
    pub(crate) fn take(&self, record: &EventRecord, names: &NameTable) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(commit) = state.recorder.take(record, names)
            && let Err(error) = writeln!(state.file, "{}", reader::line(&commit))
        {
            state.failed.get_or_insert(error);
        }
    }

    /// Writes what is left, or tells the first error.
    pub(crate) fn finish(&self) -> Result<(), CommandError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let written = state.failed.take().map_or(Ok(()), Err).and_then(|()| state.file.flush());
        written.map_err(|error| CommandError::EventLog { path: self.path.clone(), error })
    }
}

/// Checks a history and prints what came of it.
pub(crate) fn verify(name: &str, text: &str, format: Format) -> Result<Exit, CommandError> {
    let recorded =
        reader::read(text).map_err(|error| CommandError::BadInput(format!("{name}: {error}")))?;
    let verdict = recorded.check();
    let line = |anomaly: &Anomaly| line_of(anomaly, &recorded, text);
    match format {
        Format::Json => print(&format!("{}\n", to_json(&verdict, line)))?,
        Format::Table => print(&to_text(name, &verdict))?,
    }
    match verdict.anomalies.first() {
        None => Ok(Exit::Done),
        Some(first) => {
            let line = line(first).map_or_else(String::new, |line| format!("line {line}: "));
            Err(CommandError::Violated(format!(
                "{name}: {line}the history is not strictly serialisable: {}: {}",
                first.kind, first.message
            )))
        }
    }
}

/// Returns the line of the first commit of an anomaly; none: a transaction of Elle's form is no line.
fn line_of(anomaly: &Anomaly, recorded: &Recorded, text: &str) -> Option<usize> {
    let Recorded::Versions(commits) = recorded else { return None };
    let first = anomaly.transactions.first()?;
    let place = commits.iter().position(|commit| commit.version == *first)?;
    let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines.nth(place).map(|(_, line)| line)
}

fn to_json(verdict: &Verdict, line: impl Fn(&Anomaly) -> Option<usize>) -> serde_json::Value {
    let anomalies = verdict.anomalies.iter().map(|anomaly| {
        json!({
            "type": anomaly.kind.name(), "transactions": anomaly.transactions,
            "line": line(anomaly), "message": anomaly.message,
        })
    });
    json!({
        "serialisable": verdict.is_serialisable(), "transactions": verdict.transactions,
        "dependencies": verdict.dependencies, "anomalies": anomalies.collect::<Vec<_>>(),
    })
}

fn to_text(name: &str, verdict: &Verdict) -> String {
    let (transactions, dependencies) = (verdict.transactions, verdict.dependencies);
    if verdict.is_serialisable() {
        return format!(
            "{name}: strictly serialisable: {transactions} transactions, {dependencies} dependencies, \
             no cycle\n"
        );
    }
    let mut table = table(&["anomaly", "what"]);
    for anomaly in &verdict.anomalies {
        table.add_row([anomaly.kind.name(), &anomaly.message]);
    }
    format!("{table}\n")
}
