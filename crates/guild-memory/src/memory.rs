//! The one shared memory: every change of a guild passes through here, in one serial order.
//!
//! A turn is a number of calls that end with [`Memory::seal`]: what they did becomes one group,
//! visible in the next snapshot at once and durable together. Completions, their writes and spawned
//! tasks, and the events of the turn are rows of the same atomic batch.
//!
//! Without a store ([`Memory::open`] with `None`) no rows are made at all: a guild that keeps its
//! work in RAM pays nothing for durability that it does not have. Crash tests and simulations that
//! want to recover pass a [`crate::store::RamStore`] instead.

mod completion;
mod draft;
mod past;
mod run;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::Arc;

use guild_core::event::{Event, EventRecord};
use guild_core::id::{BootEpoch, CommitVersion, QuotaId, RoleId, RunId};
use guild_core::incident::IncidentBook;
use guild_core::letter::DeadLetters;
use guild_core::limits::Limits;
use guild_core::time::Timestamp;

pub use self::completion::Completion;
use self::draft::Draft;
pub use self::past::RollbackError;
use self::run::{CLOSED, RunState};
pub use self::run::{SubmitError, Submitted};
use crate::commit::Data;
use crate::committer::{Commits, Committer, GroupNo};
use crate::key;
use crate::large::STORED_BYTES_MAX;
use crate::names::NameTable;
use crate::namespace::Namespaces;
use crate::record::{BootRow, CatalogRow};
use crate::recovery::{Loaded, RecoveredRun, load};
use crate::reservation::{Owner, Reservations};
use crate::restore::Restored;
use crate::rows::put_meta;
use crate::seeded::{self, Bug};
use crate::snapshot::{Snapshot, Snapshots};
use crate::store::{Durability, Store, StoreError, WriteBatch};

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
    /// The dead letters of the whole log, at most [`Limits::dead_letters_max`].
    pub letters: DeadLetters,
    /// The incidents of the whole log, at most [`Limits::incidents_in_memory_max`].
    pub incidents: IncidentBook,
    /// Number of the newest injected fault; 0: there is none.
    pub faults: u64,
    /// What was in use of each quota, and when that changed last.
    pub quotas_in_use: BTreeMap<QuotaId, (Timestamp, u32)>,
    /// The names of all runs and tasks, and of the roles and quotas known so far.
    pub names: NameTable,
    /// The checkpoint that had to be used because the store could not be opened.
    pub restored: Option<Restored>,
}

/// The shared memory of a guild; owned by one thread.
#[derive(Debug)]
pub struct Memory {
    limits: Limits,
    durability: Durability,
    epoch: BootEpoch,
    data: Data,
    snapshots: Snapshots,
    /// Version and floor of the newest snapshot.
    shown: (CommitVersion, CommitVersion),
    /// The newest snapshot, until whoever tells others of it has taken it.
    published: Option<Snapshot>,
    runs: Vec<RunState>,
    runs_by_name: BTreeMap<String, RunId>,
    catalog: CatalogRow,
    reservations: Reservations,
    last_seq: u64,
    records: Vec<EventRecord>,
    sealed: GroupNo,
    records_histories: bool,
    /// Whether anything happened since the last seal.
    is_dirty: bool,
    /// None without a store.
    draft: Option<Draft>,
    committer: Option<Committer>,
}

impl Memory {
    /// Opens the memory and returns what the store held. The new boot epoch is durable then.
    ///
    /// # Errors
    /// The store cannot be used, or does not fit the limits; it is closed again and unchanged.
    pub fn open(
        store: Option<Box<dyn Store>>,
        durability: Durability,
        limits: Limits,
        commits: Commits,
    ) -> Result<(Self, Recovered), OpenError> {
        let Some(store) = store else {
            let nothing = Loaded::nothing(&limits);
            return Ok(Self::new(None, durability, limits, nothing, BootEpoch(1)));
        };
        check_limits(&limits)?;
        let loaded = load(&*store, &limits)?;
        Self::boot(store, loaded, None, durability, limits, commits)
    }

    /// Goes on from what a store holds, after a new boot epoch is durable.
    fn boot(
        mut store: Box<dyn Store>,
        loaded: Loaded,
        restored: Option<Restored>,
        durability: Durability,
        limits: Limits,
        commits: Commits,
    ) -> Result<(Self, Recovered), OpenError> {
        let mut epoch = BootEpoch(loaded.epoch.map_or(0, |epoch| epoch.0) + 1);
        if seeded::is(Bug::RestartKeepsEpoch) {
            epoch = loaded.epoch.unwrap_or(epoch);
        }
        let mut boot = WriteBatch::default();
        if loaded.epoch.is_none() {
            put_meta(&mut boot, key::CATALOG, &loaded.catalog);
            put_meta(&mut boot, key::FORMAT, &key::FORMAT_VERSION);
        }
        put_meta(&mut boot, key::BOOT, &BootRow { epoch });
        store.apply(&boot)?;
        store.sync(Durability::Disk)?;
        // Only now no row that a crash may bring back refers to them.
        for orphan in loaded.large.orphans(&*store)? {
            store.large().remove(orphan)?;
        }
        let reopens_max = limits.store_reopens_max;
        let committer = Committer::start(store, durability, commits, reopens_max)?;
        let (memory, mut recovered) = Self::new(Some(committer), durability, limits, loaded, epoch);
        recovered.restored = restored;
        Ok((memory, recovered))
    }

    fn new(
        committer: Option<Committer>,
        durability: Durability,
        limits: Limits,
        mut loaded: Loaded,
        epoch: BootEpoch,
    ) -> (Self, Recovered) {
        let snapshots = Snapshots::default();
        snapshots.publish(loaded.data.snapshot());
        let shown = (loaded.data.version, loaded.data.history.floor);
        let runs_by_name = loaded.runs.iter().map(|run| (run.name.to_string(), run.id)).collect();
        let names = loaded.names();
        let draft = committer.is_some().then(|| Draft::new(loaded.ledger, loaded.large));
        let memory = Self {
            limits,
            durability,
            epoch,
            data: loaded.data,
            snapshots,
            shown,
            published: None,
            runs: loaded.runs.iter().map(RunState::recovered).collect(),
            runs_by_name,
            catalog: loaded.catalog.clone(),
            reservations: Reservations::default(),
            last_seq: loaded.last_seq,
            records: Vec::new(),
            sealed: GroupNo::default(),
            records_histories: false,
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
            letters: loaded.letters,
            incidents: loaded.incidents,
            faults: loaded.faults,
            quotas_in_use: loaded.quotas_in_use,
            names,
            restored: None,
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

    /// Sets the rules of namespaces from now on; what is there stays, whatever they say.
    pub fn set_namespaces(&mut self, namespaces: Arc<Namespaces>) {
        self.data.set_namespaces(namespaces);
    }

    /// Says whether `MemoryCommitted` tells what was read and written, for checkers of histories.
    pub fn record_histories(&mut self, records: bool) {
        self.records_histories = records;
    }

    /// Returns whether groups wait for [`Memory::drive`]; never with [`Commits::OnThread`].
    pub fn needs_driving(&self) -> bool {
        self.committer.as_ref().is_some_and(Committer::needs_driving)
    }

    /// Makes what waits durable on this thread, with [`Commits::Driven`]; then
    /// [`acknowledged`](Self::acknowledged) has grown or the store has failed.
    pub fn drive(&mut self) {
        if let Some(committer) = &mut self.committer {
            committer.drive();
        }
    }

    /// Returns the names of all roles ever used, by id.
    pub fn role_names(&self) -> &[String] {
        &self.catalog.roles
    }

    /// Returns the names of all quotas ever used, by id.
    pub fn quota_names(&self) -> &[String] {
        &self.catalog.quotas
    }

    /// Records an event; it is durable with its group.
    pub fn record(&mut self, now: Timestamp, event: Event) {
        match &event {
            Event::TaskEnded { task, .. } => {
                if let Some(fence) = self.fence(*task) {
                    *fence = CLOSED;
                }
                self.reservations.release(Owner::Task(*task));
            }
            Event::RunEnded { run, .. } => {
                self.reservations.release_run(*run);
                if let Some(run) = self.runs.get_mut(run.0 as usize) {
                    run.fences = Vec::new();
                }
            }
            _ => {}
        }
        self.last_seq += 1;
        self.is_dirty = true;
        let record = EventRecord { seq: self.last_seq, at: now, event };
        if let Some(draft) = &mut self.draft {
            draft.record(&record);
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
        self.seal_history();
        self.publish();
        if let (Some(draft), Some(committer)) = (&mut self.draft, &mut self.committer) {
            let logged = self.data.history.newest();
            let batch = draft.finish(self.last_seq, self.epoch, self.data.version, logged);
            committer.push(self.sealed, batch);
        }
        self.sealed
    }

    /// Shows readers what there is now. Groups that only record events leave the newest snapshot as it
    /// is.
    fn publish(&mut self) {
        let shown = (self.data.version, self.data.history.floor);
        if std::mem::replace(&mut self.shown, shown) != shown {
            let snapshot = self.data.snapshot();
            self.published = Some(snapshot.clone());
            self.snapshots.publish(snapshot);
        }
        self.data.release();
    }

    /// Returns the newest snapshot that [`seal`](Self::seal) has published, once.
    pub fn take_published(&mut self) -> Option<Snapshot> {
        self.published.take()
    }

    /// Returns the newest group that has reached the durability level; the groups before it have too.
    pub fn acknowledged(&self) -> GroupNo {
        match &self.committer {
            Some(_) if seeded::is(Bug::AcknowledgedBeforeSync) => self.sealed,
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

    /// Gives back a vector whose records are gone; its room is used for the next ones.
    pub fn give_back(&mut self, records: Vec<EventRecord>) {
        if self.records.is_empty() && records.is_empty() {
            self.records = records;
        }
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
        self.committer.as_mut().map_or(Ok(()), |committer| committer.wait(group))
    }

    /// Seals, stores everything at level `Disk`, and closes the store.
    ///
    /// # Errors
    /// The store failed, now or before.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.seal();
        self.committer.as_mut().map_or(Ok(()), Committer::close)
    }

    fn store_catalog(&mut self) -> Result<(), StoreError> {
        if let Some(draft) = &mut self.draft {
            put_meta(&mut draft.batch, key::CATALOG, &self.catalog);
            self.is_dirty = true;
        }
        self.barrier()
    }
}

/// Stores what was sealed and closes the store. A turn that was not sealed is given up: whoever
/// panicked in the middle of it must not leave half of it behind.
impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(committer) = &mut self.committer
            && let Err(error) = committer.close()
        {
            tracing::warn!(%error, "store was not closed well");
        }
    }
}

fn check_limits(limits: &Limits) -> Result<(), OpenError> {
    let (found, max) = (limits.value_bytes_max, STORED_BYTES_MAX);
    if found > max { Err(OpenError::ValueLimit { found, max }) } else { Ok(()) }
}

/// Returns the places of names in a list, and appends those that are new.
fn intern(known: &mut Vec<String>, names: &[String]) -> Vec<u16> {
    let place = |name: &String| {
        let place = known.iter().position(|other| other == name).unwrap_or_else(|| {
            known.push(name.clone());
            known.len() - 1
        });
        u16::try_from(place).expect("a guild has fewer than 65,536 roles and quotas")
    };
    names.iter().map(place).collect()
}
