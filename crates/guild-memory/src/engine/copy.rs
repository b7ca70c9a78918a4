//! Copies the rows of a store while it serves: slices between groups, changes behind the slice repeated.

use std::ops::{Bound, ControlFlow};

use super::{Reply, abandon};
use crate::checkpoint::{CheckpointError, CheckpointInfo, Writer};
use crate::store::{Durability, Store, StoreError, ValueId, WriteBatch};

/// Bytes that are copied at a time, between two groups.
const SLICE_BYTES: usize = 1 << 20;

/// Returns the rows after a position, up to [`SLICE_BYTES`] of them, and whether they are the last;
/// moves the position behind them.
pub(crate) fn slice_after(
    store: &dyn Store,
    position: &mut Option<Vec<u8>>,
) -> Result<(WriteBatch, bool), StoreError> {
    let mut slice = WriteBatch::default();
    let from = position.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    store.scan(from, Bound::Unbounded, &mut |key, value| {
        slice.put(key, value);
        if slice.size_bytes() < SLICE_BYTES {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    if let Some((key, _)) = slice.rows().last() {
        *position = Some(key.to_vec());
    }
    let is_last = slice.size_bytes() < SLICE_BYTES;
    Ok((slice, is_last))
}

/// A copy under way: rows in order, and what changes behind it.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) target: Target,
    /// The last row that was copied.
    position: Option<Vec<u8>>,
    /// The large values that are still to be copied; none while rows are.
    large: Option<Vec<ValueId>>,
}

#[derive(Debug)]
pub(super) enum Target {
    Checkpoint(Box<Writer>, Reply<Result<CheckpointInfo, CheckpointError>>),
    Rewrite(Box<dyn Store>, Option<Reply<Result<(), StoreError>>>),
}

impl Copy {
    pub(super) fn to(target: Target) -> Self {
        Self { target, position: None, large: None }
    }

    /// Copies up to [`SLICE_BYTES`] of rows, or one large value; returns whether that was all.
    pub(super) fn next_slice(&mut self, store: &dyn Store) -> Result<bool, CheckpointError> {
        let Some(large) = &mut self.large else {
            let is_last = self.next_rows(store)?;
            // Only a checkpoint leaves the directory where the large values are.
            if !is_last || !matches!(self.target, Target::Checkpoint(..)) {
                return Ok(is_last);
            }
            return Ok(self.large.insert(store.large().list()?).is_empty());
        };
        // One that is gone meanwhile is one that no row refers to.
        if let (Some(id), Target::Checkpoint(writer, _)) = (large.pop(), &mut self.target)
            && let Some(value) = store.large().get(id)?
        {
            writer.large(&value)?;
        }
        Ok(large.is_empty())
    }

    /// Copies the next rows; returns whether they were the last.
    fn next_rows(&mut self, store: &dyn Store) -> Result<bool, CheckpointError> {
        let (slice, is_last) = slice_after(store, &mut self.position)?;
        match &mut self.target {
            Target::Checkpoint(writer, _) => {
                for (key, value) in slice.rows() {
                    writer.row(key, value.unwrap_or_default())?;
                }
            }
            Target::Rewrite(sibling, _) => {
                sibling.apply(&slice)?;
                // sled pays for each batch since the last flush.
                sibling.sync(Durability::Process)?;
            }
        }
        Ok(is_last)
    }

    /// Repeats changes of rows that were copied already; the others will be met on the way.
    pub(super) fn follow(&mut self, batch: &WriteBatch) -> Result<(), CheckpointError> {
        let (position, are_all) = (self.position.as_deref(), self.large.is_some());
        let is_behind = |key: &[u8]| are_all || Some(key) <= position;
        let mut behind = WriteBatch::default();
        for (key, value) in batch.rows().filter(|(key, _)| is_behind(key)) {
            match value {
                Some(value) => behind.put(key, value),
                None => behind.delete(key),
            }
        }
        match &mut self.target {
            Target::Checkpoint(writer, _) => {
                writer.changes(&behind)?;
                let new = batch.large().values().flatten().filter(|_| are_all);
                new.into_iter().try_for_each(|value| writer.large(value))
            }
            Target::Rewrite(sibling, _) => {
                sibling.apply(&behind)?;
                Ok(sibling.sync(Durability::Process)?)
            }
        }
    }
}

pub(super) fn into_store_error(error: CheckpointError) -> StoreError {
    match error {
        CheckpointError::Store(error) => error,
        other => unreachable!("copying to a store writes no file: {other}"),
    }
}

pub(super) fn give_up(target: Target, error: CheckpointError) {
    match (target, error) {
        (Target::Checkpoint(_, reply), error) => reply.send(Err(error)),
        (Target::Rewrite(sibling, reply), error) => {
            abandon(sibling);
            tracing::warn!(%error, "store was not rewritten");
            if let Some(reply) = reply {
                reply.send(Err(into_store_error(error)));
            }
        }
    }
}
