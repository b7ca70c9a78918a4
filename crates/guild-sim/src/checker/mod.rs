//! Checks the promises of Guild from the event log alone.
//!
//! A [`Checker`] takes one line after the other, of a run or of a simulation, and ends with a
//! [`Verdict`]: for each of the seventeen [`Invariant`]s whether it holds, with how much was
//! checked; or that it cannot be judged, and why; or the first line that violates it. It trusts
//! nothing but the lines: it reads them itself, and knows nothing of the guild that wrote them.
//! What a harness knows beyond the log goes into [`Knowledge`].
//!
//! ```
//! use guild_sim::checker::{Checker, Invariant, Knowledge};
//!
//! let mut checker = Checker::new();
//! checker.line(r#"{"seq":1,"at_us":0,"kind":"run_submitted","run":"r","tasks":1,"edges":0,"seed":7}"#);
//! checker.line(r#"{"seq":2,"at_us":0,"kind":"run_ended","run":"r","outcome":"completed","completed":0,"failed":0,"skipped":0,"cancelled":0,"makespan_us":0}"#);
//! let verdict = checker.finish_with(&Knowledge::default());
//!
//! assert!(!verdict.is_clean());
//! assert_eq!(verdict.first_violation().map(|(invariant, at)| (invariant, at.line)), Some((Invariant::I1, 2)));
//! ```
//!
//! In a world it reads along, without a copy of the log:
//!
//! ```
//! # use guild_core::graph::Task;
//! # use guild_runtime::{Agent, TaskContext, TaskError};
//! use guild_sim::World;
//! use guild_sim::checker::{Knowledge, Watch};
//! # struct Worker;
//! # impl Agent for Worker {
//! #     type Input = ();
//! #     type Output = ();
//! #     async fn perform(&mut self, (): (), _: &mut TaskContext) -> Result<(), TaskError> { Ok(()) }
//! # }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let watch = Watch::default();
//! let mut world = World::with_seed(7).role("worker", 1, || Worker).reader(watch.clone()).start()?;
//! # let mut graph = world.graph("one");
//! # graph.add(Task::new("task", "worker"));
//! let run = world.submit(graph.build()?)?;
//! world.run_until_ended(&run)?;
//! world.shut_down();
//!
//! let verdict = watch.finish_with(&Knowledge { is_complete: true, ..Knowledge::default() });
//! assert!(verdict.is_clean(), "{:?}", verdict.first_violation());
//! # Ok(())
//! # }
//! ```
//!
//! Architecture invariant: the board follows the log and judges nothing; each check
//! judges a line before the board takes it in, and changes nothing but its own notes.
//!
//! Memory: in proportion to what is alive, which is the tasks of runs that have not ended, agents,
//! and quotas, with 64 bits for each run that has ended; and, where histories are recorded, to the
//! number of keys in the memory. Not to the length of the log.

mod attempts;
mod board;
mod cancels;
mod check;
mod conservation;
mod disturbance;
mod effects;
mod ends;
mod findings;
mod history;
mod incidents;
mod knowledge;
mod leases;
mod leftovers;
mod liveness;
mod order;
mod quotas;
mod recovery;
mod repetition;
mod scan;
pub mod serial;
mod submissions;
mod verdict;
mod watch;

use guild_core::digest::Digest;
use guild_core::event::{LineEvent, parse_line};

use self::board::Board;
use self::check::{Check, End, Seen};
use self::findings::Findings;
pub use self::knowledge::Knowledge;
pub use self::verdict::{Broken, Invariant, Ruling, UnknownInvariant, Verdict, Violation};
pub use self::watch::Watch;

/// Judges an event log, line by line.
#[derive(Debug)]
pub struct Checker {
    board: Board,
    checks: Vec<Box<dyn Check>>,
    findings: Findings,
    lines: u64,
    seq: u64,
    at_us: u64,
    unknown_kinds: u64,
    hash: Digest,
    broken: Option<Broken>,
    /// Whether the process lost events and went on from before them.
    is_forked: bool,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// Returns a checker that has seen nothing.
    pub fn new() -> Self {
        Self {
            board: Board::default(),
            checks: check::all(),
            findings: Findings::default(),
            lines: 0,
            seq: 0,
            at_us: 0,
            unknown_kinds: 0,
            hash: Digest::default(),
            broken: None,
            is_forked: false,
        }
    }

    /// Takes the next line, without its line break. Nothing is judged after a line that is none of
    /// an event log.
    pub fn line(&mut self, line: &str) {
        if self.broken.is_some() || self.is_forked {
            return;
        }
        self.lines += 1;
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        let read = match parse_line(line) {
            Ok(read) => read,
            Err(error) => return self.break_off(error.to_string()),
        };
        let (seq, at_us, event) = (read.seq, read.at_us, read.event);
        if let Err(why) = self.check_place(seq, at_us, &event) {
            return self.break_off(why);
        }
        self.findings.at(self.lines, seq);
        let lost = self.seq + 1 - seq;
        self.seq = seq;
        self.at_us = at_us;
        if let LineEvent::Other { .. } = event {
            self.unknown_kinds += 1;
            return;
        }
        self.board.settle(&event);
        let (place, subject) = self.board.find(&event);
        let seen = Seen { at_us, event: &event, subject, place, lost };
        for check in &mut self.checks {
            check.see(&seen, &self.board, &mut self.findings);
        }
        if lost > 0 {
            self.is_forked = true;
            for invariant in Invariant::ALL {
                let line = self.lines;
                let reason = format!(
                    "the process lost events that were not durable, so nothing is judged from \
                     line {line} on"
                );
                self.findings.cannot_judge(invariant, reason);
            }
            return;
        }
        self.board.apply(place, at_us, &event);
    }

    /// Ends with what the log alone says.
    pub fn finish(self) -> Verdict {
        self.finish_with(&Knowledge::default())
    }

    /// Ends with what the log says to whom knows this.
    pub fn finish_with(mut self, knowledge: &Knowledge) -> Verdict {
        let end = End {
            knowledge,
            at_us: self.at_us,
            log_hash: self.hash.value(),
            is_whole: self.broken.is_none() && !self.is_forked,
        };
        for check in &mut self.checks {
            check.end(&end, &self.board, &mut self.findings);
        }
        Verdict {
            rulings: self.findings.into_rulings(),
            lines: self.lines,
            unknown_kinds: self.unknown_kinds,
            log_hash: self.hash.value(),
            broken: self.broken,
        }
    }

    /// Events are numbered without a gap and come in the order of their times. Only a start of the
    /// process may go back: what was not durable is gone then.
    fn check_place(&self, seq: u64, at_us: u64, event: &LineEvent<'_>) -> Result<(), String> {
        let expected = self.seq + 1;
        let is_restart = matches!(event, LineEvent::GuildStarted { epoch, .. } if *epoch > 1);
        if seq > expected {
            let missing = seq - expected;
            return Err(format!("seq is {seq}, not {expected}: {missing} events are missing"));
        }
        if seq < expected && !(is_restart && seq > 0) {
            return Err(format!(
                "seq is {seq}, not {expected}: events are out of order or doubled"
            ));
        }
        if at_us < self.at_us && seq == expected {
            let before = self.at_us;
            return Err(format!("at_us is {at_us}, before the {before} of the event before it"));
        }
        Ok(())
    }

    fn break_off(&mut self, message: String) {
        self.broken = Some(Broken { line: self.lines, message });
    }
}
