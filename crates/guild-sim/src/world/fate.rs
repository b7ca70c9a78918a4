//! Tells how single agents fared, by the names that a test knows them by.

use std::collections::BTreeMap;

use guild_core::event::{Event, Names};
use guild_core::id::AgentId;

use super::World;

/// How an agent fared so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Lives that ended badly.
    pub crashes: u64,
    /// Lives that followed one.
    pub restarts: u64,
    /// Times that it was quarantined.
    pub quarantines: u64,
    /// Whether it is quarantined now.
    pub is_quarantined: bool,
}

/// How all agents fared; one that never had trouble is not in it.
#[derive(Debug, Default)]
pub(super) struct Fates(BTreeMap<String, Fate>);

impl Fates {
    pub(super) fn add(&mut self, event: &Event, names: &dyn Names) {
        let mut fate = |agent: &AgentId, change: fn(&mut Fate)| {
            change(self.0.entry(names.agent(*agent)).or_default());
        };
        match event {
            Event::AgentCrashed { agent, .. } => fate(agent, |fate| fate.crashes += 1),
            Event::AgentRestarted { agent, .. } => fate(agent, |fate| {
                fate.restarts += 1;
                fate.is_quarantined = false;
            }),
            Event::AgentQuarantined { agent, .. } => fate(agent, |fate| {
                fate.quarantines += 1;
                fate.is_quarantined = true;
            }),
            Event::AgentReleased { agent, .. } => fate(agent, |fate| fate.is_quarantined = false),
            _ => {}
        }
    }

    /// Sums up the agents of this name: one (`flaky-3`), or all of a role (`flaky`).
    pub(super) fn of(&self, name: &str) -> Fate {
        let is_meant = |agent: &str| agent == name || role_of(agent) == Some(name);
        let agents = self.0.iter().filter(|(agent, _)| is_meant(agent));
        agents.fold(Fate::default(), |sum, (_, fate)| Fate {
            crashes: sum.crashes + fate.crashes,
            restarts: sum.restarts + fate.restarts,
            quarantines: sum.quarantines + fate.quarantines,
            is_quarantined: sum.is_quarantined || fate.is_quarantined,
        })
    }
}

/// Returns the role of an agent's name.
fn role_of(agent: &str) -> Option<&str> {
    let (role, number) = agent.rsplit_once('-')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(role)
}

impl World {
    /// Returns how an agent (`flaky-3`), or all agents of a role together (`flaky`), fared.
    ///
    /// # Panics
    /// The world has neither a role nor an agent of this name: a slip of the test.
    pub fn fate_of(&self, agent: &str) -> Fate {
        let roles = &self.parts.roles;
        let is_known = roles.iter().any(|role| {
            let number = agent.strip_prefix(&*role.name).and_then(|rest| rest.strip_prefix('-'));
            agent == role.name
                || number
                    .and_then(|number| number.parse::<u32>().ok())
                    .is_some_and(|number| number < role.agents)
        });
        if !is_known {
            let known: Vec<&str> = roles.iter().map(|role| &*role.name).collect();
            panic!("the world has no agent `{agent}`: its roles are {}", known.join(", "));
        }
        self.log.fate(agent)
    }

    /// Returns how many lives of an agent, or of a role's agents, ended badly.
    ///
    /// # Panics
    /// As [`World::fate_of`].
    pub fn crashes_of(&self, agent: &str) -> u64 {
        self.fate_of(agent).crashes
    }

    /// Returns how often an agent, or the agents of a role, were restarted.
    ///
    /// # Panics
    /// As [`World::fate_of`].
    pub fn restarts_of(&self, agent: &str) -> u64 {
        self.fate_of(agent).restarts
    }

    /// Returns whether an agent, or one of a role's agents, is quarantined now.
    ///
    /// # Panics
    /// As [`World::fate_of`].
    pub fn is_quarantined(&self, agent: &str) -> bool {
        self.fate_of(agent).is_quarantined
    }
}
