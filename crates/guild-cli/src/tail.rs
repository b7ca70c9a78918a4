//! Follows the event log of a running guild: hashes it, writes it to a file, folds it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use guild::{Event, EventRecord};
use guild_core::digest::Digest;

use crate::exit_code::CommandError;
use crate::faults::Struck;
use crate::summary::Fold;

/// Reads every event once, in order.
#[derive(Debug)]
pub(crate) struct Tail {
    file: Option<(PathBuf, BufWriter<File>)>,
    /// None where nobody wants to see it: to write all lines takes longer than to run the tasks.
    hash: Option<Digest>,
    events: u64,
    next: u64,
    /// Whether events left RAM before they were read.
    pub(crate) has_gap: bool,
    pub(crate) fold: Fold,
    /// Names and messages of the first tasks that failed for good.
    pub(crate) failures: Vec<(String, String)>,
    /// The faults that struck in the time of the run, those before a resumption included.
    pub(crate) struck: Struck,
    /// Whether a later run of the store has begun.
    is_past: bool,
}

/// Failed tasks that are explained; more only hide the first.
const FAILURES_MAX: usize = 10;

impl Tail {
    /// Begins at the first event; creates the file.
    pub(crate) fn new(
        file: Option<&Path>,
        needs_hash: bool,
        fold: Fold,
    ) -> Result<Self, CommandError> {
        let file = file.map(|path| Ok::<_, CommandError>((path.to_owned(), create(path)?)));
        Ok(Self {
            file: file.transpose()?,
            hash: needs_hash.then(Digest::default),
            events: 0,
            next: 1,
            has_gap: false,
            fold,
            failures: Vec::new(),
            struck: Struck::default(),
            is_past: false,
        })
    }

    /// Takes the next event; `line` writes it for outsiders.
    pub(crate) fn take(
        &mut self,
        record: &EventRecord,
        line: impl Fn(&EventRecord) -> String,
    ) -> Result<(), CommandError> {
        self.has_gap |= record.seq != self.next;
        self.next = record.seq + 1;
        self.events += 1;
        self.fold.take(record);
        self.strike(&record.event);
        if let Event::TaskFailed { task, retry_at: None, message, .. } = &record.event
            && task.run == self.fold.run()
            && self.failures.len() < FAILURES_MAX
        {
            let fields: serde_json::Value = serde_json::from_str(&line(record)).unwrap_or_default();
            let name = fields["task"].as_str().unwrap_or_default().to_owned();
            self.failures.push((name, message.to_string()));
        }
        if self.file.is_none() && self.hash.is_none() {
            return Ok(());
        }
        let line = line(record) + "\n";
        if let Some(hash) = &mut self.hash {
            hash.update(line.as_bytes());
        }
        self.with_file(|file| file.write_all(line.as_bytes()))
    }

    /// Notes a strike from the end of the run before this one to the begin of the run after it: a
    /// store may hold others, and agents are also struck while they start and stop.
    fn strike(&mut self, event: &Event) {
        let own = self.fold.run();
        match event {
            Event::RunEnded { run, .. } if *run < own => self.struck = Struck::default(),
            Event::RunSubmitted { run, .. } if *run > own => self.is_past = true,
            event if !self.is_past => self.struck.take(event),
            _ => {}
        }
    }

    /// Makes what was taken visible to readers of the file.
    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        self.with_file(BufWriter::flush)
    }

    fn with_file(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), CommandError> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        write(file).map_err(|error| CommandError::EventLog { path: path.clone(), error })
    }

    /// Begins anew, to read the log from the store.
    pub(crate) fn restart(&mut self) -> Result<(), CommandError> {
        let file = self.file.take().map(|(path, _)| path);
        *self = Self::new(file.as_deref(), self.hash.is_some(), Fold::new(self.fold.run()))?;
        Ok(())
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Returns the hash of all lines, line ends included, in hex; empty where nobody wants it.
    pub(crate) fn hash(&self) -> String {
        self.hash.as_ref().map(|hash| format!("{:016x}", hash.value())).unwrap_or_default()
    }
}

/// Creates a file of lines.
pub(crate) fn create(path: &Path) -> Result<BufWriter<File>, CommandError> {
    let file = File::create(path)
        .map_err(|error| CommandError::EventLog { path: path.to_owned(), error })?;
    Ok(BufWriter::with_capacity(1 << 16, file))
}
