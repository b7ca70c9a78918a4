//! Copies the rows of a store while it serves, slice by slice between groups. Changes behind the last slice are
//! repeated; those ahead of it are kept for the slice they fall into, for the engine may not have them yet, and
//! a group must not wait until it has.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::ops::{Bound, ControlFlow};

use super::{Reply, abandon};
use crate::checkpoint::{CheckpointError, CheckpointInfo, Writer};
use crate::store::{Durability, Store, StoreError, ValueId, WriteBatch};

/// Bytes that are copied at a time, between two groups.
const SLICE_BYTES: usize = 256 << 10;

/// Copies the rows of a store to another one while nobody changes them; returns how many there are.
pub(crate) fn copy_rows(from: &dyn Store, to: &mut dyn Store) -> Result<u64, StoreError> {
    let (mut rows, mut position) = (0, None::<Vec<u8>>);
    loop {
        let mut slice = WriteBatch::default();
        let after = position.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        from.scan(after, Bound::Unbounded, &mut |key, value| {
            slice.put(key, value);
            if slice.size_bytes() < SLICE_BYTES {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        position = slice.rows().last().map(|(key, _)| key.to_vec());
        rows += slice.rows().count() as u64;
        to.apply(&slice)?;
        to.sync(Durability::Process)?;
        if slice.size_bytes() < SLICE_BYTES {
            return Ok(rows);
        }
    }
}

/// A copy under way: rows in order, and what changes behind it.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) target: Target,
    /// What the store has to have for itself before the first slice.
    mark: u64,
    /// The last row that was copied.
    position: Option<Vec<u8>>,
    /// What rows after it have become since the mark.
    ahead: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    /// Bytes that came there after the last slice.
    added: usize,
    /// The large values that are still to be copied; none while rows are.
    large: Option<Vec<ValueId>>,
}

#[derive(Debug)]
pub(super) enum Target {
    Checkpoint(Box<Writer>, Reply<Result<CheckpointInfo, CheckpointError>>),
    Rewrite(Box<dyn Store>, Option<Reply<Result<(), StoreError>>>),
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The store is not ready for it.
    NotYet,
    Begun,
    Complete,
}

impl Progress {
    fn of(is_complete: bool) -> Self {
        if is_complete { Self::Complete } else { Self::Begun }
    }
}

/// Rows that are copied at a time.
#[derive(Debug)]
struct Slice {
    rows: WriteBatch,
    /// The last row, also one that is gone.
    last: Option<Vec<u8>>,
    /// So many are enough.
    bytes: usize,
}

impl Slice {
    fn is_full(&self) -> bool {
        self.rows.size_bytes() >= self.bytes
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.rows.put(key, value);
        self.reach(key);
    }

    fn take(&mut self, change: Change<'_>) {
        let (key, value) = change.remove_entry();
        if let Some(value) = value {
            self.rows.put(&key, value);
        }
        self.reach(&key);
    }

    fn reach(&mut self, key: &[u8]) {
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
    }
}

/// What a row has become.
type Change<'a> = OccupiedEntry<'a, Box<[u8]>, Option<Box<[u8]>>>;

impl Copy {
    pub(super) fn of(store: &dyn Store, target: Target) -> Self {
        let (position, ahead, large) = (None, BTreeMap::new(), None);
        Self { target, mark: store.mark(), position, ahead, added: 0, large }
    }

    /// Copies some [`SLICE_BYTES`] of rows, or one large value.
    pub(super) fn next_slice(&mut self, store: &dyn Store) -> Result<Progress, CheckpointError> {
        let Some(large) = &mut self.large else {
            let progress = self.next_rows(store)?;
            // Only a checkpoint leaves the directory where the large values are.
            if progress != Progress::Complete || !matches!(self.target, Target::Checkpoint(..)) {
                return Ok(progress);
            }
            let is_empty = self.large.insert(store.large().list()?).is_empty();
            return Ok(Progress::of(is_empty));
        };
        // One that is gone meanwhile is one that no row refers to.
        if let (Some(id), Target::Checkpoint(writer, _)) = (large.pop(), &mut self.target)
            && let Some(value) = store.large().get(id)?
        {
            writer.large(&value)?;
        }
        Ok(Progress::of(large.is_empty()))
    }

    /// Copies the next rows.
    fn next_rows(&mut self, store: &dyn Store) -> Result<Progress, CheckpointError> {
        let Some((slice, is_last)) = self.slice_of(store)? else {
            return Ok(Progress::NotYet);
        };
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
        Ok(Progress::of(is_last))
    }

    /// Returns the next rows as they are now, and whether they are the last; none: the store has to have
    /// more for itself first.
    fn slice_of(&mut self, store: &dyn Store) -> Result<Option<(WriteBatch, bool)>, StoreError> {
        // Twice as fast as changes run ahead, so that it ends.
        let bytes = SLICE_BYTES.max(2 * std::mem::take(&mut self.added));
        let mut slice = Slice { rows: WriteBatch::default(), last: None, bytes };
        let (from, ahead) = (self.position.take(), &mut self.ahead);
        let bound = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let is_stored =
            store.scan_stored(self.mark, bound, Bound::Unbounded, &mut |key, value| {
                while let Some(change) = ahead.first_entry().filter(|change| **change.key() < *key)
                    && !slice.is_full()
                {
                    slice.take(change);
                }
                if !slice.is_full() {
                    match ahead.first_entry().filter(|change| **change.key() == *key) {
                        Some(change) => slice.take(change),
                        None => slice.put(key, value),
                    }
                }
                if slice.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        while is_stored
            && !slice.is_full()
            && let Some(change) = ahead.first_entry()
        {
            slice.take(change);
        }
        let is_last = !slice.is_full();
        self.position = slice.last.or(from);
        Ok(is_stored.then_some((slice.rows, is_last)))
    }

    /// Repeats changes of rows that were copied already, and keeps the others.
    pub(super) fn follow(&mut self, batch: &WriteBatch) -> Result<(), CheckpointError> {
        let (position, are_all) = (self.position.as_deref(), self.large.is_some());
        let is_behind = |key: &[u8]| are_all || Some(key) <= position;
        let mut behind = WriteBatch::default();
        for (key, value) in batch.rows() {
            match value {
                _ if !is_behind(key) => {
                    self.added += key.len() + value.map_or(0, <[u8]>::len);
                    self.ahead.insert(key.into(), value.map(Box::from));
                }
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

fn into_store_error(error: CheckpointError) -> StoreError {
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
