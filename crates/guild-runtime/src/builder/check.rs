//! Checks what was declared, and works out what follows from it.

use std::collections::{BTreeMap, BTreeSet};

use guild_core::id::RoleId;
use guild_core::supervision::{RoleSpec, SupervisorSpec, Tree, TreeSpec};

use super::{GuildBuilder, StartError};
use crate::agent::Factory;

impl GuildBuilder {
    /// Finds what is wrong with the declarations, before anything is opened.
    pub(super) fn check(&self) -> Result<(), StartError> {
        if self.roles.is_empty() {
            return Err(StartError::NoRole);
        }
        let (chars_max, agents_max) = (self.limits.name_chars_max, self.limits.agents_per_role_max);
        let mut seen = BTreeSet::new();
        let roles = self.roles.iter().map(|(name, ..)| ("role", name));
        let quotas = self.quotas.iter().map(|(name, _)| ("quota", name));
        for (kind, name) in roles.chain(quotas) {
            let chars = name.chars().count();
            if chars == 0 || chars > chars_max {
                return Err(StartError::Name { name: name.clone(), chars, chars_max });
            }
            if !seen.insert((kind, name)) {
                return Err(StartError::Duplicate(name.clone()));
            }
        }
        for (role, agents, _) in &self.roles {
            if *agents == 0 || *agents > agents_max {
                return Err(StartError::Agents { role: role.clone(), agents: *agents, agents_max });
            }
        }
        if let Some((name, _)) = self.quotas.iter().find(|(_, spec)| !spec.is_usable()) {
            return Err(StartError::EmptyQuota(name.clone()));
        }
        let places: Vec<RoleId> = (0..).map(RoleId).take(self.roles.len()).collect();
        self.tree(&places).map(drop)
    }

    /// Builds the supervision tree of roles with these numbers.
    pub(super) fn tree(&self, ids: &[RoleId]) -> Result<Tree, StartError> {
        let is_role = |name: &&String| self.roles.iter().any(|(role, ..)| role == *name);
        let mut named = self.supervised.keys().chain(self.bulkheads.keys());
        if let Some(name) = named.find(|name| !is_role(name)) {
            return Err(StartError::UnknownRole(name.clone()));
        }
        let default = SupervisorSpec { restart: self.restart.clone(), ..SupervisorSpec::default() };
        let role = |((name, agents, _), role): (&(String, u32, Factory), &RoleId)| RoleSpec {
            name: name.as_str().into(),
            role: *role,
            agents: *agents,
            supervisor: self.supervised.get(name).unwrap_or(&default).clone(),
        };
        let roles = self.roles.iter().zip(ids).map(role).collect();
        let spec = TreeSpec { root: self.root.clone(), roles, groups: self.groups.clone() };
        Ok(spec.build()?)
    }

    /// Returns how many threads agents share: one less than there are cores, unless that was declared.
    pub(super) fn shared_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.agent_threads.unwrap_or_else(|| cores.saturating_sub(1).max(1))
    }

    /// Returns the roles, by these numbers, that have threads for themselves, and how many.
    pub(super) fn own_threads(&self, ids: &[RoleId]) -> BTreeMap<RoleId, usize> {
        let own = |((name, ..), role): (&(String, u32, Factory), &RoleId)| {
            Some((*role, *self.bulkheads.get(name)?))
        };
        self.roles.iter().zip(ids).filter_map(own).collect()
    }
}
