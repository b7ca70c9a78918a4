//! Names things by dense integers.
//!
//! Inside Guild a run, task, role or agent is an index into a vector: at a million tasks a second
//! the hash of a string would be the whole budget. Names exist at the faces only.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Numbers a run within its store; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u32);

/// Numbers a task within its run, in the order in which tasks were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskIndex(pub u32);

impl TaskIndex {
    /// Returns the index as a position in a vector.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// Names a task among all runs of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The run that the task is part of.
    pub run: RunId,
    /// The task's number within that run.
    pub index: TaskIndex,
}

/// Numbers a role; stable for the life of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoleId(pub u16);

/// Names an agent: its role and its number within the role. Stable across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentId {
    /// What the agent can do.
    pub role: RoleId,
    /// Which of the role's agents it is, from 0.
    pub index: u32,
}

impl AgentId {
    /// Returns the agent as one number: `role << 32 | index`.
    pub fn to_bits(self) -> u64 {
        u64::from(self.role.0) << 32 | u64::from(self.index)
    }

    /// Returns the agent of a number from [`to_bits`](Self::to_bits).
    pub fn from_bits(bits: u64) -> Self {
        let role = RoleId(u16::try_from(bits >> 32).unwrap_or(u16::MAX));
        Self { role, index: u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX) }
    }
}

/// Numbers a quota of a guild, in the order in which quotas were declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaId(pub u16);

/// Counts the starts of a process on one store; durable before anything is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootEpoch(pub u32);

/// Numbers the lives of an agent: `boot epoch << 32 | n`. It only grows and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Returns the first life of an agent in this boot.
    pub fn first(epoch: BootEpoch) -> Self {
        Self(u64::from(epoch.0) << 32 | 1)
    }

    /// Returns the life after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Fences a lease: every lease has a token greater than all before it, and only the newest
/// token of a task may commit. `boot epoch << 40 | n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FencingToken(pub u64);

impl FencingToken {
    /// Returns a token below every token that this boot grants and above all of earlier boots.
    pub fn floor(epoch: BootEpoch) -> Self {
        Self(u64::from(epoch.0) << 40)
    }

    /// Returns the token after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Orders all commits of the shared memory: 1, 2, 3, ... without a gap; 0 is the empty memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct CommitVersion(pub u64);

impl CommitVersion {
    /// Returns the version after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for CommitVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}
