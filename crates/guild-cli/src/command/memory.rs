//! Shows the shared memory of a store that no guild uses: values, history, changes.

mod change;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use guild::checkpoint;
use guild::reader::{StoreView, read};
use guild::{CommitVersion, HistoryError, KeyRange, Names, Snapshot, StoreError, Writer};
use serde_json::{Map, Value, json};

use crate::args::{Format, MemoryCommand};
use crate::command::{print, store::pause, upkeep};
use crate::exit_code::CommandError;
use crate::render::{numbers_right, table};

/// Characters of a value that people see in a table; JSON has all.
const VALUE_SHOWN_MAX: usize = 60;

/// Does what was asked for.
pub(crate) fn execute(command: MemoryCommand) -> Result<(), CommandError> {
    match command {
        MemoryCommand::Get { store, key, at, format } => get(&store.store, &key, at, format),
        MemoryCommand::Scan { store, prefix, limit, at, format } => {
            scan(&store.store, &prefix, limit, at, format)
        }
        MemoryCommand::History { store, key, format } => history(&store.store, &key, format),
        MemoryCommand::Diff { store, from, to, prefix, format } => {
            difference(&store.store, (from, to), &prefix, format)
        }
        MemoryCommand::Rollback(arguments) => change::rollback(&arguments),
        MemoryCommand::Watch { store, prefix, after, once, format } => {
            watch(&store.store, &prefix, after, once, format)
        }
        MemoryCommand::Stats { store, format } => stats(&store.store, format),
        MemoryCommand::Checkpoint { store, to, format } => {
            upkeep::checkpoint(&store.store, to, format)
        }
        MemoryCommand::Restore { store, checkpoint, format } => {
            upkeep::restore(&store.store, &checkpoint, format)
        }
        MemoryCommand::Migrate { store, to, engine, format } => {
            upkeep::migrate(&store.store, &to, engine, format)
        }
        MemoryCommand::Compact { store, before, format } => {
            change::compact(&store.store, before, format)
        }
    }
}

fn get(store: &Path, key: &str, at: Option<u64>, format: Format) -> Result<(), CommandError> {
    let view = read(store)?;
    let Some(entry) = as_of(&view, at)?.get(key.as_bytes()) else {
        return Err(CommandError::BadInput(format!(
            "the memory in {} has no key `{key}`{}; `guild memory scan` lists all keys",
            store.display(),
            at.map(|at| format!(" at version {at}")).unwrap_or_default()
        )));
    };
    if format == Format::Table {
        return print(&format!("{}\n", String::from_utf8_lossy(&entry.value)));
    }
    let mut found = Map::new();
    found.insert("key".into(), key.into());
    found.insert("version".into(), entry.version.0.into());
    found.extend(written_by(&view, entry.writer));
    found.insert("value".into(), json_of(&entry.value));
    print(&format!("{}\n", Value::Object(found)))
}

fn scan(
    store: &Path,
    prefix: &str,
    limit: usize,
    at: Option<u64>,
    format: Format,
) -> Result<(), CommandError> {
    let view = read(store)?;
    let snapshot = as_of(&view, at)?;
    let rows = snapshot.scan(prefix.as_bytes()).take(limit);
    let rows =
        rows.map(|entry| (String::from_utf8_lossy(entry.key()).into_owned(), entry.value.clone()));
    if format == Format::Json {
        let rows: Map<_, _> = rows.map(|(key, value)| (key, json_of(&value))).collect();
        return print(&format!("{}\n", Value::Object(rows)));
    }
    let mut table = table(&["key", "value"]);
    for (key, value) in rows {
        table.add_row([key, shown(&value)]);
    }
    print(&format!("{table}\n"))
}

fn history(store: &Path, key: &str, format: Format) -> Result<(), CommandError> {
    let view = read(store)?;
    let revisions = view.snapshot().history(key);
    if revisions.is_empty() {
        return Err(CommandError::BadInput(format!(
            "the memory in {} knows no key `{key}` since version {}",
            store.display(),
            view.snapshot().oldest()
        )));
    }
    if format == Format::Json {
        let revisions = revisions.iter().map(|revision| {
            let mut row = Map::new();
            row.insert("version".into(), revision.version.0.into());
            row.insert("at_us".into(), revision.at.map(|at| at.0).into());
            row.extend(written_by(&view, revision.writer));
            row.insert("removed".into(), revision.value.is_none().into());
            row.insert("value".into(), revision.value.as_deref().map_or(Value::Null, json_of));
            Value::Object(row)
        });
        let revisions: Vec<Value> = revisions.collect();
        return print(&format!("{}\n", json!({ "key": key, "revisions": revisions })));
    }
    let mut table = table(&["version", "at", "by", "value"]);
    for revision in &revisions {
        table.add_row([
            revision.version.to_string(),
            revision.at.map_or_else(|| "before".to_owned(), |at| seconds(at.0)),
            by(&view, revision.writer),
            revision.value.as_deref().map_or_else(|| "(removed)".to_owned(), shown),
        ]);
    }
    print(&format!("{table}\n"))
}

fn difference(
    store: &Path,
    (from, to): (u64, Option<u64>),
    prefix: &str,
    format: Format,
) -> Result<(), CommandError> {
    let view = read(store)?;
    let to = to.map_or(view.snapshot().version(), CommitVersion);
    let range = KeyRange::prefix(prefix);
    let differences = view
        .snapshot()
        .difference(CommitVersion(from), to, &range)
        .map_err(|error| refused(store, error))?;
    if format == Format::Json {
        let value = |entry: &Option<guild::Entry>| {
            entry.as_ref().map_or(Value::Null, |entry| json_of(&entry.value))
        };
        let keys = differences.iter().map(|found| {
            json!({ "key": found.key, "before": value(&found.before), "after": value(&found.after),
                    "added": found.before.is_none(), "removed": found.after.is_none() })
        });
        let keys: Vec<Value> = keys.collect();
        return print(&format!("{}\n", json!({ "from": from, "to": to.0, "keys": keys })));
    }
    let value = |entry: &Option<guild::Entry>, absent: &str| {
        entry.as_ref().map_or_else(|| absent.to_owned(), |entry| shown(&entry.value))
    };
    let mut table = table(&["key", "before", "after"]);
    for found in &differences {
        let (before, after) = (value(&found.before, "(absent)"), value(&found.after, "(removed)"));
        table.add_row([found.key.to_string(), before, after]);
    }
    print(&format!("{table}\n"))
}

fn watch(
    store: &Path,
    prefix: &str,
    after: Option<u64>,
    once: bool,
    format: Format,
) -> Result<(), CommandError> {
    let range = KeyRange::prefix(prefix);
    let mut seen = after.map(CommitVersion);
    let mut is_first = true;
    loop {
        match read(store) {
            Ok(view) => {
                let from = seen.unwrap_or(view.snapshot().version());
                seen = Some(tell(&view, &range, from, format).or_else(|error| {
                    if is_first {
                        return Err(error);
                    }
                    // The guild has cut its history between two looks.
                    let oldest = view.snapshot().oldest();
                    eprintln!("guild: commits before version {oldest} were missed: they are gone");
                    tell(&view, &range, oldest, format)
                })?);
                is_first = false;
            }
            Err(StoreError::Locked { .. }) if !once => {}
            Err(error) => return Err(error.into()),
        }
        if once {
            return Ok(());
        }
        pause();
    }
}

/// Prints the commits after a version; returns the newest version.
fn tell(
    view: &StoreView,
    range: &KeyRange,
    after: CommitVersion,
    format: Format,
) -> Result<CommitVersion, CommandError> {
    let snapshot = view.snapshot();
    let mut output = BufWriter::new(std::io::stdout().lock());
    let commits = snapshot.commits_after(after).map_err(|error| refused(view.path(), error))?;
    for commit in commits {
        let changes: Vec<_> = commit.changes_in(range).collect();
        if changes.is_empty() {
            continue;
        }
        if format == Format::Json {
            let mut row = Map::new();
            row.insert("version".into(), commit.version.0.into());
            row.insert("at_us".into(), commit.at.0.into());
            row.extend(written_by(view, commit.writer));
            let keys = changes.into_iter().map(|(key, entry)| {
                let value = entry.map_or(Value::Null, |entry| json_of(&entry.value));
                json!({ "key": key, "removed": entry.is_none(), "value": value })
            });
            row.insert("keys".into(), keys.collect());
            writeln!(output, "{}", Value::Object(row))?;
            continue;
        }
        writeln!(
            output,
            "version {} at {} by {}",
            commit.version,
            seconds(commit.at.0),
            by(view, commit.writer)
        )?;
        for (key, entry) in changes {
            match entry {
                Some(entry) => writeln!(output, "  + {key}\t{}", shown(&entry.value))?,
                None => writeln!(output, "  - {key}")?,
            }
        }
    }
    output.flush()?;
    Ok(after.max(snapshot.version()))
}

fn stats(store: &Path, format: Format) -> Result<(), CommandError> {
    let view = read(store)?;
    let snapshot = view.snapshot();
    let mut prefixes: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let (mut keys, mut bytes) = (0, 0);
    for entry in snapshot.scan(b"") {
        let key = String::from_utf8_lossy(entry.key());
        let prefix = key.find('/').map_or("", |slash| &key[..=slash]);
        let size = (key.len() + entry.value.len()) as u64;
        (keys, bytes) = (keys + 1, bytes + size);
        let sum = prefixes.entry(prefix.to_owned()).or_default();
        *sum = (sum.0 + 1, sum.1 + size);
    }
    let history = snapshot.history_size();
    let size = view.size()?;
    let checkpoints = checkpoint::list(store)?;
    if format == Format::Json {
        let prefixes = prefixes.iter().map(
            |(prefix, (keys, bytes))| json!({ "prefix": prefix, "keys": keys, "bytes": bytes }),
        );
        let prefixes: Vec<Value> = prefixes.collect();
        let history = json!({ "commits": history.commits, "bytes": history.bytes });
        return print(&format!(
            "{}\n",
            json!({ "format": view.format_version(), "version": snapshot.version().0, "oldest_version": snapshot.oldest().0, "keys": keys,
                    "bytes": bytes, "history": history, "prefixes": prefixes,
                    "rows": size.rows, "live_bytes": size.live_bytes, "disk_bytes": size.disk_bytes,
                    "disk_per_live_byte": size.disk_per_live_byte(), "checkpoints": checkpoints })
        ));
    }
    let mut table = table(&["prefix", "keys", "bytes"]);
    for (prefix, (keys, bytes)) in &prefixes {
        let prefix = if prefix.is_empty() { "(none)" } else { prefix.as_str() };
        table.add_row([prefix.to_owned(), keys.to_string(), bytes.to_string()]);
    }
    numbers_right(&mut table, 1);
    print(&format!(
        "{table}\n{keys} keys, {bytes} bytes at version {}; history back to version {}: {} commits, {} bytes\n\
         {} rows, {} bytes, {} on the disk ({:.2} for each), in format {}; {} checkpoints\n",
        snapshot.version(),
        snapshot.oldest(),
        history.commits,
        history.bytes,
        size.rows,
        size.live_bytes,
        size.disk_bytes,
        size.disk_per_live_byte(),
        view.format_version(),
        checkpoints.len()
    ))
}

fn as_of(view: &StoreView, at: Option<u64>) -> Result<Snapshot, CommandError> {
    match at {
        None => Ok(view.snapshot().clone()),
        Some(at) => {
            let then = view.snapshot().as_of(CommitVersion(at));
            then.map_err(|error| refused(view.path(), error))
        }
    }
}

fn refused(store: &Path, error: HistoryError) -> CommandError {
    CommandError::BadInput(format!("{}: {error}", store.display()))
}

/// Returns who wrote something, as fields of a JSON object.
fn written_by(view: &StoreView, writer: Option<Writer>) -> Map<String, Value> {
    let names = view.names();
    let fields = [
        ("run", writer.map(|writer| names.run(writer.task.run))),
        ("task", writer.map(|writer| names.task(writer.task))),
        ("agent", writer.map(|writer| names.agent(writer.agent))),
    ];
    fields.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect()
}

fn by(view: &StoreView, writer: Option<Writer>) -> String {
    let names = view.names();
    writer.map_or_else(
        || "(outside)".to_owned(),
        |Writer { task, agent }| {
            format!("{}/{} on {}", names.run(task.run), names.task(task), names.agent(agent))
        },
    )
}

fn json_of(value: &[u8]) -> Value {
    serde_json::from_slice(value).unwrap_or_else(|_| String::from_utf8_lossy(value).into())
}

fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(VALUE_SHOWN_MAX) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

fn seconds(at_us: u64) -> String {
    format!("{}.{:06} s", at_us / 1_000_000, at_us % 1_000_000)
}
