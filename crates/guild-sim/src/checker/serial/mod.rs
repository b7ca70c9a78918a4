//! Decides from a recorded history whether it is strictly serialisable.
//!
//! Clients append unique elements to lists and read whole lists, so a read tells which writes came
//! before it, in which order (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from
//! Experimental Observations", VLDB 2020). From that follow the dependencies of transactions, and a
//! cycle of dependencies is an anomaly in the sense of Adya's thesis. A history of Guild itself names
//! versions instead of lists, see [`versions`]; the graph and its cycles are the same.
//!
//! Architecture invariant: nothing of the memory is trusted or called; the history is all there is.

mod clients;
mod cycles;
mod graph;
pub mod list_append;
pub mod reader;
mod recorder;
mod running;
pub mod versions;

use std::fmt;

pub use self::clients::{Clients, list};
pub use self::recorder::Recorder;
pub use self::running::Running;

/// What contradicts serialisability. Adya's names, as Elle reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AnomalyKind {
    /// A cycle of writes alone.
    G0,
    /// A write of a transaction that failed was read.
    G1a,
    /// A value was read that its transaction has overwritten itself.
    G1b,
    /// A cycle of writes and reads of them.
    G1c,
    /// A cycle with exactly one read of something that was overwritten: a lost update, a read skew.
    GSingle,
    /// A cycle with several such reads: write skew.
    G2,
    /// A cycle that only the order in real time closes, with this many reads of something that was
    /// overwritten: none.
    G1Realtime,
    /// As `G1Realtime`, with one of them: a stale read.
    GSingleRealtime,
    /// As `G1Realtime`, with several.
    G2Realtime,
    /// A transaction contradicts its own reads and writes.
    Internal,
    /// A list holds an element twice.
    DuplicateElements,
    /// Two reads of a list can have no common order.
    IncompatibleOrder,
    /// A write stands on a write of a transaction that failed.
    DirtyUpdate,
    /// Something was read that nobody wrote.
    UnexpectedElement,
}

impl AnomalyKind {
    /// Returns the name under which Elle reports it.
    pub fn name(self) -> &'static str {
        match self {
            Self::G0 => "G0",
            Self::G1a => "G1a",
            Self::G1b => "G1b",
            Self::G1c => "G1c",
            Self::GSingle => "G-single-item",
            Self::G2 => "G2-item",
            Self::G1Realtime => "G1c-realtime",
            Self::GSingleRealtime => "G-single-item-realtime",
            Self::G2Realtime => "G2-item-realtime",
            Self::Internal => "internal",
            Self::DuplicateElements => "duplicate-elements",
            Self::IncompatibleOrder => "incompatible-order",
            Self::DirtyUpdate => "dirty-update",
            Self::UnexpectedElement => "unexpected-element",
        }
    }
}

impl fmt::Display for AnomalyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One contradiction, with the transactions that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its kind.
    pub kind: AnomalyKind,
    /// The transactions, by their index in the history; a cycle in its order.
    pub transactions: Vec<u64>,
    /// What they did, for a person.
    pub message: String,
}

/// What a history came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Transactions that were checked.
    pub transactions: usize,
    /// Dependencies between them, as far as they are known.
    pub dependencies: usize,
    /// Contradictions, each kind at most [`EXAMPLES_MAX`] times, by kind.
    pub anomalies: Vec<Anomaly>,
}

/// Anomalies of one kind that a verdict lists: the first few show what is wrong.
pub const EXAMPLES_MAX: usize = 8;

impl Verdict {
    /// Returns whether nothing contradicts that the history is strictly serialisable.
    pub fn is_serialisable(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// Returns the kinds of the anomalies, each once.
    pub fn kinds(&self) -> Vec<AnomalyKind> {
        let mut kinds: Vec<_> = self.anomalies.iter().map(|anomaly| anomaly.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn add(&mut self, kind: AnomalyKind, transactions: Vec<u64>, message: String) {
        let known = self.anomalies.iter().filter(|anomaly| anomaly.kind == kind).count();
        if known < EXAMPLES_MAX {
            self.anomalies.push(Anomaly { kind, transactions, message });
        }
    }
}
