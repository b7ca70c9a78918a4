//! Checks every invariant of the planner.

use std::collections::BTreeMap;

use crate::id::{RunId, TaskId};

use super::Planner;
use super::agents::AgentState;
use super::run::{Run, Status, TaskState};

impl Planner {
    /// Checks every invariant; slow, for tests.
    ///
    /// # Errors
    /// What is broken, in words.
    pub fn validate(&self) -> Result<(), String> {
        let mut leases: BTreeMap<TaskId, u64> = BTreeMap::new();
        for (role, pool) in self.roles.iter().enumerate() {
            let (mut idle, mut live) = (0, 0);
            for (index, slot) in (0..).zip(&pool.agents) {
                match slot.state {
                    AgentState::Down => continue,
                    AgentState::Idle => idle += 1,
                    AgentState::Busy(_) | AgentState::Committing => {}
                }
                live += 1;
                let Some(lease) = pool.lease(index) else {
                    continue;
                };
                let twice = leases.insert(lease.task, lease.token.0).is_some();
                ensure(!twice, || format!("{:?} has two leases", lease.task))?;
                ensure(lease.token <= self.token, || "a token from the future".into())?;
                ensure(slot.armed <= lease.expires(), || {
                    format!("nothing watches the lease of {:?}", lease.task)
                })?;
            }
            ensure(idle == pool.idle_count, || format!("role {role}: {idle} agents idle"))?;
            ensure(live == pool.live_count, || format!("role {role}: {live} agents live"))?;
        }
        ensure(leases.len() == self.running, || format!("{} leases", leases.len()))?;
        let mut committing = 0;
        let mut used = vec![0_u64; self.quotas.len()];
        for run in self.runs.iter().flatten() {
            self.validate_run(run, &mut leases, &mut committing, &mut used)?;
        }
        ensure(leases.is_empty(), || format!("leases on tasks that do not run: {leases:?}"))?;
        ensure(committing == self.committing, || format!("{committing} tasks commit"))?;
        for (place, pool) in self.quotas.iter().enumerate() {
            ensure(pool.quota.held().is_none_or(|held| u64::from(held) == used[place]), || {
                format!("quota {place}: {} in use by tasks", used[place])
            })?;
        }
        Ok(())
    }

    fn validate_run(
        &self,
        run: &Run,
        leases: &mut BTreeMap<TaskId, u64>,
        committing: &mut usize,
        used: &mut [u64],
    ) -> Result<(), String> {
        let (mut running, mut ready, mut ended) = (0, 0, 0);
        for (index, state) in (0..).map(crate::id::TaskIndex).zip(&run.tasks) {
            let task = TaskId { run: run.id, index };
            let name = || format!("task {} of run {}", index.0, run.id.0);
            match state.status {
                Status::Running => {
                    running += 1;
                    let lease = leases.remove(&task);
                    let token = state.holder.map(|holder| holder.token.0);
                    ensure(lease.is_some() && lease == token, || {
                        format!("{} has no lease", name())
                    })?;
                }
                Status::Committing => {
                    running += 1;
                    *committing += 1;
                    ensure(state.holder.is_some(), || format!("{} commits for nobody", name()))?;
                }
                Status::Ready | Status::Parked => ready += 1,
                Status::Completed | Status::Ended(_) => ended += 1,
                Status::Waiting | Status::Backoff(_) => {}
            }
            if matches!(state.status, Status::Running | Status::Committing) {
                run.demands(index).for_each(|(quota, amount)| used[quota] += u64::from(amount));
            }
            ensure(state.closed == is_closed(state), || format!("the scope of {}", name()))?;
            let open = count_open(run, index);
            ensure(open == state.pending, || format!("{} waits for {open}", name()))?;
            let waits = state.status == Status::Waiting;
            ensure(!waits || open > 0, || format!("{} waits for nothing", name()))?;
            self.validate_conservation(run.id, task, state)?;
        }
        ensure((running, ready, ended) == (run.running, run.ready, run.ended), || {
            format!("run {}: {running} running, {ready} ready, {ended} ended", run.id.0)
        })?;
        ensure(run.told == run.is_ended(), || format!("the end of run {} was not told", run.id.0))
    }

    /// No task is ready while an agent that it may have is idle. (Tasks that wait for a quota are
    /// `Parked`; that they are woken is a property test's matter.)
    fn validate_conservation(
        &self,
        run: RunId,
        task: TaskId,
        state: &TaskState,
    ) -> Result<(), String> {
        if state.status != Status::Ready || self.paused {
            return Ok(());
        }
        let full = self.committing >= self.limits.commits_in_flight_max && !state.urgent;
        let role = self.run(run).map_or(0, |run| run.role(task.index));
        let pool = &self.roles[role];
        let idle = pool.agents.iter().enumerate().any(|(index, slot)| {
            let avoided = state.avoid().is_some_and(|agent| agent.index as usize == index);
            slot.state == AgentState::Idle && (!avoided || pool.live_count == 1)
        });
        ensure(full || !idle, || format!("{task:?} is ready while an agent is idle"))
    }
}

fn is_closed(state: &TaskState) -> bool {
    state.status.is_final() && state.children_open == 0
}

fn count_open(run: &Run, index: crate::id::TaskIndex) -> u32 {
    let first = run.part(index).first;
    let open = |before: &&crate::id::TaskIndex| !run.tasks[(before.0 + first) as usize].closed;
    u32::try_from(run.spec(index).after.iter().filter(open).count()).unwrap_or(u32::MAX)
}

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}
