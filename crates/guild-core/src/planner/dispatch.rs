//! Matches ready tasks with idle agents and free quotas, without ever leaving both waiting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::{Deserialize, Serialize};

use crate::draw::Stream;
use crate::event::{EndState, Event};
use crate::id::{AgentId, QuotaId, RoleId, TaskId};
use crate::quota::{Quota, QuotaSpec};
use crate::time::Timestamp;

use super::agents::Lease;
use super::ready::{ReadyTask, URGENT};
use super::run::{Holder, Status};
use super::{Command, Decisions, Planner, Timer};

/// Which ready task goes first; a higher priority always does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyOrder {
    /// The one with the longest chain of expected durations behind it, then the oldest.
    #[default]
    CriticalPath,
    /// The one that has been ready longest.
    Fifo,
    /// Any, drawn by the seed of the guild.
    Random,
}

/// A quota and the tasks that wait for it.
#[derive(Debug)]
pub(super) struct QuotaPool {
    pub(super) quota: Quota,
    /// Waiting tasks by how much they need.
    pub(super) parked: BTreeMap<u32, BinaryHeap<ReadyTask>>,
    pub(super) timer_at: Option<Timestamp>,
}

impl QuotaPool {
    pub(super) fn new(spec: QuotaSpec) -> Self {
        Self { quota: Quota::new(spec), parked: BTreeMap::new(), timer_at: None }
    }
}

impl Planner {
    /// Puts a task into the ready queue of its role.
    pub(super) fn make_ready(&mut self, task: TaskId, out: &mut Decisions) {
        self.made_ready += 1;
        let place = self.made_ready;
        if let Some(run) = self.run_mut(task.run) {
            run.set(task.index, Status::Ready);
            run.tasks[task.index.at()].ready_since = place;
            out.events.push(Event::TaskReady { task });
            self.enqueue(task);
        }
    }

    fn enqueue(&mut self, task: TaskId) {
        let Some(run) = self.run(task.run) else {
            return;
        };
        let role = run.role(task.index);
        let state = &run.tasks[task.index.at()];
        let priority = match state.urgent {
            true => i32::MAX,
            false => run.spec(task.index).options.priority,
        };
        let drawn = || {
            let entity = u64::from(task.run.0) << 32 | u64::from(task.index.0);
            self.seed.bits(Stream::Order, entity, u64::from(state.attempts))
        };
        let rank = match self.order {
            _ if state.urgent => URGENT,
            ReadyOrder::CriticalPath => state.rank,
            ReadyOrder::Fifo => u64::MAX - state.ready_since,
            ReadyOrder::Random => drawn(),
        };
        let tie = if self.shuffles_ties { (drawn() >> 32) as u32 } else { 0 };
        if let Some(pool) = self.roles.get_mut(role) {
            pool.ready.push(ReadyTask::new(priority, rank, tie, task));
        }
        self.touch(role);
    }

    /// Notes that a role has something new to match.
    pub(super) fn touch(&mut self, role: usize) {
        if let Some(pool) = self.roles.get_mut(role)
            && !std::mem::replace(&mut pool.dirty, true)
        {
            self.dirty_roles.push(role);
        }
    }

    /// Matches until nothing more fits.
    pub(super) fn dispatch(&mut self, now: Timestamp, out: &mut Decisions) {
        loop {
            while let Some(role) = self.dirty_roles.pop() {
                self.roles[role].dirty = false;
                self.dispatch_role(now, role, out);
            }
            match self.dirty_quotas.pop() {
                Some(quota) => self.unpark(now, quota),
                None => break,
            }
        }
    }

    /// Returns whether a task may be given out. One that others wait for may even when all places for
    /// commits are taken: those who took them may be the ones who wait for it.
    fn has_room(&self, entry: &ReadyTask) -> bool {
        let has_place = self.committing < self.limits.commits_in_flight_max;
        !self.paused && (has_place || entry.is_urgent())
    }

    fn dispatch_role(&mut self, now: Timestamp, role: usize, out: &mut Decisions) {
        if self.roles[role].is_lost {
            return self.give_up_role(now, role, out);
        }
        // Tasks whose only idle agent is the one that has just failed them.
        let mut set_aside = Vec::new();
        while self.roles[role].idle_count > 0 {
            let Some(entry) = self.roles[role].ready.peek() else {
                break;
            };
            let task = entry.task();
            let is_ready = self.status(task) == Some(Status::Ready);
            if is_ready && !self.has_room(&entry) {
                break;
            }
            self.roles[role].ready.pop();
            if !is_ready || self.park_if_short(now, entry) {
                continue;
            }
            let avoid = self
                .run(task.run)
                .and_then(|run| run.tasks[task.index.at()].avoid())
                .map(|agent| agent.index);
            match self.roles[role].take_idle(avoid) {
                Some(index) => self.assign(now, task, role, index, out),
                None => set_aside.push(entry),
            }
        }
        set_aside.into_iter().for_each(|entry| self.roles[role].ready.push(entry));
    }

    /// Fails what is ready for a role that has lost all its agents; what becomes ready later meets
    /// the same end.
    fn give_up_role(&mut self, now: Timestamp, role: usize, out: &mut Decisions) {
        while let Some(entry) = self.roles[role].ready.pop() {
            if self.status(entry.task()) == Some(Status::Ready) {
                self.end(now, entry.task(), EndState::Failed, out);
            }
        }
    }

    /// Parks a task at the first quota that is short of what it needs.
    fn park_if_short(&mut self, now: Timestamp, entry: ReadyTask) -> bool {
        let task = entry.task();
        let Some(run) = self.run(task.run) else {
            return true;
        };
        let quotas = &self.quotas;
        let short = run
            .demands(task.index)
            .find(|(quota, amount)| quotas[*quota].quota.available(now) < *amount);
        let Some((short, amount)) = short else {
            return false;
        };
        let others: Vec<usize> = run
            .demands(task.index)
            .map(|(quota, _)| quota)
            .filter(|quota| *quota != short)
            .collect();
        self.quotas[short].parked.entry(amount).or_default().push(entry);
        if let Some(run) = self.run_mut(task.run) {
            run.set(task.index, Status::Parked);
        }
        self.arm_quota(now, short);
        // It may have been woken for one of these and does not use it: the next one may.
        self.dirty_quotas
            .extend(others.into_iter().filter(|other| !self.quotas[*other].parked.is_empty()));
        true
    }

    /// Wakes as many waiting tasks as a quota has room for.
    fn unpark(&mut self, now: Timestamp, quota: usize) {
        let available = self.quotas[quota].quota.available(now);
        let mut woken = Vec::new();
        for (amount, parked) in self.quotas[quota].parked.range_mut(..=available) {
            for _ in 0..(available / amount) {
                let Some(entry) = parked.pop() else { break };
                woken.push(entry);
            }
        }
        self.quotas[quota].parked.retain(|_, parked| !parked.is_empty());
        for entry in woken {
            if self.status(entry.task()) == Some(Status::Parked) {
                if let Some(run) = self.run_mut(entry.task().run) {
                    run.set(entry.task().index, Status::Ready);
                }
                self.enqueue(entry.task());
            } else {
                // It was cancelled or skipped while it waited: its place goes to the next one.
                self.dirty_quotas.push(quota);
            }
        }
        self.arm_quota(now, quota);
    }

    /// Changes how many permits a quota has; a rate keeps its rate.
    pub(super) fn set_permits(
        &mut self,
        now: Timestamp,
        quota: QuotaId,
        permits: u32,
        out: &mut Decisions,
    ) {
        let place = usize::from(quota.0);
        if let Some(pool) = self.quotas.get_mut(place)
            && pool.quota.set_permits(permits)
        {
            out.events.push(quota_changed(place, &pool.quota, now));
            self.dirty_quotas.push(place);
        }
    }

    fn arm_quota(&mut self, now: Timestamp, quota: usize) {
        let pool = &mut self.quotas[quota];
        let Some((amount, _)) = pool.parked.first_key_value() else {
            return;
        };
        let Some(at) = pool.quota.next_available(now, *amount) else {
            return;
        };
        // Room that is there already was offered; what waits for an agent is woken by the agent.
        let at = at.max(Timestamp(now.0 + 1));
        if pool.timer_at.is_none_or(|armed| at < armed) {
            pool.timer_at = Some(at);
            let quota = QuotaId(u16::try_from(quota).unwrap_or(u16::MAX));
            self.timers.push(Reverse((at, Timer::Quota(quota))));
        }
    }

    fn assign(
        &mut self,
        now: Timestamp,
        task: TaskId,
        role: usize,
        index: u32,
        out: &mut Decisions,
    ) {
        let Some(run) = self.runs.get_mut(task.run.0 as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let pool = &mut self.roles[role];
        let incarnation = pool.agents[index as usize].incarnation;
        for (quota, amount) in run.demands(task.index) {
            let pool = &mut self.quotas[quota];
            assert!(pool.quota.take(now, amount), "the quota was checked to have room");
            out.events.push(quota_changed(quota, &pool.quota, now));
        }
        self.token = self.token.next();
        let token = self.token;
        let options = &run.spec(task.index).options;
        let timeout = options.timeout.unwrap_or(self.limits.task_timeout);
        let heartbeat = options.heartbeat.map(|interval| (interval, now.after(interval)));
        let role = RoleId(u16::try_from(role).unwrap_or(u16::MAX));
        let agent = AgentId { role, index };
        run.set(task.index, Status::Running);
        let state = &mut run.tasks[task.index.at()];
        state.attempts += 1;
        state.holder = Some(Holder { agent, incarnation, token });
        let attempt = state.attempts;
        self.running += 1;
        let lease = Lease { task, token, deadline: now.after(timeout), heartbeat };
        let expires = lease.expires();
        pool.lend(index, lease);
        out.events.push(Event::TaskAssigned { task, attempt, agent, incarnation, token });
        out.commands.push(Command::Assign { task, attempt, agent, incarnation, token, timeout });
        self.arm_lease(agent, expires);
    }

    /// Keeps about one timer entry per agent: a lease that ends later than the one before it uses
    /// that entry, and is armed again when it fires.
    pub(super) fn arm_lease(&mut self, agent: AgentId, expires: Timestamp) {
        let slot = &mut self.roles[usize::from(agent.role.0)].agents[agent.index as usize];
        if expires < slot.armed {
            slot.armed = expires;
            self.timers.push(Reverse((expires, Timer::Lease(agent))));
        }
    }

    /// Gives back what a task held of its quotas.
    pub(super) fn release_quotas(&mut self, now: Timestamp, task: TaskId, out: &mut Decisions) {
        let Some(run) = self.runs.get(task.run.0 as usize).and_then(Option::as_deref) else {
            return;
        };
        for (quota, amount) in run.demands(task.index) {
            let pool = &mut self.quotas[quota];
            let before = pool.quota.in_use(now);
            pool.quota.put_back(amount);
            if pool.quota.in_use(now) != before {
                out.events.push(quota_changed(quota, &pool.quota, now));
                self.dirty_quotas.push(quota);
            }
        }
    }
}

fn quota_changed(place: usize, quota: &Quota, now: Timestamp) -> Event {
    let id = QuotaId(u16::try_from(place).unwrap_or(u16::MAX));
    Event::QuotaChanged { quota: id, in_use: quota.in_use(now), limit: quota.limit() }
}
