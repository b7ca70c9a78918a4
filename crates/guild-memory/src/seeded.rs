//! Bugs that a test puts in on purpose, to see that a checker catches each of them.
//!
//! A check that has never failed proves nothing. The bugs are the mistakes that memories like this one
//! are known for. They exist only with the feature `seeded-bugs`, which nothing but the tests of
//! this workspace asks for; in any other build [`is`] is the constant `false`.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Ranges that were scanned are not validated.
    NoRangeValidation,
    /// Of a scan only the keys that it found are watched over, not the range.
    OnlyYieldedKeysTracked,
    /// A row of the version that was read counts as newer.
    GreaterOrEqual,
    /// Changes are applied before they are validated, and stay when they are refused.
    ValidatedAfterApply,
    /// A completion is made durable after its writes, not with them.
    CompletionInOtherBatch,
    /// The token of a lease is looked at when the completion arrives, not when it commits.
    FenceCheckedBeforeQueueing,
    /// A group is acknowledged when it is sealed.
    AcknowledgedBeforeSync,
    /// Rows are handed to the kernel and not synced.
    FlushWithoutFdatasync,
    /// A snapshot is published in the middle of a commit.
    SnapshotMidGroup,
    /// Going back to a savepoint forgets what was read since.
    SavepointDropsReads,
    /// The steps of a merge are done twice.
    MergeReplayedTwice,
    /// History is cut below a version that somebody has pinned.
    CompactionBelowPin,
    /// A start of the process takes the boot epoch of the one before.
    RestartKeepsEpoch,
    /// Who follows the commits misses one.
    WatchSkipsVersion,
}

#[cfg(feature = "seeded-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    impl Bug {
        /// All of them.
        pub const ALL: [Self; 14] = [
            Self::NoRangeValidation,
            Self::OnlyYieldedKeysTracked,
            Self::GreaterOrEqual,
            Self::ValidatedAfterApply,
            Self::CompletionInOtherBatch,
            Self::FenceCheckedBeforeQueueing,
            Self::AcknowledgedBeforeSync,
            Self::FlushWithoutFdatasync,
            Self::SnapshotMidGroup,
            Self::SavepointDropsReads,
            Self::MergeReplayedTwice,
            Self::CompactionBelowPin,
            Self::RestartKeepsEpoch,
            Self::WatchSkipsVersion,
        ];

        /// Puts the bug into all memories of this thread, until the next call; none: takes it out.
        pub fn seed(bug: Option<Self>) {
            SEEDED.set(bug);
        }
    }

    /// Returns whether this bug was put in.
    pub(crate) fn is(bug: Bug) -> bool {
        SEEDED.get() == Some(bug)
    }
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use self::switch::is;

/// Returns whether this bug was put in: never.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
