//! Guild's one shared memory: strictly serialisable transactions over a small store seam.
//!
//! The working set lives in RAM, each entry as long as a snapshot shows it; a store ([`store`]) makes it durable
//! in groups. A task reads a [`Snapshot`] through its [`Transaction`], and [`Memory`] commits what it
//! wrote together with its completion, its spawned tasks and the events: one commit, or nothing.
//!
//! Architecture invariant: this crate is blocking and synchronous and knows no actors; only
//! `store/sled.rs` names sled; time is an argument.

pub mod checkpoint;
mod commit;
mod committer;
mod condition;
mod engine;
mod history;
mod key;
mod large;
mod memory;
mod merge;
pub mod names;
mod namespace;
mod range;
pub mod reader;
mod record;
mod recovery;
mod reservation;
pub mod restore;
mod rows;
#[cfg(feature = "seeded-bugs")]
pub mod seeded;
#[cfg(not(feature = "seeded-bugs"))]
#[expect(unreachable_pub, reason = "only a build with the feature shows it")]
mod seeded;
mod snapshot;
pub mod store;
mod transaction;

pub use self::commit::{CommitError, Conflict, Unmet, Violation, Writer};
pub use self::committer::{Commits, GroupNo};
pub use self::condition::Condition;
pub use self::history::{Commit, Difference, HistoryError, HistorySize, Pin, Pins, Revision};
pub use self::memory::{
    Completion, Memory, OpenError, Recovered, RollbackError, SubmitError, Submitted,
};
pub use self::merge::Merge;
pub use self::names::NameTable;
pub use self::namespace::{
    Clash, Denied, MergeFunction, MergeFunctions, Namespace, NamespaceError, Namespaces,
    OnConflict, Rights,
};
pub use self::range::KeyRange;
pub use self::recovery::RecoveredRun;
pub use self::reservation::Owner;
pub use self::restore::Restored;
pub use self::snapshot::{Entry, Snapshot, Snapshots};
pub use self::store::{Durability, StoreError};
pub use self::transaction::{
    Access, Isolation, Origin, Savepoint, Transaction, TransactionError, TransactionParts,
};
