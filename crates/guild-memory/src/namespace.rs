//! Rules for a part of the memory: who may do what there, how much may be there, and what happens
//! when two transactions meet.
//!
//! A namespace is a prefix of keys; the longest prefix that fits a key rules it. Keys without a
//! namespace are open to everybody, and whoever meets another one there is run again.

mod rules;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

pub use self::rules::{MergeFunction, MergeFunctions, NamespaceError, Namespaces};
pub(crate) use self::rules::{Right, Usage};

/// What a role may do in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Reading values.
    pub read: bool,
    /// Putting and deleting; includes merging.
    pub write: bool,
    /// Operations that need no read: additions, sets, lists, patches.
    pub merge: bool,
    /// Following the changes.
    pub watch: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, merge: true, watch: true };
    /// Nothing.
    pub const NONE: Self = Self { read: false, write: false, merge: false, watch: false };
    /// Reading and watching.
    pub const READ: Self = Self { read: true, watch: true, ..Self::NONE };
    /// Merging only: adding to a blackboard without being able to read or overwrite it.
    pub const MERGE_ONLY: Self = Self { merge: true, ..Self::NONE };

    /// Returns the rights of these names, out of `read`, `write`, `merge` and `watch`; an error is
    /// the first other name.
    ///
    /// # Errors
    /// A name that is none of them.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut rights = Self::NONE;
        for name in names {
            match name {
                "read" => rights.read = true,
                "write" => rights.write = true,
                "merge" => rights.merge = true,
                "watch" => rights.watch = true,
                other => return Err(other),
            }
        }
        Ok(rights)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            ("read", self.read),
            ("write", self.write),
            ("merge", self.merge),
            ("watch", self.watch),
        ];
        let given: Vec<&str> =
            names.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        f.write_str(if given.is_empty() { "nothing".to_owned() } else { given.join(", ") }.as_str())
    }
}

/// What happens when a transaction has read something that has changed before it commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnConflict {
    /// The transaction is refused and run again.
    #[default]
    Retry,
    /// What was read does not matter: the later commit stands.
    LastWriterWins,
    /// This registered function makes one value out of both, for a key that the transaction has
    /// read and puts or deletes; where it cannot, as `Retry`.
    Merge(String),
    /// The first value stays, and the later one is put beside it, under `KEY@VERSION` with the
    /// version of its commit; for a key that the transaction has read and puts.
    KeepBoth,
    /// The transaction is refused for good, and an incident is opened for a person.
    Escalate,
}

impl OnConflict {
    /// Returns whether the transaction is refused, whatever it writes.
    pub(crate) fn refuses(&self) -> bool {
        matches!(self, Self::Retry | Self::Escalate)
    }
}

/// Two values of one key that meet, as JSON.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Clash<'a> {
    /// The key.
    pub key: &'a str,
    /// What both began with; none: the key was absent.
    pub base: Option<Value>,
    /// What others have put since; none: they have deleted it.
    pub theirs: Option<Value>,
    /// What the transaction puts; none: it deletes it.
    pub mine: Option<Value>,
}

/// The rules of a namespace, as they are declared.
#[derive(Clone, Debug)]
pub struct Namespace {
    prefix: String,
    rights: BTreeMap<String, Rights>,
    others: Option<Rights>,
    bytes_max: Option<u64>,
    rows_max: Option<u64>,
    on_conflict: OnConflict,
}

impl Namespace {
    /// Returns the namespace of the keys with a prefix, without any rule.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            rights: BTreeMap::new(),
            others: None,
            bytes_max: None,
            rows_max: None,
            on_conflict: OnConflict::default(),
        }
    }

    /// Says what a role may do. Roles that nothing is said of may do nothing then, unless
    /// [`others`](Self::others) says so. Transactions from outside of tasks may do everything.
    #[must_use]
    pub fn allow(mut self, role: impl Into<String>, rights: Rights) -> Self {
        self.rights.insert(role.into(), rights);
        self
    }

    /// Says what all roles may do that [`allow`](Self::allow) does not name.
    #[must_use]
    pub fn others(mut self, rights: Rights) -> Self {
        self.others = Some(rights);
        self
    }

    /// Bounds the bytes of all keys and values.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Bounds the number of keys.
    #[must_use]
    pub fn rows_max(mut self, rows: u64) -> Self {
        self.rows_max = Some(rows);
        self
    }

    /// Says what happens when two transactions meet.
    #[must_use]
    pub fn on_conflict(mut self, policy: OnConflict) -> Self {
        self.on_conflict = policy;
        self
    }
}

/// Something that a role may not do, and the rule that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denied {
    /// The role.
    pub role: String,
    /// What it may not do: `read`, `write`, `merge` or `watch`.
    pub right: &'static str,
    /// The key, or the range.
    pub place: String,
    /// The prefix of the namespace.
    pub namespace: String,
    /// What the role may do there.
    pub allowed: Rights,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, right, place, namespace, allowed } = self;
        write!(
            f,
            "role `{role}` may not {right} memory {place}: namespace `{namespace}` allows it {allowed}"
        )
    }
}
