//! Houses all agents: spawns their hosts on the threads of the guild, and moves them to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use guild_core::id::{AgentId, Incarnation, RoleId};
use guild_core::time::Timestamp;

use crate::agent::Factory;
use crate::context::Surroundings;
use crate::host::{AgentHost, HostAddr, HostShared, Hosts, host_channel};
use crate::threads::{Place, Threads};

/// All agents, where they live, and where they are reached.
pub(crate) struct Fleet {
    pub(crate) hosts: Hosts,
    pub(crate) threads: Threads,
    roles: BTreeMap<RoleId, Housing>,
    mailbox_messages_max: usize,
}

/// What the agents of a role share, and where each lives.
struct Housing {
    shared: Arc<HostShared>,
    places: Vec<Place>,
}

/// Agents that are to be spawned on one thread.
type Movers = BTreeMap<Place, Vec<(AgentId, Receiver)>>;
type Receiver = actix::dev::channel::AddressReceiver<AgentHost>;

impl Fleet {
    /// Returns a fleet without agents.
    pub(crate) fn new(threads: Threads, roles: usize, mailbox_messages_max: usize) -> Self {
        let (hosts, roles) = (Hosts::of_roles(roles), BTreeMap::new());
        Self { hosts, threads, roles, mailbox_messages_max }
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
            let (host, receiver) = host_channel(self.mailbox_messages_max);
            self.hosts.add(role, host);
            housing.places.push(place);
            movers.entry(place).or_default().push((agent, receiver));
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
                let (host, receiver) = host_channel(self.mailbox_messages_max);
                self.hosts.set(agent, host);
                movers.entry(*place).or_default().push((agent, receiver));
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
        let (host, receiver) = host_channel(self.mailbox_messages_max);
        let left = self.hosts.set(agent, host)?;
        let shared = Arc::clone(&housing.shared);
        self.move_in(&shared, Movers::from([(Some(moved), vec![(agent, receiver)])]), None);
        Some(left)
    }

    fn move_in(&self, shared: &Arc<HostShared>, movers: Movers, first: Option<Incarnation>) {
        for (place, crew) in movers {
            let shared = Arc::clone(shared);
            self.threads.spawn(place, move || {
                for (agent, receiver) in crew {
                    AgentHost::spawn(agent, first, Arc::clone(&shared), receiver);
                }
            });
        }
    }
}
