//! Decides whether a transaction may commit, and applies it: one serial step without I/O.
//!
//! A transaction that writes may commit if all that it read is still so: each key has the version
//! that was read (or is still absent), and each range holds no newer key and as many keys as were
//! seen there. That compares states, not histories, so there is no window that a slow transaction
//! could fall out of. A transaction that writes nothing is serialised at its snapshot and always
//! commits. (Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981, backward
//! validation; phantoms by range as in FoundationDB.)

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use guild_core::id::{CommitVersion, TaskId};
use guild_core::limits::Limits;

use crate::snapshot::{Entry, Key, Map, Snapshot};
use crate::transaction::{
    RangeRead, Refused, Step, TransactionError, TransactionParts, Write, run, text,
};

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
}

/// A condition, or the floor of an addition, that others have broken since it was stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// What was refused, and on which key.
    pub error: TransactionError,
    /// The version that the transaction read at.
    pub read_at: CommitVersion,
    /// The version of the key now; none: it is absent.
    pub now_at: Option<CommitVersion>,
    /// The task that made the newest change, where known.
    pub writer: Option<TaskId>,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match self.now_at {
            Some(version) => write!(f, " (read at version {}, now at {version})", self.read_at),
            None => write!(f, " (read at version {}, removed since)", self.read_at),
        }
    }
}

/// Which change came between the read and the commit of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key that was read and has changed; with `prefix`, a key of the range that changed.
    pub key: Option<String>,
    /// The prefix of the scan that would now answer otherwise; none: a single key was read.
    pub prefix: Option<String>,
    /// The version that the transaction read at.
    pub read_at: CommitVersion,
    /// The version of the change; none: the key was removed.
    pub now_at: Option<CommitVersion>,
    /// The task that made the change, where known.
    pub writer: Option<TaskId>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.prefix) {
            (Some(key), None) => write!(f, "memory key `{key}`")?,
            (Some(key), Some(prefix)) => write!(f, "memory key `{key}` in the range `{prefix}*`")?,
            (None, Some(prefix)) => write!(f, "a memory key in the range `{prefix}*`")?,
            (None, None) => write!(f, "the memory")?,
        }
        write!(f, ", read at version {}, was ", self.read_at)?;
        match self.now_at {
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
    /// A merge operation cannot work on what is there.
    #[error("{0}")]
    Merge(TransactionError),
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

/// The data of the shared memory and the version of its newest commit.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) map: Map,
    pub(crate) version: CommitVersion,
    /// Version of the newest commit that changed data: a transaction that read at it or later
    /// need not be validated.
    pub(crate) changed_at: CommitVersion,
}

/// A checked change: the key and its new value, or none to remove it.
pub(crate) type Change = (Key, Option<Bytes>);

impl Data {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.version, self.map.clone())
    }

    /// Checks a transaction and returns what it changes; changes nothing.
    pub(crate) fn prepare(
        &self,
        parts: TransactionParts,
        limits: &Limits,
    ) -> Result<Vec<Change>, CommitError> {
        if parts.writes.is_empty() {
            return Ok(Vec::new());
        }
        if parts.read_at < self.changed_at {
            self.validate(&parts).map_err(CommitError::Conflict)?;
        }
        self.resolve(parts, limits)
    }

    /// Applies checked changes as the next commit; tells `each` the old and the new entry.
    pub(crate) fn apply(
        &mut self,
        changes: Vec<Change>,
        writer: Option<TaskId>,
        mut each: impl FnMut(&Key, Option<&Entry>, Option<&mut Entry>),
    ) -> CommitVersion {
        self.version = self.version.next();
        if !changes.is_empty() {
            self.changed_at = self.version;
        }
        for (key, value) in changes {
            match value {
                Some(value) => {
                    let mut new = Entry { value, version: self.version, writer, checksum: 0 };
                    let old = self.map.get(&*key).map(|entry| &**entry);
                    each(&key, old, Some(&mut new));
                    self.map.insert(key, Arc::new(new));
                }
                None => {
                    if let Some(old) = self.map.remove(&*key) {
                        each(&key, Some(&old), None);
                    }
                }
            }
        }
        self.version
    }

    fn validate(&self, parts: &TransactionParts) -> Result<(), Box<Conflict>> {
        for (key, seen) in &parts.reads {
            let now = self.map.get(&**key);
            if now.map(|entry| entry.version) != *seen {
                return Err(changed(key, now, parts.read_at));
            }
        }
        for Refused { key, steps } in &parts.refused {
            let now = self.map.get(&**key);
            let result = run(key, now.map(|entry| &entry.value), steps);
            if !result.is_err_and(|error| error.depends_on_others()) {
                return Err(changed(key, now, parts.read_at));
            }
        }
        parts.ranges.iter().try_for_each(|range| self.validate_range(range, parts.read_at))
    }

    /// No entry of the range is newer than the snapshot, so all of them were there; if there are
    /// as many as were seen, none was removed either.
    fn validate_range(
        &self,
        range: &RangeRead,
        read_at: CommitVersion,
    ) -> Result<(), Box<Conflict>> {
        let to = range.last.as_ref().map_or(Bound::Unbounded, |last| Bound::Included(&**last));
        let entries = self
            .map
            .range::<_, [u8]>((Bound::Included(&*range.prefix), to))
            .take_while(|(key, _)| key.starts_with(&range.prefix));
        let mut rows = 0;
        for (key, entry) in entries {
            if entry.version > read_at {
                return Err(Box::new(Conflict {
                    key: Some(text(key)),
                    prefix: Some(text(&range.prefix)),
                    read_at,
                    now_at: Some(entry.version),
                    writer: entry.writer,
                }));
            }
            rows += 1;
        }
        if rows == range.rows {
            return Ok(());
        }
        Err(Box::new(Conflict {
            key: None,
            prefix: Some(text(&range.prefix)),
            read_at,
            now_at: None,
            writer: None,
        }))
    }

    fn resolve(
        &self,
        parts: TransactionParts,
        limits: &Limits,
    ) -> Result<Vec<Change>, CommitError> {
        let writes = parts.writes.values().map(Write::operations).sum();
        let writes_max = limits.writes_per_transaction_max;
        if writes > writes_max {
            return Err(CommitError::Invalid(Violation::TooManyWrites { writes, writes_max }));
        }
        let mut changes = Vec::with_capacity(parts.writes.len());
        let mut bytes = 0;
        for (key, write) in parts.writes {
            bytes += key.len() + write.size_bytes();
            let value = match write {
                Write::Put(value) => Some(value),
                Write::Delete => None,
                Write::Steps(steps) => match self.run(&key, &steps, parts.read_at)? {
                    Some(value) => value,
                    None => continue,
                },
            };
            check_size(&key, value.as_ref(), limits).map_err(CommitError::Invalid)?;
            changes.push((key, value));
        }
        let bytes_max = limits.transaction_bytes_max;
        if bytes > bytes_max {
            return Err(CommitError::Invalid(Violation::TransactionTooLarge { bytes, bytes_max }));
        }
        Ok(changes)
    }

    /// Runs steps on what is there; none: they change nothing.
    fn run(
        &self,
        key: &[u8],
        steps: &[Step],
        read_at: CommitVersion,
    ) -> Result<Option<Option<Bytes>>, CommitError> {
        let entry = self.map.get(key);
        let base = entry.map(|entry| &entry.value);
        match run(key, base, steps) {
            Ok(value) => Ok((value.as_ref() != base).then_some(value)),
            Err(error) if error.depends_on_others() => Err(CommitError::Unmet(Box::new(Unmet {
                error,
                read_at,
                now_at: entry.map(|entry| entry.version),
                writer: entry.and_then(|entry| entry.writer),
            }))),
            Err(error) => Err(CommitError::Invalid(Violation::Merge(error))),
        }
    }
}

fn changed(key: &[u8], now: Option<&Arc<Entry>>, read_at: CommitVersion) -> Box<Conflict> {
    Box::new(Conflict {
        key: Some(text(key)),
        prefix: None,
        read_at,
        now_at: now.map(|entry| entry.version),
        writer: now.and_then(|entry| entry.writer),
    })
}

fn check_size(key: &Key, value: Option<&Bytes>, limits: &Limits) -> Result<(), Violation> {
    if key.len() > limits.key_bytes_max {
        let (bytes, bytes_max) = (key.len(), limits.key_bytes_max);
        let start: String = text(key).chars().take(64).collect();
        return Err(Violation::KeyTooLong { key: format!("{start}..."), bytes, bytes_max });
    }
    match value {
        Some(value) if value.len() > limits.value_bytes_max => {
            let (bytes, bytes_max) = (value.len(), limits.value_bytes_max);
            Err(Violation::ValueTooLarge { key: text(key), bytes, bytes_max })
        }
        Some(_) | None => Ok(()),
    }
}
