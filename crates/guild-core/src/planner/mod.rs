//! Decides what happens next to every task: a pure state machine.
//!
//! [`Planner::step`] takes the time and one input and appends commands and events to [`Decisions`].
//! The scheduler actor obeys; nothing else in Guild decides about a task. (Dask spent a year on
//! scheduler deadlocks before it pulled its state machine out of the I/O.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::draw::Seed;
use crate::id::{AgentId, BootEpoch, FencingToken, QuotaId, RunId, TaskId};
use crate::limits::Limits;
use crate::quota::QuotaSpec;
use crate::time::Timestamp;

mod agents;
mod attempt;
mod census;
mod dispatch;
mod input;
mod ready;
mod restore;
mod run;
mod scope;
mod validate;

use agents::RolePool;
use attempt::Failure;
pub use census::Census;
use dispatch::QuotaPool;
pub use dispatch::ReadyOrder;
pub use input::{
    AttemptResult, Command, Decisions, Input, Progress, Refusal, RestoredRun, Spawned,
};
use run::{Run, Status};

/// How the planner is set up.
#[derive(Clone, Debug)]
pub struct PlannerConfig {
    /// Agents of each role; a [`crate::id::RoleId`] is a place in here.
    pub agents: Vec<u32>,
    /// The quotas; a [`crate::id::QuotaId`] is a place in here.
    pub quotas: Vec<QuotaSpec>,
    /// The bounds.
    pub limits: Limits,
    /// Seed of the jitter.
    pub seed: Seed,
    /// Start of the process on its store; the floor of all tokens.
    pub epoch: BootEpoch,
    /// Whether a commit is answered at once, as without a store. An agent is then free when its
    /// result is committed, so that the tasks behind it take part when its next one is chosen;
    /// otherwise it is free when it has handed in, and nobody waits for the disk.
    pub commits_at_once: bool,
    /// Which ready task goes first.
    pub order: ReadyOrder,
    /// Whether every invariant is checked after every step (slow; on in all tests).
    pub validate: bool,
}

/// What the planner waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A lease may have run out.
    Lease(AgentId),
    /// A task's backoff is over.
    Backoff(TaskId),
    /// A rate quota has refilled.
    Quota(QuotaId),
}

/// The states of all tasks, agents and quotas of a guild.
#[derive(Debug)]
pub struct Planner {
    limits: Limits,
    seed: Seed,
    order: ReadyOrder,
    commits_at_once: bool,
    shuffles_ties: bool,
    checked: bool,
    /// By [`RunId`]; runs that were forgotten are `None`.
    runs: Vec<Option<Box<Run>>>,
    roles: Vec<RolePool>,
    quotas: Vec<QuotaPool>,
    token: FencingToken,
    timers: BinaryHeap<Reverse<(Timestamp, Timer)>>,
    dirty_roles: Vec<usize>,
    dirty_quotas: Vec<usize>,
    /// How many times a task became ready; numbers them for [`ReadyOrder::Fifo`].
    made_ready: u64,
    running: usize,
    committing: usize,
    paused: bool,
}

impl Planner {
    /// Returns a planner without runs, all of whose agents are still down.
    pub fn new(config: PlannerConfig) -> Self {
        Self {
            token: FencingToken::floor(config.epoch),
            limits: config.limits,
            seed: config.seed,
            order: config.order,
            commits_at_once: config.commits_at_once,
            shuffles_ties: false,
            checked: config.validate,
            runs: Vec::new(),
            roles: config.agents.into_iter().map(RolePool::new).collect(),
            quotas: config.quotas.into_iter().map(QuotaPool::new).collect(),
            timers: BinaryHeap::new(),
            dirty_roles: Vec::new(),
            dirty_quotas: Vec::new(),
            made_ready: 0,
            running: 0,
            committing: 0,
            paused: false,
        }
    }

    /// Gives tasks that are equal in their order an order that the seed draws, instead of the one
    /// in which they were added. A simulation sees more than one order then; call it before the
    /// first input.
    pub fn shuffle_ties(&mut self) {
        self.shuffles_ties = true;
    }

    /// Takes one input at `now` and appends what is to be done and recorded; then settles.
    ///
    /// # Panics
    /// An invariant is broken while `validate` is on: a bug in the planner.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Decisions) {
        self.take(now, input, out);
        self.settle(now, out);
    }

    /// Takes one input at `now` and appends what it means; nothing is assigned before
    /// [`settle`](Self::settle), so that what happens at one time is known when it is decided.
    pub fn take(&mut self, now: Timestamp, input: Input, out: &mut Decisions) {
        match input {
            Input::Submit { run, graph, bindings } => self.submit(now, run, graph, bindings, out),
            Input::AgentReady { agent, incarnation } => self.agent_ready(agent, incarnation),
            Input::AgentDown { agent, incarnation, cause, message, stopped } => {
                let failure = Failure { kills: !stopped, ..Failure::new(cause, message) };
                self.agent_down(now, agent, incarnation, failure, out);
            }
            Input::RoleLost { role } => self.role_lost(role),
            Input::Heartbeat { agent, task, token } => {
                self.heartbeat(now, agent, task, token, Duration::ZERO);
            }
            Input::Wait { agent, task, token, lasts } => {
                self.heartbeat(now, agent, task, token, lasts);
            }
            Input::Finished { agent, incarnation, task, token, result } => {
                self.finished(now, (agent, incarnation), task, token, result, out);
            }
            Input::Committed { task, token, version: _, spawned } => {
                self.committed(now, task, token, spawned, out);
            }
            Input::CommitRefused { task, token, refusal } => {
                self.refused(now, task, token, refusal, out);
            }
            Input::Permits { quota, permits } => self.set_permits(now, quota, permits, out),
            Input::Cancel { run } => self.cancel(now, run, out),
            Input::Tick => {}
        }
    }

    /// Does what is due at `now`, and gives ready tasks to idle agents.
    ///
    /// # Panics
    /// An invariant is broken while `validate` is on: a bug in the planner.
    pub fn settle(&mut self, now: Timestamp, out: &mut Decisions) {
        self.fire_timers(now, out);
        self.dispatch(now, out);
        self.check();
    }

    /// Returns when the next [`Input::Tick`] is due.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Assigns nothing more; what is under way may finish.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Takes a quota up where an earlier process left it: this much was in use at that time.
    pub fn resume_quota(&mut self, quota: QuotaId, at: Timestamp, in_use: u32) {
        if let Some(pool) = self.quotas.get_mut(usize::from(quota.0)) {
            pool.quota.resume(at, in_use);
        }
    }

    /// Returns how many tasks agents perform now.
    pub fn tasks_in_flight(&self) -> usize {
        self.running
    }

    /// Returns how many completions wait for their commit.
    pub fn open_commits(&self) -> usize {
        self.committing
    }

    /// Returns how far a run is; zeros for one that is unknown or forgotten.
    pub fn progress(&self, run: RunId) -> Progress {
        self.run(run).map(Run::progress).unwrap_or_default()
    }

    /// Returns whether all tasks of a run have ended; true for one that is unknown or forgotten.
    pub fn is_ended(&self, run: RunId) -> bool {
        self.run(run).is_none_or(Run::is_ended)
    }

    /// Drops a run that has ended.
    pub fn forget(&mut self, run: RunId) {
        if self.is_ended(run)
            && let Some(slot) = self.runs.get_mut(run.0 as usize)
        {
            *slot = None;
        }
    }

    fn run(&self, run: RunId) -> Option<&Run> {
        self.runs.get(run.0 as usize)?.as_deref()
    }

    fn run_mut(&mut self, run: RunId) -> Option<&mut Run> {
        self.runs.get_mut(run.0 as usize)?.as_deref_mut()
    }

    fn status(&self, task: TaskId) -> Option<Status> {
        Some(self.run(task.run)?.tasks.get(task.index.at())?.status)
    }

    fn fire_timers(&mut self, now: Timestamp, out: &mut Decisions) {
        while let Some(Reverse((at, timer))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            match timer {
                Timer::Lease(agent) => self.lease_timer(now, at, agent, out),
                Timer::Backoff(task) => self.backoff_over(at, task, out),
                Timer::Quota(quota) => {
                    if let Some(pool) = self.quotas.get_mut(usize::from(quota.0)) {
                        pool.timer_at = None;
                        self.dirty_quotas.push(usize::from(quota.0));
                    }
                }
            }
        }
    }

    fn check(&self) {
        if self.checked
            && let Err(broken) = self.validate()
        {
            panic!("the planner broke an invariant: {broken}");
        }
    }
}
