//! Lets nobody starve: whoever has lost to others too often gets its turn.
//!
//! Optimistic transactions are fair only while conflicts are rare. A slow one among quick ones would
//! lose forever, and a thousand that read and write one key would lose a thousand times. So what an
//! owner has read is reserved for it after a few aborts: commits of others that would change it wait
//! until the owner has committed, has given up, or has taken too long. Reservations that overlap are
//! served in the order in which they were made, so that each waits for a bounded number of others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use guild_core::id::{RunId, TaskId};
use guild_core::time::Timestamp;

use crate::range::KeyRange;
use crate::snapshot::Key;
use crate::transaction::TransactionParts;

/// Conflicts after which an owner gets a reservation.
const ABORTS_MAX: u32 = 3;
/// How long the first reservation of an owner lasts; each further one lasts twice as long.
const FIRST_TERM: Duration = Duration::from_secs(1);
const TERM_MAX: Duration = Duration::from_secs(64);
/// Owners that are remembered.
const OWNERS_MAX: usize = 65_536;

/// Who runs a transaction again after a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A call from outside, by any number that no other call has.
    Caller(u64),
    /// A task, in all of its attempts.
    Task(TaskId),
}

/// What has become of an owner so far.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    aborts: u32,
    reservations: u32,
    /// Whether its commit has waited for a reservation of another one.
    has_waited: bool,
}

/// What an owner has read, until when it stays as it is for the owner.
#[derive(Clone, Debug)]
struct Reservation {
    owner: Owner,
    keys: BTreeSet<Key>,
    ranges: Vec<KeyRange>,
    until: Timestamp,
}

impl Reservation {
    fn is_changed_by(&self, parts: &TransactionParts) -> bool {
        let mut written = parts.writes.keys();
        written.any(|key| {
            self.keys.contains(key) || self.ranges.iter().any(|range| range.contains(key))
        }) || parts.cleared.iter().any(|cleared| {
            self.keys.iter().any(|key| cleared.contains(key))
                || self.ranges.iter().any(|range| cleared.overlaps(range))
        })
    }
}

/// Who has lost how often, and what is reserved for whom.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    records: BTreeMap<Owner, Record>,
    /// In the order in which they were made.
    queue: Vec<Reservation>,
    epoch: u64,
}

impl Reservations {
    /// Returns until when a commit has to wait at most because it would change what is reserved for
    /// another one; none: it need not.
    pub(crate) fn must_wait(
        &mut self,
        now: Timestamp,
        owner: Option<Owner>,
        parts: &TransactionParts,
    ) -> Option<Timestamp> {
        if self.queue.is_empty() {
            return None;
        }
        self.queue.retain(|reservation| reservation.until > now);
        let ahead = self.queue.iter().take_while(|reservation| Some(reservation.owner) != owner);
        let until = ahead.filter(|ahead| ahead.is_changed_by(parts)).map(|ahead| ahead.until).max();
        if let (Some(_), Some(owner)) = (until, owner) {
            self.record(owner).has_waited = true;
        }
        until
    }

    /// Notes a conflict of an owner. Returns until when what it has read is reserved for it, if it is.
    pub(crate) fn aborted(
        &mut self,
        now: Timestamp,
        owner: Owner,
        parts: &TransactionParts,
    ) -> Option<Timestamp> {
        let record = self.record(owner);
        record.aborts += 1;
        if record.aborts < ABORTS_MAX && !record.has_waited {
            return None;
        }
        let term = FIRST_TERM.saturating_mul(1 << record.reservations.min(10)).min(TERM_MAX);
        record.reservations += 1;
        record.has_waited = false;
        let until = now.after(term);
        let keys = parts.reads.keys().chain(parts.tried.iter().map(|tried| &tried.key));
        let ranges = parts.ranges.iter().map(|read| read.range.clone());
        let (keys, ranges) = (keys.cloned().collect(), ranges.collect());
        let reservation = Reservation { owner, keys, ranges, until };
        self.epoch += 1;
        // An owner that has its place in the queue keeps it.
        match self.queue.iter_mut().find(|reservation| reservation.owner == owner) {
            Some(before) => *before = reservation,
            None => self.queue.push(reservation),
        }
        Some(until)
    }

    /// Forgets an owner: it has committed, or will not.
    pub(crate) fn release(&mut self, owner: Owner) {
        if !self.records.is_empty() && self.records.remove(&owner).is_some() {
            self.epoch += 1;
            self.queue.retain(|reservation| reservation.owner != owner);
        }
    }

    /// Forgets the tasks of a run that has ended.
    pub(crate) fn release_run(&mut self, run: RunId) {
        self.epoch += 1;
        let of_run = |owner: &Owner| matches!(owner, Owner::Task(task) if task.run == run);
        self.records.retain(|owner, _| !of_run(owner));
        self.queue.retain(|reservation| !of_run(&reservation.owner));
    }

    /// Returns a number that changes whenever a commit that waits may go on.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    fn record(&mut self, owner: Owner) -> &mut Record {
        if self.records.len() > OWNERS_MAX {
            // The callers with the lowest numbers come first: they have long given up.
            self.records.pop_first();
        }
        self.records.entry(owner).or_default()
    }
}

#[cfg(test)]
mod tests {
    use guild_core::id::TaskIndex;

    use super::*;
    use crate::{KeyRange, Snapshots, Transaction};

    fn owner(index: u32) -> Owner {
        Owner::Task(TaskId { run: RunId(0), index: TaskIndex(index) })
    }

    fn parts(work: impl FnOnce(&mut Transaction)) -> TransactionParts {
        let mut transaction = Transaction::begin(Snapshots::default());
        work(&mut transaction);
        transaction.into_parts()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn what_an_owner_has_read_is_reserved_for_it_after_three_aborts() {
        let mut reservations = Reservations::default();
        let reads = parts(|t| {
            t.get_bytes("key").unwrap();
            t.scan_bytes(KeyRange::prefix("range/"), 9).unwrap();
        });
        let aborts: Vec<_> =
            (0..3).map(|_| reservations.aborted(at(0), owner(1), &reads)).collect();
        assert_eq!(aborts, [None, None, Some(at(1))]);
        for (writes, waits) in [
            (parts(|t| t.add("key", 1).unwrap()), true),
            (parts(|t| t.delete("range/a")), true),
            (parts(|t| t.delete_range("a".."z")), true),
            (parts(|t| t.put("other", &1).unwrap()), false),
            (parts(|t| drop(t.get_bytes("key"))), false),
        ] {
            let until = reservations.must_wait(at(0), Some(owner(2)), &writes);
            assert_eq!(until, waits.then_some(at(1)), "{writes:?}");
            assert_eq!(reservations.must_wait(at(0), Some(owner(1)), &writes), None);
        }
        let writes = parts(|t| t.add("key", 1).unwrap());
        assert_eq!(reservations.must_wait(at(0), None, &writes), Some(at(1)));
        assert_eq!(reservations.must_wait(at(1), None, &writes), None, "it has run out");
    }

    #[test]
    fn overlapping_reservations_are_served_in_order_and_last_longer_each_time() {
        let mut reservations = Reservations::default();
        let both = parts(|t| {
            t.get_bytes("key").unwrap();
            t.add("key", 1).unwrap();
        });
        for number in [1, 2] {
            for _ in 0..3 {
                reservations.aborted(at(0), owner(number), &both);
            }
        }
        assert_eq!(reservations.must_wait(at(0), Some(owner(1)), &both), None);
        assert!(reservations.must_wait(at(0), Some(owner(2)), &both).is_some());
        reservations.release(owner(1));
        assert_eq!(reservations.must_wait(at(0), Some(owner(2)), &both), None);
        // Whoever has waited is the next one, however seldom it has lost.
        assert!(reservations.must_wait(at(0), Some(owner(3)), &both).is_some());
        assert!(reservations.aborted(at(0), owner(3), &both).is_some());
        assert_eq!(reservations.aborted(at(5), owner(2), &both), Some(at(7)));
        reservations.release_run(RunId(0));
        assert_eq!(reservations.must_wait(at(5), None, &both), None);
    }
}
