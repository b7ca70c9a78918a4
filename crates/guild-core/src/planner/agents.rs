//! The agents of a role: who is free, who has a lease, who is down.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::{FencingToken, Incarnation, TaskId};
use crate::time::Timestamp;

use super::ready::ReadyQueue;

/// The agents and the ready tasks of one role.
#[derive(Debug)]
pub(super) struct RolePool {
    pub(super) agents: Vec<AgentSlot>,
    leases: Leases,
    /// Agents that became idle, longest ago first; those that are no longer are passed over.
    idle: VecDeque<(u32, Incarnation)>,
    pub(super) idle_count: usize,
    /// Agents that are up, idle or busy.
    pub(super) live_count: usize,
    pub(super) ready: ReadyQueue,
    pub(super) dirty: bool,
    /// Whether no agent will come back by itself.
    pub(super) is_lost: bool,
}

/// One agent. There may be very many, most of them idle: what only some have is kept elsewhere.
#[derive(Clone, Debug)]
pub(super) struct AgentSlot {
    /// Its newest life; [`UNBORN`]: it has not lived yet.
    pub(super) incarnation: Incarnation,
    /// The time of its entry among the timers; [`NEVER`]: it has none.
    pub(super) armed: Timestamp,
    pub(super) state: AgentState,
}

const _: () = assert!(size_of::<AgentSlot>() <= 24, "every idle agent has one of these");

/// A life before all others.
const UNBORN: Incarnation = Incarnation(0);

/// A time that does not come.
pub(super) const NEVER: Timestamp = Timestamp(u64::MAX);

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AgentState {
    Down,
    Idle,
    /// It has the lease at this place.
    Busy(LeasePlace),
    /// Its result is being committed, and it is not free before that is over.
    Committing,
}

/// A task in the hands of an agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lease {
    pub(super) task: TaskId,
    pub(super) token: FencingToken,
    pub(super) deadline: Timestamp,
    pub(super) heartbeat: Option<(Duration, Timestamp)>,
}

/// Where a lease is among [`Leases`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeasePlace(u32);

/// The leases of busy agents, at places that are used again.
#[derive(Debug, Default)]
struct Leases {
    list: Vec<Lease>,
    free: Vec<LeasePlace>,
}

impl Leases {
    fn add(&mut self, lease: Lease) -> LeasePlace {
        if let Some(place) = self.free.pop() {
            self.list[place.0 as usize] = lease;
            return place;
        }
        self.list.push(lease);
        // There are as many at most as agents, which have numbers of this type.
        LeasePlace(u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX))
    }
}

impl Lease {
    pub(super) fn expires(&self) -> Timestamp {
        self.heartbeat.map_or(self.deadline, |(_, due)| due.min(self.deadline))
    }
}

impl RolePool {
    pub(super) fn new(agents: u32) -> Self {
        let slot = AgentSlot { incarnation: UNBORN, armed: NEVER, state: AgentState::Down };
        Self {
            agents: vec![slot; agents as usize],
            leases: Leases::default(),
            idle: VecDeque::with_capacity(agents as usize),
            idle_count: 0,
            live_count: 0,
            ready: ReadyQueue::default(),
            dirty: false,
            is_lost: false,
        }
    }

    /// Gives an agent a lease.
    pub(super) fn lend(&mut self, index: u32, lease: Lease) {
        let place = self.leases.add(lease);
        self.set(index, AgentState::Busy(place));
    }

    /// Returns the lease that an agent has.
    pub(super) fn lease(&self, index: u32) -> Option<&Lease> {
        self.leases.list.get(self.lease_place(index)?)
    }

    /// Returns the lease that an agent has, to renew it.
    pub(super) fn lease_mut(&mut self, index: u32) -> Option<&mut Lease> {
        let place = self.lease_place(index)?;
        self.leases.list.get_mut(place)
    }

    fn lease_place(&self, index: u32) -> Option<usize> {
        match self.agents.get(index as usize)?.state {
            AgentState::Busy(place) => Some(place.0 as usize),
            AgentState::Down | AgentState::Idle | AgentState::Committing => None,
        }
    }

    /// Moves an agent to another state: the only place where that changes. A lease that it had ends.
    pub(super) fn set(&mut self, index: u32, state: AgentState) {
        let slot = &mut self.agents[index as usize];
        let before = std::mem::replace(&mut slot.state, state);
        match before {
            AgentState::Down => self.live_count += 1,
            AgentState::Idle => self.idle_count -= 1,
            AgentState::Busy(place) => self.leases.free.push(place),
            AgentState::Committing => {}
        }
        match state {
            AgentState::Down => self.live_count -= 1,
            AgentState::Idle => {
                debug_assert!(slot.incarnation > UNBORN, "an idle agent lives");
                self.idle_count += 1;
                self.idle.push_back((index, slot.incarnation));
            }
            AgentState::Busy(_) | AgentState::Committing => {}
        }
    }

    /// Takes the agent that has been idle longest, but not `avoid` while another one lives.
    pub(super) fn take_idle(&mut self, avoid: Option<u32>) -> Option<u32> {
        let avoid = avoid.filter(|_| self.live_count > 1);
        let mut passed_over = None;
        let found = loop {
            let Some((index, incarnation)) = self.idle.pop_front() else {
                break None;
            };
            let slot = &self.agents[index as usize];
            if slot.state != AgentState::Idle || slot.incarnation != incarnation {
                continue;
            }
            if avoid == Some(index) {
                passed_over = Some((index, incarnation));
                continue;
            }
            break Some(index);
        };
        if let Some(entry) = passed_over {
            self.idle.push_front(entry);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::id::{RunId, TaskIndex};

    use super::*;

    #[test]
    fn idle_agent_has_no_lease_and_the_place_of_its_last_one_is_used_again() {
        let mut pool = RolePool::new(2);
        for index in 0..2 {
            pool.agents[index as usize].incarnation = Incarnation(1);
            pool.set(index, AgentState::Idle);
        }
        for number in 1..5 {
            let task = TaskId { run: RunId(0), index: TaskIndex(0) };
            let (token, deadline) = (FencingToken(number), NEVER);
            pool.lend(0, Lease { task, token, deadline, heartbeat: None });
            assert_eq!(pool.lease(0).map(|lease| lease.token), Some(token));
            assert!(pool.lease(1).is_none());
            pool.set(0, AgentState::Idle);
            assert!(pool.lease(0).is_none());
        }
        assert_eq!(pool.leases.list.len(), 1);
    }
}
