//! Names the rows of a store: one letter for the kind, then ids in big-endian order.
//!
//! Big-endian, so that the order of bytes is the order of numbers and one scan of a letter visits a
//! kind in the order in which it was written.

use guild_core::id::{CommitVersion, RunId, TaskIndex};

/// Number of the format: a row, key or encoding that an older program would misread changes it.
pub(crate) const FORMAT_VERSION: u32 = 9;

/// The format version; the first row that is written and the first that is read.
pub(crate) const FORMAT: &[u8] = b"Mformat";
/// Starts of the process so far.
pub(crate) const BOOT: &[u8] = b"Mboot";
/// Names of roles and quotas in the order of their ids.
pub(crate) const CATALOG: &[u8] = b"Mcatalog";

/// The oldest version that can be read, once history was cut.
pub(crate) const FLOOR: &[u8] = b"Mfloor";

/// A value of the shared memory: the letter, then its key.
pub(crate) const DATA: u8 = b'D';
/// What the commits of one group have changed: version of the first, chunk.
pub(crate) const LOG: u8 = b'L';
/// The events of one group: sequence number of the first, chunk.
pub(crate) const EVENTS: u8 = b'E';
/// A submitted run: run, chunk.
pub(crate) const RUN: u8 = b'R';
/// Tasks spawned by one commit: run, index of the first of them, chunk.
pub(crate) const SPAWNED: u8 = b'S';
/// The output of a task, when it is not `null`: run, index, chunk.
pub(crate) const OUTPUT: u8 = b'O';

/// Writes the key of the row of a value over what is in `row`.
pub(crate) fn write_data(row: &mut Vec<u8>, key: &[u8]) {
    row.clear();
    row.push(DATA);
    row.extend_from_slice(key);
}

pub(crate) fn events(first_seq: u64) -> Vec<u8> {
    let mut row = vec![EVENTS];
    row.extend_from_slice(&first_seq.to_be_bytes());
    row
}

pub(crate) fn log(first: CommitVersion) -> Vec<u8> {
    let mut row = vec![LOG];
    row.extend_from_slice(&first.0.to_be_bytes());
    row
}

pub(crate) fn run(run: RunId) -> Vec<u8> {
    let mut row = vec![RUN];
    row.extend_from_slice(&run.0.to_be_bytes());
    row
}

pub(crate) fn spawned(run: RunId, first: TaskIndex) -> Vec<u8> {
    task(SPAWNED, run, first)
}

pub(crate) fn output(run: RunId, index: TaskIndex) -> Vec<u8> {
    task(OUTPUT, run, index)
}

fn task(letter: u8, run: RunId, index: TaskIndex) -> Vec<u8> {
    let mut row = vec![letter];
    row.extend_from_slice(&run.0.to_be_bytes());
    row.extend_from_slice(&index.0.to_be_bytes());
    row
}

/// Reads the big-endian number at a place of a row's key.
pub(crate) fn number(row: &[u8], at: usize) -> Option<u32> {
    let bytes = row.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sort_as_their_numbers() {
        assert!(events(255) < events(256));
        assert!(run(RunId(255)) < run(RunId(256)));
        assert!(output(RunId(1), TaskIndex(u32::MAX)) < output(RunId(2), TaskIndex(0)));
    }
}
