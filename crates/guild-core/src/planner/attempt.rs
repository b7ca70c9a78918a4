//! Follows one attempt from its lease to its outcome.

use std::time::Duration;

use crate::draw::Stream;
use crate::event::{Cause, EndState, Event};
use crate::id::{AgentId, FencingToken, Incarnation, RoleId, TaskId};
use crate::retry::RetryPolicy;
use crate::time::Timestamp;

use super::agents::{AgentState, NEVER};
use super::run::{Holder, Status};
use super::{AttemptResult, Command, Decisions, Planner, Refusal, Spawned, Timer};

/// How an attempt failed.
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) message: Box<str>,
    pub(super) retryable: bool,
    pub(super) retry_after: Option<Duration>,
    /// Whether a life of its agent ended with it.
    pub(super) kills: bool,
    /// Whether others wait until the task has been tried again.
    pub(super) urgent: bool,
}

impl Failure {
    pub(super) fn new(cause: Cause, message: impl Into<Box<str>>) -> Self {
        let (message, retryable, kills, urgent) = (message.into(), true, false, false);
        Self { cause, message, retryable, retry_after: None, kills, urgent }
    }
}

impl Planner {
    pub(super) fn agent_ready(&mut self, agent: AgentId, incarnation: Incarnation) {
        let role = usize::from(agent.role.0);
        let Some(pool) = self.roles.get_mut(role) else {
            return;
        };
        let Some(slot) = pool.agents.get_mut(agent.index as usize) else {
            return;
        };
        if slot.incarnation >= incarnation {
            return;
        }
        assert!(
            !matches!(slot.state, AgentState::Busy(_)),
            "a new life begins after the one before it has ended"
        );
        slot.incarnation = incarnation;
        pool.is_lost = false;
        pool.set(agent.index, AgentState::Idle);
        self.touch(role);
    }

    pub(super) fn role_lost(&mut self, role: RoleId) {
        let role = usize::from(role.0);
        if let Some(pool) = self.roles.get_mut(role) {
            pool.is_lost = true;
            self.touch(role);
        }
    }

    pub(super) fn agent_down(
        &mut self,
        now: Timestamp,
        agent: AgentId,
        incarnation: Incarnation,
        failure: Failure,
        out: &mut Decisions,
    ) {
        let role = usize::from(agent.role.0);
        let Some(pool) = self.roles.get_mut(role) else {
            return;
        };
        let Some(slot) = pool.agents.get_mut(agent.index as usize) else {
            return;
        };
        if slot.incarnation != incarnation || slot.state == AgentState::Down {
            return;
        }
        let lost = pool.lease(agent.index).map(|lease| lease.task);
        pool.set(agent.index, AgentState::Down);
        self.touch(role);
        if let Some(task) = lost {
            self.running -= 1;
            self.attempt_failed(now, task, failure, out);
        }
    }

    /// Renews a lease for its interval, or for as long as the agent has declared to be silent.
    pub(super) fn heartbeat(
        &mut self,
        now: Timestamp,
        agent: AgentId,
        task: TaskId,
        token: FencingToken,
        silence: Duration,
    ) {
        let pool = self.roles.get_mut(usize::from(agent.role.0));
        if let Some(lease) = pool.and_then(|pool| pool.lease_mut(agent.index))
            && lease.task == task
            && lease.token == token
            && let Some((interval, due)) = &mut lease.heartbeat
        {
            *due = now.after(silence.max(*interval));
        }
    }

    pub(super) fn finished(
        &mut self,
        now: Timestamp,
        (agent, incarnation): (AgentId, Incarnation),
        task: TaskId,
        token: FencingToken,
        result: AttemptResult,
        out: &mut Decisions,
    ) {
        let holds = self.roles.get(usize::from(agent.role.0)).is_some_and(|pool| {
            pool.lease(agent.index).is_some_and(|lease| {
                lease.token == token
                    && lease.task == task
                    && pool.agents[agent.index as usize].incarnation == incarnation
            })
        });
        if !holds {
            if result == AttemptResult::Done {
                out.commands.push(Command::Discard { task, token });
            }
            if result != AttemptResult::NotStarted {
                out.events.push(Event::StaleResult { task, token, agent, incarnation });
            }
            return;
        }
        self.running -= 1;
        let role = usize::from(agent.role.0);
        // An assignment that never began says that its agent is gone; its next life will tell.
        let state = match result {
            AttemptResult::NotStarted => AgentState::Down,
            AttemptResult::Done if self.commits_at_once => AgentState::Committing,
            AttemptResult::Done | AttemptResult::Failed { .. } => AgentState::Idle,
        };
        self.roles[role].set(agent.index, state);
        self.touch(role);
        match result {
            AttemptResult::Done => {
                self.committing += 1;
                if let Some(run) = self.run_mut(task.run) {
                    run.set(task.index, Status::Committing);
                    let attempt = run.tasks[task.index.at()].attempts;
                    out.commands.push(Command::Commit { task, attempt, agent, incarnation, token });
                }
            }
            AttemptResult::NotStarted => {
                self.release_quotas(now, task, out);
                if let Some(run) = self.run_mut(task.run) {
                    let state = &mut run.tasks[task.index.at()];
                    let attempt = state.attempts;
                    state.attempts -= 1;
                    state.holder = None;
                    out.events.push(Event::TaskReturned {
                        task,
                        attempt,
                        agent,
                        incarnation,
                        token,
                    });
                }
                self.make_ready(task, out);
            }
            AttemptResult::Failed { cause, message, retryable, retry_after } => {
                let failure = Failure { retryable, retry_after, ..Failure::new(cause, message) };
                self.attempt_failed(now, task, failure, out);
            }
        }
    }

    pub(super) fn committed(
        &mut self,
        now: Timestamp,
        task: TaskId,
        token: FencingToken,
        spawned: Spawned,
        out: &mut Decisions,
    ) {
        if !self.ends_commit(task, token) {
            return;
        }
        self.release_quotas(now, task, out);
        self.complete(now, task, spawned, out);
    }

    pub(super) fn refused(
        &mut self,
        now: Timestamp,
        task: TaskId,
        token: FencingToken,
        refusal: Refusal,
        out: &mut Decisions,
    ) {
        if !self.ends_commit(task, token) {
            return;
        }
        let failure = match refusal {
            Refusal::Conflict { message, reserved } => {
                Failure { urgent: reserved, ..Failure::new(Cause::Conflict, message) }
            }
            Refusal::Invalid { message } => {
                Failure { retryable: false, ..Failure::new(Cause::Error, message) }
            }
            Refusal::StaleToken => Failure::new(Cause::AgentLost, "the lease was no longer valid"),
        };
        self.attempt_failed(now, task, failure, out);
    }

    fn ends_commit(&mut self, task: TaskId, token: FencingToken) -> bool {
        let commits = self.status(task) == Some(Status::Committing)
            && self.holder(task).is_some_and(|holder| holder.token == token);
        if commits {
            self.committing -= 1;
            self.free_committer(task);
            if self.committing + 1 == self.limits.commits_in_flight_max {
                (0..self.roles.len()).for_each(|role| self.touch(role));
            }
        }
        commits
    }

    /// Frees the agent whose result has been committed, unless it was free at once or has died.
    fn free_committer(&mut self, task: TaskId) {
        let Some(Holder { agent, incarnation, .. }) = self.holder(task) else {
            return;
        };
        let role = usize::from(agent.role.0);
        let slot = &self.roles[role].agents[agent.index as usize];
        if slot.state == AgentState::Committing && slot.incarnation == incarnation {
            self.roles[role].set(agent.index, AgentState::Idle);
            self.touch(role);
        }
    }

    fn holder(&self, task: TaskId) -> Option<Holder> {
        self.run(task.run)?.tasks.get(task.index.at())?.holder
    }

    /// Decides what becomes of a task whose attempt has failed.
    pub(super) fn attempt_failed(
        &mut self,
        now: Timestamp,
        task: TaskId,
        failure: Failure,
        out: &mut Decisions,
    ) {
        self.release_quotas(now, task, out);
        let (seed, limits) = (self.seed, &self.limits);
        let (interruptions_max, kills_max) = (limits.interruptions_max, limits.kills_max);
        let Some(run) = self.run_mut(task.run) else {
            return;
        };
        let cancelled = run.cancelled;
        let policy = run.spec(task.index).options.retry.clone();
        let state = &mut run.tasks[task.index.at()];
        let Some(holder) = state.holder.take() else {
            return;
        };
        let trouble = state.trouble.get_or_insert_default();
        trouble.avoid = Some(holder.agent);
        state.urgent = failure.urgent;
        let attempt = state.attempts;
        let entity = u64::from(task.run.0) << 32 | u64::from(task.index.0);
        let draw = seed.unit(Stream::Retry, entity, u64::from(attempt));
        let delay = match failure.cause {
            Cause::AgentLost | Cause::Conflict => {
                trouble.interruptions += 1;
                let delay = match failure.urgent {
                    true => Duration::ZERO,
                    false => RetryPolicy::interrupted().delay_after(trouble.interruptions, draw),
                };
                (trouble.interruptions <= interruptions_max).then_some(delay)
            }
            Cause::Error | Cause::Panic | Cause::Timeout | Cause::Heartbeat => {
                trouble.failures += 1;
                let delay = policy.delay_after(trouble.failures, draw);
                (failure.retryable && trouble.failures < policy.attempts_max).then_some(delay)
            }
        };
        let poisoned = (failure.kills && !cancelled)
            .then(|| trouble.victims.add(holder.agent, kills_max))
            .flatten()
            .filter(|_| delay.is_some());
        let delay = delay.filter(|_| !cancelled && poisoned.is_none());
        if let Some((kills, victims)) = poisoned {
            out.events.push(Event::TaskPoisoned { task, kills });
            out.commands.push(Command::Forgive { victims });
        }
        let retry_at =
            delay.map(|delay| now.after(delay.max(failure.retry_after.unwrap_or_default())));
        out.events.push(Event::TaskFailed {
            task,
            attempt,
            agent: holder.agent,
            incarnation: holder.incarnation,
            cause: failure.cause,
            message: failure.message,
            retry_at,
        });
        match retry_at {
            Some(at) if at <= now => self.make_ready(task, out),
            Some(at) => {
                run.set(task.index, Status::Backoff(at));
                self.timers.push(std::cmp::Reverse((at, Timer::Backoff(task))));
            }
            None if cancelled => self.end(now, task, EndState::Cancelled, out),
            None if failure.cause == Cause::Error => self.end(now, task, EndState::Failed, out),
            None => self.end(now, task, EndState::DeadLettered, out),
        }
    }

    pub(super) fn backoff_over(&mut self, at: Timestamp, task: TaskId, out: &mut Decisions) {
        if self.status(task) == Some(Status::Backoff(at)) {
            self.make_ready(task, out);
        }
    }

    /// Ends a lease that has run out, or waits for the time that it runs out now.
    pub(super) fn lease_timer(
        &mut self,
        now: Timestamp,
        at: Timestamp,
        agent: AgentId,
        out: &mut Decisions,
    ) {
        let pool = &mut self.roles[usize::from(agent.role.0)];
        let slot = &mut pool.agents[agent.index as usize];
        if slot.armed != at {
            return;
        }
        slot.armed = NEVER;
        let Some(lease) = pool.lease(agent.index) else {
            return;
        };
        if lease.expires() > now {
            let expires = lease.expires();
            return self.arm_lease(agent, expires);
        }
        let (task, late) = (lease.task, lease.deadline <= now);
        let (cause, message) = if late {
            (Cause::Timeout, "the attempt took longer than its timeout")
        } else {
            (Cause::Heartbeat, "the agent sent no heartbeat in time")
        };
        self.revoke(task, Some(cause), out);
        let failure = Failure { kills: true, ..Failure::new(cause, message) };
        self.attempt_failed(now, task, failure, out);
    }

    /// Takes a running task from its agent, whose life ends with the attempt.
    pub(super) fn revoke(&mut self, task: TaskId, cause: Option<Cause>, out: &mut Decisions) {
        let Some(Holder { agent, incarnation, token }) = self.holder(task) else {
            return;
        };
        let role = usize::from(agent.role.0);
        self.roles[role].set(agent.index, AgentState::Down);
        self.touch(role);
        self.running -= 1;
        let attempt = self.run(task.run).map_or(0, |run| run.tasks[task.index.at()].attempts);
        out.commands.push(Command::Revoke { task, attempt, agent, incarnation, token, cause });
    }
}
