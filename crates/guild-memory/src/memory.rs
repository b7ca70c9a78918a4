//! The one shared memory: every change of a guild passes through here, in one serial order.
//!
//! A turn is a number of calls that end with [`Memory::seal`]: what they did becomes one group,
//! visible in the next snapshot at once and durable together. Completions, their writes and spawned
//! tasks, and the events of the turn are rows of the same atomic batch.
//!
//! Without a store ([`Memory::open`] with `None`) no rows are made at all: a guild that keeps its
//! work in RAM pays nothing for durability that it does not have. Crash tests and simulations that
//! want to recover pass a [`crate::store::RamStore`] instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use guild_core::event::{Event, EventRecord};
use guild_core::graph::{Bindings, Graph};
use guild_core::history::{RunHistory, TaskEnd};
use guild_core::id::{
    AgentId, BootEpoch, CommitVersion, FencingToken, Incarnation, QuotaId, RoleId, RunId, TaskId,
    TaskIndex,
};
use guild_core::limits::Limits;
use guild_core::payload::Payload;
use guild_core::time::Timestamp;

use crate::commit::{Change, CommitError, Data, Violation};
use crate::committer::{Committer, GroupNo};
use crate::key;
use crate::names::NameTable;
use crate::record::{
    BootRow, CatalogRow, DataRow, GraphRow, GroupHeader, Ledger, RunRow, SpawnedRow, encode,
    encode_event, put_chunked, seal,
};
use crate::recovery::{Loaded, RecoveredRun, check_graph, edges, index, load, meta_row};
use crate::snapshot::{Entry, Key, Snapshots};
use crate::store::{Durability, Store, StoreError, WriteBatch};
use crate::transaction::TransactionParts;

/// Larger values would leave sled's pages (see `store/sled.rs`).
const STORED_VALUE_BYTES_MAX: usize = 64 << 10;

/// Why a memory cannot be opened; nothing runs then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store cannot be used.
    #[error("{0}")]
    Store(StoreError),
    /// The limits allow values that no store keeps.
    #[error(
        "limit value_bytes_max is {found}; a store keeps values of at most {max} bytes: lower it"
    )]
    ValueLimit {
        /// The limit asked for.
        found: usize,
        /// The largest limit possible.
        max: usize,
    },
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a run is refused; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// There is a run of this name with other tasks.
    #[error(
        "run `{name}` exists already with a different graph; choose another run name, or submit the same graph to resume it"
    )]
    RunExists {
        /// The name.
        name: String,
    },
    /// The run breaks a rule.
    #[error("{0}")]
    Invalid(Violation),
    /// The store failed, so nothing is accepted any more.
    #[error("the memory is unavailable: {reason}")]
    Unavailable {
        /// What failed, and the remedy.
        reason: String,
    },
}

/// The answer to a submission; durable when its group is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The run is new.
    New(RunId),
    /// A run of this name with the same graph exists already.
    Existing(RunId),
}

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
    /// What it read and wrote.
    pub transaction: TransactionParts,
    /// The tasks that it spawned.
    pub spawned: Option<(Arc<Graph>, Bindings)>,
}

/// What a store held when it was opened.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// This start of the process; durable already.
    pub epoch: BootEpoch,
    /// When the newest event happened; time goes on from here.
    pub last_at: Timestamp,
    /// Sequence number of the newest event; 0: there is none.
    pub last_seq: u64,
    /// Names of all roles ever used, by id.
    pub roles: Vec<String>,
    /// Names of all quotas ever used, by id.
    pub quotas: Vec<String>,
    /// All runs, by id.
    pub runs: Vec<RecoveredRun>,
    /// The newest events, at most [`Limits::events_in_memory_max`].
    pub events: Vec<EventRecord>,
    /// Number of the newest incident; 0: there is none.
    pub incidents: u64,
    /// The names of all runs and tasks, and of the roles and quotas known so far.
    pub names: NameTable,
}

/// A task that has no lease yet.
const NOT_GRANTED: u64 = 0;
/// A task that takes no more commits.
const CLOSED: u64 = u64::MAX;

#[derive(Debug)]
struct RunState {
    graph: Arc<Graph>,
    tasks: u32,
    edges: u64,
    /// For each task the newest token granted, or [`CLOSED`]; empty once the run has ended.
    fences: Vec<u64>,
}

/// The rows of the group that is being made.
#[derive(Debug, Default)]
struct Draft {
    batch: WriteBatch,
    events: Vec<u8>,
    count: u32,
    ledger: Ledger,
}

/// The shared memory of a guild; owned by one thread.
#[derive(Debug)]
pub struct Memory {
    limits: Limits,
    durability: Durability,
    epoch: BootEpoch,
    data: Data,
    snapshots: Snapshots,
    runs: Vec<RunState>,
    runs_by_name: BTreeMap<String, RunId>,
    catalog: CatalogRow,
    last_seq: u64,
    records: Vec<EventRecord>,
    sealed: GroupNo,
    /// Whether anything happened since the last seal.
    is_dirty: bool,
    /// None without a store.
    draft: Option<Draft>,
    committer: Option<Committer>,
}

impl Memory {
    /// Opens the memory and returns what the store held. The new boot epoch is durable then.
    ///
    /// `notify` is called on the committer thread whenever [`acknowledged`](Self::acknowledged) has
    /// grown there or the store has failed; never without a store.
    ///
    /// # Errors
    /// The store cannot be used, or does not fit the limits; it is closed again and unchanged.
    pub fn open(
        store: Option<Box<dyn Store>>,
        durability: Durability,
        limits: Limits,
        notify: Box<dyn Fn() + Send>,
    ) -> Result<(Self, Recovered), OpenError> {
        let Some(mut store) = store else {
            return Ok(Self::new(
                None,
                durability,
                limits,
                Loaded::default(),
                BootEpoch(1),
            ));
        };
        if limits.value_bytes_max > STORED_VALUE_BYTES_MAX {
            let (found, max) = (limits.value_bytes_max, STORED_VALUE_BYTES_MAX);
            return Err(OpenError::ValueLimit { found, max });
        }
        let loaded = load(&*store, limits.events_in_memory_max)?;
        let epoch = BootEpoch(loaded.epoch.map_or(0, |epoch| epoch.0) + 1);
        let mut boot = WriteBatch::default();
        if loaded.epoch.is_none() {
            boot.put(
                key::CATALOG.to_vec(),
                meta_row(key::CATALOG, &loaded.catalog),
            );
            boot.put(
                key::FORMAT.to_vec(),
                meta_row(key::FORMAT, &key::FORMAT_VERSION),
            );
        }
        boot.put(key::BOOT.to_vec(), meta_row(key::BOOT, &BootRow { epoch }));
        store.apply(&boot)?;
        store.sync(Durability::Disk)?;
        let committer = Committer::start(store, durability, notify)?;
        Ok(Self::new(
            Some(committer),
            durability,
            limits,
            loaded,
            epoch,
        ))
    }

    fn new(
        committer: Option<Committer>,
        durability: Durability,
        limits: Limits,
        loaded: Loaded,
        epoch: BootEpoch,
    ) -> (Self, Recovered) {
        let draft = committer.is_some().then(|| Draft {
            ledger: loaded.ledger,
            ..Draft::default()
        });
        let snapshots = Snapshots::default();
        snapshots.publish(loaded.data.snapshot());
        let runs_by_name = loaded
            .runs
            .iter()
            .map(|run| (run.name.to_string(), run.id))
            .collect();
        let names = loaded.names();
        let memory = Self {
            limits,
            durability,
            epoch,
            data: loaded.data,
            snapshots,
            runs: loaded.runs.iter().map(RunState::recovered).collect(),
            runs_by_name,
            catalog: loaded.catalog.clone(),
            last_seq: loaded.last_seq,
            records: Vec::new(),
            sealed: GroupNo::default(),
            is_dirty: false,
            draft,
            committer,
        };
        let recovered = Recovered {
            epoch,
            last_at: loaded.last_at,
            last_seq: loaded.last_seq,
            roles: loaded.catalog.roles,
            quotas: loaded.catalog.quotas,
            runs: loaded.runs,
            events: loaded.recent.into(),
            incidents: loaded.incidents,
            names,
        };
        (memory, recovered)
    }

    /// Returns the ids of roles, old ones as they were, new ones appended; durable on return.
    ///
    /// # Errors
    /// The store failed; the memory is unavailable then.
    pub fn intern_roles(&mut self, names: &[String]) -> Result<Vec<RoleId>, StoreError> {
        let places = intern(&mut self.catalog.roles, names);
        self.store_catalog()?;
        Ok(places.into_iter().map(RoleId).collect())
    }

    /// Returns the ids of quotas, old ones as they were, new ones appended; durable on return.
    ///
    /// # Errors
    /// The store failed; the memory is unavailable then.
    pub fn intern_quotas(&mut self, names: &[String]) -> Result<Vec<QuotaId>, StoreError> {
        let places = intern(&mut self.catalog.quotas, names);
        self.store_catalog()?;
        Ok(places.into_iter().map(QuotaId).collect())
    }

    /// Returns the names of all roles ever used, by id.
    pub fn role_names(&self) -> &[String] {
        &self.catalog.roles
    }

    /// Returns the names of all quotas ever used, by id.
    pub fn quota_names(&self) -> &[String] {
        &self.catalog.quotas
    }

    /// Adds a run, or finds the one of this name; records `RunSubmitted` and its `TaskAdded`.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(
        &mut self,
        now: Timestamp,
        name: &str,
        graph: Arc<Graph>,
        bindings: &Bindings,
        seed: u64,
    ) -> Result<Submitted, SubmitError> {
        if let Some(reason) = self.unavailable() {
            return Err(SubmitError::Unavailable { reason });
        }
        if let Some(run) = self.runs_by_name.get(name).copied() {
            let known = &self.runs[run.0 as usize].graph;
            // What is asked for is what there is only if all tasks are the same.
            if Arc::ptr_eq(known, &graph) || *known == graph {
                return Ok(Submitted::Existing(run));
            }
            return Err(SubmitError::RunExists {
                name: name.to_owned(),
            });
        }
        self.check_run(name, &graph, bindings)
            .map_err(SubmitError::Invalid)?;
        let run = RunId(index(self.runs.len()).0);
        if let Some(draft) = &mut self.draft {
            let (name, bindings) = (name.to_owned(), bindings.clone());
            let row = RunRow {
                name,
                bindings,
                graph: GraphRow::of(&graph),
            };
            draft.put_record(&key::run(run), &encode(&row));
        }
        let tasks = index(graph.tasks.len()).0;
        let edges = edges(&graph);
        let shown_edges = u32::try_from(edges).unwrap_or(u32::MAX);
        self.record(
            now,
            Event::RunSubmitted {
                run,
                tasks,
                edges: shown_edges,
                seed,
            },
        );
        self.record_added(now, run, TaskIndex(0), None, &graph, bindings);
        self.runs_by_name.insert(name.to_owned(), run);
        self.runs.push(RunState {
            graph,
            tasks,
            edges,
            fences: vec![NOT_GRANTED; tasks as usize],
        });
        Ok(Submitted::New(run))
    }

    /// Lets only this token, or a later one, complete the task from now on.
    pub fn grant(&mut self, task: TaskId, token: FencingToken) {
        if let Some(fence) = self.fence(task) {
            // A closed task stays closed: CLOSED is above every token.
            *fence = (*fence).max(token.0);
        }
    }

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
        let Completion {
            task,
            attempt,
            agent,
            incarnation,
            token,
            output,
            transaction,
            spawned,
        } = completion;
        match self.fence(task) {
            Some(fence) if *fence == token.0 && !matches!(token.0, NOT_GRANTED | CLOSED) => {}
            Some(_) | None => return Err(CommitError::StaleToken),
        }
        let spawned = spawned.filter(|(graph, _)| !graph.tasks.is_empty());
        self.check_completion(task, &output, spawned.as_ref())
            .map_err(CommitError::Invalid)?;
        let changes = self.data.prepare(transaction, &self.limits)?;

        let version = self.apply(now, changes, Some(task));
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
            Event::TaskCompleted {
                task,
                attempt,
                agent,
                incarnation,
                token,
                version,
            },
        );
        if let Some((graph, bindings)) = spawned {
            self.add_spawned(now, task, &graph, &bindings);
        }
        Ok(version)
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
        self.check_available()?;
        let as_of = if transaction.has_reads() {
            transaction.read_at
        } else {
            self.data.version
        };
        let changes = self.data.prepare(transaction, &self.limits)?;
        if changes.is_empty() {
            return Ok(as_of);
        }
        Ok(self.apply(now, changes, None))
    }

    /// Records an event; it is durable with its group.
    pub fn record(&mut self, now: Timestamp, event: Event) {
        match &event {
            Event::TaskEnded { task, .. } => {
                if let Some(fence) = self.fence(*task) {
                    *fence = CLOSED;
                }
            }
            Event::RunEnded { run, .. } => {
                if let Some(run) = self.runs.get_mut(run.0 as usize) {
                    run.fences = Vec::new();
                }
            }
            _ => {}
        }
        self.last_seq += 1;
        self.is_dirty = true;
        let record = EventRecord {
            seq: self.last_seq,
            at: now,
            event,
        };
        if let Some(draft) = &mut self.draft {
            encode_event(&mut draft.events, &record);
            draft.count += 1;
        }
        self.records.push(record);
    }

    /// Ends the turn: publishes the snapshot and sends the group on its way to the disk. Waits while
    /// more than 64 MiB are on that way. Without anything new it returns the last group.
    pub fn seal(&mut self) -> GroupNo {
        if !std::mem::take(&mut self.is_dirty) {
            return self.sealed;
        }
        self.sealed.0 += 1;
        self.snapshots.publish(self.data.snapshot());
        if let (Some(draft), Some(committer)) = (&mut self.draft, &self.committer) {
            let batch = draft.finish(self.last_seq, self.epoch, self.data.version);
            committer.push(self.sealed, batch);
        }
        self.sealed
    }

    /// Returns the newest group that has reached the durability level; the groups before it have too.
    pub fn acknowledged(&self) -> GroupNo {
        match &self.committer {
            Some(committer) if self.durability > Durability::Memory => committer.stored(),
            Some(_) | None => self.sealed,
        }
    }

    /// Returns what made the memory unavailable, with its remedy.
    pub fn failure(&self) -> Option<&StoreError> {
        self.committer.as_ref().and_then(Committer::failure)
    }

    /// Returns the records made since the last call, in order of their sequence numbers.
    pub fn take_records(&mut self) -> Vec<EventRecord> {
        std::mem::take(&mut self.records)
    }

    /// Returns where readers find the newest snapshot.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// Seals, and waits until everything has been handed to the store at its level.
    ///
    /// # Errors
    /// The store failed; the memory is unavailable then.
    pub fn barrier(&mut self) -> Result<(), StoreError> {
        let group = self.seal();
        self.committer
            .as_ref()
            .map_or(Ok(()), |committer| committer.wait(group))
    }

    /// Seals, stores everything at level `Disk`, and closes the store.
    ///
    /// # Errors
    /// The store failed, now or before.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.seal();
        self.committer.as_mut().map_or(Ok(()), Committer::close)
    }

    fn apply(
        &mut self,
        now: Timestamp,
        changes: Vec<Change>,
        writer: Option<TaskId>,
    ) -> CommitVersion {
        let writes = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let mut draft = self.draft.as_mut();
        let version = self.data.apply(changes, writer, |key, old, new| {
            if let Some(draft) = &mut draft {
                draft.change(key, old, new);
            }
        });
        self.is_dirty = true;
        if writes > 0 {
            self.record(
                now,
                Event::MemoryCommitted {
                    version,
                    task: writer,
                    writes,
                },
            );
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
            let row = SpawnedRow {
                parent: parent_index,
                bindings,
                graph: GraphRow::of(graph),
            };
            draft.put_record(&key::spawned(parent.run, first), &encode(&row));
        }
        self.record_added(now, parent.run, first, Some(parent), graph, bindings);
    }

    fn record_added(
        &mut self,
        now: Timestamp,
        run: RunId,
        first: TaskIndex,
        spawned_by: Option<TaskId>,
        graph: &Graph,
        bindings: &Bindings,
    ) {
        let id = |place: u32| TaskId {
            run,
            index: TaskIndex(first.0 + place),
        };
        for (place, task) in graph.tasks.iter().enumerate() {
            let role = bindings.roles[usize::from(task.options.role)];
            let after = task.after.iter().map(|after| id(after.0)).collect();
            let task = id(index(place).0);
            self.record(
                now,
                Event::TaskAdded {
                    task,
                    role,
                    after,
                    spawned_by,
                },
            );
        }
    }

    fn check_run(&self, name: &str, graph: &Graph, bindings: &Bindings) -> Result<(), Violation> {
        let (chars, chars_max) = (name.chars().count(), self.limits.name_chars_max);
        if chars > chars_max {
            return Err(Violation::NameTooLong { chars, chars_max });
        }
        self.check_tasks(0, 0, graph, bindings)
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

    fn check_tasks(
        &self,
        tasks_before: u32,
        edges_before: u64,
        graph: &Graph,
        bindings: &Bindings,
    ) -> Result<(), Violation> {
        let tasks = u64::from(tasks_before) + graph.tasks.len() as u64;
        let tasks_max = self.limits.tasks_per_run_max;
        if tasks > u64::from(tasks_max) {
            return Err(Violation::TooManyTasks { tasks, tasks_max });
        }
        let edges = edges_before + edges(graph);
        let edges_max = self.limits.edges_per_run_max;
        if edges > u64::from(edges_max) {
            return Err(Violation::TooManyEdges { edges, edges_max });
        }
        check_graph(graph, bindings).map_err(Violation::Graph)
    }

    fn fence(&mut self, task: TaskId) -> Option<&mut u64> {
        self.runs
            .get_mut(task.run.0 as usize)?
            .fences
            .get_mut(task.index.at())
    }

    fn check_available(&self) -> Result<(), CommitError> {
        match self.unavailable() {
            None => Ok(()),
            Some(reason) => Err(CommitError::Unavailable { reason }),
        }
    }

    fn unavailable(&self) -> Option<String> {
        self.failure().map(StoreError::to_string)
    }

    fn store_catalog(&mut self) -> Result<(), StoreError> {
        if let Some(draft) = &mut self.draft {
            let row = meta_row(key::CATALOG, &self.catalog);
            draft.batch.put(key::CATALOG.to_vec(), row);
            self.is_dirty = true;
        }
        self.barrier()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.seal();
        if let Some(committer) = &mut self.committer
            && let Err(error) = committer.close()
        {
            tracing::warn!(%error, "store was not closed well");
        }
    }
}

impl RunState {
    fn recovered(run: &RecoveredRun) -> Self {
        let fence = |place: usize| match run
            .history
            .tasks
            .get(place)
            .and_then(|task| task.end.as_ref())
        {
            Some(TaskEnd::Completed(_) | TaskEnd::Ended(_)) => CLOSED,
            None => NOT_GRANTED,
        };
        let open = if has_ended(&run.history) {
            0
        } else {
            run.tasks()
        };
        Self {
            graph: run.graph.clone(),
            tasks: index(run.tasks()).0,
            edges: run.edges(),
            fences: (0..open).map(fence).collect(),
        }
    }
}

fn has_ended(history: &RunHistory) -> bool {
    history.ended.is_some()
}

impl Draft {
    fn put_record(&mut self, key: &[u8], content: &[u8]) {
        let ledger = &mut self.ledger;
        put_chunked(&mut self.batch, key, content, |checksum| {
            ledger.add(checksum)
        });
    }

    fn change(&mut self, key: &Key, old: Option<&Entry>, new: Option<&mut Entry>) {
        if let Some(old) = old {
            self.ledger.remove(old.checksum);
        }
        let row_key = key::data(key);
        let Some(new) = new else {
            return self.batch.delete(row_key);
        };
        let content = encode(&DataRow {
            version: new.version,
            writer: new.writer,
            value: &new.value,
        });
        let (row, checksum) = seal(&row_key, &content);
        new.checksum = checksum;
        self.ledger.add(checksum);
        self.batch.put(row_key, row);
    }

    fn finish(&mut self, last_seq: u64, epoch: BootEpoch, version: CommitVersion) -> WriteBatch {
        let count = std::mem::take(&mut self.count);
        let mut batch = std::mem::take(&mut self.batch);
        if count > 0 {
            let first_seq = last_seq + 1 - u64::from(count);
            let ledger = self.ledger;
            let mut content = encode(&GroupHeader {
                first_seq,
                count,
                epoch,
                version,
                ledger,
            });
            content.append(&mut self.events);
            put_chunked(&mut batch, &key::events(first_seq), &content, |_| {});
        }
        batch
    }
}

/// Returns the places of names in a list, and appends those that are new.
fn intern(known: &mut Vec<String>, names: &[String]) -> Vec<u16> {
    let place = |name: &String| {
        let place = known
            .iter()
            .position(|other| other == name)
            .unwrap_or_else(|| {
                known.push(name.clone());
                known.len() - 1
            });
        u16::try_from(place).expect("a guild has fewer than 65,536 roles and quotas")
    };
    names.iter().map(place).collect()
}
