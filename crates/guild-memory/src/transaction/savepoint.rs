//! Takes back a part of what a transaction has written.

use std::collections::BTreeMap;

use super::{Step, Transaction, TransactionError, Tried, Write};
use crate::range::RangeSet;
use crate::seeded::{self, Bug};
use crate::snapshot::Key;

/// A moment of a transaction that it can be taken back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint(usize);

/// What was written by then.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    cleared: RangeSet,
    writes: BTreeMap<Key, Write>,
}

impl Transaction {
    /// Marks this moment, to be returned to by [`rollback_to`](Self::rollback_to).
    pub fn savepoint(&mut self) -> Savepoint {
        let (cleared, writes) = (self.parts.cleared.clone(), self.parts.writes.clone());
        self.saved.push(Saved { cleared, writes });
        Savepoint(self.saved.len() - 1)
    }

    /// Takes back all that was written since a savepoint. What was read stays read, and conditions
    /// that were looked at stay so: they have steered what the transaction does next.
    ///
    /// The savepoint can be returned to again; later ones are gone.
    ///
    /// # Errors
    /// `NoSavepoint`: the transaction was taken back to an earlier one; nothing has changed then.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<(), TransactionError> {
        let saved = self.saved.get(savepoint.0).ok_or(TransactionError::NoSavepoint)?.clone();
        self.saved.truncate(savepoint.0 + 1);
        if seeded::is(Bug::SavepointDropsReads) {
            (self.parts.reads, self.parts.ranges) = Default::default();
        }
        self.parts.cleared = saved.cleared;
        let dropped = std::mem::replace(&mut self.parts.writes, saved.writes);
        for (key, write) in dropped {
            let Write::Steps(mut steps) = write else {
                continue;
            };
            if let Some(last) = steps.iter().rposition(Step::can_be_refused) {
                steps.truncate(last + 1);
                self.parts.tried.push(Tried { key, steps, refused: false });
            }
        }
        Ok(())
    }
}
