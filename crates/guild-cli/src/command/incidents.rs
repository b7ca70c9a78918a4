//! `guild incidents`: what went wrong in a store, what was done about it, and what fails most.
//!
//! Everything is folded from the event log. To acknowledge an incident is an event too, so it needs
//! a store that no guild uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use guild::reader::{StoreView, append, read};
use guild::{
    Event, EventRecord, Incident, IncidentState, IncidentSummary, Limits, Names, Reason, Timestamp,
    event_line,
};
use guild_core::incident::{Group, IncidentBook, Row, pattern};
use serde_json::{Value, json};

use crate::args::{Format, IncidentCommand, IncidentsArguments};
use crate::command::print;
use crate::exit_code::CommandError;
use crate::flow::problem::suggest;
use crate::flow::quantity;
use crate::render::{cell, numbers_right, table};

/// Incidents that are read from a log; of more, the oldest that are over are not shown.
const INCIDENTS_MAX: usize = 1_000_000;

/// Rows of the table for people; JSON has all.
const ROWS_MAX: usize = 200;

/// Characters of a message in the table.
const MESSAGE_CHARS: usize = 60;

/// Does what was asked for.
pub(crate) fn incidents(arguments: &IncidentsArguments) -> Result<(), CommandError> {
    match &arguments.command {
        Some(IncidentCommand::Show { incident, store, format }) => {
            show(&store.store, *incident, *format)
        }
        Some(IncidentCommand::Ack { incident, note, store }) => {
            acknowledge(&store.store, *incident, note)
        }
        None => {
            let store = arguments.store.as_deref().unwrap_or(Path::new(""));
            let log = Log::read(store, Filter::of(arguments)?)?;
            if arguments.summary {
                log.print_summary(arguments.format)
            } else if arguments.groups {
                log.print_groups(arguments.format)
            } else {
                log.print_list(arguments.format)
            }
        }
    }
}

/// What was asked for, checked.
struct Filter<'a> {
    role: Option<&'a str>,
    agent: Option<&'a str>,
    task: Option<&'a str>,
    cause: Option<Reason>,
    state: Option<IncidentState>,
    since: Option<Duration>,
}

impl<'a> Filter<'a> {
    fn of(arguments: &'a IncidentsArguments) -> Result<Self, CommandError> {
        let bad = |option: &str, message| CommandError::BadInput(format!("{option}: {message}"));
        let cause = |name: &String| {
            let found = Reason::ALL.iter().find(|(known, _)| known == name);
            found.map(|(_, reason)| *reason).ok_or_else(|| {
                let hint = suggest(name, Reason::ALL.iter().map(|(name, _)| *name));
                bad("--cause", format!("unknown cause `{name}`{hint}"))
            })
        };
        let since = arguments.since.as_deref().map(quantity::duration).transpose();
        Ok(Self {
            role: arguments.role.as_deref(),
            agent: arguments.agent.as_deref(),
            task: arguments.task.as_deref(),
            cause: arguments.cause.as_ref().map(cause).transpose()?,
            state: arguments.state.map(Into::into),
            since: since.map_err(|message| bad("--since", message))?,
        })
    }

    fn wants(&self, incident: &Incident, newest: Timestamp, names: &dyn Names) -> bool {
        let report = &incident.report;
        let agent = report.agent.map(|(agent, _)| names.agent(agent));
        let role = incident.role().map(|role| names.role(role).to_owned());
        let task = report.attempt.map(|attempt| names.task(attempt.task));
        let is =
            |wanted: Option<&str>, found: Option<&str>| wanted.is_none_or(|w| found == Some(w));
        let kind = task.as_deref().map(pattern);
        is(self.role, role.as_deref())
            && is(self.agent, agent.as_deref())
            && (is(self.task, task.as_deref()) || is(self.task, kind.as_deref()))
            && self
                .cause
                .is_none_or(|cause| cause == report.reason || cause == Reason::from(report.cause))
            && self.state.is_none_or(|state| state == incident.state())
            && self.since.is_none_or(|since| newest.since(incident.at) <= since)
    }
}

/// The incidents of a store.
struct Log {
    view: StoreView,
    /// The place in the event log of each incident.
    records: Records,
    incidents: Vec<Incident>,
    groups: Vec<Group>,
}

/// Sequence number and time of the record that opened an incident, by its number.
type Records = BTreeMap<u64, (u64, Timestamp)>;

impl Log {
    fn read(store: &Path, filter: Filter<'_>) -> Result<Self, CommandError> {
        let view = read(store)?;
        let (book, records) = fold(&view)?;
        let newest = view.last_at();
        let wanted = |incident: &&Incident| filter.wants(incident, newest, view.names());
        let incidents: Vec<Incident> = book.incidents().filter(wanted).cloned().collect();
        let shown: BTreeSet<u64> = incidents.iter().map(|incident| incident.fingerprint).collect();
        let groups = book.groups().filter(|group| shown.contains(&group.fingerprint));
        let mut groups: Vec<Group> = groups.cloned().collect();
        groups.sort_by_key(|group| std::cmp::Reverse((group.count, group.last)));
        Ok(Self { view, records, incidents, groups })
    }

    /// Returns an incident as its line in the event log, with what became of it.
    fn json(&self, incident: &Incident) -> Value {
        let (seq, at) = self.records.get(&incident.number).copied().unwrap_or_default();
        let event = Event::IncidentOpened(Box::new(incident.clone()));
        let names = self.view.names();
        let line = event_line(&EventRecord { seq, at, event }, names);
        let mut value: Value = serde_json::from_str(&line).unwrap_or_default();
        value["state"] = incident.state().name().into();
        if let Some(recovery) = &incident.recovery {
            value["time_to_recover_us"] = json!(recovery.at.since(incident.at).as_micros());
            if let Some((agent, attempt)) = recovery.reassigned {
                value["reassigned_to"] = names.agent(agent).into();
                value["reassigned_attempt"] = attempt.into();
            }
        }
        if let Some(acknowledgement) = &incident.acknowledgement {
            value["note"] = acknowledgement.note.as_ref().into();
        }
        value
    }

    fn print_list(&self, format: Format) -> Result<(), CommandError> {
        let rows: Vec<Value> = self.incidents.iter().map(|incident| self.json(incident)).collect();
        if format == Format::Json {
            return print(&format!("{}\n", json!({ "incidents": rows })));
        }
        let heads = [
            "incident", "state", "severity", "type", "agent", "task", "attempt", "reason",
            "message", "action",
        ];
        let mut table = table(&heads);
        let hidden = rows.len().saturating_sub(ROWS_MAX);
        for row in rows.iter().skip(hidden) {
            table.add_row(heads.map(|head| short(&row[head])));
        }
        let more = match hidden {
            0 => String::new(),
            hidden => format!("{hidden} older ones are not shown; --format json has all\n"),
        };
        print(&format!("{table}\n{more}"))
    }

    fn print_groups(&self, format: Format) -> Result<(), CommandError> {
        let newest: BTreeMap<u64, &Incident> =
            self.incidents.iter().map(|incident| (incident.fingerprint, incident)).collect();
        let row = |group: &Group| self.group(group, newest.get(&group.fingerprint).copied());
        let rows: Vec<Value> = self.groups.iter().map(row).collect();
        if format == Format::Json {
            return print(&format!("{}\n", json!({ "groups": rows })));
        }
        let heads =
            ["fingerprint", "role", "type", "reason", "message", "count", "recovered", "last"];
        let mut table = table(&heads);
        for row in &rows {
            table.add_row(heads.map(|head| short(&row[head])));
        }
        numbers_right(&mut table, 5);
        print(&format!("{table}\n"))
    }

    /// Returns a group; the example is its newest incident.
    fn group(&self, group: &Group, example: Option<&Incident>) -> Value {
        let example = example.map(|incident| self.json(incident)).unwrap_or_default();
        json!({
            "fingerprint": format!("{:016x}", group.fingerprint), "role": example["role"],
            "type": example["type"], "reason": example["reason"], "message": example["message"],
            "count": group.count, "recovered": group.recovered, "first": group.first,
            "last": group.last, "first_at_us": group.first_at.0, "last_at_us": group.last_at.0,
            "mean_time_to_recover_us": group.recovery_us.checked_div(group.recovered),
        })
    }

    fn print_summary(&self, format: Format) -> Result<(), CommandError> {
        let mut summary = IncidentSummary::default();
        self.incidents.iter().for_each(|incident| summary.add(incident, self.view.names()));
        let sections = [
            ("agents", "agent", summary.agents()),
            ("roles", "role", summary.roles()),
            ("task_kinds", "task kind", summary.task_kinds()),
            ("causes", "cause", summary.causes()),
        ];
        if format == Format::Json {
            let mut value = json!({ "total": summary.total() });
            for (key, _, rows) in sections {
                value[key] = json!(rows);
            }
            return print(&format!("{value}\n"));
        }
        let total = summary.total();
        let mut text = format!(
            "{} incidents: {} recovered{}, {} acknowledged, {} injected by chaos\n",
            total.incidents,
            total.recovered,
            mean(&total).map(|mean| format!(" (mean time {mean})")).unwrap_or_default(),
            total.acknowledged,
            total.injected
        );
        for (_, head, rows) in sections {
            writeln!(text, "{}", summary_table(head, &rows)).ok();
        }
        print(&text)
    }
}

fn summary_table(head: &str, rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&[
        head,
        "incidents",
        "injected",
        "recovered",
        "acknowledged",
        "mean time to recover",
    ]);
    for row in rows.iter().take(ROWS_MAX) {
        table.add_row([
            row.name.clone(),
            row.incidents.to_string(),
            row.injected.to_string(),
            row.recovered.to_string(),
            row.acknowledged.to_string(),
            mean(row).unwrap_or_default(),
        ]);
    }
    numbers_right(&mut table, 1);
    table
}

fn mean(row: &Row) -> Option<String> {
    row.mean_time_to_recover_us.map(|us| format!("{:?}", Duration::from_micros(us)))
}

/// Folds the event log of a store.
fn fold(view: &StoreView) -> Result<(IncidentBook, Records), CommandError> {
    let mut limits = Limits::default();
    limits.incidents_in_memory_max = INCIDENTS_MAX;
    limits.incident_groups_max = INCIDENTS_MAX;
    let (mut book, mut records) = (IncidentBook::new(&limits, 0), Records::new());
    for record in view.events(1) {
        let record = record?;
        book.recall(&record);
        if let Event::IncidentOpened(incident) = &record.event {
            records.insert(incident.number, (record.seq, record.at));
        }
    }
    Ok((book, records))
}

fn unknown(number: u64, opened: u64) -> CommandError {
    CommandError::BadInput(format!(
        "the store has no incident {number}: {opened} were opened; `guild incidents` lists them"
    ))
}

fn show(store: &Path, number: u64, format: Format) -> Result<(), CommandError> {
    let everything =
        Filter { role: None, agent: None, task: None, cause: None, state: None, since: None };
    let log = Log::read(store, everything)?;
    let incident = log.incidents.iter().find(|incident| incident.number == number);
    let opened = log.incidents.last().map_or(0, |last| last.number);
    let row = log.json(incident.ok_or_else(|| unknown(number, opened))?);
    if format == Format::Json {
        return print(&format!("{row}\n"));
    }
    let mut text = String::new();
    let fields = row.as_object().into_iter().flatten();
    let fields = fields.filter(|(key, value)| *key != "kind" && !value.is_null());
    for (key, value) in fields {
        let items = match value {
            Value::Array(items) => items.as_slice(),
            value => std::slice::from_ref(value),
        };
        for item in items {
            writeln!(text, "{key:20} {}", cell(item)).ok();
        }
    }
    print(&text)
}

fn acknowledge(store: &Path, number: u64, note: &str) -> Result<(), CommandError> {
    let view = read(store)?;
    let (mut book, _) = fold(&view)?;
    let (now, opened) = (view.last_at(), book.opened());
    if !book.incidents().any(|incident| incident.number == number) {
        return Err(unknown(number, opened));
    }
    let event = book
        .acknowledge(now, number, note)
        .map_err(|error| CommandError::BadInput(format!("--note: {error}")))?;
    // Its lock is in the way of the change.
    drop(view);
    append(store, event)?;
    print(&format!("incident {number} is acknowledged\n"))
}

fn short(value: &Value) -> String {
    let text = cell(value);
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}
