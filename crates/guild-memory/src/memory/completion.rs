//! Commits completions and transactions: one version each, all of it or nothing.

use std::sync::Arc;

use guild_core::event::{Event, Reads};
use guild_core::graph::{Bindings, Graph};
use guild_core::id::{
    AgentId, CommitVersion, FencingToken, Incarnation, RoleId, TaskId, TaskIndex,
};
use guild_core::payload::Payload;
use guild_core::planner::Spawned;
use guild_core::time::Timestamp;

use super::Memory;
use super::run::{CLOSED, NOT_GRANTED};
use crate::commit::{Change, CommitError, Violation, Writer};
use crate::key;
use crate::record::{GraphRow, SpawnedRow, encode};
use crate::recovery::{edges, index};
use crate::reservation::Owner;
use crate::seeded::{self, Bug};
use crate::store::StoreError;
use crate::transaction::TransactionParts;

/// What an attempt hands in.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The task.
    pub task: TaskId,
    /// Which try of it.
    pub attempt: u32,
    /// Who performed it.
    pub agent: AgentId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The token of its lease.
    pub token: FencingToken,
    /// Its output.
    pub output: Payload,
    /// What it read and wrote; none: nothing.
    pub transaction: Option<Box<TransactionParts>>,
    /// The tasks that it spawned.
    pub spawned: Spawned,
}

impl Memory {
    /// Commits a completion: its output, its writes, the tasks that it spawned, and the events
    /// `MemoryCommitted` (if it wrote), `TaskCompleted` and `TaskAdded`, all or nothing.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing has changed then, and the token is still valid unless it is stale.
    pub fn complete(
        &mut self,
        now: Timestamp,
        completion: Completion,
    ) -> Result<CommitVersion, CommitError> {
        self.check_available()?;
        let Completion { task, attempt, agent, incarnation, token, output, transaction, spawned } =
            completion;
        match self.fence(task) {
            Some(fence) if *fence == token.0 && !matches!(token.0, NOT_GRANTED | CLOSED) => {}
            Some(_) if seeded::is(Bug::FenceCheckedBeforeQueueing) => {}
            Some(_) | None => return Err(CommitError::StaleToken),
        }
        let spawned = spawned.filter(|spawned| !spawned.0.tasks.is_empty());
        self.check_completion(task, &output, spawned.as_deref()).map_err(CommitError::Invalid)?;
        let (history, changes) = match transaction {
            None => (None, Vec::new()),
            Some(transaction) => {
                let (history, owner) = (self.history_of(&transaction), Some(Owner::Task(task)));
                (history, self.prepare(now, owner, Some(agent.role), *transaction)?)
            }
        };
        self.reservations.release(Owner::Task(task));

        let version = self.apply(now, changes, Some(Writer { task, agent }), history);
        if seeded::is(Bug::CompletionInOtherBatch) {
            self.seal();
        }
        if let Some(fence) = self.fence(task) {
            *fence = CLOSED;
        }
        if let Some(draft) = &mut self.draft
            && output.as_json() != Payload::NULL.as_json()
        {
            draft.put_record(&key::output(task.run, task.index), output.as_json());
        }
        self.record(
            now,
            Event::TaskCompleted { task, attempt, agent, incarnation, token, version },
        );
        if let Some((graph, bindings)) = spawned.as_deref() {
            self.add_spawned(now, task, graph, bindings);
        }
        Ok(version)
    }

    /// Returns until when a commit has to wait at most, because it would change what is reserved for
    /// another one that has lost too often; none: it need not.
    pub fn must_wait(
        &mut self,
        now: Timestamp,
        owner: Owner,
        transaction: &TransactionParts,
    ) -> Option<Timestamp> {
        self.reservations.must_wait(now, Some(owner), transaction)
    }

    /// Forgets an owner that will not try again; what was reserved for it is free.
    pub fn give_up(&mut self, owner: Owner) {
        self.reservations.release(owner);
    }

    /// Returns a number that changes whenever a commit that has to wait may go on.
    pub fn reservation_epoch(&self) -> u64 {
        self.reservations.epoch()
    }

    /// Commits a transaction from outside any task. One without writes always succeeds, as of the
    /// version that it read at.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing has changed then.
    pub fn transact(
        &mut self,
        now: Timestamp,
        transaction: TransactionParts,
    ) -> Result<CommitVersion, CommitError> {
        self.transact_as(now, None, transaction)
    }

    /// Commits as [`transact`](Self::transact) does, for a caller that tries again after a conflict
    /// and is not to starve.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub fn transact_as(
        &mut self,
        now: Timestamp,
        owner: Option<Owner>,
        transaction: TransactionParts,
    ) -> Result<CommitVersion, CommitError> {
        self.check_available()?;
        let is_snapshot_read = transaction.is_read_only() && transaction.has_reads();
        let as_of = if is_snapshot_read { transaction.read_at } else { self.data.version };
        let history = self.history_of(&transaction);
        let changes = self.prepare(now, owner, None, transaction)?;
        if let Some(owner) = owner {
            self.reservations.release(owner);
        }
        if changes.is_empty() {
            return Ok(as_of);
        }
        Ok(self.apply(now, changes, None, history))
    }

    /// Returns what a transaction changes. A conflict counts, so that nobody starves.
    fn prepare(
        &mut self,
        now: Timestamp,
        owner: Option<Owner>,
        role: Option<RoleId>,
        transaction: TransactionParts,
    ) -> Result<Vec<Change>, CommitError> {
        let checked = self.data.check(&transaction);
        if seeded::is(Bug::ValidatedAfterApply) && checked.is_err() {
            let changes = self.data.prepare(transaction.clone(), &[], role, &self.limits)?;
            self.apply(now, changes, None, None);
        }
        match checked {
            Ok(clashes) => self.data.prepare(transaction, &clashes, role, &self.limits),
            Err(CommitError::Conflict(mut conflict)) => {
                if let Some(owner) = owner {
                    conflict.reserved_until = self.reservations.aborted(now, owner, &transaction);
                }
                Err(CommitError::Conflict(conflict))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn apply(
        &mut self,
        now: Timestamp,
        changes: Vec<Change>,
        writer: Option<Writer>,
        mut history: Option<Box<Reads>>,
    ) -> CommitVersion {
        let writes = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        if let Some(history) = &mut history {
            history.written = changes.iter().map(written).collect();
        }
        let mut draft = self.draft.as_mut();
        let (version, commit) = self.data.apply(now, changes, writer, |key, new| {
            if let Some(draft) = &mut draft {
                draft.change(key, new);
            }
        });
        if let (Some(draft), Some(commit)) = (&mut self.draft, &commit) {
            draft.replaced(commit);
        }
        if seeded::is(Bug::SnapshotMidGroup)
            && let Some(commit) = commit
        {
            self.snapshots.publish(self.data.half_applied(&commit));
        }
        self.is_dirty = true;
        if writes > 0 {
            let (task, reads) = (writer.map(|writer| writer.task), history);
            self.record(now, Event::MemoryCommitted { version, task, writes, reads });
        }
        version
    }

    fn add_spawned(&mut self, now: Timestamp, parent: TaskId, graph: &Graph, bindings: &Bindings) {
        let run = &mut self.runs[parent.run.0 as usize];
        let first = TaskIndex(run.tasks);
        run.tasks += index(graph.tasks.len()).0;
        run.edges += edges(graph);
        run.fences.resize(run.tasks as usize, NOT_GRANTED);
        if let Some(draft) = &mut self.draft {
            let (parent_index, bindings) = (parent.index, bindings.clone());
            let row = SpawnedRow { parent: parent_index, bindings, graph: GraphRow::of(graph) };
            draft.put_record(&key::spawned(parent.run, first), &encode(&row));
        }
        self.record_added(now, parent.run, first, Some(parent), graph, bindings);
    }

    fn check_completion(
        &self,
        task: TaskId,
        output: &Payload,
        spawned: Option<&(Arc<Graph>, Bindings)>,
    ) -> Result<(), Violation> {
        let (bytes, bytes_max) = (output.size_bytes(), self.limits.payload_bytes_max);
        if bytes > bytes_max {
            return Err(Violation::OutputTooLarge { bytes, bytes_max });
        }
        let Some((graph, bindings)) = spawned else {
            return Ok(());
        };
        let run = &self.runs[task.run.0 as usize];
        self.check_tasks(run.tasks, run.edges, graph, bindings)
    }

    /// Returns what a transaction that writes has read, where histories are recorded.
    fn history_of(&self, transaction: &TransactionParts) -> Option<Box<Reads>> {
        let is_told = self.records_histories && !transaction.is_read_only();
        is_told.then(|| Box::new(transaction.history(self.data.namespaces())))
    }

    pub(super) fn check_available(&self) -> Result<(), CommitError> {
        match self.unavailable() {
            None => Ok(()),
            Some(reason) => Err(CommitError::Unavailable { reason }),
        }
    }

    pub(super) fn unavailable(&self) -> Option<String> {
        self.failure().map(StoreError::to_string)
    }
}

/// Returns how a history names a change.
fn written((key, value): &Change) -> String {
    let sign = if value.is_some() { '+' } else { '-' };
    format!("{sign}{}", String::from_utf8_lossy(key))
}
