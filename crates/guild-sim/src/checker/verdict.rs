//! Says which promises a log keeps: one ruling for each invariant.

use std::fmt;
use std::str::FromStr;

/// A promise of Guild that is judged from the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is told by its `promise`")]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I10,
    I11,
    I12,
    I13,
    I14,
    I15,
    I16,
    I17,
}

impl Invariant {
    /// All invariants, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
        Self::I13,
        Self::I14,
        Self::I15,
        Self::I16,
        Self::I17,
    ];

    /// Returns its name: `I1` to `I17`.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13",
            "I14", "I15", "I16", "I17",
        ];
        NAMES[self as usize]
    }

    /// Returns what it promises, as a fragment of a sentence.
    pub fn promise(self) -> &'static str {
        match self {
            Self::I1 => "no task is lost: each ends exactly once",
            Self::I2 => "what has ended stays ended",
            Self::I3 => "no effect happens twice",
            Self::I4 => "a task starts after its parents and reads what they committed",
            Self::I5 => "one live lease per task; results only with the current token",
            Self::I6 => "attempts and backoff stay within the policy",
            Self::I7 => "no quota is exceeded",
            Self::I8 => "the memory is serialisable",
            Self::I9 => "what was acknowledged at `disk` outlives the process",
            Self::I10 => "each disruptive fault has its incident, each incident its cause",
            Self::I11 => "agents that no fault selects are not disturbed",
            Self::I12 => "after the quiet phase begins everything ends in time",
            Self::I13 => "no ready task waits for nothing",
            Self::I14 => "nothing is left over after the end",
            Self::I15 => "the same seed gives the same log",
            Self::I16 => "nothing starts after a cancel",
            Self::I17 => "one name gives one run",
        }
    }

    /// Returns what is counted when it is checked.
    pub fn unit(self) -> &'static str {
        match self {
            Self::I1 => "tasks ended",
            Self::I2 => "events of tasks",
            Self::I3 => "effects",
            Self::I4 => "starts and reads",
            Self::I5 => "leases",
            Self::I6 => "failed attempts",
            Self::I7 => "changes of quotas",
            Self::I8 => "commits",
            Self::I9 => "recoveries",
            Self::I10 => "faults and incidents",
            Self::I11 => "agents",
            Self::I12 => "runs",
            Self::I13 => "moments",
            Self::I14 => "ends",
            Self::I15 => "logs",
            Self::I16 => "cancelled runs",
            Self::I17 => "submissions",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no invariant has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown invariant `{0}`: there are I1 to I17")]
pub struct UnknownInvariant(pub String);

impl FromStr for Invariant {
    type Err = UnknownInvariant;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|invariant| invariant.name() == name);
        known.ok_or_else(|| UnknownInvariant(name.to_owned()))
    }
}

/// How an invariant is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The line at which it is seen, from 1; the last one for what only the end shows.
    pub line: u64,
    /// The `seq` of that line.
    pub seq: u64,
    /// What is wrong, in a sentence without its full stop.
    pub message: String,
}

/// What a log says about one invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Nothing speaks against it.
    Holds {
        /// How many things were checked; see [`Invariant::unit`].
        checked: u64,
        /// What could not be judged beside them.
        note: Option<String>,
    },
    /// The log, or what is known beyond it, does not suffice.
    NotJudged {
        /// What is missing.
        reason: String,
    },
    /// It is broken.
    Violated {
        /// Where first.
        first: Violation,
        /// How often in all.
        count: u64,
    },
}

impl Ruling {
    /// Returns whether it is [`Ruling::Violated`].
    pub fn is_violated(&self) -> bool {
        matches!(self, Self::Violated { .. })
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds { note: None, .. } => f.write_str("holds"),
            Self::Holds { note: Some(note), .. } => write!(f, "holds; {note}"),
            Self::NotJudged { reason } => write!(f, "not judged: {reason}"),
            Self::Violated { first, count: 1 } => {
                write!(f, "violated at line {}: {}", first.line, first.message)
            }
            Self::Violated { first, count } => {
                let (line, message) = (first.line, &first.message);
                write!(f, "violated {count} times, first at line {line}: {message}")
            }
        }
    }
}

/// Where a text stops being an event log; nothing after it is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// What a log says about every invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// A ruling for each of [`Invariant::ALL`], in their order.
    pub rulings: Vec<(Invariant, Ruling)>,
    /// Lines that were read.
    pub lines: u64,
    /// Lines of kinds that are not known here; they were passed over.
    pub unknown_kinds: u64,
    /// The hash of the lines, as `events_hash` and [`World::log_hash`](crate::World::log_hash) have
    /// it.
    pub log_hash: u64,
    /// Where the text stops being an event log, if it does.
    pub broken: Option<Broken>,
}

impl Verdict {
    /// Returns whether the log is whole and violates nothing.
    pub fn is_clean(&self) -> bool {
        self.broken.is_none() && self.first_violation().is_none()
    }

    /// Returns the ruling about one invariant.
    pub fn ruling(&self, invariant: Invariant) -> &Ruling {
        &self.rulings[invariant as usize].1
    }

    /// Returns every invariant that is violated, with its first violation.
    pub fn violations(&self) -> impl Iterator<Item = (Invariant, &Violation)> {
        self.rulings.iter().filter_map(|(invariant, ruling)| match ruling {
            Ruling::Violated { first, .. } => Some((*invariant, first)),
            Ruling::Holds { .. } | Ruling::NotJudged { .. } => None,
        })
    }

    /// Returns the violation at the first line that has one.
    pub fn first_violation(&self) -> Option<(Invariant, &Violation)> {
        self.violations().min_by_key(|(_, violation)| violation.line)
    }
}
