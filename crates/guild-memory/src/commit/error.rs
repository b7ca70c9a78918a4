//! Says why a commit is refused: as data, so that nobody has to read messages.

use std::fmt;

use guild_core::id::{AgentId, CommitVersion, TaskId};
use guild_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::namespace::Denied;
use crate::range::KeyRange;
use crate::transaction::TransactionError;

/// Why a commit is refused; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// What the transaction read has changed since; run it again.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// What the transaction requires of a key does not hold any more; run again, it is told so
    /// before it commits.
    #[error("{0}")]
    Unmet(Box<Unmet>),
    /// As `Conflict`, in a namespace that leaves conflicts to a person.
    #[error("{0}; its namespace leaves conflicts to a person")]
    Escalated(Box<Conflict>),
    /// The task has a newer lease, has ended, or is unknown.
    #[error("the lease of this attempt is no longer valid; its result is ignored")]
    StaleToken,
    /// The transaction breaks a rule; running it again cannot help.
    #[error("{0}")]
    Invalid(Violation),
    /// The store failed, so nothing is accepted any more.
    #[error("the memory is unavailable: {reason}")]
    Unavailable {
        /// What failed, and the remedy.
        reason: String,
    },
}

impl CommitError {
    /// Returns whether the same work may succeed when it is done again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::Unmet(_))
    }

    /// Returns whether what was read is reserved for the next try, so that it need not wait.
    pub fn is_reserved(&self) -> bool {
        matches!(self, Self::Conflict(conflict) if conflict.reserved_until.is_some())
    }

    /// Returns who made the change that came in between, where known.
    pub fn writer(&self) -> Option<Writer> {
        match self {
            Self::Conflict(conflict) | Self::Escalated(conflict) => conflict.writer,
            Self::Unmet(unmet) => unmet.writer,
            Self::StaleToken | Self::Invalid(_) | Self::Unavailable { .. } => None,
        }
    }
}

/// Who wrote a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The task whose completion it was committed with.
    pub task: TaskId,
    /// The agent that performed it.
    pub agent: AgentId,
}

/// A condition, or the floor of an addition, that others have broken since it was stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// What was refused, and on which key.
    pub error: TransactionError,
    /// The version that the transaction read at.
    pub read_at: CommitVersion,
    /// The version at which the key was changed or removed last; none: the history tells of its removal
    /// no more.
    pub now_at: Option<CommitVersion>,
    /// Who made that change; none: it came from outside, or is no longer known.
    pub writer: Option<Writer>,
    /// Whether the key is absent now.
    pub is_removed: bool,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        write!(f, " (read at version {}, ", self.read_at)?;
        match self.now_at {
            Some(version) if self.is_removed => write!(f, "removed at {version})"),
            Some(version) => write!(f, "now at {version})"),
            None => write!(f, "removed since)"),
        }
    }
}

/// Which change came between the read and the commit of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key that was read and has changed; with `range`, a key of the range that changed. None: one was
    /// removed from the range, and the history tells no more which.
    pub key: Option<String>,
    /// The range that was scanned and would now answer otherwise; none: a single key was read.
    pub range: Option<KeyRange>,
    /// The version of the snapshot that the transaction read.
    pub read_at: CommitVersion,
    /// The version that the key had there; none: it was absent, or a range was read.
    pub seen_at: Option<CommitVersion>,
    /// The version at which the key was changed or removed last; none: the history tells of its removal
    /// no more.
    pub now_at: Option<CommitVersion>,
    /// Who made that change; none: it came from outside, or is no longer known.
    pub writer: Option<Writer>,
    /// Whether the key is absent now.
    pub is_removed: bool,
    /// Until when others cannot change what was read, for whoever runs the transaction again: it
    /// has lost too often. None: nothing is reserved.
    pub reserved_until: Option<Timestamp>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.range) {
            (Some(key), None) => write!(f, "memory key `{key}`")?,
            (Some(key), Some(range)) => write!(f, "memory key `{key}` in the range {range}")?,
            (None, Some(range)) => write!(f, "a memory key in the range {range}")?,
            (None, None) => write!(f, "the memory")?,
        }
        write!(f, ", read at version {}, was ", self.read_at)?;
        match self.now_at {
            Some(version) if self.is_removed => write!(f, "removed at version {version}"),
            Some(version) => write!(f, "changed at version {version}"),
            None => write!(f, "removed since"),
        }
    }
}

/// The rule that a commit or a submission breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are named in the messages")]
pub enum Violation {
    /// A key is too long.
    #[error(
        "memory key `{key}` has {bytes} bytes; at most {bytes_max} are allowed (key_bytes_max)"
    )]
    KeyTooLong { key: String, bytes: usize, bytes_max: usize },
    /// A value is too large.
    #[error(
        "value of memory key `{key}` has {bytes} bytes; at most {bytes_max} are allowed (value_bytes_max); keep large data in files"
    )]
    ValueTooLarge { key: String, bytes: usize, bytes_max: usize },
    /// A transaction does too much.
    #[error(
        "the transaction has {writes} write operations; at most {writes_max} are allowed (writes_per_transaction_max)"
    )]
    TooManyWrites { writes: usize, writes_max: usize },
    /// A transaction is too large.
    #[error(
        "the transaction writes {bytes} bytes; at most {bytes_max} are allowed (transaction_bytes_max)"
    )]
    TransactionTooLarge { bytes: usize, bytes_max: usize },
    /// A transaction has too much in large values.
    #[error(
        "the large values of the transaction have {bytes} bytes together; at most {bytes_max} are allowed (value_bytes_max): commit them one by one"
    )]
    LargeValuesTooLarge { bytes: usize, bytes_max: usize },
    /// A transaction removes too many keys by range.
    #[error(
        "the transaction removes the {keys} memory keys of ranges; at most {keys_max} are allowed (range_deletes_per_transaction_max): remove smaller ranges"
    )]
    TooManyDeletes { keys: usize, keys_max: usize },
    /// A merge operation cannot work on what is there.
    #[error("{0}")]
    Merge(TransactionError),
    /// A role may not do this.
    #[error("{0}")]
    Denied(Box<Denied>),
    /// A namespace would hold too much.
    #[error(
        "memory namespace `{namespace}` would hold {wanted}; {rule} allows {max}: remove something there, or raise {rule}"
    )]
    NamespaceFull { namespace: String, rule: &'static str, wanted: u64, max: u64 },
    /// An output is too large.
    #[error("the output has {bytes} bytes; at most {bytes_max} are allowed (payload_bytes_max)")]
    OutputTooLarge { bytes: usize, bytes_max: usize },
    /// A run has too many tasks.
    #[error(
        "the run would have {tasks} tasks; at most {tasks_max} are allowed (tasks_per_run_max)"
    )]
    TooManyTasks { tasks: u64, tasks_max: u32 },
    /// A run has too many dependencies.
    #[error(
        "the run would have {edges} dependencies; at most {edges_max} are allowed (edges_per_run_max)"
    )]
    TooManyEdges { edges: u64, edges_max: u32 },
    /// A name is too long.
    #[error(
        "the name of the run has {chars} characters; at most {chars_max} are allowed (name_chars_max)"
    )]
    NameTooLong { chars: usize, chars_max: usize },
    /// A graph and its bindings do not fit, or its tasks refer to nothing.
    #[error("the graph is not sound: {0}; build it with a GraphBuilder")]
    Graph(&'static str),
}
