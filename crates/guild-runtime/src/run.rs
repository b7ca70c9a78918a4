//! Follows a submitted run: its progress, its end and its outputs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use guild_core::event::{Names, Outcome, Tally};
use guild_core::graph::{Graph, NameIndex};
use guild_core::id::{RunId, TaskId, TaskIndex};
use guild_core::payload::Payload;
use guild_core::planner::{Input, Progress};
use serde::de::DeserializeOwned;

use crate::context::Surroundings;
use crate::message::{MemoryMessage, SchedulerMessage};
use crate::signal::Signal;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct RunReport {
    pub(crate) id: RunId,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    pub(crate) tally: Tally,
    pub(crate) makespan_us: u64,
    pub(crate) outputs: Vec<Option<Payload>>,
    /// The graph that was submitted; none: no task of it is known any more.
    pub(crate) graph: Option<Arc<Graph>>,
    /// Where its tasks are by name, once somebody has asked for one.
    pub(crate) by_name: OnceLock<NameIndex>,
    /// First number and count of the tasks that a task spawned.
    pub(crate) children: BTreeMap<TaskIndex, (u32, u32)>,
}

/// An output that cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The run has no task of this name.
    #[error("the run `{run}` has no task `{task}`")]
    UnknownTask {
        /// The run.
        run: String,
        /// What was asked for.
        task: String,
    },
    /// The task did not complete.
    #[error("the task `{task}` of the run `{run}` did not complete, so it has no output")]
    NotCompleted {
        /// The run.
        run: String,
        /// What was asked for.
        task: String,
    },
    /// The output is of another type.
    #[error("the output of the task `{task}` is of another type: {source}")]
    Type {
        /// What was asked for.
        task: String,
        /// What the decoder said.
        source: serde_json::Error,
    },
}

impl RunReport {
    /// Returns the name of the run.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of the run.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Returns how the run ended.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns how many tasks ended in which way.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns the microseconds from the submission to the end.
    pub fn makespan_us(&self) -> u64 {
        self.makespan_us
    }

    /// Returns the output of a task as this type.
    ///
    /// # Errors
    /// There is no such task, it did not complete, or its output is of another type.
    pub fn output<T: DeserializeOwned>(&self, task: &str) -> Result<T, OutputError> {
        self.payload(task)?
            .decode()
            .map_err(|source| OutputError::Type { task: task.to_owned(), source })
    }

    /// Returns the output of a task as JSON. `map[3]` names the fourth task that `map` spawned.
    ///
    /// # Errors
    /// There is no such task, or it did not complete.
    pub fn payload(&self, task: &str) -> Result<&Payload, OutputError> {
        let index = self.find(task).ok_or_else(|| OutputError::UnknownTask {
            run: self.name.clone(),
            task: task.to_owned(),
        })?;
        self.outputs.get(index.at()).and_then(Option::as_ref).ok_or_else(|| {
            OutputError::NotCompleted { run: self.name.clone(), task: task.to_owned() }
        })
    }

    /// Returns the output of each task by its [`TaskIndex`], those of spawned tasks behind those that
    /// were submitted; a task that did not complete has none.
    pub fn payloads(&self) -> &[Option<Payload>] {
        &self.outputs
    }

    /// Returns the outputs of the tasks that a task spawned, in spawn order; a task that did not
    /// complete has none.
    ///
    /// # Errors
    /// There is no such task.
    pub fn spawned_payloads(&self, task: &str) -> Result<Vec<Option<&Payload>>, OutputError> {
        let index = self.find(task).ok_or_else(|| OutputError::UnknownTask {
            run: self.name.clone(),
            task: task.to_owned(),
        })?;
        let (first, count) = self.children.get(&index).copied().unwrap_or((0, 0));
        let outputs = self.outputs.iter().skip(first as usize).take(count as usize);
        Ok(outputs.map(Option::as_ref).collect())
    }

    fn find(&self, task: &str) -> Option<TaskIndex> {
        if let Some(index) = self.find_submitted(task) {
            return Some(index);
        }
        let (parent, number) = task.strip_suffix(']')?.rsplit_once('[')?;
        let (first, count) = self.children.get(&self.find(parent)?)?;
        let number = number.parse::<u32>().ok().filter(|number| number < count)?;
        Some(TaskIndex(first + number))
    }

    fn find_submitted(&self, task: &str) -> Option<TaskIndex> {
        let tasks = &self.graph.as_ref()?.tasks;
        let index = || NameIndex::of_tasks(tasks.iter().map(|task| &task.name));
        let by_name = self.by_name.get_or_init(index);
        by_name.find_task(task, |place| &tasks[place as usize].name)
    }
}

/// Why a run's report cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The guild shut down before the run ended. With a store on disk the run goes on when a guild
    /// is started on it and the same graph is submitted.
    #[error("the guild shut down before the run ended")]
    ShutDown,
    /// The guild failed: {0}. What was acknowledged is kept.
    #[error("the guild failed before the run ended: {0}")]
    Failed(String),
    /// The run has ended, and its report was dropped by [`Run::forget`].
    #[error("the run has ended and was forgotten")]
    Forgotten,
}

/// A submitted run; every clone is the same run.
#[derive(Clone)]
pub struct Run {
    pub(crate) id: RunId,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) state: Signal<RunState>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Run {
    /// Returns the number of the run.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Returns the name of the run.
    pub fn name(&self) -> String {
        self.surroundings.named(|names| names.run(self.id))
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    /// The guild shut down or failed before the run ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; the run goes on.
    pub async fn wait(&self) -> Result<Arc<RunReport>, RunError> {
        self.state.find(|state| state.end.clone()).await
    }

    /// Returns how far the run is.
    pub fn progress(&self) -> Progress {
        self.state.look(|state| state.progress)
    }

    /// Asks for the end of the run: tasks that wait end as cancelled, running ones are taken back.
    /// [`Run::wait`] tells when it is done; a run that has ended stays as it is.
    pub fn cancel(&self) {
        self.surroundings.scheduler.push(SchedulerMessage::Tell(Input::Cancel { run: self.id }));
    }

    /// Drops what the guild keeps in RAM of the run once it has ended: its report and the names of
    /// its tasks. Nothing changes while it has not ended. A guild that runs graph after graph for
    /// months calls this when it has seen the report; its name stays taken.
    pub fn forget(&self) {
        self.surroundings.memory.push(MemoryMessage::Forget { run: self.id });
    }

    /// Returns the number of the task of a run by its number within it, for use with events.
    pub fn task_id(&self, index: TaskIndex) -> TaskId {
        TaskId { run: self.id, index }
    }
}

/// What is known of a run now.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunState {
    pub(crate) progress: Progress,
    pub(crate) end: Option<Result<Arc<RunReport>, RunError>>,
}

/// Where runs are followed; every clone is the same board.
#[derive(Clone, Default)]
pub(crate) struct RunBoard(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    runs: BTreeMap<RunId, Signal<RunState>>,
    closed: Option<RunError>,
}

impl RunBoard {
    /// Returns where a run is followed; the first call opens the place.
    pub(crate) fn follow(&self, run: RunId) -> Signal<RunState> {
        let mut board = self.board();
        let closed = board.closed.clone();
        let state = board.runs.entry(run).or_insert_with(|| {
            let end = closed.map(Err);
            Signal::new(RunState { progress: Progress::default(), end })
        });
        state.clone()
    }

    /// Says how far a run is.
    pub(crate) fn progress(&self, run: RunId, progress: Progress) {
        if let Some(state) = self.board().runs.get(&run) {
            state.change(|state| {
                state.progress = progress;
                false
            });
        }
    }

    /// Says how a run ended.
    pub(crate) fn end(&self, report: RunReport) {
        self.follow(report.id).change(|state| {
            state.end = Some(Ok(Arc::new(report)));
            true
        });
    }

    /// Drops the report of a run; returns whether the run has ended.
    pub(crate) fn forget(&self, run: RunId) -> bool {
        let board = self.board();
        let Some(state) = board.runs.get(&run) else {
            return false;
        };
        state.change(|state| {
            if state.end.is_some() {
                state.end = Some(Err(RunError::Forgotten));
            }
            false
        });
        state.look(|state| state.end.is_some())
    }

    /// Says that no run will end any more, and why.
    pub(crate) fn close(&self, error: RunError) {
        let mut board = self.board();
        board.end_all(&error);
        board.closed.get_or_insert(error);
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// Tells whoever waits for a run that has not ended that it will not.
    fn end_all(&self, error: &RunError) {
        for state in self.runs.values() {
            state.change(|state| {
                let is_open = state.end.is_none();
                if is_open {
                    state.end = Some(Err(error.clone()));
                }
                is_open
            });
        }
    }
}

/// Nobody is left who could end a run: neither an actor nor a handle.
impl Drop for Board {
    fn drop(&mut self) {
        self.end_all(&RunError::ShutDown);
    }
}
