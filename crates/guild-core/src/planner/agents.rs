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

/// One agent.
#[derive(Clone, Debug)]
pub(super) struct AgentSlot {
    pub(super) incarnation: Option<Incarnation>,
    pub(super) state: AgentState,
    /// The time of its entry among the timers.
    pub(super) armed: Option<Timestamp>,
}

/// What an agent does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AgentState {
    Down,
    Idle,
    Busy(Lease),
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

impl Lease {
    pub(super) fn expires(&self) -> Timestamp {
        self.heartbeat.map_or(self.deadline, |(_, due)| due.min(self.deadline))
    }
}

impl RolePool {
    pub(super) fn new(agents: u32) -> Self {
        let slot = AgentSlot { incarnation: None, state: AgentState::Down, armed: None };
        Self {
            agents: vec![slot; agents as usize],
            idle: VecDeque::with_capacity(agents as usize),
            idle_count: 0,
            live_count: 0,
            ready: ReadyQueue::default(),
            dirty: false,
            is_lost: false,
        }
    }

    /// Moves an agent to another state: the only place where that changes.
    pub(super) fn set(&mut self, index: u32, state: AgentState) {
        let slot = &mut self.agents[index as usize];
        let before = std::mem::replace(&mut slot.state, state);
        match before {
            AgentState::Down => self.live_count += 1,
            AgentState::Idle => self.idle_count -= 1,
            AgentState::Busy(_) | AgentState::Committing => {}
        }
        match (&slot.state, slot.incarnation) {
            (AgentState::Down, _) => self.live_count -= 1,
            (AgentState::Idle, Some(incarnation)) => {
                self.idle_count += 1;
                self.idle.push_back((index, incarnation));
            }
            (AgentState::Idle, None) => unreachable!("an idle agent lives"),
            (AgentState::Busy(_) | AgentState::Committing, _) => {}
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
            if slot.state != AgentState::Idle || slot.incarnation != Some(incarnation) {
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
