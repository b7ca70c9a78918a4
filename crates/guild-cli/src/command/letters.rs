//! `guild letters`: tasks that were given up because they took their agents down, with the reports of
//! their crashes.
//!
//! Everything is folded from the event log. To discard a letter is an event too, so it needs a store
//! that no guild uses; to try one again needs the agents of its flow: `guild run --retry`.

use std::path::Path;

use guild::reader::{StoreView, append, read};
use guild::{DeadLetter, DeadLetters, Event, LetterState, Names, TaskId};
use serde_json::{Value, json};

use crate::args::{Format, LetterCommand, LettersArguments};
use crate::command::print;
use crate::exit_code::CommandError;
use crate::flow::problem::suggest;
use crate::render::{cell, table};

/// Does what was asked for.
pub(crate) fn letters(arguments: &LettersArguments) -> Result<(), CommandError> {
    match &arguments.command {
        Some(LetterCommand::Show { letter, store, format }) => show(&store.store, letter, *format),
        Some(LetterCommand::Discard { letter, note, store }) => discard(&store.store, letter, note),
        None => list(arguments.store.as_deref().unwrap_or(Path::new("")), arguments.format),
    }
}

/// Returns the task that a letter names as `RUN/TASK`.
pub(crate) fn find(store: &Path, letter: &str) -> Result<TaskId, CommandError> {
    let view = read(store)?;
    named(&view, &fold(&view)?, letter).map(|letter| letter.task)
}

fn list(store: &Path, format: Format) -> Result<(), CommandError> {
    let view = read(store)?;
    let letters = fold(&view)?;
    let rows: Vec<Value> = letters.iter().map(|letter| row(&view, letter)).collect();
    if format == Format::Json {
        return print(&format!("{}\n", json!({ "letters": rows })));
    }
    let heads = ["letter", "at_s", "role", "crashes", "cause", "message", "state"];
    let mut table = table(&heads);
    for row in &rows {
        table.add_row(heads.map(|head| cell(&row[head])));
    }
    print(&format!("{table}\n"))
}

fn show(store: &Path, name: &str, format: Format) -> Result<(), CommandError> {
    let view = read(store)?;
    let letters = fold(&view)?;
    let letter = named(&view, &letters, name)?;
    let mut shown = row(&view, letter);
    let crashes: Vec<Value> = letter
        .crashes
        .iter()
        .map(|crash| {
            json!({
                "at_us": crash.at.0, "attempt": crash.attempt,
                "agent": view.names().agent(crash.agent), "incarnation": crash.incarnation.0,
                "cause": crash.cause, "message": &*crash.message,
            })
        })
        .collect();
    if format == Format::Json {
        shown["reports"] = crashes.into();
        return print(&format!("{shown}\n"));
    }
    let why = if letter.is_poison { "it is poison" } else { "its attempts are used up" };
    let heads = ["attempt", "at_us", "agent", "cause", "message"];
    let mut table = table(&heads);
    for crash in &crashes {
        table.add_row(heads.map(|head| cell(&crash[head])));
    }
    let state = shown["state"].as_str().unwrap_or_default();
    print(&format!("{name}: given up, for {why}; {state}\n{table}\n"))
}

fn discard(store: &Path, letter: &str, note: &str) -> Result<(), CommandError> {
    let task = find(store, letter)?;
    append(store, Event::LetterDiscarded { task, note: note.into() })?;
    print(&format!("{letter} is discarded\n"))
}

fn fold(view: &StoreView) -> Result<DeadLetters, CommandError> {
    let mut letters = DeadLetters::new(LETTERS_MAX);
    for record in view.events(1) {
        letters.apply(&record?);
    }
    Ok(letters)
}

fn named<'a>(
    view: &StoreView,
    letters: &'a DeadLetters,
    name: &str,
) -> Result<&'a DeadLetter, CommandError> {
    let found = letters.iter().find(|letter| full_name(view, letter.task) == name);
    found.ok_or_else(|| {
        let known: Vec<String> =
            letters.iter().map(|letter| full_name(view, letter.task)).take(10).collect();
        let hint = suggest(name, known.iter().map(String::as_str));
        let path = view.path().display();
        CommandError::BadInput(format!("{path} holds no dead letter `{name}`{hint}"))
    })
}

fn full_name(view: &StoreView, task: TaskId) -> String {
    format!("{}/{}", view.names().run(task.run), view.names().task(task))
}

fn row(view: &StoreView, letter: &DeadLetter) -> Value {
    let names = view.names();
    let state = match &letter.state {
        LetterState::Waiting => "waiting".to_owned(),
        LetterState::Retried(run) => format!("retried as {}", names.run(*run)),
        LetterState::Discarded(note) if note.is_empty() => "discarded".to_owned(),
        LetterState::Discarded(note) => format!("discarded: {note}"),
    };
    let last = letter.crashes.last();
    json!({
        "letter": full_name(view, letter.task),
        "run": names.run(letter.task.run),
        "task": names.task(letter.task),
        "at_us": letter.at.0,
        "at_s": format!("{:.3}", letter.at.0 as f64 / 1e6),
        "role": last.map(|crash| names.role(crash.agent.role)),
        "crashes": letter.crashes.len(),
        "poison": letter.is_poison,
        "cause": last.map(|crash| crash.cause),
        "message": last.map(|crash| &*crash.message),
        "state": state,
    })
}

/// Letters that are read from a log; of more, the oldest are not shown.
const LETTERS_MAX: usize = 100_000;
