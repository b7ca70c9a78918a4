//! Makes the rows of the group that is on its way to the store.
//!
//! Rows are made as things happen, so that sealing a turn only has to add the events and the ledger.

use std::sync::Arc;

use guild_core::event::EventRecord;
use guild_core::id::{BootEpoch, CommitVersion};

use crate::history::{Commit, Cut, encode_log};
use crate::key;
use crate::large::References;
use crate::record::{
    DataRow, GroupHeader, Ledger, chunk_key, chunks_of, encode_event, encode_onto, put_chunked,
    put_sealed,
};
use crate::rows::put_meta;
use crate::snapshot::{Entry, Key};
use crate::store::WriteBatch;

/// The rows of the group that is being made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) batch: WriteBatch,
    events: Vec<u8>,
    count: u32,
    ledger: Ledger,
    large: References,
    /// Room for the key of a row, and for the content of a record.
    key: Vec<u8>,
    content: Vec<u8>,
}

impl Draft {
    pub(super) fn new(ledger: Ledger, large: References) -> Self {
        Self { ledger, large, ..Self::default() }
    }

    pub(super) fn put_record(&mut self, key: &[u8], content: &[u8]) {
        let ledger = &mut self.ledger;
        put_chunked(&mut self.batch, key, content, |checksum| ledger.add(checksum));
    }

    pub(super) fn change(&mut self, key: &Key, new: Option<&mut Entry>) {
        key::write_data(&mut self.key, key);
        let Some(new) = new else {
            return self.batch.delete(&self.key);
        };
        self.large.add(new, &mut self.batch);
        let row = DataRow::from(&*new);
        let checksum = put_sealed(&mut self.batch, &self.key, |content| encode_onto(content, &row));
        new.checksum = checksum;
        self.ledger.add(checksum);
    }

    /// Takes what a commit has replaced out of the ledger.
    pub(super) fn replaced(&mut self, commit: &Commit) {
        commit.replaced().for_each(|old| self.ledger.remove(old.checksum));
    }

    /// Puts what the commits of the group have changed; returns the number of rows.
    pub(super) fn put_log(&mut self, previous: CommitVersion, commits: &[Arc<Commit>]) -> u32 {
        let Some(first) = commits.first() else {
            return 0;
        };
        self.content.clear();
        encode_log(&mut self.content, previous, commits);
        put_chunked(&mut self.batch, &key::log(first.version), &self.content, |_| {});
        chunks_of(&self.content)
    }

    /// Removes a part of the history; `floor` is the oldest version that can be read afterwards.
    pub(super) fn cut_log(&mut self, cut: &Cut, floor: CommitVersion) {
        for entry in cut.commits.iter().flat_map(|commit| commit.replaced()) {
            self.large.remove(entry, &mut self.batch);
        }
        for group in &cut.groups {
            let key = key::log(group.first);
            (0..group.chunks).for_each(|chunk| self.batch.delete(chunk_key(&key, chunk)));
        }
        if !cut.groups.is_empty() {
            put_meta(&mut self.batch, key::FLOOR, &floor);
        }
    }

    pub(super) fn finish(
        &mut self,
        last_seq: u64,
        epoch: BootEpoch,
        version: CommitVersion,
        logged: CommitVersion,
    ) -> WriteBatch {
        let count = std::mem::take(&mut self.count);
        let mut batch = std::mem::take(&mut self.batch);
        if count > 0 {
            let first_seq = last_seq + 1 - u64::from(count);
            let ledger = self.ledger;
            let header = GroupHeader { first_seq, count, epoch, version, logged, ledger };
            self.content.clear();
            encode_onto(&mut self.content, &header);
            self.content.append(&mut self.events);
            put_chunked(&mut batch, &key::events(first_seq), &self.content, |_| {});
        }
        batch
    }

    pub(super) fn record(&mut self, record: &EventRecord) {
        encode_event(&mut self.events, record);
        self.count += 1;
    }
}
