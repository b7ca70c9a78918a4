//! `guild verify`: reads an event log and says which promises it keeps; a history goes to `history.rs`.
//!
//! It reads line by line, so that a log of any length needs no more memory than what is alive in
//! it at once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use guild_sim::checker::{Checker, Knowledge, Ruling, Verdict, Watch, serial};
use guild_sim::world::LogReader;
use serde_json::{Value, json};

use crate::args::Format;
use crate::command::{history, print};
use crate::exit_code::{CommandError, Exit};
use crate::render::table;

/// The name that stands for standard input.
const STDIN: &str = "-";
/// A line that is longer is none of an event log.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Runs the command.
pub(crate) fn verify(path: &Path, format: Format) -> Result<Exit, CommandError> {
    let name = match path.as_os_str() == STDIN {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    };
    let bad = |message: String| CommandError::BadInput(format!("{name}: {message}"));
    let unread = |error: io::Error| bad(format!("cannot read it: {error}"));
    let source: Box<dyn Read> = if path.as_os_str() == STDIN {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(unread)?)
    };
    let mut source = unpacked(source).map_err(unread)?;
    let begin = source.fill_buf().map_err(unread)?;
    if serial::reader::is_history(&String::from_utf8_lossy(begin)) {
        let mut text = String::new();
        source.read_to_string(&mut text).map_err(unread)?;
        return history::verify(&name, &text, format);
    }
    let verdict = judge(source).map_err(|(line, why)| bad(format!("line {line}: {why}")))?;
    let text = match format {
        Format::Json => format!("{}\n", to_json(&verdict)),
        Format::Table => to_text(&verdict, &name),
    };
    // Where nothing can be judged there is nothing to print but what is wrong.
    if let Some((invariant, first)) = verdict.first_violation() {
        print(&text)?;
        let rest = verdict.broken.as_ref().map_or_else(String::new, |broken| {
            format!("\n{name}: {broken}; nothing is judged from there on")
        });
        let (line, seq, message) = (first.line, first.seq, &first.message);
        return Err(CommandError::Violated(format!(
            "{name}: line {line} (seq {seq}): {invariant} is violated: {message}{rest}"
        )));
    }
    if let Some(broken) = &verdict.broken {
        return Err(bad(broken.to_string()));
    }
    if verdict.lines == 0 {
        return Err(bad("it is empty: an event log has a line for each event".to_owned()));
    }
    print(&text)?;
    Ok(Exit::Done)
}

/// Returns who reads a log along, where it is to be judged.
pub(crate) fn watch(validate: bool) -> Option<Watch> {
    validate.then(Watch::default)
}

/// Returns the same as a reader.
pub(crate) fn reader(watch: Option<&Watch>) -> Option<Box<dyn LogReader>> {
    watch.map(|watch| Box::new(watch.clone()) as Box<dyn LogReader>)
}

/// Fails when the log of a simulation violates an invariant.
pub(crate) fn judge_simulation(watch: Option<&Watch>, seed: u64) -> Result<(), CommandError> {
    let Some(watch) = watch else { return Ok(()) };
    let verdict = watch.finish_with(&Knowledge { is_complete: true, ..Knowledge::default() });
    match (&verdict.broken, verdict.first_violation()) {
        (_, Some((invariant, first))) => Err(CommandError::Violated(format!(
            "with seed {seed}, event {}: {invariant} is violated: {}",
            first.seq, first.message
        ))),
        (Some(broken), None) => {
            Err(CommandError::Violated(format!("the event log with seed {seed}: {broken}")))
        }
        (None, None) => Ok(()),
    }
}

/// Returns what is in a file, which may be compressed.
fn unpacked(source: Box<dyn Read>) -> io::Result<Box<dyn BufRead>> {
    let mut source = BufReader::with_capacity(1 << 16, source);
    if !source.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(source));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(source))))
}

/// Reads a log; the error is a line and what is wrong with it.
fn judge(mut lines: Box<dyn BufRead>) -> Result<Verdict, (u64, String)> {
    let mut checker = Checker::new();
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let read = lines
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| (number, format!("cannot read it: {error}")))?;
        if read == 0 {
            break;
        }
        let Some(line) = bytes.strip_suffix(b"\n") else {
            // An editor may have taken the last line break away; else the line is cut, and none.
            let rest = std::str::from_utf8(&bytes).map_err(|_| (number, "it is cut".to_owned()))?;
            checker.line(rest);
            break;
        };
        let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|error| (number, format!("no UTF-8 (byte {})", error.valid_up_to() + 1)))?;
        checker.line(line);
    }
    Ok(checker.finish())
}

fn to_json(verdict: &Verdict) -> Value {
    let row = |(invariant, ruling): &(guild_sim::checker::Invariant, Ruling)| {
        let (name, promise) = (invariant.name(), invariant.promise());
        match ruling {
            Ruling::Holds { checked, note } => json!({
                "invariant": name, "promise": promise, "verdict": "holds", "checked": checked,
                "unit": invariant.unit(), "note": note,
            }),
            Ruling::NotJudged { reason } => json!({
                "invariant": name, "promise": promise, "verdict": "not_judged", "note": reason,
            }),
            Ruling::Violated { first, count } => json!({
                "invariant": name, "promise": promise, "verdict": "violated", "count": count,
                "line": first.line, "seq": first.seq, "message": first.message,
            }),
        }
    };
    json!({
        "clean": verdict.is_clean(),
        "lines": verdict.lines,
        "events_hash": format!("{:016x}", verdict.log_hash),
        "unknown_kinds": verdict.unknown_kinds,
        "broken": verdict.broken.as_ref().map(|broken| json!({
            "line": broken.line, "message": broken.message,
        })),
        "invariants": verdict.rulings.iter().map(row).collect::<Vec<_>>(),
    })
}

fn to_text(verdict: &Verdict, name: &str) -> String {
    let mut table = table(&["", "promise", "verdict", "checked"]);
    for (invariant, ruling) in &verdict.rulings {
        let (word, checked) = match ruling {
            Ruling::Holds { checked, .. } => ("holds", format!("{checked} {}", invariant.unit())),
            Ruling::NotJudged { .. } => ("not judged", String::new()),
            Ruling::Violated { first, .. } => ("VIOLATED", format!("line {}", first.line)),
        };
        table.add_row([invariant.name(), invariant.promise(), word, &checked]);
    }
    let mut text = format!("{table}\n");
    for (invariant, ruling) in &verdict.rulings {
        let (Ruling::Holds { note: Some(note), .. } | Ruling::NotJudged { reason: note }) = ruling
        else {
            continue;
        };
        text.push_str(&format!("{invariant:>4}: {note}\n"));
    }
    let lines = verdict.lines;
    let unknown = match verdict.unknown_kinds {
        0 => String::new(),
        unknown => format!(" ({unknown} of kinds that this version does not know)"),
    };
    let clean = if verdict.is_clean() { "no promise is broken" } else { "a promise is broken" };
    text.push_str(&format!("{name}: {lines} events{unknown}, {clean}\n"));
    text
}
