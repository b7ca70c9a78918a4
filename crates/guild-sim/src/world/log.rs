//! Keeps the event log of a world: one canonical text, its running hash, and who reads along.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::digest::Digest;
use guild_core::event::{Event, EventRecord, line, write_line};
use guild_memory::NameTable;
use tokio::sync::Notify;

use super::fate::{Fate, Fates};
use crate::checker::serial::{Running, Verdict};

/// Reads every record with its line, in order.
pub trait LogReader: Send {
    /// Takes the next record; `line` has no line break.
    fn record(&mut self, record: &EventRecord, line: &str);
}

impl<F: FnMut(&EventRecord, &str) + Send> LogReader for F {
    fn record(&mut self, record: &EventRecord, line: &str) {
        self(record, line);
    }
}

/// The log of a world; every clone is the same log. It outlives the guild that writes it.
#[derive(Clone)]
pub(super) struct Log(Arc<Shared>);

struct Shared {
    sink: Mutex<Sink>,
    /// Told when the event number that somebody waits for is there.
    reached: Notify,
}

struct Sink {
    seq: u64,
    /// Of all lines but those that are still in `text`.
    hash: Digest,
    /// The newest lines, each with its line break.
    text: String,
    keeps_lines: bool,
    lines: Vec<String>,
    readers: Vec<Box<dyn LogReader>>,
    awaited: Option<u64>,
    counts: Counts,
    fates: Fates,
    /// Whether there can be a recovery.
    remembers: bool,
    /// The hash of each line, to recognise it after a recovery.
    told: Vec<u64>,
    rewritten: Option<u64>,
    /// Whether lines tell what commits have read and written.
    tells_histories: bool,
    history: Running,
    /// The line after which the history was judged last.
    judged: u64,
}

/// What a log holds, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines.
    pub events: u64,
    /// Attempts that were assigned.
    pub attempts: u64,
    /// Lives of agents that ended badly.
    pub crashes: u64,
    /// Lives that followed one.
    pub restarts: u64,
    /// Agents that were quarantined.
    pub quarantines: u64,
    /// Incidents that were opened.
    pub incidents: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Times that the whole process started again.
    pub recoveries: u64,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("seq", &self.sink().seq).finish_non_exhaustive()
    }
}

impl Log {
    pub(super) fn new(
        keeps_lines: bool,
        remembers: bool,
        tells_histories: bool,
        readers: Vec<Box<dyn LogReader>>,
    ) -> Self {
        let sink = Sink {
            seq: 0,
            hash: Digest::default(),
            text: String::new(),
            keeps_lines,
            lines: Vec::new(),
            readers,
            awaited: None,
            counts: Counts::default(),
            fates: Fates::default(),
            remembers,
            told: Vec::new(),
            rewritten: None,
            tells_histories,
            history: Running::default(),
            judged: 0,
        };
        Self(Arc::new(Shared { sink: Mutex::new(sink), reached: Notify::new() }))
    }

    /// Adds the next record; one that is known from before a recovery must be as it was.
    pub(super) fn add(&self, record: &EventRecord, names: &NameTable) {
        let mut sink = self.sink();
        let is_new = record.seq > sink.seq;
        // What was told and then lost has left no history that goes on.
        if is_new && sink.rewritten.is_none() {
            sink.history.take(record, names);
        }
        let plain;
        let record = match &record.event {
            Event::MemoryCommitted { version, task, writes, .. } if !sink.tells_histories => {
                let (version, task, writes, reads) = (*version, *task, *writes, None);
                let event = Event::MemoryCommitted { version, task, writes, reads };
                plain = EventRecord { event, ..*record };
                &plain
            }
            _ => record,
        };
        if !is_new {
            return sink.compare(record, names);
        }
        sink.add(record, names);
        if sink.awaited.is_some_and(|seq| seq <= record.seq) {
            sink.awaited = None;
            self.0.reached.notify_one();
        }
    }

    /// Waits until the log has this event.
    pub(super) async fn reach(&self, seq: u64) {
        {
            let mut sink = self.sink();
            if sink.seq >= seq {
                return;
            }
            sink.awaited = Some(seq);
        }
        self.0.reached.notified().await;
    }

    pub(super) fn seq(&self) -> u64 {
        self.sink().seq
    }

    pub(super) fn rewritten(&self) -> Option<u64> {
        self.sink().rewritten
    }

    pub(super) fn history(&self) -> Verdict {
        let mut sink = self.sink();
        sink.judged = sink.seq;
        sink.history.verdict()
    }

    /// Returns the verdict about the history; an empty one, where it was told after the last line.
    pub(super) fn untold_history(&self) -> Verdict {
        let is_told = {
            let sink = self.sink();
            sink.judged == sink.seq
        };
        if is_told { Verdict::default() } else { self.history() }
    }

    pub(super) fn hash(&self) -> u64 {
        let sink = self.sink();
        let mut hash = sink.hash.clone();
        hash.update(sink.text.as_bytes());
        hash.value()
    }

    pub(super) fn counts(&self) -> Counts {
        self.sink().counts
    }

    pub(super) fn fate(&self, agent: &str) -> Fate {
        self.sink().fates.of(agent)
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.sink().lines.clone()
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.0.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of lines that are hashed in one go.
const HASHED_AT_ONCE: usize = 4_096;

impl Sink {
    /// Compares a record that was told before with what was told.
    fn compare(&mut self, record: &EventRecord, names: &NameTable) {
        let line = line(record, names);
        let told = usize::try_from(record.seq - 1).ok().and_then(|place| self.told.get(place));
        if told.is_some_and(|told| *told != Digest::of(line.as_bytes())) {
            self.rewritten.get_or_insert(record.seq);
        }
    }

    fn add(&mut self, record: &EventRecord, names: &NameTable) {
        self.seq = record.seq;
        if self.text.len() > HASHED_AT_ONCE {
            self.hash.update(self.text.as_bytes());
            self.text.clear();
        }
        let start = self.text.len();
        write_line(record, names, &mut self.text);
        self.text.push('\n');
        let line = &self.text[start..self.text.len() - 1];
        if self.remembers {
            self.told.push(Digest::of(line.as_bytes()));
        }
        self.counts.add(&record.event);
        self.fates.add(&record.event, names);
        for reader in &mut self.readers {
            reader.record(record, line);
        }
        if self.keeps_lines {
            self.lines.push(line.to_owned());
        }
    }
}

impl Counts {
    fn add(&mut self, event: &Event) {
        self.events += 1;
        match event {
            Event::GuildStarted { epoch, .. } => self.recoveries = u64::from(epoch.0) - 1,
            Event::TaskAssigned { .. } => self.attempts += 1,
            Event::AgentCrashed { .. } => self.crashes += 1,
            Event::AgentRestarted { .. } => self.restarts += 1,
            Event::AgentQuarantined { .. } => self.quarantines += 1,
            Event::IncidentOpened { .. } => self.incidents += 1,
            Event::FaultInjected { .. } => self.faults += 1,
            _ => {}
        }
    }
}
