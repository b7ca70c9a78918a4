//! Ends groups of the history, cuts it, and returns to earlier versions.

use guild_core::event::Reads;
use guild_core::id::CommitVersion;
use guild_core::time::Timestamp;

use super::Memory;
use crate::commit::{Change, CommitError};
use crate::history::{Difference, HistoryError, Pins};
use crate::range::KeyRange;
use crate::snapshot::Key;

/// Why the memory does not return to an earlier version; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RollbackError {
    /// The version cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The commit is refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Memory {
    /// Gives all keys of a range the values that they had at an earlier version. That is a new
    /// commit from outside of tasks, whatever others do; nothing is forgotten. Where nothing
    /// differs it returns the newest version.
    ///
    /// # Errors
    /// See [`RollbackError`].
    pub fn rollback(
        &mut self,
        now: Timestamp,
        range: &KeyRange,
        version: CommitVersion,
    ) -> Result<CommitVersion, RollbackError> {
        self.check_available()?;
        let newest = self.data.version;
        let back = self.data.snapshot().difference(newest, version, range)?;
        let change = |difference: Difference| -> Change {
            let value = difference.after.map(|entry| entry.value);
            (Key::from(difference.key.as_bytes()), value)
        };
        let changes: Vec<Change> = back.into_iter().map(change).collect();
        if changes.is_empty() {
            return Ok(newest);
        }
        let reads = || Box::new(Reads { snapshot: newest, ..Reads::default() });
        let history = self.records_histories.then(reads);
        Ok(self.apply(now, changes, None, history))
    }

    /// Returns where versions are pinned.
    pub fn pins(&self) -> Pins {
        self.data.history.pins()
    }

    /// Forgets what was before a version, except what is pinned and what shares a group with newer
    /// commits; returns the oldest version that can be read then.
    pub fn forget_before(&mut self, version: CommitVersion) -> CommitVersion {
        self.seal();
        let cut = self.data.cut(|history| history.cut_below(version));
        let floor = self.data.history.floor;
        if !cut.groups.is_empty() {
            if let Some(draft) = &mut self.draft {
                draft.cut_log(&cut, floor);
            }
            self.is_dirty = true;
        }
        floor
    }

    /// Ends the group of the history, and forgets what is beyond the bound.
    pub(super) fn seal_history(&mut self) {
        let history = &mut self.data.history;
        if let Some((previous, commits)) = history.end_group()
            && let Some(draft) = &mut self.draft
        {
            history.stored(draft.put_log(previous, &commits));
        }
        let cut = self.data.cut(|history| history.cut(self.limits.history_bytes_max));
        if let Some(draft) = &mut self.draft {
            draft.cut_log(&cut, self.data.history.floor);
        }
    }
}
