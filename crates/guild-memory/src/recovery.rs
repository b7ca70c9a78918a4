//! Reads everything back from a store, and believes none of it unchecked.
//!
//! The states of tasks are the fold of the event log; graphs, outputs and data come from their
//! rows. A wrong checksum, a gap in the log, a row newer than the last commit, or rows that do not
//! add up to the last ledger make the store corrupt: wrong data is worse than none.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use guild_core::event::{Event, EventRecord};
use guild_core::graph::{Bindings, Graph};
use guild_core::history::{RunHistory, TaskEnd};
use guild_core::id::{BootEpoch, CommitVersion, QuotaId, RunId, TaskId, TaskIndex};
use guild_core::incident::IncidentBook;
use guild_core::letter::DeadLetters;
use guild_core::limits::Limits;
use guild_core::payload::Payload;
use guild_core::time::Timestamp;

use crate::commit::Data;
use crate::history::load_log;
use crate::key;
use crate::large::{Entries, References};
use crate::names::NameTable;
use crate::record::{
    BootRow, CatalogRow, DataRow, Ledger, RunRow, SpawnedRow, decode, decode_group, decode_owned,
    unseal,
};
use crate::rows::{check_format, each_record, each_row, meta};
use crate::snapshot::{Key, Map};
use crate::store::{Store, StoreError};

/// A run as the store has it.
#[derive(Clone, Debug)]
pub struct RecoveredRun {
    /// Its number.
    pub id: RunId,
    /// Its name.
    pub name: Arc<str>,
    /// The tasks that were submitted.
    pub graph: Arc<Graph>,
    /// Its roles and quotas.
    pub bindings: Bindings,
    /// The tasks that were spawned, in the order of their commits: parent, tasks, bindings.
    pub spawned: Vec<(TaskIndex, Arc<Graph>, Bindings)>,
    /// What happened to it and to each of its tasks.
    pub history: RunHistory,
    /// The output of each task that completed.
    pub outputs: Vec<Option<Payload>>,
}

impl RecoveredRun {
    /// Returns the number of its tasks, spawned ones included.
    pub fn tasks(&self) -> usize {
        self.outputs.len()
    }

    pub(crate) fn edges(&self) -> u64 {
        let spawned = self.spawned.iter().map(|(_, graph, _)| edges(graph));
        edges(&self.graph) + spawned.sum::<u64>()
    }
}

/// Returns the number of dependencies of a graph.
pub(crate) fn edges(graph: &Graph) -> u64 {
    graph.tasks.iter().map(|task| task.after.len() as u64).sum()
}

/// Everything that a store holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The newest boot; none: the store is fresh.
    pub(crate) epoch: Option<BootEpoch>,
    pub(crate) catalog: CatalogRow,
    pub(crate) data: Data,
    /// Which large values the data and its history refer to.
    pub(crate) large: References,
    pub(crate) ledger: Ledger,
    pub(crate) runs: Vec<RecoveredRun>,
    /// Sequence number of the newest event; 0: there is none.
    pub(crate) last_seq: u64,
    pub(crate) last_at: Timestamp,
    /// The newest events, as many as the limits allow.
    pub(crate) recent: VecDeque<EventRecord>,
    /// The tasks that died and the incidents, of the whole log, as many as the limits allow.
    pub(crate) letters: DeadLetters,
    pub(crate) incidents: IncidentBook,
    pub(crate) faults: u64,
    /// What was in use of each quota, and when that changed last.
    pub(crate) quotas_in_use: BTreeMap<QuotaId, (Timestamp, u32)>,
}

impl Loaded {
    /// Returns what a fresh store holds.
    pub(crate) fn nothing(limits: &Limits) -> Self {
        Self {
            epoch: None,
            catalog: CatalogRow::default(),
            data: Data::default(),
            large: References::default(),
            ledger: Ledger::default(),
            runs: Vec::new(),
            last_seq: 0,
            last_at: Timestamp::default(),
            recent: VecDeque::new(),
            letters: DeadLetters::new(limits.dead_letters_max),
            incidents: IncidentBook::new(limits, 0),
            faults: 0,
            quotas_in_use: BTreeMap::new(),
        }
    }

    pub(crate) fn names(&self) -> NameTable {
        let mut names = NameTable::default();
        names.set_roles(self.catalog.roles.clone());
        names.set_quotas(self.catalog.quotas.clone());
        for run in &self.runs {
            names.add_run(run.id, run.name.clone(), run.graph.clone());
            let mut first = run.graph.tasks.len();
            for (parent, graph, _) in &run.spawned {
                names.add_spawned(run.id, *parent, index(first), graph.clone());
                first += graph.tasks.len();
            }
        }
        names
    }
}

/// Reads a store, and of its log keeps only what its runs and data add up to.
pub(crate) fn load_without_log(store: &dyn Store) -> Result<Loaded, StoreError> {
    let mut limits = Limits::default();
    limits.events_in_memory_max = 0;
    limits.dead_letters_max = 0;
    limits.incidents_in_memory_max = 0;
    load(store, &limits)
}

/// Reads a store, and keeps as much of its log as the limits allow.
pub(crate) fn load(store: &dyn Store, limits: &Limits) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::nothing(limits);
    if !check_format(store)? {
        return Ok(loaded);
    }
    let boot: BootRow = meta(store, key::BOOT)?;
    loaded.epoch = Some(boot.epoch);
    loaded.catalog = meta(store, key::CATALOG)?;
    load_runs(store, &mut loaded)?;
    load_spawned(store, &mut loaded)?;
    load_outputs(store, &mut loaded)?;
    let mut entries = Entries::of(store);
    load_data(store, &mut loaded, &mut entries)?;
    load_events(store, &mut loaded, &mut entries, boot.epoch, limits.events_in_memory_max)?;
    loaded.large = entries.into_references();
    check_outputs(&mut loaded).map_err(|what| StoreError::corrupt(store.path(), what))?;
    Ok(loaded)
}

fn load_runs(store: &dyn Store, loaded: &mut Loaded) -> Result<(), StoreError> {
    let Loaded { runs, ledger, .. } = loaded;
    each_record(store, key::RUN, "runs", Some(ledger), &mut |key, content| {
        let id = RunId(key::number(key, 1).ok_or("a key is too short")?);
        if id.0 as usize != runs.len() {
            return Err(format!("run {} is missing", runs.len()));
        }
        let row: RunRow = decode_owned(content)?;
        let graph = sound(row.graph.into_graph()?, &row.bindings)?;
        runs.push(RecoveredRun {
            id,
            name: row.name.into(),
            bindings: row.bindings,
            spawned: Vec::new(),
            history: RunHistory::new(id),
            outputs: vec![None; graph.tasks.len()],
            graph,
        });
        Ok(())
    })
}

fn load_spawned(store: &dyn Store, loaded: &mut Loaded) -> Result<(), StoreError> {
    let Loaded { runs, ledger, .. } = loaded;
    each_record(store, key::SPAWNED, "spawned tasks", Some(ledger), &mut |key, content| {
        let (run, first) = task_of(runs, key)?;
        let row: SpawnedRow = decode_owned(content)?;
        let graph = sound(row.graph.into_graph()?, &row.bindings)?;
        if first.at() != run.tasks() || row.parent >= first {
            return Err(format!("tasks before {} of run `{}` are missing", first.0, run.name));
        }
        run.outputs.resize(first.at() + graph.tasks.len(), None);
        run.spawned.push((row.parent, graph, row.bindings));
        Ok(())
    })
}

fn load_outputs(store: &dyn Store, loaded: &mut Loaded) -> Result<(), StoreError> {
    let Loaded { runs, ledger, .. } = loaded;
    each_record(store, key::OUTPUT, "outputs", Some(ledger), &mut |key, content| {
        let (run, index) = task_of(runs, key)?;
        let output = run.outputs.get_mut(index.at()).ok_or("the output of an unknown task")?;
        let text = str::from_utf8(content).map_err(|_| "an output that is no text")?;
        *output = Some(Payload::from_json(text));
        Ok(())
    })
}

fn load_data(
    store: &dyn Store,
    loaded: &mut Loaded,
    entries: &mut Entries<'_>,
) -> Result<(), StoreError> {
    let Loaded { data, ledger, .. } = loaded;
    let mut found = Vec::new();
    each_row(store, key::DATA, "data", &mut |row_key, row| {
        let (content, checksum) = unseal(row_key, row)?;
        let row: DataRow<'_> = decode(content)?;
        ledger.add(checksum);
        data.changed_at = data.changed_at.max(row.version);
        found.push(Arc::new(entries.entry(Key::from(&row_key[1..]), row, checksum)?));
        Ok(())
    })?;
    data.map = Map::from_sorted(found);
    Ok(())
}

fn load_events(
    store: &dyn Store,
    loaded: &mut Loaded,
    entries: &mut Entries<'_>,
    boot: BootEpoch,
    recent_max: usize,
) -> Result<(), StoreError> {
    let corrupt = |what: String| StoreError::corrupt(store.path(), what);
    let mut newest = (BootEpoch(0), CommitVersion::default(), Ledger::default());
    let mut logged = CommitVersion::default();
    each_record(store, key::EVENTS, "events", None, &mut |_, content| {
        let (header, records) = decode_group(content)?;
        if header.first_seq != loaded.last_seq + 1 {
            return Err(format!("event {} is missing", loaded.last_seq + 1));
        }
        if header.epoch < newest.0 || header.version < newest.1 {
            return Err(format!("the group of event {} goes back in time", header.first_seq));
        }
        newest = (header.epoch, header.version, header.ledger);
        logged = header.logged;
        for record in &records {
            fold(&mut loaded.runs, record, header.version)?;
            loaded.last_seq = record.seq;
            loaded.last_at = loaded.last_at.max(record.at);
            loaded.letters.apply(record);
            loaded.incidents.recall(record);
            if let Event::FaultInjected { fault, .. } = &record.event {
                loaded.faults = *fault;
            }
            if let Event::QuotaChanged { quota, in_use, .. } = &record.event {
                loaded.quotas_in_use.insert(*quota, (record.at, *in_use));
            }
        }
        loaded.recent.extend(records);
        let excess = loaded.recent.len().saturating_sub(recent_max);
        loaded.recent.drain(..excess);
        Ok(())
    })?;
    let (epoch, version, ledger) = newest;
    if epoch > boot {
        return Err(corrupt(format!(
            "events of boot {} but the last boot was {}",
            epoch.0, boot.0
        )));
    }
    if loaded.data.changed_at > version {
        let newer = loaded.data.changed_at;
        return Err(corrupt(format!("data of version {newer} but the last commit was {version}")));
    }
    if loaded.ledger != ledger {
        return Err(corrupt("rows are missing, left over or outdated: they do not add up".into()));
    }
    loaded.data.history = load_log(store, entries, &loaded.data.map, logged)?;
    loaded.data.version = version;
    // Snapshots of earlier boots are gone: nobody can have read before this version.
    loaded.data.changed_at = version;
    Ok(())
}

fn fold(
    runs: &mut [RecoveredRun],
    record: &EventRecord,
    version: CommitVersion,
) -> Result<(), String> {
    if let Event::TaskCompleted { version: its, .. } | Event::MemoryCommitted { version: its, .. } =
        &record.event
        && *its > version
    {
        return Err(format!("event {} is newer than the last commit", record.seq));
    }
    let (run, task) = match scope(&record.event) {
        Scope::Guild => return Ok(()),
        Scope::Run(run) => (run, None),
        Scope::Task(task) => (task.run, Some(task.index)),
    };
    let run = runs
        .get_mut(run.0 as usize)
        .filter(|run| task.is_none_or(|task| task.at() < run.tasks()))
        .ok_or_else(|| format!("event {} is about an unknown run or task", record.seq))?;
    run.history.apply(record);
    Ok(())
}

enum Scope {
    Guild,
    Run(RunId),
    Task(TaskId),
}

fn scope(event: &Event) -> Scope {
    match event {
        Event::RunSubmitted { run, .. }
        | Event::RunEnded { run, .. }
        | Event::RunJoined { run }
        | Event::RunCancelled { run } => Scope::Run(*run),
        Event::TaskAdded { task, .. }
        | Event::TaskReady { task }
        | Event::TaskAssigned { task, .. }
        | Event::TaskReturned { task, .. }
        | Event::TaskCompleted { task, .. }
        | Event::TaskFailed { task, .. }
        | Event::TaskEnded { task, .. }
        | Event::StaleResult { task, .. } => Scope::Task(*task),
        _ => Scope::Guild,
    }
}

/// A completed task has an output, if only `null`; no other task has one.
fn check_outputs(loaded: &mut Loaded) -> Result<(), String> {
    for run in &mut loaded.runs {
        for (place, output) in run.outputs.iter_mut().enumerate() {
            let end = run.history.tasks.get(place).and_then(|task| task.end.as_ref());
            let is_completed = matches!(end, Some(TaskEnd::Completed(_)));
            if is_completed && output.is_none() {
                *output = Some(Payload::NULL);
            } else if !is_completed && output.is_some() {
                return Err(format!(
                    "task {place} of run `{}` has an output but did not complete",
                    run.name
                ));
            }
        }
    }
    Ok(())
}

/// Checks that the places a graph refers to exist, so that nobody has to check again.
pub(crate) fn check_graph(graph: &Graph, bindings: &Bindings) -> Result<(), &'static str> {
    if graph.roles.len() != bindings.roles.len() || graph.quotas.len() != bindings.quotas.len() {
        return Err("its bindings are those of another graph");
    }
    for (place, task) in graph.tasks.iter().enumerate() {
        if usize::from(task.options.role) >= graph.roles.len() {
            return Err("a task asks for a role that the graph does not list");
        }
        if task.options.quotas.iter().any(|(quota, _)| usize::from(*quota) >= graph.quotas.len()) {
            return Err("a task asks for a quota that the graph does not list");
        }
        if task.after.iter().any(|after| after.at() >= graph.tasks.len() || after.at() == place) {
            return Err("a task waits for a task that the graph does not have");
        }
    }
    Ok(())
}

fn sound(graph: Graph, bindings: &Bindings) -> Result<Arc<Graph>, String> {
    check_graph(&graph, bindings)?;
    Ok(Arc::new(graph))
}

fn task_of<'a>(
    runs: &'a mut [RecoveredRun],
    key: &[u8],
) -> Result<(&'a mut RecoveredRun, TaskIndex), String> {
    let numbers = key::number(key, 1).zip(key::number(key, 5));
    let (run, index) = numbers.ok_or("a key is too short")?;
    let run = runs.get_mut(run as usize).ok_or_else(|| format!("run {run} is missing"))?;
    Ok((run, TaskIndex(index)))
}

/// Returns the number of a task or run; both are bounded far below `u32::MAX`.
pub(crate) fn index(place: usize) -> TaskIndex {
    TaskIndex(
        u32::try_from(place).expect("tasks_per_run_max is a u32, and every run has a name in RAM"),
    )
}
