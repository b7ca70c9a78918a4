//! Runs a whole guild in virtual time, on one thread, from a seed.
//!
//! A [`World`] holds the production code: controller, scheduler, memory, supervisors and agents are
//! the actors of `guild-runtime`, under a runtime whose clock jumps to the next timer whenever
//! nothing is left to do. Agents are tested in it in an ordinary `#[test]`.
//!
//! ```
//! use std::time::Duration;
//!
//! use guild_core::graph::Task;
//! use guild_runtime::{Agent, TaskContext, TaskError};
//! use guild_sim::World;
//!
//! struct Sleeper;
//!
//! impl Agent for Sleeper {
//!     type Input = u64;
//!     type Output = String;
//!
//!     async fn perform(&mut self, hours: u64, context: &mut TaskContext) -> Result<String, TaskError> {
//!         context.sleep(Duration::from_secs(3_600 * hours)).await;
//!         Ok("rested".to_owned())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut world = World::with_seed(7).role("sleeper", 2, || Sleeper).start()?;
//! let mut graph = world.graph("night");
//! graph.add(Task::new("long", "sleeper").input(&8).timeout(Duration::from_secs(36_000)));
//! graph.add(Task::new("short", "sleeper").input(&1).timeout(Duration::from_secs(36_000)));
//!
//! let run = world.submit(graph.build()?)?;
//! let report = world.run_until_ended(&run)?;
//!
//! assert_eq!(report.output::<String>("long")?, "rested");
//! assert_eq!(world.now().0, 8 * 3_600_000_000);
//! # Ok(())
//! # }
//! ```

mod builder;
mod disk;
mod fate;
mod life;
mod log;
mod perturbation;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use guild_core::graph::{Graph, GraphBuilder};
use guild_core::id::CommitVersion;
use guild_core::incident::Incident;
use guild_core::retry::RetryPolicy;
use guild_core::time::Timestamp;
use guild_memory::store::Crash;
use guild_memory::{Snapshot, Transaction, TransactionError};
use guild_runtime::{
    Drain, Guild, Run, RunError, RunReport, StartError, Stats, SubmitError, TransactError,
};
use serde::de::DeserializeOwned;

pub use self::builder::{Medium, Resolution, WorldBuilder};
pub use self::disk::{Disk, DiskFault};
pub use self::fate::Fate;
use self::life::Life;
use self::log::Log;
pub use self::log::{Counts, LogReader};
pub use self::perturbation::Perturbation;
use crate::checker::serial::Verdict;

/// Why something did not come to its end in a world.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// A graph was refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The guild could not start again after a crash.
    #[error("the guild does not start again: {0}")]
    Restart(#[from] StartError),
    /// The run's guild ended before the run did.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run of a graph that was never submitted.
    #[error("no run `{0}` was submitted to this world")]
    UnknownRun(String),
    /// The time limit passed.
    #[error("nothing came to its end within {0:?} of virtual time: something waits for ever")]
    Stuck(Duration),
    /// There is no disk that could hold anything after a crash.
    #[error("a world in RAM keeps nothing after a crash: give it a disk by `medium`")]
    NoDisk,
}

/// A submitted run, by its name: it is the same run after a crash of the process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunName(Arc<str>);

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A guild in virtual time.
pub struct World {
    parts: WorldBuilder,
    log: Log,
    disk: Option<Disk>,
    /// None only while one life gives way to the next.
    life: Option<Life>,
    /// The runs, with the graphs by which another life goes on with them.
    submitted: Vec<(RunName, Option<Graph>)>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.parts.seed).finish_non_exhaustive()
    }
}

impl World {
    /// Returns a builder of a world whose random draws all come from this seed.
    pub fn with_seed(seed: u64) -> WorldBuilder {
        WorldBuilder::new(seed)
    }

    fn open(parts: WorldBuilder, log: Log, disk: Option<Disk>) -> Result<Self, StartError> {
        let life = Life::begin(&parts, &log, disk.as_ref(), Timestamp(0))?;
        Ok(Self { parts, log, disk, life: Some(life), submitted: Vec::new() })
    }

    /// Returns a builder of a graph that knows this world's roles, quotas and limits.
    pub fn graph(&self, name: impl Into<String>) -> GraphBuilder {
        self.guild().graph(name)
    }

    /// Submits a graph; the name of the graph is the key, as with [`Guild::submit`].
    ///
    /// # Errors
    /// The graph is refused.
    pub fn submit(&mut self, graph: Graph) -> Result<RunName, WorldError> {
        let name = RunName(graph.name.as_str().into());
        let guild = self.guild().clone();
        // A world in RAM has one life.
        let again = self.disk.is_some().then(|| graph.clone());
        self.block_on(async move { guild.submit(graph).await })?;
        if !self.submitted.iter().any(|(known, _)| *known == name) {
            self.submitted.push((name.clone(), again));
        }
        Ok(name)
    }

    /// Submits a graph and lets time pass until its run has ended.
    ///
    /// # Errors
    /// The graph is refused, or [`WorldError::Stuck`] when the time limit passes first.
    pub fn run(&mut self, graph: Graph) -> Result<Arc<RunReport>, WorldError> {
        let run = self.submit(graph)?;
        self.run_until_ended(&run)
    }

    /// Lets time pass until the run has ended.
    ///
    /// # Errors
    /// [`WorldError::Stuck`] when the time limit passes first; the run goes on then.
    pub fn run_until_ended(&mut self, run: &RunName) -> Result<Arc<RunReport>, WorldError> {
        let run = self.find(run)?;
        let limit = self.parts.time_limit;
        self.within(limit, async move { run.wait().await })?.map_err(WorldError::Run)
    }

    /// Lets time pass until all submitted runs have ended and nothing happens for a second.
    ///
    /// # Errors
    /// [`WorldError::Stuck`] when the time limit passes first.
    pub fn run_until_quiet(&mut self) -> Result<(), WorldError> {
        let names: Vec<RunName> = self.submitted.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.run_until_ended(&name)?;
        }
        loop {
            let before = self.log.seq();
            self.run_for(Duration::from_secs(1));
            if self.log.seq() == before {
                return Ok(());
            }
        }
    }

    /// Drops what is kept of a run that has ended, see [`Run::forget`]; for worlds of very many runs.
    pub fn forget(&mut self, run: &RunName) {
        if let Ok(found) = self.find(run) {
            found.forget();
        }
        self.submitted.retain(|(name, _)| name != run);
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let delay = self.stretched(duration);
        self.block_on(async move { tokio::time::sleep(delay).await });
    }

    /// Lets time pass until the log has this many events.
    ///
    /// # Errors
    /// [`WorldError::Stuck`] when the time limit passes first.
    pub fn run_until_event(&mut self, seq: u64) -> Result<(), WorldError> {
        let log = self.log.clone();
        let limit = self.parts.time_limit;
        self.within(limit, async move { log.reach(seq).await })
    }

    /// Runs a future in the time of the world.
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        self.life().block_on(future)
    }

    /// Runs a future in the time of the world, but not longer than this.
    ///
    /// # Errors
    /// [`WorldError::Stuck`] when the time passes first; the future is dropped then.
    pub fn within<F: Future>(
        &mut self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, WorldError> {
        let delay = self.stretched(limit);
        self.block_on(async move { tokio::time::timeout(delay, future).await })
            .map_err(|_| WorldError::Stuck(limit))
    }

    /// Ends the process as a crash does, and starts it again on what the disk has kept.
    ///
    /// # Errors
    /// The world has no disk, or the guild does not start again on it.
    pub fn crash(&mut self, crash: Crash) -> Result<(), WorldError> {
        self.crash_for(crash, Duration::ZERO)
    }

    /// Ends the process as a crash does, and starts it again on what the disk has kept, after this
    /// much time.
    ///
    /// # Errors
    /// The world has no disk, or the guild does not start again on it.
    pub fn crash_for(&mut self, crash: Crash, downtime: Duration) -> Result<(), WorldError> {
        let disk = self.disk.clone().ok_or(WorldError::NoDisk)?;
        disk.crash(crash);
        let now = self.now().after(downtime);
        // Whatever the old life still does while it is dropped, the disk sees no more of it.
        self.life = None;
        self.begin(now)
    }

    /// Ends the guild in order, as far as it still obeys, and starts it again on its disk in the
    /// same process.
    ///
    /// # Errors
    /// The world has no disk, or the guild does not start again on it.
    pub fn restart(&mut self) -> Result<(), WorldError> {
        self.disk.as_ref().ok_or(WorldError::NoDisk)?;
        self.end();
        let now = self.now();
        self.life = None;
        self.begin(now)
    }

    fn begin(&mut self, now: Timestamp) -> Result<(), WorldError> {
        self.life = Some(Life::begin(&self.parts, &self.log, self.disk.as_ref(), now)?);
        for graph in
            self.submitted.iter().filter_map(|(_, graph)| graph.clone()).collect::<Vec<_>>()
        {
            let guild = self.guild().clone();
            self.block_on(async move { guild.submit(graph).await })?;
        }
        Ok(())
    }

    /// Returns the first event that was told and was lost or changed by a crash, if there is one;
    /// known only of a world with a disk.
    pub fn rewritten(&self) -> Option<u64> {
        self.log.rewritten()
    }

    /// Waits this long in the time of the world, wherever the future is polled in it.
    pub fn timer(&self, duration: Duration) -> impl Future<Output = ()> + use<> {
        let delay = self.stretched(duration);
        async move { tokio::time::sleep(delay).await }
    }

    /// Makes the disk fail the next time it is written to: the guild takes nothing more, until it
    /// is started again by [`World::crash`].
    ///
    /// # Errors
    /// The world has no disk.
    pub fn fail_disk(&mut self, fault: DiskFault) -> Result<(), WorldError> {
        self.disk.as_ref().ok_or(WorldError::NoDisk)?.fail(fault);
        Ok(())
    }

    /// Returns how many batches of the disk a power cut could still lose.
    pub fn unsynced_batches(&self) -> usize {
        self.disk.as_ref().map_or(0, Disk::unsynced_batches)
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Timestamp {
        match &self.life {
            None => Timestamp::default(),
            Some(life) => life.now(self.parts.resolution),
        }
    }

    /// Returns the handle of the guild; after a crash it is another one.
    pub fn guild(&self) -> &Guild {
        &self.life().guild
    }

    /// Returns the newest snapshot of the shared memory.
    pub fn snapshot(&self) -> Snapshot {
        self.guild().memory().snapshot()
    }

    /// Returns the value of a key of the shared memory now; none when it is absent.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, TransactionError> {
        Transaction::begin(self.snapshot()).get(key)
    }

    /// Runs a transaction from outside on the shared memory.
    ///
    /// # Errors
    /// As [`guild_runtime::MemoryHandle::transact`].
    pub fn transact<R, E>(
        &mut self,
        work: impl FnMut(&mut Transaction) -> Result<R, E>,
    ) -> Result<(R, CommitVersion), TransactError<E>> {
        let memory = self.guild().memory();
        self.block_on(async move { memory.transact(&RetryPolicy::default(), work).await })
    }

    /// Returns the incidents of this life of the process, oldest first.
    pub fn incidents(&self) -> Vec<Incident> {
        self.guild().incidents()
    }

    /// Returns what happened in this life of the process.
    pub fn stats(&self) -> Stats {
        self.guild().stats()
    }

    /// Returns what the whole log holds, counted.
    pub fn counts(&self) -> Counts {
        self.log.counts()
    }

    /// Returns the lines of the log, if [`WorldBuilder::keep_log`] was asked for.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Returns the hash of the log: XXH64 over its lines, each with its line break.
    pub fn log_hash(&self) -> u64 {
        self.log.hash()
    }

    /// Returns whether the order of the commits explains all that transactions have read so far. A
    /// world that ends when it does not panics, unless this has told its whole history.
    pub fn history(&self) -> Verdict {
        self.log.history()
    }

    /// Ends the guild in order.
    pub fn shut_down(mut self) {
        self.end();
    }

    /// Ends the guild in order; the log can still be asked, and a world with a disk
    /// [restarted](Self::restart).
    pub fn end(&mut self) {
        let guild = self.guild().clone();
        if let Err(error) = self.block_on(async move { guild.shutdown(Drain::Now).await }) {
            tracing::debug!(%error, "guild of a world did not end cleanly");
        }
    }

    fn find(&self, run: &RunName) -> Result<Run, WorldError> {
        self.guild().run(&run.0).ok_or_else(|| WorldError::UnknownRun(run.0.to_string()))
    }

    fn life(&self) -> &Life {
        match &self.life {
            Some(life) => life,
            None => unreachable!("a world is between two lives only while it starts the second"),
        }
    }

    fn stretched(&self, duration: Duration) -> Duration {
        duration.saturating_mul(self.parts.resolution.stretch()).min(FAR)
    }
}

/// Whatever a world is for, its memory must have been serialisable.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let anomalies = self.log.untold_history().anomalies;
            assert!(anomalies.is_empty(), "{anomalies:#?}");
        }
    }
}

/// A hundred thousand years: further than any timer reaches.
const FAR: Duration = Duration::from_secs(100_000 * 365 * 24 * 60 * 60);
