//! Houses all agents: spawns their hosts on the threads of the guild, and moves them to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use guild_core::id::{AgentId, Incarnation, RoleId};
use guild_core::time::Timestamp;

use crate::agent::Factory;
use crate::context::Surroundings;
use crate::host::{AgentHost, HostAddr, HostInbox, HostShared, Hosts, host_mailbox};
use crate::message::HostMessage;
use crate::threads::{Place, Threads};

/// All agents, where they live, and where they are reached.
pub(crate) struct Fleet {
    pub(crate) hosts: Hosts,
    pub(crate) threads: Threads,
    roles: BTreeMap<RoleId, Housing>,
}

/// What the agents of a role share, and where each lives.
struct Housing {
    shared: Arc<HostShared>,
    places: Vec<Place>,
}

/// Agents that are to be spawned on one thread.
type Movers = BTreeMap<Place, Vec<(AgentId, HostInbox)>>;

/// Agents that are spawned on a thread before the first of them are polled: a hundred thousand at once
/// would need a queue of a megabyte, and those that live there already would wait for all of them.
const SPAWNED_AT_ONCE: u32 = 256;

impl Fleet {
    /// Returns a fleet without agents.
    pub(crate) fn new(threads: Threads, roles: usize) -> Self {
        Self { hosts: Hosts::of_roles(roles), threads, roles: BTreeMap::new() }
    }

    /// Spawns the agents of a role, spread over its threads. They begin their first life at once, or
    /// wait to be told.
    pub(crate) fn recruit(
        &mut self,
        role: RoleId,
        agents: u32,
        factory: Factory,
        first: Option<Incarnation>,
        surroundings: &Arc<Surroundings>,
    ) {
        let surroundings = Arc::clone(surroundings);
        let shared = Arc::new(HostShared { factory, surroundings });
        let places = Vec::with_capacity(agents as usize);
        let mut housing = Housing { shared: Arc::clone(&shared), places };
        self.hosts.reserve(role, agents);
        let mut movers = Movers::new();
        let mut places = self.threads.places(role);
        for index in 0..agents {
            let agent = AgentId { role, index };
            let place = self.threads.place(&mut places, agent, None);
            let (host, inbox) = host_mailbox();
            self.hosts.add(role, host);
            housing.places.push(place);
            movers.entry(place).or_default().push((agent, inbox));
        }
        self.roles.insert(role, housing);
        self.move_in(&shared, movers, first);
    }

    /// Gives everybody who lives on a thread another host on other ones, which waits to be told to
    /// begin; returns who they are.
    pub(crate) fn evacuate(&mut self, hung: u16) -> Vec<AgentId> {
        self.threads.replace(hung);
        let mut moved = Vec::new();
        let mut moves = Vec::new();
        for (role, housing) in &mut self.roles {
            let mut movers = Movers::new();
            let mut places = self.threads.places(*role);
            for (index, place) in (0..).zip(&mut housing.places) {
                if *place != Some(hung) {
                    continue;
                }
                let agent = AgentId { role: *role, index };
                *place = self.threads.place(&mut places, agent, Some(hung));
                let (host, inbox) = host_mailbox();
                if let Some(left) = self.hosts.set(agent, host) {
                    // It ends with its thread's fence, should that ever look at it again.
                    left.order(HostMessage::Retire);
                }
                movers.entry(*place).or_default().push((agent, inbox));
                moved.push(agent);
            }
            moves.push((Arc::clone(&housing.shared), movers));
        }
        for (shared, movers) in moves {
            self.move_in(&shared, movers, None);
        }
        moved
    }

    /// Gives an agent that begins another life another host, where a thread has so much less to do that
    /// it is worth it; returns the host that it leaves.
    pub(crate) fn move_on(&mut self, now: Timestamp, agent: AgentId) -> Option<HostAddr> {
        let housing = self.roles.get_mut(&agent.role)?;
        let place = housing.places.get_mut(agent.index as usize)?;
        let moved = self.threads.move_on(now, agent, (*place)?)?;
        *place = Some(moved);
        let (host, inbox) = host_mailbox();
        let left = self.hosts.set(agent, host)?;
        let shared = Arc::clone(&housing.shared);
        self.move_in(&shared, Movers::from([(Some(moved), vec![(agent, inbox)])]), None);
        Some(left)
    }

    fn move_in(&self, shared: &Arc<HostShared>, movers: Movers, first: Option<Incarnation>) {
        for (place, crew) in movers {
            let shared = Arc::clone(shared);
            let spawn = move |(agent, inbox)| {
                AgentHost::spawn(agent, first, Arc::clone(&shared), inbox);
            };
            let Some(place) = place else {
                crew.into_iter().for_each(spawn);
                continue;
            };
            self.threads.spawn(place, async move {
                for (number, mover) in (1..).zip(crew) {
                    spawn(mover);
                    if number % SPAWNED_AT_ONCE == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
    }
}
